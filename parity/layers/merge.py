"""Layers that join several tensors: concatenation and elementwise arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class Concat(Kind):
    """The inputs one behind the other along one axis.

    Attributes:
        axis: counted from the end, -1 the channels.
    """

    matconvnet: ClassVar = ("dagnn.Concat",)
    keras: ClassVar = ("Concatenate",)

    axis: int = -1


@dataclass(frozen=True)
class Merge(Kind):
    """Elementwise arithmetic of several inputs.

    Attributes:
        operation: add, subtract, multiply, average, maximum, minimum.
    """

    matconvnet: ClassVar = ("dagnn.Sum",)
    keras: ClassVar = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")

    operation: str = "add"
