"""How far apart two tensors are.

Everything is measured per channel (the last axis): a wrong channel of small values must not hide behind large ones, and
a wrong border not behind a large interior, so the largest difference counts beside the root mean square.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np

__all__ = ["PEAK", "SQUARABLE", "TINY", "Distance", "channel_rms", "channel_sum", "distance", "rms"]

Array = np.ndarray

T = TypeVar("T")
R = TypeVar("R")

PEAK = 8.0
"""How many root mean squares the largest of a few million rounding errors may be (normal: 5.5; products have tails)."""

SQUARABLE = (1e-15, 1e15)
"""Sizes whose squares float32 holds, with room for a sum of many and for much smaller ones beside them."""

_WIDE = 1024
"""Entries of a row along which numpy is fast."""

_BLOCK = 1 << 18
"""Entries that are looked at in one go: they stay in the processor's cache, and a large tensor needs no second one."""

_LARGE = 1 << 20
"""Entries from which on several threads measure a distance: to wake them takes longer than a smaller one."""

_THREADS = min(4, os.cpu_count() or 1)
"""How many: more would wait for the memory."""

_FEW = 16
"""Terms that are added up in float32: what that rounds is far below what rounding does to the whole sum."""

TINY = float(np.finfo(np.float32).tiny)
"""The smallest float32 that is not rounded off to fewer bits; a floor is no lower."""


@dataclass(frozen=True, eq=False)
class Distance:
    """How far an actual tensor is from the expected one.

    Attributes:
        max_abs: largest absolute difference.
        rms: root mean square of the difference.
        scale: root mean square of the expected tensor; 0 where the two are equal (nobody asks then).
        channel_rms, channel_max: the same per channel.
        own: the expected tensor's own root mean square per channel; None where nobody looked.
        images: 2 x n, the largest difference and the root mean square of each image; None where nobody looked.
        finite: False where one side is NaN or infinite and the other is not the same.
    """

    max_abs: float
    rms: float
    scale: float
    channel_rms: Array
    channel_max: Array
    finite: bool = True
    own: Array | None = None
    images: Array | None = None

    @property
    def relative(self) -> float:
        """Root mean square of the difference relative to that of the expected tensor."""
        if self.rms == 0:
            return 0.0
        return self.rms / self.scale if self.scale > 0 else math.inf

    def x_floor(self, floor: Array) -> float:
        """The distance in units of the floor, in the worst channel.

        Args:
            floor: root mean square that rounding alone may cause, per channel (or one number).
        """
        if not self.finite:
            return math.inf
        if self.max_abs == 0:
            return 0.0
        return float(np.max(self.x_floors(floor)))

    def x_floors(self, floor: Array) -> Array:
        """The same of each channel."""
        limit = np.maximum(floor, TINY)
        return np.maximum(self.channel_rms / limit, self.channel_max / (PEAK * limit))


def distance(actual: Array, expected: Array, *, by_image: bool = False) -> Distance:
    """Measure `actual` against `expected`, of the same shape; NaN equals NaN, an infinity the same infinity.

    Args:
        actual: a tensor, n … c.
        expected: what it should be.
        by_image: measure each image as well.
    """
    rows_a, rows_e = _rows(actual), _rows(expected)
    zero = np.zeros(rows_e.shape[-1])
    few = slice(None, None, max(1, len(rows_e) // 8))  # a few rows tell most different tensors apart
    if np.array_equal(rows_a[few], rows_e[few], equal_nan=True) and np.array_equal(rows_a, rows_e):
        return Distance(0.0, 0.0, 0.0, zero, zero)
    images = max(1, len(expected)) if by_image and np.ndim(expected) > 1 else 1
    with np.errstate(all="ignore"):
        sums = _looked(rows_a, rows_e, images)
        if not np.isfinite(sums.top).all():
            sums = _looked(rows_a, rows_e, images, skip=True)
    own = _root_mean(sums.own, rows_e)
    scale = float(np.sqrt(np.mean(np.square(own))))
    if not np.isfinite(sums.top).all():
        return Distance(math.inf, math.inf, scale, zero + math.inf, zero + math.inf, False, own)
    peak, unit = float(sums.top.max(initial=0.0)), 1.0
    if peak == 0:
        return Distance(0.0, 0.0, scale, zero, zero, own=own)
    if not SQUARABLE[0] < peak < SQUARABLE[1]:
        unit = peak
        sums = _looked(rows_a, rows_e, images, unit, skip=True)
    channel = unit * np.sqrt(sums.squares.sum(axis=0) / max(1, len(rows_e)))
    image = unit * np.sqrt(sums.squares.sum(axis=1) / max(1, rows_e.size // images))
    return Distance(
        peak,
        float(np.sqrt(np.mean(channel**2))),
        scale,
        channel,
        sums.top.max(axis=0),
        own=own,
        images=np.stack([sums.top.max(axis=1), image]) if by_image else None,
    )


@dataclass(frozen=True, eq=False)
class _Sums:
    """What was added up over the rows of two tensors, in float64.

    Attributes:
        top: images x channels, the largest difference; infinite or NaN where the two are not both finite.
        squares: images x channels, the sum of the squares of the differences, in the unit asked for.
        own: per channel, the sum of the squares of the expected tensor itself, in no unit.
    """

    top: Array
    squares: Array
    own: Array


def _looked(rows_a: Array, rows_e: Array, images: int, unit: float = 1.0, *, skip: bool = False) -> _Sums:
    """Look at both tensors, block by block, a large one on several threads.

    Args:
        rows_a: a tensor as (elements, channels).
        rows_e: the other one, of the same shape.
        images: how many images they hold.
        unit: what differences are divided by before they are squared.
        skip: let equal infinities and two NaN be no difference, which takes a look at each entry.
    """
    channels = rows_e.shape[1]
    found: list[_Sums] = []
    for mine, theirs in zip(_folded(rows_a, images), _folded(rows_e, images), strict=True):
        if mine.size:
            top, squares, own = _blockwise(mine, theirs, unit, skip).reshape(3, images, -1, channels)
            found.append(_Sums(top.max(axis=1), squares.sum(axis=1), own.sum(axis=(0, 1))))
    if not found:
        return _Sums(np.zeros((images, channels)), np.zeros((images, channels)), np.zeros(channels))
    first, *others = found
    for other in others:
        top = np.maximum(first.top, other.top)
        first = _Sums(top, first.squares + other.squares, first.own + other.own)
    return first


def _blockwise(mine: Array, theirs: Array, unit: float, skip: bool) -> Array:
    """Largest differences, and sums of the squares of differences and of the second tensor, of each block of rows.

    Both tensors are (images, rows, columns); a block is several whole images, or a part of one. The three are given
    as (3, images, as many as blocks are in an image, columns), in float64.
    """
    count, length, width = theirs.shape
    step = max(1, _BLOCK // width)
    several = max(1, step // length)
    blocks = [
        (slice(image, image + several), slice(at, at + step))
        for image in range(0, count, several)
        for at in range(0, length, step)
    ]

    def looked(blocks: Sequence[tuple[slice, slice]]) -> list[tuple[Array, Array, Array]]:
        room = np.empty(min(several, count) * min(step, length) * width, np.result_type(mine, theirs))
        found = []
        with np.errstate(all="ignore"):
            for at in blocks:
                a, e = mine[at], theirs[at]
                gap = np.subtract(a, e, out=room[: e.size].reshape(e.shape))
                np.abs(gap, out=gap)
                if skip:
                    gap[(a == e) | (np.isnan(a) & np.isnan(e))] = 0
                top = gap.max(axis=1)
                if unit != 1.0:
                    gap /= gap.dtype.type(unit)
                found.append((top, _squares(gap), _squares(e)))
        return found

    found = looked(blocks) if theirs.size < _LARGE else _spread(looked, blocks)
    joined = [np.concatenate(part) for part in zip(*found, strict=True)]
    return np.array(joined, np.float64).reshape(3, count, -1, width)


def _root_mean(squares: Array, rows: Array) -> Array:
    """The root mean squares of channels of which the sums of squares are known, if float32 held them."""
    if rows.size and np.isfinite(squares).all() and squares.max() >= SQUARABLE[0] ** 2:
        return np.sqrt(squares / len(rows))
    return channel_rms(rows)


def _spread(call: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """What a call gives for all items, some of them on other threads, in their order."""
    ends = [len(items) * n // _THREADS for n in range(_THREADS + 1)]
    first, *others = (items[start:stop] for start, stop in pairwise(ends))
    waited = [_workers().submit(call, part) for part in others]
    return [*call(first), *(found for other in waited for found in other.result())]


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _THREADS - 1), thread_name_prefix="distance")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)  # a process that forks does not hand its threads on


def _rows(value: Array) -> Array:
    """The tensor as (elements, channels); scalars as (1, 1)."""
    value = np.asarray(value)
    if value.ndim == 0:
        return value.reshape(1, 1)
    return value.reshape(-1, value.shape[-1]) if value.size else value.reshape(0, max(1, value.shape[-1]))


def _folded(rows: Array, images: int = 1) -> tuple[Array, Array]:
    """Rows of few channels as wide ones, several of them beside each other, and the rows that are left over, by image.

    numpy goes along short rows several times as slowly as along long ones.
    """
    count, channels = len(rows) // images, rows.shape[1]
    several = _beside(count, channels)
    whole = count - count % several
    each = rows.reshape(images, count, channels)
    return each[:, :whole].reshape(images, whole // several, several * channels), each[:, whole:]


@lru_cache(maxsize=1024)
def _beside(count: int, channels: int) -> int:
    """How many rows are taken beside each other: such that none is left over, if they are wide then."""
    most = max(1, min(count, _WIDE // max(1, channels)))
    whole = next(several for several in range(most, 0, -1) if count % several == 0)
    return whole if 4 * whole * channels >= _WIDE else most


def _squares(rows: Array) -> Array:
    """The sum of the squares of each column of each image, (images, rows, columns)."""
    return np.einsum("nij,nij->nj", rows, rows)


def channel_sum(value: Array) -> Array:
    """The sum of each channel (last axis) in float64, but for a few terms at a time: of their rounding 1 u is left."""
    rows = _rows(value)
    (wide,), (left,) = _folded(rows)
    whole = len(wide) - len(wide) % _FEW
    few = wide[:whole].reshape(-1, _FEW, wide.shape[1]).sum(axis=1)
    total = sum(part.sum(axis=0, dtype=np.float64) for part in (few, wide[whole:]))
    return np.reshape(total, (-1, rows.shape[1])).sum(axis=0) + left.sum(axis=0, dtype=np.float64)


def _sum_of_squares(rows: Array) -> Array:
    """The sum of squares of each channel, of a large tensor on several threads."""

    def added(starts: Sequence[int]) -> list[Array]:
        folded = [part for at in starts for part in _folded(rows[at : at + step])]
        return [_squares(part)[0].astype(np.float64).reshape(-1, rows.shape[1]).sum(axis=0) for part in folded]

    step = max(1, _BLOCK // rows.shape[1])
    starts = range(0, len(rows), step)
    return np.sum(added(starts) if rows.size < _LARGE else _spread(added, starts), axis=0)


def rms(value: Array) -> float:
    """Root mean square of the finite part of a tensor."""
    return float(np.sqrt(np.mean(np.square(channel_rms(value)))))


def channel_rms(value: Array) -> Array:
    """Root mean square of the finite part of a tensor, per channel (last axis)."""
    rows = _rows(value)
    if rows.size == 0:
        return np.zeros(rows.shape[-1])
    with np.errstate(all="ignore"):
        squares = _sum_of_squares(rows)
        if not np.isfinite(squares).all() or squares.max() < SQUARABLE[0] ** 2:
            rows = np.where(np.isfinite(rows), rows, 0).astype(np.float64)
            squares = _sum_of_squares(rows)
    return np.sqrt(squares / rows.shape[0])
