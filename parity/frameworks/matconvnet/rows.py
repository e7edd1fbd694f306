"""The entries of a DagNN's struct arrays `layers`, `params` and `vars`, read and checked one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.frameworks.matconvnet.cells import Cell, spoken
from parity.frameworks.matconvnet.values import Unreadable
from parity.layers.base import numbers

__all__ = ["Row", "check_names", "flag", "names_of", "read_params", "read_rows", "records"]


def records(value: Any, what: str) -> list[Mapping[str, Any]]:
    """The elements of a struct array (one of them is read as itself); raises ValueError for anything else."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, np.ndarray) and not value.size:
        return []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError(f"its `{what}` are not a struct array")
    return value


@dataclass(frozen=True)
class Row:
    """One entry of `layers`; `where` says where it stands, for messages."""

    name: str
    type: str
    where: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[str, ...]
    block: Mapping[str, Any]


def read_rows(value: Any) -> list[Row]:
    """The entries of `layers`; raises ValueError, which says which one is wrong and how."""
    return [_row(entry, at) for at, entry in enumerate(records(value, "layers"), 1)]


def read_params(value: Any) -> dict[str, Cell]:
    """Name → cell of each entry of `params`, its rate NaN where none is said; raises ValueError."""
    entries = records(value, "params")
    cells: dict[str, Cell] = {}
    for at, (name, entry) in enumerate(zip(names_of(entries, "params"), entries, strict=True)):
        array, where = entry.get("value"), f"params({at + 1}) ({name})"
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            what = str(array) if isinstance(array, Unreadable) else "not an array of class single or double"
            raise ValueError(f"{where}: its value is {what}")
        rate = _multiplier(entry, "learningRate", where, float("nan"))
        cells[name] = Cell(array, rate, _multiplier(entry, "weightDecay", where, 1.0), where, (at,))
    return cells


def _row(entry: Mapping[str, Any], position: int) -> Row:
    name, type_name = entry.get("name"), entry.get("type")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"layers({position}) has no `name`")
    if not isinstance(type_name, str) or not type_name:
        raise ValueError(f"layers({position}) ({spoken(name, '')}) has no `type`")
    where = f"layers({position}) ({spoken(name, '')}, {spoken(type_name, '')})"
    lists = {key: _words(entry.get(key), key, where) for key in ("inputs", "outputs", "params")}
    if not lists["outputs"]:
        raise ValueError(f"{where} has no output")
    if not lists["inputs"]:
        raise ValueError(f"{where} has no input")
    block = entry.get("block")
    if isinstance(block, Unreadable):
        raise ValueError(f"{where}: its block is {block}, not a struct; save net.saveobj() instead of the object")
    if block is None or (isinstance(block, (list, np.ndarray)) and not len(block)):
        block = {}
    if not isinstance(block, Mapping):
        raise ValueError(f"{where}: its block is not a struct")
    return Row(name, type_name, where, lists["inputs"], lists["outputs"], lists["params"], block)


def _words(value: Any, key: str, where: str) -> tuple[str, ...]:
    """A cell of names."""
    if isinstance(value, str):
        value = [value] if value else []
    if value is None or (isinstance(value, np.ndarray) and not value.size):
        value = []
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"{where}: its {key} are not a cell of names")
    return tuple(value)


def names_of(entries: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    """The names of a struct array's elements, which must differ."""
    found: list[str] = []
    taken: set[str] = set()
    for at, entry in enumerate(entries, 1):
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{what}({at}) has no `name`")
        if name in taken:
            raise ValueError(f"{what}({at}) is called {name!r} like one before it")
        found.append(name)
        taken.add(name)
    return found


def check_names(rows: Sequence[Row], variables: Sequence[str]) -> None:
    """Layers' names differ, no variable is written twice, and every variable exists where the file lists them."""
    names: set[str] = set()
    writers: dict[str, str] = {}
    for row in rows:
        if row.name in names:
            raise ValueError(f"{row.where} has the name of another layer")
        names.add(row.name)
        for variable in row.outputs:
            if variable in writers:
                raise ValueError(f"{row.where} writes the variable {variable!r}, which {writers[variable]} writes too")
            writers[variable] = row.name
    known = {*variables, *writers}
    for row in rows if variables else ():
        missing = [variable for variable in row.inputs if variable not in known]
        if missing:
            raise ValueError(f"{row.where} reads the variable {missing[0]!r}, which `vars` does not have")


def _multiplier(entry: Mapping[str, Any], key: str, where: str, default: float) -> float:
    """A parameter's learningRate or weightDecay."""
    value = entry.get(key)
    if value is None or (isinstance(value, np.ndarray) and not value.size):
        return default
    found = numbers(value) if not isinstance(value, (str, list, Mapping, Unreadable)) else []
    if len(found) != 1:
        raise ValueError(f"{where}: its {key} is not a number")
    return found[0]


def flag(value: Any) -> bool:
    """A logical of the file; false where it is empty."""
    return bool(value.size and value.flat[0]) if isinstance(value, np.ndarray) else bool(value)
