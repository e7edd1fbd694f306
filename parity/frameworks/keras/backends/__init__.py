"""What Keras computes with: tensorflow, torch or jax, each behind the same small face. One file per backend."""

from __future__ import annotations

import importlib

from parity.errors import CannotCompare
from parity.frameworks.keras.backends.base import Backend, Gradients, Made, Watch

__all__ = ["BACKENDS", "Backend", "Gradients", "Made", "Watch", "backend_of"]

BACKENDS = ("tensorflow", "torch", "jax")
"""The backends of Keras 3 that parity observes; Keras 2 has the first only."""

_LOADED: dict[str, Backend] = {}


def backend_of(name: str) -> Backend:
    """The backend of this name, loaded when it is first asked for.

    Raises:
        CannotCompare: parity does not observe it.
    """
    if name not in BACKENDS:
        raise CannotCompare(
            f"Keras runs on {name} here, and parity observes it on {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}; "
            "set KERAS_BACKEND to one of them before keras is imported"
        )
    if name not in _LOADED:
        module = importlib.import_module(f"parity.frameworks.keras.backends.{name}")
        _LOADED[name] = module.make()
    return _LOADED[name]
