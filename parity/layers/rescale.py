"""An affine map with constants from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Rescale(Kind):
    """y = x·scale + offset (Keras Rescaling, and Normalization by a mean and variance of its configuration).

    Attributes:
        scale: one number, or one for each channel.
        offset: likewise.
    """

    causes: ClassVar = {"scale": "input-scale", "offset": "input-mean"}
    keras: ClassVar = ("Rescaling", "Normalization")

    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Rescaling and Normalization; a scale of another shape than (), (c,) or (1, 1, c) raises NotImplementedError.

        So does a Normalization that holds its mean and variance as weights.
        """
        if class_name == "Normalization":
            return cls._from_moments(config)
        return cls(_numbers(config.get("scale", 1.0)), _numbers(config.get("offset", 0.0)))

    @classmethod
    def _from_moments(cls, config: Mapping[str, Any]) -> Rescale:
        """(x - mean)/max(sqrt(variance), 1e-7), or the inverse (keras/src/layers/preprocessing/normalization.py)."""
        import numpy as np

        if config.get("mean") is None or config.get("variance") is None:
            raise NotImplementedError("a mean and variance that are weights")
        axis = config.get("axis", -1)
        if axis is not None and tuple(np.ravel(axis)) != (-1,) and np.size(_numbers(config["mean"])) != 1:
            raise NotImplementedError("another axis than the channels")
        mean, variance = np.asarray(_numbers(config["mean"])), np.asarray(_numbers(config["variance"]))
        deviation = np.maximum(np.sqrt(variance), 1e-7)
        scale, offset = (deviation, mean) if config.get("invert") else (1 / deviation, -mean / deviation)
        return cls(_numbers(scale), _numbers(offset))

    def keras_line(self, field_name: str) -> str:
        """`scale=...` or `offset=...`."""
        value = getattr(self, field_name)
        return f"{field_name}={list(value) if isinstance(value, tuple) else value}"

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """x·scale + offset."""
        x = inputs[0]
        return x * _spread(self.scale, x) + _spread(self.offset, x)


def _numbers(value: Any) -> float | tuple[float, ...]:
    import numpy as np

    if isinstance(value, dict):  # Keras 3 writes an array as {"class_name": "__numpy__", "config": {"value": ...}}
        config = value.get("config")
        value = config.get("value") if isinstance(config, dict) else None
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or any(extent != 1 for extent in array.shape[:-1]):
        raise NotImplementedError("a scale that is no number and none for each channel")
    return float(array.item()) if array.size == 1 else tuple(float(v) for v in array.reshape(-1))


def _spread(value: float | tuple[float, ...], x: torch.Tensor) -> Any:
    """As it broadcasts against n c h w."""
    import torch

    if not isinstance(value, tuple):
        return value
    return torch.tensor(value, dtype=x.dtype).reshape(1, -1, *(1 for _ in x.shape[2:]))
