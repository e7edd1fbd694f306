"""What a Keras file holds, read with h5py, zipfile and json alone: configurations, weights, optimizer slots.

Three formats, told apart by content and never by extension: HDF5 (Keras 1, 2, 3, and the `.keras` of tensorflow 2.12),
the `.keras` zip (Keras 2.13 and later), and what is neither. Files are untrusted: sizes are checked against the file's
own before anything is read, links that lead out of the file are refused, and nothing in it is executed.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.errors import BadFile, ParityError

if TYPE_CHECKING:
    import h5py

__all__ = ["KerasFile", "Stored", "read"]

CONFIG_LIMIT = 64 << 20
"""Bytes that a configuration may have; ResNet-152's has 0.3 MB."""

GROWTH_LIMIT = 20
"""How often its stored size an array or archive member may unfold to: weights shrink by a tenth, zero slots more."""

OBJECT_LIMIT = 500_000
"""Groups and arrays that a file may hold."""


@dataclass(frozen=True)
class Stored:
    """One stored array: its name in the file, its shape, and where it lies (a path inside the HDF5 file)."""

    name: str
    shape: tuple[int, ...]
    place: str


@dataclass(frozen=True, eq=False)
class KerasFile:
    """The facts of one file.

    Attributes:
        path: the file.
        format: `"hdf5"` or `"zip"`.
        version: the Keras that wrote it, e.g. `"2.1.6"`; empty where the file does not say.
        backend: `"tensorflow"`, `"theano"`, ...; empty where the file does not say.
        model_config: class_name and config of the model.
        training_config: `compile()`'s arguments: `optimizer` (class_name, config), `loss`, `metrics`, `loss_weights`;
            None for a model that was never compiled.
        weights: layer's name → its arrays, in the layer's order, as the model's outermost container names the layers.
            For a zip, name → arrays of each leaf by its path in the archive.
        slots: the optimizer's arrays, in the file's order (`.keras`: by number).
    """

    path: Path
    format: str
    version: str
    backend: str
    model_config: Mapping[str, Any]
    training_config: Mapping[str, Any] | None
    weights: Mapping[str, tuple[Stored, ...]] = field(default_factory=dict)
    slots: tuple[Stored, ...] = ()

    @property
    def era(self) -> int:
        """1, 2 or 3: the major version that wrote it. A file that does not say is taken for the first."""
        major = re.match(r"\d+", self.version)
        return min(max(int(major.group()), 1), 3) if major else 1

    def read(self, stored: Stored) -> np.ndarray:
        """The array itself; raises BadFile where the file is damaged there."""
        with guard(self.path), _hdf5(self.path, self.format) as f:
            return np.asarray(f[stored.place][()])

    def read_slots(self) -> list[tuple[str, np.ndarray]]:
        """Name and value of each of the optimizer's arrays, in the file's order."""
        with guard(self.path), _hdf5(self.path, self.format) as f:
            return [(stored.name, np.asarray(f[stored.place][()])) for stored in self.slots]

    @property
    def steps_done(self) -> int:
        """Updates that the optimizer has behind it, where the file holds the count; otherwise 0."""
        for stored in self.slots:
            word = stored.name.rsplit("/", 1)[-1].split(":")[0]
            counts = re.fullmatch(r"iter(ation|ations)?(_\d+)?", word) or stored.name == "optimizer/vars/0"
            if stored.shape == () and counts:
                return int(self.read(stored))
        return 0


@contextmanager
def guard(path: Path) -> Iterator[None]:
    """Whatever goes wrong in reading becomes one BadFile line; parity's own errors pass."""
    try:
        yield
    except ParityError:
        raise
    except MemoryError as error:
        raise BadFile(path, "is too large to read into memory") from error
    except RecursionError as error:
        raise BadFile(path, "its configuration is nested too deeply", "it was not written by Keras") from error
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise BadFile(path, f"is damaged ({_short(error)})", "copy or download it again, or save it again") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise BadFile(path, f"is a damaged .keras archive ({_short(error)})", "copy or download it again") from error


def read(path: str | Path) -> KerasFile:
    """The facts of the file; arrays stay in it.

    Raises:
        BadFile: missing, empty, truncated, not a Keras file, weights only, or of implausible size.
    """
    path = Path(path)
    if path.is_dir():
        raise BadFile(path, "is a folder", "parity reads .h5 and .keras files; load a SavedModel and save it as one")
    if not path.is_file():
        raise BadFile(path, "does not exist")
    with guard(path):
        with path.open("rb") as f:
            head = f.read(8)
        if head[:4] == b"PK\x03\x04":
            return _read_zip(path)
        if head == b"\x89HDF\r\n\x1a\n":
            return _read_hdf5(path)
    if not head:
        raise BadFile(path, "is empty")
    raise BadFile(path, "is neither an HDF5 file nor a .keras archive", "give a model saved by Keras (.h5 or .keras)")


def _read_hdf5(path: Path) -> KerasFile:
    with _hdf5(path, "hdf5") as f:
        config = _json_attribute(path, f, "model_config")
        weights_group: Any = f.get("model_weights", f)
        if config is None:
            if "layer_names" in weights_group.attrs or "layer_names0" in weights_group.attrs or "layers" in f:
                raise BadFile(path, "holds weights only, without a model", "save the whole model with model.save(...)")
            raise BadFile(path, "is an HDF5 file, but not a Keras model", "give a model saved by Keras (.h5 or .keras)")
        _check_objects(path, f)
        training = _json_attribute(path, f, "training_config")
        weights = {
            layer: _named(path, weights_group[layer], f"{weights_group.name}/{layer}")
            for layer in _strings(weights_group, "layer_names")
        }
        slots: tuple[Stored, ...] = ()
        if "optimizer_weights" in f:
            slots = _named(path, f["optimizer_weights"], "/optimizer_weights")
        version, backend = (_text(f.attrs.get(k, weights_group.attrs.get(k, ""))) for k in ("keras_version", "backend"))
    if training is not None:
        training = {**training, "optimizer": training.get("optimizer_config")}
    return KerasFile(path, "hdf5", version, backend, _model(path, config), training, weights, slots)


def _read_zip(path: Path) -> KerasFile:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if "config.json" not in names:
            raise BadFile(path, "is a zip archive without config.json", "give a model saved by Keras (.h5 or .keras)")
        config = json.loads(_member(path, archive, "config.json", CONFIG_LIMIT))
        meta = json.loads(_member(path, archive, "metadata.json", CONFIG_LIMIT)) if "metadata.json" in names else {}
        if "model.weights.h5" not in names:
            raise BadFile(path, "is a .keras archive without weights", "save the model again")
    weights: dict[str, list[Stored]] = {}
    slots: list[Stored] = []
    with _hdf5(path, "zip") as f:
        _check_objects(path, f)

        def note(name: str, item: Any) -> None:
            if "/vars/" not in f"/{name}" or not hasattr(item, "shape"):
                return
            folder = name.rsplit("/", 1)[0]
            stored = Stored(name, tuple(int(n) for n in item.shape), name)
            if folder.startswith("optimizer"):
                slots.append(stored)
            elif folder.startswith("layers"):
                weights.setdefault(folder.removesuffix("/vars"), []).append(stored)

        f.visititems(note)
    return KerasFile(
        path=path,
        format="zip",
        version=str(meta.get("keras_version", "")),
        backend="",
        model_config=_model(path, config),
        training_config=config.get("compile_config"),
        weights={k: tuple(sorted(v, key=_number)) for k, v in weights.items()},
        slots=tuple(sorted(slots, key=_number)),
    )


def _number(stored: Stored) -> tuple[int, str]:
    tail = stored.name.rsplit("/", 1)[-1]
    return (int(tail), "") if tail.isdigit() else (1 << 30, tail)


def _model(path: Path, config: Any) -> Mapping[str, Any]:
    """The model's configuration, checked to be one."""
    known = isinstance(config, Mapping) and isinstance(config.get("class_name"), str)
    if not known or not isinstance(config.get("config"), list | Mapping):
        raise BadFile(path, "its model configuration is not one that Keras writes")
    return config


@contextmanager
def _hdf5(path: Path, kind: str) -> Iterator[Any]:
    """The HDF5 file itself, or the one inside a `.keras` archive (unfolded into memory, with a bound)."""
    import h5py

    if kind == "hdf5":
        with h5py.File(path, "r") as f:
            yield f
        return
    with zipfile.ZipFile(path) as archive:
        data = _member(path, archive, "model.weights.h5", None)
    with h5py.File(io.BytesIO(data), "r") as f:
        yield f


def _member(path: Path, archive: zipfile.ZipFile, name: str, limit: int | None) -> bytes:
    """One member's bytes; refuses one that unfolds to an implausible size, whatever its header says."""
    info = archive.getinfo(name)
    allowed = limit if limit is not None else max(CONFIG_LIMIT, GROWTH_LIMIT * info.compress_size)
    allowed = min(allowed, max(CONFIG_LIMIT, GROWTH_LIMIT * path.stat().st_size))
    if info.file_size > allowed:
        raise BadFile(path, f"{name} unfolds to {info.file_size:,} bytes, which no Keras file does")
    with archive.open(info) as f:
        data = f.read(allowed + 1)
    if len(data) > allowed:
        raise BadFile(path, f"{name} unfolds to more than {allowed:,} bytes, which no Keras file does")
    return data


def _check_objects(path: Path, f: h5py.File) -> None:
    """Refuses arrays larger than the file can hold and links that lead out of it."""
    import h5py

    allowed = max(CONFIG_LIMIT, GROWTH_LIMIT * path.stat().st_size)
    seen, total, open_groups = set[Any](), 0, ["/"]
    while open_groups:
        group: Any = f[open_groups.pop()]
        address = h5py.h5o.get_info(group.id).addr  # pyright: ignore[reportAttributeAccessIssue]
        if address in seen:
            continue
        seen.add(address)
        if len(seen) > OBJECT_LIMIT:
            raise BadFile(path, f"holds more than {OBJECT_LIMIT:,} groups, which no Keras file does")
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise BadFile(path, f"{group.name}/{name} is a link, which no Keras file has", "do not trust this file")
            item = group[name]
            if isinstance(item, h5py.Group):
                open_groups.append(str(item.name))
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise BadFile(path, f"{item.name} lies in another file", "do not trust this file")
                total += int(item.nbytes)
                if total > allowed:
                    raise BadFile(path, f"declares arrays of more than {allowed:,} bytes, which the file cannot hold")


def _named(path: Path, group: Any, place: str) -> tuple[Stored, ...]:
    """The arrays that a group's `weight_names` lists, in that order."""
    found: list[Stored] = []
    for name in _strings(group, "weight_names"):
        if name not in group:
            raise BadFile(path, f"the array {name} of {place} is missing", "the file is damaged; save it again")
        found.append(Stored(name, tuple(int(n) for n in group[name].shape), f"{place}/{name}"))
    return tuple(found)


def _strings(group: Any, key: str) -> list[str]:
    """A list of strings from an attribute, which Keras cuts into `key0`, `key1`, ... when it is long."""
    if key in group.attrs:
        return [_text(v) for v in group.attrs[key]]
    found: list[str] = []
    chunk = 0
    while f"{key}{chunk}" in group.attrs:
        found.extend(_text(v) for v in group.attrs[f"{key}{chunk}"])
        chunk += 1
    return found


def _json_attribute(path: Path, f: h5py.File, key: str) -> Any:
    """A JSON attribute, or None where it is absent."""
    if key not in f.attrs:
        return None
    raw = _text(f.attrs[key])
    if len(raw) > CONFIG_LIMIT:
        raise BadFile(path, f"its {key} has {len(raw):,} characters, which no Keras file has")
    return json.loads(raw)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:97] + "..."
