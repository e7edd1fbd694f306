"""Values as they are written in a command: of a field, or of a parameter."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import BadUsage
from parity.layers import Kind

__all__ = ["array", "field_names", "value"]

Array = np.ndarray


def field_names(kind: Kind) -> list[str]:
    """The fields of a kind."""
    return [f.name for f in fields(kind)]


def value(text: str, like: Any, name: str) -> Any:
    """The value of a field as written, in the form of its present one."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    words = {"true": True, "yes": True, "false": False, "no": False, "none": None}
    if isinstance(value, str):
        value = words.get(value.lower(), value)
    if isinstance(like, tuple):
        items = tuple(value) if isinstance(value, tuple | list) else (value,) * len(like)
        if len(items) != len(like) or not all(isinstance(item, int) for item in items):
            raise BadUsage(f"set: {name} takes {len(like)} whole numbers, e.g. {','.join(map(str, like))}")
        return items
    if isinstance(like, bool):
        good = isinstance(value, bool)
    elif isinstance(like, float):
        good = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if good else value
    elif isinstance(like, int):
        good = isinstance(value, int) and not isinstance(value, bool)
    else:
        good = like is None or isinstance(value, type(like))
    if not good:
        raise BadUsage(f"set: {name} is {like!r}, and cannot be {text!r}")
    return value


def array(text: str, like: Array) -> Array:
    """A parameter's value: a number for all of it, or an array in a file, in the parameter's shape."""
    try:
        return np.full(like.shape, float(text), like.dtype)
    except ValueError:
        pass
    path = Path(text)
    try:
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadUsage(f"set: {text} is no number and no .npy file ({' '.join(str(error).split())})") from None
    if not isinstance(value, np.ndarray) or value.size != like.size:
        raise BadUsage(f"set: {text} does not hold one array of {like.shape}")
    return value.reshape(like.shape).astype(like.dtype)
