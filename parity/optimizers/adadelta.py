"""AdaDelta."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class Adadelta(UpdateRule):
    """s ← rho·s + (1-rho)·g², d = -√((D + epsilon)/(s + epsilon))·g, D ← rho·D + (1-rho)·d², w ← w + d.

    MatConvNet ignores the rate and its multipliers (examples/+solver/adadelta.m); Keras multiplies d by it.

    Slots:
        square: s.
        delta: D.

    Attributes:
        rho: weight of the old s and D.
        epsilon: keeps both roots off zero.
        use_rate: whether the step is rate·d.
    """

    causes: ClassVar = {"rho": "optimizer-kind", "epsilon": "optimizer-epsilon"}
    keras: ClassVar = ("Adadelta",)

    rho: float = 0.9
    epsilon: float = 1e-6
    use_rate: bool = False

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """All zeros."""
        return {"square": np.zeros_like(weight), "delta": np.zeros_like(weight)}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update, in the weight's class."""
        of = weight.dtype.type
        rho, rest, epsilon = of(self.rho), of(1 - self.rho), of(self.epsilon)
        s = rho * slots["square"] + rest * gradient * gradient
        d = -np.sqrt((slots["delta"] + epsilon) / (s + epsilon)) * gradient
        after = {"square": s, "delta": rho * slots["delta"] + rest * d * d}
        return weight + (of(rate) * d if self.use_rate else d), after

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Adadelta:
        """Adadelta of any era."""
        return cls(number(config, "rho", 0.95), number(config, "epsilon", 1e-8 if era == 1 else 1e-7), True)

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.Adadelta`; without a rate of its own it is Keras' rate 1."""
        own = {"rho": self.rho, "epsilon": self.epsilon}
        return "Adadelta", own if self.use_rate else {"learning_rate": 1.0, **own}
