"""What `compile()` was given, in the vocabulary: from a file's training configuration or from a live model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from parity.frameworks.keras.losses import kinds_of
from parity.frameworks.keras.saved_state import inner
from parity.frameworks.keras.slots import canonical, standalone
from parity.layers import Loss
from parity.optimizers import lookup
from parity.recipe import Recipe, Schedule

if TYPE_CHECKING:
    from parity.optimizers import UpdateRule

__all__ = ["losses_of", "metric_names", "optimizer_era", "recipe_of", "schedule_of"]

losses_of = kinds_of


def optimizer_era(class_name: str, config: Mapping[str, Any], file_era: int) -> int:
    """1 or 2 for Keras' legacy optimizers, 3 for those of Keras 2.11 and later.

    A new-style optimizer writes `use_ema` into its config (keras/src/optimizers/base_optimizer.py, `get_config`), and a
    file of Keras 2.11–2.15 names its class `Custom>SGD`.
    """
    if config.get("is_legacy_optimizer") is True:
        return min(file_era, 2)
    if class_name.startswith("Custom>") or "use_ema" in config or config.get("is_legacy_optimizer") is False:
        return 3
    return file_era


_RATES = {"SGD": 0.01, "Lamb": 0.001, "Lion": 0.001}
_OLD_RATES = {"SGD": 0.01, "Adagrad": 0.01, "Adadelta": 1.0, "Adamax": 0.002, "Nadam": 0.002}


def schedule_of(config: Mapping[str, Any], optimizer: str = "", old: bool = False) -> Schedule:
    """The learning rate of an optimizer's config: `lr` or `learning_rate`, legacy `decay`, or a schedule object.

    Args:
        config: of the optimizer.
        optimizer: its class, for the rate that Keras takes where the config names none.
        old: whether standalone Keras (up to 2.3) wrote it, whose own rates were others.
    """
    raw = config.get("learning_rate", config.get("lr"))
    if isinstance(raw, Mapping):
        settings = raw.get("config")
        return _law(str(raw.get("class_name", "schedule")).split(">")[-1], settings if settings else {})
    name = canonical(optimizer)
    usual = (_OLD_RATES if old else _RATES).get(name, 0.001)
    rate = usual if raw is None else float(raw)
    # Nadam's decay is that of its momentum (keras 2.15, optimizers/legacy/nadam.py).
    decay = 0.0 if name == "Nadam" else float(config.get("decay") or 0.0)
    return Schedule("inverse-time", (rate,), decay) if decay else Schedule("constant", (rate,))


def _law(name: str, config: Any) -> Schedule:
    """A LearningRateSchedule: its first rate, and its settings."""
    settings: Mapping[str, Any] = config if isinstance(config, Mapping) else {}
    name = {"LearningRateSchedule": "schedule", "PiecewiseConstant": "PiecewiseConstantDecay"}.get(name, name)
    first = settings.get("initial_learning_rate")
    if first is None:
        values = settings.get("values")
        first = values[0] if isinstance(values, Sequence) and values else float("nan")
    steps, rate = settings.get("decay_steps"), settings.get("decay_rate")
    if name == "InverseTimeDecay" and steps and rate is not None and not settings.get("staircase"):
        return Schedule("inverse-time", (float(first),), float(rate) / float(steps))
    shown = {k: v for k, v in settings.items() if k != "name" and v is not None}
    return Schedule(name, (float(first),), config=shown)


def metric_names(metrics: Any) -> tuple[str, ...]:
    """Names of what `metrics=` counts, each once: strings, configs, live metrics, lists or dicts of them."""
    return tuple(dict.fromkeys(_names(metrics)))


def _names(metrics: Any) -> list[str]:
    if metrics is None:
        return []
    if isinstance(metrics, str):
        return [metrics]
    if isinstance(metrics, Mapping):
        if "class_name" in metrics:
            return [_name(str(metrics["class_name"]), metrics.get("config"))]
        return [name for part in metrics.values() for name in _names(part)]
    if isinstance(metrics, Sequence):
        return [name for part in metrics for name in _names(part)]
    return [str(getattr(metrics, "name", None) or getattr(metrics, "__name__", type(metrics).__name__))]


def _name(class_name: str, config: Any) -> str:
    """A serialized metric's name: that of the function inside a wrapper, its own, or its class'."""
    if isinstance(config, Mapping):
        function = config.get("fn")
        if isinstance(function, Mapping):
            function = function.get("config")
        return str(function if isinstance(function, str) else config.get("name") or class_name)
    return str(config or class_name)


def recipe_of(
    optimizer: Mapping[str, Any] | None,
    losses: Sequence[Loss],
    metrics: tuple[str, ...],
    era: int,
    steps_done: int = 0,
    origin: str = "compile()",
    notes: tuple[str, ...] = (),
    version: str = "2.4",
) -> Recipe:
    """The recipe of what `compile()` was given.

    Args:
        optimizer: class_name and config; None for none.
        losses: one per output.
        metrics: their names.
        era: of the Keras that made the optimizer's config (see `optimizer_era`).
        steps_done: updates behind it.
        origin: where it comes from.
        notes: facts a reader should know.
        version: of the Keras that wrote it; before 2.4 Keras was a package of its own, with its own defaults.
    """
    remarks = list(notes)
    if len(losses) > 1:
        remarks.append(f"{len(losses)} losses, of which the recipe shows the first")
    if optimizer is None:
        return Recipe(loss=losses[0] if losses else None, metrics=metrics, origin=origin, notes=tuple(remarks))
    name, config, scaled = inner(optimizer)
    name = re.sub(r"\W", "", name.split(">")[-1])
    old = era < 3 and standalone(version)
    rule: UpdateRule = lookup(name).from_keras(name, config, era)
    if scaled:
        remarks.append("the optimizer scales the loss up and its gradients down again (LossScaleOptimizer)")
    return Recipe(
        loss=losses[0] if losses else None,
        optimizer=rule,
        learning_rate=schedule_of(config, name, old),
        decoupled_decay=float(config.get("weight_decay") or 0.0) if era == 3 else 0.0,
        clip=_clip(config, old),
        metrics=metrics,
        steps_done=steps_done,
        origin=origin,
        extras=_moving(config),
        notes=(*remarks, *_extras(config)),
    )


def _moving(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that move the weights otherwise than the rule does; an average that is only kept does not."""
    words = ["gradient_accumulation_steps"]
    if config.get("use_ema") and config.get("ema_overwrite_frequency"):
        words += ["ema_overwrite_frequency", "ema_momentum"]
    return {key: config[key] for key in words if config.get(key)}


def _clip(config: Mapping[str, Any], old: bool) -> dict[str, float]:
    """Gradient clipping. Standalone Keras' `clipnorm` is the norm of all gradients together (2.1.6, optimizers.py)."""
    found = {key: config[key] for key in ("clipnorm", "clipvalue", "global_clipnorm") if config.get(key)}
    if old and "clipnorm" in found:
        found["global_clipnorm"] = found.pop("clipnorm")
    return {key: float(value) for key, value in found.items()}


def _extras(config: Mapping[str, Any]) -> list[str]:
    """What else a new-style optimizer does."""
    found: list[str] = []
    if config.get("use_ema"):
        every = config.get("ema_overwrite_frequency")
        words = f"and takes it over every {every} updates" if every else "beside them"
        momentum = config.get("ema_momentum")
        kept = f", momentum {momentum:g}" if isinstance(momentum, int | float) else ""
        found.append(f"the optimizer keeps an average of the weights {words} (use_ema{kept})")
    steps = config.get("gradient_accumulation_steps")
    if steps:
        found.append(f"the weights move once in {steps} steps, by the mean of the gradients since (accumulation)")
    factor = config.get("loss_scale_factor")
    if factor:
        found.append(f"the loss is scaled by {factor} and the gradients back (loss_scale_factor)")
    return found
