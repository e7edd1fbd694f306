"""Dropout, inverted: what is kept is scaled up in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from parity.network import Shape


@dataclass(frozen=True)
class Dropout(Kind):
    """x·mask/(1 - rate) in train mode, identity in eval mode (vl_nndropout.m; Keras Dropout).

    Attributes:
        rate: the share that is dropped.
        spatial: True where whole channels are dropped together.
    """

    causes: ClassVar = {"rate": "dropout-rate"}
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
