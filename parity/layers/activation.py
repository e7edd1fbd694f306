"""Elementwise activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, scalar, setting
from parity.layers.keras_fields import function_name
from parity.layers.softmax import Softmax

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Activation(Kind):
    """One function of each element.

    Attributes:
        function: the field's word for it: relu, sigmoid, tanh, linear, elu, selu, softplus, softsign, swish, gelu,
            exponential, hard_sigmoid (Keras 3's; hard_sigmoid_legacy is Keras 1's and 2's), relu6 ...
        slope: of the negative part, for relu (MatConvNet's `leak`) and elu (its alpha).
        limit: what relu saturates at (Keras' `max_value`); None for no limit.
        threshold: below which relu is the negative part (Keras' `threshold`).
    """

    causes: ClassVar = {
        "function": "activation-kind",
        "slope": "activation-slope",
        "limit": "activation-kind",
        "threshold": "activation-kind",
    }
    matconvnet: ClassVar = ("relu", "sigmoid", "dagnn.ReLU", "dagnn.Sigmoid")
    keras: ClassVar = ("Activation", "ReLU", "LeakyReLU", "ELU", "ThresholdedReLU")
    by_image: ClassVar = True

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
        if field_name == "function" and self.function == "hard_sigmoid_legacy":
            return "activation=lambda x: keras.ops.clip(0.2 * x + 0.5, 0, 1)"
        if field_name == "function":
            return f'activation="{self.function}"'
        names = {"slope": "alpha" if self.function == "elu" else "negative_slope", "limit": "max_value"}
        return f"{names.get(field_name, field_name)}={getattr(self, field_name)}"

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The function of each element; relu's derivative at its threshold is the slope (vl_nnrelu.m)."""
        import torch
        import torch.nn.functional as F

        x = inputs[0]
        if self.function in ("relu", "leaky_relu", "relu6"):
            limit = 6.0 if self.function == "relu6" and self.limit is None else self.limit
            shifted = x - self.threshold if self.threshold else x
            y = F.leaky_relu(shifted, self.slope) if self.slope else F.relu(shifted)
            if self.threshold:
                y = torch.where(x > self.threshold, x, y)
            return y if limit is None else torch.clamp(y, max=limit)
        functions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "linear": lambda x: x,
            "sigmoid": torch.sigmoid,
            "tanh": torch.tanh,
            "elu": lambda x: F.elu(x, self.slope),
            "selu": F.selu,
            "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
            "softsign": F.softsign,
            "swish": F.silu,
            "silu": F.silu,
            "gelu": F.gelu,
            "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
            "mish": F.mish,
            "exponential": torch.exp,
            "hard_sigmoid": F.hardsigmoid,  # relu6(x + 3)/6, Keras 3
            "hard_sigmoid_legacy": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),  # Keras 1 and 2
            "hard_swish": F.hardswish,
            "hard_silu": F.hardswish,
            "hard_tanh": F.hardtanh,
            "log_sigmoid": F.logsigmoid,
            "log_softmax": lambda x: x.log_softmax(1),
            "celu": F.celu,
            "tanh_shrink": F.tanhshrink,
            "soft_shrink": F.softshrink,
            "hard_shrink": F.hardshrink,
            "squareplus": lambda x: (x + torch.sqrt(x * x + 4)) / 2,
        }
        if self.function not in functions:
            raise NotImplementedError(f"the activation {self.function!r} cannot run on torch")
        return functions[self.function](x)

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Activation:
        """A `relu` layer with its leak, or a `sigmoid` layer."""
        return cls("relu", setting(layer, "leak", scalar)) if layer["type"] == "relu" else cls("sigmoid")
