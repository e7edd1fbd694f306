"""What a trace keeps of a tensor that it does not keep whole: a sample of its places, and statistics per channel.

Beside mean, root mean square, least and greatest value there are a few sums of all values with random signs. The same
signs on both sides make them distances: the expected square of the difference of two such sums is the sum of the
squared differences, wherever in the tensor they are. So a tensor that was permuted or flipped is told from its like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from parity.distances import Distance

__all__ = ["PLACES", "SIGNED", "Sketch", "places"]

Array = np.ndarray

PLACES = 1 << 14
"""Elements of a sample, about."""

SIGNED = 8
"""Sums with random signs per channel: a distance made of them is within a factor of two, 19 times in 20."""

_FLAT = 1 << 16
"""Elements of an image up to which its tensor also has sums that do not depend on its shape."""

_BLOCK = 28_000
"""Elements that are added at once: they stay in a processor's cache, and are too few for a library to start threads."""


def places(shape: tuple[int, ...]) -> Array:
    """Which rows (all axes but the last, row-major) of a tensor are sampled: evenly spread, the same for each shape."""
    channels = shape[-1] if shape else 1
    rows = math.prod(shape[:-1]) if shape else 1
    count = min(rows, max(1, PLACES // max(1, channels)))
    return np.arange(count, dtype=np.int64) * rows // max(1, count)


@dataclass(eq=False)
class Sketch:
    """Statistics of a tensor per channel (its last axis), which are collected block by block.

    Attributes:
        shape: of the whole tensor.
        count: rows that were added so far.
        total, squares: sums of the finite values and of their squares, (c), float64.
        least, greatest: (c).
        signed: sums with random signs, (SIGNED, c), float64.
        flat: sums with a random sign for each image and one for each element of an image, (SIGNED), float64: the same
            for a map and for the vector that it is flattened to. NaN for large images.
        strange: values that are NaN or infinite.
    """

    shape: tuple[int, ...]
    count: int
    total: Array
    squares: Array
    least: Array
    greatest: Array
    signed: Array
    flat: Array
    strange: int = 0
    images: int = 0

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Sketch:
        """Nothing collected yet of a tensor of this shape."""
        c = shape[-1] if shape else 1
        zero, each = np.zeros(c), math.prod(shape[1:])
        flat = np.full(SIGNED, 0.0 if shape and each <= _FLAT else np.nan)
        return cls(shape, 0, zero, zero.copy(), np.full(c, np.inf), np.full(c, -np.inf), np.zeros((SIGNED, c)), flat)

    @classmethod
    def of(cls, value: Array) -> Sketch:
        """The statistics of a tensor in memory."""
        made = cls.empty(tuple(value.shape))
        made.add(value)
        return made

    def add(self, block: Array) -> None:
        """Add the next slab along the first axis (or the only value of a scalar)."""
        c = self.total.size
        if not np.isnan(self.flat).any():
            each = max(1, math.prod(self.shape[1:]))
            inner, step = _signs(0, each), max(1, (1 << 18) // each)
            for start in range(0, len(block), step):
                part = np.asarray(block[start : start + step], np.float64).reshape(-1, each)
                sums = part @ inner
                if not np.isfinite(sums).all():
                    sums = np.where(np.isfinite(part), part, 0.0) @ inner
                self.flat += np.einsum("ik,ik->k", _signs(self.images, len(part)), sums)
                self.images += len(part)
        rows = np.ascontiguousarray(block).reshape(-1, c)
        step = max(1, _BLOCK // max(1, c))
        for start in range(0, len(rows), step):
            self._add(np.asarray(rows[start : start + step], np.float64))

    def _add(self, rows: Array) -> None:
        count = len(rows)
        # One product gives the plain sum too, and shows whether a value is not finite: so is its column's sum then.
        signs = np.concatenate([_signs(self.count, count), np.ones((count, 1))], axis=1).T
        with np.errstate(all="ignore"):
            sums = signs @ rows
        if not np.isfinite(sums).all():
            finite = np.isfinite(rows)
            self.strange += int(rows.size - np.count_nonzero(finite))
            rows = np.where(finite, rows, 0.0)
            sums = signs @ rows
        self.signed += sums[:SIGNED]
        self.total += sums[SIGNED]
        self.squares += np.einsum("ij,ij->j", rows, rows)
        if count:
            self.least = np.minimum(self.least, _folded(rows, np.minimum))
            self.greatest = np.maximum(self.greatest, _folded(rows, np.maximum))
        self.count += count

    def table(self) -> Array:
        """As it is stored: rows mean, rms, least, greatest, then the signed sums; (4 + SIGNED, c), float64.

        The flat sums are stored beside it.
        """
        n = max(1, self.count)
        with np.errstate(all="ignore"):
            plain = [self.total / n, np.sqrt(self.squares / n), self.least, self.greatest]
        return np.concatenate([np.stack(plain), self.signed])

    @classmethod
    def read(cls, table: Array, shape: tuple[int, ...], flat: Array, strange: int) -> Sketch:
        """From what `table` made, and the flat sums; raises ValueError where they do not fit the shape."""
        c = shape[-1] if shape else 1
        if table.shape != (4 + SIGNED, c) or flat.shape != (SIGNED,):
            raise ValueError(f"statistics of shape {table.shape} for a tensor of {c} channels")
        n = math.prod(shape[:-1]) if shape else 1
        return cls(shape, n, table[0] * n, table[1] ** 2 * n, table[2], table[3], table[4:], flat, strange)

    def distance(self, expected: Sketch) -> Distance:
        """How far this tensor is from the expected one of as many elements: an estimate.

        It is made per channel, or where the shapes are others for the whole; not finite where neither can be.
        """
        n = max(1, expected.count)
        scale = float(np.sqrt(np.mean(expected.squares / n)))
        if expected.total.size != self.total.size and self.strange == expected.strange:
            whole = float(np.sqrt(np.mean(np.square(self.flat - expected.flat)) / max(1, math.prod(self.shape))))
            one = np.asarray([whole])
            return Distance(whole, whole, scale, one, one, finite=not math.isnan(whole))
        if self.strange != expected.strange:
            worst = np.full(expected.total.shape, np.inf)
            return Distance(math.inf, math.inf, scale, worst, worst, finite=False)
        gap = np.sqrt(np.mean(np.square(self.signed - expected.signed), axis=0) / n)
        # The extremes bound the largest difference from below.
        with np.errstate(invalid="ignore"):
            ends = np.maximum(np.abs(self.greatest - expected.greatest), np.abs(self.least - expected.least))
        top = np.maximum(gap, np.nan_to_num(ends))
        rms = float(np.sqrt(np.mean(gap**2)))
        return Distance(float(top.max(initial=0.0)), rms, scale, gap, top)


def _folded(rows: Array, pick: np.ufunc) -> Array:
    """A reduction along the rows; of few channels over long lines, which numpy goes through faster than short ones."""
    count, c = rows.shape
    lines = min(count, max(1, 256 // max(1, c)))
    even = count - count % lines
    found = pick.reduce(rows[:even].reshape(-1, lines * c), axis=0).reshape(lines, c)
    return pick.reduce(np.concatenate([found, rows[even:]]), axis=0)


_SIGNS = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little") - 1
"""Byte → the signs that its bits stand for, (256, SIGNED)."""


def _signs(first: int, count: int) -> Array:
    """Random signs of the rows from `first` on, (count, SIGNED): a function of the row's number alone.

    The bits of a 64-bit mixing function (splitmix64, Steele, Lea and Flood 2014) of the number.
    """
    z = np.arange(first + 1, first + 1 + count, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return _SIGNS[(z >> np.uint64(40)).astype(np.uint8)]
