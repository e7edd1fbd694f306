"""The instance weights that a MatConvNet file holds for a loss: the same for every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["Factor", "spread", "stored_weights"]

Factor = float | tuple[tuple[float, ...], ...]
"""One number, or one for each cell of the map, row by row."""

_MOST = 1 << 22


def stored_weights(layer: Mapping[str, Any]) -> Factor:
    """`instanceWeights` of a layer or of a block's options: a number or h×w; 1 where there are none (vl_nnloss.m).

    Raises:
        ValueError: weights of single images, which belong to one batch only, or no numbers.
    """
    import numpy as np

    given = layer.get("instanceWeights")
    if isinstance(given, list) and not given:
        given = None
    array = np.zeros(0) if given is None else given if isinstance(given, np.ndarray) else np.array(given, object)
    if array.dtype.kind not in "biuf":
        raise ValueError("its instanceWeights are not numbers")
    if array.size <= 1:
        return float(array.item()) if array.size else 1.0
    if any(extent != 1 for extent in array.shape[2:]):
        raise ValueError("its instanceWeights are those of one batch; remove them, and give weights with the labels")
    if array.size > _MOST:
        raise ValueError(f"its instanceWeights are {array.size} numbers")
    rows = array.reshape(array.shape[0], -1).astype(np.float64)
    return tuple(tuple(row) for row in rows.tolist())


def spread(factor: Factor, x: torch.Tensor) -> torch.Tensor | float:
    """As it broadcasts against costs (n, h, w) of the type of `x`."""
    import torch

    return torch.tensor(factor, dtype=x.dtype).unsqueeze(0) if isinstance(factor, tuple) else factor
