"""Softmax over channels."""

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
class Softmax(Kind):
    """exp(x - max) / Σ exp(x - max) over the channels.

    Attributes:
        axis: -1, the channels; another where Keras says so.
    """

    causes: ClassVar = {"axis": "unknown"}
    matconvnet: ClassVar = ("softmax", "dagnn.SoftMax")
    keras: ClassVar = ("Softmax",)

    axis: int = -1

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The `Softmax` layer; several axes raise NotImplementedError."""
        axis = config.get("axis", -1)
        return cls(axis_from_end(axis, len(inputs[0]) + 1 if inputs else None))

    def keras_line(self, field_name: str) -> str:
        """`axis=...`; where Keras has another function there, the activation."""
        if field_name == "function":
            return 'activation="softmax"'
        return f"axis={self.axis}" if field_name == "axis" else ""

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Over the channels, the maximum subtracted first (vl_nnsoftmax.m)."""
        x = inputs[0]
        return x.softmax(torch_axis(x.dim(), self.axis))

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Softmax:
        """A `softmax` layer has no fields."""
        return cls()
