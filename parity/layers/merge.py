"""Layers that join several tensors: concatenation and elementwise arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, by, setting, torch_axis, whole
from parity.layers.keras_fields import axis_from_end

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Concat(Kind):
    """The inputs one behind the other along one axis.

    Attributes:
        axis: counted from the end, -1 the channels; -4 of a map is the batch axis.
    """

    matconvnet: ClassVar = ("dagnn.Concat",)
    keras: ClassVar = ("Concatenate",)

    axis: int = -1

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Concat:
        """A `dagnn.Concat` block: dim 1 the rows, 2 the columns, 3 the channels, 4 the images (vl_nnconcat.m)."""
        dim = setting(layer, "dim", whole)
        if dim not in (1, 2, 3, 4):
            raise ValueError(f"its dim is {dim}, not 1, 2, 3 or 4")
        return cls({1: -3, 2: -2, 3: -1, 4: -4}[dim])

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> Concat:
        """The same, if its inputs agree in every extent but the one along the axis."""
        at = self._place(inputs[0]) if inputs else None
        for other in inputs[1:]:
            pairs = zip(_without(inputs[0], at), _without(other, at), strict=False)
            if len(other) != len(inputs[0]) or any(a != b for a, b in pairs if None not in (a, b)):
                raise ValueError(f"its inputs do not fit side by side: {by(inputs[0])} and {by(other)}")
        return self

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The Concatenate layer."""
        return cls(axis_from_end(config.get("axis", -1), len(inputs[0]) + 1 if inputs else None))

    def keras_line(self, field_name: str) -> str:
        """`axis=...`."""
        return f"axis={self.axis}" if field_name == "axis" else ""

    def reach(self) -> Reach | None:
        """One cell, unless maps are put side by side."""
        return Reach() if self.axis == -1 else None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """The first shape, with the extents along the axis added up."""
        at = self._place(inputs[0])
        if at is None:
            return inputs[0]
        extents = [shape[at] for shape in inputs]
        total = None if any(e is None for e in extents) else sum(e for e in extents if e is not None)
        return (*inputs[0][:at], total, *inputs[0][at + 1 :])

    def _place(self, shape: Shape) -> int | None:
        """Where the axis lies in a shape without its batch axis; None for the batch axis itself."""
        at = self.axis + len(shape) if self.axis < 0 else self.axis - 1
        return at if at >= 0 else None

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
    by_image: ClassVar = True
    causes: ClassVar = {"operation": "layer-missing"}

    operation: str = "add"

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Merge:
        """A `dagnn.Sum` block has no fields."""
        return cls("add")

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> Merge:
        """The same, if its inputs have one size (extents of 1 are repeated)."""
        for other in inputs[1:]:
            pairs = zip(inputs[0], other, strict=False)
            if len(other) != len(inputs[0]) or any(
                a != b for a, b in pairs if a not in (None, 1) and b not in (None, 1)
            ):
                raise ValueError(f"its inputs differ in size: {by(inputs[0])} and {by(other)}")
        return self

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """The inputs' shape, with what one of them has along an extent that is 1 in another."""
        ranks = {len(shape) for shape in inputs}
        if len(ranks) != 1:
            return inputs[0] if inputs else None
        return tuple(next((n for n in extents if n != 1), 1) for extents in zip(*inputs, strict=True))

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
        """The inputs joined from left to right; of equal extremes the first takes the gradient, unless it is shared."""
        import functools

        import torch

        shared = context.ties == "shared"
        joins = {
            "add": torch.add,
            "average": torch.add,
            "subtract": torch.sub,
            "multiply": torch.mul,
            "maximum": torch.maximum if shared else lambda a, b: torch.where(a >= b, a, b),
            "minimum": torch.minimum if shared else lambda a, b: torch.where(a <= b, a, b),
        }
        if self.operation not in joins:
            raise NotImplementedError(f"Merge {self.operation!r} cannot run on torch")
        total = functools.reduce(joins[self.operation], inputs)
        return total / len(inputs) if self.operation == "average" else total


def _without(shape: Shape, at: int | None) -> Shape:
    return shape if at is None else (*shape[:at], *shape[at + 1 :])
