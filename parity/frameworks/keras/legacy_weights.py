"""The arrays of Keras 1, and those saved on Theano, laid out as Keras 2 on tensorflow has them.

Sources: keras 2.1.6, `engine/topology.py`, `preprocess_weights_for_loading` (which Keras later dropped in part: today's
neither turns Theano's kernels nor opens a submodel twice), and the `build` of each layer in keras 1.2.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parity.frameworks.keras.stored import Stored, flipped, joined, relaid, reshaped

__all__ = ["CONVOLUTIONS", "laid_out"]

CONVOLUTIONS = {"Conv1D": 1, "Conv2D": 2, "Conv3D": 3, "Conv2DTranspose": 2, "Conv3DTranspose": 3, "ConvLSTM2D": 2}
"""Layers whose kernels Theano turns by 180°, and how many spatial axes they have."""

_GATES = {"LSTM": "ifco", "ConvLSTM2D": "ifco", "GRU": "zrh"}
"""The order in which Keras 2 joins the gates."""

_OLD_GATES = {"LSTM": "icfo", "ConvLSTM2D": "icfo", "GRU": "zrh"}
"""The order in which Keras 1 lists them, kernel, recurrent kernel and bias of each together."""


def laid_out(entry: Mapping[str, Any], arrays: Sequence[Stored], era: int, theano: bool) -> tuple[Stored, ...]:
    """The arrays of one leaf, changed as its repaired entry needs them.

    Args:
        entry: class_name and config, in the words of Keras 2.
        arrays: as the file lists them.
        era: of the file.
        theano: whether its kernels are those of true convolutions.

    Raises:
        ValueError: with the rest of the sentence "layer x ...", where an array does not fit the layer.
    """
    name, config = str(entry.get("class_name", "")), entry.get("config")
    config = config if isinstance(config, Mapping) else {}
    inner = config.get("layer")
    if name == "TimeDistributed" and isinstance(inner, Mapping):
        return laid_out(inner, arrays, era, theano)
    if name == "Bidirectional" and isinstance(inner, Mapping):
        half = len(arrays) // 2
        return (*laid_out(inner, arrays[:half], era, theano), *laid_out(inner, arrays[half:], era, theano))
    found = list(arrays)
    if era == 1 and found:
        found = _first_era(name, config, found)
    if theano and found and name in CONVOLUTIONS:
        turned = 2 if name == "ConvLSTM2D" else 1
        found[:turned] = [flipped(stored, CONVOLUTIONS[name]) for stored in found[:turned]]
    return tuple(found)


def _first_era(name: str, config: Mapping[str, Any], found: list[Stored]) -> list[Stored]:
    first = config.get("data_format") == "channels_first"
    if name in _GATES:
        found = _gates(name, found)
        if name == "ConvLSTM2D" and first:
            found[:2] = [relaid(stored, "o i h w -> h w i o") for stored in found[:2]]
        return found
    kernel = found[0]
    if name == "Conv1D":
        found[0] = _row(kernel, config)
    elif name == "Conv2D" and first:
        found[0] = relaid(kernel, "o i h w -> h w i o")
    elif name == "Conv3D" and first:
        found[0] = relaid(kernel, "o i d h w -> d h w i o")
    elif name == "Conv2DTranspose":
        # The last axis of Keras 2's is the input, and that of Keras 1's the output, in either layout.
        found[0] = relaid(kernel, "o i h w -> h w o i" if first else "h w i o -> h w o i")
    elif name == "SeparableConv2D" and first and len(found) > 1:
        found[:2] = [relaid(kernel, "m i h w -> h w i m"), relaid(found[1], "o i h w -> h w i o")]
    return found


def _row(kernel: Stored, config: Mapping[str, Any]) -> Stored:
    """(k, 1, i, o) → (k, i, o); Keras 1.0 had (o, i, k, 1)."""
    if len(kernel.shape) != 4:
        raise ValueError(f"has a kernel of shape {kernel.shape}, not one of Keras 1")
    size, filters = config.get("kernel_size"), config.get("filters")
    size = size[0] if isinstance(size, Sequence) and size else size
    if kernel.shape[:2] != (size, 1) or kernel.shape[3] != filters:
        kernel = relaid(kernel, "o i h w -> h w i o")
    k, one, i, o = kernel.shape
    if one != 1:
        raise ValueError(f"has a kernel of shape {kernel.shape}, not one of Keras 1")
    return reshaped(kernel, (k, i, o))


def _gates(name: str, found: list[Stored]) -> list[Stored]:
    old, new = _OLD_GATES[name], _GATES[name]
    if len(found) != 3 * len(old):
        return found  # saved with consume_less="gpu": joined already
    made: list[Stored] = []
    for i, word in enumerate(("kernel", "recurrent_kernel", "bias")):
        parts = [found[3 * old.index(gate) + i] for gate in new]
        made.append(joined(f"{parts[0].name.rsplit('_W_', 1)[0].rsplit('_U_', 1)[0]}/{word}", parts))
    return made
