"""Damaged Keras files: bytes of `.h5` and `.keras` files, wrong values in their configurations, arrays and archives.

All are opened as `parity inspect` does; the `kerasload` suite also builds the models that are left.
"""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from parity.inspection import inspect_file
from tests.frameworks.keras.real import every
from tests.fuzz.mutators import extreme, flip_bit, flip_byte, near, truncate
from tests.fuzz.suite import PLAIN, Container, Suite, damaged

__all__ = ["SUITES"]

HDF5 = [p for p in every("*/*.h5") if p.stat().st_size < 400_000]
ZIPS = [p for p in every("*/*.keras") if p.stat().st_size < 400_000]


def _members(data: bytes) -> dict[str, bytearray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: bytearray(archive.read(name)) for name in archive.namelist()}


def _archived(data: bytes, parts: Mapping[str, bytearray]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, bytes(part))
    return stream.getvalue()


MEMBERS = Container("members", _members, _archived)

_TREES = near((b"TREE", b"SNOD", b"HEAP", b"GCOL", b"OHDR", b"FRHP", b"model_config", b"weight_names"), flip_byte)
_ZIP = near((b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04"), flip_byte, 40)
_BYTES = (flip_byte, flip_bit, extreme)


def _open(path: Path) -> object:
    """Read, lifted and, now and then, shown; its slots read too."""
    inspection = inspect_file(path)
    if path.stat().st_size % 8 == 0:
        for slots in inspection.recipe.slots.values():
            list(slots.values())
    return str(inspection) if path.stat().st_size % 16 == 0 else inspection


def _load(path: Path) -> object:
    """Lifted and brought to life."""
    from parity.frameworks.keras.load import load

    inspect_file(path)
    return load(path)


_ODD: tuple[Any, ...] = (
    None, "x", "", "relu", "same", "channels_first", -1, 0, 1, 2, 7, 10**9, 10**30, 0.5, -1.0, 1e300, float("nan"),
    float("inf"), True, False, [], {}, [None], [[]], [1, 2], [0, 0, 0, 0, 0], [10**9, 10**9], ["x", 0, 0], {"a": 1},
    {"class_name": "Lambda", "config": {}}, {"class_name": "Dense", "config": {"units": 10**12}},
    {"class_name": "function", "config": "os.system", "module": "os"}, [[["x", 0, 0, {}]]],
)  # fmt: skip


def _places(item: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    return [*([at] if at else []), *(place for key, value in inside for place in _places(value, (*at, key)))]


def _at(item: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        item = item[key]
    return item


def _changed(rng: random.Random, config: Any) -> Any:
    """A configuration some of whose values are replaced, removed, doubled, exchanged or nested."""
    config = copy.deepcopy(config)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        places = _places(config)
        if not places:
            break
        *above, key = rng.choice(places)
        holder, what = _at(config, tuple(above)), rng.random()
        if what < 0.55:
            holder[key] = copy.deepcopy(rng.choice(_ODD))
        elif what < 0.7:
            del holder[key]
        elif what < 0.8 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif what < 0.82:
            for _ in range(rng.choice((3, 40, 2000))):
                holder[key] = rng.choice(([holder[key]], {"class_name": "Sequential", "config": [holder[key]]}))
            break  # what follows would go to the bottom of it
        else:
            holder[key] = copy.deepcopy(_at(config, rng.choice(places)))
    return config


_held: dict[Path, Any] = {}


def _bytes(path: Path) -> bytes:
    if path not in _held:
        _held[path] = path.read_bytes()
    return _held[path]


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):  # deeper than Python's own writer goes
        return "[" * 20_000 + "]" * 20_000


def _wrong_hdf5(rng: random.Random) -> bytes:
    """An HDF5 file whose configurations, lists of names or arrays are other than Keras writes them."""
    stream = io.BytesIO(_bytes(rng.choice(HDF5)))
    with h5py.File(stream, "r+") as f:
        sound = {key: json.loads(f.attrs[key]) for key in ("model_config", "training_config") if key in f.attrs}
        for _ in range(rng.choice((1, 1, 2))):
            what = rng.random()
            if what < 0.6:
                key = rng.choice(list(sound) or ["model_config"])
                _put(f, key, _dumped(_changed(rng, sound.get(key, {}))))
            elif what < 0.75:
                groups: list[Any] = [f]
                f.visititems(lambda name, item, into=groups: into.append(item) if len(item.attrs) else None)
                group = rng.choice(groups)
                if len(group.attrs):
                    value = rng.choice(("", "2.1.6", "{", "[]", 3, [1.5], b"\xff\xfe", []))
                    _put(group, rng.choice(list(group.attrs)), value)
            else:
                names: list[str] = []
                f.visit(names.append)
                name = rng.choice(names)
                if name not in f:
                    continue
                array = rng.choice((np.zeros(()), np.zeros((0, 3)), np.ones((2, 2), "i1"), np.bytes_("x"), None, "big"))
                del f[name]
                if isinstance(array, str):
                    f.create_dataset(name, shape=(1 << 38,), dtype="f4", chunks=(1 << 16,))
                elif array is not None:
                    f[name] = array
    return stream.getvalue()


def _put(group: Any, key: str, value: Any) -> None:
    if key in group.attrs:
        del group.attrs[key]
    try:
        group.attrs[key] = value
    except (TypeError, ValueError, RuntimeError, OSError):  # longer than an attribute may be
        group.attrs[key] = "{}"


def _wrong_zip(rng: random.Random) -> bytes:
    """An archive with other members, or with a configuration that Keras does not write."""
    parts = _members(_bytes(rng.choice(ZIPS)))
    sound = json.loads(bytes(parts["config.json"]))
    for _ in range(rng.choice((1, 1, 2))):
        what = rng.random()
        if what < 0.7:
            parts["config.json"] = bytearray(_dumped(_changed(rng, sound)).encode())
        elif what < 0.8:
            parts[rng.choice(list(parts))] = bytearray(rng.choice((b"", b"{", b"null", b"[" * 100_000, b"\xff\xfe")))
        elif what < 0.9:
            parts.pop(rng.choice(list(parts)), None)
            parts.setdefault("config.json", bytearray(b"{}"))
        else:
            parts[rng.choice(("config.json", "model.weights.h5", "metadata.json"))] = bytearray(b" " * (90 << 20))
    return _archived(b"", parts)


SUITES = (
    Suite("keras-hdf5", damaged(HDF5, (PLAIN,), (*_BYTES, _TREES, _TREES, _TREES)), _open, ".h5"),
    Suite("keras-zip", damaged(ZIPS, (PLAIN, MEMBERS, MEMBERS), (*_BYTES, _ZIP, _TREES)), _open, ".keras"),
    Suite("keras-cut", damaged([*HDF5, *ZIPS], (PLAIN,), (truncate,)), _open, ".h5"),
    Suite("keras-values", lambda rng: _wrong_hdf5(rng) if rng.random() < 0.6 else _wrong_zip(rng), _open, ".h5"),
    Suite(
        "kerasload",
        lambda rng: _wrong_hdf5(rng) if rng.random() < 0.5 else _wrong_zip(rng),
        _load,
        ".h5",
        seconds=120.0,
        memory=6 << 30,
        strict=False,
        cost=20,
    ),
)
