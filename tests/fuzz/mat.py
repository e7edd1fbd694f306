"""Damaged MAT files: bytes of v6, v7 and v7.3 files, what v7 packs, and values of the wrong kind in a sound file."""

from __future__ import annotations

import functools
import io
import math
import random
import struct
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse

from parity.frameworks.matconvnet.matfile import read
from parity.inspection import inspect_file
from tests.frameworks.matconvnet.golden import TRACES
from tests.frameworks.matconvnet.test_lies import sound
from tests.frameworks.matconvnet.write import write
from tests.fuzz.mutators import extreme, flip_bit, flip_byte, near, truncate
from tests.fuzz.suite import PLAIN, Container, Suite, damaged
from tests.twins_dag import inception, save, two_heads

__all__ = ["SUITES"]

SOURCES = {
    version: sorted(TRACES.glob(f"*net*_{version}.mat"))
    + (sorted(TRACES.glob("*netfile.mat")) if version == "v7" else [])
    for version in ("v6", "v7", "v73")
}
"""Sound networks, SimpleNN and DagNN, in each version."""


def _unfold(data: bytes) -> dict[str, bytearray]:
    """The variables of a v7 file, decompressed."""
    parts: dict[str, bytearray] = {}
    at = 128
    while at + 8 <= len(data):
        kind, count = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + count]
        parts[str(at)] = bytearray(zlib.decompress(body) if kind == 15 else data[at : at + 8] + body)
        at += 8 + count
    return parts


def _fold(data: bytes, parts: Mapping[str, bytearray]) -> bytes:
    packed = [zlib.compress(bytes(part), 1) for part in parts.values()]
    return data[:128] + b"".join(struct.pack("<II", 15, len(body)) + body for body in packed)


UNFOLDED = Container("unfolded", _unfold, _fold)

_TAGS = near((b"\x0e\0\0\0", b"\x05\0\x04\0", b"\x01\0\x04\0"), flip_byte)
_TREES = near((b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"MATLAB_"), flip_byte)


def _open(path: Path) -> object:
    """Read, lifted and, now and then, shown."""
    inspection = inspect_file(path)
    return str(inspection) if path.stat().st_size % 16 == 0 else inspection


def _run(path: Path) -> object:
    """Lifted and, where its input is small, run forward and backward."""
    import torch

    from parity.frameworks.matconvnet.lift import lift
    from parity.frameworks.matconvnet.runner import MatConvNetRunner

    torch.set_num_threads(1)
    network, recipe = lift(path)
    sizes = {name: network.inputs[name] for name in network.data(network.inputs)}
    extents = {name: tuple(4 if n is None else n for n in shape) for name, shape in sizes.items()}
    if any(math.prod(shape) > _SMALL for shape in extents.values()):
        return network
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(2, *shape)).astype(np.float32) for name, shape in extents.items()}
    with np.errstate(all="ignore"):
        return MatConvNetRunner(network, recipe).run(feeds, np.zeros(2, np.int64))


_SMALL = 1 << 16

_ODD: tuple[Any, ...] = (
    "", "x", "relu", "conv", 0.0, -1.0, 0.5, 1e9, 1e300, float("nan"), float("inf"), True, np.zeros((0, 0)),
    np.zeros((0, 3)), np.ones((1, 3)), np.ones((2, 2), np.float32), np.ones((1, 1, 3, 2), np.float32),
    np.ones((3, 3), np.int8), np.array([[1 + 2j]]), scipy.sparse.csc_matrix(np.eye(2)), np.zeros((2, 2, 2, 2, 2)),
    {}, {"a": 1.0}, [], [1.0, "x"], [[], []], np.array(["ab", "cd"]),
)  # fmt: skip


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested dicts and lists."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(path for key, item in inside for path in _paths(item, (*at, key)))]


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _cells(value: Any) -> Any:
    """As scipy writes it: a list as a cell row, or as a struct array where it is one."""
    if isinstance(value, dict):
        return {key: _cells(item) for key, item in value.items() if key and key.isidentifier()}
    if isinstance(value, list):
        cell = np.empty((1, len(value)), object)
        for at, item in enumerate(value):
            cell[0, at] = _cells(item)
        return cell
    return value


def _wrong_values(rng: random.Random) -> bytes:
    """A sound network, some of whose values are replaced, removed, doubled, renamed or exchanged."""
    data = _copy(rng.choice(_nets()))
    for _ in range(rng.choice((1, 1, 2, 3))):
        paths = _paths(data)
        if not paths:
            break
        *above, key = rng.choice(paths)
        holder = data
        for step in above:
            holder = holder[step]
        what = rng.random()
        if what < 0.55:
            holder[key] = rng.choice(_ODD)
        elif what < 0.7:
            del holder[key]
        elif what < 0.8 and isinstance(holder, list):
            holder.insert(key, _copy(holder[key]))
        else:
            *above, other = rng.choice(paths)
            source = data
            try:
                for step in (*above, other):
                    source = source[step]
            except (KeyError, IndexError, TypeError):
                continue
            holder[key] = _copy(source)
    stream = io.BytesIO()
    try:
        scipy.io.savemat(stream, _cells(data) or {"empty": 1.0}, long_field_names=True)
    except (ValueError, TypeError):  # what scipy cannot write
        scipy.io.savemat(stream, {"net": rng.choice(_ODD[:12])})
    return stream.getvalue()


@functools.cache
def _nets() -> list[dict[str, Any]]:
    """Sound networks as values: recorded ones, a chain and two graphs with layers of many types."""
    made = [read(path) for path in SOURCES["v6"]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.mat"
        made.append(read(write(path, sound(), "v6")))
        made += [read(save(path, dag)) for dag in (inception(), two_heads())]
    return made


_BYTES = (flip_byte, flip_bit, extreme)

SUITES = (
    Suite("mat-v6", damaged(SOURCES["v6"], (PLAIN,), (*_BYTES, _TAGS, _TAGS)), _open, ".mat"),
    Suite("mat-v7", damaged(SOURCES["v7"], (PLAIN, UNFOLDED), (*_BYTES, _TAGS, _TAGS)), _open, ".mat"),
    Suite("mat-v73", damaged(SOURCES["v73"], (PLAIN,), (*_BYTES, _TREES, _TREES)), _open, ".mat"),
    Suite("mat-cut", damaged([p for v in SOURCES.values() for p in v], (PLAIN,), (truncate,)), _open, ".mat"),
    Suite("mat-values", _wrong_values, _open, ".mat"),
    Suite("mat-run", _wrong_values, _run, ".mat", seconds=60, memory=4 << 30, cost=5),
)
