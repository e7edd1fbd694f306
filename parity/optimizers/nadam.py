"""Nadam: Adam with Nesterov's momentum, whose weight of the old mean grows with the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import number
from parity.optimizers.moments import Moments


@dataclass(frozen=True)
class Nadam(Moments):
    """m and v as Adam's, uₜ = β1·(1 - 0.96^(warming·t)/2), pₜ = u₁·…·uₜ (keras/src/optimizers/nadam.py).

    w ← w - rate·(uₜ₊₁·m/(1-pₜ₊₁) + (1-uₜ)·g/(1-pₜ)) / (√(v/(1-β2ᵗ)) + epsilon)

    p follows from the slot `step`.

    Attributes:
        warming: how fast u grows; an argument of the classes before Keras 2.11 alone (`schedule_decay`, `decay`).
    """

    causes: ClassVar = {**Moments.causes, "warming": "optimizer-momentum"}
    keras: ClassVar = ("Nadam",)

    warming: float = 1.0

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update, in the weight's class; what depends on t alone is computed in double."""
        of = weight.dtype.type
        t = float(slots["step"]) + 1
        u = self.beta1 * (1 - 0.5 * 0.96 ** (self.warming * np.arange(1, t + 2)))
        now, then, product = float(u[-2]), float(u[-1]), float(np.prod(u[:-1]))
        m = of(self.beta1) * slots["mean"] + of(1 - self.beta1) * gradient
        v = of(self.beta2) * slots["square"] + of(1 - self.beta2) * gradient * gradient
        ahead = of(then / (1 - product * then)) * m + of((1 - now) / (1 - product)) * gradient
        divisor = np.sqrt(v / of(1 - self.beta2**t)) + of(self.epsilon)
        return weight - of(rate) * ahead / divisor, {"mean": m, "square": v, "step": np.asarray(t)}

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Nadam:
        """Nadam of any era: standalone Keras calls the growth schedule_decay, tf.keras' legacy class decay."""
        warming = 1.0 if era >= 3 else number(config, "schedule_decay", number(config, "decay", 0.004))
        held = super().from_keras(class_name, config, era)
        return cls(held.beta1, held.beta2, held.epsilon, warming)
