"""Losses, as a layer that takes predictions and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class Loss(Kind):
    """What the predictions cost.

    Attributes:
        function: the neutral word: `softmaxlog` (cross-entropy of logits), `log` (cross-entropy of probabilities),
            MatConvNet's other words (mhinge, mshinge, hinge, logistic, binarylog, classerror, topkerror, binaryerror),
            or Keras' own (`binary_crossentropy`, `mean_squared_error`, ...).
        reduction: `"mean"` over the batch's elements, `"sum"`, or `"none"`. MatConvNet's is the mean over the images:
            before 2018 it sums and the trainer divides by the batch, later it divides itself, and what enters the
            update is the same.
        label_smoothing: share of the label's mass spread over all classes.
        sparse: whether the framework's loss wants class ids (True) or one-hot vectors (False).
    """

    causes: ClassVar = {
        "function": "loss-kind",
        "reduction": "loss-reduction",
        "label_smoothing": "loss-kind",
    }
    matconvnet: ClassVar = ("softmaxloss", "loss", "dagnn.Loss")

    function: str = "softmaxlog"
    reduction: str = "mean"
    label_smoothing: float = 0.0
    sparse: bool = True
