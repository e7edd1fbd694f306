"""Elementwise activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class Activation(Kind):
    """One function of each element.

    Attributes:
        function: the field's word for it: relu, sigmoid, tanh, linear, elu, selu, softplus, softsign, swish, gelu,
            exponential, hard_sigmoid, relu6 ...
        slope: of the negative part, for relu (MatConvNet's `leak`) and elu (its alpha).
        limit: what relu saturates at (Keras' `max_value`); None for no limit.
        threshold: below which relu is the negative part (Keras' `threshold`).
    """

    causes: ClassVar = {"function": "activation-kind", "slope": "activation-slope", "limit": "activation-kind"}
    matconvnet: ClassVar = ("relu", "sigmoid", "dagnn.ReLU", "dagnn.Sigmoid")
    keras: ClassVar = ("Activation", "ReLU", "LeakyReLU", "ELU", "ThresholdedReLU")

    function: str = "relu"
    slope: float = 0.0
    limit: float | None = None
    threshold: float = 0.0
