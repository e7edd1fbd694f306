"""Convolution (cross-correlation), grouped, strided, dilated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


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

    filters: int = 0
    size: tuple[int, ...] = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    pad: tuple[int, ...] | None = (0, 0, 0, 0)
    dilate: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = True
