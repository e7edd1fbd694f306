"""Which variables a layer has, in its own order, from its configuration alone."""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parity.frameworks.keras.legacy import class_today
from parity.frameworks.keras.stored import Stored

__all__ = ["SUBLAYERS", "count_of", "split", "variables_of"]

SUBLAYERS = tuple(
    "forward_layer backward_layer cell cells layer query_dense key_dense value_dense output_dense".split()
)
"""Attributes that hold layers inside Keras' own composite layers, in the order of their variables."""

_NORMS = frozenset("LayerNormalization GroupNormalization".split())


def variables_of(class_name: str, config: Mapping[str, Any]) -> tuple[list[str], list[str]] | None:
    """Names of a layer's trainable variables and of its others; None for a class that is not known here.

    Source: the `build` of each class in keras/src/layers (the order is the same in Keras 1, 2 and 3).
    """
    name = class_name
    bias = ["bias"] if config.get("use_bias", True) else []
    if name in ("TimeDistributed", "Bidirectional", "SpectralNormalization"):
        return _wrapped(name, config)
    if name == "BatchNormalization":
        return _scaled(config), ["moving_mean", "moving_variance"]
    if name in _NORMS:
        return _scaled(config), []
    if name == "RMSNormalization":
        return ["scale"], []
    if name == "Normalization":
        return [], ["mean", "variance", "count"]
    if name in ("DepthwiseConv1D", "DepthwiseConv2D"):
        return ["depthwise_kernel", *bias], []
    if name.startswith("SeparableConv"):
        return ["depthwise_kernel", "pointwise_kernel", *bias], []
    if name in ("Dense", "EinsumDense") or (name.startswith(("Conv", "LocallyConnected")) and "LSTM" not in name):
        if name == "EinsumDense":
            bias = ["bias"] if config.get("bias_axes") else []
        return ["kernel", *bias], []
    if name in ("SimpleRNN", "LSTM", "GRU", "SimpleRNNCell", "LSTMCell", "GRUCell") or name.startswith("ConvLSTM"):
        return ["kernel", "recurrent_kernel", *bias], []
    if name == "PReLU":
        return ["alpha"], []
    if name == "Embedding":
        return ["embeddings"], []
    if name == "MultiHeadAttention":
        return ["kernel", *bias] * 4, []
    if name in ("Attention", "AdditiveAttention"):
        scale = config.get("use_scale", name == "AdditiveAttention")
        return ["scale"] * bool(scale), []
    return None


def _scaled(config: Mapping[str, Any]) -> list[str]:
    return ["gamma"] * bool(config.get("scale", True)) + ["beta"] * bool(config.get("center", True))


def _wrapped(name: str, config: Mapping[str, Any]) -> tuple[list[str], list[str]] | None:
    inner = config.get("layer")
    settings = inner.get("config") if isinstance(inner, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(settings, Mapping):
        return None
    found = variables_of(str(inner.get("class_name")), settings)
    if found is None:
        return None
    trained, others = found
    if name == "Bidirectional":
        return trained * 2, others * 2
    if name == "SpectralNormalization":
        return trained, [*others, "vector_u"]
    return trained, others


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
