"""Hypotheses about the recipe, tried: the reference's gradients, put through an edited recipe, make Keras' steps.

As for layers, an edit is one of the reference. It is held against what the Keras optimizer made of the same gradients,
step by step, and again on a second sequence of gradients, to which nothing was fitted: turned around, of other sizes,
and some all but zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from parity.case import Comparison
from parity.comparison import started
from parity.distances import distance
from parity.network import Param
from parity.optimizers.updater import Updater
from parity.recipe import Recipe
from parity.runner import Pass
from parity.tolerance import CLEAN
from parity.transfer import Link, transferred
from parity.updates import Course, coarseness, isolated_step, move_floor

__all__ = ["Replay", "Step", "begun_at", "replay"]

Array = np.ndarray

_LARGEST = 20_000_000
"""Parameters up to which a replay, which holds them several times, is made."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of one parameter, in the Keras layout: its value before, the reference's change of it, and Keras'.

    `coarse` is what the Keras update rule's scalars may be off by.
    """

    link: Link
    start: Array
    expected: Array
    actual: Array
    coarse: float = 0.0

    @property
    def floor(self) -> Array:
        """What rounding may do to a change, per channel."""
        return move_floor(self.start, self.actual, coarse=self.coarse)

    def fits(self, change: Array) -> bool:
        """Whether this change is what Keras made, to the noise floor."""
        return distance(self.actual, change).x_floor(self.floor) <= CLEAN


class Replay:
    """The Keras optimizer's steps on the reference's gradients, once more and on a second sequence.

    Args:
        run: the comparison, its updates done; the Keras runner's weights and slots are changed.

    Attributes:
        slots: those that the Keras optimizer starts from, by Keras id.
        first: the steps on the batch's own gradients.
    """

    def __init__(self, run: Comparison) -> None:
        self.run = run
        self.slots = started(run.ref, run.keras, run.links)
        self.first = list(self._steps(run.course.passes))

    def _steps(self, passes: list[Pass]) -> Iterator[list[Step]]:
        run = self.run
        links = [link for link in run.links if link.learned and link.ref and link.keras]
        keras, course = run.keras, _course(run, passes)
        keras.reset(self.slots)
        before = transferred(run.links, course.weights[0])
        for step in range(1, len(passes) + 1):
            start = transferred(run.links, course.weights[step - 1])
            goal = transferred(run.links, course.weights[step])
            reached = isolated_step(run.alignment, run.links, keras, course, step)
            made: list[Step] = []
            for link in links:
                key = link.keras
                if key in start and key in goal and key in before:
                    change = goal[key] - start[key]
                    made.append(Step(link, start[key], change, reached[key] - start[key], coarseness(keras.recipe)))
            yield made

    @cached_property
    def _others(self) -> list[Pass]:
        """The second sequence of gradients."""
        return _varied(self.run.course.passes)

    @cached_property
    def second(self) -> list[list[Step]]:
        """The steps on the second sequence of gradients, the reference's by its own trainer."""
        return list(self._steps(self._others))

    def factors(self, recipe: Recipe, params: Mapping[str, Param]) -> dict[str, float] | None:
        """Keras id → the factor on this recipe's steps that gives Keras' in all steps of both sequences.

        Fitted on one half of the elements of the first step. None where one constant factor for each parameter does
        not explain every step.
        """
        found: dict[str, float] = {}
        for sequence in (False, True):
            for step, change in self._made(recipe, params, second=sequence):
                key = step.link.keras
                if key not in found:
                    mine, theirs = (v.astype(np.float64).ravel()[::2] for v in (change, step.actual))
                    power = float(mine @ mine)
                    found[key] = float(mine @ theirs) / power if power > 0 else 1.0
                if not step.fits(found[key] * change):
                    return None
        return found or None

    def explains(self, recipe: Recipe, params: Mapping[str, Param], *, batch: bool = False) -> bool:
        """Whether this recipe makes the steps that Keras makes.

        Args:
            recipe: of what it declares, on the Keras network's parameters.
            params: Keras id → `Param`.
            batch: by the steps on the batch alone, and not on the second sequence of gradients.
        """
        sequences = (False,) if batch else (False, True)
        return all(step.fits(change) for second in sequences for step, change in self._made(recipe, params, second))

    def _made(self, recipe: Recipe, params: Mapping[str, Param], second: bool) -> Iterator[tuple[Step, Array]]:
        """Every step of a sequence, with what this recipe makes of the same weights and gradients."""
        updater = Updater(recipe, params)
        updater.reset(self.slots, begun_at(self.slots))
        steps, passes = (self.second, self._others) if second else (self.first, self.run.course.passes)
        for step, seen in zip(steps, passes, strict=True):
            weights, grads = self.fed(step, seen)
            after = updater.step(weights, grads)
            for each in step:
                key = each.link.keras
                if key in grads:
                    yield each, after.get(key, each.start) - each.start

    @staticmethod
    def fed(step: list[Step], seen: Pass) -> tuple[dict[str, Array], dict[str, Array]]:
        """The weights before a step and the gradients that it was given, by Keras id."""
        weights = {each.link.keras: each.start for each in step}
        grads = {
            each.link.keras: each.link.to_keras(seen.param_grads)
            for each in step
            if each.link.to_keras is not None and all(key in seen.param_grads for key in each.link.ref)
        }
        return weights, grads


def begun_at(slots: Mapping[str, Mapping[str, Array]]) -> int:
    """Updates that an optimizer has behind it which starts from these slots (param id → slot → array)."""
    return max((int(np.max(of["step"])) for of in slots.values() if "step" in of), default=0)


def replay(run: Comparison) -> Replay | None:
    """The replay of a comparison, made once; None where no update ran or the network is too large to hold it."""
    if "replay" not in run.explanations:
        size = sum(p.value.size for p in run.keras.network.params.values() if p.value is not None)
        alive = run.bench is not None  # of two recordings neither takes another step
        fits = alive and bool(run.moves) and bool(run.course.passes) and size <= _LARGEST
        try:
            run.explanations["replay"] = Replay(run) if fits else None
        except (ValueError, KeyError, RuntimeError, NotImplementedError):
            run.explanations["replay"] = None
    return run.explanations["replay"]


def _course(run: Comparison, passes: list[Pass]) -> Course:
    """The reference's course with other gradients: its weights are those that its own trainer then makes."""
    if passes is run.course.passes:
        return run.course
    ref = run.ref
    ref.load(run.course.weights[0])
    ref.reset(ref.recipe.slots or None)
    made = Course(weights=[ref.params()], passes=list(passes))
    for seen in passes:
        ref.update(seen.param_grads, seen.statistics)
        made.weights.append(ref.params())
    ref.load(run.course.weights[0])
    return made


def _varied(passes: list[Pass]) -> list[Pass]:
    """Another sequence of gradients of the same kinds: the last first, of other sizes, every seventh all but zero."""
    made: list[Pass] = []
    for index, seen in enumerate(reversed(passes)):
        grads: dict[str, Array] = {}
        for key, grad in seen.param_grads.items():
            scale = np.random.default_rng(index).uniform(0.5, 2.0, grad.shape) * (1.0 if index % 2 else -1.0)
            scale.ravel()[::7] *= 1e-8
            grads[key] = (grad * scale).astype(grad.dtype)
        made.append(replace(seen, param_grads=grads))
    return made
