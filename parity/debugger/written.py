"""Values as they are written in a command: of a field, or of a parameter."""

from __future__ import annotations

import ast
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import BadUsage
from parity.layers import Kind

__all__ = ["array", "field_names", "value"]

Array = np.ndarray


_TOLD_BY = {"filters": "kernel", "units": "kernel", "bias": "bias", "center": "beta", "scale": "gamma"}
"""Field that only tells of a parameter what there is → the parameter, which says what the layer computes."""


def field_names(kind: Kind) -> list[str]:
    """The fields of a kind that can be edited: what it computes on its own inputs hangs on them.

    The momentum of averages acts in updates alone, where no edit of a field reaches.
    """
    told = {name for name, role in _TOLD_BY.items() if role in kind.roles}
    return [f.name for f in fields(kind) if f.name not in told and f.name != "momentum"]


_LEAST = {"filters": 1, "units": 1, "size": 1, "stride": 1, "dilate": 1, "groups": 1, "upsample": 1,
          "subdivisions": 1, "pad": 0, "crop": 0}  # fmt: skip
"""Field → the least that each of its whole numbers can be."""

_CHOICES = {"method": ("max", "avg"), "stored": ("variance", "deviation"), "reduction": ("mean", "pixel-mean", "sum")}
"""Field → the words that it takes; of others the layer says when it runs."""

_WORDS = {"true": True, "yes": True, "false": False, "no": False, "none": None}


def value(text: str, kind: Kind, name: str) -> Any:
    """The value of a kind's field as written, in the form of its present one; raises BadUsage where it cannot be."""
    like = getattr(kind, name)
    try:
        given = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        given = _WORDS.get(text.lower(), text)
    if given is None and any(f.name == name and "None" in str(f.type) for f in fields(kind)):
        return None
    if isinstance(like, tuple):
        given = tuple(given) if isinstance(given, tuple | list) else (given,) * len(like)
        if len(given) != len(like) or not all(_is_whole(item) for item in given):
            raise BadUsage(f"set: {name} takes {len(like)} whole numbers, e.g. {','.join(map(str, like))}")
    elif isinstance(like, bool) or _is_whole(like):
        if type(given) is not type(like):
            raise BadUsage(f"set: {name} is {like!r}, and cannot be {text!r}")
    elif isinstance(like, float | None):
        if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
            raise BadUsage(f"set: {name} is {like!r}, and takes a number, not {text!r}")
        given = float(given)
    elif not isinstance(given, type(like)):
        raise BadUsage(f"set: {name} is {like!r}, and cannot be {text!r}")
    least, choices = _LEAST.get(name), _CHOICES.get(name)
    numbers: tuple[Any, ...] = given if isinstance(given, tuple) else (given,)
    if least is not None and min(numbers) < least:
        raise BadUsage(f"set: {name} is at least {least}, not {text}")
    if choices is not None and given not in choices:
        raise BadUsage(f"set: {name} is {' or '.join(choices)}, not {text!r}")
    return given


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def array(text: str, like: Array) -> Array:
    """A parameter's value: a number for all of it, or an array in a file, in the parameter's shape."""
    try:
        return np.full(like.shape, float(text), like.dtype)
    except ValueError:
        pass
    path = Path(text)
    try:
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
        raise BadUsage(f"set: {text} is not ref, keras, a number or a .npy file ({why})") from None
    if not isinstance(value, np.ndarray) or value.size != like.size:
        raise BadUsage(f"set: {text} does not hold one array of {like.shape}")
    return value.reshape(like.shape).astype(like.dtype)
