"""How far apart two tensors are.

Everything is measured per channel (the last axis): a wrong channel of small values must not hide behind large ones, and
a wrong border not behind a large interior, so the largest difference counts beside the root mean square.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

__all__ = ["SQUARABLE", "Distance", "channel_rms", "channel_sum", "distance", "rms"]

Array = np.ndarray

_PEAK = 8.0
"""How many root mean squares the largest of a few million rounding errors may be (normal: 5.5; products have tails)."""

SQUARABLE = (1e-15, 1e15)
"""Sizes whose squares float32 holds, with room for a sum of many and for much smaller ones beside them."""

_WIDE = 1024
"""Entries of a row along which numpy is fast."""

_BLOCK = 1 << 18
"""Entries that are looked at in one go: they stay in the processor's cache, and a large tensor needs no second one."""

_LARGE = 1 << 22
"""Entries from which on several threads measure a distance: to wake them takes longer than a smaller one."""

_PARTS = 4
"""In how many parts: as many on every machine, so that the same numbers come out."""

_FEW = 16
"""Terms that are added up in float32: what that rounds is far below what rounding does to the whole sum."""

_TINY = float(np.finfo(np.float32).tiny)


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
        limit = np.maximum(floor, _TINY)
        return np.maximum(self.channel_rms / limit, self.channel_max / (_PEAK * limit))


def distance(actual: Array, expected: Array, *, by_image: bool = False) -> Distance:
    """Measure `actual` against `expected`, of the same shape; NaN equals NaN, an infinity the same infinity.

    Args:
        actual: a tensor, n … c.
        expected: what it should be.
        by_image: measure each image as well.
    """
    rows_a, rows_e = _rows(actual), _rows(expected)
    zero = np.zeros(rows_e.shape[-1])
    # The first rows tell most different tensors apart without a look at all of them.
    if np.array_equal(rows_a[:64], rows_e[:64], equal_nan=True) and np.array_equal(rows_a, rows_e):
        return Distance(0.0, 0.0, 0.0, zero, zero)
    images = max(1, len(expected)) if by_image and np.ndim(expected) > 1 else 1
    sums = _looked(rows_a, rows_e, images)
    own = _root_mean(sums.own, rows_e)
    scale = float(np.sqrt(np.mean(np.square(own))))
    if not np.isfinite(sums.top).all():
        return Distance(math.inf, math.inf, scale, zero + math.inf, zero + math.inf, False, own)
    peak, unit = float(sums.top.max(initial=0.0)), 1.0
    if peak == 0:
        return Distance(0.0, 0.0, scale, zero, zero, own=own)
    if not SQUARABLE[0] < peak < SQUARABLE[1]:
        unit = peak
        sums = _looked(rows_a, rows_e, images, unit)
    channel = unit * np.sqrt(sums.squares / max(1, len(rows_e)))
    each = np.stack([sums.image_top, unit * np.sqrt(sums.image_squares / max(1, rows_e.size // images))])
    return Distance(
        peak,
        float(np.sqrt(np.mean(channel**2))),
        scale,
        channel,
        sums.top,
        own=own,
        images=each if by_image else None,
    )


class _Sums:
    """What looks at blocks of two tensors add up.

    Attributes:
        top: largest difference per channel; infinite or NaN where the two are not both finite or the same.
        squares: sum of the squares of the differences per channel, in the unit asked for.
        own: the same of the expected tensor itself, in no unit.
        image_top, image_squares: largest difference and sum of squares per image.
    """

    def __init__(self, channels: int, images: int) -> None:
        self.top, self.squares, self.own = np.zeros(channels), np.zeros(channels), np.zeros(channels)
        self.image_top, self.image_squares = np.zeros(images), np.zeros(images)

    def look(self, mine: Array, theirs: Array, images: slice, unit: float, room: Array) -> None:
        """Add a block of rows: of several whole images, or of a part of one.

        Equal infinities and two NaN are no difference; any other makes the largest one infinite or NaN.
        """
        gap = room[: len(mine)]
        np.subtract(mine, theirs, out=gap)
        np.abs(gap, out=gap)
        count = images.stop - images.start
        largest = _largest(gap, count)
        if not np.isfinite(largest).all():
            gap[(mine == theirs) | (np.isnan(mine) & np.isnan(theirs))] = 0
            largest = _largest(gap, count)
        if unit != 1.0:
            gap /= gap.dtype.type(unit)
        squares = _squares(gap, count)
        np.maximum(self.top, largest.max(axis=0), out=self.top)
        self.squares += squares.sum(axis=0)
        self.own += _squares(theirs)[0]
        np.maximum(self.image_top[images], largest.max(axis=1, initial=0.0), out=self.image_top[images])
        self.image_squares[images] += squares.sum(axis=1)

    def join(self, other: _Sums) -> None:
        """Add what was added up elsewhere."""
        np.maximum(self.top, other.top, out=self.top)
        np.maximum(self.image_top, other.image_top, out=self.image_top)
        self.squares += other.squares
        self.own += other.own
        self.image_squares += other.image_squares


def _looked(rows_a: Array, rows_e: Array, images: int, unit: float = 1.0) -> _Sums:
    """Both tensors, block by block, a large one on several threads; differences are squared in this unit."""
    count, channels = rows_e.shape
    each, step = count // images, max(1, _BLOCK // max(1, channels))
    several = max(1, step // max(1, each))  # images in a block
    blocks = [
        (slice(image, min(image + several, images)), at, min(at + step, (image + several) * each, count))
        for image in range(0, images, several)
        for at in range(image * each, min(image + several, images) * each, step)
    ]

    def added(blocks: Sequence[tuple[slice, int, int]]) -> _Sums:
        sums = _Sums(channels, images)
        longest = max((stop - start for _, start, stop in blocks), default=0)
        room = np.empty((longest, channels), np.result_type(rows_a, rows_e))
        with np.errstate(all="ignore"):
            for which, start, stop in blocks:
                sums.look(rows_a[start:stop], rows_e[start:stop], which, unit, room)
        return sums

    if rows_e.size < _LARGE:
        return added(blocks)
    parts = [blocks[len(blocks) * n // _PARTS : len(blocks) * (n + 1) // _PARTS] for n in range(_PARTS)]
    first, *others = _workers().map(added, parts)
    for other in others:
        first.join(other)
    return first


def _root_mean(squares: Array, rows: Array) -> Array:
    """The root mean squares of channels of which the sums of squares are known, if float32 held them."""
    if rows.size and np.isfinite(squares).all() and squares.max() >= SQUARABLE[0] ** 2:
        return np.sqrt(squares / len(rows))
    return channel_rms(rows)


@cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_PARTS, os.cpu_count() or 1), thread_name_prefix="distance")


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
    return each[:, :whole].reshape(images, -1, several * channels), each[:, whole:]


@lru_cache(maxsize=1024)
def _beside(count: int, channels: int) -> int:
    """How many rows are taken beside each other: such that none is left over, if they are wide then."""
    most = max(1, min(count, _WIDE // max(1, channels)))
    whole = next(several for several in range(most, 0, -1) if count % several == 0)
    return whole if 4 * whole * channels >= _WIDE else most


def _largest(rows: Array, images: int = 1) -> Array:
    """The largest entry of each channel of each image, 0 where there is none."""
    wide, left = _folded(rows, images)
    top = wide.max(axis=1, initial=0.0).reshape(images, -1, rows.shape[1]).max(axis=1, initial=0.0)
    if left.size:
        top = np.maximum(top, left.max(axis=1))
    return top.astype(np.float64)


def _squares(rows: Array, images: int = 1) -> Array:
    """The sum of squares of each channel of each image."""
    wide, left = _folded(rows, images)
    folded = np.einsum("nij,nij->nj", wide, wide).astype(np.float64)
    total = folded.reshape(images, -1, rows.shape[1]).sum(axis=1)
    return total + np.einsum("nij,nij->nj", left, left) if left.size else total


def channel_sum(value: Array) -> Array:
    """The sum of each channel (last axis) in float64, but for a few terms at a time: of their rounding 1 u is left."""
    rows = _rows(value)
    (wide,), (left,) = _folded(rows)
    whole = len(wide) - len(wide) % _FEW
    few = wide[:whole].reshape(-1, _FEW, wide.shape[1]).sum(axis=1)
    total = sum(part.sum(axis=0, dtype=np.float64) for part in (few, wide[whole:]))
    return np.reshape(total, (-1, rows.shape[1])).sum(axis=0) + left.sum(axis=0, dtype=np.float64)


def _sum_of_squares(rows: Array) -> Array:
    """As `_squares`, of a large tensor on several threads."""
    if rows.size < _LARGE:
        return _squares(rows)[0]
    ends = [len(rows) * n // _PARTS for n in range(_PARTS + 1)]
    return np.sum([*_workers().map(lambda a, b: _squares(rows[a:b])[0], ends[:-1], ends[1:])], axis=0)


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
