"""The losses of vl_nnloss.m by what their labels are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BINARY", "CATEGORICAL", "INTEGERS", "as_signs"]

CATEGORICAL = ("softmaxlog", "log", "mhinge", "mshinge", "classerror", "topkerror")
"""Losses of class ids: one label per image or pixel."""

BINARY = ("hinge", "logistic", "binarylog", "binaryerror")
"""Losses of attributes: labels -1 and +1 in the predictions' shape; 0 is ignored."""

INTEGERS = ("circle", "ctc")
"""Keras' losses whose labels are whole numbers but not classes of the prediction: whose image it is, or a sequence."""


def as_signs(labels: np.ndarray) -> np.ndarray:
    """Labels of attributes as -1 and +1, 0 ignored: they may be given so, or as 0 and 1."""
    return labels if labels.size and labels.min() < 0 else 2 * labels - 1
