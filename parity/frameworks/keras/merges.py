"""The `Merge` layer of Keras 1 and 2.0–2.2 as the layers that it became (keras 2.1.6, `legacy/layers.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["Branches", "first_merges", "is_model", "merge"]

_MERGES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum"}


def is_model(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is a submodel's, by its class alone."""
    return entry.get("class_name") in ("Sequential", "Model", "Functional")


def merge(entry: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A `Merge` layer by its mode; one that no later layer says (a function, which is code, or `cos`) stays."""
    mode = config.get("mode", "sum")
    if config.get("mode_type", "raw") != "raw" or not isinstance(mode, str):
        return dict(entry)
    made: dict[str, Any] = {key: config[key] for key in ("name", "trainable") if key in config}
    if mode == "concat":
        return {**entry, "class_name": "Concatenate", "config": {**made, "axis": config.get("concat_axis", -1)}}
    if mode == "dot":
        return {**entry, "class_name": "Dot", "config": {**made, "axes": config.get("dot_axes", -1)}}
    if mode == "cos":
        return dict(entry)
    if mode not in _MERGES:
        raise ValueError(f"has a Merge of the unknown mode {mode!r}")
    return {**entry, "class_name": _MERGES[mode], "config": made}


_Tip = tuple[str, int]
"""The end of a branch so far: a layer's name, and which of its calls."""


def first_merges(layers: Sequence[Any]) -> bool:
    """Whether a chain of layers begins by merging others, which it holds itself."""
    first = layers[0] if layers else None
    config = first.get("config") if isinstance(first, Mapping) else None
    if not isinstance(first, Mapping) or not isinstance(config, Mapping):
        return False
    return first.get("class_name") == "Merge" and isinstance(config.get("layers"), list)


class Branches:
    """`Sequential([Merge([a, b]), ...])` as the graph that it is, with the branches' layers in it.

    The file lists the branches' layers as if they were the model's own (keras 1.2.2, `models.py`, `flattened_layers`).

    Args:
        make: puts a layer's or submodel's entry into today's words.
    """

    def __init__(self, make: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self.make = make
        self.layers: dict[str, dict[str, Any]] = {}
        self.inputs: list[_Tip] = []

    def run(self, entry: Mapping[str, Any], layers: Sequence[Any]) -> dict[str, Any]:
        """The functional model of a Sequential's layers."""
        name, call = self._chain(layers)
        config = {
            "name": str(entry.get("name") or "sequential"),
            "layers": list(self.layers.values()),
            "input_layers": [[source, 0, 0] for source, _ in self.inputs],
            "output_layers": [[name, call, 0]],
        }
        return {**entry, "class_name": "Functional", "config": config}

    def _chain(self, layers: Sequence[Any]) -> _Tip:
        tip: _Tip | None = None
        for i, layer in enumerate(layers):
            if not isinstance(layer, Mapping):
                raise ValueError("has a layer without a class or a configuration")
            if i == 0 and first_merges([layer]):
                tips = [self._branch(part) for part in layer["config"]["layers"] if isinstance(part, Mapping)]
                tip = self._add(self.make(layer), tips)
                continue
            made = self.make(layer)
            starts = made["class_name"] == "InputLayer"
            if tip is None and not starts:
                tip = self._add(_input_for(made), [])
                self.inputs.append(tip)
            tip = self._add(made, [tip] if tip else [])
            if starts:
                self.inputs.append(tip)
        if tip is None:
            raise ValueError("merges a branch without layers")
        return tip

    def _branch(self, entry: Mapping[str, Any]) -> _Tip:
        if not is_model(entry):
            return self._chain([entry])
        config = entry.get("config")
        layers = config if isinstance(config, list) else config.get("layers") if isinstance(config, Mapping) else None
        if entry.get("class_name") != "Sequential" or not isinstance(layers, list):
            raise ValueError("merges functional models in a Sequential")
        return self._chain(layers)

    def _add(self, layer: Mapping[str, Any], sources: Sequence[_Tip]) -> _Tip:
        config = layer.get("config")
        name = str(layer.get("name") or (config.get("name") if isinstance(config, Mapping) else "") or "")
        if not name:
            raise ValueError("merges a layer without a name")
        held = self.layers.setdefault(name, {**layer, "name": name, "inbound_nodes": []})
        nodes: list[Any] = held["inbound_nodes"]
        if sources:
            nodes.append([[source, call, 0, {}] for source, call in sources])  # a layer in two branches is called twice
        return name, max(len(nodes) - 1, 0)


def _input_for(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The InputLayer that Keras makes in front of a branch's first layer."""
    config = entry.get("config")
    config = config if isinstance(config, Mapping) else {}
    shape = config.get("batch_input_shape")
    if not isinstance(shape, list):
        raise ValueError("merges a branch that does not say the shape of its input")
    kind = "int32" if entry.get("class_name") == "Embedding" else "float32"
    name = f"{config['name']}_input"
    return {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "dtype": kind, "name": name}}
