"""What a Keras file holds, read with h5py, zipfile and json alone: configurations, weights, optimizer slots.

Five formats, told apart by content and never by extension:

- HDF5 with a model (Keras 1, 2, 3, and the `.keras` of tensorflow 2.12);
- the `.keras` zip (Keras 2.13 and later);
- a SavedModel folder of Keras 2 (see `savedmodel`);
- weights alone, in HDF5: by layer name (Keras 1, 2) or by place (`.weights.h5` of Keras 2.13 and later). They need the
  model's JSON beside them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity.errors import BadFile
from parity.frameworks.keras.facts import KerasFile, compiled
from parity.frameworks.keras.hdf5 import (
    CONFIG_LIMIT,
    attribute,
    check_objects,
    guard,
    json_attribute,
    member,
    named,
    opened,
    placed,
    strings,
)
from parity.frameworks.keras.stored import Stored

__all__ = ["KerasFile", "Stored", "compiled", "guard", "read"]

_ARCHITECTURE = "give the model too: --keras-arch model.json (from model.to_json()) or module.py:build"


def read(path: str | Path, arch: str | Path | None = None) -> KerasFile:
    """The facts of the file; arrays stay in it.

    Args:
        path: a file of any format, or a SavedModel's folder.
        arch: the model's JSON, for a file of weights alone.

    Raises:
        BadFile: missing, empty, truncated, not a Keras file, weights only, or of implausible size.
    """
    path = Path(path)
    if path.is_dir():
        from parity.frameworks.keras.savedmodel import read_savedmodel

        with guard(path):
            return read_savedmodel(path)
    if not path.is_file():
        raise BadFile(path, "does not exist")
    with guard(path):
        with path.open("rb") as f:
            head = f.read(8)
        if head[:4] == b"PK\x03\x04":
            return _read_zip(path)
        if head == b"\x89HDF\r\n\x1a\n":
            return _read_hdf5(path, arch)
    if not head:
        raise BadFile(path, "is empty")
    if _of_checkpoint(path):
        raise BadFile(path, "is part of a TensorFlow checkpoint, which holds weights only", "save them as .h5")
    raise BadFile(path, "is neither an HDF5 file nor a .keras archive", "give a model saved by Keras (.h5 or .keras)")


def _of_checkpoint(path: Path) -> bool:
    return path.name == "checkpoint" or path.suffix == ".index" or ".data-0" in path.name


def _read_hdf5(path: Path, arch: str | Path | None) -> KerasFile:
    with opened(path, "hdf5") as f:
        config = json_attribute(path, f, "model_config")
        weights_group: Any = f.get("model_weights", f)
        if config is None:
            return _read_weights(path, f, weights_group, arch)
        check_objects(path, f)
        training = json_attribute(path, f, "training_config")
        weights = _by_name(path, weights_group)
        slots: tuple[Stored, ...] = ()
        if "optimizer_weights" in f:
            slots = named(path, f["optimizer_weights"], "/optimizer_weights")
        version, backend = _origin(path, f, weights_group)
    if training is not None:
        training = {**training, "optimizer": training.get("optimizer_config")}
    return KerasFile(path, "hdf5", version, backend, _model(path, config), compiled(training), weights, slots)


def _by_name(path: Path, group: Any) -> dict[str, tuple[Stored, ...]]:
    """Each layer's arrays, in the order of `layer_names`; weights that the model itself holds come last."""
    base = "" if group.name == "/" else group.name
    found = {name: named(path, group[name], f"{base}/{name}") for name in strings(group, "layer_names")}
    if "top_level_model_weights" in group:
        own = named(path, group["top_level_model_weights"], f"{base}/top_level_model_weights")
        if own:
            found["top_level_model_weights"] = own
    return found


def _origin(path: Path, f: Any, group: Any) -> tuple[str, str]:
    """The version and the backend that wrote it, from the file's attributes or from its weights'."""
    words = ("keras_version", "backend")
    version, backend = (attribute(path, f, word) or attribute(path, group, word) for word in words)
    return version, backend


def _read_weights(path: Path, f: Any, group: Any, arch: str | Path | None) -> KerasFile:
    """A file of weights alone, with the model from its JSON."""
    by_name = "layer_names" in group.attrs or "layer_names0" in group.attrs
    by_place = "layers" in f or any(str(key).startswith("_layer_checkpoint") for key in f)
    if not by_name and not by_place:
        raise BadFile(path, "is an HDF5 file, but not a Keras model", "give a model saved by Keras (.h5 or .keras)")
    if arch is None:
        raise BadFile(path, "holds weights only, without a model", _ARCHITECTURE)
    check_objects(path, f)
    entry, version, backend = _architecture(Path(arch))
    if by_name:
        own, theirs = _origin(path, f, group)
        version, backend = own or version, theirs or backend
        return KerasFile(path, "hdf5", version, backend, entry, None, _by_name(path, group), apart=True)
    weights, slots = placed(f)
    return KerasFile(path, "weights", version or "3", backend, entry, None, weights, slots, apart=True)


def _architecture(path: Path) -> tuple[Mapping[str, Any], str, str]:
    """The model, version and backend of what `model.to_json()` wrote."""
    if not path.is_file():
        raise BadFile(path, "does not exist", "--keras-arch takes what model.to_json() wrote, or module.py:build")
    with guard(path):
        if path.stat().st_size > CONFIG_LIMIT:
            raise BadFile(path, f"has more than {CONFIG_LIMIT:,} bytes, which no model's JSON has")
        entry = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(entry, str):  # json.dump(model.to_json()) is a common slip
            entry = json.loads(entry)
        config = _model(path, entry)
        modern = "module" in config or "registered_name" in config
        version = str(config.get("keras_version") or ("3" if modern else ""))
        return config, version, str(config.get("backend") or "")


def _read_zip(path: Path) -> KerasFile:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if "config.json" not in names:
            raise BadFile(path, "is a zip archive without config.json", "give a model saved by Keras (.h5 or .keras)")
        config = json.loads(member(path, archive, "config.json", CONFIG_LIMIT))
        meta = json.loads(member(path, archive, "metadata.json", CONFIG_LIMIT)) if "metadata.json" in names else {}
        if "model.weights.h5" not in names:
            raise BadFile(path, "is a .keras archive without weights", "save the model again")
    with opened(path, "zip") as f:
        check_objects(path, f)
        weights, slots = placed(f)
    return KerasFile(
        path=path,
        format="zip",
        version=str(meta.get("keras_version", "")),
        backend="",
        model_config=_model(path, config),
        training_config=compiled(config.get("compile_config")),
        weights=weights,
        slots=slots,
    )


def _model(path: Path, config: Any) -> Mapping[str, Any]:
    """The model's configuration, checked to be one."""
    known = isinstance(config, Mapping) and isinstance(config.get("class_name"), str)
    if not known or not isinstance(config.get("config"), list | Mapping):
        raise BadFile(path, "its model configuration is not one that Keras writes")
    return config
