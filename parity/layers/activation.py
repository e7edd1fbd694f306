"""Elementwise activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Kind
from parity.layers.keras_fields import function_name
from parity.layers.softmax import Softmax

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from parity.network import Shape


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

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """ReLU, LeakyReLU, ELU, ThresholdedReLU, or `Activation` by name (a Softmax where the name says so)."""
        if class_name == "ReLU":
            limit = config.get("max_value")
            return cls(
                "relu",
                float(config.get("negative_slope") or 0.0),
                None if limit is None else float(limit),
                float(config.get("threshold") or 0.0),
            )
        if class_name == "LeakyReLU":  # Keras 3 says negative_slope, Keras 1 and 2 say alpha; the default is 0.3
            return cls("relu", float(config.get("negative_slope", config.get("alpha", 0.3))))
        if class_name == "ELU":
            return cls("elu", float(config.get("alpha", 1.0)))
        if class_name == "ThresholdedReLU":
            return cls("relu", threshold=float(config.get("theta", 1.0)))
        name = function_name(config.get("activation", class_name))
        if name is None:
            raise NotImplementedError("a custom activation")
        name = name.removeprefix("keras.activations.").lower()
        if name == "softmax":
            return Softmax()
        # keras.activations.leaky_relu and elu have defaults of their own (keras/src/activations/activations.py).
        return {
            "leaky_relu": cls("relu", 0.2),
            "relu6": cls("relu", limit=6.0),
            "elu": cls("elu", 1.0),
            "silu": cls("swish"),
        }.get(name, cls(name))

    def keras_line(self, field_name: str) -> str:
        """The argument or layer that gives the field its value."""
        if field_name == "function":
            return f'activation="{self.function}"'
        names = {"slope": "alpha" if self.function == "elu" else "negative_slope", "limit": "max_value"}
        return f"{names.get(field_name, field_name)}={getattr(self, field_name)}"
