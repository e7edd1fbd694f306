"""How a MatConvNet network is trained: `meta.trainOpts`, and what examples/cnn_train.m does where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from parity.frameworks.matconvnet.values import Unreadable
from parity.layers import Loss
from parity.layers.base import numbers
from parity.optimizers import SGD, Adadelta, Adagrad, Adam, OpaqueRule, RMSprop, UpdateRule
from parity.recipe import Recipe, Schedule

if TYPE_CHECKING:
    from parity.network import Param

__all__ = ["lift_recipe", "lift_slots"]

_DEFAULTS = {"learningRate": 0.001, "momentum": 0.9, "weightDecay": 0.0005, "batchSize": 256.0, "numEpochs": 300.0}
"""cnn_train.m:20-50."""

_SOLVERS: dict[str, tuple[UpdateRule, dict[str, str], dict[str, str]]] = {
    "adagrad": (Adagrad(), {"epsilon": "epsilon", "rho": "rho"}, {"": "square"}),
    "rmsprop": (RMSprop(), {"epsilon": "epsilon", "rho": "rho"}, {"": "square"}),
    "adadelta": (Adadelta(), {"epsilon": "epsilon", "rho": "rho"}, {"g_sqr": "square", "delta_sqr": "delta"}),
    "adam": (
        Adam(),
        {"beta1": "beta1", "beta2": "beta2", "eps": "epsilon"},
        {"m": "mean", "v": "square", "t": "step"},
    ),
}
"""examples/+solver: name → rule with its defaults, option → the rule's field, the state's field → the rule's slot."""


class Cell(Protocol):
    """Where the parameters of one layer come from."""

    @property
    def layer(self) -> int:
        """The layer's position, from 1."""
        ...

    @property
    def params(self) -> Mapping[str, tuple[str, int]]:
        """Role → (param id, index in the layer's `weights` cell)."""
        ...


def lift_recipe(meta: Mapping[str, Any], loss: Loss | None, stats: Any = None, state: Any = None) -> Recipe:
    """The recipe of a tidied network's `meta`.

    Fields that the file does not hold are the trainer's own defaults, and named in `defaults`.

    Args:
        meta: the network's `meta`.
        loss: the kind of its loss layer.
        stats: a checkpoint's `stats`, for the number of epochs done.
        state: a checkpoint's `state`, which tells some solvers.
    """
    found = meta.get("trainOpts")
    options = found if isinstance(found, Mapping) else {}
    notes: list[str] = []
    values: dict[str, list[float]] = {}
    for key in _DEFAULTS:
        try:
            values[key] = numbers(options[key]) if key in options else []
        except ValueError:
            values[key] = []
            notes.append(f"meta.trainOpts.{key} is not a number; the trainer's default is assumed")
        if key in options and values[key] and not np.isfinite(values[key]).all():
            notes.append(f"meta.trainOpts.{key} is not finite")
    names = {
        "learningRate": "learning_rate",
        "momentum": "optimizer",
        "weightDecay": "weight_decay",
        "batchSize": "batch_size",
        "numEpochs": "epochs",
    }
    solver = _solver(options, notes) or _solver_of(state, notes)
    missing = {names[key] for key, value in values.items() if not value and not (key == "momentum" and solver)}
    first = {key: value[0] if value else _DEFAULTS[key] for key, value in values.items()}
    rates = tuple(values["learningRate"]) or (_DEFAULTS["learningRate"],)
    epochs = stats.get("train") if isinstance(stats, Mapping) else None
    if isinstance(epochs, (list, Mapping)) and epochs:
        notes.append(f"the file is a checkpoint after epoch {len(epochs) if isinstance(epochs, list) else 1}")
    return Recipe(
        loss=loss,
        optimizer=solver or SGD(first["momentum"], _flag(options.get("nesterovUpdate"))),
        learning_rate=Schedule("epochs" if len(rates) > 1 else "constant", rates),
        weight_decay=first["weightDecay"],
        metrics=("top-1 error", "top-5 error") if loss else (),
        batch_size=_whole(first["batchSize"]),
        epochs=_whole(first["numEpochs"]),
        defaults=frozenset(missing),
        origin="meta.trainOpts" if options else "cnn_train's defaults",
        notes=tuple(notes),
    )


def lift_slots(
    state: Any, rule: UpdateRule | None, cells: Sequence[Cell], params: Mapping[str, Param]
) -> dict[str, dict[str, np.ndarray]]:
    """Param id → slot → array (in the param's axes) of a checkpoint's `state.solverState`; empty without one.

    SGD's `momentum` is MatConvNet's m, which points downhill and does not hold the rate. A state of 0 is one that no
    update has touched; batch moments have none.

    Raises:
        ValueError: a slot's shape is not its parameter's.
    """
    fields = next((slots for kind, _, slots in _SOLVERS.values() if type(kind) is type(rule)), {"": "momentum"})
    found: dict[str, dict[str, np.ndarray]] = {}
    for cell in cells:
        for role, (id_, j) in cell.params.items():
            part = _part(state, cell.layer, j)
            if role in ("mean", "deviation") or part is None:
                continue
            arrays = part if isinstance(part, Mapping) else {"": part}
            slots = {slot: arrays[field] for field, slot in fields.items() if isinstance(arrays.get(field), np.ndarray)}
            if any(value.size > 1 or value.any() for value in slots.values()):
                where = f"state.solverState{{{cell.layer}}}{{{j + 1}}}"
                found[id_] = {slot: _shaped(value, slot, params[id_], where) for slot, value in slots.items()}
    return found


def _part(state: Any, layer: int, cell: int) -> Any:
    """`state.solverState{layer}{cell + 1}` (releases before it call it `momentum`), or None."""
    if isinstance(state, list):  # one per graphics card
        state = state[0] if state else None
    kept = state.get("solverState", state.get("momentum")) if isinstance(state, Mapping) else None
    parts = kept[layer - 1] if isinstance(kept, list) and layer <= len(kept) else None
    return parts[cell] if isinstance(parts, list) and cell < len(parts) else None


def _shaped(value: np.ndarray, slot: str, param: Param, where: str) -> np.ndarray:
    """A slot in its parameter's axes: vectors flat, kernels with the trailing axes that MATLAB drops."""
    if value.dtype.kind != "f":
        raise ValueError(f"{where} is of class {value.dtype}, not single or double")
    if slot == "step":
        if value.size != 1:
            raise ValueError(f"{where} has {value.size} step counts, not one")
        return np.asarray(float(value.flat[0]))
    flat = len(param.shape) == 1
    shaped = (
        value.reshape(-1, order="F") if flat else value.reshape(value.shape + (1,) * (len(param.shape) - value.ndim))
    )
    if shaped.shape != param.shape:
        raise ValueError(f"{where} has shape {shaped.shape}, but {param.source} has {param.shape}")
    return np.ascontiguousarray(shaped)


def _solver_of(state: Any, notes: list[str]) -> UpdateRule | None:
    """The solver whose state a checkpoint holds, where `trainOpts` names none: Adam and AdaDelta keep structs."""
    for layer in range(1, 1000):
        part = _part(state, layer, 0)
        for name, (rule, _, fields) in _SOLVERS.items():
            if isinstance(part, Mapping) and set(part) == set(fields):
                notes.append(f"state.solverState is that of solver.{name}, which meta.trainOpts does not name")
                return rule
    return None


def _solver(options: Mapping[str, Any], notes: list[str]) -> UpdateRule | None:
    """The rule of `trainOpts.solver` with `solverOpts`; None for the built-in momentum."""
    solver = options.get("solver")
    name = solver.name if isinstance(solver, Unreadable) else solver if isinstance(solver, str) else ""
    if isinstance(solver, Unreadable) and not name:
        name = "unknown"
    if not name:
        return None
    word = name.lstrip("@").removeprefix("solver.")
    if word not in _SOLVERS:
        notes.append(f"meta.trainOpts.solver is {name!r}, a function that parity does not know")
        return OpaqueRule(word)
    rule, fields, _ = _SOLVERS[word]
    given = options.get("solverOpts")
    changes: dict[str, float] = {}
    for option, value in given.items() if isinstance(given, Mapping) else ():
        try:
            changes[fields[option]] = numbers(value)[0]
        except (KeyError, ValueError, IndexError):
            notes.append(f"meta.trainOpts.solverOpts.{option} is not understood")
    return replace(rule, **changes)


def _flag(value: Any) -> bool:
    return bool(value.size and value.flat[0]) if isinstance(value, np.ndarray) else bool(value)


def _whole(value: float) -> int | None:
    return int(value) if np.isfinite(value) and value >= 1 else None
