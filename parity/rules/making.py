"""The Keras layer that does what a kind of layer does, as a class and its arguments, and as the line that makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parity.digits import shortest
from parity.layers import (
    LRN,
    Activation,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Identity,
    Kind,
    Merge,
    Pad,
    Pool,
    Rescale,
    Scale,
    Softmax,
)

__all__ = ["activation_of", "constructor", "layer_of", "listed", "pool_of", "spelled", "written"]


def layer_of(kind: Kind) -> dict[str, Any] | None:
    """`class_name` and `config` of a layer that does what a kind does; None where there is none.

    Keras has no local response normalisation: that is a class of `frameworks.keras.edits.own`. Padding by cells is not
    in it: that may take a layer of its own.
    """
    if isinstance(kind, Activation | Softmax):
        return activation_of(kind)
    if isinstance(kind, Pool):
        return pool_of(kind)
    if isinstance(kind, Conv) and len(kind.size) == 2:
        config = {
            "filters": kind.filters,
            "kernel_size": listed(kind.size),
            "strides": listed(kind.stride),
            "dilation_rate": listed(kind.dilate),
            "groups": kind.groups,
            "use_bias": kind.bias,
        }
        usual = {"strides": [1, 1], "dilation_rate": [1, 1], "groups": 1, "use_bias": True}
        return {"class_name": "Conv2D", "config": {k: v for k, v in config.items() if usual.get(k) != v}}
    if isinstance(kind, ConvTranspose) and len(kind.size) == 2 and kind.groups == 1:
        config = {"filters": kind.filters, "kernel_size": listed(kind.size), "strides": listed(kind.upsample)}
        config |= {} if set(kind.dilate) == {1} else {"dilation_rate": listed(kind.dilate)}
        return {"class_name": "Conv2DTranspose", "config": {**config, **({} if kind.bias else {"use_bias": False})}}
    if isinstance(kind, BatchNorm):
        config = {"epsilon": kind.epsilon, **({} if kind.momentum is None else {"momentum": kind.momentum})}
        return {"class_name": "BatchNormalization", "config": config}
    if isinstance(kind, Pad) and kind.value == 0:
        sides = [list(kind.pad[i : i + 2]) for i in range(0, len(kind.pad), 2)]
        return {"class_name": f"ZeroPadding{len(sides)}D", "config": {"padding": sides if len(sides) > 1 else sides[0]}}
    return _plain(kind)


def _plain(kind: Kind) -> dict[str, Any] | None:
    if isinstance(kind, Dropout):
        return {"class_name": "Dropout", "config": {"rate": kind.rate}}
    if isinstance(kind, Dense):
        return {"class_name": "Dense", "config": {"units": kind.units, "use_bias": kind.bias}}
    if isinstance(kind, Scale):
        # A depthwise filter of one cell: a multiplier, and an offset, for each channel.
        return {"class_name": "DepthwiseConv2D", "config": {"kernel_size": 1, "use_bias": kind.bias}}
    if isinstance(kind, Merge):
        return {"class_name": kind.operation.capitalize(), "config": {}}
    if isinstance(kind, Concat):
        return {"class_name": "Concatenate", "config": {} if kind.axis == -1 else {"axis": kind.axis}}
    if isinstance(kind, Rescale):
        return {"class_name": "Rescaling", "config": {"scale": listed(kind.scale), "offset": listed(kind.offset)}}
    if isinstance(kind, LRN):
        own = {"size": kind.size, "kappa": kind.kappa, "alpha": kind.alpha, "beta": kind.beta}
        return {"class_name": "LocalResponse", "config": own}
    if isinstance(kind, Identity):
        return {"class_name": "Identity", "config": {}}
    return None


def activation_of(kind: Kind) -> dict[str, Any]:
    """The layer that an activation or a softmax is."""
    if isinstance(kind, Softmax):
        return {"class_name": "Softmax", "config": {} if kind.axis == -1 else {"axis": kind.axis}}
    assert isinstance(kind, Activation)
    if kind.function == "relu":
        given = {"negative_slope": kind.slope, "max_value": kind.limit, "threshold": kind.threshold}
        return {"class_name": "ReLU", "config": {key: float(value) for key, value in given.items() if value}}
    if kind.function == "elu" and kind.slope != 1.0:
        return {"class_name": "ELU", "config": {"alpha": kind.slope}}
    return {"class_name": "Activation", "config": {"activation": kind.function}}


def pool_of(kind: Pool) -> dict[str, Any]:
    """A pooling over the same windows; of the whole map it keeps the axes."""
    word = "Max" if kind.method == "max" else "Average"
    if kind.size is None:
        return {"class_name": f"Global{word}Pooling2D", "config": {"keepdims": True}}
    config = {"pool_size": listed(kind.size), "strides": listed(kind.stride)}
    return {"class_name": f"{word}Pooling{len(kind.size)}D", "config": config}


def listed(value: Any) -> Any:
    """Tuples as lists, at any depth."""
    return [listed(part) for part in value] if isinstance(value, tuple) else value


# As code --------------------------------------------------------------------------------------------------------------


def written(class_name: str, config: Mapping[str, Any], rest: Sequence[str] = ()) -> str:
    """The layer as someone would write it: with tensorflow's function for what Keras lacks, where that has the window.

    Args:
        class_name: of the layer.
        config: its arguments.
        rest: more of them, as code.
    """
    if class_name == "LocalResponse" and config["size"] % 2:
        size, kappa, alpha, beta = (config[name] for name in ("size", "kappa", "alpha", "beta"))
        given = [f"depth_radius={size // 2}", f"bias={kappa:g}", f"alpha={alpha:g}", f"beta={beta:g}"]
        return f"Lambda(lambda x: tf.nn.local_response_normalization(x, {', '.join(given)}))"
    return constructor(class_name, config, rest)


def constructor(class_name: str, config: Mapping[str, Any], rest: Sequence[str] = ()) -> str:
    """`MaxPooling2D(pool_size=(2, 2), strides=(2, 2))`; `rest` are more arguments, as code."""
    return f"{class_name}({', '.join([*(f'{name}={spelled(value)}' for name, value in config.items()), *rest])})"


def spelled(value: Any) -> str:
    """A value as one writes it: tuples for lists, no digits that float32 added."""
    if isinstance(value, list | tuple):
        return "(" + ", ".join(spelled(part) for part in value) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, float):
        return repr(shortest(value))
    return f'"{value}"' if isinstance(value, str) else repr(value)
