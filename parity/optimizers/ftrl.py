"""FTRL-proximal: the weight that a sum of all gradients so far asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class Ftrl(UpdateRule):
    """s' = s + g², z ← z + g + 2·shrinkage·w - (s'^-p - s^-p)/rate·w, w ← (clip(z, ±l1) - z)/(s'^-p/rate + 2·l2).

    That is keras/src/optimizers/ftrl.py, where beta/(2·rate) is added to l2.

    Slots:
        square: s.
        linear: z.

    Attributes:
        power: p, not above 0.
        initial: what s starts from.
        l1: what |z| must exceed for w to leave 0.
        l2: penalty on w.
        shrinkage: penalty on w that stays out of s.
        beta: added to l2, over twice the rate.
    """

    causes: ClassVar = {
        "power": "optimizer-kind",
        "initial": "optimizer-kind",
        "l1": "optimizer-weight-decay-missing",
        "l2": "optimizer-weight-decay-missing",
        "shrinkage": "optimizer-weight-decay-missing",
        "beta": "optimizer-kind",
    }
    keras: ClassVar = ("Ftrl",)

    power: float = -0.5
    initial: float = 0.1
    l1: float = 0.0
    l2: float = 0.0
    shrinkage: float = 0.0
    beta: float = 0.0

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """The sum of squares starts from `initial`, z from 0."""
        return {"square": np.full_like(weight, self.initial), "linear": np.zeros_like(weight)}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update, in the weight's class."""
        of = weight.dtype.type
        lr, power, l1 = of(rate), of(-self.power), of(self.l1)
        square = slots["square"] + gradient * gradient
        grown = (square**power - slots["square"] ** power) / lr
        linear = slots["linear"] + (gradient + of(2 * self.shrinkage) * weight - grown * weight)
        quadratic = square**power / lr + of(2) * (of(self.l2) + of(self.beta) / (of(2) * lr))
        return (np.clip(linear, -l1, l1) - linear) / quadratic, {"square": square, "linear": linear}

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Ftrl:
        """Ftrl of any era."""
        return cls(
            number(config, "learning_rate_power", -0.5),
            number(config, "initial_accumulator_value", 0.1),
            number(config, "l1_regularization_strength", 0.0),
            number(config, "l2_regularization_strength", 0.0),
            number(config, "l2_shrinkage_regularization_strength", 0.0),
            number(config, "beta", 0.0),
        )

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.Ftrl`."""
        return "Ftrl", {
            "learning_rate_power": self.power,
            "initial_accumulator_value": self.initial,
            "l1_regularization_strength": self.l1,
            "l2_regularization_strength": self.l2,
            "l2_shrinkage_regularization_strength": self.shrinkage,
            "beta": self.beta,
        }
