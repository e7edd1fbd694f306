"""Where and how two tensors differ, in blocks: a tensor of a hundred million elements is never copied as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["WANTED", "Extreme", "Histogram", "Unwanted", "by_channel", "by_place", "extremes", "histogram", "reduced"]

Array = np.ndarray

WANTED: ContextVar[Callable[[], bool]] = ContextVar("wanted", default=lambda: True)
"""Asked between blocks: whether anybody still waits for what is looked through."""

_BLOCK = 1 << 21
"""Elements that are looked at in one go."""


class Unwanted(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Extreme:
    """One element at which the sides are far apart: its index, and both values."""

    index: tuple[int, ...]
    ref: float
    keras: float

    @property
    def difference(self) -> float:
        """Keras less the reference."""
        return self.keras - self.ref


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often values of each bin occur on both sides; `edges` has one entry more than the counts."""

    edges: Array
    ref: Array
    keras: Array


def extremes(expected: Array, actual: Array, count: int) -> list[Extreme]:
    """The elements at which two tensors of one shape are furthest apart, the worst first; NaN on either side leads."""
    sizes, places = np.zeros(0), np.zeros(0, np.int64)
    for start, mine, theirs in _flat(expected, actual):
        with np.errstate(all="ignore"):
            gap = np.abs(theirs.astype(np.float64) - mine)
        gap[np.isnan(gap)] = np.inf
        best = np.argpartition(-gap, count - 1)[:count] if gap.size > count else np.arange(gap.size)
        sizes, places = np.concatenate([sizes, gap[best]]), np.concatenate([places, best + start])
        kept = np.argsort(-sizes, kind="stable")[:count]
        sizes, places = sizes[kept], places[kept]
    found: list[Extreme] = []
    for place in places:
        index = tuple(int(i) for i in np.unravel_index(place, expected.shape))
        found.append(Extreme(index, float(expected[index]), float(actual[index])))
    return found


def histogram(expected: Array, actual: Array, bins: int) -> Histogram:
    """Both tensors' values in common bins; what is not finite is left out."""
    low, high = np.inf, -np.inf
    for side in (expected, actual):
        for _, part in _flat(side):
            kept = _finite(part)
            if kept.size:
                low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    if low > high:
        low, high = 0.0, 1.0
    high = high if high > low else low + 1.0
    edges = np.linspace(low, high, bins + 1)
    counts = [np.zeros(bins, np.int64) for _ in range(2)]
    for held, side in zip(counts, (expected, actual), strict=True):
        for _, part in _flat(side):
            # told of the ends alone, numpy need not sort: a fifth of the time, and the same counts
            held += np.histogram(_finite(part).astype(np.float64), bins, (low, high))[0]
    return Histogram(edges, *counts)


def by_channel(expected: Array, actual: Array) -> Array:
    """Root mean square of the difference in each channel (the last axis)."""
    channels = expected.shape[-1] if expected.ndim else 1
    mine, theirs = expected.reshape(-1, channels), actual.reshape(-1, channels)
    total, step = np.zeros(channels), max(1, _BLOCK // max(1, channels))
    for start in range(0, len(mine), step):
        gap = theirs[start : start + step].astype(np.float64) - mine[start : start + step]
        total += np.einsum("ij,ij->j", gap, gap)
    return np.sqrt(total / max(1, len(mine)))


def by_place(expected: Array, actual: Array, *, kernel: bool) -> Array:
    """Root mean square of the difference at each place: (h, w), or () where there are no places.

    Args:
        expected: n h w c, or of a kernel h w i o.
        actual: likewise.
        kernel: whether it is a kernel, whose channels are the last two axes.
    """
    if kernel and expected.ndim == 4:
        places = expected.shape[:2]
        made = np.zeros(places)
        for at in np.ndindex(places):
            made[at] = _mean_square(expected[at], actual[at])
        return np.sqrt(made)
    if expected.ndim < 3:
        return np.sqrt(_mean_square(expected, actual))
    total = np.zeros(expected.shape[1:-1])
    for mine, theirs in zip(expected, actual, strict=True):
        gap = theirs.astype(np.float64) - mine
        total += np.square(gap, out=gap).mean(axis=-1)
    return np.sqrt(total / max(1, len(expected)))


def reduced(value: Array, height: int, width: int) -> Array:
    """A matrix of at most (height, width), whose cells hold the entry of greatest magnitude of what they cover.

    NaN is greater than everything: it must be seen wherever it is.
    """
    rows, columns = value.shape
    down, across = -(-rows // max(1, height)), -(-columns // max(1, width))
    if down == across == 1 or not value.size:
        return value.astype(np.float64)

    def ends(rule: np.ufunc) -> Array:
        tall = rule.reduceat(value, np.arange(0, rows, down), axis=0)
        return rule.reduceat(tall, np.arange(0, columns, across), axis=1).astype(np.float64)

    low, high = ends(np.minimum), ends(np.maximum)
    return np.where(-low > high, low, high)


def _flat(*tensors: Array) -> Iterator[tuple[Any, ...]]:
    """(place of its first element, a block of each tensor), one after the other."""
    views = [tensor.reshape(-1) for tensor in tensors]
    for start in range(0, views[0].size, _BLOCK):
        if not WANTED.get()():
            raise Unwanted
        yield (start, *(view[start : start + _BLOCK] for view in views))


def _finite(part: Array) -> Array:
    return part[np.isfinite(part)]


def _mean_square(expected: Array, actual: Array) -> float:
    total = 0.0
    for _, mine, theirs in _flat(expected, actual):
        gap = theirs.astype(np.float64) - mine
        total += float(np.dot(gap, gap))
    return total / max(1, expected.size)
