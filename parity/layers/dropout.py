"""Dropout, inverted: what is kept is scaled up in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, scalar, setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Dropout(Kind):
    """x·mask/(1 - rate) in train mode, identity in eval mode (vl_nndropout.m; Keras Dropout).

    Attributes:
        rate: the share that is dropped.
        spatial: True where whole channels are dropped together.
    """

    causes: ClassVar = {"rate": "dropout-rate", "spatial": "dropout-missing"}
    matconvnet: ClassVar = ("dropout", "dagnn.DropOut")
    keras: ClassVar = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")

    rate: float = 0.5
    spatial: bool = False

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Dropout and its spatial forms; a `noise_shape` raises NotImplementedError."""
        if config.get("noise_shape") is not None and class_name == "Dropout":
            raise NotImplementedError("noise_shape")
        return cls(rate=float(config.get("rate", config.get("p", 0.5))), spatial=class_name.startswith("Spatial"))

    def keras_line(self, field_name: str) -> str:
        """`rate=...`."""
        return f"rate={self.rate}" if field_name == "rate" else ""

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """x·mask/(1 - rate) in train mode with the 0/1 mask of the context (all ones where it has none), else x."""
        x = inputs[0]
        if context.mode != "train" or self.rate == 0:
            return x
        if self.rate >= 1:
            return x * 0
        scale = 1 / (1 - self.rate)
        return x * scale if context.mask is None else x * (context.mask.to(x.dtype) * scale)

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Dropout:
        """A `dropout` layer."""
        rate = setting(layer, "rate", scalar)
        if not 0 <= rate <= 1:
            raise ValueError(f"its rate is {rate:g}, not a share between 0 and 1")
        return cls(rate)
