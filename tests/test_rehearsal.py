"""Optimizers run alone: what a batch hides shows there, and what is alike does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from parity.optimizers import SGD, Adadelta, Adam
from parity.optimizers.updater import rehearsed
from parity.recipe import Recipe, Schedule
from parity.rehearsal import FACTORS, rehearse
from parity.runner import Pass

SEEN = Pass(param_grads={"w": np.full((3, 2), 0.01, np.float32)})
COSINE = Schedule("CosineDecay", (0.01,), config={"initial_learning_rate": 0.01, "decay_steps": 10})


@dataclass
class Side:
    """As much of a runner as a rehearsal needs."""

    recipe: Recipe

    def rehearse(self, *given: Any) -> list[np.ndarray] | None:
        return rehearsed(self.recipe, *given) if self.recipe.optimizer else None


def held(ref: Recipe, keras: Recipe) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The steps that differ, and those that differ by more than what a change of the rate means."""
    made = rehearse(Side(ref), Side(keras), SEEN)
    assert made is not None
    return made.apart(made.ref), made.differ(ref, keras)


def recipe(rule: Any, **fields: Any) -> Recipe:
    return Recipe(optimizer=rule, learning_rate=fields.pop("rate", Schedule("constant", (0.01,))), **fields)


EVERY = (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("ref", "keras", "steps"),
    [
        (recipe(Adam()), recipe(Adam()), ()),
        (recipe(Adam(epsilon=1e-8)), recipe(Adam(epsilon=2e-8)), EVERY),
        (recipe(Adam()), recipe(Adam(amsgrad=True)), (2,)),
        (recipe(SGD(0.9)), recipe(SGD(0.9), clip={"clipvalue": 0.5}), EVERY),
        (recipe(SGD(0.9)), recipe(SGD(0.9), clip={"clipvalue": 1e3}), ()),
        (recipe(SGD(0.9)), recipe(SGD(0.9002)), EVERY[1:]),
        (recipe(SGD(0.9), rate=COSINE), recipe(SGD(0.9), rate=COSINE), ()),
        (recipe(SGD(0.9)), recipe(SGD(0.9), rate=COSINE), EVERY[1:]),
        (recipe(SGD(0.9), weight_decay=0.1), recipe(SGD(0.9)), ()),  # the network's, not the optimizer's
        (recipe(SGD(0.9)), recipe(SGD(0.9), decoupled_decay=0.1), EVERY),
    ],
)
def test_the_steps_that_differ(ref: Recipe, keras: Recipe, steps: tuple[int, ...]) -> None:
    assert held(ref, keras) == (steps, steps)


def test_a_velocity_that_holds_the_rate_shows_when_the_rate_changes() -> None:
    changed = FACTORS.index(0.1) + 1
    ref, keras = recipe(SGD(0.9)), recipe(SGD(0.9, rate_inside=True))
    assert held(ref, keras) == ((changed, changed + 1), ())
    assert held(recipe(SGD()), recipe(SGD(rate_inside=True))) == ((), ())
    clipped = replace(keras, clip={"clipvalue": 0.5})
    assert held(ref, clipped)[1] == EVERY


def test_a_rule_that_takes_no_rate_is_one_at_a_rate_of_one() -> None:
    ref, keras = recipe(Adadelta()), recipe(Adadelta(use_rate=True), rate=Schedule("constant", (1.0,)))
    assert held(ref, keras)[1] == ()
    assert held(ref, replace(keras, learning_rate=Schedule("constant", (0.9,))))[1] == EVERY


def test_there_is_none_without_an_optimizer() -> None:
    assert rehearse(Side(Recipe()), Side(recipe(SGD())), SEEN) is None
