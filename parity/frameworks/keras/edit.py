"""Carries out changes on a copy of a live Keras model, and runs the copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity.changes import ACTIONS, Change
from parity.frameworks.keras.edits.plan import ROLES
from parity.frameworks.keras.edits.recipe import compile_as
from parity.frameworks.keras.edits.structure import word_of
from parity.frameworks.keras.edits.surgery import Surgery
from parity.frameworks.keras.engine import Engine, engine_of
from parity.frameworks.keras.runner import KerasRunner
from parity.layers import Loss
from parity.recipe import Recipe

__all__ = ["FAULTS", "LAYERS", "Edited", "EditedRunner", "apply"]

LAYERS = ("argument", "replace", "insert", "remove", "rewire", "regularize", "constrain", "weights", "trainable")
"""The actions that change layers."""

FAULTS = (ValueError, TypeError, AttributeError, LookupError, RuntimeError, AssertionError)
"""What Keras raises for a layer that does not fit: it has no class of its own for it."""


@dataclass(frozen=True, eq=False)
class Edited:
    """A copy of a model with changes carried out.

    Attributes:
        model: the copy, compiled as its model is.
        done: what was carried out, in order.
        left: what was not, with the reason.
        rates: (variable of the copy, factor on its learning rate). Keras has no argument for it, and no file holds it.
        fresh: (layer's path, Keras' name of the parameter, variable) of the copy's weights that the model's do not fit;
            they hold what their initializers made.
    """

    model: Any
    done: tuple[Change, ...]
    left: tuple[tuple[Change, str], ...] = ()
    rates: tuple[tuple[Any, float], ...] = ()
    fresh: tuple[tuple[str, str, Any], ...] = ()


def apply(model: Any, changes: Sequence[Change]) -> Edited:
    """Carries out changes on a copy; the model stays as it is.

    Weights come along by layer and name where their shapes agree, the optimizer's slots likewise.

    Args:
        model: a Sequential or functional `keras.Model` or `tf_keras.Model`, built, compiled or not.
        changes: in order; each is carried out, or left with the reason. Those of the batch are taken as carried out.

    Raises:
        ValueError: the model cannot be copied: it is written in code (a subclassed model).
    """
    engine = engine_of(model)
    surgery, left = _operated(engine, model, [(i, c) for i, c in enumerate(changes) if c.action in LAYERS])
    recipe = [(i, c) for i, c in enumerate(changes) if c.action in ("optimizer", "loss")]
    reasons = compile_as(engine, model, surgery.model, [{**c.values, "action": c.action} for _, c in recipe])
    left |= {i: reason for (i, _), reason in zip(recipe, reasons, strict=True) if reason}
    rates: list[tuple[Any, float]] = []
    for i, change in enumerate(changes):
        if change.action not in ACTIONS:
            left[i] = f"{change.action} is no action"
        elif change.action == "rate":
            try:
                rates.append((_variable(surgery, change.layer, str(change.values["role"])), change.values["factor"]))
            except ValueError as error:
                left[i] = str(error)
    return Edited(
        surgery.model,
        tuple(change for i, change in enumerate(changes) if i not in left),
        tuple((change, left[i]) for i, change in enumerate(changes) if i in left),
        tuple(rates),
        tuple((path, word, v) for path, word in surgery.fresh if (v := _weight(surgery, path, word)) is not None),
    )


def _operated(engine: Engine, model: Any, changes: Sequence[tuple[int, Change]]) -> tuple[Surgery, dict[int, str]]:
    """The copy with all of these changes; where that fails, with those that can be carried out one after the other."""

    def operate(chosen: Sequence[tuple[int, Change]]) -> Surgery:
        with engine.backend.no_gradients():
            return Surgery(engine.keras, model, [(c.action, c.layer, c.values) for _, c in chosen])

    try:
        return operate(changes), {}
    except FAULTS:
        surgery = operate([])
    kept: list[tuple[int, Change]] = []
    left: dict[int, str] = {}
    for entry in changes:
        try:
            surgery = operate([*kept, entry])
            kept.append(entry)
        except FAULTS as error:
            left[entry[0]] = " ".join(str(error).split())[:200] or type(error).__name__
    return surgery, left


def _variable(surgery: Surgery, path: str, role: str) -> Any:
    """A weight of the copy by its layer's path and its role, or Keras' own name for it."""
    for name in (*ROLES.get(role, ()), role):
        found = _weight(surgery, path, name)
        if found is not None:
            return found
    raise ValueError(f"{path} has no {role}")


def _weight(surgery: Surgery, path: str, word: str) -> Any:
    """A weight of the copy by its layer's path and Keras' name for it; None where there is none."""
    weights = getattr(surgery.layer(path), "weights", ())
    return next((variable for variable in weights if word_of(variable) == word), None)


class EditedRunner(KerasRunner):
    """Runs an edited copy, with the factors on learning rates that Keras has no argument for.

    Args:
        edited: the copy.
        example: an input batch by name (see `KerasRunner`).
        before: the recipe of the model that was copied: what only its file says is taken from it.

    Raises:
        CannotCompare: the copy does not run on the example.
    """

    def __init__(self, edited: Edited, example: Mapping[str, np.ndarray], before: Recipe | None = None) -> None:
        super().__init__(edited.model, example)
        self.edited = edited
        self._own = self.params()
        self._loaded: dict[str, np.ndarray] = {}
        self._multiply()
        if before is not None:
            self.recipe = replace(self.recipe, metrics=before.metrics or self.recipe.metrics, origin=before.origin)

    @classmethod
    def of(cls, edited: Edited, before: KerasRunner) -> EditedRunner:
        """The runner of a copy of what another runner runs."""
        return cls(edited, before._example, before.recipe)

    def adopt(self, recipe: Recipe, loss: Loss | None = None, **how: Any) -> None:
        """As `KerasRunner.adopt`."""
        super().adopt(recipe, loss, **how)
        self._multiply()

    def _multiply(self) -> None:
        ids = {id(variable): pid for pid, variable in self._graph.variables.items()}
        rates: dict[str, float] = {}
        for variable, factor in self.edited.rates:
            pid = ids[id(variable)]
            rates[pid] = rates.get(pid, 1.0) * factor
        params = dict(self.network.params)
        params |= {pid: replace(params[pid], rate_multiplier=factor) for pid, factor in rates.items()}
        self.network = replace(self.network, params=params)
        self._stepper.rates = rates

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """As `KerasRunner.load`; what is loaded first is remembered for `restore`."""
        super().load(values)
        if not self._loaded:
            self._loaded = {pid: np.array(value) for pid, value in values.items()}

    def restore(self) -> None:
        """Puts the copy's own weights back; what the model's did not fit gets the values that were loaded first.

        With identical weights these are the reference's, in the copy's layout.
        """
        ids = {id(variable): pid for pid, variable in self._graph.variables.items()}
        # A layer that nothing reads any more is no part of the network.
        fresh = {ids[id(variable)] for _, _, variable in self.edited.fresh if id(variable) in ids}
        super().load(self._own | {pid: value for pid, value in self._loaded.items() if pid in fresh})
