"""How far two recorded tensors are apart, measured block by block."""

from __future__ import annotations

import math

import numpy as np

from parity.tensors import shaped
from parity.tolerance import Distance, distance, rms
from parity.traces.held import Held

__all__ = ["Gap", "gap"]

Array = np.ndarray


class Gap:
    """The distance of an actual tensor from the expected one, added up block by block along the first axis."""

    def __init__(self) -> None:
        self.rows = 0
        self.squares: Array | float = 0.0
        self.top: Array | float = 0.0
        self.expected = 0.0
        self.count = 0
        self.finite = True

    def add(self, actual: Array, expected: Array) -> None:
        """Add a block of both, of one shape."""
        apart = distance(actual, expected)
        rows = max(1, expected.size // max(1, apart.channel_rms.size))
        self.rows += rows
        self.squares = self.squares + np.square(apart.channel_rms) * rows
        self.top = np.maximum(self.top, apart.channel_max)
        self.finite &= apart.finite
        size = apart.scale if apart.rms > 0 else rms(expected)
        self.expected += size**2 * expected.size
        self.count += expected.size

    def distance(self) -> Distance:
        """Of all blocks."""
        scale = math.sqrt(self.expected / max(1, self.count))
        top = np.atleast_1d(np.asarray(self.top, np.float64))
        if not self.finite:
            return Distance(math.inf, math.inf, scale, top + math.inf, top + math.inf, finite=False)
        channel = np.sqrt(np.atleast_1d(np.asarray(self.squares, np.float64)) / max(1, self.rows))
        return Distance(float(top.max(initial=0.0)), float(np.sqrt(np.mean(channel**2))), scale, channel, top)


def gap(actual: Held, expected: Held) -> tuple[Distance | None, str]:
    """How far two recorded tensors are apart, by as much of them as both traces keep.

    Returns:
        The distance, and in a few words what it was measured by; or None, and why it cannot be said.
    """
    if actual.kept == expected.kept == "all":
        return _whole(actual, expected)
    mine, theirs = expected.shape, actual.shape
    if math.prod(mine) != math.prod(theirs) or mine[:1] != theirs[:1]:
        return None, f"shape {theirs[1:]} against {mine[1:]}"
    apart = actual.sketch().distance(expected.sketch())
    if mine[-1:] != theirs[-1:]:  # rows and channels of the one are not those of the other
        if math.isnan(apart.rms):
            return None, "only statistics were kept, of tensors of other shapes"
        return apart, "by statistics"
    few, other = expected.sample(), actual.sample()
    if few is None or other is None:
        return apart, "by statistics"
    near = distance(other, few)
    if not (near.finite and apart.finite):
        return (near if not near.finite else apart), "by a sample"
    # What the sample shows is exact; what it misses, the statistics bound.
    channel, top = (np.maximum(a, b) for a, b in zip(_channels(near), _channels(apart), strict=True))
    return Distance(float(top.max()), max(near.rms, apart.rms), apart.scale, channel, top), "by a sample and statistics"


def _channels(apart: Distance) -> tuple[Array, Array]:
    return apart.channel_rms, apart.channel_max


def _whole(actual: Held, expected: Held) -> tuple[Distance | None, str]:
    mine, theirs = expected.shape, actual.shape
    if math.prod(mine) != math.prod(theirs) or mine[:1] != theirs[:1]:
        return None, f"shape {theirs[1:]} against {mine[1:]}"
    found, step = Gap(), max(expected.step, actual.step)
    for a, b in zip(expected.blocks(step), actual.blocks(step), strict=True):
        fits = shaped(b, a.shape)
        if fits is None:
            return None, f"shape {theirs[1:]} against {mine[1:]}"
        found.add(fits, a)
    return found.distance(), ""
