"""Batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class BatchNorm(Kind):
    """(x - mean)/deviation·gamma + beta per channel, deviation = sqrt(variance + epsilon) (nnbnorm.cu:66-69, 196-201).

    Attributes:
        epsilon: added to the variance under the root.
        momentum: weight of the old value in the running average: 1 - r for MatConvNet's third learning rate r; None
            where the file does not say (a MatConvNet trainer then stops with an index error).
        stored: what the second running statistic is: `"deviation"` including epsilon (MatConvNet) or `"variance"`.
        center: whether it has a beta.
        scale: whether it has a gamma.
        axis: the channel axis, counted from the end: -1 in every layout that parity speaks.
        frozen: True where it normalises by its running statistics in train mode too (Keras `trainable=False`).
    """

    roles: ClassVar = {"gamma": "c", "beta": "c", "mean": "c", "deviation": "c"}
    causes: ClassVar = {"epsilon": "bn-epsilon", "momentum": "bn-momentum", "frozen": "bn-mode"}
    matconvnet: ClassVar = ("bnorm", "dagnn.BatchNorm")
    keras: ClassVar = ("BatchNormalization",)

    epsilon: float = 1e-5
    momentum: float | None = None
    stored: str = "variance"
    center: bool = True
    scale: bool = True
    axis: int = -1
    frozen: bool = False
