"""Softmax over channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class Softmax(Kind):
    """exp(x - max) / Σ exp(x - max) over the channels.

    Attributes:
        axis: -1, the channels; another where Keras says so.
    """

    matconvnet: ClassVar = ("softmax", "dagnn.SoftMax")
    keras: ClassVar = ("Softmax",)

    axis: int = -1
