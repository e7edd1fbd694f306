"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class SGD(UpdateRule):
    """m ← momentum·m - g, w ← w + rate·m (cnn_train.m, `accumulateGradients`; the same as torch's SGD).

    Slots:
        momentum: m, which points downhill, as MatConvNet's `solverState` has it. Keras' velocity is rate·m.

    Attributes:
        momentum: weight of the old m.
        nesterov: whether the step is momentum·m - g with the new m.
        rate_inside: whether m holds the rate, m ← momentum·m - rate·g and w ← w + m, as Keras' velocity does
            (keras/src/optimizers/sgd.py). It makes no difference until the rate changes.
    """

    causes: ClassVar = {
        "momentum": "optimizer-momentum",
        "nesterov": "optimizer-nesterov",
        "rate_inside": "optimizer-momentum",
    }
    keras: ClassVar = ("SGD",)

    momentum: float = 0.0
    nesterov: bool = False
    rate_inside: bool = False

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """All zeros."""
        return {"momentum": np.zeros_like(weight)}

    def adopted(self, slots: dict[str, np.ndarray], rate: float) -> dict[str, np.ndarray]:
        """A recipe's momentum is m without the rate (see Slots)."""
        if not self.rate_inside or "momentum" not in slots:
            return slots
        m = slots["momentum"]
        return {**slots, "momentum": m * m.dtype.type(rate)}

    def neutral(self, slots: dict[str, np.ndarray], rate: float) -> dict[str, np.ndarray]:
        """A recipe's momentum is m without the rate (see Slots)."""
        if not self.rate_inside or "momentum" not in slots or not rate:
            return slots
        m = slots["momentum"]
        return {**slots, "momentum": m / m.dtype.type(rate)}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update, in the weight's class."""
        of = weight.dtype.type
        mu, lr = of(self.momentum), of(rate)
        move = lr * gradient if self.rate_inside else gradient
        m = mu * slots["momentum"] - move
        delta = mu * m - move if self.nesterov else m
        return weight + (delta if self.rate_inside else lr * delta), {"momentum": m}

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> SGD:
        """Keras' SGD of any era; without momentum there is no difference between its forms."""
        return cls(number(config, "momentum", 0.0), bool(config.get("nesterov", False)), True)

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.SGD`."""
        return "SGD", {"momentum": self.momentum, "nesterov": self.nesterov or None}
