"""DagNN: a saved struct of blocks, variables and parameters as a graph (matlab/+dagnn/@DagNN)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import BadFile
from parity.frameworks.matconvnet.blocks import BLOCKS, block_fields
from parity.frameworks.matconvnet.cells import Cell, Read, opaque, params_of, read_kind
from parity.frameworks.matconvnet.order import CycleError, evaluation_order
from parity.frameworks.matconvnet.rows import Row, check_names, flag, names_of, read_params, read_rows, records
from parity.frameworks.matconvnet.sizes import declared_inputs, times
from parity.layers import (
    AffineGridGenerator,
    BilinearSampler,
    DistanceLoss,
    Kind,
    Loss,
    PDist,
    UniformScalingGridGenerator,
)
from parity.network import Layer, Network, Param

__all__ = ["Graph", "is_dagnn"]

_AVERAGING_RATE = 0.1
"""Of a batch normalisation's moments where `params` does not say it (BatchNorm.m, `attach`)."""


def is_dagnn(net: Mapping[str, Any]) -> bool:
    """Whether a network's struct is a DagNN's; one whose layers are a cell of plain structs is a SimpleNN's."""
    layers = net.get("layers")
    first = layers[0] if isinstance(layers, list) and layers else layers
    if not isinstance(first, Mapping):
        return "vars" in net and "params" in net
    return "block" in first or str(first.get("type", "")).startswith("dagnn.")


@dataclass
class _Made:
    """A row's kind, and role → id of each parameter."""

    kind: Kind
    ids: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


class Graph:
    """The network of a DagNN struct, with its shapes still open.

    Layers stand in MatConvNet's order of evaluation; tensors are called like its variables and parameters like its
    own (moments, one array of two columns, are `name.mean` and `name.deviation`).

    Args:
        net: the struct as `matfile.read` gives it.
        file: its name, for messages.
        objectives: variable → weight (derOutputs); None for MatConvNet's default, `objective` with weight 1.

    Attributes:
        meta: its `meta`.
        network: the graph.
        places: param id → where `state.solverState` keeps what belongs to it.

    Raises:
        BadFile: parts that are missing, double, in a circle, or that do not fit together.
    """

    def __init__(self, net: Mapping[str, Any], file: str, objectives: Mapping[str, float] | None = None) -> None:
        self._file = file
        self._remarks: list[str] = []
        meta = net.get("meta")
        self.meta: Mapping[str, Any] = meta if isinstance(meta, Mapping) else {}
        self.places: dict[str, tuple[int, ...]] = {}
        self._params: dict[str, Param] = {}
        try:
            rows = read_rows(net.get("layers"))
            self._cells = read_params(net.get("params", []))
            variables = names_of(records(net.get("vars", []), "vars"), "vars")
            if not rows:
                raise ValueError("its network has no layers")
            check_names(rows, variables)
            order = _order(rows)
        except ValueError as error:
            raise BadFile(file, str(error)) from None
        self._produced = {name for row in rows for name in row.outputs}
        read = dict.fromkeys(name for row in rows for name in row.inputs)
        self._free = [n for n in dict.fromkeys([*variables, *read]) if n in read and n not in self._produced]
        self._data = {name for row in rows if not _compares(row) for name in row.inputs} | {*_listed(self.meta)}
        made = {row.name: self._make(row) for row in rows}
        _lay_grids(rows, made)
        used = {name for row in rows for name in row.params}
        unused = [name for name in self._cells if name not in used]
        if unused:
            self._remarks.append(f"no layer reads its parameters {', '.join(unused[:4])}{' …' * (len(unused) > 4)}")
        self.network = self._network([rows[at] for at in order], made, objectives)

    def _make(self, row: Row) -> _Made:
        """A row's kind and parameters; the parameters are added."""
        if row.type not in BLOCKS:
            remark = f"is a {row.type}, a class of the file's author, which parity does not have"
            return _Made(opaque(row.type, row.block), remarks=[remark])
        try:
            cells = self._of_row(row)
            fields = self._fields(row, cells)
            read = read_kind(row.type, fields, [cell.value for cell in cells])
            if read is None:
                return _Made(opaque(row.type, row.block), remarks=[f"is a {row.type}, which parity cannot run yet"])
            if isinstance(read.kind, Loss) and row.inputs[1] in self._produced:
                remark = "takes labels that other layers make, which parity cannot run"
                return _Made(opaque(row.type, row.block), remarks=[remark])
            if isinstance(read.kind, PDist) and read.kind.aggregate and self._is_target(row):
                read = Read(DistanceLoss.from_matconvnet(fields, {}), {})
            ids = {
                role: row.params[j] if sum(k == j for _, k in read.arrays.values()) == 1 else f"{row.params[j]}.{role}"
                for role, (_, j) in read.arrays.items()
            }
            made = _Made(read.kind, ids, [*read.kind.remarks(), *_misfit(row, read)])
            for param in params_of(read, cells, ids, made.remarks):
                self._share(param)
            self.places |= {ids[role]: cells[j].place for role, (_, j) in read.arrays.items()}
        except ValueError as error:
            raise BadFile(self._file, f"{row.where}: {error}") from None
        return made

    def _of_row(self, row: Row) -> list[Cell]:
        """The arrays that a block reads, in its order; raises ValueError where there are too few or too many."""
        known = BLOCKS[row.type]
        missing = [name for name in row.params if name not in self._cells]
        if missing:
            raise ValueError(f"it reads the parameter {missing[0]!r}, which `params` does not have")
        fewest, most = known.params
        names = row.params
        if fewest != most and not flag(row.block.get("hasBias", True)) and len(names) == most:
            names = names[: most - 1]  # Conv.m: without hasBias the biases are left out, whether there are any or not
        if not fewest <= len(names) <= most:
            count = str(fewest) if fewest == most else f"{fewest} to {most}"
            raise ValueError(f"it names {len(names)} parameters, but a {row.type} has {count}")
        if (
            row.type in ("dagnn.Conv", "dagnn.ConvTranspose")
            and flag(row.block.get("hasBias", True))
            and len(names) < 2
        ):
            raise ValueError("it has biases (hasBias), but names one parameter only")
        few, many = known.inputs
        if len(row.inputs) < few or (many is not None and len(row.inputs) > many):
            raise ValueError(f"it reads {len(row.inputs)} variables, but a {row.type} reads {few}")
        cells = [self._cells[name] for name in names]
        unsaid = [_AVERAGING_RATE if row.type == "dagnn.BatchNorm" and j == 2 else 1.0 for j in range(len(cells))]
        return [replace(c, rate=r) if np.isnan(c.rate) else c for c, r in zip(cells, unsaid, strict=True)]

    def _is_target(self, row: Row) -> bool:
        """Whether the second input of a distance is a label: given, not made, and read by nothing that takes data."""
        return len(row.inputs) == 2 and row.inputs[1] in self._free and row.inputs[1] not in self._data

    def _fields(self, row: Row, cells: Sequence[Cell]) -> dict[str, Any]:
        """What the kind is read from: the block's properties, and the multipliers as SimpleNN keeps them."""
        fields = block_fields(row.type, row.block) | {"inputs": row.inputs, "weights": [cell.value for cell in cells]}
        if cells:
            fields |= {
                "learningRate": np.array([[cell.rate for cell in cells]]),
                "weightDecay": np.array([[cell.decay for cell in cells]]),
            }
        return fields

    def _share(self, param: Param) -> None:
        """Add a parameter; one that several layers read must be the same to each of them."""
        before = self._params.setdefault(param.id, param)
        if (before.shape, before.trainable) != (param.shape, param.trainable):
            raise ValueError(f"its {param.role} {param.id!r} is also the {before.role} of another layer")

    def _network(
        self,
        rows: Sequence[Row],
        made: Mapping[str, _Made],
        objectives: Mapping[str, float] | None,
    ) -> Network:
        read = {name for row in rows for name in row.inputs}
        losses = [row for row in rows if isinstance(made[row.name].kind, Loss)]
        labels = [name for name in self._free if any(name in row.inputs[1:] for row in losses)]
        weights = self._objectives(losses, made, objectives)
        layers = [
            Layer(
                row.name,
                made[row.name].kind,
                row.inputs,
                row.outputs,
                made[row.name].ids,
                origin=row.name,
                source_type=row.type,
                remarks=tuple(made[row.name].remarks),
            )
            for row in rows
        ]
        data = _ordered([name for name in self._free if name not in labels], self.meta)
        inputs, unsaid = declared_inputs(self.meta, data, layers, self._params, self._file)
        return Network(
            name=Path(self._file).name,
            framework="matconvnet",
            inputs={**inputs, **dict.fromkeys(labels, ())},
            outputs=_predictions(rows, made, weights, read),
            layers=tuple(layers),
            params=self._params,
            labels=tuple(labels),
            objectives=weights,
            meta=self.meta,
            remarks=(*self._remarks, *unsaid),
        )

    def _objectives(
        self,
        losses: Sequence[Row],
        made: Mapping[str, _Made],
        given: Mapping[str, float] | None,
    ) -> dict[str, float]:
        """What is differentiated: `given`, else `objective` (cnn_train_dag.m), else every loss that has a gradient."""
        if given is not None:
            unknown = [name for name in given if name not in self._produced]
            if unknown:
                known = ", ".join(row.outputs[0] for row in losses) or "none"
                raise BadFile(
                    self._file,
                    f"derOutputs names {unknown[0]!r}, which no layer makes (the losses' outputs are {known})",
                )
            return dict(given)
        kinds = {row.outputs[0]: made[row.name].kind for row in losses}
        found = [name for name, kind in kinds.items() if isinstance(kind, Loss) and kind.differentiable]
        if "objective" in self._produced:
            others = [name for name in found if name != "objective"]
            if others:
                self._remarks.append(
                    f"MatConvNet's trainer differentiates `objective` alone by default, and not {', '.join(others)}; "
                    "derOutputs says otherwise"
                )
            return {"objective": 1.0}
        if found:
            self._remarks.append(
                f"it has no variable `objective`, which MatConvNet's trainer differentiates; {', '.join(found)} "
                f"{'is' if len(found) == 1 else 'are'} taken instead, with weight 1"
            )
        return dict.fromkeys(found, 1.0)


def _lay_grids(rows: Sequence[Row], made: Mapping[str, _Made]) -> None:
    """Grids that are made for samplers alone become maps of two channels, which is what they are everywhere else."""
    for row in rows:
        if not isinstance(made[row.name].kind, AffineGridGenerator | UniformScalingGridGenerator):
            continue
        readers = [reader for reader in rows if row.outputs[0] in reader.inputs]
        places = [(made[r.name].kind, [name == row.outputs[0] for name in r.inputs]) for r in readers]
        if places and all(isinstance(kind, BilinearSampler) and at == [False, True] for kind, at in places):
            for name in (row.name, *(reader.name for reader in readers)):
                kind: Any = made[name].kind
                made[name].kind = replace(kind, points_last=True)


def _order(rows: Sequence[Row]) -> list[int]:
    """Indices of the layers in MatConvNet's order; raises ValueError where there is none."""
    try:
        return evaluation_order([row.inputs for row in rows], [row.outputs for row in rows])
    except CycleError as circle:
        names = " → ".join(rows[at].name for at in circle.layers)
        raise ValueError(f"its layers run in a circle: {names}") from None


def _compares(row: Row) -> bool:
    """Whether a block's second input may be labels."""
    return row.type in ("dagnn.Loss", "dagnn.PDist")


def _misfit(row: Row, read: Read) -> list[str]:
    """A remark where a block's `size` is not that of its filters; MatConvNet goes by the filters (Conv.m)."""
    size, kernel = row.block.get("size"), read.arrays.get("kernel")
    if kernel is None or not isinstance(size, np.ndarray) or not size.any() or not np.isfinite(size).all():
        return []
    said, found = [int(n) for n in size.flat], [*kernel[0].shape]
    said += [1] * (len(found) - len(said))
    return [] if said == found else [f"its block says filters of {times(said)}, they are {times(found)}"]


def _listed(meta: Mapping[str, Any]) -> list[str]:
    """The names in `meta.inputs`."""
    try:
        return [str(entry.get("name")) for entry in records(meta.get("inputs", []), "inputs")]
    except ValueError:
        return []


def _ordered(names: Sequence[str], meta: Mapping[str, Any]) -> list[str]:
    """Data inputs in the order of `meta.inputs`; those that it does not name come after them."""
    listed = _listed(meta)
    return [*(name for name in dict.fromkeys(listed) if name in names), *(name for name in names if name not in listed)]


def _predictions(
    rows: Sequence[Row], made: Mapping[str, _Made], objectives: Mapping[str, float], read: Iterable[str]
) -> tuple[str, ...]:
    """What the losses read; without losses, the variables that no layer reads."""
    losses = [row for row in rows if isinstance(made[row.name].kind, Loss)]
    trained = [row for row in losses if row.outputs[0] in objectives]
    found = [row.inputs[0] for row in trained or losses]
    last = [
        name for row in rows if row not in losses for name in row.outputs if name not in read and name not in objectives
    ]
    return tuple(dict.fromkeys([*found, *last]))
