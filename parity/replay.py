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
from parity.network import Param
from parity.optimizers.updater import Updater
from parity.recipe import Recipe
from parity.runner import Pass
from parity.tolerance import CLEAN, distance
from parity.transfer import Link, transferred
from parity.updates import Course, isolated_step, move_floor

__all__ = ["Replay", "Step", "replay"]

Array = np.ndarray

_LARGEST = 20_000_000
"""Parameters up to which a replay, which holds them several times, is made."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of one parameter, in the Keras layout: its value before, the reference's change of it, and Keras'."""

    link: Link
    start: Array
    expected: Array
    actual: Array

    @property
    def floor(self) -> Array:
        """What rounding may do to a change, per channel."""
        return move_floor(self.start, self.actual)

    def fits(self, change: Array) -> bool:
        """Whether this change is what Keras made, to the noise floor."""
        return distance(self.actual, change).x_floor(self.floor) <= CLEAN


class Replay:
    """The Keras optimizer's steps on the reference's gradients, once more and on a second sequence.

    Args:
        run: the comparison, its updates done; the Keras runner's weights and slots are changed.
    """

    def __init__(self, run: Comparison) -> None:
        self.run = run
        self._first = list(self._steps(run.course.passes))

    def _steps(self, passes: list[Pass]) -> Iterator[list[Step]]:
        run = self.run
        links = [link for link in run.links if link.learned and link.ref and link.keras]
        keras, course = run.keras, _course(run, passes)
        keras.reset(started(run.ref, keras, run.links))
        before = transferred(run.links, course.weights[0])
        for step in range(1, len(passes) + 1):
            start = transferred(run.links, course.weights[step - 1])
            goal = transferred(run.links, course.weights[step])
            reached = isolated_step(run.alignment, run.links, keras, course, step)
            made: list[Step] = []
            for link in links:
                key = link.keras
                if key in start and key in goal and key in before:
                    made.append(Step(link, start[key], goal[key] - start[key], reached[key] - start[key]))
            yield made

    @cached_property
    def _others(self) -> list[Pass]:
        """The second sequence of gradients."""
        return _varied(self.run.course.passes)

    @cached_property
    def second(self) -> list[list[Step]]:
        """The steps on the second sequence of gradients, the reference's by its own trainer."""
        return list(self._steps(self._others))

    def factors(self) -> dict[str, float] | None:
        """Keras id → the factor on the reference's steps that gives Keras' in all steps of both sequences.

        Fitted on one half of the elements of the first step. None where one constant factor for each parameter does
        not explain every step.
        """
        found: dict[str, float] = {}
        for step in self._first[0] if self._first else []:
            mine, theirs = (v.astype(np.float64).ravel()[::2] for v in (step.expected, step.actual))
            power = float(mine @ mine)
            found[step.link.keras] = float(mine @ theirs) / power if power > 0 else 1.0
        if not found:
            return None
        for steps in (self._first, self.second):
            if not all(step.fits(found[step.link.keras] * step.expected) for each in steps for step in each):
                return None
        return found

    def explains(self, recipe: Recipe, params: Mapping[str, Param] | None = None) -> bool:
        """Whether the Keras side's own recipe, as it is declared, makes the steps that Keras makes.

        Args:
            recipe: the edited recipe: of what it declares, on the Keras network's parameters.
            params: id → `Param`; by default the Keras network's.
        """
        network = self.run.keras.network
        used = dict(network.params if params is None else params)
        for steps, passes in ((self._first, self.run.course.passes), (self.second, self._others)):
            updater = Updater(recipe, used)
            updater.reset(started(self.run.ref, self.run.keras, self.run.links), recipe.steps_done)
            for step, seen in zip(steps, passes, strict=True):
                weights = {each.link.keras: each.start for each in step}
                grads = {
                    each.link.keras: each.link.to_keras(seen.param_grads)
                    for each in step
                    if each.link.to_keras is not None and all(key in seen.param_grads for key in each.link.ref)
                }
                after = updater.step(weights, grads)
                for each in step:
                    key = each.link.keras
                    if key in grads and not each.fits(after.get(key, each.start) - each.start):
                        return False
        return True


def replay(run: Comparison) -> Replay | None:
    """The replay of a comparison, made once; None where no update ran or the network is too large to hold it."""
    if "replay" not in run.explanations:
        size = sum(p.value.size for p in run.keras.network.params.values() if p.value is not None)
        fits = bool(run.moves) and bool(run.course.passes) and size <= _LARGEST
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
