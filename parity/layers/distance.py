"""The distance of two maps in each cell, as a layer and as a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, by, flag, scalar, setting
from parity.layers.loss import Loss
from parity.layers.loss_weights import Factor, check_weights, spread, stored_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class PDist(Kind):
    """y = (Σ |x - x0|^p over the channels)^(1/p), of two inputs, times a third where there is one (vl_nnpdist.m).

    Attributes:
        p: the power.
        root: whether the root is taken (MatConvNet's `noRoot` says the opposite).
        aggregate: whether all cells of all images are added up.
        reduction: `"mean"` where that sum is divided by the images, as the trainer of releases up to beta25 does with
            all that it differentiates (cnn_train_dag.m); MatConvNet's own value is the sum.
        epsilon: bounds what the derivative divides by; it does not enter the value.
        factor: what the file multiplies every distance by (`instanceWeights`).
    """

    matconvnet: ClassVar = ("dagnn.PDist",)

    p: float = 2.0
    root: bool = True
    aggregate: bool = True
    epsilon: float = 1e-6
    factor: Factor = 1.0
    reduction: str = "sum"

    def words(self) -> list[str]:
        """With its power."""
        return [*_words("distance", self.p, self.root), *(["summed"] if self.aggregate else [])]

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """(h, w, c) → (h, w, 1), or a single number."""
        return () if self.aggregate else (*inputs[0][:-1], 1)

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The distance in each cell (n, 1, h, w), or their sum."""
        x, other, *weights = inputs
        y = distance(x, other, self.p, self.root, self.epsilon)
        if self.factor != 1:
            y = (y.squeeze(1) * spread(self.factor, x)).unsqueeze(1)
        y = y * weights[0] if weights else y
        if not self.aggregate:
            return y
        return y.sum() / x.shape[0] if self.reduction == "mean" else y.sum()

    def raw_value(self, value: float, images: int, version: str) -> float:
        """The sum, which MatConvNet of every version shows (see `Loss.raw_value`)."""
        return value * images if self.aggregate and self.reduction == "mean" else value

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> PDist:
        """A `dagnn.PDist` block between two maps."""
        return cls(**_fields(layer))

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> PDist:
        """The same, if the second input has the first one's size, or 1×1 of its channels."""
        check_weights(self.factor, inputs)
        if len(inputs) > 1:
            x, other = inputs[:2]
            pairs = [(a, b) for a, b in zip(x, other, strict=False) if None not in (a, b)]
            if len(x) != len(other) or any(a != b and b != 1 for a, b in pairs):
                raise ValueError(f"it cannot compare {by(x)} with {by(other)}")
        return self


@dataclass(frozen=True)
class DistanceLoss(Loss):
    """The sum of the distances to a target, over cells and images (vl_nnpdist.m at the end of a network).

    MatConvNet's own value and derivative are never divided by the number of images. Since 2018 its trainer does not
    divide either (`reduction="sum"`); before, it divides by the batch (`reduction="mean"`, cnn_train.m:455).

    Attributes:
        p, root, epsilon, factor: as of `PDist`.
    """

    matconvnet: ClassVar = ("pdist",)

    function: str = "pdist"
    reduction: str = "sum"
    sparse: bool = False
    p: float = 2.0
    root: bool = True
    epsilon: float = 1e-3
    factor: Factor = 1.0

    def words(self) -> list[str]:
        """With its power and its reduction."""
        return [*_words("distance loss", self.p, self.root), self.reduction]

    @property
    def target(self) -> str:
        """Values in the predictions' shape."""
        return "values"

    @property
    def divides(self) -> bool:
        """vl_nnpdist never does."""
        return False

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Σ weight·distance; `context.labels` holds targets (n, c, h, w) or (n, c, 1, 1), `weights` (n, h, w)."""
        if context.labels is None:
            raise ValueError("a loss needs targets")
        x = inputs[0]
        if x.dim() == 2:
            x = x[:, :, None, None]
        target = context.labels.to(x.dtype)
        target = target[:, :, None, None] if target.dim() == 2 else target
        each = distance(x, target, self.p, self.root, self.epsilon).squeeze(1) * spread(self.factor, x)
        total = (each if context.weights is None else each * context.weights).sum()
        return total / x.shape[0] if self.reduction == "mean" else total

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> DistanceLoss:
        """A `pdist` layer, whose target is the layer's `class`, or a `dagnn.PDist` block whose second input is one."""
        fields = _fields(layer)
        return cls(p=fields["p"], root=fields["root"], epsilon=fields["epsilon"], factor=fields["factor"])

    def keras_line(self, field_name: str) -> str:
        """Keras has no such loss of its own."""
        return ""


def distance(x: torch.Tensor, other: torch.Tensor, p: float, root: bool, epsilon: float) -> torch.Tensor:
    """(Σ |x - other|^p over the channels)^(1/p), or without the root; (n, 1, h, w) of maps (n, c, h, w).

    The derivatives are vl_nnpdist's: what they divide by is bounded below by `epsilon`, and p = 1 has no root.
    """
    import torch

    class Distance(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            d = x - other
            ctx.save_for_backward(d)
            ctx.narrow = [a for a in range(other.dim()) if other.shape[a] != x.shape[a]]
            total = d.abs().pow(p).sum(1, keepdim=True)
            return total.pow(1 / p) if root else total

        @staticmethod
        def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            (d,) = ctx.saved_tensors
            dx = upstream[0] * _slope(d, p, root, epsilon)
            return dx, -(dx.sum(ctx.narrow, keepdim=True) if ctx.narrow else dx)

    return Distance.apply(x, other)


def _words(what: str, p: float, root: bool) -> list[str]:
    return [f"{what} of power {p:g}", *([] if root or p == 1 else ["no root"])]


def _slope(d: torch.Tensor, p: float, root: bool, epsilon: float) -> torch.Tensor:
    """The derivative of the distance by d = x - other (vl_nnpdist.m, `backward`)."""
    size = d.abs()
    if p == 1:
        return d.sign()
    bounded = size if p > 1 else size.clamp(min=epsilon)
    power = d if p == 2 else bounded.pow(p - 1) * d.sign()
    if not root:
        return p * power
    total = size.pow(p).sum(1, keepdim=True).clamp(min=epsilon)
    return total.pow((1 - p) / p) * power


def _fields(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `pdist` layer or block; ValueError where one is out of range."""
    p, epsilon = setting(layer, "p", scalar), setting(layer, "epsilon", scalar)
    if not 0 < p < float("inf"):
        raise ValueError(f"its p is {p:g}, not a positive number")
    if not epsilon >= 0:
        raise ValueError(f"its epsilon is {epsilon:g}, not a number from 0 on")
    return {
        "p": p,
        "root": not setting(layer, "noRoot", flag),
        "aggregate": setting(layer, "aggregate", flag),
        "epsilon": epsilon,
        "factor": stored_weights(layer),
    }
