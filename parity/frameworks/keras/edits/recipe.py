"""Compiles an edited copy as the model was compiled, with the optimizer and the losses that changes ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from parity.frameworks.keras.edits.optimizers import OWN_OPTIMIZERS, own_optimizer
from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.optimizer_copies import again
from parity.frameworks.keras.optimizer_state import live_slots, modern_config, set_steps, slot_variable, stepping
from parity.frameworks.keras.slots import canonical
from parity.layers.keras_losses import class_of

__all__ = ["compile_as", "loss_object", "optimizer_like"]


def compile_as(engine: Engine, model: Any, copy: Any, changes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Compiles a copy as its model is, with changes of the optimizer and the losses.

    Args:
        engine: whose models they are.
        model: the original; one that is not compiled leaves its copy so.
        copy: with its layers and weights.
        changes: the values of each `optimizer` or `loss` change, and its `action`.

    Returns:
        For each change why it could not be carried out; empty where it was.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None and not engine.has_loss(model):
        return ["the model is not compiled"] * len(changes)
    held = getattr(getattr(model, "_compile_config", None), "config", None)
    given: dict[str, Any] = dict(held) if isinstance(held, Mapping) else {"loss": getattr(model, "loss", None)}
    made = None if optimizer is None else optimizer_like(engine, optimizer)
    reasons: list[str] = []
    for change in changes:
        values = {key: value for key, value in change.items() if key != "action"}
        try:
            if change["action"] == "optimizer":
                made = optimizer_like(engine, made, values)
            else:
                given |= _losses(engine, model, given, values)
            reasons.append("")
        except (TypeError, ValueError, AttributeError) as error:
            reasons.append(" ".join(str(error).split())[:200])
    settings = {key: given[key] for key in ("loss", "loss_weights", "run_eagerly") if given.get(key) is not None}
    metrics = {key: _fresh(given[key]) for key in ("metrics", "weighted_metrics") if given.get(key)}
    copy.compile(optimizer=made, **settings, **metrics)
    if made is not None and type(made) is type(optimizer):
        _carry_slots(engine, model, copy)
    return reasons


def optimizer_like(engine: Engine, optimizer: Any, values: Mapping[str, Any] | None = None) -> Any:
    """A new optimizer of the same class and settings, or as the values of an `optimizer` change say.

    Args:
        engine: whose optimizer it is.
        optimizer: as it is; one that scales the loss stays around the new one.
        values: `class_name` and `config`, or only the arguments to change, or only another class of the same law.

    Raises:
        ValueError: this Keras has no such class, or the class no such argument.
    """
    if values is None:
        return again(optimizer)
    inner = stepping(optimizer)
    asked = str(values.get("class_name") or "")
    name = asked or type(inner).__name__
    whole = bool(asked) and "config" in values
    given = values.get("config", {} if asked else values)
    reason: ValueError | None = None
    for maker in _makers(engine, inner, name, own=not asked):
        config = _held(engine, inner, maker)
        if whole:  # it does not take over another law
            config = {key: value for key, value in config.items() if key not in _LAW}
        try:
            known = config if maker is type(inner) else {**maker().get_config(), **config}
            settings = {**config, **_known(known, given, maker)}
            new = again(inner, settings) if maker is type(inner) else maker.from_config(settings)
        except ValueError as error:
            reason = reason or error
        else:
            return new if inner is optimizer else type(optimizer)(new)
    raise reason or ValueError(f"{engine.name} has no optimizer {name}")


def _held(engine: Engine, inner: Any, maker: Any) -> dict[str, Any]:
    """The settings of an optimizer, in the words of a class of the same law; of another law it has none."""
    held = dict(inner.get_config())
    if maker is type(inner):
        return held
    if canonical(maker.__name__) != canonical(type(inner).__name__):
        return {}
    if engine.is_legacy(inner) and not issubclass(maker, engine.keras.optimizers.legacy.Optimizer):
        held = modern_config(maker.__name__, held, legacy=True, version=engine.keras.__version__)[1]
    usual = maker().get_config()
    return {key: value for key, value in held.items() if key != "name" and (key in usual or key in _CLIPPING)}


_PLACES = ("RMSprop", "Adagrad")
"""Classes that add epsilon under the root; Keras 2's legacy classes of these names add it to the root."""


def _makers(engine: Engine, inner: Any, name: str, *, own: bool) -> Iterator[Any]:
    """The classes of this name: its own first, if that may stay; Keras 2 has legacy ones beside those of 2.11."""
    optimizers = engine.keras.optimizers
    if own or (type(inner).__name__ == name and not (name in _PLACES and engine.is_legacy(inner))):
        yield type(inner)
    if engine.modern and name in OWN_OPTIMIZERS:
        yield own_optimizer(engine.keras, name)
        return
    if engine.modern:
        homes = [optimizers]
    elif name in OWN_OPTIMIZERS:
        homes = [optimizers.legacy]
    elif engine.is_legacy(inner) and name not in _PLACES:
        homes = [optimizers.legacy, optimizers]
    else:
        homes = [optimizers]
    for home in homes:
        maker = getattr(home, canonical(name), None)
        if maker is not None:
            yield maker


_CLIPPING = ("clipnorm", "clipvalue", "global_clipnorm")

_LAW = (*_CLIPPING, "decay", "weight_decay", "use_ema", "momentum", "nesterov", "rho",
        "centered", "amsgrad", "beta_1", "beta_2", "epsilon", "initial_accumulator_value")  # fmt: skip
"""Settings that a whole optimizer, given by class and config, does not take over from the one before."""


def _known(config: Mapping[str, Any], given: Mapping[str, Any], maker: Any) -> dict[str, Any]:
    """The given arguments in the words of this class; what switches off something that it does not have is dropped."""
    made: dict[str, Any] = {}
    for key, value in given.items():
        name = "learning_rate" if key == "lr" else key
        if name in config or (name in _CLIPPING and value is not None):
            made[name] = value
        elif value:
            raise ValueError(f"{maker.__name__} has no argument {key}")
    return {key: value for key, value in made.items() if value is not None or key in config}


def _carry_slots(engine: Engine, model: Any, copy: Any) -> None:
    """Goes on where the model's optimizer stopped, for every parameter that has the same shape still."""
    old, new = stepping(model.optimizer), stepping(copy.optimizer)
    steps = int(np.asarray(old.iterations))
    before, after = list(model.trainable_variables), list(copy.trainable_variables)
    if not steps or len(before) != len(after):
        return
    engine.build_optimizer(copy.optimizer, after)
    for index, name, held in live_slots(engine, old, before):
        target = slot_variable(engine, new, after[index], index, name)
        if target is not None and tuple(target.shape) == tuple(held.shape):
            target.assign(np.asarray(held))
    set_steps(engine, new, steps)


# Losses ---------------------------------------------------------------------------------------------------------------


def loss_object(engine: Engine, given: Any, values: Mapping[str, Any] | None = None) -> Any:
    """A loss of Keras' own with other settings.

    Args:
        engine: whose loss it is.
        given: the present one: a name, a function or an object.
        values: `class_name` and `config`, or `config` alone.

    Raises:
        ValueError: this Keras has no such loss.
    """
    values = values or {}
    name, config = str(values.get("class_name") or ""), dict(values.get("config") or {})
    if not name:
        plain = callable(given) and not hasattr(given, "get_config")
        function = getattr(given, "fn", None) or (given if plain else None)
        word = getattr(function, "__name__", None) or (given if isinstance(given, str) else type(given).__name__)
        name = class_of(str(word))
        settings = getattr(given, "get_config", dict)
        known: dict[str, Any] = dict(settings())
        own = {**known, **getattr(given, "_fn_kwargs", {})}
        config = {**{k: v for k, v in own.items() if k not in ("name", "dtype", "fn")}, **config}
    maker = getattr(engine.keras.losses, name, None)
    if not isinstance(maker, type):
        raise ValueError(f"{engine.name} has no loss {name}")
    return maker(**config)


def _losses(engine: Engine, model: Any, given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`loss` or `loss_weights` of `compile()` with a change in them, of one `output` (by name) or of every one."""
    output = values.get("output")
    key = "loss_weights" if "weight" in values else "loss"
    factor = float(values.get("weight", 1.0))

    def change(part: Any) -> Any:
        if key == "loss":
            return loss_object(engine, part, values)
        return (1.0 if part is None else float(part)) * factor

    held = given.get(key)
    names = [str(name) for name in getattr(model, "output_names", ())]
    if held is None and key == "loss_weights":
        held = [None] * max(1, len(names))
    if isinstance(held, Mapping):
        return {key: {name: change(part) if output in (None, name) else part for name, part in held.items()}}
    if isinstance(held, list | tuple):
        chosen = [output is None or (i < len(names) and names[i] == output) for i in range(len(held))]
        unchanged = None if key == "loss" else 1.0
        parts = zip(held, chosen, strict=True)
        return {key: [change(p) if taken else unchanged if p is None else p for p, taken in parts]}
    return {key: change(held)}


def _fresh(metrics: Any) -> Any:
    """Metrics without the counts that the model's own hold."""
    if isinstance(metrics, Mapping):
        return {key: _fresh(part) for key, part in metrics.items()}
    if isinstance(metrics, list | tuple):
        return [_fresh(part) for part in metrics]
    if hasattr(metrics, "from_config") and hasattr(metrics, "result"):
        return type(metrics).from_config(metrics.get_config())
    return metrics
