"""Lamb: Adam's step, made as long as the parameter itself is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from parity.optimizers.moments import Moments


@dataclass(frozen=True)
class Lamb(Moments):
    """d = m/(1-β1ᵗ) / (√(v/(1-β2ᵗ)) + epsilon), w ← w - rate·‖w‖/‖d‖·d (keras/src/optimizers/lamb.py).

    m and v are Adam's; the norms are those of the whole parameter, and their ratio is 1 where one of them is 0.
    Keras has it from Keras 3 on.
    """

    keras: ClassVar = ("Lamb",)

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
