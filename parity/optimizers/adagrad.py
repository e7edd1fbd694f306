"""AdaGrad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class Adagrad(UpdateRule):
    """s ← rho·s + g², w ← w - rate·g/(√s + epsilon) (examples/+solver/adagrad.m).

    Slots:
        square: s.

    Attributes:
        epsilon: keeps the divisor off zero.
        rho: weight of the old s, 1 but in MatConvNet's option.
        epsilon_inside: whether epsilon is under the root, as in Keras from 2.11 on (keras/src/optimizers/adagrad.py).
        initial: what s starts from.
    """

    causes: ClassVar = {
        "epsilon": "optimizer-epsilon",
        "epsilon_inside": "optimizer-epsilon",
        "rho": "optimizer-kind",
        "initial": "optimizer-kind",
    }
    keras: ClassVar = ("Adagrad", "OutsideAdagrad")

    epsilon: float = 1e-10
    rho: float = 1.0
    epsilon_inside: bool = False
    initial: float = 0.0

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """The sum starts from `initial`."""
        return {"square": np.full_like(weight, self.initial)}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update, in the weight's class."""
        of = weight.dtype.type
        s = of(self.rho) * slots["square"] + gradient * gradient
        divisor = np.sqrt(s + of(self.epsilon)) if self.epsilon_inside else np.sqrt(s) + of(self.epsilon)
        return weight - of(rate) * gradient / divisor, {"square": s}

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Adagrad:
        """Epsilon lies outside the root before 2.11; standalone Keras (its config has no initial value) starts at 0."""
        initial = number(config, "initial_accumulator_value", 0.0 if era < 3 else 0.1)
        inside = era >= 3 and "Outside" not in class_name
        return cls(number(config, "epsilon", 1e-8 if era == 1 else 1e-7), 1.0, inside, initial)

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.Adagrad`, or of parity's own class that adds epsilon to the root."""
        own = {"initial_accumulator_value": self.initial, "epsilon": self.epsilon}
        return "Adagrad" if self.epsilon_inside else "OutsideAdagrad", own
