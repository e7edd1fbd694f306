"""The optimizers alone: both take the same steps from the same numbers, by gradients that no batch has in it.

A batch shows an optimizer a narrow range of gradients at one learning rate. Here a small parameter of its own is given
to a new optimizer of each side: gradients from a hundred-millionth to a hundred times those of the batch, of changing
signs, and at the fourth step a tenth of the learning rate, on both sides alike. Each side's own schedule is followed.
Penalties and factors of single parameters belong to the network and have no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.distances import distance, rms
from parity.optimizers.adadelta import Adadelta
from parity.optimizers.sgd import SGD
from parity.optimizers.updater import rehearsed
from parity.recipe import Recipe, Schedule
from parity.runner import Pass, Runner
from parity.tolerance import CLEAN
from parity.updates import coarseness, move_floor

__all__ = ["Rehearsal", "rehearse"]

Array = np.ndarray

_SIZES = np.array([1e-8, 1e-4, 1.0, 100.0], np.float32)
"""Gradients per channel, in units of the batch's."""

_TURNS = (1.0, -0.5, 2.0, 1.0, -1.0)
"""What each step's gradients are multiplied by."""

FACTORS = (1.0, 1.0, 1.0, 0.1, 0.1)
"""What each step's learning rate is multiplied by."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Both optimizers' steps on the same gradients.

    Attributes:
        weight: what each step starts from, (6, 4).
        gradients: of each step.
        ref, keras: what each step made of the weight.
        coarse: what the Keras update rule's scalars may be off by.
    """

    weight: Array
    gradients: tuple[Array, ...]
    ref: tuple[Array, ...]
    keras: tuple[Array, ...]
    coarse: float = 0.0

    def apart(self, steps: Sequence[Array]) -> tuple[int, ...]:
        """The steps, from 1, at which these are not what the Keras optimizer makes."""
        found: list[int] = []
        for at, (mine, theirs) in enumerate(zip(steps, self.keras, strict=True), 1):
            expected, actual = mine - self.weight, theirs - self.weight
            floor = move_floor(self.weight, expected, coarse=self.coarse)
            if distance(actual, expected).x_floor(floor) > CLEAN:
                found.append(at)
        return tuple(found)

    def by(self, recipe: Recipe) -> tuple[int, ...]:
        """The steps, from 1, at which a recipe makes others than the Keras optimizer."""
        return self.apart(rehearsed(recipe, self.weight, self.gradients, FACTORS))

    def _multiplied(self) -> list[Array]:
        """The reference's steps, all times the factor by which they come closest to Keras'."""
        mine, theirs = (np.stack(steps).astype(np.float64) - self.weight for steps in (self.ref, self.keras))
        power = float(np.sum(mine * mine))
        factor = float(np.sum(mine * theirs)) / power if power else 1.0
        return [(self.weight + factor * step).astype(np.float32) for step in mine]

    def differ(self, ref: Recipe, keras: Recipe) -> tuple[int, ...]:
        """The steps, from 1, at which the two sides differ by more than what a change of the rate means to them.

        That is where a velocity holds its learning rate, and whether a rule takes one at all. Without momentum it does
        not matter where a decay is, so it is the network's to tell.
        """
        found = self.apart(self.ref)
        if found and keras.custom and not self.apart(self._multiplied()):
            return ()  # a class may multiply the rates of single parameters, and knows nothing of this one
        mine, theirs = ref.optimizer, keras.optimizer
        if found and isinstance(mine, SGD) and isinstance(theirs, SGD):
            still = not (mine.momentum or theirs.momentum)
            decay = keras.decoupled_decay if still else ref.decoupled_decay
            if mine.rate_inside != theirs.rate_inside or decay != ref.decoupled_decay:
                like = replace(mine, rate_inside=theirs.rate_inside)
                return self.by(replace(ref, optimizer=like, decoupled_decay=decay))
        if found and isinstance(mine, Adadelta) and isinstance(theirs, Adadelta) and not mine.use_rate:
            taking = replace(ref, optimizer=replace(mine, use_rate=True), learning_rate=Schedule("constant", (1.0,)))
            return self.by(taking)
        return found


def rehearse(ref: Runner, keras: Runner, seen: Pass) -> Rehearsal | None:
    """Both optimizers' steps; None where a side has none, or one that cannot be run alone.

    Args:
        ref: the reference.
        keras: the Keras side.
        seen: the reference's first pass, for the size of its gradients.
    """
    rng = np.random.default_rng(0)
    sizes = [size for size in (rms(g) for g in seen.param_grads.values()) if size > 0]
    unit = min(max(float(np.median(sizes)) if sizes else 1.0, 1e-6), 1e6)
    weight = (0.1 * rng.standard_normal((6, 4))).astype(np.float32)
    shape = rng.standard_normal((len(_TURNS), 6, 4)).astype(np.float32) * _SIZES * np.float32(unit)
    gradients = tuple(step * np.float32(turn) for step, turn in zip(shape, _TURNS, strict=True))
    mine, theirs = (runner.rehearse(weight, gradients, FACTORS) for runner in (ref, keras))
    if mine is None or theirs is None:
        return None
    return Rehearsal(weight, gradients, tuple(mine), tuple(theirs), coarseness(keras.recipe))
