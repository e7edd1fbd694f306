"""Lifting a MatConvNet file into the neutral vocabulary: a SimpleNN network, or a training checkpoint of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import BadFile, CannotCompare
from parity.frameworks.matconvnet.matfile import read
from parity.frameworks.matconvnet.recipe import lift_recipe, lift_slots
from parity.frameworks.matconvnet.tidy import LEGACY_RATES, tidy
from parity.frameworks.matconvnet.values import Unreadable
from parity.layers import KINDS, BatchNorm, Kind, Loss, Opaque, lookup
from parity.layers.base import numbers
from parity.network import STATISTICS, Layer, Network, Param, Shape
from parity.recipe import Recipe

__all__ = ["lift", "lift_data", "with_input"]


def lift(path: str | Path, input_shape: tuple[int, ...] | None = None) -> tuple[Network, Recipe]:
    """The network and recipe of a MAT file; nothing is run and no framework is loaded.

    Args:
        path: a MAT file with a variable `net`, or with `layers` and `meta`, or a checkpoint (`net`, `state`, `stats`).
        input_shape: (h, w, c) of the input; None takes what the file says, or leaves the extents open.

    Raises:
        BadFile: not a MAT file, no network in it, an unknown layer type, or parts that do not fit together.
    """
    return lift_data(read(path), str(path), input_shape)


def lift_data(data: Mapping[str, Any], name: str, input_shape: tuple[int, ...] | None = None) -> tuple[Network, Recipe]:
    """The same from the variables of a file (as `matfile.read` gives them); `name` is the file's, for messages."""
    net = _find(data, name)
    try:
        tidied = tidy(net)
    except ValueError as error:
        raise BadFile(name, str(error)) from None
    if not tidied["layers"]:
        raise BadFile(name, "its network has no layers")
    builder = _Builder(name)
    for position, layer in enumerate(tidied["layers"], 1):
        builder.add(layer, position)
    declared, remark = _declared_input(tidied["meta"], builder)
    network = builder.network(tidied["meta"], declared, (remark,) if remark and input_shape is None else ())
    loss = next((layer.kind for layer in network.layers if isinstance(layer.kind, Loss)), None)
    recipe = lift_recipe(tidied["meta"], loss, data.get("stats"), data.get("state"))
    try:
        slots = lift_slots(data.get("state"), recipe.optimizer, builder.cells, builder.params)
    except ValueError as error:
        raise BadFile(name, str(error)) from None
    recipe = replace(recipe, slots=slots)
    return with_input(network, input_shape if input_shape is not None else declared, path=name), recipe


def with_input(network: Network, shape: Sequence[int | None], path: str | None = None, *, fit: bool = True) -> Network:
    """The network with every layer's shape, and every number of groups, worked out for this input.

    Args:
        network: as `lift` gives it.
        shape: (h, w, c); None for an extent that is open.
        path: the file whose fault a misfit is; None where it is the caller's.
        fit: False leaves every kind as it is, its groups too, and works out shapes only.

    Raises:
        BadFile: (with `path`) a layer does not fit its input.
        CannotCompare: (without) the same.
    """

    def fail(problem: str) -> Exception:
        return BadFile(path, problem) if path else CannotCompare(f"{network.name}: {problem}")

    if len(shape) != 3:
        raise CannotCompare(f"{network.name}: its input has three extents (h, w, c), not {len(shape)}")
    shapes: dict[str, Shape | None] = {"input": tuple(shape)}
    layers: list[Layer] = []
    for layer in network.layers:
        inputs = [shapes.get(tensor) for tensor in layer.inputs if tensor not in network.labels]
        known = [s for s in inputs if s is not None]
        own = {role: network.params[id_].shape for role, id_ in layer.params.items()}
        kind, out = layer.kind, None
        try:
            if len(known) == len(inputs):
                kind = kind.fit(known, own) if fit else kind
                out = None if isinstance(kind, Opaque) else kind.output_shape(known)
        except ValueError as error:
            at = "×".join("?" if n is None else str(n) for n in known[0])
            raise fail(f"layer {layer.name}: {error} (its input is {at})") from None
        shapes[layer.output] = out
        layers.append(replace(layer, kind=kind, shape=out))
    return replace(network, layers=tuple(layers), inputs={**network.inputs, "input": tuple(shape)})


def _find(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The struct that holds the network."""
    net = data.get("net")
    if net is None:
        inside = [value for value in data.values() if isinstance(value, Mapping) and "layers" in value]
        net = data if "layers" in data else inside[0] if len(inside) == 1 else None
    if isinstance(net, Unreadable):
        raise BadFile(name, f"its `net` is {net}, not a struct", "save net.saveobj() instead of the object")
    if not isinstance(net, Mapping) or "layers" not in net:
        names = ", ".join(sorted(data)[:6]) or "nothing"
        hint = "give an imdb as --batch" if "images" in data else "give a file with `net`, or with `layers` and `meta`"
        raise BadFile(name, f"holds no network (it has {names})", hint)
    layers = net["layers"]
    first = layers[0] if isinstance(layers, list) and layers else layers
    if isinstance(first, Mapping) and str(first.get("type", "")).startswith("dagnn."):
        raise BadFile(name, "holds a DagNN network, which is not supported yet", "give a SimpleNN network")
    return net


@dataclass
class _Cell:
    """Where the parameters of one layer come from: role → (param id, index in `weights`)."""

    layer: int
    params: dict[str, tuple[str, int]]


class _Builder:
    """Collects layers one behind the other, as SimpleNN chains them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.layers: list[Layer] = []
        self.params: dict[str, Param] = {}
        self.cells: list[_Cell] = []
        self.taken = {"input", "labels"}
        self.tensor = "input"
        self.remarks: list[str] = []

    def add(self, fields: Mapping[str, Any], position: int) -> None:
        """One tidied layer, at its position from 1."""
        type_name = fields["type"]
        called = fields.get("name")
        called = " ".join(called.split()) if isinstance(called, str) and called.strip() else f"layer{position}"
        name = self._unique(called, position)
        where = f"layers{{{position}}} ({called}, {type_name})"
        if any(isinstance(layer.kind, Loss) for layer in self.layers):
            raise BadFile(self.file, f"{where} follows the loss", "remove the layers behind the loss")
        remarks: list[str] = []
        kind_class = lookup("matconvnet", type_name)
        if type_name == "custom":
            remarks.append("runs code from the file's author, which parity does not have")
            kind: Kind = Opaque("custom", _display(fields), runs_code=True)
            found: dict[str, tuple[np.ndarray, int]] = {}
        elif kind_class is None:
            known = sorted({word for k in KINDS for word in k.matconvnet if not word.startswith("dagnn.")} | {"custom"})
            raise BadFile(self.file, f"{where}: this layer type is not supported", f"supported are {', '.join(known)}")
        else:
            try:
                found = kind_class.split_matconvnet(fields["weights"])
                kind = kind_class.from_matconvnet(fields, {role: value.shape for role, (value, _) in found.items()})
                params = self._params(name, position, kind, fields, found, remarks)
            except ValueError as error:
                raise BadFile(self.file, f"{where}: {error}") from None
            self.params.update({param.id: param for param in params})
        if type_name != "custom" and any(field in fields for field in LEGACY_RATES):
            remarks.append("filtersLearningRate and the like are of an old form that MatConvNet no longer reads")
        loss = isinstance(kind, Loss)
        ids = {role: f"{name}.{role}" for role in found}
        self.cells.append(_Cell(position, {role: (ids[role], j) for role, (_, j) in found.items()}))
        inputs = (self.tensor, "labels") if loss else (self.tensor,)
        self.layers.append(
            Layer(name, kind, inputs, (name,), ids, origin=called, source_type=type_name, remarks=tuple(remarks))
        )
        self.tensor = self.tensor if loss else name

    def network(self, meta: Mapping[str, Any], shape: Shape, remarks: Sequence[str]) -> Network:
        """The network, its shapes still open."""
        loss = any(isinstance(layer.kind, Loss) for layer in self.layers)
        return Network(
            name=Path(self.file).name,
            framework="matconvnet",
            inputs={"input": shape, **({"labels": ()} if loss else {})},
            outputs=(self.tensor,),
            layers=tuple(self.layers),
            params=self.params,
            labels=("labels",) if loss else (),
            meta=meta,
            remarks=(*self.remarks, *remarks),
        )

    def _unique(self, called: str, position: int) -> str:
        name, count = called, 1
        while name in self.taken:
            count += 1
            name = f"{called}_{count}"
        if name != called:
            self.remarks.append(
                f"layers{{{position}}} is called {called!r} like something before it; here it is {name!r}"
            )
        self.taken.add(name)
        return name

    def _params(
        self,
        name: str,
        position: int,
        kind: Kind,
        fields: Mapping[str, Any],
        found: Mapping[str, tuple[np.ndarray, int]],
        remarks: list[str],
    ) -> list[Param]:
        """The layer's parameters with their multipliers (cnn_train.m:77-92 fills in ones where a vector is missing)."""
        vectors = {key: numbers(fields[key]) if key in fields else None for key in ("learningRate", "weightDecay")}
        cells = {"learningRate": len(fields["weights"]), "weightDecay": len(fields["weights"])}
        cells["weightDecay"] -= isinstance(kind, BatchNorm)  # moments do not decay (cnn_train.m:469-473)
        for key, vector in vectors.items():
            if vector is not None and len(vector) < cells[key]:
                short = f"{key} has {len(vector)} of {cells[key]} entries"
                remarks.append(f"{short}: MatConvNet's trainer stops with an index error")
        made: list[Param] = []
        for role, (value, j) in found.items():
            rate, decay = (1.0 if v is None else v[j] if j < len(v) else 1.0 for v in vectors.values())
            statistic = role in STATISTICS
            if statistic and isinstance(kind, BatchNorm) and kind.momentum is None:
                rate = 0.0
            if not np.isfinite(value).all():
                remarks.append(f"its {role} holds NaN or infinite values")
            made.append(
                Param(
                    id=f"{name}.{role}",
                    role=role,
                    axes=kind.roles[role],
                    shape=value.shape,
                    value=np.ascontiguousarray(value),
                    trainable=not statistic,
                    rate_multiplier=rate,
                    decay_multiplier=0.0 if statistic else decay,
                    source=f"layers{{{position}}}.weights{{{j + 1}}}",
                )
            )
        return made


def _display(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a layer that a reader can make sense of."""
    return {key: value for key, value in fields.items() if isinstance(value, (str, float, int)) and key != "type"}


def _declared_input(meta: Mapping[str, Any], builder: _Builder) -> tuple[Shape, str]:
    """The input's (h, w, c) as `meta` says it; where it does not, a remark, and the channels that the filters imply."""
    normalization = meta.get("normalization")
    candidates = {
        "inputSize": meta.get("inputSize"),
        "normalization.imageSize": normalization.get("imageSize") if isinstance(normalization, Mapping) else None,
    }
    channels, why = _channels(builder)
    for key, value in candidates.items():
        if value is None:
            continue
        try:
            extents = numbers(value)
        except ValueError:
            raise BadFile(builder.file, f"its meta.{key} is not a vector of numbers") from None
        if len(extents) not in (2, 3, 4) or any(not v.is_integer() or not 1 <= v < 1e6 for v in extents[:3]):
            continue
        return (int(extents[0]), int(extents[1]), int(extents[2]) if len(extents) > 2 else channels), ""
    return (None, None, channels), f"the file does not say the size of its input; {why}"


def _channels(builder: _Builder) -> tuple[int | None, str]:
    """The input's channels by the first layer that has an opinion on them."""
    for layer in builder.layers:
        if isinstance(layer.kind, Opaque):
            break
        if "kernel" in layer.params:
            depth = builder.params[layer.params["kernel"]].shape[2]
            return depth, f"its first filters are {depth} deep, and one group is assumed"
        if "gamma" in layer.params:
            return builder.params[layer.params["gamma"]].shape[0], f"{layer.name} says its channels"
    return None, "nor does a layer"
