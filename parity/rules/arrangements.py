"""Images that one side is given turned, mirrored or in another order, and classes that it numbers otherwise.

MATLAB keeps arrays by columns and Python by rows, so whoever reads images out of a MAT file of version 7.3 without its
own reader has height and width exchanged; labels that are numbered by folder follow the alphabet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Arrangement", "arrangements", "renumbered"]

Array = np.ndarray

_TURNED = (0, 2, 1, 3)
_FLIPS = {(): "", (1,): "[:, ::-1]", (2,): "[:, :, ::-1]", (1, 2): "[:, ::-1, ::-1]"}
_TURNS = (
    ("transposed: height and width are exchanged", True, ()),
    ("mirrored left to right", False, (2,)),
    ("upside down", False, (1,)),
    ("turned by 180°", False, (1, 2)),
    ("turned by 90° to the right", True, (1,)),
    ("turned by 90° to the left", True, (2,)),
    ("transposed along the other diagonal", True, (1, 2)),
)
"""What the Keras side's images are; whether to exchange height and width again, and which axes to flip then."""

_LOOKED_AT = 4096
"""Values of an image that its partner is sought by."""


@dataclass(frozen=True)
class Arrangement:
    """How one side's images lie to the other's.

    Attributes:
        words: what the Keras side's are.
        code: what puts them right, an expression of `x`.
        values: the same for a copy of the batch: `axes`, `flip`, `order` or `table` (see `parity.changes`).
        images: the Keras side's, put right.
    """

    words: str
    code: str
    values: dict[str, Any] = field(default_factory=dict)
    images: Array = field(default_factory=lambda: np.zeros(0))


def arrangements(a: Array, b: Array) -> Iterator[Arrangement]:
    """The Keras images in every arrangement that parity knows, the likeliest first.

    Args:
        a: the reference's images, (n, h, w, c) or (n, ...).
        b: the Keras side's, of the same shape.
    """
    if a.ndim == 4:
        square = a.shape[1] == a.shape[2]
        for words, turned, flip in _TURNS:
            if square or not turned:
                code = "x" + ".transpose(0, 2, 1, 3)" * turned + _FLIPS[flip]
                made = np.flip(b.transpose(_TURNED) if turned else b, flip)
                yield Arrangement(words, code, {"axes": list(_TURNED) if turned else [], "flip": list(flip)}, made)
    order = _order(a, b)
    if order is not None:
        words = f"the same images in another order: the reference's first is Keras' number {order[0] + 1}"
        yield Arrangement(words, f"x[{_listed(order)}]", {"order": order.tolist()}, b[order])


def _order(a: Array, b: Array) -> Array | None:
    """Which image of `b` is each one of `a`, up to a factor and a constant; None where that is none, or no other."""
    if len(a) < 2:
        return None
    # Without their channels, which may be turned as well.
    rows_a, rows_b = (v.mean(axis=-1).reshape(len(v), -1) if v.ndim == 4 else v.reshape(len(v), -1) for v in (a, b))
    step = max(1, rows_a.shape[1] // _LOOKED_AT)
    rows_a, rows_b = (_standard(v[:, ::step]) for v in (rows_a, rows_b))
    order = np.argmax(np.abs(rows_a @ rows_b.T), axis=1)
    same = np.array_equal(order, np.arange(len(a)))
    return None if same or len(set(order.tolist())) < len(a) else order


def _standard(rows: Array) -> Array:
    """Rows without their mean, of length one."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), np.finfo(float).tiny)


def renumbered(a: Array, b: Array) -> Arrangement | None:
    """Labels whose classes are numbered otherwise, or that come in another order; None for others.

    Args:
        a: the reference's class ids.
        b: the Keras side's, of the same shape.
    """
    pairs = sorted({(int(x), int(y)) for x, y in zip(b.ravel(), a.ravel(), strict=True)})
    numbers = dict(pairs)
    if len(pairs) < 3 or pairs[0][0] < 0 or not len(pairs) == len(numbers) == len(set(numbers.values())) < a.size:
        return None
    table = [numbers.get(k, k) for k in range(max(numbers) + 1)]
    told = ", ".join(f"{y} is {x}" for x, y in pairs[:6]) + (", …" if len(pairs) > 6 else "")
    return Arrangement(f"numbered otherwise (the reference's {told})", f"numpy.array({table})[y]", {"table": table})


def _listed(order: Array) -> str:
    return str(order.tolist()) if len(order) <= 8 else "order"
