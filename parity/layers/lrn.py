"""Local response normalisation across channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class LRN(Kind):
    """y_k = x_k·(kappa + alpha·Σ x_q²)^-beta over a window of channels (nnnormalize.cu:159-160); alpha is not divided.

    Attributes:
        size: channels in the window: from k - floor((size-1)/2) on.
        kappa: the constant.
        alpha: factor on the sum of squares, not divided by the window.
        beta: the power.
    """

    causes: ClassVar = {"size": "lrn-size", "kappa": "lrn-kappa", "alpha": "lrn-alpha", "beta": "lrn-beta"}
    matconvnet: ClassVar = ("normalize", "lrn", "dagnn.LRN")

    size: int = 5
    kappa: float = 1.0
    alpha: float = 0.0001 / 5
    beta: float = 0.75
