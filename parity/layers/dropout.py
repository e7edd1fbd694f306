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
    by_image: ClassVar = True

    rate: float = 0.5
    spatial: bool = False

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Dropout and its spatial forms, by their own class or by `noise_shape`; another one: NotImplementedError."""
        spatial = class_name.startswith("Spatial")
        drawn = config.get("noise_shape")
        if drawn is not None and class_name == "Dropout":
            spatial = _whole_channels(list(drawn), list(inputs[0]) if inputs else None)
        return cls(rate=float(config.get("rate", config.get("p", 0.5))), spatial=spatial)

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


def _whole_channels(drawn: list[Any], fed: list[int | None] | None) -> bool:
    """Whether a `noise_shape` (batch axis first) draws one number for each channel; False where one for each value.

    Raises NotImplementedError for what is neither: one draw for all images, or for some axes of the map.
    """
    images, *extents = drawn
    fed = extents if fed is None else fed
    if images == 1 or len(extents) != len(fed):
        raise NotImplementedError("a noise_shape that images share")
    alone = [n is None or n == own for n, own in zip(extents, fed, strict=True)]
    if all(alone):
        return False
    if alone[-1] and all(n == 1 for n in extents[:-1]):
        return True
    raise NotImplementedError("a noise_shape that is not whole channels")
