"""Lifting a MatConvNet file into the neutral vocabulary: a SimpleNN or DagNN network, or a training checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.errors import BadFile
from parity.frameworks.matconvnet.dagnn import Graph, is_dagnn
from parity.frameworks.matconvnet.matfile import read
from parity.frameworks.matconvnet.recipe import Overrides, der_outputs, lift_recipe
from parity.frameworks.matconvnet.simplenn import Chain
from parity.frameworks.matconvnet.sizes import with_input
from parity.frameworks.matconvnet.values import Unreadable
from parity.layers import DistanceLoss, PDist
from parity.network import Network
from parity.recipe import Recipe

__all__ = ["lift", "lift_data", "lift_with_places", "with_input"]

_DEPTH = 3
"""How many structs deep a network is looked for that is not called `net`: `model.net`, `results.best.net`."""

_SAVE = "in MATLAB: net = net.saveobj() ; save('net.mat', '-struct', 'net')"


def lift(
    path: str | Path,
    input_shape: Sequence[int | None] | Mapping[str, Sequence[int | None]] | None = None,
    *,
    recipe: Overrides | None = None,
) -> tuple[Network, Recipe]:
    """The network and recipe of a MAT file; nothing is run and no framework is loaded.

    Args:
        path: a MAT file with a variable `net`, or with its fields at top level (`layers`, `meta`; a DagNN's `vars` and
            `params` too), or a checkpoint (`net`, `state`, `stats`).
        input_shape: (h, w, c) of the only data input, or input → (h, w, c); None takes what the file says, or leaves
            the extents open.
        recipe: a recipe file (`read_recipe`), which takes precedence over what the MAT file says.

    Raises:
        BadFile: not a MAT file, no network in it, an unknown layer type, or parts that do not fit together.
    """
    return lift_data(read(path), str(path), input_shape, recipe=recipe)


def lift_data(
    data: Mapping[str, Any],
    name: str,
    input_shape: Sequence[int | None] | Mapping[str, Sequence[int | None]] | None = None,
    *,
    recipe: Overrides | None = None,
) -> tuple[Network, Recipe]:
    """The same from the variables of a file (as `matfile.read` gives them); `name` is the file's, for messages."""
    return lift_with_places(data, name, input_shape, recipe=recipe)[:2]


def lift_with_places(
    data: Mapping[str, Any],
    name: str,
    input_shape: Sequence[int | None] | Mapping[str, Sequence[int | None]] | None = None,
    *,
    recipe: Overrides | None = None,
) -> tuple[Network, Recipe, Mapping[str, tuple[int, ...]]]:
    """The same, with param id → where the file keeps it: (layer, cell) of a SimpleNN, (param,) of a DagNN, from 0."""
    net = _find(data, name)
    if is_dagnn(net):
        meta = net.get("meta")
        objectives = der_outputs(meta if isinstance(meta, Mapping) else {}, recipe, name)
        built, trainer = Graph(net, name, objectives), "cnn_train_dag"
    else:
        if recipe and "derOutputs" in recipe.options:
            raise BadFile(recipe.path, "der_outputs is given, but a SimpleNN has one loss only", "leave it out")
        built, trainer = Chain(net, name), "cnn_train"
    network = built.network
    try:
        lifted = lift_recipe(network, built.places, data, recipe, trainer=trainer)
    except ValueError as error:
        raise BadFile(name, str(error)) from None
    network = _of_version(network, lifted.version)
    declared = {tensor: network.inputs[tensor] for tensor in network.data(network.inputs)}
    if input_shape is not None:
        network = replace(network, remarks=tuple(r for r in network.remarks if "size of its input" not in r))
    return with_input(network, declared if input_shape is None else input_shape, path=name), lifted, built.places


def _of_version(network: Network, version: str) -> Network:
    """The network as a release trains it: up to beta25 a distance too is divided by the batch (cnn_train.m:455)."""
    if version != "beta25":
        return network
    layers = (
        replace(layer, kind=replace(layer.kind, reduction="mean"))
        if isinstance(layer.kind, DistanceLoss) or (isinstance(layer.kind, PDist) and layer.kind.aggregate)
        else layer
        for layer in network.layers
    )
    return replace(network, layers=tuple(layers))


def _inside(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The only network among the variables, else the only one among their fields and cells, and so on."""
    within: list[Any] = [data]
    for _ in range(_DEPTH):
        within = [
            part
            for value in within
            for part in (value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ())
        ]
        found = [value for value in within if isinstance(value, Mapping) and _holds_layers(value)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _holds_layers(value: Mapping[str, Any]) -> bool:
    """Whether a struct has layers, each with a type: a struct of other things may have a field of that name."""
    layers = value.get("layers")
    items = [layers] if isinstance(layers, Mapping) else layers
    return isinstance(items, list) and all(isinstance(item, Mapping) and "type" in item for item in items)


def _find(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The struct that holds the network."""
    net, called = data.get("net"), "net"
    if isinstance(net, Mapping) and "layers" not in net:
        net = _inside(net) or net
    if net is None:
        net = data if "layers" in data else _inside(data)
    if net is None:
        objects = {key: v for key, v in data.items() if isinstance(v, Unreadable) and v.what == "an object"}
        called, net = next(iter(objects.items()), (called, net))
    if isinstance(net, Unreadable):
        raise BadFile(name, f"its `{called}` is {net}, which only MATLAB can read, not a struct", _SAVE)
    if not isinstance(net, Mapping) or "layers" not in net:
        names = ", ".join(sorted(data)[:6]) or "nothing"
        hint = "give an imdb as --batch" if "images" in data else "give a file with `net`, or with `layers` and `meta`"
        raise BadFile(name, f"holds no network (it has {names})", hint)
    return net
