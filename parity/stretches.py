"""Tensors compared stretch by stretch, so that none of them need be in memory as a whole.

A stretch is a number of rows (all axes but the last) with all their channels (the last axis). Of tensors with more
channels than memory should hold numbers for, it is one row with a window of the channels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Protocol, TypeAlias, TypeVar

import numpy as np

from parity.distances import Distance, channel_rms, distance, rms

__all__ = [
    "LENGTH",
    "WIDE",
    "Gap",
    "Size",
    "Stretched",
    "Tensor",
    "ahead",
    "cut",
    "edges",
    "joined",
    "measure",
    "same",
    "stretches",
    "windows",
]

Array = np.ndarray

LENGTH = 1 << 20
"""Elements of a stretch, about."""

WIDE = 1 << 20
"""Channels of a window at most."""


class Stretched(Protocol):
    """A tensor that can be read in part."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """The shape of the blocks that it is stored in, by its own axes; None where any part is read as fast."""
        ...

    def span(self, start: int, stop: int) -> Array:
        """The elements from `start` to `stop`, counted in row-major order; (stop - start)."""
        ...


Tensor: TypeAlias = "Array | Stretched"
Place = TypeVar("Place")
Read = TypeVar("Read")


def stretches(*tensors: Tensor) -> Iterator[tuple[slice, tuple[Array, ...]]]:
    """The same stretches of several tensors of as many elements, one after the other.

    Tensors that all are in memory make one stretch.

    Args:
        *tensors: by whose row-major order elements belong together; the first one's shape says what a channel is.

    Yields:
        The channels of a stretch, and the stretch of each tensor: (rows, channels).
    """
    first = tensors[0]
    shape = tuple(first.shape)
    channels, size = shape[-1] if shape else 1, math.prod(shape)
    if _whole(tensors):
        rows = size // channels if channels else 0
        whole = (t if isinstance(t, np.ndarray) else t.span(0, size) for t in tensors)
        yield slice(0, channels), tuple(value.reshape(rows, channels) for value in whole)
        return
    chunks = None if isinstance(first, np.ndarray) else first.chunks
    places = ((columns, span) for columns in cut(*tensors) for span in _spans(shape, chunks, columns))

    def read(place: tuple[slice, tuple[int, int]]) -> tuple[slice, tuple[Array, ...]]:
        columns, (start, stop) = place
        found = (t.reshape(-1)[start:stop] if isinstance(t, np.ndarray) else t.span(start, stop) for t in tensors)
        return columns, tuple(part.reshape(-1, columns.stop - columns.start) for part in found)

    yield from ahead(read, places)


def ahead(read: Callable[[Place], Read], places: Iterator[Place]) -> Iterator[Read]:
    """What is read at each place; the next one is read while the caller looks at this one."""
    here = next(places, None)
    found = None if here is None else read(here)
    while found is not None:
        following = next(places, None)
        soon = None if following is None else _reader().submit(read, following)
        yield found
        found = None if soon is None else soon.result()


@cache
def _reader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="stretches")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reader.cache_clear)  # a process that forks does not hand its threads on


def cut(*tensors: Tensor) -> list[slice]:
    """The windows of channels of which `stretches` of these tensors are."""
    first = tensors[0]
    channels = first.shape[-1] if first.shape else 1
    if _whole(tensors):
        return [slice(0, channels)]
    return windows(channels, None if isinstance(first, np.ndarray) else first.chunks)


def _whole(tensors: Sequence[Tensor]) -> bool:
    """Whether they make one stretch: there is nothing in them, or all are in memory."""
    return not math.prod(tensors[0].shape) or all(isinstance(tensor, np.ndarray) for tensor in tensors)


def windows(channels: int, chunks: Sequence[int] | None = None) -> list[slice]:
    """The windows into which so many channels are cut: mostly one; cut where chunks are."""
    own = min(WIDE, chunks[-1] if chunks else WIDE) or 1
    step = channels if channels <= WIDE else own * (WIDE // own)
    return [slice(at, min(channels, at + step)) for at in range(0, channels, max(1, step))]


def _spans(shape: tuple[int, ...], chunks: Sequence[int] | None, columns: slice) -> Iterator[tuple[int, int]]:
    channels, size = shape[-1] if shape else 1, math.prod(shape)
    if columns.stop - columns.start < channels:
        for row in range(0, size, channels):
            yield row + columns.start, row + columns.stop
        return
    yield from edges(shape, chunks)


def edges(shape: tuple[int, ...], chunks: Sequence[int] | None = None) -> Iterator[tuple[int, int]]:
    """Where stretches of whole rows begin and end: between chunks, where those are runs of elements."""
    channels, size = shape[-1] if shape else 1, math.prod(shape)
    if not size:
        return
    run, period = channels, size
    if chunks and math.prod(chunks) % channels == 0:
        run = math.prod(chunks)
        # The first axis that a chunk does not hold whole is cut anew for each index of the axes before it.
        cut = next((n for n, extent in enumerate(chunks) if extent > 1), len(shape) - 1)
        period = math.prod(shape[cut:])
    if period <= LENGTH:
        run, period = period, size
    step = run * max(1, LENGTH // run)
    for begin in range(0, size, period):
        end = begin + period
        for start in range(begin, end, step):
            yield start, min(end, start + step)


class Size:
    """The root mean square of the finite part of a tensor, per channel, added up stretch by stretch."""

    def __init__(self) -> None:
        self.rows, self.squares = 0, np.zeros(1)

    def add(self, part: Array) -> None:
        """Add some rows."""
        self.rows += len(part)
        self.squares = self.squares + np.square(channel_rms(part)) * len(part)

    @property
    def channel(self) -> Array:
        """Per channel."""
        return np.sqrt(self.squares / max(1, self.rows))

    @property
    def whole(self) -> float:
        """Of all channels."""
        return float(np.sqrt(np.mean(self.squares) / max(1, self.rows)))


class Gap:
    """The distance of an actual tensor from the expected one, added up stretch by stretch."""

    def __init__(self) -> None:
        self.rows = 0
        self.squares: Array | float = 0.0
        self.top: Array | float = 0.0
        self.expected = 0.0
        self.count = 0
        self.finite = True

    def add(self, actual: Array, expected: Array) -> None:
        """Add some rows of both."""
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
        """Of all that was added."""
        scale = math.sqrt(self.expected / max(1, self.count))
        top = np.atleast_1d(np.asarray(self.top, np.float64))
        if not self.finite:
            return Distance(math.inf, math.inf, scale, top + math.inf, top + math.inf, finite=False)
        channel = np.sqrt(np.atleast_1d(np.asarray(self.squares, np.float64)) / max(1, self.rows))
        return Distance(float(top.max(initial=0.0)), float(np.sqrt(np.mean(channel**2))), scale, channel, top)


def measure(
    actual: Tensor, expected: Tensor, also: Callable[[Array, Array], None] = lambda *_: None
) -> Iterator[tuple[slice, Distance]]:
    """How far apart two tensors of as many elements are, window by window of the expected one's channels.

    Args:
        actual: a tensor.
        expected: another.
        also: called with each stretch of both.
    """
    made, columns = Gap(), slice(0, 0)
    for here, (mine, theirs) in stretches(expected, actual):
        if here != columns and made.count:
            yield columns, made.distance()
            made = Gap()
        columns = here
        made.add(theirs, mine)
        also(theirs, mine)
    yield columns, made.distance()


def joined(parts: Iterable[tuple[slice, Distance]]) -> Distance:
    """Windows as one distance; of several, with no channels of its own but one that stands for all."""
    held: Distance | None = None
    found: list[tuple[int, float, float, float, bool]] = []
    for columns, apart in parts:
        held = None if found else apart
        found.append((columns.stop - columns.start, apart.rms, apart.scale, apart.max_abs, apart.finite))
    if held is not None:
        return held
    share, sizes, scales, tops, finite = (np.asarray(column) for column in zip(*found, strict=True))
    size, scale = (float(np.sqrt(share @ np.square(v) / share.sum())) for v in (sizes, scales))
    top = float(tops.max())
    return Distance(top, size, scale, np.asarray([size]), np.asarray([top]), finite=bool(finite.all()))


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one size have the same elements in the same order; NaN is none."""
    if math.prod(a.shape) != math.prod(b.shape):
        return False
    return all(np.array_equal(mine, theirs) for _, (mine, theirs) in stretches(a, b))
