"""Live optimizers: rebuilt from what a file says, put into the state that it holds, and read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from parity.errors import BadFile
from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.saved_state import SavedState
from parity.frameworks.keras.slots import LAYOUTS, SHARED, Slot, canonical, standalone

__all__ = [
    "first_rate",
    "live_slots",
    "modern_config",
    "proportional",
    "restore",
    "set_steps",
    "slot_variable",
    "stepping",
]


def stepping(optimizer: Any) -> Any:
    """The optimizer that steps: the one inside a loss scaler, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def proportional(optimizer: Any) -> bool:
    """Whether every step is proportional to the gradients: SGD, without clipping and decay beside the gradient."""
    inner = stepping(optimizer)
    config = inner.get_config()
    others = ("clipnorm", "clipvalue", "global_clipnorm", "weight_decay")
    return canonical(type(inner).__name__) == "SGD" and not any(config.get(name) for name in others)


def first_rate(optimizer: Any) -> float:
    """The learning rate of an optimizer's first update."""
    rate: Any = stepping(optimizer).learning_rate
    return float(np.asarray(rate(0) if callable(rate) else rate))


def slot_variable(engine: Engine, optimizer: Any, variable: Any, index: int, name: str) -> Any:
    """The variable that holds one slot of one parameter, or None where this optimizer has no such slot.

    Args:
        engine: whose optimizer it is.
        optimizer: with its slots made.
        variable: the parameter.
        index: its place among those that the optimizer was built on.
        name: the slot's neutral name.
    """
    optimizer = stepping(optimizer)
    slot = next((s for s in _slots(optimizer) if s.name == name), None)
    return None if slot is None else _held(engine, optimizer, variable, index, slot)


def live_slots(engine: Engine, optimizer: Any, variables: Sequence[Any]) -> Iterator[tuple[int, str, Any]]:
    """(place of the parameter, slot's neutral name, variable) of every slot of an optimizer that has been built."""
    optimizer = stepping(optimizer)
    for slot in _slots(optimizer):
        for index, variable in enumerate(variables):
            held = _held(engine, optimizer, variable, index, slot)
            if held is not None:
                yield index, slot.name, held


def _slots(optimizer: Any) -> list[Slot]:
    own = LAYOUTS.get(canonical(type(optimizer).__name__), ())
    return [slot for group in (*own, *SHARED) for slot in group]


def _held(engine: Engine, optimizer: Any, variable: Any, index: int, slot: Slot) -> Any:
    if engine.is_legacy(optimizer):
        known = slot.legacy in optimizer.get_slot_names()
        try:
            return optimizer.get_slot(variable, slot.legacy) if known else None
        except KeyError:
            return None
    listed = getattr(optimizer, slot.attribute, None) or getattr(optimizer, slot.attribute.lstrip("_"), None)
    if not isinstance(listed, list | tuple) or index >= len(listed):
        return None
    held = listed[index]
    if held is None or (slot.name in ("row", "column") and len(variable.shape) < 2):
        return None  # a placeholder
    return held


def set_steps(engine: Engine, optimizer: Any, steps: int, product: float | None = None) -> None:
    """Sets the count of updates done, and with it what Nadam multiplies up in every step.

    Args:
        engine: whose optimizer it is.
        optimizer: with its slots made.
        steps: updates done.
        product: Nadam's product of momenta where a file holds it. Keras before 2.3, and its archives before 3, do not
            store it (keras 2.1.6, optimizers.py, `Nadam`), and it follows from the count.
    """
    optimizer = stepping(optimizer)
    every = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    count = optimizer.iterations if engine.is_legacy(optimizer) else optimizer._iterations
    count.assign(steps * every)
    if canonical(type(optimizer).__name__) != "Nadam":
        return
    config = optimizer.get_config()
    if product is None:
        # Keras 1 and 2 call the rate of that schedule schedule_decay, tf.keras' legacy class decay; later it is 1.
        rate = float(config.get("decay", 0.004)) if engine.is_legacy(optimizer) else 1.0
        momenta = 1 - 0.5 * 0.96 ** (rate * np.arange(1, steps + 1))
        product = float(np.prod(float(config["beta_1"]) * momenta))
    held: Any = getattr(optimizer, "_m_cache" if engine.is_legacy(optimizer) else "_u_product", None)
    if held is not None:
        held.assign(product)
    if hasattr(optimizer, "_u_product_counter"):
        optimizer._u_product_counter = steps + 1


def restore(engine: Engine, model: Any, file: KerasFile, state: SavedState) -> None:
    """Puts a model's optimizer into the state that its file holds.

    Keras' own loaders do not, or do it wrongly: Keras 3 builds the optimizer of an `.h5` on no variables
    (keras/src/legacy/saving/legacy_h5_format.py, `load_model_from_hdf5`), Keras 2 takes the blocks of Keras 1 and 2.0,
    which are sorted by name, for the order of the layers, and leaves out those whose counts differ (Nadam's).

    Raises:
        BadFile: an array does not fit its parameter.
    """
    optimizer = model.optimizer
    variables = list(model.trainable_variables)
    engine.build_optimizer(optimizer, variables)
    if standalone(file.version) and engine.is_legacy(stepping(optimizer)):
        _clip_globally(stepping(optimizer))
    if state.rows and len(state.rows) == len(variables):
        for index, (variable, row) in enumerate(zip(variables, state.rows, strict=True)):
            for name, stored in row.items():
                held = slot_variable(engine, optimizer, variable, index, name)
                if held is None:
                    continue
                value = file.read(stored)
                if value.shape != tuple(held.shape):
                    shapes = f"{value.shape}, not {tuple(held.shape)}"
                    raise BadFile(file.path, f"the optimizer's {stored.name} has shape {shapes}", "save it again")
                held.assign(value)
    elif file.slots:
        _in_order(engine, optimizer, file)
    product = state.scalars.get("product")
    if state.steps:
        set_steps(engine, optimizer, state.steps, None if product is None else float(file.read(product)))
    for word, name in (("good_steps", "step_counter"), ("loss_scale", "dynamic_scale")):
        held = getattr(optimizer, name, None)
        if word in state.scalars and held is not None:
            held.assign(file.read(state.scalars[word]))
    rate: Any = getattr(stepping(optimizer), "_learning_rate", None)
    if "learning_rate" in state.scalars and hasattr(rate, "assign"):
        rate.assign(file.read(state.scalars["learning_rate"]))


def _in_order(engine: Engine, optimizer: Any, file: KerasFile) -> None:
    """An optimizer whose layout is not known takes the arrays in order, where they fit its own one by one."""
    held = engine.slot_variables(optimizer)
    if [tuple(v.shape) for v in held] != [s.shape for s in file.slots]:
        return
    for variable, stored in zip(held, file.slots, strict=True):
        variable.assign(file.read(stored))


def _clip_globally(optimizer: Any) -> None:
    """Standalone Keras' `clipnorm` is the norm of all gradients together (keras 2.1.6, optimizers.py, `get_gradients`).

    tf.keras' is that of each gradient, and its `global_clipnorm` is what was meant.
    """
    limit = getattr(optimizer, "clipnorm", None)
    if limit:
        optimizer.clipnorm = None
        optimizer.global_clipnorm = limit


def modern_config(
    class_name: str, config: Mapping[str, Any], *, legacy: bool, version: str = ""
) -> tuple[str, dict[str, Any], list[str]]:
    """An older optimizer's class and settings in Keras 3's words, and what cannot be said in them.

    Args:
        class_name: as the file has it.
        config: as the file has it.
        legacy: whether it is of one of the classes before Keras 2.11.
        version: of the Keras that wrote it.
    """
    name = canonical(class_name)
    made = {key: value for key, value in config.items() if value is not None and key not in _GONE}
    notes: list[str] = []
    rate = made.pop("lr", None)
    made.setdefault("learning_rate", rate)
    if made["learning_rate"] is None:
        del made["learning_rate"]
    made = {key: _number(value) for key, value in made.items()}
    decay = float(config.get("decay") or 0.0)
    if name == "Nadam" and legacy:
        schedule = float(config.get("schedule_decay", config.get("decay", 0.004)) or 0.0)
        notes.append(f"Keras 3's Nadam has no schedule_decay: {schedule:g} becomes 1")
    elif decay and "learning_rate" in made:
        law = {"initial_learning_rate": made["learning_rate"], "decay_steps": 1, "decay_rate": decay}
        module = "keras.optimizers.schedules"
        made["learning_rate"] = {"module": module, "class_name": "InverseTimeDecay", "config": law}
    if standalone(version) and "clipnorm" in made:
        made["global_clipnorm"] = made.pop("clipnorm")
    if legacy and name == "RMSprop" and not config.get("momentum"):
        notes.append("Keras 3's RMSprop adds epsilon under the root, the file's outside of it")
    if legacy and name == "Adagrad":
        made.setdefault("initial_accumulator_value", 0.0 if standalone(version) else 0.1)
        notes.append("Keras 3's Adagrad adds epsilon under the root, the file's outside of it")
    return name, made, notes


_GONE = ("decay", "schedule_decay", "is_legacy_optimizer", "jit_compile")


def _number(value: Any) -> Any:
    """Settings that were numpy scalars in a tensor's place are text in some files: `"0.01"`."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
