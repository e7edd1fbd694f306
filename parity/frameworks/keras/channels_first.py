"""A model that keeps its channels first, as the same model with channels last.

tensorflow lacks gradients of such layers on a CPU, and everything else in parity speaks n h w c. A kernel's layout does
not depend on where the channels of the map are, so the model is rebuilt from its configuration with
`data_format="channels_last"`; what depends on the order of the axes is changed with it:

- an axis argument (batch normalisation, concatenation, softmax) names the same axis;
- a Dense behind a Flatten has the rows of its kernel in the order in which the map is now flattened (a Flatten that
  was itself told `channels_first` already flattens channels last: keras/src/layers/reshaping/flatten.py);
- in front of a layer that would see the order (Reshape, Permute, a class of the user's) a Permute puts the map back.

The values are the model's own. Inputs and maps appear as n h w c; predictions that are not maps are unchanged.
"""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.frameworks.keras.configs import is_model, layers_of, name_of
from parity.frameworks.keras.graphs import Edges
from parity.frameworks.keras.stored import Stored, relaid
from parity.frameworks.keras.turning import (
    declared_shape,
    ends_with_softmax,
    in_order,
    permute_layer,
    rank_behind,
    row_order,
    turn_shape,
)

__all__ = ["Rewritten", "keeps_channels_first", "rewritten"]

_MAPS = frozenset(
    """
    Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose DepthwiseConv1D DepthwiseConv2D SeparableConv1D
    SeparableConv2D MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D
    Cropping3D SpatialDropout2D SpatialDropout3D
    """.split()
)
"""Layers with a `data_format` that compute the same in either."""

_ELEMENTWISE = frozenset(
    """
    Activation ReLU LeakyReLU ELU ThresholdedReLU Dropout GaussianNoise GaussianDropout AlphaDropout Identity
    ActivityRegularization Add Subtract Multiply Average Maximum Minimum
    """.split()
)
"""Layers to which every axis is as good as another."""

_FIRST, _SAME, _FLAT = "first", "same", "flat"


def keeps_channels_first(item: Any) -> bool:
    """Whether any layer of a configuration keeps its channels first."""
    if isinstance(item, Mapping):
        return item.get("data_format") == "channels_first" or any(keeps_channels_first(part) for part in item.values())
    return isinstance(item, list) and any(keeps_channels_first(part) for part in item)


@dataclass(frozen=True)
class _Tensor:
    """How a tensor of the model now lies: `flat` is a map flattened h, w, c by `flatten` where it was c, h, w."""

    layout: str
    rank: int | None
    flatten: str = ""


@dataclass(eq=False)
class Rewritten:
    """What became of a configuration.

    Attributes:
        entry: class_name and config, with channels last.
        inputs: names of the model's inputs that were turned.
        changes: leaf's path → what is done to each of its arrays, in order (None for nothing; one for all of them).
    """

    entry: dict[str, Any]
    inputs: tuple[str, ...] = ()
    changes: dict[str, Callable[[Stored], Stored]] = field(default_factory=dict)


Shapes = Callable[[Mapping[str, Any]], Mapping[str, Sequence[tuple[int | None, ...] | None]]]
"""From a model's entry to the input shapes of each call by name."""


def rewritten(entry: Mapping[str, Any], shapes: Shapes) -> Rewritten:
    """The model with channels last.

    Args:
        entry: its class_name and config, in the words of Keras 2 or 3.
        shapes: works out the input shapes of a model's calls.

    Raises:
        ValueError: the configuration contradicts itself.
    """
    restored: set[str] = set()
    while True:
        work = _Work(restored)
        made, _ = work.model(entry, "", None)
        again = work.restored - restored
        if not again:
            found = shapes(made) if work.rows else {}
            unknown = {flatten for _, flatten, _ in work.rows if row_order(found.get(flatten)) is None}
            if not unknown:
                changes = dict(work.changes)
                for path, flatten, each in work.rows:
                    order = row_order(found[flatten])
                    assert order is not None
                    changes[path] = in_order(order, each)
                return Rewritten(made, tuple(work.inputs), changes)
            again = unknown
        restored |= again


class _Work:
    """One pass over a model; `restored` are the paths of Flatten layers in front of which the map is put back."""

    def __init__(self, restored: set[str]) -> None:
        self.restored = set(restored)
        self.inputs: list[str] = []
        self.changes: dict[str, Callable[[Stored], Stored]] = {}
        self.rows: list[tuple[str, str, bool]] = []
        self._dense: dict[str, str] = {}

    def model(self, entry: Mapping[str, Any], prefix: str, layouts: list[str] | None) -> tuple[dict[str, Any], Any]:
        """A model's entry and its outputs; `layouts` takes the layouts of a submodel's inputs, None at the top."""
        config = entry["config"]
        functional = isinstance(config, Mapping) and "input_layers" in config
        found = _functional(self, entry, prefix, layouts) if functional else _sequential(self, entry, prefix, layouts)
        made, outputs = found
        made.pop("build_config", None)
        if isinstance(made["config"], dict):
            made["config"].pop("build_input_shape", None)
        self.restored |= {t.flatten for t in outputs if t.layout == _FLAT}
        return made, outputs

    def layer(
        self, entry: Mapping[str, Any], path: str, inputs: Sequence[_Tensor]
    ) -> tuple[dict[str, Any], list[str], str, int | None]:
        """A leaf: its new entry, the layouts that it takes its inputs in, and its output's layout and rank."""
        name = str(entry.get("class_name", ""))
        config = dict(entry["config"]) if isinstance(entry["config"], Mapping) else {}
        made = {**entry, "config": config}
        made.pop("build_config", None)
        layouts = {t.layout for t in inputs}
        rank = inputs[0].rank if inputs else None
        wanted, output = [_SAME] * len(inputs), _SAME
        if name in _MAPS and config.get("data_format") == "channels_first" and not ends_with_softmax(config):
            wanted = [_FIRST] * len(inputs)
            config["data_format"] = "channels_last"
            flat = name.startswith("Global") and not config.get("keepdims")
            output, rank = (_SAME, 2) if flat else (_FIRST, rank)
        elif layouts == {_FLAT} and self._of_flat(name, config, path, inputs):
            wanted, output = [_FLAT] * len(inputs), _SAME if name == "Dense" else _FLAT
        elif _FIRST in layouts and layouts <= {_FIRST} and self._of_maps(name, config, path, rank):
            wanted = [_FIRST] * len(inputs)
            output, rank = self._behind_maps(name, config, entry, path, rank)
        elif name == "Flatten":
            config["data_format"] = config.get("data_format") or "channels_last"
            rank = 2
        else:
            rank = rank_behind(name, config, rank)
        for tensor, want in zip(inputs, wanted, strict=True):
            if tensor.layout == _FLAT and want != _FLAT:
                self.restored.add(tensor.flatten)
        return made, wanted, output, rank

    def _of_flat(self, name: str, config: Mapping[str, Any], path: str, inputs: Sequence[_Tensor]) -> bool:
        """Whether a layer takes a flattened map in another order: elementwise ones, and those whose arrays follow."""
        flatten = inputs[0].flatten
        if any(t.flatten != flatten for t in inputs):
            return False
        if name in _ELEMENTWISE or name == "Softmax":
            return True
        if name not in ("Dense", "BatchNormalization"):
            return False
        if self._dense.setdefault(path, flatten) != flatten:  # shared between two of them
            return False
        if (path, flatten, name != "Dense") not in self.rows:
            self.rows.append((path, flatten, name != "Dense"))
        return True

    def _of_maps(self, name: str, config: dict[str, Any], path: str, rank: int | None) -> bool:
        """Whether a layer can take maps with channels last; its axis arguments are put right."""
        if name in ("Flatten",):
            return path not in self.restored
        if name in _ELEMENTWISE:
            return not ends_with_softmax(config)
        if rank is None:
            return False
        if name in ("BatchNormalization", "GroupNormalization", "Softmax", "Concatenate"):
            axis = config.get("axis", -1)
            single = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
            if not isinstance(single, int) or not -rank <= single < rank or single % rank == 0:
                return False
            turned = (single % rank - 2) % (rank - 1) + 1
            if name != "Concatenate" and turned != rank - 1:
                return False
            config["axis"] = [turned] if isinstance(axis, list) else turned
            return True
        if name == "PReLU":
            axes = config.get("shared_axes")
            if axes:
                config["shared_axes"] = sorted((int(a) % rank - 2) % (rank - 1) + 1 for a in axes)
            words = " ".join(f"s{i}" for i in range(rank - 2))
            self.changes[path] = lambda stored: relaid(stored, f"c {words} -> {words} c")
            return True
        return False

    def _behind_maps(
        self, name: str, config: dict[str, Any], entry: Mapping[str, Any], path: str, rank: int | None
    ) -> tuple[str, int | None]:
        if name != "Flatten":
            return _FIRST, rank
        turned = config.get("data_format") == "channels_first"  # it already flattened channels last
        config["data_format"] = "channels_last"
        return (_SAME if turned else _FLAT), 2


# Sequential models ------------------------------------------------------------------------------------------------


def _wants_maps(layers: Sequence[Any]) -> bool:
    """Whether a chain of layers begins with a map that keeps its channels first."""
    for layer in layers:
        name, config = str(layer.get("class_name", "")), layer.get("config")
        if is_model(layer):
            return _wants_maps(layers_of(layer))
        if not isinstance(config, Mapping):
            return False
        if name in _MAPS:
            return config.get("data_format") == "channels_first"
        if name not in _ELEMENTWISE and name not in ("InputLayer", "BatchNormalization"):
            return False
    return False


def _sequential(work: _Work, entry: Mapping[str, Any], prefix: str, layouts: list[str] | None) -> Any:
    layers = layers_of(entry)
    first = _wants_maps(layers)
    layout = _FIRST if first else _SAME
    shape = next((s for layer in layers if (s := _deep(layer)) is not None), None)
    tensor = _Tensor(layout, len(shape) if isinstance(shape, list | tuple) else 4 if first else None)
    if layouts is not None:
        layouts.append(layout)
    made: list[dict[str, Any]] = []
    begun = False
    for layer in layers:
        name = name_of(layer)
        path = f"{prefix}{name}"
        if layer.get("class_name") == "InputLayer":
            config = dict(layer["config"])
            if first:
                turn_shape(config)
                if layouts is None:
                    work.inputs.append(name)
            made.append({**layer, "config": config})
            begun = True
            continue
        if is_model(layer):
            inner: list[str] = []
            new, outputs = work.model(layer, f"{path}/", inner)
            wanted, result = inner[:1] or [_SAME], outputs[0]
            if tensor.layout == _FLAT:
                work.restored.add(tensor.flatten)
        else:
            new, wanted, output, rank = work.layer(layer, path, [tensor])
            flat = tensor.flatten if tensor.layout == _FLAT else path
            result = _Tensor(output, rank, flat if output == _FLAT else "")
        if not begun and first and layouts is None:
            work.inputs.append(f"{name}_input")
        if not begun and first and not is_model(layer):
            turn_shape(new["config"])
        begun = True
        if {tensor.layout, wanted[0]} == {_FIRST, _SAME} and tensor.rank:
            to_last = wanted[0] == _FIRST
            made.append(permute_layer(f"{name}_{'last' if to_last else 'first'}", tensor.rank, to_last, layer))
        made.append(new)
        tensor = result
    config = entry["config"]
    return {**entry, "config": made if isinstance(config, list) else {**config, "layers": made}}, [tensor]


def _deep(entry: Mapping[str, Any]) -> Any:
    """The input shape that a layer, or the first layer of a submodel, declares."""
    if is_model(entry):
        return next((found for layer in layers_of(entry) if (found := _deep(layer)) is not None), None)
    return declared_shape(entry)


# Functional models ------------------------------------------------------------------------------------------------


def _functional(work: _Work, entry: Mapping[str, Any], prefix: str, layouts: list[str] | None) -> Any:
    edges = Edges(entry)
    made: dict[str, dict[str, Any]] = {}
    tensors: dict[tuple[str, int, int], _Tensor] = {}
    outputs_of: dict[str, list[_Tensor]] = {}
    takes: dict[str, list[str]] = {}
    turned: dict[tuple[str, int, int, bool], str] = {}
    added: list[dict[str, Any]] = []

    def reach(reference: tuple[str, int, int], wanted: str, like: Mapping[str, Any]) -> tuple[str, int, int]:
        """The tensor in the wanted layout, through a Permute where it lies otherwise."""
        tensor = tensors[reference]
        if {tensor.layout, wanted} != {_FIRST, _SAME} or not tensor.rank or tensor.rank < 3:
            return reference
        to_last = wanted == _FIRST
        key = (*reference, to_last)
        if key not in turned:
            name = f"{reference[0]}_{'last' if to_last else 'first'}" + (f"_{len(turned)}" if len(turned) else "")
            layer = permute_layer(name, tensor.rank, to_last, like)
            layer |= {"name": name, "inbound_nodes": [edges.node_of([reference], tensor.rank)]}
            added.append(layer)
            turned[key] = name
        return turned[key], 0, 0

    for name, node in edges.order():
        layer, path = edges.layers[name], f"{prefix}{name}"
        if node is None:
            shape = declared_shape(layer)
            maps = edges.leads_to(name, _wants_first) and isinstance(shape, list | tuple) and len(shape) > 2
            new = {**layer, "config": dict(layer["config"])}
            if maps:
                turn_shape(new["config"])
                if layouts is None:
                    work.inputs.append(name)
            made[name] = new
            rank = len(shape) if isinstance(shape, list | tuple) else None
            tensors[name, 0, 0] = _Tensor(_FIRST if maps else _SAME, rank)
            continue
        references = edges.sources(name, node)
        given = [tensors[reference] for reference in references]
        if is_model(layer):
            if name not in outputs_of:
                inner: list[str] = []
                new, outputs_of[name] = work.model(layer, f"{path}/", inner)
                made[name], takes[name] = new, inner
            wanted = [*takes[name], *[_SAME] * len(given)][: len(given)]
            work.restored |= {t.flatten for t in given if t.layout == _FLAT}
            results = outputs_of[name]
        else:
            new, wanted, output, rank = work.layer(layer, path, given)
            made.setdefault(name, new)
            flat = given[0].flatten if given and given[0].layout == _FLAT else path
            results = [_Tensor(output, rank, flat if output == _FLAT else "")]
            results *= edges.arity(name)
        sources = [reach(r, w, layer) for r, w in zip(references, wanted, strict=True)]
        edges.replace(made[name], name, node, sources, [w == _FIRST for w in wanted])
        for i, result in enumerate(results):
            tensors[name, edges.number(name, node), i] = result
    if layouts is not None:
        layouts.extend(tensors[reference].layout for reference in edges.inputs)
    listed = [made[name] for name in edges.layers if name in made]
    config = {**entry["config"], "layers": [*listed, *added]}
    return {**entry, "config": config}, [tensors[reference] for reference in edges.outputs]


def _wants_first(entry: Mapping[str, Any]) -> bool | None:
    """Whether a layer takes a map with channels first; None for one through which maps pass as they are."""
    name, config = str(entry.get("class_name", "")), entry.get("config")
    if is_model(entry):
        return keeps_channels_first(config)
    if not isinstance(config, Mapping):
        return False
    if name in _MAPS:
        return config.get("data_format") == "channels_first"
    return None if name in _ELEMENTWISE or name in ("BatchNormalization", "Concatenate") else False
