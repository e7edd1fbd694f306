"""Brings a Keras file to life under the Keras that belongs to it, compiled as it was saved, slots included."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.errors import BadFile, BadUsage, ParityError
from parity.frameworks.keras.assemble import assembled
from parity.frameworks.keras.choice import engine_name, use_backend
from parity.frameworks.keras.compilation import compile_as_saved
from parity.frameworks.keras.configs import is_model, layers_of, with_names
from parity.frameworks.keras.differences import era_remarks
from parity.frameworks.keras.edits.optimizers import OWN_OPTIMIZERS, own_optimizer
from parity.frameworks.keras.edits.own import OWN, own_layer
from parity.frameworks.keras.engine import Engine, engine_of, quiet
from parity.frameworks.keras.files import KerasFile, read
from parity.frameworks.keras.hdf5 import check_objects, guard
from parity.frameworks.keras.legacy import gone
from parity.frameworks.keras.lift import lift_file
from parity.frameworks.keras.modern import modernized
from parity.frameworks.keras.modules import with_modules
from parity.frameworks.keras.repair import repaired
from parity.frameworks.keras.safety import custom_objects as objects_in
from parity.frameworks.keras.safety import refuse_code
from parity.frameworks.keras.saved_state import saved_state
from parity.frameworks.keras.sizes import refuse_sizes
from parity.frameworks.keras.sources import build, is_source

__all__ = ["Opened", "load", "load_file", "open_keras"]


@dataclass(frozen=True, eq=False)
class Opened:
    """A model that has come to life.

    Attributes:
        model: a `keras.Model` or a `tf_keras.Model`, compiled as it was saved.
        file: the facts of its file; None for a model that the user's code built.
        engine: `"keras"` or `"tf_keras"`: which of them runs it.
        remarks: what a reader should know: what was repaired, and what the choice of the engine changes.
    """

    model: Any
    file: KerasFile | None
    engine: str
    remarks: tuple[str, ...] = ()


def open_keras(
    spec: str | Path | KerasFile,
    *,
    engine: str = "auto",
    backend: str = "",
    arch: str | Path | None = None,
    custom_objects: str | None = None,
    trust: bool = False,
) -> Opened:
    """The model of a file, or of the user's own code.

    Args:
        spec: a file of any of Keras' formats, a SavedModel's folder, `module.py:build`, which is run; or a file's
            facts, which were read already (and `arch` with them).
        engine: `"auto"` (the Keras of the file's era), `"keras3"` or `"tf_keras"`.
        backend: `"tensorflow"`, `"torch"` or `"jax"` for Keras 3; empty for the one that is set.
        arch: the model of a file of weights alone: its JSON, or `module.py:build`, which is run.
        custom_objects: a Python file whose classes and functions the model may name; it is run.
        trust: whether code that comes with the file may run (a Lambda's).

    Raises:
        BadFile: it cannot be read, Keras cannot rebuild the model from it, or the user's code fails.
        BadUsage: options that do not go together.
        CannotCompare: the engine or backend cannot run it.
        Refused: it holds code, or a custom class that is not given; nothing has been loaded then.
    """
    use_backend(backend)
    if isinstance(spec, KerasFile):
        return load_file(spec, custom_objects, engine=engine, backend=backend, trust=trust)
    text = str(spec)
    if is_source(text):
        if arch is not None:
            raise BadUsage("--keras-arch is for a file of weights alone; module.py:build is a model already")
        model = build(text)
        return Opened(model, None, engine_of(model).name)
    if arch is not None and is_source(str(arch)):
        return _weights_into(build(str(arch)), Path(spec), str(arch))
    return load_file(read(spec, arch), custom_objects, engine=engine, backend=backend, trust=trust)


def _weights_into(model: Any, path: Path, arch: str) -> Opened:
    """The user's own model with a file's weights, which its own Keras loads by its own rules."""
    engine = engine_of(model)
    if not path.is_file():
        raise BadFile(path, "does not exist")
    with path.open("rb") as f:
        if f.read(8) != b"\x89HDF\r\n\x1a\n":
            raise BadFile(path, "is not a file of weights (.h5)", "leave out the model, or give weights saved by Keras")
    import h5py

    with guard(path), h5py.File(path, "r") as f:
        check_objects(path, f)
        by_place = "layer_names" not in f.attrs and "layer_names0" not in f.attrs and "model_weights" not in f
    with _hushed(), _linked(path, ".weights.h5" if by_place else ".h5") as link:
        try:
            model.load_weights(link)
        except Exception as error:
            raise BadFile(path, f"does not fit the model of {arch} ({_short(error)})") from error
    return Opened(model, None, engine.name, (f"the model of {arch} with the weights of {path.name}",))


def load(path: str | Path, custom_objects: str | None = None, **options: Any) -> Any:
    """The model of a file or of the user's own code: `open_keras(...).model`."""
    return open_keras(path, custom_objects=custom_objects, **options).model


def load_file(
    file: KerasFile, custom_objects: str | None = None, *, engine: str = "auto", backend: str = "", trust: bool = False
) -> Opened:
    """As `open_keras`, of a file whose facts have been read."""
    given = objects_in(custom_objects)
    if not trust:
        refuse_code(file.path, file.original or file.model_config, (*given, *OWN, *OWN_OPTIMIZERS))
        if file.training_config is not None:
            refuse_code(file.path, _training_code(file.training_config), (*given, *OWN_OPTIMIZERS))
    name = engine_name(file, engine, backend)
    lost = gone(file.original or file.model_config, given) if file.era < 3 else ""
    if lost:
        raise BadFile(file.path, lost)
    file = repaired(file)
    network, _ = lift_file(file)
    refuse_sizes(file, network)
    if name == "keras" and file.era < 3:
        file = modernized(file)
    running = engine_of(name)
    own = {name: own_layer(running.keras, name) for name in OWN}
    own |= {name: own_optimizer(running.keras, name) for name in OWN_OPTIMIZERS} if running.modern else {}
    given = {**own, **given}
    with _hushed(), _named_by_content(file) as path:
        try:
            model, notes = _rebuild(running, path, file, given, trust)
        except ParityError:
            raise
        except Exception as error:
            words = "custom_objects", "Could not locate", "Unknown", "unsupported callable"
            unknown = any(word in str(error) for word in words)
            raise BadFile(
                file.path,
                f"{running.name} {running.keras.__version__} cannot rebuild its model "
                f"({type(error).__name__}: {_short(error)})",
                "give the source of what it does not know with --custom-objects FILE.py"
                if unknown
                else "load it where it was written and save it again, or pass the model itself",
            ) from error
    remarks = (*file.remarks, *era_remarks(file, running), *notes)
    return Opened(model, file, running.name, tuple(dict.fromkeys(remarks)))


def _rebuild(
    engine: Engine, path: Path, file: KerasFile, given: Mapping[str, Any], trust: bool
) -> tuple[Any, Sequence[str]]:
    """The model, compiled as it was saved, with its optimizer in the state that the file holds; and notes."""
    if file.repaired or file.apart:
        model = assembled(engine, file, given)
    else:
        safe = {"safe_mode": False} if trust else {}
        try:
            model = engine.keras.models.load_model(path, custom_objects=dict(given), compile=False, **safe)
        except Exception:
            if not engine.modern or file.format != "hdf5" or trust:
                raise
            model = assembled(engine, with_modules(file), given)
        if not engine.modern:
            _restore_names(model, file)
    network, _ = lift_file(file)
    notes = compile_as_saved(engine, model, file, saved_state(file, network), given)
    return model, notes


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


def _training_code(training: Mapping[str, Any]) -> dict[str, Any]:
    """What of `compile()`'s arguments is rebuilt: not its metrics, which parity does not count."""
    return {key: training.get(key) for key in ("optimizer", "loss")}


@contextlib.contextmanager
def _named_by_content(file: KerasFile) -> Iterator[Path]:
    """A path whose extension says what the file is, which Keras goes by: the file's own, or a link to it."""
    wanted = ".keras" if file.format == "zip" else ".h5"
    named = file.path.suffix == wanted or (wanted == ".h5" and file.path.suffix == ".hdf5")
    if file.format == "savedmodel" or named:
        yield file.path
        return
    with _linked(file.path, wanted) as link:
        yield link


@contextlib.contextmanager
def _linked(path: Path, extension: str) -> Iterator[Path]:
    """Another path to a file, with this extension."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{extension}"
        try:
            link.symlink_to(path.resolve())
        except OSError:
            shutil.copy(path, link)
        yield link


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


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
