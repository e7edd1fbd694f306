"""Output shapes of Keras layers that the vocabulary does not know, where they follow from the configuration."""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parity.frameworks.keras.kinds import kind_of
from parity.layers import Opaque
from parity.layers.keras_fields import extents, padding
from parity.network import Shape

__all__ = ["leaf_shape", "shape_of", "state_shape"]

_SAME = frozenset(
    """
    Activation ActivityRegularization AlphaDropout AugMix AutoContrast BatchNormalization Dropout Equalization
    GaussianDropout GaussianNoise GroupNormalization LayerNormalization Masking MaxNumBoundingBoxes MixUp
    MultiHeadAttention Normalization PReLU RMSNormalization RandAugment RandomBrightness RandomColorJitter
    RandomContrast RandomErasing RandomFlip RandomGrayscale RandomHue RandomInvert RandomPosterization RandomRotation
    RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom Rescaling Solarization Softmax
    SpatialDropout1D SpatialDropout2D SpatialDropout3D UnitNormalization
    """.split()
)

_Config = Mapping[str, Any]


def shape_of(class_name: str, config: _Config, inputs: Sequence[Shape]) -> Shape | None:
    """The output's shape, without the batch axis; None where it is not known.

    Source: `compute_output_shape` of each class in keras/src/layers.
    """
    if not inputs:
        return None
    try:
        if class_name in _SAME:
            return inputs[0]
        find = _FINDERS.get(class_name)
        return None if find is None else find(config, inputs)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError):
        return None


def state_shape(class_name: str, config: _Config) -> Shape | None:
    """The shape of a recurrent layer's states, which follow its output; None for another layer."""
    inner = config.get("layer")
    if class_name == "Bidirectional" and isinstance(inner, Mapping):
        settings = inner.get("config")
        return state_shape(str(inner.get("class_name")), settings if isinstance(settings, Mapping) else {})
    units = config.get("units")
    return (units,) if class_name in ("LSTM", "GRU", "SimpleRNN") and isinstance(units, int) else None


def leaf_shape(class_name: str, config: _Config, inputs: Sequence[Shape]) -> Shape | None:
    """As `shape_of`, of any layer, those that the vocabulary knows included."""
    kind = kind_of(class_name, config, inputs)
    if isinstance(kind, Opaque):
        return shape_of(class_name, config, inputs)
    try:
        return kind.output_shape(inputs)
    except (ValueError, IndexError, TypeError):
        return None


def _spatial(config: _Config, shape: Shape, channels: int) -> Shape:
    """A convolution's, any number of spatial axes."""
    rank = len(shape) - 1
    size, stride = extents(config["kernel_size"], rank), extents(config.get("strides", 1), rank)
    dilate = extents(config.get("dilation_rate", 1), rank)
    pad = padding(config, shape[:-1], size, stride, dilate)
    cells: list[int | None] = []
    for i in range(rank):
        extent = shape[i]
        if extent is None or pad is None:
            cells.append(None)
        else:
            cells.append((extent + pad[2 * i] + pad[2 * i + 1] - (size[i] - 1) * dilate[i] - 1) // stride[i] + 1)
    return (*cells, channels)


def _convolution(config: _Config, inputs: Sequence[Shape]) -> Shape:
    return _spatial(config, inputs[0], int(config["filters"]))


def _depthwise(config: _Config, inputs: Sequence[Shape]) -> Shape | None:
    channels = inputs[0][-1]
    return None if channels is None else _spatial(config, inputs[0], channels * int(config.get("depth_multiplier", 1)))


def _transposed(config: _Config, inputs: Sequence[Shape]) -> Shape:
    """keras/src/backend/common/backend_utils.py: n·s for `same`, n·s + max(k - s, 0) for `valid`."""
    *spatial, _ = inputs[0]
    rank = len(spatial)
    size, stride = extents(config["kernel_size"], rank), extents(config.get("strides", 1), rank)
    if config.get("output_padding") is not None:
        return (*(None,) * rank, int(config["filters"]))
    more = [max(k - s, 0) if config.get("padding") == "valid" else 0 for k, s in zip(size, stride, strict=True)]
    cells = [None if n is None else n * s + m for n, s, m in zip(spatial, stride, more, strict=True)]
    return (*cells, int(config["filters"]))


def _upsampled(config: _Config, inputs: Sequence[Shape]) -> Shape:
    *spatial, channels = inputs[0]
    factors = extents(config.get("size", 2), len(spatial))
    return (*(None if n is None else n * f for n, f in zip(spatial, factors, strict=True)), channels)


def _permuted(config: _Config, inputs: Sequence[Shape]) -> Shape:
    return tuple(inputs[0][int(axis) - 1] for axis in config["dims"])


def _recurrent(config: _Config, inputs: Sequence[Shape]) -> Shape:
    units = config.get("units")
    if units is None:  # RNN(cell)
        units = config["cell"]["config"]["units"]
    return (inputs[0][0], int(units)) if config.get("return_sequences") else (int(units),)


def _convolved_sequence(config: _Config, inputs: Sequence[Shape]) -> Shape:
    step = _spatial(config, inputs[0][1:], int(config["filters"]))
    return (inputs[0][0], *step) if config.get("return_sequences") else step


def _bidirectional(config: _Config, inputs: Sequence[Shape]) -> Shape | None:
    inner = config["layer"]
    shape = leaf_shape(str(inner["class_name"]), inner["config"], inputs)
    mode = config.get("merge_mode", "concat")
    if shape is None or mode != "concat":
        return shape
    return (*shape[:-1], None if shape[-1] is None else 2 * shape[-1])


def _distributed(config: _Config, inputs: Sequence[Shape]) -> Shape | None:
    inner = config["layer"]
    shape = leaf_shape(str(inner["class_name"]), inner["config"], [inputs[0][1:]])
    return None if shape is None else (inputs[0][0], *shape)


def _wrapped(config: _Config, inputs: Sequence[Shape]) -> Shape | None:
    inner = config["layer"]
    return leaf_shape(str(inner["class_name"]), inner["config"], inputs)


def _dot(config: _Config, inputs: Sequence[Shape]) -> Shape:
    axes = config["axes"]
    first, second = (axes, axes) if isinstance(axes, int) else axes
    one, two = ((None, *shape) for shape in inputs)
    left = [n for i, n in enumerate(one) if i != first % len(one)]
    right = [n for i, n in enumerate(two) if i not in (0, second % len(two))]
    return tuple([*left, *right][1:]) or (1,)


def _attention(config: _Config, inputs: Sequence[Shape]) -> Shape:
    return (*inputs[0][:-1], inputs[1][-1])


_FINDERS: Mapping[str, Callable[[_Config, Sequence[Shape]], Shape | None]] = {
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D", "SeparableConvolution2D"), _convolution),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "LocallyConnected1D", "LocallyConnected2D"), _convolution),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "Convolution2DTranspose"), _transposed),
    **dict.fromkeys(("UpSampling1D", "UpSampling2D", "UpSampling3D"), _upsampled),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RNN"), _recurrent),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _convolved_sequence),
    **dict.fromkeys(("Attention", "AdditiveAttention"), _attention),
    **dict.fromkeys(
        ("Resizing", "CenterCrop", "RandomCrop"), lambda c, i: (int(c["height"]), int(c["width"]), i[0][2])
    ),
    "Permute": _permuted,
    "Bidirectional": _bidirectional,
    "TimeDistributed": _distributed,
    "SpectralNormalization": _wrapped,
    "Dot": _dot,
    "Embedding": lambda config, inputs: (*inputs[0], int(config["output_dim"])),
    "RepeatVector": lambda config, inputs: (int(config["n"]), *inputs[0]),
}
