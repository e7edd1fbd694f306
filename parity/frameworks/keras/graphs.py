"""The edges of a functional model's configuration, read and rewritten in the words of either Keras."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from parity.frameworks.keras.configs import layers_of, name_of

__all__ = ["Edges", "Reference"]

Reference = tuple[str, int, int]
"""A tensor: the layer that makes it, in which of its calls, and which of its outputs."""


class Edges:
    """The calls of a functional model.

    Args:
        entry: its class_name and config.

    Attributes:
        layers: name → entry, in the file's order.
        inputs, outputs: the model's own tensors.

    Raises:
        ValueError: a layer's inputs are made by none.
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        config = entry["config"]
        self.layers: dict[str, Mapping[str, Any]] = {name_of(layer): layer for layer in layers_of(entry)}
        self.inputs, self.outputs = references(config["input_layers"]), references(config["output_layers"])
        self._nodes = {name: list(layer.get("inbound_nodes") or []) for name, layer in self.layers.items()}
        self._reads: dict[tuple[str, int], list[Reference]] = {}
        for name, nodes in self._nodes.items():
            for i, node in enumerate(nodes):
                found: list[Reference] = []
                _visit(node, lambda reference, found=found: found.append(reference))
                self._reads[name, i] = found
        everything = [*self.outputs, *(r for found in self._reads.values() for r in found)]
        highest = dict.fromkeys(self.layers, -1)
        self._arity = dict.fromkeys(self.layers, 1)
        for name, node, index in everything:
            if name not in self.layers:
                raise ValueError(f"reads a layer {name} that it does not have")
            highest[name] = max(highest[name], node)
            self._arity[name] = max(self._arity[name], index + 1)
        # Keras 2 counts a submodel's own making as its first node.
        self._offset = {
            name: max(0, highest[name] - len(nodes) + 1) if nodes else 0 for name, nodes in self._nodes.items()
        }
        self._modern = any(isinstance(node, Mapping) for nodes in self._nodes.values() for node in nodes)

    def order(self) -> Iterator[tuple[str, int | None]]:
        """(layer, which call), each after what it reads; None in place of the call for an input."""
        made: set[tuple[str, int]] = set()
        for name, node, _ in self.inputs:
            made.add((name, node))
            yield name, None
        waiting = list(self._reads)
        while waiting:
            left: list[tuple[str, int]] = []
            for name, i in waiting:
                if all((source, node) in made for source, node, _ in self._reads[name, i]):
                    made.add((name, self.number(name, i)))
                    yield name, i
                else:
                    left.append((name, i))
            if len(left) == len(waiting):
                raise ValueError(f"has a layer {left[0][0]} whose inputs nothing makes")
            waiting = left

    def number(self, name: str, node: int) -> int:
        """The number by which others refer to a layer's call."""
        return node + self._offset[name]

    def plain(self, reference: Reference) -> Reference:
        """A reference with calls counted from 0, as Keras 3 does."""
        name, node, index = reference
        return name, node - self._offset[name], index

    def sources(self, name: str, node: int) -> list[Reference]:
        """What a call reads, in order."""
        return list(self._reads[name, node])

    def arity(self, name: str) -> int:
        """How many of a layer's outputs are read."""
        return self._arity[name]

    def leads_to(self, name: str, wanted: Callable[[Mapping[str, Any]], bool | None]) -> bool:
        """Whether `wanted` holds for a layer that a tensor reaches; it says None for those that pass it on."""
        seen, waiting = {name}, [name]
        while waiting:
            here = waiting.pop()
            for (reader, _), sources in self._reads.items():
                if reader in seen or all(source != here for source, _, _ in sources):
                    continue
                seen.add(reader)
                answer = wanted(self.layers[reader])
                if answer:
                    return True
                if answer is None:
                    waiting.append(reader)
        return False

    def replace(
        self, entry: dict[str, Any], name: str, node: int, references: Sequence[Reference], turned: Sequence[bool] = ()
    ) -> None:
        """Writes what a call reads into a copy of its layer's entry; `turned` says whose channels are last now."""
        nodes = list(entry.get("inbound_nodes") or [])
        taken = iter(zip(references, turned or (False,) * len(references), strict=True))
        nodes[node] = _visit(copy.deepcopy(self._nodes[name][node]), lambda _: next(taken))
        entry["inbound_nodes"] = nodes

    def node_of(self, references: Sequence[Reference], rank: int) -> Any:
        """A call of a layer on these tensors, which have `rank` axes."""
        if not self._modern:
            return [[*reference, {}] for reference in references]
        known = {"shape": [None] * rank, "dtype": "float32"}
        tensors = [
            {"class_name": "__keras_tensor__", "config": {**known, "keras_history": list(r)}} for r in references
        ]
        return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": {}}


def references(raw: Any) -> list[Reference]:
    """`input_layers` and `output_layers`: a list of [name, node, tensor], a single one, or (Keras 3) a dict of them."""
    if isinstance(raw, Mapping):
        return [reference for _, part in sorted(raw.items()) for reference in references(part)]
    if isinstance(raw, Sequence) and raw and isinstance(raw[0], str):
        return [(raw[0], int(raw[1]), int(raw[2]))]
    return [reference for part in raw for reference in references(part)]


_Change = Callable[[Reference], tuple[Reference, bool] | None]
"""What takes a tensor's place, and whether its channels were first before; None leaves it."""


def _visit(node: Any, change: _Change) -> Any:
    """Goes through the tensors that a node reads, in order; what `change` gives takes their places."""
    if isinstance(node, Mapping):
        return {key: _modern(part, change) for key, part in node.items()}
    if not isinstance(node, Sequence) or isinstance(node, str):
        raise ValueError("has a node that is neither a list nor a mapping")
    if node and isinstance(node[0], str):
        return _legacy(list(node), change)
    return [_legacy(list(item), change) if not isinstance(item, Mapping) else _named(item, change) for item in node]


def _named(item: Mapping[str, Any], change: _Change) -> dict[str, Any]:
    return {key: _legacy(list(part), change) for key, part in item.items()}


def _legacy(item: list[Any], change: _Change) -> list[Any]:
    """Keras 1 and 2: [name, node, tensor, kwargs], further tensors among the kwargs as [name, node, tensor]."""
    new = change((str(item[0]), int(item[1]), int(item[2])))
    made = [*(new[0] if new else item[:3])]
    if len(item) > 3:
        settings = item[3]
        if isinstance(settings, Mapping):
            settings = {k: _further(part, change) for k, part in settings.items()}
        made.append(settings)
    return made


def _further(part: Any, change: _Change) -> Any:
    if isinstance(part, list) and len(part) == 3 and isinstance(part[0], str) and isinstance(part[1], int):
        new = change((part[0], part[1], int(part[2])))
        return [*new[0]] if new else part
    return part


def _modern(item: Any, change: _Change) -> Any:
    """Keras 3: tensors as `__keras_tensor__` anywhere among args and kwargs."""
    if isinstance(item, Mapping):
        config = item.get("config")
        if item.get("class_name") == "__keras_tensor__" and isinstance(config, Mapping):
            layer, node, tensor = config["keras_history"]
            new = change((str(layer), int(node), int(tensor)))
            if new is None:
                return item
            made = {**config, "keras_history": list(new[0])}
            shape = config.get("shape")
            if new[1] and isinstance(shape, list) and len(shape) > 2:
                made["shape"] = [shape[0], *shape[2:], shape[1]]
            return {**item, "config": made}
        return {key: _modern(part, change) for key, part in item.items()}
    if isinstance(item, list):
        return [_modern(part, change) for part in item]
    return item
