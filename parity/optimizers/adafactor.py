"""Adafactor: squares of gradients kept by row and column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from parity.optimizers.base import UpdateRule, number


@dataclass(frozen=True)
class Adafactor(UpdateRule):
    """keras/src/optimizers/adafactor.py: with b = 1 - t^decay and g² + epsilon averaged into r, c (or v), as follows.

    r ← b·r + (1-b)·mean over the last axis, c likewise over the one before it, v = r/mean(r)·c; of a vector v itself.
    u = g/√v, w ← w - max(floor, rms(w))·min(rate, 1/√t)·u/max(1, rms(u)/threshold).

    Slots:
        row: r, without the last axis; of a matrix and above.
        column: c, without the axis before it.
        square: v.
        step: t, of shape ().

    Attributes:
        decay: power of t, not above 0.
        epsilon: added to every square.
        floor: least root mean square that a weight counts for.
        threshold: root mean square above which u is made shorter.
    """

    causes: ClassVar = {
        "decay": "optimizer-kind",
        "epsilon": "optimizer-epsilon",
        "floor": "optimizer-epsilon",
        "threshold": "optimizer-clipping",
    }
    keras: ClassVar = ("Adafactor",)

    decay: float = -0.8
    epsilon: float = 1e-30
    floor: float = 1e-3
    threshold: float = 1.0

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """All zeros, t = 0."""
        slots = {"square": np.zeros_like(weight), "step": np.zeros(())}
        if weight.ndim < 2:
            return slots
        return slots | {"row": np.zeros_like(weight[..., 0]), "column": np.zeros_like(weight[..., 0, :])}

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """One update of a whole parameter in Keras' axes, in the weight's class."""
        of = weight.dtype.type
        t = float(slots["step"]) + 1
        rest = of(t**self.decay)
        keep = of(1) - rest
        square = gradient * gradient + of(self.epsilon)
        after = {"step": np.asarray(t)}
        if weight.ndim >= 2:
            row = after["row"] = keep * slots["row"] + rest * square.mean(axis=-1)
            column = after["column"] = keep * slots["column"] + rest * square.mean(axis=-2)
            v = (row / row.mean(axis=-1, keepdims=True))[..., None] * column[..., None, :]
        else:
            v = keep * slots["square"] + rest * square
        after["square"] = v
        u = gradient / np.sqrt(v)
        size = max(self.floor, _rms(weight)) * min(rate, t**-0.5)
        return weight - of(size / max(1.0, _rms(u) / self.threshold)) * u, after

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> Adafactor:
        """Adafactor, which there is from Keras 2.12 on.

        `relative_step` bounds the rate by 1/√t once more than the step does anyway.
        """
        return cls(
            number(config, "beta_2_decay", -0.8),
            number(config, "epsilon_1", 1e-30),
            number(config, "epsilon_2", 1e-3),
            number(config, "clip_threshold", 1.0),
        )

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """Of `keras.optimizers.Adafactor`."""
        return "Adafactor", {
            "beta_2_decay": self.decay,
            "epsilon_1": self.epsilon,
            "epsilon_2": self.floor,
            "clip_threshold": self.threshold,
        }


def _rms(value: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(value, dtype=np.float64)))) if value.size else 0.0
