"""Batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, numbers, scalar, setting
from parity.layers.keras_fields import axis_from_end

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class BatchNorm(Kind):
    """(x - mean)/deviation·gamma + beta per channel, deviation = sqrt(variance + epsilon) (nnbnorm.cu:66-69, 196-201).

    Attributes:
        epsilon: added to the variance under the root.
        momentum: weight of the old value in the running average: 1 - r for MatConvNet's third learning rate r; None
            where the file does not say (a MatConvNet trainer then stops with an index error).
        stored: what the second running statistic is: `"deviation"` including epsilon (MatConvNet) or `"variance"`.
        center: whether it has a beta.
        scale: whether it has a gamma.
        axis: the channel axis, counted from the end: -1 in every layout that parity speaks.
        frozen: True where it normalises by its running statistics in train mode too (Keras `trainable=False`).
    """

    roles: ClassVar = {"gamma": "c", "beta": "c", "mean": "c", "deviation": "c"}
    causes: ClassVar = {"epsilon": "bn-epsilon", "momentum": "bn-momentum", "frozen": "bn-mode"}
    matconvnet: ClassVar = ("bnorm", "dagnn.BatchNorm")
    keras: ClassVar = ("BatchNormalization",)

    epsilon: float = 1e-5
    momentum: float | None = None
    stored: str = "variance"
    center: bool = True
    scale: bool = True
    axis: int = -1
    frozen: bool = False

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Normalise by the batch in train mode (nnbnorm.cu:66-69, 196-201), by the running statistics otherwise.

        `context.statistics` gets the batch's mean and biased variance. A stored deviation holds epsilon already, so
        that epsilon plays no part then; its derivative is the one that MatConvNet's kernel has for given moments.
        """
        import torch
        import torch.nn.functional as F

        x = inputs[0]
        gamma, beta = params.get("gamma"), params.get("beta")
        if context.mode == "train" and not self.frozen:
            channels = x.shape[1]
            one, zero = x.new_ones(channels), x.new_zeros(channels)
            y, mean, variance = batch_moments(
                x, one if gamma is None else gamma, zero if beta is None else beta, self.epsilon
            )
            context.statistics.update(mean=mean, variance=variance)
            return y
        if self.stored == "deviation":
            deviation = params["deviation"]
            ones = torch.ones_like(deviation)
            gamma = ones if gamma is None else gamma
            beta = torch.zeros_like(deviation) if beta is None else beta
            return given_moments(x, gamma, beta, params["mean"], deviation, context.mode == "train")
        return F.batch_norm(x, params["mean"], params["variance"], gamma, beta, False, 0.0, self.epsilon)

    @classmethod
    def split_matconvnet(cls, weights: Sequence[Any]) -> dict[str, tuple[np.ndarray, int]]:
        """gamma, beta, and the two columns of the moments: the mean and the deviation including epsilon."""
        import numpy as np

        if len(weights) < 3:
            raise ValueError(f"it has {len(weights)} weights, not a scale, a shift and moments")
        moments = np.asarray(weights[2])
        if moments.ndim != 2 or moments.shape[1] != 2:
            raise ValueError(f"its moments are {'×'.join(map(str, moments.shape))}, not C×2")
        found = {role: (np.ravel(weights[j], order="F"), j) for j, role in enumerate(("gamma", "beta"))}
        found |= {"mean": (moments[:, 0], 2), "deviation": (moments[:, 1], 2)}
        sizes = {role: value.size for role, (value, _) in found.items()}
        if len(set(sizes.values())) != 1 or not moments.size:
            listed = ", ".join(f"{n} {role}" for role, n in sizes.items())
            raise ValueError(f"its parameters differ in length: {listed}")
        return found

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> BatchNorm:
        """A `bnorm` layer; its third learning rate r gives momentum 1 - r (cnn_train.m:469-473)."""
        rates = layer.get("learningRate")
        if rates is None:
            momentum: float | None = 0.0  # cnn_train.m:79-85 fills in ones, so r = 1
        else:
            momentum = 1.0 - float(numbers(rates)[2]) if len(numbers(rates)) > 2 else None
        return cls(setting(layer, "epsilon", scalar), momentum, "deviation")

    @classmethod
    def input_channels(cls, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """As many as it has scales."""
        return next((shape[0] for shape in shapes.values()), None)

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> BatchNorm:
        """The same, if its parameters have as many channels as its input."""
        channels = inputs[0][-1] if inputs and inputs[0] else None
        own = self.input_channels(shapes)
        if None not in (channels, own) and channels != own:
            raise ValueError(f"it normalises {own} channels, but its input has {channels}")
        return self

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The BatchNormalization layer; batch renormalisation and several axes raise NotImplementedError."""
        if config.get("renorm"):
            raise NotImplementedError("batch renormalization")
        return cls(
            epsilon=float(config.get("epsilon", 1e-3)),
            momentum=float(config.get("momentum", 0.99)),
            stored="variance",
            center=bool(config.get("center", True)),
            scale=bool(config.get("scale", True)),
            axis=axis_from_end(config.get("axis", -1), len(inputs[0]) + 1 if inputs else None),
            # A frozen layer runs in inference mode since tensorflow 2 (keras/src/layers/normalization/
            # batch_normalization.py, `if training and self.trainable`).
            frozen=not config.get("trainable", True),
        )

    def keras_line(self, field_name: str) -> str:
        """The constructor argument, e.g. `epsilon=0.0001`."""
        if field_name == "frozen":
            return f"trainable={not self.frozen}"
        known = field_name in ("epsilon", "momentum", "center", "scale")
        return f"{field_name}={getattr(self, field_name)}" if known else ""


def _per_channel(x: torch.Tensor) -> tuple[int, ...]:
    return (1, -1, *(1 for _ in x.shape[2:]))


def batch_moments(
    x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """gamma·(x - mean)/sqrt(variance + epsilon) + beta by the batch's own moments, and they: mean, biased variance.

    x is (n, c, ...), the rest (c). The moments are taken in two passes and the mean is taken off first: in one pass, as
    torch's own batch_norm does it, a variance over 200 000 values in single is off by 2e-5.
    """
    import torch

    class BatchMoments(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> tuple[torch.Tensor, ...]:
            last = x.movedim(1, -1)
            rows = last.reshape(-1, x.shape[1])
            mean = rows.mean(0)
            centered = rows - mean
            variance = (centered * centered).mean(0)
            inverse = (variance + epsilon).rsqrt()
            ctx.save_for_backward(x, gamma, mean, inverse)
            ctx.mark_non_differentiable(mean, variance)
            y = centered.mul_(inverse * gamma).add_(beta)
            return y.reshape(last.shape).movedim(-1, 1), mean, variance

        @staticmethod
        def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x, gamma, mean, inverse = ctx.saved_tensors
            return torch.ops.aten.native_batch_norm_backward(
                upstream[0], x, gamma, None, None, mean, inverse, True, epsilon, [True, True, True]
            )

    return BatchMoments.apply(x, gamma, beta)


def given_moments(
    x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor, frozen: bool
) -> torch.Tensor:
    """gamma·(x - mean)/deviation + beta, x of shape (n, c, ...), the rest (c).

    Args:
        x: the input.
        gamma: scale.
        beta: shift.
        mean: of each channel.
        deviation: of each channel, epsilon included.
        frozen: True takes the derivative with constant moments; False the one that MatConvNet's kernel computes with
            given moments as if they were the batch's own (nnbnorm.cu:128-160).
    """
    import torch

    shape = _per_channel(x)
    if frozen:
        return (gamma / deviation).reshape(shape) * (x - mean.reshape(shape)) + beta.reshape(shape)

    class GivenMoments(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x, gamma)
            return (gamma / deviation).reshape(shape) * (x - mean.reshape(shape)) + beta.reshape(shape)

        @staticmethod
        def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
            (dy,) = upstream
            x, gamma = ctx.saved_tensors
            axes = [a for a in range(x.dim()) if a != 1]
            m = x.numel() // x.shape[1]
            dbeta = dy.sum(axes)
            dgamma = ((dy * x).sum(axes) - mean * dbeta) / deviation
            dx = (gamma / deviation).reshape(shape) * (
                dy - (dbeta / m).reshape(shape) - (dgamma / (m * deviation)).reshape(shape) * (x - mean.reshape(shape))
            )
            return dx, dgamma, dbeta

    return GivenMoments.apply(x, gamma, beta)
