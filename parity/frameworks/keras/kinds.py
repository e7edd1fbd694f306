"""From Keras' words to the vocabulary's: layer types, parameter roles and axes, initializers, regularizers."""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from parity.layers import Activation, Conv, ConvTranspose, Dense, Opaque, lookup
from parity.layers.keras_fields import function_name
from parity.settings import CLASS

if TYPE_CHECKING:
    from parity.layers import Kind
    from parity.network import Layer, Shape

__all__ = [
    "NOISE",
    "activation_kind",
    "argument_of",
    "axes_of",
    "described",
    "draws_unseen",
    "fuses",
    "initializer_text",
    "kind_of",
    "other_penalty",
    "penalty_coefficients",
    "plain_settings",
    "role_of",
    "settings_of",
    "under_keras_2",
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
    return Opaque(type=class_name, config=plain_settings(config), runs_code=runs_code)


def draws_unseen(class_name: str, kind: Kind) -> bool:
    """Whether a layer draws random numbers and leaves no mask that another side could be given.

    Args:
        class_name: e.g. `"GaussianNoise"`.
        kind: of the layer: a dropout that the vocabulary does not know leaves none either.
    """
    return class_name in NOISE or (class_name == "Dropout" and isinstance(kind, Opaque))


def activation_kind(value: Any) -> Kind | None:
    """The kind of a fused activation as a config holds it; None for none at all (`linear`)."""
    if isinstance(value, Mapping) and value.get("class_name") not in (None, "function"):
        return kind_of(str(value["class_name"]), value.get("config") or {}, ())
    name = function_name(value)
    if name == "linear":
        return None
    return kind_of("Activation", {"activation": value}, ()) if name else Opaque(type="activation", runs_code=True)


def under_keras_2(layer: Layer) -> Layer:
    """A layer as Keras 1 and 2 compute it, where their words mean something else than Keras 3's."""
    kind = layer.kind
    if isinstance(kind, Activation) and kind.function == "hard_sigmoid":
        kind = replace(kind, function="hard_sigmoid_legacy")
    said = {k: "hard_sigmoid_legacy" if v == "hard_sigmoid" else v for k, v in layer.settings.items()}
    return replace(layer, kind=kind, settings=said)


def role_of(source: str) -> str:
    """The role of a variable by its Keras name, e.g. `"conv2d_1/kernel:0"` → `"kernel"`."""
    word = source.rsplit("/", 1)[-1].split(":")[0]
    for old in ("W", "b", "gamma", "beta", "running_mean", "running_std"):  # Keras 1: `convolution2d_1_W`
        if word.endswith(f"_{old}"):
            word = old
    return _ROLES.get(word, word)


def argument_of(given: Callable[[str], Any], word: str, what: str) -> Any:
    """What a layer's arguments say of a variable: of `depthwise_kernel` in `depthwise_regularizer`; None for nothing.

    Keras 3 calls that kernel of a DepthwiseConv2D `kernel`.

    Args:
        given: an argument by its name.
        word: the variable's name.
        what: `"regularizer"`, `"constraint"` or `"initializer"`.
    """
    words = (word, word.removesuffix("_kernel"), *(("depthwise",) if word == "kernel" else ()))
    found = (given(f"{each}_{what}") for each in dict.fromkeys(words))
    return next((value for value in found if value is not None), None)


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
    if role.endswith("kernel") and isinstance(kind, Conv):
        spatial = {3: "w", 4: "h w", 5: "d h w"}.get(rank)
        if spatial:
            depthwise = class_name == "DepthwiseConv2D" or role == "depthwise_kernel"
            return f"{spatial} c m" if depthwise else f"{spatial} i o"
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


def other_penalty(value: Any) -> dict[str, Any]:
    """Class and settings of a regularizer that is no sum of L1 and L2; empty for those, and for none."""
    found = described(value)
    words = str(found.get("class_name", "")).lower().replace("_", "")
    return {} if words in ("", "l1", "l2", "l1l2") or any(penalty_coefficients(value)) else found


def described(value: Any) -> dict[str, Any]:
    """Class and settings of a regularizer or a constraint: a config, a name, or a live object; empty for none."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"class_name": "".join(part.capitalize() for part in value.split("_")), "config": {}}
    if not isinstance(value, Mapping):
        name = getattr(value, "__name__", type(value).__name__)
        value = {"class_name": name, "config": value.get_config() if hasattr(value, "get_config") else {}}
    config = value.get("config")
    settings = config if isinstance(config, Mapping) else {}
    kept = {key: held for key, held in settings.items() if key not in ("dtype", "name")}
    return {"class_name": str(value.get("class_name", "")).split(">")[-1], "config": kept}


def plain_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings worth showing: scalars and short lists, without Keras' housekeeping."""
    hidden = {"name", "trainable", "dtype", "batch_input_shape", "batch_shape", "function", "registered_name"}
    return {k: v for k, v in config.items() if k not in hidden and _short(v)}


def settings_of(class_name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's class and arguments, to hold another layer's against: see `Layer.settings`.

    How its weights are drawn, penalized and bound is told of its parameters, and a fused activation is a layer.

    Args:
        class_name: of the layer.
        config: as in a file, or from `get_config()`.
    """
    made: dict[str, Any] = {CLASS: class_name}
    for name, value in config.items():
        if name.endswith(("_initializer", "_regularizer", "_constraint")) or (
            name == "activation" and fuses(class_name)
        ):
            continue
        inner = value.get("config") if isinstance(value, Mapping) else None
        if name.endswith("activation"):
            made[name] = function_name(value)
        elif isinstance(inner, Mapping) and name in ("layer", "backward_layer", "cell"):
            parts = settings_of(str(value.get("class_name")), inner)
            activation = {"activation": function_name(inner["activation"])} if inner.get("activation") else {}
            made |= {f"{name}.{part}": held for part, held in {**parts, **activation}.items()}
        elif value is None or _short(value):
            made[name] = _held(value)
    return made


def _held(value: Any) -> Any:
    """Lists of any class as tuples."""
    return tuple(_held(part) for part in value) if isinstance(value, list | tuple) else value


def _short(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 8 and all(_short(v) for v in value)
    return isinstance(value, bool | int | float | str) and len(str(value)) <= 80
