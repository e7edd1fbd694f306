"""How a MatConvNet network is trained: a recipe file, `meta.trainOpts`, and what its trainers do by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity.errors import BadFile
from parity.frameworks.matconvnet.recipe_file import VERSIONS, Overrides, read_recipe
from parity.frameworks.matconvnet.solver_state import SOLVERS, lift_slots, solver_of
from parity.frameworks.matconvnet.values import Unreadable
from parity.layers import BatchNorm, Loss
from parity.layers.base import numbers
from parity.network import Network
from parity.optimizers import SGD, OpaqueRule, UpdateRule
from parity.recipe import Recipe, Schedule

__all__ = ["VERSIONS", "Overrides", "der_outputs", "lift_recipe", "read_recipe"]

_DEFAULTS = {
    "learningRate": 0.001,
    "momentum": 0.9,
    "weightDecay": 0.0005,
    "batchSize": 256.0,
    "numEpochs": 300.0,
    "numSubBatches": 1.0,
}
"""cnn_train.m:20-50, cnn_train_dag.m:16-40."""

_NAMES = {
    "learningRate": "learning_rate",
    "momentum": "optimizer",
    "weightDecay": "weight_decay",
    "batchSize": "batch_size",
    "numEpochs": "epochs",
}
"""Option → the recipe's field, where a default that stands in is worth a word."""


def lift_recipe(
    network: Network,
    places: Mapping[str, tuple[int, ...]],
    checkpoint: Mapping[str, Any],
    overrides: Overrides | None = None,
    *,
    trainer: str = "cnn_train",
) -> Recipe:
    """The recipe of a network.

    Fields that nothing says are the trainer's own defaults, and named in `defaults`. A checkpoint's `stats` say how
    many epochs lie behind it, and so which entry of the schedule comes next (cnn_train.m: `learningRate(min(epoch,
    numel(learningRate)))`); its `state.solverState` is where the updates start from.

    Args:
        network: the lifted network, with its `meta`.
        places: param id → where `state.solverState` keeps what belongs to it.
        checkpoint: the variables of the file; `stats` and `state` are read.
        overrides: a recipe file, which takes precedence.
        trainer: whose defaults stand in.

    Raises:
        ValueError: a part of the solver's state does not have its parameter's shape.
    """
    found = network.meta.get("trainOpts")
    written = found if isinstance(found, Mapping) else {}
    options = {**written, **(overrides.options if overrides else {})}
    notes: list[str] = []
    values = _numbers(options, notes)
    state = checkpoint.get("state")
    solver = _solver(options, notes) or (None if "solver" in options else _solver_of(state, notes))
    missing = {_NAMES[key] for key in _NAMES if not values[key] and not (key == "momentum" and solver)}
    first = {key: value[0] if value else _DEFAULTS[key] for key, value in values.items()}
    rates = tuple(values["learningRate"]) or (_DEFAULTS["learningRate"],)
    done = _epochs_done(checkpoint.get("stats"))
    if done:
        notes.append(f"the file is a checkpoint after epoch {done}")
    start = overrides.epoch - 1 if overrides and overrides.epoch else done
    if len(rates) > 1 and start:
        notes.append(f"the learning rate is that of epoch {start + 1}")
    sub_batches = _whole(first["numSubBatches"]) or 1
    if sub_batches > 1 and any(isinstance(layer.kind, BatchNorm) for layer in network):
        notes.append(f"a batch is run in {sub_batches} parts (numSubBatches), each batch-normalised by its own moments")
    rule = solver or SGD(first["momentum"], _flag(options.get("nesterovUpdate")))
    slots = lift_slots(state, rule, places, network.params)
    if state is not None and not slots and _touched(state):
        notes.append(f"the checkpoint's state is not of {rule.name}, which starts from nothing")
    losses = [layer for layer in network.losses if isinstance(layer.kind, Loss)]
    sources = [overrides.path] if overrides and overrides.options else []
    sources += ["meta.trainOpts"] if written else []
    return Recipe(
        loss=next((layer.kind for layer in losses if isinstance(layer.kind, Loss)), None),
        optimizer=rule,
        learning_rate=Schedule("epochs" if len(rates) > 1 else "constant", rates, start=start if len(rates) > 1 else 0),
        weight_decay=first["weightDecay"],
        metrics=_metrics(network, options.get("errorFunction")),
        batch_size=_whole(first["batchSize"]),
        sub_batches=sub_batches,
        epochs=_whole(first["numEpochs"]),
        slots=slots,
        defaults=frozenset(missing),
        origin=", then ".join(sources) or f"{trainer}'s defaults",
        version=overrides.version if overrides else "",
        notes=tuple(notes),
    )


def der_outputs(meta: Mapping[str, Any], overrides: Overrides | None, file: str) -> dict[str, float] | None:
    """Variable → weight of what is differentiated, as the recipe file or `meta.trainOpts` says; None for the default.

    Raises BadFile where `meta.trainOpts.derOutputs` is not a cell of names and numbers.
    """
    if overrides and "derOutputs" in overrides.options:
        return dict(overrides.options["derOutputs"])
    options = meta.get("trainOpts")
    cell = options.get("derOutputs") if isinstance(options, Mapping) else None
    if cell is None or (isinstance(cell, (list, np.ndarray)) and not len(cell)):
        return None
    try:
        pairs = list(zip(cell[::2], cell[1::2], strict=True)) if isinstance(cell, list) else [(None, None)]
        made = {name: numbers(value)[0] for name, value in pairs if isinstance(name, str)}
    except (ValueError, IndexError):
        made = {}
    if len(made) * 2 != len(cell):
        raise BadFile(file, "its meta.trainOpts.derOutputs is not a cell of names and numbers")
    return made


def _numbers(options: Mapping[str, Any], notes: list[str]) -> dict[str, list[float]]:
    """Option → its numbers; empty where it is missing or is none."""
    values: dict[str, list[float]] = {}
    for key in _DEFAULTS:
        try:
            values[key] = numbers(options[key]) if key in options else []
        except ValueError:
            values[key] = []
            notes.append(f"meta.trainOpts.{key} is not a number; the trainer's default is assumed")
        if values[key] and not np.isfinite(values[key]).all():
            notes.append(f"meta.trainOpts.{key} is not finite")
    return values


def _epochs_done(stats: Any) -> int:
    """How many epochs a checkpoint's `stats` cover."""
    epochs = stats.get("train") if isinstance(stats, Mapping) else None
    return len(epochs) if isinstance(epochs, list) else int(isinstance(epochs, Mapping) and bool(epochs))


def _metrics(network: Network, error: Any) -> tuple[str, ...]:
    """What the trainer counts: the losses that are no objective, or for a SimpleNN what `errorFunction` says.

    `multiclass` is cnn_train.m's default; `binary` and `none` are its other words.
    """
    if not network.objectives:
        words = {"binary": ("binary error",), "none": ()}
        own = words.get(error) if isinstance(error, str) else None
        return () if not network.losses else ("top-1 error", "top-5 error") if own is None else own
    counted: list[str] = []
    for layer in network.layers:
        if isinstance(layer.kind, Loss) and layer not in network.losses:
            top = getattr(layer.kind, "top", 5)
            words = {"classerror": "top-1 error", "topkerror": f"top-{top} error"}
            counted.append(words.get(layer.kind.function, layer.name))
    return tuple(dict.fromkeys(counted))


def _touched(state: Any) -> bool:
    """Whether any array of a checkpoint's state is more than the 0 that every state starts from."""
    if isinstance(state, np.ndarray):
        return state.dtype.kind == "f" and state.size > 1
    items: Iterable[Any] = state.values() if isinstance(state, Mapping) else state if isinstance(state, list) else ()
    return any(_touched(item) for item in items)


def _solver_of(state: Any, notes: list[str]) -> UpdateRule | None:
    """The solver whose state a checkpoint holds, where nothing names one."""
    name = solver_of(state)
    if not name:
        return None
    notes.append(f"state.solverState is that of solver.{name}, which meta.trainOpts does not name")
    return SOLVERS[name].rule


def _solver(options: Mapping[str, Any], notes: list[str]) -> UpdateRule | None:
    """The rule of the option `solver` with `solverOpts`; None for the built-in momentum."""
    solver = options.get("solver")
    name = solver.name if isinstance(solver, Unreadable) else solver if isinstance(solver, str) else ""
    if isinstance(solver, Unreadable) and not name:
        name = "unknown"
    if not name:
        return None
    word = name.lstrip("@").removeprefix("solver.")
    if word not in SOLVERS:
        notes.append(f"meta.trainOpts.solver is {name!r}, a function that parity does not know")
        return OpaqueRule(word)
    known = SOLVERS[word]
    given = options.get("solverOpts")
    changes: dict[str, float] = {}
    for option, value in given.items() if isinstance(given, Mapping) else ():
        try:
            changes[known.options[option]] = numbers(value)[0]
        except (KeyError, ValueError, IndexError):
            notes.append(f"meta.trainOpts.solverOpts.{option} is not understood")
    return replace(known.rule, **changes)


def _flag(value: Any) -> bool:
    return bool(value.size and value.flat[0]) if isinstance(value, np.ndarray) else bool(value)


def _whole(value: float) -> int | None:
    return int(value) if np.isfinite(value) and value >= 1 else None
