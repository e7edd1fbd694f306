"""What made one element of a layer's output: the inputs that it depends on, and what each of them adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from parity.debugger.lane import Lane
from parity.debugger.nodes import Blocked
from parity.debugger.stops import Stop
from parity.errors import BadUsage
from parity.layers import Loss
from parity.receptive import receptive_fields
from parity.tensors import shaped
from parity.units import Unit

if TYPE_CHECKING:
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
    """

    index: tuple[int, ...]
    value_ref: float
    value_keras: float
    slope_ref: float
    slope_keras: float

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
        field: first and last index of the input along each axis, over both sides.
        image_field: (size, stride, offset) of its receptive field on the network's input, along each spatial axis, as
            MatConvNet counts them; None where nobody can say.
        terms: the inputs whose shares differ most, the worst first.
        rest_ref, rest_keras: what does not come from these inputs' products (biases, the curve of a nonlinearity).
    """

    index: tuple[int, ...]
    ref: float
    keras: float
    field: tuple[tuple[int, int], ...]
    image_field: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] | None
    terms: tuple[Term, ...]
    rest_ref: float
    rest_keras: float


def terms_of(stepper: Stepper, stop: Stop, index: tuple[int, ...], count: int) -> Terms:
    """The terms of one element of a pair's output.

    The layer runs on its own inputs, with an upstream gradient of 1 at the element and 0 elsewhere: the input's
    gradient is then each input's weight in it. Of a layer that is linear in its input the products add up to the value.

    Raises:
        BadUsage: the index lies outside, or a side cannot be run alone.
    """
    assert stop.pair is not None
    stepper.training.refuse("terms")
    scene, pair = stepper.scene(stop.index), stop.pair
    if isinstance(pair.ref.kind, Loss):
        raise BadUsage(f"terms: {stop.layer} is a loss, one number for the whole batch; go to a layer before it")
    scene.ready()
    try:
        output = scene.ref.value(pair.ref.output)
        if len(index) != output.ndim or any(not 0 <= i < n for i, n in zip(index, output.shape, strict=True)):
            shape = "×".join(map(str, output.shape))
            raise BadUsage(f"the output of {stop.layer} is {shape}; {list(index)} is no index of it")
        mine, x_ref = _slopes(scene.ref, pair.ref, index, output.shape)
        theirs, x_keras = _slopes(scene.keras, pair.keras, index, output.shape)
        actual = shaped(scene.keras.value(pair.keras.output), output.shape)
    except (Blocked, NotImplementedError, ValueError, RuntimeError) as problem:
        raise BadUsage(f"{stop.layer}: {' '.join(str(problem).split())}") from None
    same = theirs.shape == mine.shape or theirs.size == mine.size
    theirs, x_keras = (v.reshape(mine.shape) if same else np.zeros_like(mine) for v in (theirs, x_keras))
    products = (mine.astype(np.float64) * x_ref, theirs.astype(np.float64) * x_keras)
    gap = np.abs(products[0] - products[1]).ravel()
    touched = (mine != 0) | (theirs != 0)
    places = np.argwhere(touched)
    field = tuple((int(a), int(b)) for a, b in zip(places.min(0), places.max(0), strict=True)) if len(places) else ()
    size = np.maximum(np.abs(products[0]), np.abs(products[1])).ravel()
    ordered = sorted(np.flatnonzero(touched.ravel()), key=lambda i: (-gap[i], -size[i]))[:count]
    terms = tuple(
        Term(
            tuple(int(i) for i in np.unravel_index(place, mine.shape)),
            *(float(v.ravel()[place]) for v in (x_ref, x_keras, mine, theirs)),
        )
        for place in ordered
    )
    value, other = float(output[index]), float("nan") if actual is None else float(actual[index])
    reach = receptive_fields(stepper.comparison.ref.network).get(pair.ref.output)
    return Terms(
        index,
        value,
        other,
        field,
        None if reach is None else (tuple(reach.size), tuple(reach.stride), tuple(reach.offset)),
        terms,
        value - float(products[0].sum()),
        other - float(products[1].sum()),
    )


def _slopes(lane: Lane, unit: Unit, index: tuple[int, ...], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The derivative of one element with respect to the unit's first input, and that input, for its image alone."""
    node = lane.node(unit.name)
    own = lane.value(unit.output)
    upstream = np.zeros(shape, np.float32)
    upstream[index] = 1.0
    local = lane.isolate(node, {unit.output: upstream.reshape(own.shape)})
    tensor = lane.network.data(unit.inputs)[0]
    value = lane.value(tensor)
    return local.input_grads.get(tensor, np.zeros_like(value)), value
