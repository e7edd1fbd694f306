"""Normalisations by the values around: across channels by an offset, over a window of the map, by an Lp norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, by, numbers, setting
from parity.layers.pool import window_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch


@dataclass(frozen=True)
class NormOffset(Kind):
    """y = x - alpha·L^beta, L = max(Σ x² over the channels, 1e-8) (vl_nnnoffset.m:22-28).

    Attributes:
        alpha: factor.
        beta: power.
    """

    matconvnet: ClassVar = ("noffset", "dagnn.NormOffset")

    alpha: float = 1.0
    beta: float = 0.5

    def words(self) -> list[str]:
        """With both numbers."""
        return ["norm offset", f"alpha {self.alpha:g}", f"beta {self.beta:g}"]

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The same offset for all channels; its derivative overlooks the bound on L, as vl_nnnoffset's does."""
        x = inputs[0]
        total = (x * x).sum(1, keepdim=True)
        bounded = total + (total.clamp(min=1e-8) - total).detach()
        return x - self.alpha * bounded**self.beta

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> NormOffset:
        """A `noffset` layer: param = [alpha beta]."""
        return cls(*_params(layer, "[alpha beta]"))


@dataclass(frozen=True)
class SpatialNorm(Kind):
    """y = x·(1 + alpha·m)^-beta, m the mean of x² over a window of the map, in each channel.

    Source: vl_nnspnorm.m:24-34.

    Attributes:
        size: (h, w) of the window; cells outside the map do not count.
        alpha: factor on the mean.
        beta: power.
    """

    matconvnet: ClassVar = ("spnorm", "dagnn.SpatialNorm")

    size: tuple[int, int] = (2, 2)
    alpha: float = 10.0
    beta: float = 2.0

    def words(self) -> list[str]:
        """With its window and both numbers."""
        return [f"spatial norm {by(self.size)}", f"alpha {self.alpha:g}", f"beta {self.beta:g}"]

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Average pooling with stride 1, floor((size - 1)/2) cells before and the rest after."""
        x = inputs[0]
        befores = [(size - 1) // 2 for size in self.size]
        pad = [cells for size, b in zip(self.size, befores, strict=True) for cells in (b, size - 1 - b)]
        mean = window_mean(x * x, self.size, (1, 1), pad)
        return x * (1 + self.alpha * mean) ** -self.beta

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> SpatialNorm:
        """A `spnorm` layer: param = [PH PW alpha beta]."""
        height, width, alpha, beta = _params(layer, "[PH PW alpha beta]")
        if min(height, width) < 1 or not (height.is_integer() and width.is_integer()):
            raise ValueError(f"its window is {height:g}×{width:g}, not of whole cells")
        return cls((int(height), int(width)), alpha, beta)


@dataclass(frozen=True)
class NormalizeLp(Kind):
    """y = x/(Σ x^p + epsilon)^(1/p) (vl_nnnormalizelp.m).

    Keras' UnitNormalization bounds the sum from below instead of adding to it, and is another function.

    Attributes:
        p: the power.
        epsilon: added to the sum.
        spatial: True where the sum goes over the map of each channel, False over the channels of each cell.
    """

    p: float = 2.0
    epsilon: float = 0.01
    spatial: bool = False

    def reach(self) -> Reach | None:
        """One cell, or the whole map."""
        return None if self.spatial else Reach()

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Signs are kept in the powers: an odd p sums them."""
        x = inputs[0]
        axes = (2, 3) if self.spatial else (1,)
        return x / ((x**self.p).sum(axes, keepdim=True) + self.epsilon) ** (1 / self.p)


def _params(layer: Mapping[str, Any], form: str) -> list[float]:
    """The numbers of `param`; ValueError where it is missing or has another count than `form` names."""
    if "param" not in layer:
        raise ValueError(f"its param {form} is missing")
    param = setting(layer, "param", numbers)
    if len(param) != len(form.split()) or any(v != v for v in param):
        raise ValueError(f"its param is {param[:6]}, not {form}")
    return param
