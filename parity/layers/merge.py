"""Layers that join several tensors: concatenation and elementwise arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, torch_axis
from parity.layers.keras_fields import axis_from_end

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

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

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """The first shape, with the extents along the axis added up."""
        rank = len(inputs[0])
        at = self.axis % rank if self.axis < 0 else self.axis - 1
        extents = [shape[at] for shape in inputs]
        total = None if any(e is None for e in extents) else sum(e for e in extents if e is not None)
        return (*inputs[0][:at], total, *inputs[0][at + 1 :])

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """One behind the other."""
        import torch

        return torch.cat(list(inputs), torch_axis(inputs[0].dim(), self.axis))


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

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The inputs joined from left to right."""
        import functools

        import torch

        joins = {
            "add": torch.add,
            "average": torch.add,
            "subtract": torch.sub,
            "multiply": torch.mul,
            "maximum": torch.maximum,
            "minimum": torch.minimum,
        }
        if self.operation not in joins:
            raise NotImplementedError(f"Merge {self.operation!r} cannot run on torch")
        total = functools.reduce(joins[self.operation], inputs)
        return total / len(inputs) if self.operation == "average" else total
