"""A SavedModel folder of Keras 2, read from its JSON and its checkpoint; no function that it holds is run.

Keras writes its own description beside TensorFlow's graph: since 2.5 in `keras_metadata.pb`, before that among the
objects of `saved_model.pb` (keras 2.15, `protobuf/saved_metadata.proto`;
tensorflow/core/protobuf/saved_object_graph.proto). The model is built from that description, and its weights are looked
up by the way from the model to the variable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.errors import BadFile
from parity.frameworks.keras.checkpoint import Bundle, fields, strings_of
from parity.frameworks.keras.configs import is_model
from parity.frameworks.keras.facts import KerasFile, compiled
from parity.frameworks.keras.stored import Stored
from parity.frameworks.keras.variables import SUBLAYERS, variables_of

__all__ = ["read_savedmodel"]

GRAPH_LIMIT = 1 << 30
"""Bytes that a `saved_model.pb` may have; protocol buffers end at 2 GiB."""

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"


def read_savedmodel(path: Path) -> KerasFile:
    """The facts of a SavedModel's folder.

    Raises:
        BadFile: it is none, was not saved by Keras, or its parts contradict one another.
    """
    if not (path / "saved_model.pb").is_file():
        if (path / "checkpoint").is_file() or any(path.glob("*.index")):
            raise BadFile(path, "holds a TensorFlow checkpoint, which is weights only", "save the weights as .h5")
        raise BadFile(path, "is a folder", "parity reads .h5 and .keras files, and SavedModel folders of Keras 2")
    described = dict(_described(path))
    root = described.get("")
    if root is None or not is_model({"class_name": root.get("class_name"), "config": root.get("config")}):
        what = (
            "is a SavedModel without Keras' own description"
            if root is None
            else "is a SavedModel of a subclassed model"
        )
        raise BadFile(path, f"{what}, whose layers it does not hold", "save it from Keras as .keras or .h5")
    entry = {"class_name": root["class_name"], "config": root["config"]}
    graph = _Graph(Bundle(path / "variables"))
    weights = _weights(graph, entry, described)
    training = root.get("training_config")
    if isinstance(training, Mapping):
        training = {**training, "optimizer": training.get("optimizer_config")}
    return KerasFile(
        path=path,
        format="savedmodel",
        version=str(root.get("keras_version") or "2"),
        backend=str(root.get("backend") or "tensorflow"),
        model_config=entry,
        training_config=compiled(training),
        weights=weights,
        slots=tuple(_slots(graph, training or {}, weights)),
        apart=True,
    )


# Keras' description ---------------------------------------------------------------------------------------------------


def _described(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(the way from the model, e.g. `layer_with_weights-0`; what Keras says) of every object that it described."""
    metadata = path / "keras_metadata.pb"
    if metadata.is_file():
        for number, value in fields(_bytes(metadata)):
            if number == 1 and isinstance(value, bytes):
                parts = {n: v for n, v in fields(value) if isinstance(v, bytes)}
                way = parts.get(3, b"").decode("utf-8", "replace")
                said = _json(parts.get(5, b""))
                if said is not None and (way == "root" or way.startswith("root.")):
                    yield way.removeprefix("root").removeprefix("."), said
        return
    nodes = _objects(_bytes(path / "saved_model.pb"))
    for way, node in _ways(nodes):
        said = _json(node.said)
        if said is not None:
            yield way, said


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > GRAPH_LIMIT:
        raise BadFile(path, f"has more than {GRAPH_LIMIT:,} bytes")
    return path.read_bytes()


def _json(data: bytes) -> dict[str, Any] | None:
    """Keras' JSON, in which tuples and shapes are objects of their own."""
    try:
        found = json.loads(data)
    except ValueError:
        return None
    found = _lists(found)
    return found if isinstance(found, dict) else None


def _lists(item: Any) -> Any:
    if isinstance(item, Mapping):
        if item.get("class_name") in ("__tuple__", "TensorShape") and isinstance(item.get("items"), list):
            return [_lists(part) for part in item["items"]]
        return {key: _lists(part) for key, part in item.items()}
    return [_lists(part) for part in item] if isinstance(item, list) else item


@dataclass
class _Node:
    """One object: its children by name, its checkpoint keys by attribute with their full names, and slots."""

    children: dict[str, int] = field(default_factory=dict)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    slots: list[tuple[int, str, int]] = field(default_factory=list)
    said: bytes = b""


def _objects(data: bytes) -> list[_Node]:
    """The objects of a `saved_model.pb`: meta_graphs (2), object_graph_def (7), nodes (1)."""
    found: list[_Node] = []
    for number, meta in fields(data):
        if number != 2 or not isinstance(meta, bytes):
            continue
        for inner, graph in fields(meta):
            if inner == 7 and isinstance(graph, bytes):
                found.extend(_node(value) for n, value in fields(graph) if n == 1 and isinstance(value, bytes))
        break
    return found


def _node(data: bytes) -> _Node:
    """One SavedObject or TrackableObject: children (1), attributes (2), slot variables (3), user object (4)."""
    made = _Node()
    for number, value in fields(data):
        if not isinstance(value, bytes):
            continue
        parts = list(fields(value))
        first = dict(parts)
        if number == 1:
            made.children[_text(first.get(2))] = _whole(first.get(1))
        elif number == 2:
            made.keys[_text(first.get(1))] = (_text(first.get(2)), _text(first.get(3)))
        elif number == 3:
            made.slots.append((_whole(first.get(1)), _text(first.get(2)), _whole(first.get(3))))
        elif number == 4:
            said = first.get(3)
            made.said = said if isinstance(said, bytes) else b""
    return made


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _ways(nodes: list[_Node]) -> Iterator[tuple[str, _Node]]:
    """The model's objects, breadth first, by the way from it through its layers."""
    waiting, seen = [("", 0)], {0}
    while waiting:
        way, at = waiting.pop(0)
        if not 0 <= at < len(nodes):
            continue
        yield way, nodes[at]
        for name, child in nodes[at].children.items():
            if child not in seen and (name.startswith("layer") or name in SUBLAYERS):
                seen.add(child)
                waiting.append((f"{way}.{name}" if way else name, child))


# Weights and slots ------------------------------------------------------------------------------------------------


class _Graph:
    """The objects of a checkpoint, and the arrays that they stand for."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        if _GRAPH not in bundle.entries:
            raise BadFile(bundle.folder, "its checkpoint does not say which variable is whose", "save it again")
        [data] = strings_of(bundle, _GRAPH)
        self.nodes = [_node(value) for number, value in fields(data) if number == 1 and isinstance(value, bytes)]

    def child(self, node: int, name: str) -> int | None:
        """The number of a node's child."""
        return self.nodes[node].children.get(name) if 0 <= node < len(self.nodes) else None

    def key(self, node: int) -> str:
        """The key of a variable's array; empty where it has none."""
        return self.nodes[node].keys.get(_VALUE, ("", ""))[1] if 0 <= node < len(self.nodes) else ""

    def stored(self, node: int, name: str = "") -> Stored | None:
        """The array of a variable's node, under its own full name or this one."""
        if not 0 <= node < len(self.nodes) or _VALUE not in self.nodes[node].keys:
            return None
        full, key = self.nodes[node].keys[_VALUE]
        entry = self.bundle.entries.get(key)
        return None if entry is None else Stored(name or f"{full}:0", entry.shape, key)

    def variables(self, node: int, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Stored]]:
        """The variables of a layer, and of those inside it, each with the way to it."""
        if not 0 <= node < len(self.nodes):
            return
        for name, child in self.nodes[node].children.items():
            stored = self.stored(child)
            if stored is not None:
                yield (*words, name), stored
            elif name in SUBLAYERS and len(words) < 4:
                yield from self.variables(child, (*words, name))


def _weights(
    graph: _Graph, entry: Mapping[str, Any], described: Mapping[str, dict[str, Any]]
) -> dict[str, tuple[Stored, ...]]:
    """Each leaf's arrays by its path, in the order of the layers."""
    found: dict[str, tuple[Stored, ...]] = {}
    step = r"layer_with_weights-(\d+)"
    ways = [way for way in described if re.fullmatch(rf"{step}(\.{step})*", way)]
    for way in sorted(ways, key=lambda way: [int(n) for n in re.findall(step, way)]):
        steps, said = way.split("."), described[way]
        node, path = 0, []
        for i, name_there in enumerate(steps):
            child = graph.child(node, name_there)
            name = described.get(".".join(steps[: i + 1]), {}).get("name")
            if child is None or not isinstance(name, str):
                break
            node, path = child, [*path, name]
        else:
            if not is_model(said):
                known = variables_of(str(said.get("class_name")), said.get("config") or {})
                order = [*known[0], *known[1]] if known else []
                found["/".join(path)] = _in_order(list(graph.variables(node)), order)
    return found


def _in_order(variables: list[tuple[tuple[str, ...], Stored]], words: list[str]) -> tuple[Stored, ...]:
    """A layer's variables in its own order: by the layer inside it that holds them, then by name."""

    def rank(item: tuple[tuple[str, ...], Stored]) -> tuple[list[int], int]:
        *inside, name = item[0]
        places = [SUBLAYERS.index(word) if word in SUBLAYERS else len(SUBLAYERS) for word in inside]
        return places, words.index(name) if name in words else len(words)

    return tuple(stored for _, stored in sorted(variables, key=rank))


def _slots(graph: _Graph, training: Mapping[str, Any], weights: Mapping[str, tuple[Stored, ...]]) -> Iterator[Stored]:
    """The optimizer's arrays, in the order and under the names that an `.h5` gives them."""
    optimizer = graph.child(0, "optimizer")
    described = training.get("optimizer_config")
    if optimizer is None or not isinstance(described, Mapping):
        return
    name = str(described.get("class_name", "")).split(">")[-1]
    steps = graph.child(optimizer, "iter")
    if steps is not None:  # a legacy optimizer: blocks, one for each slot
        counted = graph.stored(steps, f"{name}/iter:0")
        if counted is not None:
            yield counted
        slots = [(graph.key(variable), slot, node) for variable, slot, node in graph.nodes[optimizer].slots]
        for word in dict.fromkeys(slot for _, slot, _ in slots):
            held = {key: node for key, slot, node in slots if slot == word}
            for weight in (stored for listed in weights.values() for stored in listed):
                full = weight.name.removesuffix(":0")
                stored = graph.stored(held.get(weight.place, -1), f"{name}/{full}/{word}:0")
                if stored is not None:
                    yield stored
        return
    counter = graph.child(optimizer, "_iterations")
    counted = graph.stored(counter, "iteration:0") if counter is not None else None
    if counted is not None:
        yield counted
    listed = graph.child(optimizer, "_variables")
    if listed is None:
        return
    for word, node in sorted(graph.nodes[listed].children.items(), key=lambda item: (len(item[0]), item[0])):
        stored = graph.stored(node)
        if stored is not None and node != counter and word.isdigit():
            yield stored
