"""How a parameter's values stand to others: laid out otherwise, in another order of channels, scaled, or all of these.

Each reading is checked element by element. A factor is solved for on one half of the elements and must hold on the
other; an order is found by telling rows apart, and must make every element equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from parity.orders import row_order

__all__ = ["Layout", "Reading", "equal", "read", "words_of"]

Array = np.ndarray
Layout = tuple[str, str, Array]
"""Cause, words, and the expected values laid out that way."""

_NEARER = 0.05
"""Of what is left without a layout: what may be left with it for the layout to count, beside other differences."""

_TELLING = 9
"""Elements from which on such a coincidence is none."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What makes one parameter's values of another's.

    Attributes:
        layout: cause and words; empty for values that stand where they should.
        axis: along which channels have another order: -1 for those that it makes, -2 for those that it reads; 0 for
            none.
        order: of the channels, of the expected ones.
        factor: on all of it.
        rest: whether elements differ beyond that.
    """

    layout: tuple[str, str] = ("", "")
    axis: int = 0
    order: Array | None = None
    factor: float = 1.0
    rest: bool = False

    @property
    def causes(self) -> tuple[str, ...]:
        """The slugs that this amounts to."""
        named = (self.layout[0], "channel-order" * bool(self.axis), "weights-scaled" * (self.factor != 1.0))
        return (*dict.fromkeys(cause for cause in named if cause), *(("weights-differ",) if self.rest else ()))


def read(wanted: Array, held: Array, layouts: Sequence[Layout]) -> Reading | None:
    """The simplest reading of `held`; None where there is none.

    Args:
        wanted: the expected values.
        held: other values, of the same shape.
        layouts: the ways in which it may be laid out; those of another shape are passed over.
    """
    if wanted.shape != held.shape or wanted.ndim == 0 or not (np.isfinite(wanted).all() and np.isfinite(held).all()):
        return None
    plain: Layout = ("", "", wanted)
    fitting = [entry for entry in layouts if entry[2].shape == held.shape]
    stages = (
        ([plain], _ordered, False),
        (fitting, _as_it_is, False),
        ([plain], _as_it_is, True),
        (fitting, _as_it_is, True),
        ([plain], _ordered, True),
        (fitting, _ordered, False),
        (fitting, _ordered, True),
    )
    for entries, look, scaled in stages:
        for cause, words, laid in entries:
            for axis, order, factor in look(laid, held, scaled):
                if not cause and axis == -2 and any(equal(other, held) for _, _, other in fitting):
                    continue  # the order of another flattening, which has a name of its own
                return Reading((cause, words), axis, order, factor)
    return _nearly(wanted, held, fitting)


def _as_it_is(laid: Array, held: Array, scaled: bool) -> Iterator[tuple[int, Array | None, float]]:
    if not scaled:
        if equal(laid, held):
            yield 0, None, 1.0
        return
    factor = _factor(laid, held)
    if factor is not None:
        yield 0, None, factor


def _ordered(laid: Array, held: Array, scaled: bool) -> Iterator[tuple[int, Array | None, float]]:
    """Other orders of the channels that it makes, or reads; with `scaled`, of multiples of them."""
    size = float(np.linalg.norm(laid))
    ratio = float(np.linalg.norm(held)) / size if scaled and size > 0 else 0.0
    for axis in (-1, -2)[: min(2, laid.ndim)]:
        for factor in (ratio, -ratio) if scaled else (1.0,):
            order = _permutation(laid * factor, held, axis % laid.ndim) if factor else None
            if order is not None:
                yield axis, order, factor


def _permutation(wanted: Array, held: Array, axis: int) -> Array | None:
    """The order along an axis in which `wanted` is `held`; None where there is none, or it is the order it has."""
    mine = np.moveaxis(wanted, axis, 0).reshape(wanted.shape[axis], -1).astype(np.float64)
    theirs = np.moveaxis(held, axis, 0).reshape(held.shape[axis], -1).astype(np.float64)
    if len(mine) < 2:
        return None
    order = row_order(mine, theirs)
    if np.array_equal(order, np.arange(len(order))) or not equal(mine[order], theirs):
        return None
    return order


def _factor(wanted: Array, held: Array) -> float | None:
    """A constant factor fitted on every other element, if it holds on all: a single other value is no factor."""
    a, b = held.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    if a.size < 4 or not b[::2].any():
        return None
    factor = float(a[::2] @ b[::2] / (b[::2] @ b[::2]))
    gap = np.abs(a - factor * b).max()
    held_size = np.abs(a).max()
    return factor if held_size > 0 and gap <= 2e-6 * held_size and abs(factor - 1) > 1e-6 else None


def _nearly(wanted: Array, held: Array, layouts: Sequence[Layout]) -> Reading | None:
    """A layout that leaves little of the difference, on either half of the elements; something else is wrong too."""
    if held.size < _TELLING:
        return None

    def left(laid: Array) -> Array:
        gap = np.square(held.astype(np.float64) - laid).ravel()
        return np.sqrt([gap[::2].sum(), gap[1::2].sum()])

    plain = left(wanted)
    for cause, words, laid in layouts:
        if np.all(left(laid) < _NEARER * plain):
            return Reading((cause, words), rest=True)
    return None


def equal(a: Array, b: Array) -> bool:
    """Whether two arrays are the same to the rounding of float32."""
    scale = max(float(np.abs(b).max(initial=0)), 1e-30)
    return bool(np.abs(a.astype(np.float64) - b).max(initial=0) <= 1e-6 * scale)


def words_of(order: Array) -> str:
    """An order in words: `reversed`, `in blocks, in the order 2 1`, or `permuted`."""
    count = len(order)
    if np.array_equal(order, np.arange(count)[::-1]):
        return "reversed"
    starts = np.flatnonzero(np.diff(order, prepend=order[0] - 2) != 1)
    if 1 < len(starts) <= max(2, count // 2):
        rank = np.argsort(np.argsort(order[starts]))
        return f"in blocks, in the order {' '.join(str(r + 1) for r in rank)}"
    return f"permuted ({' '.join(map(str, order[:8]))}{' …' if count > 8 else ''})"
