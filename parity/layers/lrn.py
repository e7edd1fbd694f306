"""Local response normalisation across channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, numbers, setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch


@dataclass(frozen=True)
class LRN(Kind):
    """y_k = x_k·(kappa + alpha·Σ x_q²)^-beta over a window of channels (nnnormalize.cu:159-160); alpha is not divided.

    Attributes:
        size: channels in the window: from k - floor((size-1)/2) on.
        kappa: the constant.
        alpha: factor on the sum of squares, not divided by the window.
        beta: the power.
    """

    causes: ClassVar = {"size": "lrn-size", "kappa": "lrn-kappa", "alpha": "lrn-alpha", "beta": "lrn-beta"}
    matconvnet: ClassVar = ("normalize", "lrn", "dagnn.LRN")
    by_image: ClassVar = True

    size: int = 5
    kappa: float = 1.0
    alpha: float = 0.0001 / 5
    beta: float = 0.75

    def remarks(self) -> tuple[str, ...]:
        """MatConvNet's own numbers depend on where it runs."""
        return (
            "powers are exact here and on a GPU; MatConvNet's CPU build approximates them by up to a few per mille",
        )

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """With exact powers, as on a GPU: the CPU build's `fast_pow` is off by up to 3e-3 (nnnormalize.cu:51-124)."""
        return local_response(inputs[0], self.size, self.kappa, self.alpha, self.beta)

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> LRN:
        """A `normalize` or `lrn` layer: param = [N kappa alpha beta]."""
        param = setting(layer, "param", numbers)
        if len(param) != 4 or not param[0].is_integer() or param[0] < 1:
            raise ValueError(f"its param is {param}, not [N kappa alpha beta]")
        return cls(int(param[0]), param[1], param[2], param[3])


def window_sum(values: torch.Tensor, before: int, after: int) -> torch.Tensor:
    """Σ of `values` (n, c, ...) over the channels k - before … k + after of each channel k; outside counts nothing."""
    channels = values.shape[1]
    total = values.clone()
    for offset in range(-min(before, channels - 1), min(after, channels - 1) + 1):
        if offset > 0:
            total[:, :-offset] += values[:, offset:]
        elif offset < 0:
            total[:, -offset:] += values[:, :offset]
    return total


def local_response(x: torch.Tensor, size: int, kappa: float, alpha: float, beta: float) -> torch.Tensor:
    """x·L^-beta, L = kappa + alpha·Σ x² over the window, for x of shape (n, c, ...).

    Its derivative is dy·L^-beta - 2·alpha·beta·x·Σ(dy·x·L^(-beta-1)), the sum over the window turned round
    (nnnormalize.cu:159-160, 215, 341).
    """
    import torch

    before = (size - 1) // 2
    after = size - before - 1

    class LocalResponse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            scale = window_sum(x * x, before, after).mul_(alpha).add_(kappa)
            power = scale.pow(-beta)
            ctx.save_for_backward(x, scale, power)
            return x * power

        @staticmethod
        def backward(ctx: Any, *upstream: torch.Tensor) -> torch.Tensor:
            (dy,) = upstream
            x, scale, power = ctx.saved_tensors
            spread = window_sum(dy * x * power / scale, after, before)
            return dy * power - spread.mul_(2 * alpha * beta).mul_(x)

    return LocalResponse.apply(x)
