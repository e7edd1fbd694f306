"""From Keras' words to the vocabulary's: layer types, parameter roles and axes, initializers, regularizers."""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from parity.layers import Activation, Conv, ConvTranspose, Dense, Merge, Opaque, Slice, Softmax, Split, lookup
from parity.layers.keras_fields import axis_from_end, function_name

if TYPE_CHECKING:
    from parity.layers import Kind
    from parity.network import Shape

__all__ = [
    "NOISE",
    "activation_kind",
    "axes_of",
    "fuses",
    "initializer_text",
    "kind_of",
    "operation_kind",
    "penalty_coefficients",
    "role_of",
]

NOISE = frozenset(
    "GaussianNoise GaussianDropout AlphaDropout RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast "
    "RandomBrightness RandomCrop RandomHeight RandomWidth MixUp CutMix RandAugment AugMix RandomErasing".split()
)
"""Layers that draw random numbers and leave no mask that another framework could be given."""

_FUSED = frozenset(
    "Conv1D Conv2D Conv3D Convolution1D Convolution2D Convolution3D Dense DepthwiseConv1D DepthwiseConv2D "
    "SeparableConv1D SeparableConv2D SeparableConvolution2D Conv1DTranspose Conv2DTranspose Conv3DTranspose "
    "Convolution2DTranspose Deconvolution2D EinsumDense LocallyConnected1D LocallyConnected2D".split()
)

_ROLES = {
    "depthwise_kernel": "kernel",
    "moving_mean": "mean",
    "moving_variance": "variance",
    "running_mean": "mean",
    "running_std": "variance",  # Keras 1's name; it holds the variance
    "W": "kernel",
    "b": "bias",
}

_ELEMENTWISE = {
    "add": "add", "addv2": "add", "subtract": "subtract", "sub": "subtract", "multiply": "multiply", "mul": "multiply",
    "maximum": "maximum", "minimum": "minimum",
}  # fmt: skip

_FUNCTIONS = frozenset("relu sigmoid tanh elu selu softplus softsign gelu silu swish relu6 exp".split())


def fuses(class_name: str) -> bool:
    """Whether `activation` is the last thing a layer of this class does, so that it is a step of its own."""
    return class_name in _FUSED


def kind_of(class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape], runs_code: bool = False) -> Kind:
    """The kind of a layer; Opaque for what the vocabulary does not know.

    Args:
        class_name: e.g. `"Conv2D"`.
        config: its settings, as in a file or from `get_config()`.
        inputs: its input shapes, without the batch axis; empty where unknown.
        runs_code: whether it is a Lambda or a class of the user's.
    """
    kind = None if runs_code else lookup("keras", class_name)
    # A setting that the vocabulary does not have (channels first, batch renormalisation) leaves the layer opaque.
    if kind is not None:
        try:
            return kind.from_keras(class_name, config, inputs)
        except (NotImplementedError, ValueError, KeyError, TypeError, IndexError):
            pass
    return Opaque(type=class_name, config=_plain(config), runs_code=runs_code)


def activation_kind(value: Any) -> Kind | None:
    """The kind of a fused activation as a config holds it; None for none at all (`linear`)."""
    if isinstance(value, Mapping) and value.get("class_name") not in (None, "function"):
        return kind_of(str(value["class_name"]), value.get("config") or {}, ())
    name = function_name(value)
    if name == "linear":
        return None
    return kind_of("Activation", {"activation": value}, ()) if name else Opaque(type="activation", runs_code=True)


def operation_kind(name: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
    """The kind of a bare operation (`x[..., :3]`, `a + b`, `keras.ops.split`); Opaque where the vocabulary has none.

    Args:
        name: its last name, e.g. `"GetItem"`, `"split"`, `"addv2"`.
        arguments: what it is called with, tensors left out or as None; a slice as Python's own.
        settings: its other settings by name.
        inputs: its tensors' shapes, without the batch axis.
    """
    word = name.lower().removeprefix("__").removesuffix("__")
    opaque = Opaque(type=f"operation {name}", config=_plain(settings))
    if word in _ELEMENTWISE and len(inputs) == 2:
        return Merge(_ELEMENTWISE[word]) if len(inputs[0]) == len(inputs[1]) else opaque
    if word == "softmax":
        return Softmax(int(settings.get("axis", -1)))
    if word in _FUNCTIONS and len(inputs) == 1:
        return Activation({"exp": "exponential", "silu": "swish"}.get(word, word))
    if word == "getitem" and inputs:
        given = (*arguments, settings.get("slice_spec"))
        key = next((a for a in given if isinstance(a, tuple | list)), None)
        return _slice([_index(part) for part in key], inputs[0]) or opaque if key is not None else opaque
    if word == "split" and inputs:
        try:
            parts = next((a for a in arguments if isinstance(a, int | tuple | list)), None)
            if parts is not None:
                settings = {"num_or_size_splits": parts, **settings}
            return _split(settings, inputs[0]) or opaque
        except (TypeError, ValueError):
            return opaque
    return opaque


def _index(part: Any) -> Any:
    """One part of an index expression; Keras 2 writes a slice as {start, stop, step}, an ellipsis otherwise."""
    if isinstance(part, Mapping):
        if {"start", "stop"} <= set(part):
            return slice(part.get("start"), part.get("stop"), part.get("step"))
        return Ellipsis
    return Ellipsis if isinstance(part, str) else part


def _slice(items: list[Any], shape: Shape) -> Kind | None:
    """A range of one axis, where that is all that an index expression takes."""
    rank = len(shape) + 1
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (rank - len(items) + 1)
    items += [slice(None)] * (rank - len(items))
    if len(items) != rank or not all(isinstance(i, slice) and i.step in (None, 1) for i in items):
        return None
    cut = [i for i, item in enumerate(items) if item.start is not None or item.stop is not None]
    if len(cut) != 1 or cut[0] == 0 or shape[cut[0] - 1] is None:
        return None
    extent = shape[cut[0] - 1] or 0
    start, stop, _ = items[cut[0]].indices(extent)
    return Slice(axis_from_end(cut[0], rank), start, stop)


def _split(settings: Mapping[str, Any], shape: Shape) -> Kind | None:
    """keras.ops.split (parts or indices) or tf.split (parts or sizes)."""
    axis = axis_from_end(settings.get("axis", 0), len(shape) + 1)
    extent = shape[axis] if -axis <= len(shape) else None
    if extent is None:
        return None
    if "num_or_size_splits" in settings:
        sizes = settings["num_or_size_splits"]
        if not isinstance(sizes, int):
            bounds = [sum(sizes[:i]) for i in range(1, len(sizes))]
            return Split(axis, tuple(bounds))
        parts: Any = sizes
    else:
        parts = settings.get("indices_or_sections")
    if isinstance(parts, int):
        return Split(axis, tuple(range(extent // parts, extent, extent // parts)))
    return Split(axis, tuple(int(i) for i in parts)) if parts is not None else None


def role_of(source: str) -> str:
    """The role of a variable by its Keras name, e.g. `"conv2d_1/kernel:0"` → `"kernel"`."""
    word = source.rsplit("/", 1)[-1].split(":")[0]
    for old in ("W", "b", "gamma", "beta", "running_mean", "running_std"):  # Keras 1: `convolution2d_1_W`
        if word.endswith(f"_{old}"):
            word = old
    return _ROLES.get(word, word)


def axes_of(kind: Kind, role: str, shape: Sequence[int], class_name: str = "") -> str:
    """Names of a parameter's axes, one for each extent."""
    rank = len(shape)
    if rank == 1:
        return "o" if isinstance(kind, Conv | ConvTranspose | Dense) else "c"
    if role == "kernel" and isinstance(kind, Dense) and rank == 2:
        return "i o"
    if role == "kernel" and isinstance(kind, ConvTranspose):
        spatial = {3: "w", 4: "h w", 5: "d h w"}.get(rank)
        if spatial:  # Keras 1 had the other order (keras/src/legacy/saving, `preprocess_weights_for_loading`)
            return f"{spatial} i o" if class_name.startswith("Deconvolution") else f"{spatial} o i"
    if role == "kernel" and isinstance(kind, Conv):
        spatial = {3: "w", 4: "h w", 5: "d h w"}.get(rank)
        if spatial:
            return f"{spatial} c m" if class_name == "DepthwiseConv2D" else f"{spatial} i o"
    return " ".join(f"a{i}" for i in range(rank))


def initializer_text(value: Any) -> str | None:
    """How a config says that a weight was drawn, e.g. `"RandomNormal(stddev=0.05)"`; None if it does not.

    Keras 2 writes its Glorot, He and LeCun initializers as VarianceScaling; they get their names back.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return "".join(part.capitalize() for part in value.split("_"))
    if not isinstance(value, Mapping):
        return type(value).__name__
    name, config = str(value.get("class_name", "")), value.get("config") or {}
    if name == "VarianceScaling":
        mode, scale = config.get("mode", "fan_in"), float(config.get("scale", 1.0))
        family = {("fan_avg", 1.0): "Glorot", ("fan_in", 2.0): "He", ("fan_in", 1.0): "Lecun"}.get((mode, scale))
        law = str(config.get("distribution", "truncated_normal")).replace("truncated_", "").replace("untruncated_", "")
        if family:
            return family + law.capitalize()
    shown = {
        k: v for k, v in config.items() if k not in ("seed", "dtype", "input_axes", "output_axes") and v is not None
    }
    if name in ("Zeros", "Ones", "GlorotUniform", "GlorotNormal", "HeNormal", "HeUniform") or not shown:
        return name
    return f"{name}({', '.join(f'{k}={v:g}' if isinstance(v, float) else f'{k}={v}' for k, v in shown.items())})"


def penalty_coefficients(value: Any) -> tuple[float, float]:
    """(l1, l2) of a regularizer: a config, a name, or a live object. What it adds is l1·Σ|w| + l2·Σw²."""
    if value is None:
        return 0.0, 0.0
    if isinstance(value, str):
        return (0.01 if "l1" in value else 0.0), (0.01 if "l2" in value else 0.0)
    if isinstance(value, Mapping):
        config = value.get("config") or {}
        return float(config.get("l1") or 0.0), float(config.get("l2") or 0.0)
    return float(getattr(value, "l1", 0.0) or 0.0), float(getattr(value, "l2", 0.0) or 0.0)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings worth showing: scalars and short lists, without Keras' housekeeping."""
    hidden = {"name", "trainable", "dtype", "batch_input_shape", "batch_shape", "function", "registered_name"}
    return {k: v for k, v in config.items() if k not in hidden and _short(v)}


def _short(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 8 and all(_short(v) for v in value)
    return isinstance(value, bool | int | float | str) and len(str(value)) <= 80
