"""What `compile()` was given, in the vocabulary: from a file's training configuration or from a live model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from parity.layers import Loss
from parity.optimizers import lookup
from parity.recipe import Recipe, Schedule

if TYPE_CHECKING:
    from parity.optimizers import UpdateRule

__all__ = ["losses_of", "metric_names", "optimizer_era", "recipe_of", "schedule_of"]


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


def schedule_of(config: Mapping[str, Any], optimizer: str = "") -> Schedule:
    """The learning rate of an optimizer's config: `lr` or `learning_rate`, legacy `decay`, or a schedule object."""
    raw = config.get("learning_rate", config.get("lr"))
    if isinstance(raw, Mapping):
        return _law(str(raw.get("class_name", "schedule")).split(">")[-1], raw.get("config") or {})
    defaults = {"SGD": 0.01, "Adadelta": 1.0, "Nadam": 0.002, "Adamax": 0.002, "Adagrad": 0.01}
    rate = defaults.get(optimizer, 0.001) if raw is None else float(raw)
    decay = float(config.get("decay") or 0.0)
    return Schedule("inverse-time", (rate,), decay) if decay else Schedule("constant", (rate,))


def _law(name: str, config: Mapping[str, Any]) -> Schedule:
    """A LearningRateSchedule; its first rate, and its settings for display."""
    first = config.get("initial_learning_rate")
    if first is None:
        values = config.get("values")
        first = values[0] if isinstance(values, Sequence) and values else float("nan")
    steps, rate = config.get("decay_steps"), config.get("decay_rate")
    if name == "InverseTimeDecay" and steps and rate is not None and not config.get("staircase"):
        return Schedule("inverse-time", (float(first),), float(rate) / float(steps))
    shown = {k: v for k, v in config.items() if k != "name" and v is not None}
    return Schedule(name, (float(first),), config=shown)


def losses_of(loss: Any) -> list[Loss]:
    """The kinds of what a file says about `loss=`: a name, a config, or one of either per output."""
    if loss is None:
        return []
    if isinstance(loss, str):
        return [Loss.from_keras(loss, {}, ())]
    if isinstance(loss, Mapping):
        if "class_name" in loss:
            config = loss.get("config")
            if isinstance(config, str):  # a serialized function
                return [Loss.from_keras(config, {}, ())]
            settings = dict(config or {})
            name = str(loss["class_name"])
            if name == "LossFunctionWrapper" and isinstance(settings.get("fn"), str):
                name = settings["fn"]
            return [Loss.from_keras(name, settings, ())]
        return [kind for part in loss.values() for kind in losses_of(part)]
    if isinstance(loss, Sequence):
        return [kind for part in loss for kind in losses_of(part)]
    return [Loss.from_keras(getattr(loss, "__name__", type(loss).__name__), {}, ())]


def metric_names(metrics: Any) -> tuple[str, ...]:
    """Names of what `metrics=` counts: strings, configs, live metrics, lists or dicts of them."""
    if metrics is None:
        return ()
    if isinstance(metrics, str):
        return (metrics,)
    if isinstance(metrics, Mapping):
        if "class_name" in metrics:
            config = metrics.get("config")
            if isinstance(config, Mapping):
                fn = config.get("fn")
                return (str(fn if isinstance(fn, str) else config.get("name") or metrics["class_name"]),)
            return (str(config or metrics["class_name"]),)
        return tuple(name for part in metrics.values() for name in metric_names(part))
    if isinstance(metrics, Sequence):
        return tuple(name for part in metrics for name in metric_names(part))
    return (str(getattr(metrics, "name", None) or getattr(metrics, "__name__", type(metrics).__name__)),)


def recipe_of(
    optimizer: Mapping[str, Any] | None,
    losses: Sequence[Loss],
    metrics: tuple[str, ...],
    era: int,
    steps_done: int = 0,
    origin: str = "compile()",
    notes: tuple[str, ...] = (),
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
    """
    remarks = list(notes)
    if len(losses) > 1:
        remarks.append(f"{len(losses)} losses, of which the recipe shows the first")
    if optimizer is None:
        return Recipe(loss=losses[0] if losses else None, metrics=metrics, origin=origin, notes=tuple(remarks))
    name = str(optimizer.get("class_name", "")).split(">")[-1]
    config: Mapping[str, Any] = optimizer.get("config") or {}
    rule: UpdateRule = lookup(name).from_keras(name, config, era)
    clip = {
        key: float(config[key]) for key in ("clipnorm", "clipvalue", "global_clipnorm") if config.get(key) is not None
    }
    decoupled = float(config.get("weight_decay") or 0.0) if era == 3 else 0.0
    if config.get("use_ema"):
        remarks.append("the optimizer also keeps an average of the weights (use_ema)")
    return Recipe(
        loss=losses[0] if losses else None,
        optimizer=rule,
        learning_rate=schedule_of(config, re.sub(r"\W", "", name)),
        decoupled_decay=decoupled,
        clip=clip,
        metrics=metrics,
        steps_done=steps_done,
        origin=origin,
        notes=tuple(remarks),
    )
