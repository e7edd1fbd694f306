"""Convolution (cross-correlation), grouped, strided, dilated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, four, pair, setting
from parity.layers.geometry import pads_of, window_reach, window_shape
from parity.layers.keras_fields import extents, padding, require_channels_last

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Conv(Kind):
    """A bank of filters: y(i,j,k) = b(k) + Σ w(u,v,c,k)·xpad(i·sy+u·dy, j·sx+v·dx, c) (vl_nnconv.cu; Keras Conv2D).

    Attributes:
        filters: output channels.
        size: (h, w) of a filter.
        stride: (y, x).
        pad: (top, bottom, left, right) zeros; None for Keras' `same` where the input's extent is not known.
        dilate: (y, x).
        groups: output channels of group g see input channels of group g only.
        bias: whether it has one.
    """

    roles: ClassVar = {"kernel": "h w i o", "bias": "o"}
    causes: ClassVar = {
        "stride": "conv-stride",
        "dilate": "conv-dilation",
        "groups": "conv-groups",
        "bias": "bias-missing",
        "pad": "padding-size",
    }
    matconvnet: ClassVar = ("conv", "dagnn.Conv")
    keras: ClassVar = ("Conv2D", "Convolution2D", "DepthwiseConv2D", "Conv1D", "Conv3D")
    by_image: ClassVar = True

    filters: int = 0
    size: tuple[int, ...] = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    pad: tuple[int, ...] | None = (0, 0, 0, 0)
    dilate: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = True

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """(h, w, c) → (h', w', filters), any number of spatial axes; ValueError where the filter does not fit."""
        *extents, _ = inputs[0]
        return (*window_shape(extents, self.size, self.stride, self.pad, self.dilate), self.filters)

    def reach(self) -> Reach:
        """The filter, dilated."""
        return window_reach(self.size, self.stride, self.pad, self.dilate)

    @classmethod
    def input_channels(cls, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """The filters' depth."""
        return shapes["kernel"][2] if "kernel" in shapes else None

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Cross-correlation; without a kernel the identity bank: subsample and add the bias (vl_nnconv.cu:318-322)."""
        import torch.nn.functional as F

        x = inputs[0]
        pads = pads_of(self.pad, tuple(x.shape[2:]), self.size, self.stride, self.dilate)
        top, bottom, left, right = pads
        bias = params.get("bias")
        if "kernel" not in params:
            x = F.pad(x, (left, right, top, bottom))[:, :, :: self.stride[0], :: self.stride[1]]
            return x if bias is None else x + bias.reshape(1, -1, 1, 1)
        symmetric = top == bottom and left == right
        if not symmetric:
            x = F.pad(x, (left, right, top, bottom))
        kernel = params["kernel"].permute(3, 2, 0, 1)  # h w i o -> o i h w
        around = (top, left) if symmetric else (0, 0)
        settings = (self.stride, around, self.dilate, self.groups)
        if context.outputs:
            return F.conv2d(x, kernel, bias, *settings)
        return _derivatives_alone().apply(x, kernel, bias, *settings)

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Conv:
        """A `conv` layer, in one group until `fit` sees its input; without filters it is the identity bank."""
        stride, dilate, pad = (
            setting(layer, "stride", pair),
            setting(layer, "dilate", pair),
            setting(layer, "pad", four),
        )
        if min(stride) < 1 or min(dilate) < 1 or min(pad) < 0:
            raise ValueError(f"its stride {stride}, dilate {dilate} or pad {pad} is out of range")
        h, w, _, filters = shapes.get("kernel", (1, 1, 0, 0))
        if "kernel" in shapes and shapes.get("bias", (filters,)) != (filters,):
            raise ValueError(f"it has {filters} filters but {shapes['bias'][0]} biases")
        return cls(filters, (h, w), stride, pad, dilate, 1, "bias" in shapes)

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> Conv:
        """Groups = input channels / filter depth, both they and the filters per group whole (vl_nnconv.cu:309-313)."""
        channels = inputs[0][-1] if inputs and inputs[0] else None
        if channels is None:
            return self
        if "kernel" not in shapes:  # the identity bank
            if shapes.get("bias", (channels,)) != (channels,):
                raise ValueError(f"it has no filters and {shapes['bias'][0]} biases for {channels} channels")
            return replace(self, filters=channels, groups=channels)
        depth, filters = shapes["kernel"][2:]
        if channels % depth:
            raise ValueError(f"its filters are {depth} deep on {channels} channels, which is no whole number of groups")
        if filters % (channels // depth):
            raise ValueError(f"its {filters} filters cannot be split into {channels // depth} groups")
        return replace(self, groups=channels // depth)

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Conv1D, 2D, 3D and DepthwiseConv2D (one group per input channel); `Convolution2D` is Keras 1's Conv2D."""
        require_channels_last(config)
        rank = {"1": 1, "3": 3}.get(class_name[4:5], 2) if class_name.startswith("Conv") else 2
        channels = inputs[0][-1] if inputs else None
        made = cls(groups=int(config.get("groups") or 1), **keras_window(config, inputs, rank))
        if class_name == "DepthwiseConv2D":
            if channels is None:
                raise NotImplementedError("a depthwise convolution of an unknown number of channels")
            return replace(made, groups=channels, filters=channels * int(config.get("depth_multiplier", 1)))
        return made

    def keras_line(self, field_name: str) -> str:
        """The constructor argument, e.g. `groups=2`; a padding that Keras has no word for is a layer of its own."""
        if field_name == "pad":
            pad = self.pad or (0,) * (2 * len(self.size))
            if not any(pad):
                return 'padding="valid"'
            sides = ", ".join(f"({pad[i]}, {pad[i + 1]})" for i in range(0, len(pad), 2))
            return f'ZeroPadding2D(({sides})) before it, with padding="valid"'
        names = {"size": "kernel_size", "stride": "strides", "dilate": "dilation_rate", "bias": "use_bias"}
        return f"{names.get(field_name, field_name)}={getattr(self, field_name)}"


def keras_window(config: Mapping[str, Any], inputs: Sequence[Shape], rank: int) -> dict[str, Any]:
    """filters, size, stride, pad, dilate and bias of a convolution by its Keras config, Keras 1's words included."""
    raw_size = config.get("kernel_size")
    if raw_size is None:  # Keras 1
        raw_size = [config["nb_row"], config["nb_col"]]
    size = extents(raw_size, rank)
    stride = extents(config.get("strides", config.get("subsample", 1)), rank)
    dilate = extents(config.get("dilation_rate", 1), rank)
    spatial = tuple(inputs[0][:-1]) if inputs else (None,) * rank
    return {
        "filters": int(config.get("filters", config.get("nb_filter", 0))),
        "size": size,
        "stride": stride,
        "pad": padding(config, spatial, size, stride, dilate),
        "dilate": dilate,
        "bias": bool(config.get("use_bias", config.get("bias", True))),
    }


@cache
def _derivatives_alone() -> Any:
    """A convolution that has its shape and its derivatives, but no numbers: to add those up costs as much as each."""
    import torch

    class Unseen(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None, *settings: Any
        ) -> torch.Tensor:
            ctx.save_for_backward(x, kernel)
            ctx.settings, ctx.biases = settings, None if bias is None else list(bias.shape)
            stride, (y, x_), dilate, groups = settings
            if x.shape[1] != kernel.shape[1] * groups:
                raise ValueError(f"filters {kernel.shape[1]} deep in {groups} groups on {x.shape[1]} channels")
            at = window_shape(x.shape[2:], kernel.shape[2:], stride, (y, y, x_, x_), dilate)
            return x.new_zeros(()).expand(len(x), len(kernel), *(extent or 0 for extent in at))

        @staticmethod
        def backward(ctx: Any, *pulled: torch.Tensor) -> tuple[Any, ...]:
            stride, around, dilate, groups = ctx.settings
            wanted = ctx.needs_input_grad[:3]
            found = torch.ops.aten.convolution_backward(
                *pulled, *ctx.saved_tensors, ctx.biases, stride, around, dilate, False, (0, 0), groups, wanted
            )
            return *found, *(None,) * len(ctx.settings)

    return Unseen
