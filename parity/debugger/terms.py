"""What made one element of a layer's output: the inputs that it depends on, and what each of them adds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.debugger.lane import Lane
from parity.debugger.nodes import Blocked
from parity.debugger.stops import Stop
from parity.errors import BadUsage
from parity.layers import BatchNorm, Loss
from parity.receptive import receptive_fields
from parity.tensors import shaped
from parity.units import Unit

if TYPE_CHECKING:
    from parity.align import Pair
    from parity.debugger.scene import Scene
    from parity.debugger.stepper import Stepper

__all__ = ["Term", "Terms", "terms_of"]

Array = np.ndarray


@dataclass(frozen=True)
class Term:
    """One input of an element: its index, and value × slope on both sides.

    Attributes:
        index: in the layer's input, n h w c.
        value_ref, value_keras: what is read there.
        slope_ref, slope_keras: the derivative of the element with respect to it (of a convolution: the weight).
        input: which of the layer's inputs, from 1.
    """

    index: tuple[int, ...]
    value_ref: float
    value_keras: float
    slope_ref: float
    slope_keras: float
    input: int = 1

    @property
    def ref(self) -> float:
        """What it adds in the reference."""
        return self.value_ref * self.slope_ref

    @property
    def keras(self) -> float:
        """What it adds in Keras."""
        return self.value_keras * self.slope_keras


@dataclass(frozen=True, eq=False)
class Terms:
    """An element of an output and what made it.

    Attributes:
        index: of the element.
        ref, keras: both sides' values.
        fields: of each of the layer's inputs the first and last index that is read along each axis, on either side.
        image_field: (size, stride, offset) of its receptive field on the network's input, along each spatial axis, as
            MatConvNet counts them; None where nobody can say.
        terms: the inputs whose shares differ most, the worst first.
        others: how many further inputs there are.
        others_ref, others_keras: what those add.
        rest_ref, rest_keras: what does not come from inputs' products (biases, the curve of a nonlinearity).
    """

    index: tuple[int, ...]
    ref: float
    keras: float
    fields: tuple[tuple[tuple[int, int], ...], ...]
    image_field: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] | None
    terms: tuple[Term, ...]
    others: int
    others_ref: float
    others_keras: float
    rest_ref: float
    rest_keras: float


def terms_of(stepper: Stepper, stop: Stop, index: tuple[int, ...], count: int) -> Terms:
    """The terms of one element of a pair's output.

    The layer runs on its own inputs, with an upstream gradient of 1 at the element and 0 elsewhere: the input's
    gradient is then each input's weight in it. Of a layer that is linear in its input the products add up to the value.
    Where the layer makes each image of that image alone, it runs on the one image.

    Raises:
        BadUsage: the index lies outside, or a side cannot be run alone.
    """
    assert stop.pair is not None
    stepper.training.refuse("terms")
    scene, pair = stepper.scene(stop.index), stop.pair
    if isinstance(pair.ref.kind, Loss):
        raise BadUsage(f"terms: {stop.layer} is a loss, one number for the whole batch; go to a layer before it")
    scene.ready()
    wiring = stepper.comparison.named[pair.ref.name].wiring
    turned = {source: tensor for tensor, source in reversed(list(wiring.items()))}
    try:
        output = scene.ref.value(pair.ref.output)
        if len(index) != output.ndim or any(not 0 <= i < n for i, n in zip(index, output.shape, strict=True)):
            shape = "×".join(map(str, output.shape))
            raise BadUsage(f"the output of {stop.layer} is {shape}; {list(index)} is no index of it")
        image = _image(scene, pair, index)
        mine = _slopes(scene.ref, pair.ref, index, output.shape, image)
        theirs = _slopes(scene.keras, pair.keras, index, output.shape, image)
        actual = shaped(scene.keras.value(pair.keras.output), output.shape)
    except (Blocked, NotImplementedError, ValueError, RuntimeError) as problem:
        raise BadUsage(f"{stop.layer}: {' '.join(str(problem).split())}") from None
    reads = [
        _Read.of(number, mine[tensor], theirs.get(turned.get(tensor, "")), 0 if image is None else image.start)
        for number, tensor in enumerate(mine, 1)
    ]
    found = sorted((term for read in reads for term in read.strongest(count)), key=_order)
    value, other = float(output[index]), float("nan") if actual is None else float(actual[index])
    shown = found[:count]
    whole = [sum(float(read.products[side].sum()) for read in reads) for side in (0, 1)]
    reach = receptive_fields(stepper.comparison.ref.network).get(pair.ref.output)
    return Terms(
        index,
        value,
        other,
        tuple(read.field for read in reads),
        None if reach is None else (tuple(reach.size), tuple(reach.stride), tuple(reach.offset)),
        tuple(shown),
        sum(int(read.touched.sum()) for read in reads) - len(shown),
        whole[0] - sum(term.ref for term in shown),
        whole[1] - sum(term.keras for term in shown),
        value - whole[0],
        other - whole[1],
    )


@dataclass(frozen=True, eq=False)
class _Read:
    """One input of the layer, as far as it is read: what both sides have there, and the element's derivatives.

    Attributes:
        number: which input.
        values, slopes: of the reference and of Keras.
        touched: where either side reads at all.
        start: the index of the first entry; () where nothing is read.
    """

    number: int
    values: tuple[Array, Array]
    slopes: tuple[Array, Array]
    touched: Array
    start: tuple[int, ...]

    @classmethod
    def of(cls, number: int, mine: tuple[Array, Array], theirs: tuple[Array, Array] | None, image: int) -> _Read:
        """Of each side (slope, value) from an image on; what Keras has in another size, or not at all, adds nothing."""
        shape = mine[0].shape
        if theirs is None or any(part.size != mine[0].size for part in theirs):
            theirs = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        both = [mine, tuple(part.reshape(shape) for part in theirs)]
        box = _box(both[0][0] != 0, both[1][0] != 0)
        slopes, values = ((both[0][part][box], both[1][part][box]) for part in (0, 1))
        touched = (slopes[0] != 0) | (slopes[1] != 0)
        start = tuple(side.start for side in box) if touched.size else ()
        return cls(number, values, slopes, touched, (start[0] + image, *start[1:]) if start else ())

    @cached_property
    def products(self) -> tuple[Array, Array]:
        """What each entry adds on both sides."""
        mine, theirs = (slope.astype(np.float64) * value for slope, value in zip(self.slopes, self.values, strict=True))
        return mine, theirs

    @property
    def field(self) -> tuple[tuple[int, int], ...]:
        """The first and last index that is read, along each axis; () where nothing is."""
        return tuple((first, first + count - 1) for first, count in zip(self.start, self.touched.shape, strict=False))

    def strongest(self, count: int) -> list[Term]:
        """The entries whose shares differ most, and of equal ones those that add most."""
        mine, theirs = (side.ravel() for side in self.products)
        places = np.flatnonzero(self.touched.ravel())
        gap, size = _apart(mine[places], theirs[places])
        made: list[Term] = []
        for place in places[_first(gap, size, count)]:
            here = tuple(int(i) for i in np.unravel_index(place, self.touched.shape))
            index = tuple(i + first for i, first in zip(here, self.start, strict=True))
            made.append(Term(index, *(float(v[here]) for v in (*self.values, *self.slopes)), input=self.number))
        return made


def _box(*touched: Array) -> tuple[slice, ...]:
    """The smallest box that holds every place where one of these is true; an empty one where none is."""
    lows, highs = [], []
    for axis in range(touched[0].ndim):
        others = tuple(a for a in range(touched[0].ndim) if a != axis)
        found = np.flatnonzero(np.logical_or.reduce([one.any(axis=others) for one in touched]))
        lows.append(int(found[0]) if found.size else 0)
        highs.append(int(found[-1]) + 1 if found.size else 0)
    return tuple(slice(low, high) for low, high in zip(lows, highs, strict=True))


def _first(gap: Array, size: Array, count: int) -> Array:
    """The places of the largest gaps, and of equal ones of the largest sizes; all of them are never put in order."""
    count = min(count, gap.size)
    if not count:
        return np.zeros(0, int)
    least = np.partition(gap, -count)[-count]
    sure, equal = np.flatnonzero(gap > least), np.flatnonzero(gap == least)
    room = count - sure.size
    if equal.size > room:
        smallest = np.partition(size[equal], -room)[-room]
        larger = equal[size[equal] > smallest]
        equal = np.concatenate([larger, equal[size[equal] == smallest][: room - larger.size]])
    chosen = np.sort(np.concatenate([sure, equal]))
    return chosen[np.lexsort((-size[chosen], -gap[chosen]))]


def _apart(mine: Any, theirs: Any) -> tuple[Array, Array]:
    """How far apart shares are, and how large the larger ones; what is no number is further than any."""
    with np.errstate(invalid="ignore"):
        both = np.abs(np.subtract(mine, theirs)), np.maximum(np.abs(mine), np.abs(theirs))
    gap, size = (np.where(np.isnan(value), np.inf, value) for value in both)
    return gap, size


def _order(term: Term) -> tuple[float, float]:
    gap, size = _apart(term.ref, term.keras)
    return -float(gap), -float(size)


def _image(scene: Scene, pair: Pair, index: tuple[int, ...]) -> slice | None:
    """The image of an element, where both sides make each image of that image alone; None where all must run."""
    for lane, unit in ((scene.ref, pair.ref), (scene.keras, pair.keras)):
        node = lane.node(unit.name)
        kinds = [lane.network[name].kind for name in node.layers]
        alone = all(k.by_image or (isinstance(k, BatchNorm) and (k.frozen or lane.mode == "eval")) for k in kinds)
        tensors = (*node.inputs, unit.output)
        if not alone or len({len(lane.value(tensor)) for tensor in tensors if lane.value(tensor).ndim}) != 1:
            return None
    return slice(index[0], index[0] + 1)


def _slopes(
    lane: Lane, unit: Unit, index: tuple[int, ...], shape: tuple[int, ...], image: slice | None
) -> dict[str, tuple[Array, Array]]:
    """Input of the unit → the derivatives of one element with respect to it, and what it holds, of these images."""
    node = lane.node(unit.name)
    own, these = lane.value(unit.output), slice(None) if image is None else image
    upstream = np.zeros(shape, np.float32)
    upstream[index] = 1.0
    above = {unit.output: upstream.reshape(own.shape)[these]}
    local = lane.isolate(node, above, outputs=False, cut=lambda value: value[these])
    made: dict[str, tuple[Array, Array]] = {}
    for tensor in dict.fromkeys(lane.network.data(unit.inputs)):
        value = lane.value(tensor)[these]
        made[tensor] = local.input_grads.get(tensor, np.zeros_like(value)), value
    return made
