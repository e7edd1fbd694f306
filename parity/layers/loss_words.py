"""The losses of vl_nnloss.m by what their labels are."""

from __future__ import annotations

__all__ = ["BINARY", "CATEGORICAL", "INTEGERS"]

CATEGORICAL = ("softmaxlog", "log", "mhinge", "mshinge", "classerror", "topkerror")
"""Losses of class ids: one label per image or pixel."""

BINARY = ("hinge", "logistic", "binarylog", "binaryerror")
"""Losses of attributes: labels -1 and +1 in the predictions' shape; 0 is ignored."""

INTEGERS = ("circle", "ctc")
"""Keras' losses whose labels are whole numbers but not classes of the prediction: whose image it is, or a sequence."""
