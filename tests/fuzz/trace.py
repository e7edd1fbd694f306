"""Damaged traces: bytes, cut ends, and sealed files whose contents make no sense; each is compared with a sound one.

A file that fails its seal must be refused; one that is sealed anew reaches everything behind the seal.
"""

from __future__ import annotations

import json
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import parity
from parity.traces.format import BLOCK, seal
from tests.fuzz.mutators import extreme, flip_bit, flip_byte, truncate
from tests.fuzz.suite import PLAIN, Container, Suite, damaged

__all__ = ["SUITES"]

GATE = Path(__file__).parents[2] / "traces" / "gate"
FILES = [GATE / "matconvnet.h5", GATE / "keras.h5"]


def _compare(path: Path) -> object:
    """Both ways: the damaged trace as the reference and as the Keras side."""
    other = FILES[1] if path.stat().st_size % 2 else FILES[0]
    sides = (path, other) if other is FILES[1] else (other, path)
    return parity.compare(ref=sides[0], keras=sides[1]).to_json()


@cache
def _sealed_anew(data: bytes) -> bytes:
    """The trace in the newest format: the shipped ones are of the first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.h5"
        path.write_bytes(data)
        seal(path, "0.1.0")
        return path.read_bytes()


NEWEST = Container(
    "sealed anew", lambda data: {"": bytearray(_sealed_anew(data))}, lambda data, parts: bytes(parts[""])
)

_ODD: tuple[Any, ...] = (None, -1, 0, 2**70, 1e300, "", "x" * 300, [], {}, [[]], True, {"@": "Conv"}, {"#": 10**6})
_DTYPES = ("f4", "f8", "i8", "u1", "f2", "S3", "c8")


def _wrong_sealed(rng: random.Random) -> bytes:
    """A trace with other facts, other arrays or fewer of them, under a seal that fits."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.h5"
        with h5py.File(rng.choice(FILES)) as old, h5py.File(path, "w", userblock_size=BLOCK) as new:
            for name in old:
                old.copy(name, new)
            for _ in range(rng.choice((1, 1, 2, 5))):
                (_facts if rng.random() < 0.6 else _arrays)(rng, new)
        seal(path, "0.1.0")
        return path.read_bytes()


def _facts(rng: random.Random, file: h5py.File) -> None:
    if not isinstance(file.get("info"), h5py.Dataset) or file["info"].size > 1 << 20:
        return
    try:
        facts = json.loads(bytes(file["info"][()]))
    except (ValueError, TypeError, RecursionError):
        return
    here, key = facts, None
    for _ in range(rng.randrange(1, 12)):
        keys = list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
        if not keys:
            break
        parent, key = here, rng.choice(keys)
        here = parent[key]
    if key is not None:
        if rng.random() < 0.3 and isinstance(parent, dict):
            del parent[key]
        else:
            parent[key] = rng.choice(_ODD)
    text = json.dumps(facts).encode()
    if rng.random() < 0.05:
        text = rng.choice((b"", b"[" * 100_000, b"null", b"\xff", b'{"a":' * 900 + b"1" + b"}" * 900))
    del file["info"]
    file["info"] = np.frombuffer(text, np.uint8)


def _arrays(rng: random.Random, file: h5py.File) -> None:
    names: list[str] = []
    file.visit(names.append)
    name = rng.choice(names)
    what = rng.random()
    if what < 0.3 or not isinstance(file[name], h5py.Dataset):
        del file[name]
        return
    shape = list(file[name].shape)
    if what < 0.4 and file[name].attrs:
        file[name].attrs[rng.choice(list(file[name].attrs))] = rng.choice((-1, "x", [2**40] * 3, [0], 1.5))
        return
    del file[name]
    if what < 0.5:
        file.create_group(name)
        return
    if shape and rng.random() < 0.7:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 33, 1 << 40))
    kind = rng.choice(_DTYPES)
    # What is declared is not what is stored: an extent that nothing fills takes no room in the file.
    file.create_dataset(name, shape, kind, chunks=tuple(min(n, 8) for n in shape) if all(shape) and shape else None)


SUITES = (
    Suite("trace-bytes", damaged(FILES, (PLAIN, NEWEST), (flip_byte, flip_bit, extreme)), _compare, ".h5"),
    Suite("trace-cut", damaged(FILES, (PLAIN, NEWEST), (truncate,)), _compare, ".h5"),
    Suite("trace-sealed", _wrong_sealed, _compare, ".h5", cost=4),
)
