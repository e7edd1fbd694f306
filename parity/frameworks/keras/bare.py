"""Bare operations between a model's layers (`x[..., :3]`, `a + b`, `keras.ops.pad`, `tf.reshape`) as kinds."""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from parity.frameworks.keras.kinds import kind_of, plain_settings
from parity.layers import Activation, Concat, Merge, Opaque, Pad, Pool, Reshape, Slice, Softmax, Split
from parity.layers.keras_fields import axis_from_end

if TYPE_CHECKING:
    from parity.layers import Kind
    from parity.network import Shape

__all__ = ["operation_kind"]

_ELEMENTWISE = {
    "add": "add", "addv2": "add", "subtract": "subtract", "sub": "subtract", "multiply": "multiply", "mul": "multiply",
    "maximum": "maximum", "minimum": "minimum",
}  # fmt: skip

_FUNCTIONS = frozenset("relu sigmoid tanh elu selu softplus softsign gelu silu swish relu6 exp".split())

_POOLS = {
    "maxpool": "MaxPooling2D", "max_pool": "MaxPooling2D", "max_pool2d": "MaxPooling2D",
    "averagepool": "AveragePooling2D", "average_pool": "AveragePooling2D", "avg_pool": "AveragePooling2D",
    "avg_pool2d": "AveragePooling2D",
}  # fmt: skip


def operation_kind(name: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
    """The kind of a bare operation; Opaque where the vocabulary has none.

    Args:
        name: its last name, e.g. `"GetItem"`, `"split"`, `"addv2"`.
        arguments: what it is called with, tensors left out or as None; a slice as Python's own.
        settings: its other settings by name.
        inputs: its tensors' shapes, without the batch axis.
    """
    word = name.lower().removeprefix("__").removesuffix("__")
    opaque = Opaque(type=f"operation {name}", config=plain_settings(settings))
    if word in _ELEMENTWISE and len(inputs) == 2:
        return Merge(_ELEMENTWISE[word]) if len(inputs[0]) == len(inputs[1]) else opaque
    if word == "softmax":
        return Softmax(int(settings.get("axis", -1)))
    if word in _FUNCTIONS and len(inputs) == 1:
        return Activation({"exp": "exponential", "silu": "swish"}.get(word, word))
    find = _OTHERS.get("pool" if word in _POOLS else word.removeprefix("reduce_"))
    try:
        return (find(word, arguments, settings, inputs) if find and inputs else None) or opaque
    except (NotImplementedError, TypeError, ValueError, IndexError, KeyError):
        return opaque


def _given(arguments: Sequence[Any], settings: Mapping[str, Any], *names: str) -> Any:
    """An argument by one of its names, or else the first one that is a number or a list; None where there is none."""
    for name in names:
        if settings.get(name) is not None:
            return settings[name]
    return next((a for a in arguments if isinstance(a, int | float | list | tuple) and not isinstance(a, bool)), None)


def _axes(value: Any, rank: int) -> list[int]:
    """Axes counted from the start, the batch axis 0."""
    return sorted(int(axis) % rank for axis in (value if isinstance(value, list | tuple) else [value]))


def _leaky(word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind | None:
    slope = _given(arguments, settings, "negative_slope", "alpha")
    return Activation("relu", 0.2 if slope is None else float(slope))  # the default of Keras' and tensorflow's function


def _reshape(word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind | None:
    """The same values of each image in another shape: the first extent stays the batch's."""
    first, *rest = (-1 if n is None else int(n) for n in _given(arguments, settings, "newshape", "shape"))
    count = math.prod(n for n in inputs[0] if n is not None)
    if None in inputs[0] or (first == -1 and (-1 in rest or math.prod(rest) != count)):
        return None
    if rest.count(-1) > 1 or first != -1:
        return None
    return Reshape(tuple(rest))


def _squeeze(word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind | None:
    axes = _given(arguments, settings, "axis", "squeeze_dims")
    found = _axes(axes, len(inputs[0]) + 1) if axes not in (None, [], ()) else [0]
    if 0 in found or any(inputs[0][axis - 1] != 1 for axis in found):
        return None
    return _fixed([n for axis, n in enumerate(inputs[0], 1) if axis not in found])


def _expand(word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind | None:
    axes = _given(arguments, settings, "axis")
    count = len(axes) if isinstance(axes, list | tuple) else 1
    shape = list(inputs[0])
    for axis in _axes(axes, len(shape) + 1 + count):
        if axis == 0:
            return None
        shape.insert(axis - 1, 1)
    return _fixed(shape)


def _fixed(shape: Sequence[int | None]) -> Kind | None:
    """A reshaping to this shape, of which one extent may be open."""
    if sum(n is None for n in shape) > 1:
        return None
    return Reshape(tuple(-1 if n is None else n for n in shape))


def _pad(word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind | None:
    """Cells of one value around the map."""
    widths = _given(arguments, settings, "pad_width", "paddings")
    value = settings.get("constant_values")
    if value is None:  # tensorflow takes it third, Keras' operation, whose widths are settings, first
        value = next((a for a in arguments if isinstance(a, int | float)), 0)
    if str(settings.get("mode", "constant")).lower() != "constant" or not isinstance(value, int | float):
        return None
    sides = [tuple(int(n) for n in pair) for pair in widths]
    if len(sides) != len(inputs[0]) + 1 or len(sides) < 3 or any(sides[0]) or any(sides[-1]):
        return None
    return Pad(tuple(n for pair in sides[1:-1] for n in pair), float(value))


def _joined(word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind | None:
    axis = _given([a for a in arguments if isinstance(a, int)], settings, "axis")
    found = axis_from_end(0 if axis is None else int(axis), len(inputs[0]) + 1)
    return Concat(found) if len(inputs) > 1 and -len(inputs[0]) <= found else None


def _whole_map(
    word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]
) -> Kind | None:
    """The maximum or mean over every spatial axis is a pooling over the whole map."""
    rank = len(inputs[0]) + 1
    axes = _given(arguments, settings, "axis")
    if rank < 3 or axes is None or _axes(axes, rank) != list(range(1, rank - 1)):
        return None
    keep = bool(settings.get("keepdims", settings.get("keep_dims", False))) or True in arguments
    method = "max" if word.endswith("max") else "avg"
    return Pool(method, None, (1,) * (rank - 2), (0, 0) * (rank - 2), squeeze=not keep)


def _pool(word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind | None:
    """`keras.ops.max_pool`, whose settings are a layer's; tensorflow's have others and stay opaque."""
    if len(inputs[0]) != 3 or "pool_size" not in settings:
        return None
    kind = kind_of(_POOLS[word], settings, inputs)
    return None if isinstance(kind, Opaque) else kind


def _getitem(word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind | None:
    given = (*arguments, settings.get("slice_spec"))
    key = next((a for a in given if isinstance(a, tuple | list)), None)
    return _slice([_index(part) for part in key], inputs[0]) if key is not None else None


def _parts(word: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind | None:
    parts = next((a for a in arguments if isinstance(a, int | tuple | list)), None)
    return _split({"num_or_size_splits": parts, **settings} if parts is not None else settings, inputs[0])


_OTHERS = {
    "leakyrelu": _leaky, "leaky_relu": _leaky, "reshape": _reshape, "squeeze": _squeeze, "expanddims": _expand,
    "expand_dims": _expand, "pad": _pad, "concatenate": _joined, "concat": _joined, "mean": _whole_map,
    "max": _whole_map, "pool": _pool, "getitem": _getitem, "split": _parts,
}  # fmt: skip


def _index(part: Any) -> Any:
    """One part of an index expression; Keras 2 writes a slice as {start, stop, step}, an ellipsis otherwise."""
    if isinstance(part, Mapping):
        if {"start", "stop"} <= set(part):
            return slice(part.get("start"), part.get("stop"), part.get("step"))
        return Ellipsis
    return Ellipsis if isinstance(part, str) else part


def _slice(items: list[Any], shape: Shape) -> Kind | None:
    """A range of one axis, where that is all that an index expression takes."""
    rank = len(shape) + 1
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (rank - len(items) + 1)
    items += [slice(None)] * (rank - len(items))
    if len(items) != rank or not all(isinstance(i, slice) and i.step in (None, 1) for i in items):
        return None
    cut = [i for i, item in enumerate(items) if item.start is not None or item.stop is not None]
    if len(cut) != 1 or cut[0] == 0 or shape[cut[0] - 1] is None:
        return None
    extent = shape[cut[0] - 1] or 0
    start, stop, _ = items[cut[0]].indices(extent)
    return Slice(axis_from_end(cut[0], rank), start, stop)


def _split(settings: Mapping[str, Any], shape: Shape) -> Kind | None:
    """keras.ops.split (parts or indices) or tf.split (parts or sizes)."""
    axis = axis_from_end(settings.get("axis", 0), len(shape) + 1)
    extent = shape[axis] if -axis <= len(shape) else None
    if extent is None:
        return None
    if "num_or_size_splits" in settings:
        sizes = settings["num_or_size_splits"]
        if not isinstance(sizes, int):
            bounds = [sum(sizes[:i]) for i in range(1, len(sizes))]
            return Split(axis, tuple(bounds))
        parts: Any = sizes
    else:
        parts = settings.get("indices_or_sections")
    if isinstance(parts, int):
        return Split(axis, tuple(range(extent // parts, extent, extent // parts)))
    return Split(axis, tuple(int(i) for i in parts)) if parts is not None else None
