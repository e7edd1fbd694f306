"""Adamax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class Adamax(UpdateRule):
    """m ← β1·m + (1-β1)·g, u ← max(β2·u, |g|), w ← w - rate/(1-β1ᵗ)·m/(u + epsilon) (keras/src/optimizers/adamax.py).

    Slots:
        mean: m.
        norm: u.
        step: t, of shape ().

    Attributes:
        beta1: weight of the old m.
        beta2: weight of the old u.
        epsilon: keeps the divisor off zero.
    """

    causes: ClassVar = {"beta1": "optimizer-momentum", "beta2": "optimizer-kind", "epsilon": "optimizer-epsilon"}
    keras: ClassVar = ("Adamax",)

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-7

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """All zeros, t = 0."""
        return {"mean": np.zeros_like(weight), "norm": np.zeros_like(weight), "step": np.zeros(())}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update, in the weight's class; the correction is computed in double."""
        of = weight.dtype.type
        t = float(slots["step"]) + 1
        m = of(self.beta1) * slots["mean"] + of(1 - self.beta1) * gradient
        u = np.maximum(of(self.beta2) * slots["norm"], np.abs(gradient))
        alpha = of(rate / (1 - self.beta1**t))
        return weight - alpha * m / (u + of(self.epsilon)), {"mean": m, "norm": u, "step": np.asarray(t)}

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Adamax:
        """Adamax of any era."""
        epsilon = number(config, "epsilon", 1e-8 if era == 1 else 1e-7)
        return cls(number(config, "beta_1", 0.9), number(config, "beta_2", 0.999), epsilon)

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.Adamax`."""
        return "Adamax", {"beta_1": self.beta1, "beta_2": self.beta2, "epsilon": self.epsilon}
