"""Values, optimizers and losses of Keras as the code that makes them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.digits import shortest
from parity.frameworks.keras.edits.optimizers import OWN_OPTIMIZERS, own_optimizer
from parity.frameworks.keras.engine import Engine

__all__ = ["comment", "compilation", "optimizer_code", "text", "value"]

Arrays = dict[str, np.ndarray]

_SMALL = 8
"""Elements of an array that is written out."""


def text(item: Any) -> str:
    """A string as code, in double quotes."""
    return json.dumps(str(item), ensure_ascii=False)


def value(item: Any, arrays: Arrays | None = None) -> str:
    """A value as code.

    Args:
        item: numbers, strings, arrays, and lists and dicts of them.
        arrays: takes larger arrays by name, which the code reads from ARRAYS.
    """
    if isinstance(item, Mapping):
        return "{" + ", ".join(f"{text(key)}: {value(part, arrays)}" for key, part in item.items()) + "}"
    if isinstance(item, np.ndarray) and item.ndim:
        if arrays is None or item.size <= _SMALL:
            return f"np.array({item.tolist()!r}, {text(item.dtype)})"
        name = f"array_{len(arrays)}"
        arrays[name] = item
        return f"ARRAYS[{text(name)}]"
    if isinstance(item, list | tuple):
        return "[" + ", ".join(value(part, arrays) for part in item) + "]"
    if isinstance(item, str):
        return text(item)
    return repr(item) if isinstance(item, bool | int) or item is None else repr(shortest(float(item)))


def comment(words: str, indent: int = 0) -> list[str]:
    """A sentence as lines of comment."""
    margin = " " * indent + "# "
    return textwrap.wrap(words, 110, initial_indent=margin, subsequent_indent=margin)


def compilation(engine: Engine, model: Any, metrics: Sequence[str], custom: bool) -> tuple[str, str]:
    """The model's optimizer, and what else its `compile()` is given, as code.

    Args:
        engine: whose model it is.
        model: compiled.
        metrics: names of what is counted.
        custom: whether the code has a dict `custom` of the user's own classes.
    """
    held = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    settings = [f'"loss": {_loss(engine, held.get("loss", getattr(model, "loss", None)), custom)}']
    if held.get("loss_weights") is not None:
        settings.append(f'"loss_weights": {value(held["loss_weights"])}')
    if metrics:
        settings.append(f'"metrics": {value(list(metrics))}')
    return optimizer_code(engine, model.optimizer), "{" + ", ".join(settings) + "}"


def optimizer_code(engine: Engine, optimizer: Any) -> str:
    """An optimizer's constructor, with its rate and the arguments that are not its defaults."""
    maker, config = type(optimizer), dict(optimizer.get_config())
    homes = {"keras.optimizers": engine.keras.optimizers}
    if not engine.modern:
        homes["keras.optimizers.legacy"] = engine.keras.optimizers.legacy
    home = next((word for word, module in homes.items() if getattr(module, maker.__name__, None) is maker), None)
    made = f"{home}.{maker.__name__}"
    if maker.__name__ in OWN_OPTIMIZERS and engine.modern and maker is own_optimizer(engine.keras, maker.__name__):
        home, made = "", f"own_optimizer(keras, {text(maker.__name__)})"
    if home is None or hasattr(optimizer, "inner_optimizer"):
        described = json.loads(json.dumps(engine.keras.optimizers.serialize(optimizer), default=float))
        return f"keras.optimizers.deserialize({value(described)})"
    usual = maker().get_config()
    parts: list[str] = []
    for name, held in config.items():
        if name == "name" or (name != "learning_rate" and name in usual and usual[name] == held):
            continue
        if isinstance(held, Mapping) and "class_name" in held:
            inside = ", ".join(f"{k}={value(v)}" for k, v in held["config"].items() if k != "name")
            parts.append(f"{name}=keras.optimizers.schedules.{held['class_name']}({inside})")
        else:
            parts.append(f"{name}={value(held)}")
    return f"{made}({', '.join(parts)})"


def _loss(engine: Engine, loss: Any, custom: bool) -> str:
    if isinstance(loss, Mapping):
        return "{" + ", ".join(f"{text(key)}: {_loss(engine, part, custom)}" for key, part in loss.items()) + "}"
    if isinstance(loss, list | tuple):
        return "[" + ", ".join(_loss(engine, part, custom) for part in loss) + "]"
    if loss is None or isinstance(loss, str):
        return value(loss)
    name = getattr(loss, "__name__", type(loss).__name__)
    own = getattr(engine.keras.losses, name, None)
    if own is None:
        return f"custom[{text(name)}]" + ("" if hasattr(loss, "__name__") else "()") if custom else text(name)
    if not isinstance(own, type):
        return f"keras.losses.{name}"
    usual, config = own().get_config(), loss.get_config()
    left = {k: v for k, v in config.items() if k not in ("name", "fn", "dtype") and usual.get(k) != v}
    return f"keras.losses.{name}({', '.join(f'{k}={value(v)}' for k, v in left.items())})"
