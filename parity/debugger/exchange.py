"""One side's tensors in the other side's run: outputs, gradients, parameters; each can be taken back.

Every function here takes the stepper, the pair where one stands, and whose tensors go where (`"ref"`, `"keras"`). It
raises BadUsage where they do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from parity.align import Pair
from parity.debugger.lane import Lane
from parity.errors import BadUsage
from parity.tensors import fitted
from parity.transfer import Link

if TYPE_CHECKING:
    from parity.debugger.stepper import Stepper

__all__ = ["SIDES", "carried", "put_gradients", "put_output", "put_weights", "undoing"]

Array = np.ndarray

SIDES = {"ref": "the reference", "keras": "Keras"}
"""Side → what to call it."""

Put: TypeAlias = "tuple[int, Callable[[], None], str]"
"""The first stop that it changes, what takes it back, and what was put in."""


def put_output(stepper: Stepper, pair: Pair, source: str, target: str) -> Put:
    """A layer's output in the other side's run."""
    scene, stop = stepper.scene(), stepper.stop
    lanes = {"ref": scene.ref, "keras": scene.keras}
    units = {"ref": pair.ref, "keras": pair.keras}
    value = lanes[source].value(units[source].output)
    lane, tensor = lanes[target], units[target].output
    own = fitted(value, lane.network.shape_of(tensor))
    if own is None:
        raise BadUsage(f"put: a tensor of {value.shape[1:]} does not fit {SIDES[target]}, which makes "
                       f"{lane.network.shape_of(tensor)}")  # fmt: skip
    before = lane.put(tensor, own)
    stepper.training.changed(stop.step)
    return stop.index, undoing(stepper, stop.step, lambda: lane.put(tensor, before)), "output"


def put_gradients(stepper: Stepper, pair: Pair, source: str, target: str) -> Put:
    """The gradients of a layer's inputs and parameters."""
    scene, stop = stepper.scene(), stepper.stop
    named = scene.run.named[pair.ref.name]
    lanes = {"ref": scene.ref, "keras": scene.keras}
    mine, lane = lanes[source], lanes[target]
    undoes: list[Callable[[], object]] = []
    for ref_tensor, *keras_tensors in named.sources.values():
        if len(keras_tensors) != 1:
            continue  # which part of the sum is whose nobody can say
        names = {"ref": ref_tensor, "keras": keras_tensors[0]}
        value = mine.gradient(names[source])
        if value is None:
            continue
        own = fitted(value, lane.network.shape_of(names[target]))
        if own is not None:
            before = lane.put_gradient(names[target], own)
            undoes.append(lambda n=names[target], b=before: lane.put_gradient(n, b))
    for link in named.gradients.values():
        given = mine.param_gradients(link.ref if source == "ref" else [link.keras])
        for key, value in carried(link, given, target, lane).items():
            before = lane.put_param_gradient(key, value)
            undoes.append(lambda k=key, b=before: lane.put_param_gradient(k, b))
    if not undoes:
        raise BadUsage(f"put: no gradient of {stop.layer} fits the other side")
    stepper.training.changed(stop.step)

    def undo() -> None:
        for back in reversed(undoes):
            back()

    return stop.index, undoing(stepper, stop.step, undo), "gradients"


def put_weights(stepper: Stepper, pair: Pair, source: str, target: str) -> Put:
    """A layer's parameters after an update."""
    stop = stepper.stop
    training, run = stepper.training, stepper.comparison
    training.update(stop.step)
    held = {"ref": run.course, "keras": run.free}
    given = held[source].weights[stop.step]
    scene = stepper.scene()
    lane = scene.keras if target == "keras" else scene.ref
    values: dict[str, Array] = {}
    own = {key for keys in pair.keras.params.values() for key in keys}  # of a layer that is used again: the first's
    for link in run.links:
        if link.pair is pair or link.keras in own:
            values |= carried(link, given, target, lane)
    if not values:
        raise BadUsage(f"put: no parameter of {stop.layer} fits the other side")
    before = training.put(target, stop.step, values)
    first = next(s.index for s in stepper.stops if s.phase == "update" and s.step == stop.step)
    return first, lambda: training.unput(target, stop.step, before), "parameters"


def carried(link: Link, given: Mapping[str, Array], target: str, lane: Lane) -> dict[str, Array]:
    """One side's array of a parameter in the layout of the other side; empty where there is no such layout."""
    if link.to_keras is None or not link.keras or not link.ref:
        return {}
    if target == "keras":
        known = all(key in given for key in link.ref)
        return {link.keras: np.asarray(link.to_keras(given))} if known else {}
    value = given.get(link.keras)
    if value is None or len(link.ref) != 1:
        return {}
    shape = lane.network.params[link.ref[0]].shape
    if value.size != int(np.prod(shape)):
        return {}
    back = {link.ref[0]: value.reshape(shape)}
    return back if np.array_equal(link.to_keras(back), value) else {}


def undoing(stepper: Stepper, step: int, back: Callable[[], object]) -> Callable[[], None]:
    """What takes an experiment back, and lets the stepper know that a training step is another one then."""

    def undo() -> None:
        back()
        stepper.training.changed(step)

    return undo
