"""How a file's own values stand to the reference's: equal, a multiple, close, or others altogether."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from parity.distances import Distance
from parity.stretches import Tensor, joined, measure, stretches

__all__ = ["Relation", "related", "relation"]

Array = np.ndarray

_ROUNDED = 2e-7
"""Of their size: how far values that were rounded once more may lie apart."""


_PIECE = 1 << 13
"""Values that are added at once: too few for a library of linear algebra to start threads."""


@dataclass(frozen=True)
class Relation:
    """How values stand to others.

    Attributes:
        word: `"equal"`, `"scaled"`, `"perturbed"` (close, but not equal), `"independent"`, or `"misfit"`.
        more: a few words, or the factor.
        apart: how far they are apart; None where they are not as many.
    """

    word: str
    more: str
    apart: Distance | None


def relation(expected: Array, actual: Array) -> tuple[str, str]:
    """The `word` of `related`, and what is to be said beside it."""
    found = related(expected, actual)
    return found.word, found.more


def related(expected: Tensor, actual: Tensor) -> Relation:
    """How a file's own values stand to the reference's, read stretch by stretch.

    Args:
        expected: the reference's, in the Keras layout.
        actual: the file's own.
    """
    if math.prod(actual.shape) != math.prod(expected.shape):
        return Relation("misfit", f"{_extent(actual.shape)} against {_extent(expected.shape)}", None)
    sums = _Sums()
    apart = joined(measure(actual, expected, sums.add))
    word, more = sums.words(expected, actual)
    return Relation(word, more, apart)


class _Sums:
    """What is added up of two arrays of one size."""

    def __init__(self) -> None:
        self.count, self.wrong = 0, 0
        self.apart, self.mine, self.theirs, self.both = 0.0, 0.0, 0.0, 0.0
        self.far, self.size = 0.0, 0.0
        self.finite, self.equal = True, True

    def add(self, actual: Array, expected: Array) -> None:
        """Add some values of both, a few at a time: they stay in a processor's cache."""
        mine, theirs = actual.reshape(-1), expected.reshape(-1)
        self.count += mine.size
        for start in range(0, mine.size, _PIECE):
            part = slice(start, start + _PIECE)
            self._add(mine[part], theirs[part])

    def _add(self, actual: Array, expected: Array) -> None:
        a = actual.astype(np.float64)
        with np.errstate(all="ignore"):
            own = float(a @ a)
            if math.isfinite(own) and np.array_equal(actual, expected):
                self.mine, self.theirs, self.both = self.mine + own, self.theirs + own, self.both + own
                self.size = max(self.size, float(a.max()), -float(a.min()))
                return
            b = expected.astype(np.float64)
            self.equal &= np.array_equal(a, b, equal_nan=True)
            norm = float(b @ b)
            if not (math.isfinite(own) and math.isfinite(norm)):
                self.finite &= bool(np.isfinite(a).all() and np.isfinite(b).all())
            self.mine, self.theirs, self.both = self.mine + own, self.theirs + norm, self.both + float(a @ b)
            apart, size = np.abs(a - b), np.maximum(np.abs(a), np.abs(b))
            self.apart += float(apart @ apart)
            self.far, self.size = max(self.far, float(apart.max())), max(self.size, float(size.max()))
            self.wrong += int(np.count_nonzero(apart > _ROUNDED * size))

    def words(self, expected: Tensor, actual: Tensor) -> tuple[str, str]:
        """The relation, after all of both was added."""
        if not self.finite:
            return ("equal", "bit for bit") if self.equal else ("independent", "not finite")
        gap, norm, own = math.sqrt(self.apart), math.sqrt(self.theirs), math.sqrt(self.mine)
        if gap == 0:
            return "equal", "bit for bit"
        if self.far <= _ROUNDED * self.size:
            return "equal", "to rounding"
        few = f"{self.wrong} of {self.count} elements differ"
        if norm > 0 and own > 0 and self.count > 1:
            factor = self.both / norm**2
            parallel = own**2 - self.both * factor <= 1e-8 * own**2  # as far as sums can say without a look at each
            if parallel and _missed(expected, actual, factor) <= 1e-5 * own:
                return "scaled", f"{factor:.6g} times the reference's"
            if abs(self.both) / (norm * own) > 0.9:
                return "perturbed", f"{few}, by {gap / norm:.2g} of their size"
        elif max(norm, own) > 0 and self.wrong < self.count:
            return "perturbed", few
        return "independent", few


def _missed(expected: Tensor, actual: Tensor, factor: float) -> float:
    """The norm of what is left of the actual values without so many times the expected ones."""
    left = 0.0
    for _, (b, a) in stretches(expected, actual):
        rest = a.astype(np.float64).ravel() - factor * b.astype(np.float64).ravel()
        left += float(rest @ rest)
    return math.sqrt(left)


def _extent(shape: tuple[int, ...]) -> str:
    return "×".join(str(d) for d in shape) or "a scalar"
