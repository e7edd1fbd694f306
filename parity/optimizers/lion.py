"""Lion: steps of one size, in the direction of a mean of gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class Lion(UpdateRule):
    """w ← w - rate·sign(β1·m + (1-β1)·g), m ← β2·m + (1-β2)·g (keras/src/optimizers/lion.py).

    Slots:
        mean: m.

    Attributes:
        beta1: weight of m in the direction.
        beta2: weight of the old m.
    """

    causes: ClassVar = {"beta1": "optimizer-momentum", "beta2": "optimizer-momentum"}
    keras: ClassVar = ("Lion",)

    beta1: float = 0.9
    beta2: float = 0.99

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """All zeros."""
        return {"mean": np.zeros_like(weight)}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update, in the weight's class."""
        of, m = weight.dtype.type, slots["mean"]
        direction = np.sign(m * of(self.beta1) + gradient * (of(1) - of(self.beta1)))
        return weight - of(rate) * direction, {"mean": m * of(self.beta2) + gradient * (of(1) - of(self.beta2))}

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Lion:
        """Lion, which there is from Keras 2.12 on."""
        return cls(number(config, "beta_1", 0.9), number(config, "beta_2", 0.99))

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.Lion`."""
        return "Lion", {"beta_1": self.beta1, "beta_2": self.beta2}
