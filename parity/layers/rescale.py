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
    """y = x·scale + offset (Keras Rescaling)."""

    keras: ClassVar = ("Rescaling",)

    scale: float = 1.0
    offset: float = 0.0

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The Rescaling layer; a scale or offset per channel raises NotImplementedError."""
        scale, offset = config.get("scale", 1.0), config.get("offset", 0.0)
        if not isinstance(scale, int | float) or not isinstance(offset, int | float):
            raise NotImplementedError("a scale per channel")
        return cls(float(scale), float(offset))

    def keras_line(self, field_name: str) -> str:
        """`scale=...` or `offset=...`."""
        return f"{field_name}={getattr(self, field_name)}"

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """x·scale + offset."""
        return inputs[0] * self.scale + self.offset
