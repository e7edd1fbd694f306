"""Adamax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parity.optimizers.moments import Moments


@dataclass(frozen=True)
class Adamax(Moments):
    """m ← β1·m + (1-β1)·g, u ← max(β2·u, |g|), w ← w - rate/(1-β1ᵗ)·m/(u + epsilon) (keras/src/optimizers/adamax.py).

    Slots:
        mean: m.
        norm: u.
        step: t, of shape ().
    """

    keras: ClassVar = ("Adamax",)

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
