"""Walks a model's configuration and lists the calls that it makes, submodels flattened. Builds nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.errors import BadFile
from parity.network import Shape

__all__ = ["Call", "Walk", "is_model", "layers_of", "name_of", "walk", "with_names"]

CALL_LIMIT = 100_000
"""Calls that a model may make; shared submodels inside one another would otherwise unfold without end."""

OUTPUT_LIMIT = 1000
"""Tensors that one call may make."""

_MODELS = ("Sequential", "Functional", "Model")


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a leaf layer or operation.

    Attributes:
        name: the node's name: the layer's path, `@2` for its second call.
        path: the layer's path.
        entry: class_name, config, module, ... as the file has them.
        inputs: names of the tensors that it reads.
        shapes: their shapes where the file says them, else None each.
        arguments: its other arguments, as the file has them (operations of Keras 3, `TFOpLambda` of Keras 2).
        settings: its arguments by name.
        place: where its weights lie in a `.keras` archive: `layers/conv2d`, with the containers before it.
    """

    name: str
    path: str
    entry: Mapping[str, Any]
    inputs: tuple[str, ...]
    shapes: tuple[Shape | None, ...] = ()
    arguments: tuple[Any, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""


@dataclass(eq=False)
class Walk:
    """What a configuration says: its inputs by name, its calls in order, its outputs.

    `ranks` gives each leaf's place among the layers as the file lists them, which is the order of their weights.
    """

    path: Path
    inputs: dict[str, Shape] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    arity: dict[str, int] = field(default_factory=dict)

    def fail(self, problem: str) -> BadFile:
        """The error for a configuration that Keras does not write."""
        return BadFile(self.path, f"its model configuration {problem}", "the file is damaged, or not written by Keras")


def is_model(entry: Mapping[str, Any]) -> bool:
    """Whether a layer's entry is a submodel whose layers the configuration holds."""
    config = entry.get("config")
    if entry.get("class_name") not in _MODELS:
        return False
    return isinstance(config, list) or (isinstance(config, Mapping) and isinstance(config.get("layers"), list))


def layers_of(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of a model's layers; Keras 1 and 2.1 write a Sequential as a bare list."""
    config = entry["config"]
    return list(config if isinstance(config, list) else config["layers"])


def name_of(entry: Mapping[str, Any]) -> str:
    """A layer's own name."""
    config = entry.get("config")
    inner = config.get("name") if isinstance(config, Mapping) else None
    return str(entry.get("name") or inner or entry.get("class_name") or "layer")


def with_names(entry: Mapping[str, Any], stored: Sequence[str]) -> Mapping[str, Any]:
    """A model's entry in which every submodel has a name.

    Keras 1 and 2.1 write a Sequential as a bare list, without the name that it has as a layer. HDF5 keeps the outermost
    layers' names beside the weights; deeper ones are numbered within their container.

    Args:
        entry: class_name and config.
        stored: names of the outermost layers, in order; used where they are as many as the layers.
    """
    layers = layers_of(entry)
    known = list(stored) if len(stored) == len(layers) else [""] * len(layers)
    named: list[Any] = []
    unnamed = 0
    for layer, name in zip(layers, known, strict=True):
        if isinstance(layer, Mapping) and is_model(layer):
            if isinstance(layer["config"], list) and not layer.get("name"):
                layer = {**layer, "name": name or ("sequential" if not unnamed else f"sequential_{unnamed}")}
                unnamed += 1
            layer = with_names(layer, ())
        named.append(layer)
    config = entry["config"]
    return {**entry, "config": named if isinstance(config, list) else {**config, "layers": named}}


def walk(path: Path, entry: Mapping[str, Any], stored: Sequence[str] = ()) -> Walk:
    """The calls of a model.

    Args:
        path: its file, for messages.
        entry: its class_name and config.
        stored: names of its outermost layers beside the weights (see `with_names`).

    Raises:
        BadFile: the configuration contradicts itself.
    """
    found = Walk(path)
    if not is_model(entry):
        # A subclassed model: the file holds its constructor's arguments, and no graph.
        return found
    entry = with_names(entry, stored)
    places: dict[int, str] = {}
    for i, (layer, place, leaf) in enumerate(_places(entry, "", "")):
        places[id(layer)] = place
        found.ranks.setdefault(leaf, i)
    found.outputs = _model(found, entry, "", None, places)
    return found


def _places(entry: Mapping[str, Any], prefix: str, path: str) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """Each leaf, where its weights lie in a `.keras` archive, and its path.

    A place is made of snake-cased classes, numbered within their container.

    Source: keras/src/saving/saving_lib.py, `_save_container_state`.
    """
    counts: dict[str, int] = {}
    for layer in layers_of(entry):
        word = _snake(str(layer.get("class_name", "")))
        again = counts[word] = counts.get(word, -1) + 1
        place = f"{prefix}layers/{word}" + (f"_{again}" if again else "")
        if is_model(layer):
            yield from _places(layer, f"{place}/", f"{path}{name_of(layer)}/")
        else:
            yield layer, place, f"{path}{name_of(layer)}"


def _snake(name: str) -> str:
    """Keras' own snake case: Conv2D → conv2d, LeakyReLU → leaky_re_lu (keras/src/utils/naming.py, `to_snake_case`)."""
    import re

    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _model(
    found: Walk, entry: Mapping[str, Any], prefix: str, feeds: Sequence[str] | None, places: Mapping[int, str]
) -> list[str]:
    """Adds a model's calls; `feeds` are the tensors that a submodel is called on, None for the model itself."""
    config = entry["config"]
    if entry.get("class_name") == "Sequential" or not isinstance(config, Mapping) or "input_layers" not in config:
        return _sequential(found, entry, prefix, feeds, places)
    return _functional(found, entry, prefix, feeds, places)


def _sequential(
    found: Walk, entry: Mapping[str, Any], prefix: str, feeds: Sequence[str] | None, places: Mapping[int, str]
) -> list[str]:
    layers = layers_of(entry)
    if not layers:
        raise found.fail("has a Sequential without layers")
    tensors = list(feeds) if feeds is not None else []
    for layer in layers:
        _check(found, layer)
        shape = _declared_shape(layer)
        if layer["class_name"] == "InputLayer":
            if not tensors:
                name = name_of(layer)
                found.inputs[name] = shape or ()
                tensors = [name]
            continue
        if not tensors:
            # Without an InputLayer the first layer declares the input; Keras names it after that layer.
            name = f"{name_of(layer)}_input"
            inner = layer
            while shape is None and is_model(inner):
                inner = layers_of(inner)[0]
                shape = _declared_shape(inner)
            found.inputs[name] = shape or ()
            tensors = [name]
        tensors = _call(found, layer, prefix, tensors, places)
    return tensors


def _declared_shape(entry: Mapping[str, Any]) -> Shape | None:
    """The input shape that a layer declares, without its batch axis."""
    config = entry.get("config")
    if not isinstance(config, Mapping):
        return None
    raw = config.get("batch_input_shape", config.get("batch_shape"))
    if isinstance(raw, Sequence) and not isinstance(raw, str):
        return tuple(None if n is None else int(n) for n in raw[1:])
    return None


def _check(found: Walk, layer: Any) -> None:
    if not isinstance(layer, Mapping) or not isinstance(layer.get("class_name"), str) or "config" not in layer:
        raise found.fail("has a layer without a class or a configuration")


def _call(
    found: Walk,
    entry: Mapping[str, Any],
    prefix: str,
    inputs: Sequence[str],
    places: Mapping[int, str],
    shapes: Sequence[Shape | None] = (),
    arguments: Sequence[Any] = (),
    settings: Mapping[str, Any] | None = None,
) -> list[str]:
    """Adds one call of a layer (or all of a submodel's) and names what it makes; a leaf's first output only."""
    path = f"{prefix}{name_of(entry)}"
    if is_model(entry):
        return _model(found, entry, f"{path}/", inputs, places)
    if len(found.calls) >= CALL_LIMIT:
        raise found.fail(f"makes more than {CALL_LIMIT:,} calls")
    again = found.counts[path] = found.counts.get(path, 0) + 1
    name = path if again == 1 else f"{path}@{again}"
    known = tuple(shapes) or (None,) * len(inputs)
    call = Call(
        name, path, entry, tuple(inputs), known, tuple(arguments), dict(settings or {}), places.get(id(entry), "")
    )
    found.calls.append(call)
    return [name]


@dataclass(eq=False)
class _Inbound:
    """One node of a functional model: the tensors that it reads as (layer, node, tensor), and its other arguments."""

    sources: list[tuple[str, int, int]]
    shapes: list[Shape | None]
    arguments: tuple[Any, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def _functional(
    found: Walk, entry: Mapping[str, Any], prefix: str, feeds: Sequence[str] | None, places: Mapping[int, str]
) -> list[str]:
    config = entry["config"]
    layers: dict[str, Mapping[str, Any]] = {}
    for layer in layers_of(entry):
        _check(found, layer)
        layers[name_of(layer)] = layer
    nodes = {
        name: [_inbound(found, node) for node in layer.get("inbound_nodes") or []] for name, layer in layers.items()
    }
    made: dict[tuple[str, int], list[str]] = {}
    starts = _references(config["input_layers"])
    for i, (name, node, _) in enumerate(starts):
        if name not in layers:
            raise found.fail(f"names an input {name} that it does not have")
        if feeds is None:
            found.inputs[name] = _declared_shape(layers[name]) or ()
            made[name, node] = [name]
        elif i < len(feeds):
            made[name, node] = [feeds[i]]
        else:
            raise found.fail(f"calls a submodel on {len(feeds)} tensors, which takes {len(starts)}")
    ends = _references(config["output_layers"])
    offsets = _offsets(layers, nodes, ends)
    waiting = [(name, i) for name in layers for i in range(len(nodes[name]))]
    while waiting:
        left: list[tuple[str, int]] = []
        for name, i in waiting:
            node = nodes[name][i]
            if not all((source, n) in made for source, n, _ in node.sources):
                left.append((name, i))
                continue
            inputs = [_pick(found, made[source, n], t) for source, n, t in node.sources]
            outputs = _call(found, layers[name], prefix, inputs, places, node.shapes, node.arguments, node.settings)
            made[name, i + offsets[name]] = outputs
        if len(left) == len(waiting):
            raise found.fail(f"has a layer {left[0][0]} whose inputs nothing makes")
        waiting = left
    outputs: list[str] = []
    for name, node, t in ends:
        if (name, node) not in made:
            raise found.fail(f"names an output {name} that it does not have")
        outputs.append(_pick(found, made[name, node], t))
    return outputs


def _pick(found: Walk, tensors: Sequence[str], index: int) -> str:
    """The i-th output of a call: a submodel names all of its own; a leaf's further ones are `name:1`, `name:2`."""
    if len(tensors) > 1:
        if index >= len(tensors):
            raise found.fail("reads an output that a submodel does not have")
        return tensors[index]
    name = tensors[0]
    if not 0 <= index < OUTPUT_LIMIT:
        raise found.fail(f"reads output {index} of {name}")
    found.arity[name] = max(found.arity.get(name, 1), index + 1)
    return f"{name}:{index}" if index else name


def _offsets(
    layers: Mapping[str, Any], nodes: Mapping[str, list[_Inbound]], ends: Sequence[tuple[str, int, int]]
) -> dict[str, int]:
    """By how much a layer's nodes are counted too high: Keras 2 counts a submodel's own making as its first node."""
    highest = dict.fromkeys(layers, -1)
    reads = [source for listed in nodes.values() for node in listed for source in node.sources]
    for name, node, _ in [*reads, *ends]:
        if name in highest:
            highest[name] = max(highest[name], node)
    return {name: max(0, highest[name] - len(nodes[name]) + 1) if nodes[name] else 0 for name in layers}


def _references(raw: Any) -> list[tuple[str, int, int]]:
    """`input_layers` and `output_layers`: a list of [name, node, tensor], a single one, or (Keras 3) a dict of them."""
    if isinstance(raw, Mapping):  # Keras goes through dicts in the order of their keys
        return [reference for _, part in sorted(raw.items()) for reference in _references(part)]
    if isinstance(raw, Sequence) and raw and isinstance(raw[0], str):
        return [(raw[0], int(raw[1]), int(raw[2]))]
    return [reference for part in raw for reference in _references(part)]


def _inbound(found: Walk, node: Any) -> _Inbound:
    """One inbound node: Keras 3's {args, kwargs}, or Keras 1 and 2's list of [name, node, tensor, kwargs]."""
    inbound = _Inbound([], [])
    if isinstance(node, Mapping):
        inbound.arguments = tuple(_replace(part, inbound) for part in node.get("args") or ())
        inbound.settings = {key: _replace(part, inbound) for key, part in (node.get("kwargs") or {}).items()}
        return inbound
    if isinstance(node, Sequence) and node and isinstance(node[0], str):
        node = [node]
    if not isinstance(node, Sequence):
        raise found.fail("has a node that is neither a list nor a mapping")
    for item in node:
        if isinstance(item, Mapping):  # Keras 2 with named inputs
            item = next(iter(item.values()))
        inbound.sources.append((str(item[0]), int(item[1]), int(item[2])))
        inbound.shapes.append(None)
        for key, part in (item[3] if len(item) > 3 and isinstance(item[3], Mapping) else {}).items():
            # A further tensor among the arguments is written as [name, node, tensor].
            if isinstance(part, list) and len(part) == 3 and isinstance(part[0], str) and isinstance(part[1], int):
                inbound.sources.append((part[0], part[1], int(part[2])))
                inbound.shapes.append(None)
            else:
                inbound.settings[key] = part
    return inbound


def _replace(item: Any, inbound: _Inbound) -> Any:
    """An argument with its tensors taken out (None in their place) and slices made Python's."""
    if isinstance(item, Mapping):
        name, config = item.get("class_name"), item.get("config")
        if name == "__keras_tensor__" and isinstance(config, Mapping):
            layer, node, tensor = config["keras_history"]
            inbound.sources.append((str(layer), int(node), int(tensor)))
            shape = config.get("shape")
            inbound.shapes.append(tuple(shape[1:]) if isinstance(shape, Sequence) else None)
            return None
        if name == "__slice__" and isinstance(config, Mapping):
            return slice(config.get("start"), config.get("stop"), config.get("step"))
        if name == "__ellipsis__":
            return Ellipsis
        return {key: _replace(part, inbound) for key, part in item.items()}
    if isinstance(item, list):
        return [_replace(part, inbound) for part in item]
    return item
