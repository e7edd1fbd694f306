"""What dropout keeps is the same on both sides: whoever ran first settles it for the other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from parity.align import Alignment
from parity.layers import Dropout
from parity.runner import Runner
from parity.tensors import fitted

__all__ = ["masks_for_keras", "masks_for_ref"]

Array = np.ndarray


def masks_for_ref(alignment: Alignment, masks: Mapping[str, Array]) -> dict[str, Array]:
    """Reference layer → the dropout mask that its Keras partner drew, in the reference's shape."""
    made: dict[str, Array] = {}
    for mine, theirs in _dropping(alignment, masks):
        own = fitted(masks[theirs], alignment.ref[mine].shape) if theirs in masks else None
        if own is not None:
            made[mine] = own
    return made


def masks_for_keras(alignment: Alignment, ref: Runner, step: int) -> dict[str, Array]:
    """Keras layer → what the reference kept there, in the Keras shape, where that is known before Keras runs.

    Args:
        alignment: who is whose partner.
        ref: the reference; a recorded run says by `drawn(step)` what its layers kept.
        step: from 1.
    """
    drawn = getattr(ref, "drawn", None)
    masks: Mapping[str, Array] = {} if drawn is None else drawn(step)
    kinds = {layer.name: layer.kind for layer in alignment.keras}
    able = {name for name, kind in kinds.items() if isinstance(kind, Dropout) and kind.rate > 0}
    made: dict[str, Array] = {}
    for mine, theirs in _dropping(alignment, able):
        own = fitted(masks[mine], alignment.keras[theirs].shape) if mine in masks and theirs in able else None
        if own is not None:
            made[theirs] = own
    return made


def _dropping(alignment: Alignment, able: Collection[str]) -> Iterator[tuple[str, str]]:
    """Dropout layers of the reference, each with its Keras partner, of which `able` are known to drop."""
    for pair in alignment.pairs:
        mine = [name for name in pair.ref.layers if isinstance(alignment.ref[name].kind, Dropout)]
        # A layer of the user's own may drop in the place of one; of several as many stand on the other side.
        theirs = [name for name in pair.keras.layers if name in able] if len(pair.ref.layers) > 1 else []
        yield from zip(mine, theirs or pair.keras.layers[-1:], strict=False)
