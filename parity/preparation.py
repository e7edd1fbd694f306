"""A Keras model that prepares its own images: what stands before its first layer makes the reference's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from parity.align import Alignment
from parity.layers import Rescale
from parity.tolerance import ROUNDOFF
from parity.units import Unit

__all__ = ["prepared"]

Array = np.ndarray


def prepared(
    alignment: Alignment, ref: Mapping[str, Array], keras: Mapping[str, Array]
) -> tuple[Alignment, Mapping[str, Array], tuple[str, ...]]:
    """Leaves out of the layers without a partner those that make the reference's images of the Keras side's.

    MatConvNet subtracts the average image before the network; a port may do that, or divide by 255, in its first
    layers. Where they make of what the Keras side is given just what the reference is given, nothing is extra.

    Args:
        alignment: who is whose partner.
        ref: what the reference is given (input → n h w c).
        keras: what the Keras side is given.

    Returns:
        The alignment without them; what the Keras side is given, prepared; a note on each.
    """
    fed, notes = dict(keras), []
    for theirs, mine in alignment.inputs.items():
        units = _front(alignment, theirs)
        if not units or mine not in ref or theirs not in keras or ref[mine].shape != keras[theirs].shape:
            continue
        made, largest = _rescaled(keras[theirs], units)
        given = np.asarray(ref[mine], np.float64)
        if _near(np.asarray(keras[theirs], np.float64), given, largest) or not _near(made, given, largest):
            continue
        fed[theirs] = np.asarray(ref[mine])
        alignment = replace(alignment, keras_only=tuple(u for u in alignment.keras_only if u not in units))
        names = ", ".join(unit.origin for unit in units)
        notes.append(f"The Keras model prepares its images itself: {names} makes the reference's inputs of them.")
    return alignment, fed, tuple(notes)


def _front(alignment: Alignment, tensor: str) -> list[Unit]:
    """Layers without a partner behind an input, one behind the other, that alone read what comes before them."""
    found: list[Unit] = []
    while True:
        readers = [unit for unit in alignment.keras_units if tensor in unit.inputs]
        alone = len(readers) == 1 and readers[0] in alignment.keras_only
        if not alone or not isinstance(readers[0].kind, Rescale) or tensor in alignment.keras.outputs:
            return found
        found.append(readers[0])
        tensor = readers[0].output


def _rescaled(images: Array, units: list[Unit]) -> tuple[Array, float]:
    """What these layers make of images, and the largest number on the way, which is rounded."""
    x = np.asarray(images, np.float64)
    largest = 0.0
    for unit in units:
        assert isinstance(unit.kind, Rescale)
        scale, offset = np.asarray(unit.kind.scale), np.asarray(unit.kind.offset)
        largest = max(largest, float(np.max(np.abs(x * scale), initial=0.0)))
        x = x * scale + offset
    return x, largest


def _near(a: Array, b: Array, size: float) -> bool:
    """Whether images are equal up to the rounding of a few operations on numbers of this size."""
    return float(np.max(np.abs(a - b), initial=0.0)) <= 8 * ROUNDOFF * max(size, float(np.max(np.abs(b), initial=0.0)))
