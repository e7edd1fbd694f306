"""One tensor of a trace: whole, sampled or as statistics, and read no faster than it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.traces.sketch import Sketch, places

if TYPE_CHECKING:
    from parity.traces.reader import Trace

__all__ = ["Held", "sound"]

Array = np.ndarray

_SLAB = 1 << 20
"""Elements that are read at a time."""


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

    def blocks(self, images: int = 0) -> Iterator[Array]:
        """The whole tensor in slabs along its first axis, of a few mebibytes each.

        Args:
            images: extent of a slab along the first axis; 0 chooses it.
        """
        data = self.data
        assert self.kept == "all"
        assert data is not None
        if not self.shape or not math.prod(self.shape):
            yield self.value()
            return
        step = images or self.step
        for start in range(0, self.shape[0], step):
            with self.trace.reading():
                block = data[start : start + step]
            yield block

    @property
    def step(self) -> int:
        """Extent along the first axis of a slab: whole chunks, of about four mebibytes."""
        if self.data is None or not self.shape:
            return 1
        own = self.data.chunks[0] if self.data.chunks else 1
        each = max(1, math.prod(self.shape[1:]) * own)
        return own * max(1, _SLAB // each)

    def sample(self) -> Array | None:
        """Its rows at the sampled places, (rows, c); None where only statistics were kept."""
        if self.kept == "sample" and self.data is not None:
            with self.trace.reading():
                return self.data[()]
        if self.kept != "all":
            return None
        wanted, at, found = places(self.shape), 0, []
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


def sound(found: Any, name: str) -> None:
    """Raise ValueError where a dataset is none, holds no numbers, or claims more of them than the file can hold."""
    if found is None:
        return
    if not hasattr(found, "dtype"):
        raise ValueError(f"{name} is a folder")
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {found.dtype}, not numbers")
    # Deflate makes a thousandth of its input at best.
    if found.nbytes > 4096 + 1100 * found.id.get_storage_size():
        raise ValueError(f"{name} claims {found.nbytes:,} bytes, which the file does not hold")
