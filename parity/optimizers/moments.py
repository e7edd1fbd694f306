"""What the rules have in common that keep a mean of the gradients and one of their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class Moments(UpdateRule):
    """A rule with m ← β1·m + (1-β1)·g and v ← β2·v + (1-β2)·g², corrected by the count of steps t.

    Each rule writes its own `step`, as a whole: what it does can be read, and shown, in one place.

    Slots:
        mean: m.
        square: v.
        step: t, of shape ().

    Attributes:
        beta1: weight of the old m.
        beta2: weight of the old v.
        epsilon: keeps the divisor off zero.
    """

    causes: ClassVar[Mapping[str, str]] = {
        "beta1": "optimizer-momentum",
        "beta2": "optimizer-kind",
        "epsilon": "optimizer-epsilon",
    }

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-7

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """All zeros, t = 0."""
        return {"mean": np.zeros_like(weight), "square": np.zeros_like(weight), "step": np.zeros(())}

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Moments:
        """The rule of any era; Keras 1's default epsilon is 1e-8, later ones' 1e-7."""
        epsilon = number(config, "epsilon", 1e-8 if era == 1 else 1e-7)
        return cls(number(config, "beta_1", 0.9), number(config, "beta_2", 0.999), epsilon)

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of the Keras class that it is lifted from."""
        return self.keras[0], {"beta_1": self.beta1, "beta_2": self.beta2, "epsilon": self.epsilon}
