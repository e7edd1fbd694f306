"""Layers that join several tensors: concatenation and elementwise arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Kind
from parity.layers.keras_fields import axis_from_end

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from parity.network import Shape


@dataclass(frozen=True)
class Concat(Kind):
    """The inputs one behind the other along one axis.

    Attributes:
        axis: counted from the end, -1 the channels.
    """

    matconvnet: ClassVar = ("dagnn.Concat",)
    keras: ClassVar = ("Concatenate",)

    axis: int = -1

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The Concatenate layer."""
        return cls(axis_from_end(config.get("axis", -1), len(inputs[0]) + 1 if inputs else None))

    def keras_line(self, field_name: str) -> str:
        """`axis=...`."""
        return f"axis={self.axis}" if field_name == "axis" else ""


@dataclass(frozen=True)
class Merge(Kind):
    """Elementwise arithmetic of several inputs.

    Attributes:
        operation: add, subtract, multiply, average, maximum, minimum.
    """

    matconvnet: ClassVar = ("dagnn.Sum",)
    keras: ClassVar = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")

    operation: str = "add"

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Add, Subtract, Multiply, Average, Maximum, Minimum."""
        return cls(class_name.lower())

    def keras_line(self, field_name: str) -> str:
        """The layer that does it."""
        return f"{self.operation.capitalize()}()" if field_name == "operation" else ""
