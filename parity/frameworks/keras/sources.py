"""A model built by the user's own code: `module.py:build`, named on the command line and run because it is named."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from parity.errors import BadFile
from parity.frameworks.keras.engine import tensorflow

__all__ = ["build", "is_source"]


def is_source(spec: str) -> bool:
    """Whether a text names a function of a Python file or module (`net.py:build`, `package.net:build`), and no file."""
    head, _, name = spec.rpartition(":")
    if not head or not name.isidentifier() or Path(spec).exists():
        return False
    return head.endswith(".py") or all(part.isidentifier() for part in head.split("."))


def build(spec: str) -> Any:
    """What a function of the user's returns, or an object that he names: a Keras model.

    Args:
        spec: `path/to/module.py:name` or `package.module:name`. The file is run as Python runs a module: what
            lies beside it can be imported.

    Raises:
        BadFile: there is no such file or name, or the code fails; the line says where.
    """
    head, _, name = spec.rpartition(":")
    module = _module(spec, head)
    if not hasattr(module, name):
        raise BadFile(spec, f"has no {name}", "name a function that returns the model, or the model itself")
    found = getattr(module, name)
    if callable(found) and not hasattr(found, "get_config"):
        try:
            found = found()
        except Exception as error:
            raise _failed(spec, error) from error
    return found


def _module(spec: str, head: str) -> ModuleType:
    if not head.endswith(".py"):
        _import_quietly()
        try:
            return importlib.import_module(head)
        except Exception as error:
            raise _failed(spec, error) from error
    path = Path(head)
    if not path.is_file():
        raise BadFile(head, "does not exist", "name a Python file and a function in it: module.py:build")
    _import_quietly()
    if str(path.parent.resolve()) not in sys.path:
        sys.path.insert(0, str(path.parent.resolve()))
    described = importlib.util.spec_from_file_location(path.stem, path)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules.setdefault(path.stem, module)  # classes are looked up by their module's name
    try:
        described.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _failed(spec, error) from error
    return module


def _import_quietly() -> None:
    """Import tensorflow before the user's code does, which would let its start-up notes through."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        tensorflow()


def _failed(spec: str, error: BaseException) -> BadFile:
    """What went wrong in the user's code, with its place there."""
    text = " ".join(str(error).split())
    text = f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '...'}"
    frames = traceback.extract_tb(error.__traceback__)
    head = spec.rpartition(":")[0]
    place = next((f for f in reversed(frames) if Path(f.filename).name == Path(head).name), None)
    where = f" at line {place.lineno}" if place is not None and place.lineno else ""
    if isinstance(error, SyntaxError) and error.lineno:
        where = f" at line {error.lineno}"
    return BadFile(spec, f"failed{where} ({text})", "it is run because it is named")
