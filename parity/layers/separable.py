"""A depthwise and a pointwise convolution in one layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.conv import Conv, keras_window
from parity.layers.keras_fields import require_channels_last

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.layers.base import Context, Kind
    from parity.network import Shape


@dataclass(frozen=True)
class SeparableConv(Conv):
    """Filters for each channel by itself, then a 1×1 convolution over all that they make (Keras SeparableConv2D).

    MatConvNet has two layers for it: one with as many groups as channels, and one of 1×1 cells. Size, stride, pads and
    dilation are those of the first (keras/src/layers/convolutional/base_separable_conv.py); `bias` is the second's.

    Attributes:
        multiplier: filters for each channel.
    """

    roles: ClassVar = {"depthwise_kernel": "h w c m", "pointwise_kernel": "h w i o", "bias": "o"}
    causes: ClassVar = {field: cause for field, cause in Conv.causes.items() if field != "groups"}
    matconvnet: ClassVar = ()
    keras: ClassVar = ("SeparableConv2D", "SeparableConvolution2D", "SeparableConv1D")

    multiplier: int = 1

    @classmethod
    def input_channels(cls, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """As many as there are filters of one cell depth."""
        return shapes["depthwise_kernel"][-2] if "depthwise_kernel" in shapes else None

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """One after the other; the first one's filters are h w c m, or as MatConvNet has them, h w 1 c·m."""
        kernel, channels = params["depthwise_kernel"], inputs[0].shape[1]
        deep = {"kernel": kernel.reshape(*kernel.shape[:-2], 1, -1)}
        if "depthwise_bias" in params:
            deep["bias"] = params["depthwise_bias"]
        filters = deep["kernel"].shape[-1]
        first = Conv(filters, self.size, self.stride, self.pad, self.dilate, channels, "bias" in deep)
        second = Conv(self.filters, bias=self.bias)
        wide = {"kernel": params["pointwise_kernel"], **({"bias": params["bias"]} if "bias" in params else {})}
        return second.forward([first.forward(inputs, deep, context)], wide, context)

    @classmethod
    def of(cls, depthwise: Conv, pointwise: Conv) -> SeparableConv:
        """What two convolutions do together, the first of which has a group for each channel."""
        return cls(
            filters=pointwise.filters,
            size=depthwise.size,
            stride=depthwise.stride,
            pad=depthwise.pad,
            dilate=depthwise.dilate,
            bias=pointwise.bias,
            multiplier=depthwise.filters // depthwise.groups,
        )

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """SeparableConv1D and 2D; `SeparableConvolution2D` is Keras 1's."""
        require_channels_last(config)
        rank = 1 if class_name.endswith("1D") else 2
        return cls(multiplier=int(config.get("depth_multiplier", 1)), **keras_window(config, inputs, rank))

    def keras_line(self, field_name: str) -> str:
        """The constructor argument, e.g. `depth_multiplier=2`."""
        return f"depth_multiplier={self.multiplier}" if field_name == "multiplier" else super().keras_line(field_name)
