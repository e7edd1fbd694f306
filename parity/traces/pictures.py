"""What the tensors of two traces show, of as much of them as both keep."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from parity.align import Pair
from parity.case import Comparison
from parity.detail import Sample
from parity.stretches import Tensor
from parity.traces.held import Held
from parity.traces.reader import Trace
from parity.traces.recorded import Laid
from parity.traces.sketch import places
from parity.updates import Move

__all__ = ["LARGEST", "look_at_gradient", "look_at_held", "look_at_moves"]

Array = np.ndarray

LARGEST = 1 << 24
"""Elements of the largest tensor that is looked into whole: it must be held, on both sides."""


def look_at_held(
    run: Comparison, pair: Pair, tensor: tuple[str, str], actual: Held, expected: Held, floor: float | None
) -> None:
    """Keep what two tensors show; of those that are large, or not kept whole, what the same sample of both shows.

    Args:
        run: the comparison; nothing is done where it has no album.
        pair: whose tensor it is.
        tensor: its phase and name.
        actual: the Keras side's.
        expected: the reference's.
        floor: the noise floor, absolute.
    """
    if run.album is None or math.prod(actual.shape) != math.prod(expected.shape):
        return
    names = pair.ref.name, pair.keras.origin
    if actual.kept == expected.kept == "all" and math.prod(expected.shape) <= LARGEST:
        run.album.look(names, *tensor, (actual.value(), expected.value()), floor=floor)
        return
    if actual.shape[-1:] != expected.shape[-1:] or "stats" in (actual.kept, expected.kept):
        return  # of tensors with the same rows, the same ones were sampled
    few, other = actual.sample(), expected.sample()
    if few is not None and other is not None:
        sample = Sample(expected.shape, places(expected.shape))
        run.album.look(names, *tensor, (few, other), floor=floor, sample=sample)


def look_at_gradient(
    run: Comparison, pair: Pair, name: str, actual: Tensor, expected: Tensor, axes: str, floor: float | None
) -> None:
    """Keep what a parameter's gradient shows, where it is not too large.

    Args:
        run: the comparison.
        pair: whose parameter it is.
        name: of the gradient.
        actual: the Keras side's.
        expected: the reference's, in the Keras layout.
        axes: of the parameter.
        floor: the noise floor, absolute.
    """
    shape = tuple(expected.shape)
    if run.album is not None and math.prod(shape) <= LARGEST:
        both = _array(actual).reshape(shape), _array(expected)
        run.album.look((pair.ref.name, pair.keras.origin), "backward", name, both, floor=floor, axes=axes)


def look_at_moves(run: Comparison, ref: Trace, keras: Trace, moves: Sequence[Move]) -> None:
    """Keep the first move of each parameter in which the two traces part."""
    if run.album is None:
        return
    network, seen = run.keras.network, set[str]()
    for move in moves:
        link, key = move.link, move.link.keras
        if move.status != "born" or key in seen or math.prod(move.shape) > LARGEST:
            continue
        seen.add(key)
        steps = move.step - 1, move.step
        start, goal = (_array(Laid((link,), ref, f"weights/{k}", network)[key]) for k in steps)
        before, after = (keras.unread(f"weights/{k}")[key].value() for k in steps)
        names, axes = (link.pair.ref.name, link.pair.keras.origin), network.params[key].axes
        both = after - before, goal - start
        run.album.look(names, "update", link.role, both, step=move.step, floor=move.floor, axes=axes)


def _array(value: Tensor) -> Array:
    return value if isinstance(value, np.ndarray) else value.span(0, math.prod(value.shape)).reshape(value.shape)
