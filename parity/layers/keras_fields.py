"""How Keras spells the fields that several layer types share: paddings, extents, activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["axis_from_end", "extents", "function_name", "padding", "require_channels_last", "same_padding"]


def extents(value: Any, rank: int) -> tuple[int, ...]:
    """`value` (a number or one per spatial axis) as `rank` integers; raises ValueError for another count."""
    items = tuple(int(v) for v in value) if isinstance(value, Sequence) else (int(value),) * rank
    if len(items) != rank:
        raise ValueError(f"expected {rank} numbers, got {list(items)}")
    return items


def same_padding(extent: int | None, size: int, stride: int, dilate: int = 1) -> tuple[int, int] | None:
    """Cells that `padding="same"` puts (before, after) one axis; the odd cell goes after.

    The output has ceil(extent / stride) cells (tensorflow/core/framework/kernel_shape_util.cc, `SAME`). None where the
    extent is open.
    """
    if extent is None:
        return (((size - 1) * dilate) // 2, (size - 1) * dilate - ((size - 1) * dilate) // 2) if stride == 1 else None
    total = max((-(-extent // stride) - 1) * stride + (size - 1) * dilate + 1 - extent, 0)
    return total // 2, total - total // 2


def padding(
    config: Mapping[str, Any],
    spatial: Sequence[int | None],
    size: Sequence[int],
    stride: Sequence[int],
    dilate: Sequence[int] | None = None,
) -> tuple[int, ...] | None:
    """The cells around each spatial axis, (before, after) per axis, of a layer whose config says `padding`.

    None for `same` where an extent that decides it is open. Raises ValueError for a word that Keras does not have.
    """
    # `border_mode` is Keras 1's word for it.
    word = str(config.get("padding", config.get("border_mode", "valid"))).lower()
    dilate = dilate or (1,) * len(size)
    if word == "valid":
        return (0, 0) * len(size)
    if word == "causal":
        return (size[0] - 1) * dilate[0], 0
    if word != "same":
        raise ValueError(f"unknown padding {word!r}")
    cells: list[int] = []
    for extent, k, s, d in zip(spatial, size, stride, dilate, strict=True):
        sides = same_padding(extent, k, s, d)
        if sides is None:
            return None
        cells.extend(sides)
    return tuple(cells)


def require_channels_last(config: Mapping[str, Any]) -> None:
    """Raises NotImplementedError for a layer that keeps its channels first (`dim_ordering="th"` in Keras 1)."""
    if config.get("data_format") == "channels_first" or config.get("dim_ordering") == "th":
        raise NotImplementedError("channels_first")


def axis_from_end(axis: Any, rank: int | None) -> int:
    """A Keras axis (an int, or a list of one) counted from the end; `rank` counts the batch axis.

    Raises NotImplementedError for several axes, ValueError where it cannot be told.
    """
    if isinstance(axis, Sequence):
        if len(axis) != 1:
            raise NotImplementedError("several axes")
        axis = axis[0]
    axis = int(axis)
    if axis < 0:
        return axis
    if rank is None:
        raise ValueError("the input's rank is unknown")
    return axis - rank


def function_name(value: Any) -> str | None:
    """The name of a Keras activation as a config holds it (a name, or a serialized function); None for a custom object.

    Keras writes `"relu"`, or (3.x) `{"class_name": "function", "config": "relu", "module": "builtins"}`.
    """
    if value is None:
        return "linear"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("config"), str) and value.get("class_name") == "function":
        module = value.get("module") or ""
        return value["config"] if module in ("", "builtins") or module.startswith("keras.") else None
    return None
