"""Which Keras runs a file, and on which backend."""

from __future__ import annotations

import os
import sys

from parity.errors import BadUsage, CannotCompare
from parity.frameworks.keras.backends import BACKENDS
from parity.frameworks.keras.files import KerasFile

__all__ = ["ENGINES", "engine_name", "use_backend"]

ENGINES = {"auto": "", "keras3": "keras", "tf_keras": "tf_keras"}
"""`--keras-engine` → the package that runs it."""


def use_backend(name: str) -> None:
    """Makes Keras 3 run on this backend; does nothing for an empty name.

    Raises:
        BadUsage: there is no such backend.
        CannotCompare: Keras already runs on another one in this process, which cannot be changed.
    """
    if not name:
        return
    if name not in BACKENDS:
        raise BadUsage(f"there is no backend {name}; Keras runs on {', '.join(BACKENDS)}")
    keras = sys.modules.get("keras")
    running = keras.config.backend() if keras is not None and hasattr(keras, "config") else ""
    if running and running != name:
        raise CannotCompare(f"Keras already runs on {running} in this process; start another one for {name}")
    os.environ["KERAS_BACKEND"] = name


def engine_name(file: KerasFile, engine: str = "auto", backend: str = "") -> str:
    """`"keras"` or `"tf_keras"`: the Keras of the file's own era, unless another is asked for.

    Args:
        file: its facts.
        engine: `"auto"`, `"keras3"` or `"tf_keras"`.
        backend: what Keras 3 shall run on; Keras 2 runs on tensorflow.

    Raises:
        BadUsage: there is no such engine, or Keras 2 is to run on another backend.
        CannotCompare: a file of Keras 3 is to run under Keras 2.
    """
    if engine not in ENGINES:
        raise BadUsage(f"there is no Keras engine {engine}; choose from {', '.join(ENGINES)}")
    other = backend not in ("", "tensorflow")
    name = ENGINES[engine] or ("keras" if file.era == 3 or other else "tf_keras")
    if name == "tf_keras" and other:
        raise BadUsage(f"Keras 2 runs on tensorflow only, not on {backend}; ask for keras3, or leave the backend out")
    if name == "tf_keras" and file.era == 3:
        raise CannotCompare(
            f"{file.path}: was saved by Keras {file.version}, which Keras 2 cannot read; leave out --keras-engine"
        )
    return name
