"""Reads the calls of a Keras model's graph, in the words of either Keras. It imports nothing of parity."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = [
    "arguments_of",
    "config_of",
    "flat",
    "graph_of",
    "inputs_of",
    "is_symbol",
    "is_zero_padding",
    "maker_of",
    "mapped",
    "nodes_of",
    "operation_of",
    "parameters_of",
    "same_cells",
    "tuples",
    "value_of",
    "with_arithmetic_of",
    "word_of",
]


def graph_of(model: Any) -> Any:
    """What holds a model's graph: a Sequential of Keras 3 keeps it in a functional model of its own."""
    return getattr(model, "_functional", None) or model


def nodes_of(model: Any) -> list[Any]:
    """The calls of a functional model, in an order in which they can run; none for one that is written in code."""
    depths = getattr(graph_of(model), "_nodes_by_depth", {})
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]


def operation_of(node: Any) -> Any:
    """What a node calls."""
    return node.operation if hasattr(node, "operation") else node.layer


def arguments_of(node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a node calls it with."""
    held = getattr(node, "arguments", None)
    args, kwargs = (node.call_args, node.call_kwargs) if held is None else (held.args, held.kwargs)
    return tuple(args), dict(kwargs)


def inputs_of(node: Any) -> list[Any]:
    """The symbolic tensors among a node's arguments."""
    return [t for t in flat(arguments_of(node)) if is_symbol(t)]


def is_symbol(item: Any) -> bool:
    """Whether it is a symbolic tensor of a graph."""
    return hasattr(item, "_keras_history")


def maker_of(tensor: Any) -> Any:
    """The layer or operation that makes a symbolic tensor."""
    return tensor._keras_history[0]


def word_of(variable: Any) -> str:
    """A variable's own name in its layer."""
    return str(getattr(variable, "path", None) or variable.name).rsplit("/", 1)[-1].split(":")[0]


def value_of(variable: Any) -> np.ndarray:
    """A copy of a variable's value."""
    return np.array(variable.numpy() if hasattr(variable, "numpy") else variable)


def with_arithmetic_of(layer: Any, new: Any) -> Any:
    """The new layer, which computes as the Keras that wrote `layer`'s file did: no configuration says that."""
    for name in ("_USE_V2_BEHAVIOR", "_batches_averaged"):
        if name in vars(layer):
            setattr(new, name, vars(layer)[name])
    if vars(layer).get("_USE_V2_BEHAVIOR") is False:
        new.fused = layer.fused  # which only the newer behaviour works out by itself
    return new


def flat(structure: Any) -> list[Any]:
    """The leaves of nested lists, tuples and dicts."""
    if isinstance(structure, Mapping):
        return [leaf for key in structure for leaf in flat(structure[key])]
    if isinstance(structure, list | tuple):
        return [leaf for part in structure for leaf in flat(part)]
    return [structure]


def mapped(structure: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure with every leaf changed."""
    if isinstance(structure, Mapping):
        return {key: mapped(part, change) for key, part in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*(mapped(part, change) for part in structure))
    if isinstance(structure, list | tuple):
        parts = [mapped(part, change) for part in structure]
        return tuple(parts) if isinstance(structure, tuple) else parts
    return change(structure)


def config_of(item: Any) -> dict[str, Any]:
    """A layer's configuration; empty for a bare operation."""
    return dict(item.get_config()) if hasattr(item, "get_config") else {}


def parameters_of(maker: Any) -> set[str]:
    """The arguments that a class' constructor names."""
    try:
        found = inspect.signature(maker.__init__).parameters
    except (TypeError, ValueError):
        return set()
    return {name for name, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY)}


def tuples(value: Any) -> Any:
    """Lists as tuples, at any depth."""
    return tuple(tuples(v) for v in value) if isinstance(value, list | tuple) else value


def is_zero_padding(item: Any) -> bool:
    """Whether it is a layer that pads with zeros and does nothing else."""
    return type(item).__name__ in ("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")


def same_cells(config: Mapping[str, Any], shape: Sequence[Any], rank: int) -> list[int] | None:
    """What `padding="same"` adds to an input n h w c, before and behind each axis; None if its size is unknown."""
    if len(shape) != rank + 2 or any(n is None for n in shape[1:-1]):
        return None

    def every(name: str, default: Any) -> list[int]:
        value = config.get(name) or default
        return [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)] * rank

    window = every("kernel_size", config.get("pool_size") or 1)
    strides, dilate = every("strides", config.get("pool_size") or 1), every("dilation_rate", 1)
    cells: list[int] = []
    for n, k, s, d in zip(shape[1:-1], window, strides, dilate, strict=True):
        total = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
        cells += [total // 2, total - total // 2]
    return cells
