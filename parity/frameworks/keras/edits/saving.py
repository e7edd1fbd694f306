"""Writes a model to a file of its own Keras."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

from parity.frameworks.keras.engine import engine_of, quiet

__all__ = ["save_model"]


def save_model(model: Any, path: str, metrics: Sequence[str] = ()) -> None:
    """Saves a model with its compilation and the optimizer's state.

    Args:
        model: of either Keras.
        path: ends with `.keras` or `.h5`, which says the format.
        metrics: what it is to be compiled with where it has none, by name; what this Keras does not know is left out.

    Raises:
        OSError: the file cannot be written.
        ValueError, TypeError, NotImplementedError: Keras cannot describe the model.
    """
    engine = engine_of(model)
    held = getattr(getattr(model, "_compile_config", None), "config", None) or {}
    if metrics and held and not held.get("metrics") and model.optimizer is not None:
        known = [name for name in metrics if _known(engine.keras, name)]
        settings = {key: held[key] for key in ("loss", "loss_weights") if held.get(key) is not None}
        model.compile(optimizer=model.optimizer, metrics=known, **settings)
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")  # Keras calls .h5 old
        model.save(path)


def _known(keras: Any, name: str) -> bool:
    if name in ("accuracy", "acc", "crossentropy", "ce"):
        return True
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return keras.metrics.get(name) is not None
    return False
