"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class RMSprop(UpdateRule):
    """s ← rho·s + (1-rho)·g², w ← w - rate·g/(√s + epsilon) (examples/+solver/rmsprop.m), and Keras' forms of it.

    Slots:
        square: s.
        mean: the running mean of g, where centered.
        momentum: the velocity, where there is momentum; it holds the rate, v ← momentum·v + rate·g/√…, w ← w - v.

    Attributes:
        rho: weight of the old s.
        epsilon: keeps the divisor off zero.
        epsilon_inside: whether epsilon is under the root, √(s + epsilon), as in Keras from 2.11 on, and in the older
            tf.keras class only with momentum.
        momentum: weight of the old velocity.
        centered: whether the squared mean of g is taken off s.
    """

    causes: ClassVar = {
        "rho": "optimizer-kind",
        "epsilon": "optimizer-epsilon",
        "epsilon_inside": "optimizer-epsilon",
        "momentum": "optimizer-momentum",
        "centered": "optimizer-kind",
    }
    keras: ClassVar = ("RMSprop", "OutsideRMSprop")

    rho: float = 0.99
    epsilon: float = 1e-8
    epsilon_inside: bool = False
    momentum: float = 0.0
    centered: bool = False

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """All zeros; only the slots that its settings need."""
        names = ["square"] + ["mean"] * self.centered + ["momentum"] * bool(self.momentum)
        return {name: np.zeros_like(weight) for name in names}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update, in the weight's class."""
        of = weight.dtype.type
        rho, rest, epsilon, lr = of(self.rho), of(1 - self.rho), of(self.epsilon), of(rate)
        after = {"square": rho * slots["square"] + rest * gradient * gradient}
        scale = after["square"]
        if self.centered:
            after["mean"] = rho * slots["mean"] + rest * gradient
            scale = scale - after["mean"] * after["mean"]
        divisor = np.sqrt(scale + epsilon) if self.epsilon_inside else np.sqrt(scale) + epsilon
        delta = lr * gradient / divisor
        if self.momentum:
            delta = after["momentum"] = of(self.momentum) * slots["momentum"] + delta
        return weight - delta, after

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> RMSprop:
        """Epsilon lies outside the root up to 2.10 without momentum, inside with it, and inside from 2.11 on."""
        momentum, centered = number(config, "momentum", 0.0), bool(config.get("centered", False))
        epsilon = number(config, "epsilon", 1e-7)
        inside = (era >= 3 or momentum > 0) and "Outside" not in class_name
        return cls(number(config, "rho", 0.9), epsilon, inside, momentum, centered)

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.RMSprop`, or of parity's own class that adds epsilon to the root."""
        own = {"rho": self.rho, "momentum": self.momentum or None, "epsilon": self.epsilon}
        return "RMSprop" if self.epsilon_inside else "OutsideRMSprop", {**own, "centered": self.centered or None}
