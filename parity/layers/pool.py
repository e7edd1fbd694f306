"""Max and average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


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

    method: str = "max"
    size: tuple[int, ...] | None = (1, 1)
    stride: tuple[int, ...] = (1, 1)
    pad: tuple[int, ...] | None = (0, 0, 0, 0)
    count_pad: bool = False
    squeeze: bool = False
