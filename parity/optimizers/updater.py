"""A recipe at work: what happens to all parameters of a network in one update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from parity.network import Param
from parity.optimizers.constraints import bounded
from parity.optimizers.schedules import rate_at

if TYPE_CHECKING:
    from parity.recipe import Recipe

__all__ = ["Updater", "rehearsed"]


class Updater:
    """Steps a set of weights by a recipe: penalties, clipping, decay, the update rule, constraints, per parameter.

    Args:
        recipe: its optimizer must not be None.
        params: id → `Param`; those that are not trainable are left alone.

    Attributes:
        slots: param id → slot name → array, as the rule names them.
        steps: updates done since the start.
        factor: on the schedule's learning rate.
    """

    def __init__(self, recipe: Recipe, params: Mapping[str, Param]) -> None:
        self.recipe = recipe
        self.params = params
        self.slots: dict[str, dict[str, np.ndarray]] = {}
        self.steps = 0
        self.factor = 1.0

    def reset(self, slots: Mapping[str, Mapping[str, np.ndarray]] | None = None, steps: int = 0) -> None:
        """Start again: slots zero, or those given (missing ones are zero)."""
        self.steps = steps
        rule = self.recipe.optimizer
        held = {id: {name: np.array(value) for name, value in of.items()} for id, of in (slots or {}).items()}
        self.slots = {id: rule.adopted(of, self._first) for id, of in held.items()} if rule is not None else held

    def held(self) -> dict[str, dict[str, np.ndarray]]:
        """Param id → slot name → value, as a recipe's slots are."""
        rule = self.recipe.optimizer
        return {id: dict(of) if rule is None else rule.neutral(dict(of), self._first) for id, of in self.slots.items()}

    def halted(self) -> tuple[dict[str, dict[str, np.ndarray]], int]:
        """Slots and steps, for `resume`; a step puts new arrays in place of the old ones."""
        return {id: dict(of) for id, of in self.slots.items()}, self.steps

    def resume(self, halted: tuple[dict[str, dict[str, np.ndarray]], int]) -> None:
        """Go on from where `halted` was called."""
        slots, self.steps = halted
        self.slots = {id: dict(of) for id, of in slots.items()}

    @property
    def _first(self) -> float:
        """The rate that a velocity is taken to hold: the schedule's first, of whichever step it is."""
        return rate_at(self.recipe.learning_rate, 0)

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return self.factor * rate_at(self.recipe.learning_rate, self.steps)

    @np.errstate(all="ignore")  # what overflows shows in the result
    def step(self, weights: Mapping[str, np.ndarray], grads: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The weights after one update, for the params that have a gradient and are trainable.

        Args:
            weights: id → value; its class is the class of the arithmetic.
            grads: id → gradient of the mean data loss; penalties and decay are added here.
        """
        recipe, rule, rate = self.recipe, self.recipe.optimizer, self.rate
        if rule is None:
            raise ValueError("the recipe has no optimizer")
        moving = {id: p for id, p in self.params.items() if p.trainable and id in grads and id in weights}
        full = self._clipped({id: _penalized(grads[id], weights[id], p) for id, p in moving.items()})
        after: dict[str, np.ndarray] = {}
        for id, param in moving.items():
            weight = weights[id]
            of = weight.dtype.type
            lr, decay = rate * param.rate_multiplier, recipe.weight_decay * param.decay_multiplier
            if not (lr > 0 or decay > 0):  # cnn_train.m: such a parameter, and its momentum, stay untouched
                continue
            gradient = full[id] + of(decay) * weight if decay else full[id]
            if recipe.decoupled_decay:
                weight = weight - of(lr * recipe.decoupled_decay) * weight
            slots = {**rule.start(weight), **self.slots.get(id, {})}
            moved, self.slots[id] = rule.step(weight, gradient, slots, lr)
            after[id] = bounded(moved, param.constraint)
        self.steps += 1
        return after

    def _clipped(self, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients after `clipvalue`, `clipnorm` or `global_clipnorm` (keras/src/optimizers/base_optimizer.py)."""
        clip = self.recipe.clip
        if "clipnorm" in clip:
            return {id: g * _shrink(float(np.linalg.norm(g)), clip["clipnorm"], g) for id, g in grads.items()}
        if "global_clipnorm" in clip:
            norm = float(np.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in grads.values())))
            return {id: g * _shrink(norm, clip["global_clipnorm"], g) for id, g in grads.items()}
        if "clipvalue" in clip:
            return {id: np.clip(g, -clip["clipvalue"], clip["clipvalue"]) for id, g in grads.items()}
        return grads


def rehearsed(
    recipe: Recipe, weight: np.ndarray, gradients: Sequence[np.ndarray], factors: Sequence[float]
) -> list[np.ndarray]:
    """What a recipe's optimizer, of a known rule, makes of one parameter, step by step (see `Runner.rehearse`)."""
    param = Param("w", "kernel", "", weight.shape, decay_multiplier=0.0)
    updater = Updater(replace(recipe, slots={}), {"w": param})
    made: list[np.ndarray] = []
    for gradient, factor in zip(gradients, factors, strict=True):
        updater.factor = factor
        made.append(updater.step({"w": weight}, {"w": gradient}).get("w", weight))
    return made


def _penalized(gradient: np.ndarray, weight: np.ndarray, param: Param) -> np.ndarray:
    """The gradient with what the param's own L2 and L1 penalties add, in the weight's class."""
    of = weight.dtype.type
    total = np.asarray(gradient, weight.dtype)
    if param.l2:
        total = total + of(2 * param.l2) * weight
    return total + of(param.l1) * np.sign(weight) if param.l1 else total


def _shrink(norm: float, limit: float, like: np.ndarray) -> np.generic:
    return like.dtype.type(min(1.0, limit / norm) if norm else 1.0)
