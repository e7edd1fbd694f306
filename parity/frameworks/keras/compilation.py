"""Compiles a model as its file says, optimizer state included, piece by piece.

Keras' own loaders compile in one go, so that one metric that a later version does not know ends the whole load, and the
optimizer's state comes back wrong or not at all (see `optimizer_state.restore`). Metrics are left out: parity counts
none, and lists them from the file.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from parity.errors import BadFile
from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.losses import live_losses
from parity.frameworks.keras.optimizer_state import modern_config, restore
from parity.frameworks.keras.recipes import optimizer_era
from parity.frameworks.keras.saved_state import SavedState, inner
from parity.frameworks.keras.slots import canonical
from parity.frameworks.keras.standalone import as_standalone

__all__ = ["compile_as_saved"]


def compile_as_saved(
    engine: Engine, model: Any, file: KerasFile, state: SavedState, given: Mapping[str, Any]
) -> tuple[str, ...]:
    """Compiles a model as it was saved, and puts its optimizer into the state that the file holds.

    Args:
        engine: the Keras that runs it.
        model: with its weights, not compiled.
        file: the facts of its file.
        state: of its optimizer.
        given: custom objects by name.

    Returns:
        Notes: what this Keras cannot say as the file has it.

    Raises:
        BadFile: this Keras knows the loss or the optimizer under no name, or the state does not fit.
    """
    as_standalone(engine, model, file.version, file.backend, state.steps)
    training = file.training_config
    if training is None:
        return ()
    notes: list[str] = []
    with engine.keras.utils.custom_object_scope(dict(given)):
        optimizer = _optimizer(engine, training.get("optimizer"), file, given, notes)
        try:
            loss = live_losses(engine, training.get("loss"), given)
            model.compile(optimizer=optimizer, loss=loss, loss_weights=training.get("loss_weights"))
        except Exception as error:
            raise _unknown(file, engine, f"loss {_short(training.get('loss'))}", error) from error
    if optimizer is not None:
        restore(engine, model, file, state)
    return tuple(notes)


def _optimizer(engine: Engine, described: Any, file: KerasFile, given: Mapping[str, Any], notes: list[str]) -> Any:
    if isinstance(described, str):
        described = {"class_name": described, "config": {}}
    if not isinstance(described, Mapping) or not described.get("class_name"):
        return None
    described = copy.deepcopy(dict(described))  # Keras puts live objects into what it rebuilds from
    name, config, scaled = inner(described)
    optimizers = engine.keras.optimizers
    legacy = optimizer_era(name, config, file.era) < 3
    found = given.get(name.split(">")[-1])
    known = canonical(name)
    try:
        if found is None and not scaled:
            if engine.modern and file.era < 3:
                known, config, said = modern_config(name, config, legacy=legacy, version=file.version)
                notes.extend(said)
            home = optimizers.legacy if legacy and not engine.modern else optimizers
            found = getattr(home, known, None)
        return optimizers.deserialize(described) if found is None else found.from_config(dict(config))
    except Exception as error:
        raise _unknown(file, engine, f"optimizer {name}", error) from error


def _unknown(file: KerasFile, engine: Engine, what: str, error: Exception) -> BadFile:
    text = _short(error, 160)
    version = engine.keras.__version__
    return BadFile(
        file.path,
        f"{engine.name} {version} cannot rebuild its {what} ({type(error).__name__}: {text})",
        "give its source with --custom-objects FILE.py",
    )


def _short(item: Any, length: int = 60) -> str:
    text = " ".join(str(item).split())
    return text if len(text) <= length else text[: length - 3] + "..."
