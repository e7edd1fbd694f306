"""How far apart two tensors are, and how far rounding alone may put them.

Everything is measured per channel (the last axis): a wrong channel of small values must not hide behind large ones, and
a wrong border not behind a large interior, so the largest difference counts beside the root mean square.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

from parity.layers import BatchNorm, Conv, Dense, Kind

__all__ = [
    "CLEAN",
    "ROUNDOFF",
    "Distance",
    "carried",
    "channel_rms",
    "distance",
    "forward_floor",
    "gradient_floor",
    "parameter_floor",
    "rms",
]

Array = np.ndarray

ROUNDOFF = 2.0**-24
"""Unit roundoff of float32 (half the distance from 1 to the next number)."""

CLEAN = 4.0
"""A probe up to this many floors from its expected value is noise without further proof; above it is examined."""

_PEAK = 8.0
"""How many root mean squares the largest of a few million rounding errors may be (normal: 5.5; products have tails)."""

_SQUARABLE = (1e-15, 1e15)
"""Sizes whose squares float32 holds, with room for a sum of many and for much smaller ones beside them."""

_WIDE = 1024
"""Entries of a row along which numpy is fast."""

_BLOCK = 1 << 18
"""Entries that are looked at in one go: they stay in the processor's cache, and a large tensor needs no second one."""

_LARGE = 1 << 20
"""Entries from which on several threads measure a distance."""

_PARTS = 4
"""In how many parts: as many on every machine, so that the same numbers come out."""

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
        finite: False where one side is NaN or infinite and the other is not the same.
    """

    max_abs: float
    rms: float
    scale: float
    channel_rms: Array
    channel_max: Array
    finite: bool = True
    own: Array | None = None

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


def distance(actual: Array, expected: Array) -> Distance:
    """Measure `actual` against `expected`, of the same shape; NaN equals NaN, an infinity the same infinity."""
    rows_a, rows_e = _rows(actual), _rows(expected)
    zero = np.zeros(rows_e.shape[-1])
    # The first rows tell most different tensors apart without a look at all of them.
    if np.array_equal(rows_a[:64], rows_e[:64], equal_nan=True) and np.array_equal(rows_a, rows_e):
        return Distance(0.0, 0.0, 0.0, zero, zero)
    own = channel_rms(rows_e)
    scale = float(np.sqrt(np.mean(np.square(own))))
    top, squares = _gaps(rows_a, rows_e)
    if not np.isfinite(top).all():
        return Distance(math.inf, math.inf, scale, zero + math.inf, zero + math.inf, False, own)
    peak, unit = float(top.max(initial=0.0)), 1.0
    if peak == 0:
        return Distance(0.0, 0.0, scale, zero, zero, own=own)
    if not _SQUARABLE[0] < peak < _SQUARABLE[1]:
        unit = peak
        _, squares = _gaps(rows_a, rows_e, unit)
    channel = unit * np.sqrt(squares / max(1, len(rows_e)))
    return Distance(peak, float(np.sqrt(np.mean(channel**2))), scale, channel, top, own=own)


def _gaps(rows_a: Array, rows_e: Array, unit: float = 1.0) -> tuple[Array, Array]:
    """Per channel the largest difference, and the sum of the squares of all of them in this unit.

    Equal infinities and two NaN are no difference; any other makes the largest one infinite or NaN.
    """
    count, channels = rows_e.shape
    step = max(1, _BLOCK // max(1, channels))

    def measured(start: int, stop: int) -> tuple[Array, Array]:
        top, squares = np.zeros(channels), np.zeros(channels)
        room = np.empty((min(step, stop - start), channels), np.result_type(rows_a, rows_e))
        with np.errstate(all="ignore"):
            for at in range(start, stop, step):
                mine, theirs = rows_a[at : min(at + step, stop)], rows_e[at : min(at + step, stop)]
                gap = room[: len(mine)]
                np.subtract(mine, theirs, out=gap)
                np.abs(gap, out=gap)
                largest = _largest(gap)
                if not np.isfinite(largest).all():
                    gap[(mine == theirs) | (np.isnan(mine) & np.isnan(theirs))] = 0
                    largest = _largest(gap)
                np.maximum(top, largest, out=top)
                if unit != 1.0:
                    gap /= gap.dtype.type(unit)
                squares += _squares(gap)
        return top, squares

    if rows_e.size < _LARGE:
        return measured(0, count)
    ends = [count * n // _PARTS for n in range(_PARTS + 1)]
    tops, squares = zip(*_workers().map(measured, ends[:-1], ends[1:]), strict=True)
    return np.maximum.reduce(tops), np.sum(squares, axis=0)


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


def _folded(rows: Array) -> tuple[Array, Array]:
    """Rows of few channels as wide ones, several of them beside each other, and the rows that are left over.

    numpy goes along short rows several times as slowly as along long ones.
    """
    count, channels = rows.shape
    several = max(1, _WIDE // max(1, channels))
    whole = count - count % several
    return rows[:whole].reshape(-1, several * channels), rows[whole:]


def _largest(rows: Array) -> Array:
    """The largest entry of each channel, 0 where there is none."""
    wide, left = _folded(rows)
    top = wide.max(axis=0, initial=0.0).reshape(-1, rows.shape[-1]).max(axis=0, initial=0.0)
    return np.maximum(top, left.max(axis=0, initial=0.0)).astype(np.float64)


def _squares(rows: Array) -> Array:
    """The sum of squares of each channel."""
    wide, left = _folded(rows)
    folded = np.einsum("ij,ij->j", wide, wide).astype(np.float64).reshape(-1, rows.shape[-1]).sum(axis=0)
    return folded + np.einsum("ij,ij->j", left, left)


def _sum_of_squares(rows: Array) -> Array:
    """As `_squares`, of a large tensor on several threads."""
    if rows.size < _LARGE:
        return _squares(rows)
    ends = [len(rows) * n // _PARTS for n in range(_PARTS + 1)]
    return np.sum([*_workers().map(lambda a, b: _squares(rows[a:b]), ends[:-1], ends[1:])], axis=0)


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
        if not np.isfinite(squares).all() or squares.max() < _SQUARABLE[0] ** 2:
            rows = np.where(np.isfinite(rows), rows, 0).astype(np.float64)
            squares = _sum_of_squares(rows)
    return np.sqrt(squares / rows.shape[0])


def _sum_of(terms: float) -> float:
    """Rounding of a sum of n terms, in units of u·‖terms‖: grows slowly, as every library adds in blocks."""
    return 2.0 + math.log2(max(2.0, terms))


def _of_moments(value: Array) -> float:
    """Rounding of what is normalised by the moments of all images and places, in units of u·‖value‖."""
    return max(16.0, 10.0 + _sum_of(value.size / max(1, value.shape[-1])))


def forward_floor(
    kind: Kind, inputs: Sequence[Array], params: Mapping[str, Array], expected: Array, own: Array | None = None
) -> Array:
    """What rounding alone may do to a layer's output, as a root mean square per channel.

    Args:
        kind: what the layer computes.
        inputs: its inputs, n … c.
        params: role → value in the reference's axes.
        expected: the output.
        own: its root mean square per channel, where that is known.
    """
    own = channel_rms(expected) if own is None else own
    if isinstance(kind, Conv | Dense) and "kernel" in params and inputs:
        size = math.prod(params["kernel"].shape[:-1])
        norm = channel_rms(params["kernel"]) * math.sqrt(size)
        if norm.shape == own.shape:
            return ROUNDOFF * (_sum_of(size) * rms(inputs[0]) * norm + 2 * own)
    floor = ROUNDOFF * 4 * own
    if len(inputs) > 1:
        floor = floor + ROUNDOFF * sum(rms(x) for x in inputs)
    return floor * _of_moments(expected) / 4 if isinstance(kind, BatchNorm) else floor


def gradient_floor(
    kind: Kind, upstream: Array | None, params: Mapping[str, Array], expected: Array, own: Array | None = None
) -> Array:
    """What rounding alone may do to the gradient with respect to a layer's input, per channel of that input.

    Args:
        kind: what the layer computes.
        upstream: the derivative of the loss with respect to its output, n … c.
        params: role → value in the reference's axes.
        expected: the gradient, n … c.
        own: its root mean square per channel, where that is known.
    """
    own = channel_rms(expected) if own is None else own
    if isinstance(kind, Conv | Dense) and "kernel" in params and upstream is not None:
        kernel = params["kernel"]
        # `h w c m` of a depthwise convolution: every input channel has outputs of its own.
        depthwise = kernel.shape[-2] == own.size
        groups = 1 if depthwise else getattr(kind, "groups", 1)
        depth, outputs = kernel.shape[-2:]
        if outputs % groups:
            return ROUNDOFF * 4 * own
        terms = math.prod(kernel.shape[:-2]) * outputs / groups
        if not _SQUARABLE[0] < max(kernel.max(initial=0.0), -kernel.min(initial=0.0)) < _SQUARABLE[1]:
            kernel = kernel.astype(np.float64)
        parts = kernel.reshape(-1, depth, groups, outputs // groups)
        norm = np.sqrt(np.einsum("sdgo,sdgo->gd", parts, parts)).reshape(-1)
        if norm.shape == own.shape:
            return ROUNDOFF * (_sum_of(terms) * rms(upstream) * norm + 2 * own)
    return ROUNDOFF * (_of_moments(expected) if isinstance(kind, BatchNorm) else 4) * own


def parameter_floor(
    role: str, inputs: Sequence[Array], upstream: Array | None, expected: Array, own: Array | None = None
) -> Array:
    """What rounding alone may do to a parameter's gradient: a sum over every image and place.

    Args:
        role: kernel, bias, gamma, beta.
        inputs: the layer's inputs.
        upstream: the derivative of the loss with respect to its output, n … c.
        expected: the gradient, channels last.
        own: its root mean square per channel, where that is known.
    """
    own = channel_rms(expected) if own is None else own
    if upstream is None or upstream.size == 0:
        return ROUNDOFF * 16 * own
    terms = max(1, upstream.size // upstream.shape[-1])
    each = channel_rms(upstream)
    if role == "kernel" and inputs:
        each = each * rms(inputs[0])
    if each.shape != own.shape:
        each = np.full_like(own, float(np.max(each, initial=0.0)))
    # Short vectors are added up plainly by some libraries: clean ratios reach 18 there.
    plain = 1.0 if role == "kernel" else 4.0
    return ROUNDOFF * (plain * _sum_of(terms) * math.sqrt(terms) * each + 4 * own)


def carried(
    role: str, inputs: Sequence[Array], upstream: Array, read: Distance, pulled: Distance, expected: Array
) -> Array:
    """What such differences between what a layer is given on two sides make of a parameter's gradient, if by chance.

    A root mean square per channel: a sum over every image and place of differences that have nothing to do with one
    another.

    Args:
        role: kernel, bias, gamma, beta.
        inputs: the layer's inputs.
        upstream: the derivative of the loss with respect to its output, n … c.
        read: how far apart the two sides' inputs are.
        pulled: how far apart their upstream gradients are.
        expected: the gradient, channels last.
    """
    terms = max(1, upstream.size // upstream.shape[-1])
    each = pulled.channel_rms
    if role == "kernel" and inputs:
        each = np.sqrt(np.square(each * rms(inputs[0])) + np.square(channel_rms(upstream) * read.rms))
    if each.shape != expected.shape[-1:]:
        each = np.full(expected.shape[-1:], float(np.min(each, initial=np.inf)))
    return math.sqrt(terms) * each
