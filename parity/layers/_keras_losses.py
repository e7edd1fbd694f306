"""The arithmetic of Keras' losses on torch: the cost of each pixel against a target (keras/src/losses/losses.py).

A loss that torch is to run is one function here and one line in `FUNCTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["FUNCTIONS", "smoothed"]

_TINY = 1e-7  # keras.config.epsilon()

Settings = Mapping[str, Any]


def smoothed(function: str, target: torch.Tensor, share: float) -> torch.Tensor:
    """Targets (n, c, h, w) with a share of their mass spread: over two classes for a probability, else over all."""
    if not share:
        return target
    return target * (1 - share) + share / (2 if function.startswith("binary") else max(target.shape[1], 2))


def _only_classes(of: Settings) -> None:
    if of.get("axis", -1) != -1:
        raise NotImplementedError(f"a loss along axis {of['axis']}")


def _squared(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return ((x - t) ** 2).mean(1)


def _absolute(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return (x - t).abs().mean(1)


def _percentage(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return 100 * ((t - x) / t.abs().clamp(min=_TINY)).abs().mean(1)


def _logarithmic(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return ((x.clamp(min=_TINY) + 1).log() - (t.clamp(min=_TINY) + 1).log()).square().mean(1)


def _signs(t: torch.Tensor) -> torch.Tensor:
    """Labels of 0 and 1, if there are no others in the batch, as -1 and +1 (`convert_binary_labels_to_hinge`)."""
    return 2 * t - 1 if bool(((t == 0) | (t == 1)).all()) else t


def _hinge(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return F.relu(1 - _signs(t) * x).mean(1)


def _squared_hinge(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return F.relu(1 - _signs(t) * x).square().mean(1)


def _categorical_hinge(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return F.relu(((1 - t) * x).amax(1) - (t * x).sum(1) + 1)


def _huber(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    delta, away = float(of.get("delta", 1.0)), (x - t).abs()
    return torch.where(away <= delta, 0.5 * away**2, delta * away - 0.5 * delta**2).mean(1)


def _log_cosh(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    away = x - t
    return (away + F.softplus(-2 * away) - math.log(2)).mean(1)


def _divergence(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    t, p = t.clamp(_TINY, 1), x.clamp(_TINY, 1)
    return (t * (t / p).log()).sum(1)


def _poisson(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return (x - t * (x + _TINY).log()).mean(1)


def _cosine(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    _only_classes(of)
    return -(F.normalize(x, dim=1, eps=1e-12) * F.normalize(t, dim=1, eps=1e-12)).sum(1)


def _binary_terms(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    if of.get("from_logits"):
        return F.binary_cross_entropy_with_logits(x, t, reduction="none")
    p = x.clamp(_TINY, 1 - _TINY)
    return -(t * p.log() + (1 - t) * (1 - p).log())


def _binary(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    _only_classes(of)
    return _binary_terms(x, t, of).mean(1)


def _binary_focal(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    _only_classes(of)
    p, alpha = x.sigmoid() if of.get("from_logits") else x, float(of.get("alpha", 0.25))
    right = t * p + (1 - t) * (1 - p)
    each = (1 - right) ** float(of.get("gamma", 2.0)) * _binary_terms(p, t, {})
    return ((t * alpha + (1 - t) * (1 - alpha)) * each if of.get("apply_class_balancing") else each).mean(1)


def _probabilities(x: torch.Tensor, of: Settings) -> torch.Tensor:
    p = x.softmax(1) if of.get("from_logits") else x
    return (p / p.sum(1, keepdim=True)).clamp(_TINY, 1 - _TINY)


def _categorical_focal(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    _only_classes(of)
    p = _probabilities(x, of)
    return (float(of.get("alpha", 0.25)) * (1 - p) ** float(of.get("gamma", 2.0)) * -t * p.log()).sum(1)


def _generalized(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    q = float(of.get("q", 0.5))
    return (1 - (t * x).sum(1).clamp(min=_TINY) ** q) / q


def _overlap(x: torch.Tensor, t: torch.Tensor, of: Settings, alpha: float, beta: float, tiny: float) -> torch.Tensor:
    """1 - hits/(hits + alpha·misses + beta·false alarms + tiny), per image or of the whole batch, in shares of a pixel.

    Keras calls what alpha weighs false positives; it counts labels that the prediction misses.
    """
    axes = of.get("axis")
    if axes is not None and set(axes) not in ({1}, {1, 2, 3}):
        raise NotImplementedError(f"a loss along the axes {axes}")
    over = (0, 1, 2, 3) if axes is None else (1, 2, 3)
    hits = (x * t).sum(over)
    value = 1 - hits / (hits + alpha * ((1 - x) * t).sum(over) + beta * (x * (1 - t)).sum(over) + tiny)
    pixels = x.shape[2] * x.shape[3]
    return (value.reshape(-1, 1, 1) / pixels).expand(x.shape[0], *x.shape[2:])


def _dice(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return _overlap(x, t, of, 0.5, 0.5, _TINY / 2)


def _tversky(x: torch.Tensor, t: torch.Tensor, of: Settings) -> torch.Tensor:
    return _overlap(x, t, of, float(of.get("alpha", 0.5)), float(of.get("beta", 0.5)), _TINY)


FUNCTIONS: Mapping[str, Callable[[torch.Tensor, torch.Tensor, Settings], torch.Tensor]] = {
    "binary_crossentropy": _binary,
    "binary_focal_crossentropy": _binary_focal,
    "categorical_focal_crossentropy": _categorical_focal,
    "categorical_generalized_cross_entropy": _generalized,
    "categorical_hinge": _categorical_hinge,
    "cosine_similarity": _cosine,
    "dice": _dice,
    "huber": _huber,
    "kl_divergence": _divergence,
    "log_cosh": _log_cosh,
    "mean_absolute_error": _absolute,
    "mean_absolute_percentage_error": _percentage,
    "mean_hinge": _hinge,
    "mean_squared_error": _squared,
    "mean_squared_logarithmic_error": _logarithmic,
    "poisson": _poisson,
    "squared_hinge": _squared_hinge,
    "tversky": _tversky,
}
"""Loss → (predictions, targets, both (n, c, h, w); settings) → the cost of each pixel (n, h, w)."""
