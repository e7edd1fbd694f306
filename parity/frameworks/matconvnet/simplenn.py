"""SimpleNN: a chain of tidied layers as a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.errors import BadFile
from parity.frameworks.matconvnet.cells import Cell, opaque, params_of, read_kind, spoken, supported
from parity.frameworks.matconvnet.sizes import declared_inputs
from parity.frameworks.matconvnet.tidy import LEGACY_RATES, tidy
from parity.layers import BatchNorm, Kind, Loss
from parity.layers.base import numbers
from parity.network import Layer, Network, Param

__all__ = ["Chain"]


class Chain:
    """The network of a SimpleNN struct, with its shapes still open.

    Args:
        net: the struct as `matfile.read` gives it, before tidying.
        file: its name, for messages.

    Attributes:
        meta: its `meta`, with what old files keep beside the layers.
        network: the graph; one tensor per layer, named like it, `input` and `labels`.
        places: param id → where `state.solverState` keeps what belongs to it.

    Raises:
        BadFile: no layers, an unknown layer type, or parts that do not fit together.
    """

    def __init__(self, net: Mapping[str, Any], file: str) -> None:
        self._file = file
        try:
            tidied = tidy(net)
        except ValueError as error:
            raise BadFile(file, str(error)) from None
        if not tidied["layers"]:
            raise BadFile(file, "its network has no layers")
        self.meta: Mapping[str, Any] = tidied["meta"]
        self.places: dict[str, tuple[int, ...]] = {}
        self._layers: list[Layer] = []
        self._params: dict[str, Param] = {}
        self._taken = {"input", "labels"}
        self._counts: dict[str, int] = {}
        self._tensor = "input"
        self._remarks: list[str] = []
        written = net["layers"] if isinstance(net["layers"], list) else [net["layers"]]
        for position, (layer, raw) in enumerate(zip(tidied["layers"], written, strict=True), 1):
            self._add(layer, raw, position)
        self.network = self._network()

    def _add(self, fields: Mapping[str, Any], raw: Mapping[str, Any], position: int) -> None:
        """One tidied layer, at its position from 1; `raw` is what the file holds of it."""
        type_name = fields["type"]
        called = spoken(fields.get("name"), f"layer{position}")
        name = self._unique(called, position)
        where = f"layers{{{position}}} ({called}, {type_name})"
        if self._layers and isinstance(self._layers[-1].kind, Loss):
            raise BadFile(self._file, f"{where} follows the loss", "remove the layers behind the loss")
        remarks: list[str] = []
        kind, ids = opaque("custom", fields), {}
        if type_name == "custom":
            remarks.append("runs code from the file's author, which parity does not have")
        else:
            try:
                kind, ids = self._known(type_name, name, fields, position, remarks)
            except ValueError as error:
                raise BadFile(self._file, f"{where}: {error}") from None
            remarks += [*kind.remarks(), *_of_old_files(kind, raw)]
        inputs = (self._tensor, "labels") if isinstance(kind, Loss) else (self._tensor,)
        self._layers.append(
            Layer(name, kind, inputs, (name,), ids, origin=called, source_type=type_name, remarks=tuple(remarks))
        )
        self._tensor = self._tensor if isinstance(kind, Loss) else name

    def _known(
        self, type_name: str, name: str, fields: Mapping[str, Any], position: int, remarks: list[str]
    ) -> tuple[Kind, dict[str, str]]:
        """The kind of a layer and role → param id; its parameters are added."""
        read = read_kind(type_name, fields, fields["weights"])
        if read is None:
            words = ", ".join(sorted({*supported(), "custom"}))
            raise ValueError(f"this layer type is not supported; supported are {words}")
        ids = {role: f"{name}.{role}" for role in read.arrays}
        cells = _cells(fields, read.kind, position, remarks)
        self._params |= {param.id: param for param in params_of(read, cells, ids, remarks)}
        self.places |= {ids[role]: cells[j].place for role, (_, j) in read.arrays.items()}
        return read.kind, ids

    def _network(self) -> Network:
        loss = any(isinstance(layer.kind, Loss) for layer in self._layers)
        inputs, remarks = declared_inputs(self.meta, ["input"], self._layers, self._params, self._file)
        return Network(
            name=Path(self._file).name,
            framework="matconvnet",
            inputs={**inputs, **({"labels": ()} if loss else {})},
            outputs=(self._tensor,),
            layers=tuple(self._layers),
            params=self._params,
            labels=("labels",) if loss else (),
            meta=self.meta,
            remarks=(*self._remarks, *remarks),
        )

    def _unique(self, called: str, position: int) -> str:
        name, count = called, self._counts.get(called, 1)  # counted on: thousands may have one name
        while name in self._taken:
            count += 1
            name = f"{called}_{count}"
        self._counts[called] = count
        if name != called:
            self._remarks.append(
                f"layers{{{position}}} is called {called!r} like something before it; here it is {name!r}"
            )
        self._taken.add(name)
        return name


def _cells(fields: Mapping[str, Any], kind: Kind, position: int, remarks: list[str]) -> list[Cell]:
    """A layer's weights with their multipliers (cnn_train.m:77-92 fills in ones where a vector is missing)."""
    weights: Sequence[Any] = fields["weights"]
    vectors = {key: numbers(fields[key]) if key in fields else None for key in ("learningRate", "weightDecay")}
    wanted = {"learningRate": len(weights), "weightDecay": len(weights)}
    wanted["weightDecay"] -= isinstance(kind, BatchNorm)  # moments do not decay (cnn_train.m:469-473)
    for key, vector in vectors.items():
        if vector is not None and len(vector) < wanted[key]:
            short = f"{key} has {len(vector)} of {wanted[key]} entries"
            remarks.append(f"{short}: MatConvNet's trainer stops with an index error")
    cells: list[Cell] = []
    for j, value in enumerate(weights):
        rate, decay = (1.0 if v is None else v[j] if j < len(v) else 1.0 for v in vectors.values())
        cells.append(Cell(value, rate, decay, f"layers{{{position}}}.weights{{{j + 1}}}", (position - 1, j)))
    return cells


def _of_old_files(kind: Kind, raw: Mapping[str, Any]) -> list[str]:
    """What MatConvNet now reads otherwise than the release that wrote the layer did."""
    remarks: list[str] = []
    if any(field in raw for field in LEGACY_RATES):
        remarks.append("filtersLearningRate and the like are of an old form that MatConvNet no longer reads")
    weights = raw.get("weights")
    if isinstance(kind, BatchNorm) and (len(weights) if isinstance(weights, list) else 2) < 3:
        remarks.append("the file holds no moments of it: MatConvNet fills in zeros, by which test mode divides")
        if "epsilon" not in raw:
            remarks.append(
                f"its epsilon is MatConvNet's present {kind.epsilon:g}; the releases that kept no moments used 1e-3"
            )
    return remarks
