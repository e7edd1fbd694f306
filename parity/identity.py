"""What was compared, as a report and a baseline remember it: paths and digests, or the kind of a live object."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from parity.batch import Batch
from parity.errors import BadFile
from parity.traces.format import header, is_trace

__all__ = ["digest", "identity", "source_file"]

_BLOCK = 1 << 20


def identity(given: Any) -> dict[str, Any]:
    """Path and SHA-256 of a file, a folder or the user's own code; type and name of a live object; {} for None.

    Code is told by what it imports from beside itself as well. A trace is known by the digest that seals it. Arrays in
    memory (a batch) have one of their names, types, shapes and values.

    Args:
        given: a path, `module.py:build`, or anything in memory.

    Raises:
        BadFile: the file cannot be read.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping | Batch):
        return {
            "object": type(given).__name__,
            "sha256": _of_arrays(given.arrays if isinstance(given, Batch) else given),
        }
    if not isinstance(given, str | PathLike):
        return {"object": type(given).__name__, "name": str(getattr(given, "name", "") or "")}
    text = fspath(given)
    path = Path(text)
    if not path.exists():
        head, _, name = text.rpartition(":")
        if name.isidentifier() and head.endswith(".py"):
            return {"path": text, "sha256": _of_code(Path(head), Path(head).parent)}
        if name.isidentifier() and head and all(part.isidentifier() for part in head.split(".")):
            file = getattr(sys.modules.get(head), "__file__", None)  # where it has been imported
            if file is None:
                return {"path": text}
            up = head.count(".") + (Path(file).name == "__init__.py")
            return {"path": text, "sha256": _of_code(Path(file), Path(file).parents[up])}
    if is_trace(path):  # whoever reads it holds it against this digest
        return {"path": str(path), "sha256": header(path).digest}
    return {"path": str(path), "sha256": digest(path)}


def source_file(given: str | PathLike[str]) -> Path:
    """The file that a path names, of `module.py:build` the module's."""
    text = fspath(given)
    head, _, name = text.rpartition(":")
    return Path(head if head.endswith(".py") and name.isidentifier() else text)


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder, whatever order the disk has them in.

    Raises:
        BadFile: it cannot be read.
    """
    found = hashlib.sha256()
    try:
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                found.update(os.fsencode(file.relative_to(path).as_posix()) + b"\0")
                _feed(found, file)
        else:
            _feed(found, path)
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or error})") from None
    return found.hexdigest()


def _of_code(path: Path, root: Path) -> str:
    """SHA-256 of a module and of all that it imports, directly or not, from the folder that it is imported from.

    Installed packages are no part of it, nor is what code imports by a name that it makes up.
    """
    files, waiting = {path.resolve(): path}, [path]
    while waiting:
        for file in _imported(waiting.pop(), root):
            if file.resolve() not in files:
                files[file.resolve()] = file
                waiting.append(file)
    if len(files) == 1:
        return digest(path)
    found = hashlib.sha256()
    for file in sorted(files.values()):
        found.update(f"{Path(os.path.relpath(file, root)).as_posix()} {digest(file)}\n".encode("utf-8", "replace"))
    return found.hexdigest()


def _imported(path: Path, root: Path) -> Iterator[Path]:
    """The files below `root` that a module's import statements name."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return  # whoever runs it says what is wrong with it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [(root, alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = root if not node.level else path.parents[min(node.level, len(path.parents)) - 1]
            parts = node.module.split(".") if node.module else []
            named = [(base, [*parts, alias.name]) for alias in node.names]
        else:
            continue
        for folder, parts in named:
            for count in range(1, len(parts) + 1):
                place = folder.joinpath(*parts[:count])
                yield from (f for f in (place.with_name(f"{place.name}.py"), place / "__init__.py") if f.is_file())


def _of_arrays(arrays: Mapping[str, Any]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays, key=str):
        value = np.asarray(arrays[name])
        found.update(f"{name} {value.dtype.str} {value.shape}\0".encode())
        found.update(repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).data)
    return found.hexdigest()


def _feed(found: Any, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
