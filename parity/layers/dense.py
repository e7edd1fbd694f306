"""A fully connected layer on the last axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Dense(Kind):
    """y = x·W + b over the last axis. MatConvNet has none: there it is a convolution that covers the map.

    Attributes:
        units: output channels.
        bias: whether it has one.
    """

    roles: ClassVar = {"kernel": "i o", "bias": "o"}
    causes: ClassVar = {"bias": "bias-missing"}
    keras: ClassVar = ("Dense",)
    by_image: ClassVar = True

    units: int = 0
    bias: bool = True

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The Dense layer (`output_dim`, `bias` are Keras 1's words)."""
        return cls(
            units=int(config.get("units", config.get("output_dim", 0))),
            bias=bool(config.get("use_bias", config.get("bias", True))),
        )

    def keras_line(self, field_name: str) -> str:
        """The constructor argument."""
        return {"units": f"units={self.units}", "bias": f"use_bias={self.bias}"}.get(field_name, "")

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """(..., i) → (..., units)."""
        return (*inputs[0][:-1], self.units)

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """x·W + b over the channels of (n, c) or (n, c, h, w)."""
        import torch.nn.functional as F

        x = inputs[0]
        return F.linear(x.movedim(1, -1), params["kernel"].t(), params.get("bias")).movedim(-1, 1)
