"""The instance weights that a MatConvNet file holds for a loss: the same for every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape

__all__ = ["Factor", "check_weights", "spread", "stored_weights"]

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


def check_weights(factor: Factor, inputs: Sequence[Shape]) -> None:
    """Raises ValueError where there is not one weight for each cell of the predictions (h, w, c), or row of them."""
    if isinstance(factor, float | int) or not inputs or len(inputs[0]) != 3:
        return
    given = len(factor), len(factor[0])
    if any(extent not in (1, known) for extent, known in zip(given, inputs[0][:2], strict=True) if known is not None):
        cells = "×".join("?" if n is None else str(n) for n in inputs[0][:2])
        raise ValueError(
            f"its instanceWeights are {given[0]}×{given[1]}, but the predictions have {cells} cells; "
            "weights of single images belong to one batch: remove them, and give weights with the labels"
        )


def spread(factor: Factor, x: torch.Tensor) -> torch.Tensor | float:
    """As it broadcasts against costs (n, h, w) of the type of `x`."""
    import torch

    return torch.tensor(factor, dtype=x.dtype).unsqueeze(0) if isinstance(factor, tuple) else factor
