"""What SimpleNN's and DagNN's layers have in common: a kind, read from fields, and parameters, made of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.layers import KINDS, BatchNorm, Kind, Opaque, lookup
from parity.network import STATISTICS, Param

__all__ = ["Cell", "Read", "opaque", "params_of", "read_kind", "spoken", "supported"]


@dataclass(frozen=True)
class Cell:
    """One array of a layer as its file keeps it, before a kind splits it into parameters.

    Attributes:
        value: the array.
        rate: factor on the learning rate; for batch moments the averaging rate itself.
        decay: factor on the weight decay.
        source: where it stands in the file.
        place: where `state.solverState` keeps what belongs to it, indices from 0.
    """

    value: np.ndarray
    rate: float
    decay: float
    source: str
    place: tuple[int, ...]


@dataclass(frozen=True)
class Read:
    """A layer's kind, and role → (array in the role's axes, which of the layer's cells it comes from)."""

    kind: Kind
    arrays: Mapping[str, tuple[np.ndarray, int]]


def read_kind(type_name: str, fields: Mapping[str, Any], cells: Sequence[Any]) -> Read | None:
    """The kind that a layer type or block lifts to, with its arrays; None where the vocabulary has none.

    Args:
        type_name: SimpleNN type or DagNN class.
        fields: as `Kind.from_matconvnet` reads them.
        cells: the layer's arrays in MatConvNet's order.

    Raises:
        ValueError: with the rest of the sentence "layer x: ...".
    """
    kind_class = lookup("matconvnet", type_name)
    if kind_class is None:
        return None
    arrays = kind_class.split_matconvnet(cells)
    return Read(kind_class.from_matconvnet(fields, {role: value.shape for role, (value, _) in arrays.items()}), arrays)


def params_of(read: Read, cells: Sequence[Cell], ids: Mapping[str, str], remarks: list[str]) -> list[Param]:
    """A layer's parameters.

    Args:
        read: its kind and arrays.
        cells: as `read_kind` was given them, with their multipliers.
        ids: role → id.
        remarks: what a reader should know is added here.
    """
    made: list[Param] = []
    for role, (value, j) in read.arrays.items():
        cell, statistic = cells[j], role in STATISTICS
        if not np.isfinite(value).all():
            remarks.append(f"its {role} holds NaN or infinite values")
        rate = cell.rate
        if statistic and isinstance(read.kind, BatchNorm) and read.kind.momentum is None:
            rate = 0.0
        made.append(
            Param(
                id=ids[role],
                role=role,
                axes=read.kind.roles[role],
                shape=value.shape,
                value=value,  # in the file's own memory, column-major: a copy would double what a network takes
                trainable=not statistic,
                rate_multiplier=rate,
                decay_multiplier=0.0 if statistic else cell.decay,
                source=cell.source,
            )
        )
    return made


def spoken(name: Any, default: str) -> str:
    """A name of the file in one line; the default where it has none."""
    return " ".join(name.split()) if isinstance(name, str) and name.strip() else default


def opaque(type_name: str, fields: Mapping[str, Any]) -> Opaque:
    """A layer whose code is the file's author's, with those of its settings that a reader can make sense of."""
    plain = {key: value for key, value in fields.items() if isinstance(value, (str, float, int)) and key != "type"}
    return Opaque(type_name, plain, runs_code=True)


def supported(prefix: str = "") -> list[str]:
    """The layer types that the vocabulary has; with a prefix the blocks that begin so, without one SimpleNN's types."""
    words = {word for kind in KINDS for word in kind.matconvnet}
    return sorted(word for word in words if word.startswith(prefix or "dagnn.") == bool(prefix))
