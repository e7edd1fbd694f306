"""Max and average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, four, pair, setting, text
from parity.layers.geometry import pads_of, window_reach, window_shape
from parity.layers.keras_fields import extents, padding, require_channels_last

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Pool(Kind):
    """The maximum or mean of each window.

    Attributes:
        method: `"max"` or `"avg"`.
        size: (h, w) of the window; None for the whole map (Keras' global pooling).
        stride: (y, x).
        pad: (top, bottom, left, right) cells around the map; they never win a maximum and do not count in a mean.
            None for Keras' `same` where the input's extent is not known.
        count_pad: True where a mean counts padded cells.
        squeeze: True where the output is (c,) and not (1, 1, c) (Keras' global pooling without keepdims).
    """

    causes: ClassVar = {
        "method": "pool-method",
        "size": "pool-size",
        "stride": "pool-stride",
        "pad": "padding-size",
        "count_pad": "pool-avg-count-pad",
    }
    matconvnet: ClassVar = ("pool", "dagnn.Pooling")
    keras: ClassVar = (
        "MaxPooling2D",
        "AveragePooling2D",
        "MaxPool2D",
        "AvgPool2D",
        "GlobalMaxPooling2D",
        "GlobalAveragePooling2D",
        "MaxPooling1D",
        "AveragePooling1D",
        "GlobalMaxPooling1D",
        "GlobalAveragePooling1D",
        "MaxPooling3D",
        "AveragePooling3D",
        "GlobalMaxPooling3D",
        "GlobalAveragePooling3D",
    )
    by_image: ClassVar = True

    method: str = "max"
    size: tuple[int, ...] | None = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    pad: tuple[int, ...] | None = (0, 0, 0, 0)
    count_pad: bool = False
    squeeze: bool = False

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """(h, w, c) → (h', w', c), any number of spatial axes; ValueError where the window does not fit."""
        *extents, channels = inputs[0]
        if self.size is None:
            return (channels,) if self.squeeze else (*(1 for _ in extents), channels)
        shape = (*window_shape(extents, self.size, self.stride, self.pad), channels)
        return (channels,) if self.squeeze else shape

    def reach(self) -> Reach | None:
        """The window."""
        return None if self.size is None else window_reach(self.size, self.stride, self.pad)

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The window's maximum, or its mean over the cells that are no padding (nnpooling.cu:38-129)."""
        x = inputs[0]
        extents = tuple(x.shape[2:])
        size = extents if self.size is None else self.size
        stride = (1, 1) if self.size is None else self.stride
        pad = (0, 0, 0, 0) if self.size is None else pads_of(self.pad, extents, size, stride, (1, 1))
        if self.method == "max":
            y = _maximum(x, size, stride, pad, context.ties, finite=context.finite)
        else:
            y = window_mean(x, size, stride, pad, count_pad=self.count_pad)
        return y.flatten(1) if self.squeeze else y

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Pool:
        """A `pool` layer: tidy has no default for its method and window (vl_simplenn_tidy.m:102 is never reached)."""
        method = setting(layer, "method", text)
        if method not in ("max", "avg"):
            raise ValueError(f"its method is {method!r}, not 'max' or 'avg'")
        if "pool" not in layer:
            raise ValueError("its window (`pool`) is missing")
        size, stride, pad = setting(layer, "pool", pair), setting(layer, "stride", pair), setting(layer, "pad", four)
        if min(size) < 1 or min(stride) < 1 or min(pad) < 0:
            raise ValueError(f"pool {size}, stride {stride}, pad {pad} are out of range")
        if max(pad[:2]) >= size[0] or max(pad[2:]) >= size[1]:
            raise ValueError(f"its pad {pad} is not smaller than its window {size}")  # vl_nnpool.cu:232-237
        return cls(method, size, stride, pad)

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Max and average pooling, over windows or over the whole map. A padded mean counts the map's cells only."""
        require_channels_last(config)
        method = "max" if "Max" in class_name else "avg"
        rank = int(class_name[-2])
        if class_name.startswith("Global"):
            return cls(method, None, (1,) * rank, (0, 0) * rank, squeeze=not config.get("keepdims", False))
        size = extents(config.get("pool_size", config.get("pool_length", 2)), rank)
        raw_stride = config.get("strides", config.get("stride"))
        stride = size if raw_stride is None else extents(raw_stride, rank)
        spatial = tuple(inputs[0][:-1]) if inputs else (None,) * rank
        return cls(method, size, stride, padding(config, spatial, size, stride))

    def keras_line(self, field_name: str) -> str:
        """The constructor argument, or the layer to use instead."""
        if field_name == "method":
            return f"{'Max' if self.method == 'max' else 'Average'}Pooling2D"
        if field_name == "pad":
            return 'padding="valid"' if not any(self.pad or (1,)) else 'padding="same", or a ZeroPadding2D before it'
        names = {"size": "pool_size", "stride": "strides"}
        return f"{names[field_name]}={getattr(self, field_name)}" if field_name in names else ""


def window_mean(
    x: torch.Tensor, size: Sequence[int], stride: Sequence[int], pad: Sequence[int], *, count_pad: bool = False
) -> torch.Tensor:
    """The mean of each window of `x` (n, c, h, w), over the map's own cells or, with `count_pad`, over all of them.

    Args:
        x: the map.
        size: (h, w) of the window.
        stride: (y, x).
        pad: (top, bottom, left, right).
        count_pad: whether padded cells count in the divisor.
    """
    import torch
    import torch.nn.functional as F

    top, bottom, left, right = pad
    if not any(pad):
        return F.avg_pool2d(x, tuple(size), tuple(stride))
    total = F.avg_pool2d(F.pad(x, (left, right, top, bottom)), tuple(size), tuple(stride), divisor_override=1)
    if count_pad:
        return total / (size[0] * size[1])
    cells = F.pad(torch.ones(1, 1, *x.shape[2:], dtype=x.dtype), (left, right, top, bottom))
    return total / F.avg_pool2d(cells, tuple(size), tuple(stride), divisor_override=1)


def _maximum(
    x: torch.Tensor, size: Sequence[int], stride: Sequence[int], pad: Sequence[int], ties: str, *, finite: bool
) -> torch.Tensor:
    """Max pooling whose gradient goes to the first maximum in column-major (`ties="column"`) or row-major order.

    MatConvNet looks for it column by column (nnpooling.cu:47-53, 199-204), torch and tensorflow row by row; with
    `"shared"` all equal maxima have a part of it.
    """
    import torch
    import torch.nn.functional as F

    top, bottom, left, right = pad
    lowest = float("-inf")
    padded = F.pad(x, (left, right, top, bottom), value=lowest) if any(pad) else x

    if ties == "shared":
        return padded.unfold(2, size[0], stride[0]).unfold(3, size[1], stride[1]).amax((-2, -1))

    class MaxPool(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            y, found = F.max_pool2d_with_indices(x, tuple(size), tuple(stride))
            ctx.save_for_backward(x, y, *(() if ties == "column" else (found,)))
            return y

        @staticmethod
        def backward(ctx: Any, *upstream: torch.Tensor) -> torch.Tensor:
            x, y, *found = ctx.saved_tensors
            at = found[0] if found else _first_by_columns(x, y, size, stride)
            return torch.ops.aten.max_pool2d_with_indices_backward(
                upstream[0], x, list(size), list(stride), [0, 0], [1, 1], False, at
            )

    y = MaxPool.apply(padded)
    if not finite and torch.isnan(y).any():  # in torch a NaN wins every comparison, in MatConvNet none
        y = MaxPool.apply(torch.where(torch.isnan(padded), torch.full((), lowest, dtype=x.dtype), padded))
    return y


def _first_by_columns(x: torch.Tensor, y: torch.Tensor, size: Sequence[int], stride: Sequence[int]) -> torch.Tensor:
    """Index into the map (row·width + column) of each window's first maximum, its columns outside, its rows inside."""
    import torch

    height, width = y.shape[2:]
    cells = size[0] * size[1]
    first = torch.full_like(y, cells - 1, dtype=torch.uint8 if cells <= 256 else torch.int32)
    for order in range(cells - 1, -1, -1):  # the last one to write is the first one in order
        column, row = divmod(order, size[0])
        seen = x[:, :, row :: stride[0], column :: stride[1]][:, :, :height, :width]
        first.masked_fill_(seen == y, order)
    orders = torch.arange(cells)
    offsets = (orders % size[0]) * x.shape[3] + torch.div(orders, size[0], rounding_mode="floor")
    corners = torch.arange(height).mul_(stride[0] * x.shape[3]).reshape(-1, 1) + torch.arange(width).mul_(stride[1])
    return offsets[first.to(torch.int64)].add_(corners)
