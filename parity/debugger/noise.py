"""What rounding alone makes of the reference: runs of it on inputs and weights that are moved by as much."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from parity.align import Pair
from parity.debugger.exchange import carried
from parity.debugger.lane import Lane, pass_of
from parity.debugger.nodes import Blocked
from parity.distances import Distance, distance
from parity.propagation import seen_tensor

if TYPE_CHECKING:
    from parity.debugger.scene import Scene

__all__ = ["Noise"]

Array = np.ndarray


class Noise:
    """How far rounding alone puts a scene's tensors apart; what is needed for one that is asked for is run, no more."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def at(self, pair: Pair, name: str, *, drifted: bool) -> Distance | None:
        """How far a tensor of a pair (by its name in reports) comes out; None where it cannot be run.

        Args:
            pair: which.
            name: `output`, `loss`, or of a gradient.
            drifted: with Keras' weights, which steps before this one have moved apart.
        """
        named, lane = self._scene.run.named[pair.ref.name], self._drifted if drifted else self._shaken
        try:
            if name not in ("output", "loss"):
                lane.local(pair.ref.name)
            else:
                lane.value(pair.ref.output)
        except Blocked:
            return None
        expected, moved = (seen_tensor(named, name, seen, "ref") for seen in (self._scene.seen_ref, pass_of(lane)))
        return None if expected is None or moved is None else distance(moved, expected)

    @property
    def lanes(self) -> Iterator[Lane]:
        """The runs that there are."""
        for name in _LANES:
            if name in self.__dict__:
                yield self.__dict__[name]

    def forget(self) -> None:
        """An experiment has changed what is run."""
        for name in _LANES:
            self.__dict__.pop(name, None)

    @cached_property
    def _shaken(self) -> Lane:
        """The reference with every input and weight moved by half an ulp."""
        scene, rng = self._scene, np.random.default_rng(0)

        def jittered(value: Array) -> Array:
            return (value * (1 + rng.uniform(-1, 1, value.shape) * 2.0**-24)).astype(value.dtype)

        weights = {key: jittered(value) for key, value in scene.ref.weights.items()}
        lane = scene.lane_of_ref(weights, {name: jittered(value) for name, value in scene.run.data.ref.items()})
        lane.follow(scene.ref)
        return lane

    @cached_property
    def _drifted(self) -> Lane:
        """The reference with Keras' weights: what rounding has made of both sides' in the steps before this one.

        An optimizer that divides by the size of gradients makes whole steps of gradients that are rounding alone.
        """
        scene = self._scene
        lane = scene.lane_of_ref(self._shaken.weights, scene.run.data.ref)
        for link in scene.run.links:
            lane.weights.update(carried(link, scene.keras.weights, "ref", scene.ref))
        lane.follow(scene.ref)
        return lane


_LANES = ("_shaken", "_drifted")
