"""The arithmetic of losses on torch: the sum over images and pixels of instance weight times cost (vl_nnloss.m)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from parity.layers._keras_losses import FUNCTIONS, smoothed
from parity.layers.loss_words import BINARY, CATEGORICAL

__all__ = ["BINARY", "CATEGORICAL", "VECTOR", "cost"]

VECTOR = tuple(FUNCTIONS)
"""Keras' losses of one-hot vectors and values."""

_FLOOR = 1e-8  # vl_nnloss.m bounds the divisor of log's derivative, not its value


def cost(
    function: str,
    x: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None = None,
    smoothing: float = 0.0,
    top: int = 5,
    threshold: float = 0.0,
    settings: Mapping[str, Any] | None = None,
) -> torch.Tensor:
    """Σ weight·cost over images and pixels.

    Args:
        function: a word of `CATEGORICAL`, `BINARY` or `VECTOR`.
        x: predictions (n, c) or (n, c, h, w).
        labels: class ids from 0, (n,) or (n, h, w), -1 ignored; for `BINARY` -1, 0 or +1 in the shape of `x`, or (n,)
            where `x` has one channel. `VECTOR` also takes targets in the shape of `x`, or (n, c, 1, 1).
        weights: instance weights that broadcast against (n, h, w), or against `x` for `BINARY`.
        smoothing: share of the label's mass spread over all classes.
        top: K of `topkerror` (vl_nnloss.m's `topK`).
        threshold: of `binaryerror`.
        settings: of a word of `VECTOR`, as Keras names them (`delta`, `gamma`, ...).

    Raises:
        NotImplementedError: a function that parity does not know.
    """
    if x.dim() == 2:
        x = x[:, :, None, None]
    if function in BINARY:
        return _binary(function, x, labels, weights, threshold)
    if function not in CATEGORICAL + VECTOR:
        raise NotImplementedError(f"the loss {function!r} cannot run on torch")
    if function in VECTOR and labels.dim() == x.dim():
        target, mass = labels.to(x.dtype).expand_as(x), x.new_ones(())
    else:
        ids = (labels.reshape(-1, 1, 1) if labels.dim() == 1 else labels).expand(x.shape[0], *x.shape[2:])
        mass, classes = (ids >= 0).to(x.dtype), ids.clamp(min=0).unsqueeze(1)
        if function not in VECTOR and not smoothing:
            return _weighed(_categorical(function, x, classes, top), mass, weights)
        # Of a single output the label is its target.
        target = classes.to(x.dtype) if x.shape[1] == 1 else torch.zeros_like(x).scatter_(1, classes, 1.0)
    target = smoothed(function, target, smoothing)
    if function in VECTOR:
        return _weighed(FUNCTIONS[function](x, target, settings or {}), mass, weights)
    return _weighed(_cross_entropy(function, x, target), mass, weights)


def _weighed(each: torch.Tensor, mass: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return ((mass if weights is None else mass * weights) * each).sum()


def _categorical(function: str, x: torch.Tensor, classes: torch.Tensor, top: int) -> torch.Tensor:
    """Cost of each pixel, (n, h, w); `classes` (n, 1, h, w)."""
    if function == "softmaxlog":
        return F.cross_entropy(x, classes.squeeze(1), reduction="none")
    if function == "classerror":
        return (_first_maximum(x.detach()) != classes).to(x.dtype).squeeze(1) + _nothing(x)
    if function == "topkerror":
        best = x.detach().sort(dim=1, descending=True, stable=True).indices[:, :top]
        return 1 - (best == classes).any(1).to(x.dtype) + _nothing(x)
    own = x.gather(1, classes)
    if function == "log":
        return _minus_log(own).squeeze(1)
    if function == "mhinge":
        return F.relu(1 - own).squeeze(1)
    others = x.scatter(1, classes, float("-inf"))  # mshinge: the best of the other classes
    return F.relu(1 - own + others.gather(1, _first_maximum(others.detach()))).squeeze(1)


def _binary(
    function: str, x: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None, threshold: float
) -> torch.Tensor:
    c = labels.to(x.dtype)
    c = c.reshape(*c.shape, *(1 for _ in range(4 - c.dim())))
    mass = (c != 0).to(x.dtype)
    if weights is not None:
        mass = mass * weights
    if function == "hinge":
        each = F.relu(1 - c * x)
    elif function == "logistic":
        each = torch.logaddexp(-c * x, torch.zeros_like(x))
    elif function == "binarylog":
        each = -torch.log(c * (x - 0.5) + 0.5)
    else:
        each = (torch.sign(x.detach() - threshold) != c).to(x.dtype) + _nothing(x).unsqueeze(1)
    return (mass * torch.where(mass == 0, torch.zeros_like(each), each)).sum()


def _cross_entropy(function: str, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each pixel, (n, h, w), against a smoothed target (n, c, h, w)."""
    if function == "softmaxlog":
        return -(target * x.log_softmax(1)).sum(1)
    if function == "log":
        return -(target * -_minus_log(x)).sum(1)
    raise NotImplementedError(f"label smoothing with the loss {function!r}")


def _first_maximum(x: torch.Tensor) -> torch.Tensor:
    """Index of the first maximum over the channels, (n, 1, h, w)."""
    channels = torch.arange(x.shape[1]).reshape(1, -1, 1, 1)
    return torch.where(x == x.amax(1, keepdim=True), channels, x.shape[1] - 1).amin(1, keepdim=True)


def _nothing(x: torch.Tensor) -> torch.Tensor:
    """Zeros (n, h, w) through which a gradient of exactly zero flows back into `x`."""
    return torch.where(torch.zeros_like(x, dtype=torch.bool), x, torch.zeros_like(x)).sum(1)


def _minus_log(x: torch.Tensor) -> torch.Tensor:
    """-log x, with the derivative -1/max(x, 1e-8) (vl_nnloss.m, `log`)."""
    return _MinusLog.apply(x)


class _MinusLog(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return -torch.log(x)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return -upstream[0] / x.clamp(min=_FLOOR)
