"""A network and a recipe as JSON: dataclasses by their fields, classes by their names, arrays beside the text.

Nothing is pickled, and reading makes only values of the vocabulary: a layer type or update rule that this parity does
not know becomes an opaque one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from parity.layers import KINDS, Kind, Opaque
from parity.network import Layer, Network, Param
from parity.optimizers import RULES, OpaqueRule, UpdateRule
from parity.recipe import Recipe, Schedule

__all__ = ["decoded", "encoded"]

_CLASSES: Mapping[str, type[Any]] = {
    cls.__name__: cls for cls in (*KINDS, Opaque, *RULES, OpaqueRule, Layer, Network, Param, Recipe, Schedule)
}
_DEEP = 60


def encoded(value: Any, store: Callable[[np.ndarray], int]) -> Any:
    """A value as what JSON knows.

    Args:
        value: a network, a recipe, or anything in them.
        store: keeps an array and gives its number.
    """
    match value:
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else {"~": str(float(value))}
        case np.generic():
            return encoded(value.item(), store)
        case np.ndarray():
            return _array(value, store)
        case tuple():
            return {"(": [encoded(item, store) for item in value]}
        case list():
            return [encoded(item, store) for item in value]
        case frozenset() | set():
            return {"{": sorted(str(item) for item in value)}
        case Mapping():
            return {":": [[encoded(key, store), encoded(item, store)] for key, item in value.items()]}
    if is_dataclass(value) and type(value).__name__ in _CLASSES:
        held = {f.name: encoded(getattr(value, f.name), store) for f in fields(value) if not _left_out(value, f.name)}
        return {"@": type(value).__name__, "=": held}
    # What a file holds and nobody knows (a function handle, an object) is only ever shown.
    return {"?": " ".join(str(value).split())[:200]}


def _left_out(value: Any, name: str) -> bool:
    """A parameter's value is stored with the weights, not with the network."""
    return isinstance(value, Param) and name == "value"


def _array(value: np.ndarray, store: Callable[[np.ndarray], int]) -> Any:
    if value.dtype.kind not in "biuf":
        return {"[": [encoded(item, store) for item in value.ravel().tolist()], "shape": list(value.shape)}
    return {"#": store(value)}


def decoded(value: Any, load: Callable[[int], Any], deep: int = 0) -> Any:
    """What `encoded` was given.

    Args:
        value: from JSON.
        load: the array of a number.
        deep: how many values this one lies in.

    Raises:
        ValueError: it is none of these values; the text says what.
    """
    if deep > _DEEP:
        raise ValueError("its values lie too deep in one another")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [decoded(item, load, deep + 1) for item in value]
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}")
    if "@" in value:
        return _object(str(value["@"]), value.get("=", {}), load, deep)
    form, held = next(iter(value.items()), ("", None))
    match form, held:
        case "~", str():
            return float(held)
        case "?", str():
            return held
        case "#", int():
            return load(held)
        case "(", list():
            return tuple(decoded(item, load, deep + 1) for item in held)
        case "{", list():
            return frozenset(str(item) for item in held)
        case ":", list():
            return {decoded(key, load, deep + 1): decoded(item, load, deep + 1) for key, item in held}
        case "[", list():
            made = np.empty(len(held), object)
            made[:] = [decoded(item, load, deep + 1) for item in held]
            return made.reshape([int(n) for n in value.get("shape", [len(held)])])
    raise ValueError(f"holds a value of the unknown form {form!r}")


def _object(name: str, held: Any, load: Callable[[int], Any], deep: int) -> Any:
    if not isinstance(held, dict):
        raise ValueError(f"its {name} has no fields")
    values = {str(key): decoded(item, load, deep + 1) for key, item in held.items()}
    cls = _CLASSES.get(name)
    if cls is None:
        # A newer parity may know more layer types than this one.
        return Opaque(type=name, config=values)
    known = {f.name for f in fields(cls)}
    strange = sorted(set(values) - known)
    if strange:
        raise ValueError(f"its {name} has {strange[0]!r}, which this parity does not know")
    try:
        made = cls(**values)
    except TypeError as error:
        raise ValueError(f"its {name} is incomplete ({error})") from None
    _typed(made)
    return made


def _typed(value: Any) -> None:
    """Raise ValueError where what the rest of parity relies on is of another type."""
    wanted: dict[str, Any] = {}
    match value:
        case Param():
            wanted = {"id": str, "role": str, "axes": str, "shape": tuple, "trainable": bool}
            wanted |= dict.fromkeys(("rate_multiplier", "decay_multiplier", "l2", "l1"), int | float)
        case Layer():
            wanted = {"name": str, "kind": Kind, "inputs": tuple, "outputs": tuple, "params": Mapping, "origin": str}
            if not (value.outputs and all(isinstance(t, str) for t in (*value.inputs, *value.outputs))):
                raise ValueError("one of its layers has no named tensors")
        case Network():
            wanted = {"name": str, "framework": str, "inputs": Mapping, "outputs": tuple, "layers": tuple}
            wanted |= {"params": Mapping, "labels": tuple, "objectives": Mapping, "meta": Mapping, "remarks": tuple}
            _fits(value)
        case Recipe():
            wanted = {"learning_rate": Schedule, "weight_decay": int | float, "decoupled_decay": int | float}
            wanted |= {"optimizer": UpdateRule | None, "clip": Mapping, "slots": Mapping, "sub_batches": int}
            wanted |= {"version": str, "origin": str, "notes": tuple, "metrics": tuple}
        case Schedule():
            wanted = {"kind": str, "values": tuple, "decay": int | float, "start": int, "config": Mapping}
    for name, kind in wanted.items():
        if not isinstance(getattr(value, name), kind):
            raise ValueError(f"the {name} of its {type(value).__name__.lower()} is of no type that it can be")


def _fits(network: Network) -> None:
    """Raise ValueError where layers, tensors and parameters do not hang together."""
    names = (*network.inputs, *network.outputs, *network.labels, *network.objectives, *network.params)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("one of the names of its network is no text")
    if not all(isinstance(weight, int | float) for weight in network.objectives.values()):
        raise ValueError("the weight of one of its losses is no number")
    if not all(shape is None or isinstance(shape, tuple) for shape in network.inputs.values()):
        raise ValueError("the shape of one of its inputs is none")
    if not all(isinstance(layer, Layer) for layer in network.layers):
        raise ValueError("one of its layers is none")
    if not all(isinstance(param, Param) and param.id == key for key, param in network.params.items()):
        raise ValueError("its parameters do not have the names under which they stand")
    for layer in network.layers:
        lost = [key for key in layer.params.values() if key not in network.params]
        if lost:
            raise ValueError(f"its layer {layer.name} has the parameter {lost[0]}, which it does not hold")
    names = [layer.name for layer in network.layers]
    if len(set(names)) != len(names):
        raise ValueError("two of its layers have one name")
