"""Telling files apart by their content, never by their name, and lifting them into the neutral vocabulary."""

from __future__ import annotations

import zipfile
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from parity.errors import BadFile

if TYPE_CHECKING:
    from parity.network import Network
    from parity.recipe import Recipe

__all__ = ["framework_of", "lift"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TRACE = b"parity-trace/"


def framework_of(path: str | PathLike[str]) -> str:
    """What wrote a file: `"matconvnet"` a MAT file of any version, `"keras"` HDF5, a `.keras` archive or a SavedModel
    folder, `"trace"` a recorded run.

    Only the container is looked at: whether a network is in it is for the framework's own reader to say.

    Raises:
        BadFile: missing, a directory, empty, or neither.
    """
    path = Path(fspath(path))
    if path.is_dir():
        if any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt", "checkpoint")):
            return "keras"
        raise BadFile(path, "is a directory", "save the model as one file, .keras or .h5")
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except FileNotFoundError:
        raise BadFile(path, "there is no such file", "check the path") from None
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or error})") from None
    if not head:
        raise BadFile(path, "is empty", "copy or save it again")
    if head.startswith(_TRACE):
        return "trace"
    if head.startswith(_HDF5):
        return "matconvnet" if _from_matlab(path) else "keras"
    if head.startswith(b"MATLAB") or head[126:128] in (b"IM", b"MI") or head[512:520] == _HDF5:
        return "matconvnet"
    if head.startswith(b"PK"):
        if _holds_only_arrays(path):
            raise BadFile(path, "is an .npz archive, not a model", "pass it as --batch")
        return "keras"
    raise BadFile(path, "is neither a MatConvNet .mat nor a Keras .h5 or .keras file", "check the path")


def lift(path: str | PathLike[str], arch: str | PathLike[str] | None = None) -> tuple[Network, Recipe]:
    """The network and the recipe that a file of either framework holds; nothing in it is built or run.

    Args:
        path: the file, or a SavedModel's folder.
        arch: the model's JSON, for a Keras file of weights alone.

    Raises:
        BadFile: as the framework's reader says.
    """
    if framework_of(path) == "matconvnet":
        from parity.frameworks.matconvnet.lift import lift as lift_matconvnet

        return lift_matconvnet(Path(fspath(path)))
    from parity.frameworks.keras.lift import lift as lift_keras

    return lift_keras(Path(fspath(path)), None if arch is None else Path(fspath(arch)))


def _from_matlab(path: Path) -> bool:
    """Whether an HDF5 file without MATLAB's own header holds MATLAB's variables (some writers leave the header out)."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return any("MATLAB_class" in file[name].attrs for name in list(file)[:16])
    except Exception:  # a damaged file: Keras' reader says what is wrong with it
        return False


def _holds_only_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:64]
    except Exception:  # damaged: Keras' reader says what is wrong with it
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)
