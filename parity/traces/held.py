"""One tensor of a trace: whole, sampled or as statistics, and read no faster than it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.stretches import LENGTH, edges
from parity.traces.sketch import Sketch, places

if TYPE_CHECKING:
    from parity.traces.reader import Trace

__all__ = ["Held", "sound", "told"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Held:
    """What a trace holds of one tensor.

    Attributes:
        trace: whose.
        kept: `"all"`, `"sample"` or `"stats"`.
        shape: of the whole tensor.
        data: the dataset of the values: whole, or the sampled rows; None for statistics alone.
        table: the dataset of the statistics; None for a whole tensor.
    """

    trace: Trace
    kept: str
    shape: tuple[int, ...]
    data: Any | None
    table: Any | None

    def value(self) -> Array:
        """The whole tensor; raises ValueError where it was not kept."""
        if self.kept != "all" or self.data is None:
            raise ValueError("was not kept whole")
        with self.trace.reading():
            return self.data[()]

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """The shape of the chunks that it is stored in, where its shape is the stored one."""
        return self.data.chunks if self.data is not None and self.data.shape == self.shape else None

    def span(self, start: int, stop: int) -> Array:
        """The elements of a whole tensor from `start` to `stop`, counted in row-major order; (stop - start)."""
        data = self.data
        with self.trace.reading():
            if self.kept != "all" or data is None:
                raise ValueError("holds a part of what is always whole")
            boxes = list(_boxes(data.shape, start, stop))
            if len(boxes) == 1:
                return np.asarray(data[boxes[0]]).reshape(-1)
            made, at = np.empty(stop - start, data.dtype), 0
            for box in boxes:
                part = np.asarray(data[box]).reshape(-1)
                made[at : at + part.size] = part
                at += part.size
            return made

    def part(self, rows: slice, columns: slice) -> Array:
        """Some rows of a whole tensor (all axes but the last, row-major), and some of its channels: (rows, columns)."""
        data = self.data
        with self.trace.reading():
            if self.kept != "all" or data is None:
                raise ValueError("holds a part of what is always whole")
            if not data.shape:
                return np.asarray(data[()]).reshape(1, 1)
            made, at = np.empty((rows.stop - rows.start, columns.stop - columns.start), data.dtype), 0
            for box in _boxes(data.shape[:-1], rows.start, rows.stop):
                rest = [slice(None)] * (data.ndim - 1 - len(box))
                found = np.asarray(data[(*box, *rest, columns)]).reshape(-1, made.shape[1])
                made[at : at + len(found)] = found
                at += len(found)
            return made

    def blocks(self) -> Iterator[Array]:
        """The whole tensor in stretches: of whole images (n, …), or where those are large of rows (rows, c)."""
        each = math.prod(self.shape[1:])
        if len(self.shape) < 2 or each > LENGTH:
            for start, stop in edges(self.shape, self.chunks):
                yield self.span(start, stop).reshape(-1, self.shape[-1] if self.shape else 1)
            return
        chunks = self.chunks
        for start, stop in edges((self.shape[0], each), chunks and (chunks[0], each)):
            yield self.span(start, stop).reshape(-1, *self.shape[1:])

    def sample(self) -> Array | None:
        """Its rows at the sampled places, (rows, c); None where only statistics were kept."""
        if self.kept == "sample" and self.data is not None:
            with self.trace.reading():
                return self.data[()]
        if self.kept != "all":
            return None
        wanted, at = places(self.shape), 0
        found = [np.empty((0, self.shape[-1] if self.shape else 1), np.float32)]
        for block in self.blocks():
            rows = block.reshape(-1, self.shape[-1] if self.shape else 1)
            inside = wanted[(wanted >= at) & (wanted < at + len(rows))] - at
            found.append(rows[inside])
            at += len(rows)
        return np.concatenate(found)

    def sketch(self) -> Sketch:
        """Its statistics: as they were kept, or of the whole tensor."""
        if self.table is not None:
            with self.trace.reading():
                flat = np.asarray(self.table.attrs["flat"])
                return Sketch.read(self.table[()], self.shape, flat, int(self.table.attrs["strange"]))
        made = Sketch.empty(self.shape)
        for block in self.blocks():
            made.add(block)
        return made


def _boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[tuple[slice | int, ...]]:
    """The blocks of an array that hold its elements from `start` to `stop` in row-major order, in that order."""
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    if start >= stop or not inner:
        return
    first, last = start // inner, (stop - 1) // inner
    if len(shape) == 1:
        yield (slice(start, stop),)
    elif first == last and stop - start < inner:
        for box in _boxes(shape[1:], start - first * inner, stop - first * inner):
            yield (first, *box)
    else:
        head, tail = -(-start // inner), stop // inner
        if start % inner:
            yield from _boxes(shape, start, head * inner)
        if head < tail:
            yield (slice(head, tail),)
        if stop % inner:
            yield from _boxes(shape, tail * inner, stop)


def sound(found: Any, name: str) -> None:
    """Raise ValueError where a dataset is none, holds no numbers, not its own, or more than the file can hold."""
    if found is None:
        return
    if not hasattr(found, "dtype"):
        raise ValueError(f"{name} is a folder")
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {found.dtype}, not numbers")
    if found.is_virtual or found.external:
        raise ValueError(f"{name} lies in another file")
    # Deflate makes a thousandth of its input at best.
    if found.nbytes > 4096 + 1100 * found.id.get_storage_size():
        raise ValueError(f"{name} claims {found.nbytes:,} bytes, which the file does not hold")


def told(floor: Array) -> Array:
    """A floor as far as it says something: no distance is above one that is infinite, or no number."""
    return np.where(np.isfinite(floor), floor, 0.0)
