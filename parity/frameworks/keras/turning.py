"""What `channels_first` knows of single layers: shapes, ranks and orders of axes, before and after a map is turned."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parity.frameworks.keras.stored import Stored, permuted

__all__ = [
    "declared_shape",
    "ends_with_softmax",
    "in_order",
    "permute_layer",
    "rank_behind",
    "row_order",
    "turn_shape",
    "turned",
]


def row_order(shapes: Sequence[tuple[int | None, ...] | None] | None) -> list[int] | None:
    """Where each value of a map flattened h, w, c lay when it was flattened c, h, w."""
    shape = shapes[0] if shapes else None
    if shape is None or None in shape:
        return None
    *spatial, channels = (int(n or 0) for n in shape)
    extents = [range(n) for n in spatial]
    found: list[int] = []
    for place in itertools.product(*extents, range(channels)):
        index = place[-1]
        for at, extent in zip(place[:-1], spatial, strict=True):
            index = index * extent + at
        found.append(index)
    return found


def in_order(order: list[int], each: bool) -> Callable[[Stored], Stored]:
    """Puts the rows of a kernel (or, with `each`, the entries of every vector) into this order."""
    return lambda stored: permuted(stored, order) if each or len(stored.shape) > 1 else stored


def ends_with_softmax(config: Mapping[str, Any]) -> bool:
    """Whether a layer ends with a softmax, which goes along the last axis wherever the channels are."""
    value = config.get("activation")
    word = value.get("config") if isinstance(value, Mapping) else value
    return word in ("softmax", "log_softmax")


def rank_behind(name: str, config: Mapping[str, Any], rank: int | None) -> int | None:
    """The rank of a tensor behind a layer that sees the order of the axes; None where it is not known."""
    if name == "Reshape":
        return len(config.get("target_shape", ())) + 1
    if name in ("LSTM", "GRU", "SimpleRNN"):
        return 3 if config.get("return_sequences") else 2
    if name == "RepeatVector":
        return 3
    if name == "Embedding":
        return None if rank is None else rank + 1
    return rank


def turned(shape: Any) -> Any:
    """A declared shape, batch axis included, with channels last."""
    return [shape[0], *shape[2:], shape[1]] if isinstance(shape, list | tuple) and len(shape) > 2 else shape


def turn_shape(config: dict[str, Any]) -> None:
    """Turns the input shape that a layer's settings declare."""
    for key in ("batch_input_shape", "batch_shape"):
        if key in config:
            config[key] = turned(config[key])
    if isinstance(config.get("input_shape"), list):
        config["input_shape"] = turned([None, *config["input_shape"]])[1:]


def declared_shape(entry: Mapping[str, Any]) -> Any:
    """The input shape that a layer declares, batch axis included; None where it does not."""
    config = entry.get("config")
    if not isinstance(config, Mapping):
        return None
    return config.get("batch_input_shape", config.get("batch_shape"))


def permute_layer(name: str, rank: int, to_last: bool, like: Mapping[str, Any]) -> dict[str, Any]:
    """A layer that puts the channels of a map last, or first again."""
    spatial = list(range(2, rank))
    dims = [*spatial, 1] if to_last else [rank - 1, *(i - 1 for i in spatial)]
    made: dict[str, Any] = {"class_name": "Permute", "config": {"name": name, "dims": dims, "trainable": True}}
    if "module" in like:
        made |= {"module": "keras.layers", "registered_name": None}
        made["config"]["dtype"] = "float32"
    return made
