"""Which variables a layer has, in its own order, from its configuration alone."""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parity.frameworks.keras.legacy import class_today
from parity.frameworks.keras.stored import Stored

__all__ = ["SUBLAYERS", "count_of", "split", "variables_of"]

SUBLAYERS = tuple(
    "forward_layer backward_layer cell cells layer query_dense key_dense value_dense output_dense".split()
)
"""Attributes that hold layers inside Keras' own composite layers, in the order of their variables."""


_Names = tuple[list[str], list[str]]
_Config = Mapping[str, Any]


def variables_of(class_name: str, config: _Config) -> _Names | None:
    """Names of a layer's trainable variables and of its others; None for a class that is not known here.

    Source: the `build` of each class in keras/src/layers (the order is the same in Keras 1, 2 and 3).
    """
    inner = _inner(class_name, config)
    if inner is not None:
        return inner
    find = _FINDERS.get(class_name)
    return None if find is None else find(config)


def _inner(name: str, config: _Config) -> _Names | None:
    """Those of a layer that only holds another one."""
    held = config.get("cell" if name == "RNN" else "layer")
    settings = held.get("config") if isinstance(held, Mapping) else None
    if name not in _HOLDERS or not isinstance(held, Mapping) or not isinstance(settings, Mapping):
        return None
    found = variables_of(str(held.get("class_name")), settings)
    if found is None:
        return None
    trained, others = found
    if name == "Bidirectional":
        return trained * 2, others * 2
    if name == "SpectralNormalization":
        return trained, [*others, "vector_u"]
    return trained, others


def _bias(config: _Config) -> list[str]:
    return ["bias"] if config.get("use_bias", True) else []


def _scaled(config: Mapping[str, Any]) -> list[str]:
    return ["gamma"] * bool(config.get("scale", True)) + ["beta"] * bool(config.get("center", True))


def _attention(config: _Config) -> _Names:
    return ["scale"] * bool(config.get("use_scale")), []


_FINDERS: Mapping[str, Callable[[_Config], _Names]] = {
    **dict.fromkeys(
        """
        Dense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose LocallyConnected1D
        LocallyConnected2D
        """.split(),
        lambda config: (["kernel", *_bias(config)], []),
    ),
    **dict.fromkeys(
        "SimpleRNN LSTM GRU SimpleRNNCell LSTMCell GRUCell ConvLSTM1D ConvLSTM2D ConvLSTM3D".split(),
        lambda config: (["kernel", "recurrent_kernel", *_bias(config)], []),
    ),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), lambda config: (["depthwise_kernel", *_bias(config)], [])),
    **dict.fromkeys(
        ("SeparableConv1D", "SeparableConv2D"),
        lambda config: (["depthwise_kernel", "pointwise_kernel", *_bias(config)], []),
    ),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization"), lambda config: (_scaled(config), [])),
    "BatchNormalization": lambda config: (_scaled(config), ["moving_mean", "moving_variance"]),
    "RMSNormalization": lambda config: (["scale"], []),
    "Normalization": lambda config: ([], ["mean", "variance", "count"]),
    "EinsumDense": lambda config: (["kernel"] + ["bias"] * bool(config.get("bias_axes")), []),
    "PReLU": lambda config: (["alpha"], []),
    "Embedding": lambda config: (["embeddings"], []),
    "MultiHeadAttention": lambda config: (["kernel", *_bias(config)] * 4, []),
    "Attention": _attention,
    "AdditiveAttention": lambda config: _attention({"use_scale": True, **config}),
}

_HOLDERS = ("TimeDistributed", "Bidirectional", "SpectralNormalization", "RNN")


def count_of(entry: Mapping[str, Any], gates: bool) -> tuple[int, int] | None:
    """How many arrays a leaf keeps in a file, trainable and others; None where it is not known.

    Args:
        entry: its class_name and config.
        gates: whether it is an entry of Keras 1, whose recurrent layers keep each gate's arrays apart.
    """
    config = entry.get("config")
    config = config if isinstance(config, Mapping) else {}
    name = str(entry.get("class_name", ""))
    if gates:
        name, config = class_today(name), {"use_bias": config.get("bias", True), **config}
        inner = config.get("layer")
        if name in ("TimeDistributed", "Bidirectional") and isinstance(inner, Mapping):
            counts = count_of(inner, gates)
            factor = 2 if name == "Bidirectional" else 1
            return None if counts is None else (counts[0] * factor, counts[1] * factor)
        if name in ("LSTM", "GRU", "ConvLSTM2D") and config.get("consume_less") != "gpu":
            return (9 if name == "GRU" else 12), 0
    found = variables_of(name, config)
    return None if found is None else (len(found[0]), len(found[1]))


def split(
    leaves: Sequence[Mapping[str, Any]], arrays: Sequence[Stored], gates: bool = False
) -> list[tuple[Stored, ...]] | None:
    """The arrays of a submodel, which a `.h5` lists as one, leaf by leaf; None where they cannot be told apart.

    Keras lists what is trained first, then the rest, each in the order of the layers (keras 2.15,
    `saving/legacy/hdf5_format.py`, `_legacy_weights`); a frozen layer's weights are among the rest.

    Args:
        leaves: the submodel's leaves in order, each once.
        arrays: what the file lists for it.
        gates: see `count_of`.
    """
    counts: list[tuple[int, int]] = []
    for entry in leaves:
        known = count_of(entry, gates)
        if known is None:
            # A layer without variables needs no entry above; one with some makes the total wrong.
            known = (0, 0)
        config = entry.get("config")
        frozen = isinstance(config, Mapping) and config.get("trainable") is False
        counts.append((0, sum(known)) if frozen else known)
    if sum(a + b for a, b in counts) != len(arrays):
        return None
    first, second = 0, sum(a for a, _ in counts)
    found: list[tuple[Stored, ...]] = []
    for trained, others in counts:
        found.append((*arrays[first : first + trained], *arrays[second : second + others]))
        first, second = first + trained, second + others
    return found
