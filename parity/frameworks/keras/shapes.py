"""Output shapes of Keras layers that the vocabulary does not know, where they follow from the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parity.layers.keras_fields import extents, padding
from parity.network import Shape

__all__ = ["shape_of"]

_SAME = frozenset(
    """
    PReLU GaussianNoise GaussianDropout AlphaDropout LayerNormalization GroupNormalization UnitNormalization
    SpectralNormalization Masking BatchNormalization Activation Dropout Normalization
    """.split()  # noqa: SIM905 - a list of names
)


def shape_of(class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Shape | None:
    """The output's shape, without the batch axis; None where it is not known."""
    if not inputs:
        return None
    first = inputs[0]
    try:
        if class_name in _SAME:
            return first
        if class_name in ("SeparableConv2D", "SeparableConvolution2D"):
            return _separable(config, first)
        if class_name in ("Conv2DTranspose", "Convolution2DTranspose"):
            return _transposed(config, first)
        if class_name == "UpSampling2D":
            factors = extents(config.get("size", 2), 2)
            return (*(None if n is None else n * f for n, f in zip(first[:2], factors, strict=True)), first[2])
        if class_name == "RepeatVector":
            return (int(config["n"]), *first)
    except (KeyError, ValueError, TypeError, IndexError):
        return None
    return None


def _separable(config: Mapping[str, Any], shape: Shape) -> Shape:
    size, stride = extents(config["kernel_size"], 2), extents(config.get("strides", 1), 2)
    dilate = extents(config.get("dilation_rate", 1), 2)
    pad = padding(config, shape[:2], size, stride, dilate)
    cells: list[int | None] = []
    for i in range(2):
        extent = shape[i]
        if extent is None or pad is None:
            cells.append(None)
        else:
            cells.append((extent + pad[2 * i] + pad[2 * i + 1] - (size[i] - 1) * dilate[i] - 1) // stride[i] + 1)
    return (*cells, int(config["filters"]))


def _transposed(config: Mapping[str, Any], shape: Shape) -> Shape:
    """keras/src/backend/common/backend_utils.py: n·s for `same`, n·s + max(k - s, 0) for `valid`."""
    size, stride = extents(config["kernel_size"], 2), extents(config.get("strides", 1), 2)
    if config.get("output_padding") is not None:
        return (None, None, int(config["filters"]))
    more = [max(k - s, 0) if config.get("padding") == "valid" else 0 for k, s in zip(size, stride, strict=True)]
    cells = [None if n is None else n * s + m for n, s, m in zip(shape[:2], stride, more, strict=True)]
    return (*cells, int(config["filters"]))
