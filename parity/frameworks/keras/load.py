"""Brings a Keras file to life under the Keras that belongs to it, compiled as it was saved, slots included."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import BadFile, ParityError
from parity.frameworks.keras.configs import is_model, layers_of, with_names
from parity.frameworks.keras.engine import Engine, engine_of, quiet
from parity.frameworks.keras.files import KerasFile, read
from parity.frameworks.keras.safety import custom_objects as objects_in
from parity.frameworks.keras.safety import refuse_code

__all__ = ["load", "load_file"]


def load(path: str | Path, custom_objects: str | None = None) -> Any:
    """The model of a file, compiled as it was saved.

    Args:
        path: a `.h5`, `.hdf5` or `.keras` file.
        custom_objects: a Python file whose classes and functions the model may name.

    Returns:
        A `keras.Model` for a file of Keras 3, a `tf_keras.Model` for one of Keras 1 or 2.

    Raises:
        BadFile: it cannot be read, or Keras cannot rebuild the model from it.
        Refused: it holds a Lambda, or a custom class that is not given; nothing has been loaded then.
    """
    return load_file(read(path), custom_objects)


def load_file(file: KerasFile, custom_objects: str | None = None) -> Any:
    """As `load`, of a file whose facts have been read."""
    given = objects_in(custom_objects)
    refuse_code(file.path, file.model_config, given)
    if file.training_config is not None:
        refuse_code(file.path, _training_code(file.training_config), given)
    engine = engine_of("keras" if file.era == 3 else "tf_keras")
    with _hushed(), _named_by_content(file) as path:
        try:
            model = _rebuild(engine, path, file, given)
        except ParityError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            if len(text) > 200:
                text = text[:197] + "..."
            unknown = any(word in text for word in ("custom_objects", "Could not locate", "Unknown"))
            raise BadFile(
                file.path,
                f"{engine.name} {engine.keras.__version__} cannot rebuild its model ({type(error).__name__}: {text})",
                "give the source of what it does not know with --custom-objects FILE.py"
                if unknown
                else "load it where it was written and save it again, or pass the model itself",
            ) from error
    return model


def _rebuild(engine: Engine, path: Path, file: KerasFile, given: Mapping[str, Any]) -> Any:
    """The model with its optimizer; slots restored."""
    models = engine.keras.models
    compiled = file.training_config is not None
    if not engine.modern:
        model = models.load_model(path, custom_objects=dict(given), compile=compiled)
        _restore_names(model, file)
        return model
    model = models.load_model(path, custom_objects=dict(given), compile=compiled)
    if file.format == "hdf5" and compiled and getattr(model, "optimizer", None) is not None:
        _restore_optimizer(engine, model, file, given)
    return model


def _restore_names(model: Any, file: KerasFile) -> None:
    """Gives submodels that the configuration does not name the names that `lift` gives them, in every process."""
    if not is_model(file.model_config):
        return
    stored = list(file.weights) if file.format == "hdf5" else []

    def rename(live: Any, entry: Mapping[str, Any], raw: Mapping[str, Any]) -> None:
        entries = [e for e in layers_of(entry) if e.get("class_name") != "InputLayer"]
        originals = [e for e in layers_of(raw) if e.get("class_name") != "InputLayer"]
        layers = [layer for layer in live.layers if type(layer).__name__ != "InputLayer"]
        if not len(entries) == len(originals) == len(layers):
            return
        for layer, named, original in zip(layers, entries, originals, strict=True):
            if not is_model(named):
                continue
            if named.get("name") != original.get("name"):
                old, layer._name = layer.name, str(named["name"])
                names = getattr(live, "input_names", None)
                if names == [f"{old}_input"]:
                    live.input_names = [f"{layer.name}_input"]
            rename(layer, named, original)

    rename(model, with_names(file.model_config, stored), file.model_config)


def _restore_optimizer(engine: Engine, model: Any, file: KerasFile, given: Mapping[str, Any]) -> None:
    """Builds a Keras 3 optimizer anew on the model's variables, with the file's slots.

    Loading `.h5` builds it on no variables at all (keras/src/legacy/saving/legacy_h5_format.py, `load_model_from_hdf5`,
    calls `build` before the model's own), so that its slots stay empty and its first step fails.
    """
    assert file.training_config is not None
    with engine.keras.utils.custom_object_scope(dict(given)):
        optimizer = engine.keras.optimizers.deserialize(file.training_config["optimizer"])
    optimizer.build(model.trainable_variables)
    stored = file.read_slots()
    # A model saved before its first step has no slots yet, only the scalars that come before them.
    untrained = len(stored) < len(optimizer.variables) and all(value.ndim == 0 for _, value in stored)
    if untrained or len(stored) == len(optimizer.variables):
        for variable, (name, value) in zip(optimizer.variables, stored, strict=not untrained):
            if tuple(variable.shape) != value.shape:
                raise BadFile(file.path, f"the optimizer's {name} has shape {value.shape}, not {tuple(variable.shape)}")
            variable.assign(np.asarray(value))
    elif stored:
        raise BadFile(
            file.path, f"holds {len(stored)} optimizer arrays, and its model needs {len(optimizer.variables)}"
        )
    model.optimizer = optimizer


def _training_code(training: Mapping[str, Any]) -> dict[str, Any]:
    """What of `compile()`'s arguments is rebuilt when a file is loaded."""
    return {key: training.get(key) for key in ("optimizer", "loss", "metrics", "weighted_metrics")}


@contextlib.contextmanager
def _named_by_content(file: KerasFile) -> Iterator[Path]:
    """A path whose extension says what the file is, which Keras goes by: the file's own, or a link to it."""
    wanted = ".keras" if file.format == "zip" else ".h5"
    if file.path.suffix == wanted or (wanted == ".h5" and file.path.suffix == ".hdf5"):
        yield file.path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{wanted}"
        try:
            link.symlink_to(file.path.resolve())
        except OSError:
            shutil.copy(file.path, link)
        yield link


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keeps Keras' and tensorflow's remarks on loading off stderr: what matters of them parity says itself."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
