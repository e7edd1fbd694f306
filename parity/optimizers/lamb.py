"""Lamb: Adam's step, made as long as the parameter itself is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class Lamb(UpdateRule):
    """d = m/(1-β1ᵗ) / (√(v/(1-β2ᵗ)) + epsilon), w ← w - rate·‖w‖/‖d‖·d (keras/src/optimizers/lamb.py).

    m and v are Adam's; the norms are those of the whole parameter, and their ratio is 1 where one of them is 0.

    Slots:
        mean: m.
        square: v.
        step: t, of shape ().

    Attributes:
        beta1: weight of the old m.
        beta2: weight of the old v.
        epsilon: keeps the divisor off zero.
    """

    causes: ClassVar = {"beta1": "optimizer-momentum", "beta2": "optimizer-kind", "epsilon": "optimizer-epsilon"}
    keras: ClassVar = ("Lamb",)

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-7

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """All zeros, t = 0."""
        return {"mean": np.zeros_like(weight), "square": np.zeros_like(weight), "step": np.zeros(())}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update of a whole parameter, in the weight's class; corrections and norms are computed in double."""
        of = weight.dtype.type
        t = float(slots["step"]) + 1
        m = of(self.beta1) * slots["mean"] + of(1 - self.beta1) * gradient
        v = of(self.beta2) * slots["square"] + of(1 - self.beta2) * gradient * gradient
        d = m / of(1 - self.beta1**t) / (np.sqrt(v / of(1 - self.beta2**t)) + of(self.epsilon))
        own, step = (float(np.sqrt(np.sum(np.square(x, dtype=np.float64)))) for x in (weight, d))
        ratio = own / step if own > 0 and step > 0 else 1.0
        return weight - of(ratio * rate) * d, {"mean": m, "square": v, "step": np.asarray(t)}

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Lamb:
        """Lamb, which there is from Keras 3 on."""
        epsilon = number(config, "epsilon", 1e-7)
        return cls(number(config, "beta_1", 0.9), number(config, "beta_2", 0.999), epsilon)

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.Lamb`."""
        return "Lamb", {"beta_1": self.beta1, "beta_2": self.beta2, "epsilon": self.epsilon}
