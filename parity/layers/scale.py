"""A multiplier and an offset that are learned, or that other layers make."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, by, flag, setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Scale(Kind):
    """y = x·a (+ b): a and b are inputs, or parameters behind them, repeated where an extent is 1.

    Source: dagnn/Scale.m.

    Attributes:
        bias: whether there is a b.
    """

    roles: ClassVar = {"gamma": "h w c", "beta": "h w c"}
    causes: ClassVar = {"bias": "bias-missing"}
    matconvnet: ClassVar = ("dagnn.Scale",)
    by_image: ClassVar = True

    bias: bool = True

    def words(self) -> list[str]:
        """With what it lacks."""
        return ["scale", *([] if self.bias else ["no bias"])]

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """The largest extents of all: extents of 1 are repeated."""
        if len({len(shape) for shape in inputs}) != 1:
            return None
        return tuple(next((n for n in extents if n != 1), 1) for extents in zip(*inputs, strict=True))

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The first times the second, plus the third: inputs come first, then parameters (Scale.m, `forward`)."""
        stored = [params[role].movedim(-1, 0).unsqueeze(0) for role in self.roles if role in params]  # h w c -> 1 c h w
        first, second, *third = [*inputs, *stored]
        y = first * second
        return y + third[0] if self.bias else y

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Scale:
        """A `dagnn.Scale` block."""
        return cls(setting(layer, "hasBias", flag))

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> Scale:
        """The same, if inputs and parameters together are as many as it needs, and their sizes go together."""
        parts: list[Shape] = [*inputs, *shapes.values()]
        wanted = 3 if self.bias else 2
        if len(parts) != wanted:
            raise ValueError(f"it has {len(inputs)} inputs and {len(shapes)} parameters, {wanted} in all are needed")
        for one, other in pairwise(parts):
            pairs = zip(one, other, strict=False)
            if len(one) != len(other) or any(a != b for a, b in pairs if a not in (None, 1) and b not in (None, 1)):
                raise ValueError(f"it cannot multiply {by(one)} by {by(other)}")
        return self
