"""How far two recorded tensors are apart, measured stretch by stretch, and by how much rounding may put them there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from parity.distances import Distance, distance
from parity.stretches import Size, Tensor, ahead, cut, joined, measure, stretches
from parity.tolerance import ROUNDOFF
from parity.traces.held import Held, told

__all__ = ["Measured", "against", "gap"]

Array = np.ndarray
Floors = Sequence[Held | Array | None]


@dataclass(frozen=True, eq=False)
class Measured:
    """A distance, and what it is in units of the noise floor.

    Attributes:
        apart: the distance.
        floor: root mean square of the floor.
        x_floor: the distance in units of it, in the worst channel.
        bare: whether nobody said what rounding does, beyond what it does to the values themselves.
    """

    apart: Distance
    floor: float
    x_floor: float
    bare: bool = False


def gap(actual: Held, expected: Held, floors: Floors) -> tuple[Measured | None, str]:
    """How far two recorded tensors are apart, by as much of them as both traces keep.

    Args:
        actual: a tensor.
        expected: another.
        floors: root mean squares that rounding may cause, per channel of either.

    Returns:
        The distance, and in a few words what it was measured by; or None, and why it cannot be said.
    """
    mine, theirs = expected.shape, actual.shape
    if math.prod(mine) != math.prod(theirs) or mine[:1] != theirs[:1]:
        return None, f"shape {theirs[1:]} against {mine[1:]}"
    if actual.kept == expected.kept == "all":
        return against(actual, expected, floors), ""
    apart, how = _by_what_was_kept(actual, expected)
    if apart is None:
        return None, how
    whole, channels = slice(0, apart.channel_rms.size), apart.channel_rms.size
    return _measured([(whole, apart)], [whole], channels, floors), how


def against(
    actual: Tensor, expected: Tensor, floors: Floors, also: Callable[[Array, Array], None] = lambda *_: None
) -> Measured:
    """How far a tensor is from the expected one of as many elements; `also` is called with each stretch of both."""
    channels = expected.shape[-1] if expected.shape else 1
    return _measured(measure(actual, expected, also), cut(expected, actual), channels, floors)


def _measured(
    parts: Iterable[tuple[slice, Distance]], places: Iterable[slice], channels: int, floors: Floors
) -> Measured:
    whole = [_single(floor) if _odd(floor, channels) else floor for floor in floors]
    squares, worst = 0.0, 0.0

    def told_of(columns: slice) -> list[Array]:
        return [_window(floor, columns) for floor in whole if floor is not None]

    def judged() -> Iterable[tuple[slice, Distance]]:
        nonlocal squares, worst
        for (columns, apart), given in zip(parts, ahead(told_of, iter(places)), strict=True):
            floor = np.full(apart.channel_rms.shape, 4 * ROUNDOFF * apart.scale)
            for one in given:
                floor = np.maximum(floor, one)
            squares += float(np.sum(np.square(floor)))
            worst = max(worst, apart.x_floor(floor))
            yield columns, apart

    apart = joined(judged())
    bare = all(floor is None for floor in floors)
    return Measured(apart, math.sqrt(squares / max(1, channels)), worst, bare)


def _odd(floor: Held | Array | None, channels: int) -> bool:
    """Whether a floor is laid out in other channels."""
    return floor is not None and tuple(floor.shape) not in ((channels,), ())


def _single(floor: Held | Array | None) -> Array:
    """One number for all channels: the root mean square."""
    assert floor is not None
    size = Size()
    for _, (part,) in stretches(floor):
        size.add(part.reshape(-1, 1))
    return np.asarray(size.whole)


def _window(floor: Held | Array, columns: slice) -> Array:
    """Of some channels, or the one number of all."""
    if isinstance(floor, np.ndarray):
        return told(floor[columns] if floor.ndim else floor)
    return told(np.asarray(floor.span(columns.start, columns.stop), np.float64))


def _by_what_was_kept(actual: Held, expected: Held) -> tuple[Distance | None, str]:
    sketches = actual.sketch(), expected.sketch()
    if any(np.isnan(sums).any() for sketch in sketches for sums in (sketch.squares, sketch.signed)):
        return None, "its statistics are no numbers"
    apart = sketches[0].distance(sketches[1])
    if expected.shape[-1:] != actual.shape[-1:]:  # rows and channels of the one are not those of the other
        if math.isnan(apart.rms):
            return None, "only statistics were kept, of tensors of other shapes"
        return apart, "by statistics"
    few, other = expected.sample(), actual.sample()
    if few is None or other is None:
        return apart, "by statistics"
    near = distance(other, few)
    if not (near.finite and apart.finite):
        return (near if not near.finite else apart), "by a sample"
    # What the sample shows is exact; what it misses, the statistics bound.
    channel, top = (np.maximum(a, b) for a, b in zip(_channels(near), _channels(apart), strict=True))
    return Distance(float(top.max()), max(near.rms, apart.rms), apart.scale, channel, top), "by a sample and statistics"


def _channels(apart: Distance) -> tuple[Array, Array]:
    return apart.channel_rms, apart.channel_max
