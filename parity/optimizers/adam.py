"""Adam and its variants with decoupled weight decay or a maximum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.moments import Moments


@dataclass(frozen=True)
class Adam(Moments):
    """m ← β1·m + (1-β1)·g, v ← β2·v + (1-β2)·g², w ← w - rate·√(1-β2ᵗ)/(1-β1ᵗ)·m/(√v + epsilon).

    This form, with epsilon added to the uncorrected √v, is that of MatConvNet (examples/+solver/adam.m) and of Keras;
    torch adds epsilon after the correction. AdamW is Adam with the recipe's `decoupled_decay`.

    Slots:
        max: the largest v so far, where amsgrad.

    Attributes:
        amsgrad: whether the largest v so far divides.
    """

    causes: ClassVar = {**Moments.causes, "amsgrad": "optimizer-kind"}
    keras: ClassVar = ("Adam", "AdamW")

    epsilon: float = 1e-8
    amsgrad: bool = False

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """All zeros, t = 0."""
        slots = {"mean": np.zeros_like(weight), "square": np.zeros_like(weight), "step": np.zeros(())}
        return slots | ({"max": np.zeros_like(weight)} if self.amsgrad else {})

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update, in the weight's class; the correction is computed in double, as MATLAB does."""
        of = weight.dtype.type
        t = float(slots["step"]) + 1
        m = of(self.beta1) * slots["mean"] + of(1 - self.beta1) * gradient
        v = of(self.beta2) * slots["square"] + of(1 - self.beta2) * gradient * gradient
        after = {"mean": m, "square": v, "step": np.asarray(t)}
        if self.amsgrad:
            v = after["max"] = np.maximum(slots["max"], v)
        alpha = of(rate * np.sqrt(1 - self.beta2**t) / (1 - self.beta1**t))
        return weight - alpha * m / (np.sqrt(v) + of(self.epsilon)), after

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Adam:
        """Adam or AdamW."""
        held = super().from_keras(class_name, config, era)
        return cls(held.beta1, held.beta2, held.epsilon, bool(config.get("amsgrad", False)))

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.Adam`."""
        name, own = super().keras_settings()
        return name, {**own, "amsgrad": self.amsgrad or None}
