"""A parameter in the Keras layout that is made of recorded pieces, read no faster than it is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from parity.traces.held import Held
from parity.transfer import Blocks, Joined

__all__ = ["Assembled"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Assembled:
    """What `Joined` makes of pieces that lie in a trace, as a tensor that can be read in part.

    Attributes:
        made: how it is made.
        held: source → the piece.
    """

    made: Joined
    held: Mapping[str, Held]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the Keras parameter."""
        return self.made.shape

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """None: its rows are put together of several chunks."""
        return None

    def span(self, start: int, stop: int) -> Array:
        """The elements from `start` to `stop`, counted in row-major order; (stop - start)."""
        pieces = [self.held[key] for key in self.made.sources]
        whole = slice(0, sum(piece.shape[-1] if piece.shape else 1 for piece in pieces))
        cut = whole if self.made.cut is None else self.made.cut
        width = cut.stop - cut.start
        if start >= stop or not width:
            return np.empty(0, np.float32)
        first, last = start // width, (stop - 1) // width
        skipped = first * width
        if first == last:
            return self._rows(first, first + 1, slice(cut.start + start - skipped, cut.start + stop - skipped)).ravel()
        return self._rows(first, last + 1, cut).ravel()[start - skipped : stop - skipped]

    def _rows(self, first: int, last: int, columns: slice) -> Array:
        """Rows of the parameter, with some of the columns of its pieces side by side."""
        blocks = self.made.blocks
        return self._joined(first, last, columns) if blocks is None else self._placed(first, last, columns, blocks)

    def _joined(self, first: int, last: int, columns: slice) -> Array:
        found, at = [], 0
        for key in self.made.sources:
            piece = self.held[key]
            width = piece.shape[-1] if piece.shape else 1
            start, stop = max(columns.start - at, 0), min(columns.stop - at, width)
            if start < stop:
                found.append(piece.part(slice(first, last), slice(start, stop)))
            at += width
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def _placed(self, first: int, last: int, columns: slice, blocks: Blocks) -> Array:
        """Rows of the denser kernel: a place of the filter, then the channels that its groups see, group by group."""
        shift = 0 if self.made.cut is None else self.made.cut.start
        made: Array | None = None
        rows, at = np.empty(0), -1
        for number in range(first // blocks.depth, (last - 1) // blocks.depth + 1):
            place, inside = divmod(number, blocks.ratio)
            if place != at:
                rows, at = self._joined(place * blocks.depth, (place + 1) * blocks.depth, columns), place
            if made is None:
                made = np.zeros((last - first, columns.stop - columns.start), rows.dtype)
            begin, end = max(first, number * blocks.depth), min(last, (number + 1) * blocks.depth)
            own = slice(begin - number * blocks.depth, end - number * blocks.depth)
            for outputs in blocks.within(inside):
                start = max(outputs.start + shift, columns.start) - columns.start
                stop = min(outputs.stop + shift, columns.stop) - columns.start
                if start < stop:
                    made[begin - first : end - first, start:stop] = rows[own, start:stop]
        assert made is not None
        return made

    def value(self) -> Array:
        """The whole parameter."""
        return self.span(0, math.prod(self.shape)).reshape(self.shape)
