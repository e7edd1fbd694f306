"""One of the two sides before it runs: a path, a model in memory or a runner, and what is known of it unopened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.batch import Batch
from parity.errors import BadUsage
from parity.feeds import Side, data_inputs
from parity.network import Network, Shape
from parity.opening import framework_of
from parity.recipe import Recipe
from parity.runner import Runner

if TYPE_CHECKING:
    from parity.frameworks.keras.files import KerasFile
    from parity.frameworks.matconvnet.recording import MatlabRecording
    from parity.traces.reader import Trace

__all__ = ["KERAS", "REF", "Opening", "Unopened"]

REF = Side("ref", "the reference")
KERAS = Side("keras", "the Keras model")


@dataclass(frozen=True)
class Opening:
    """How files are opened.

    Attributes:
        custom_objects: a Python file with the model's custom classes, which is run.
        engine: `"auto"` (the Keras of the file's era), `"keras3"` or `"tf_keras"`.
        backend: what Keras 3 runs on: `"tensorflow"`, `"torch"` or `"jax"`; empty for what is set.
        arch: the model of a file of weights alone: its JSON, or `module.py:build`.
        trust: whether code that comes with a model file may run.
        ref_recipe: a TOML file with what a .mat does not say of its training.
        ref_version: `"beta25"` or `"head"`: whose raw values of losses are shown.
    """

    custom_objects: str | None = None
    engine: str = "auto"
    backend: str = ""
    arch: str | None = None
    trust: bool = False
    ref_recipe: str | None = None
    ref_version: str = ""


class Unopened:
    """One of the two sides before it is opened: a path, a live Keras model, or a runner."""

    def __init__(self, given: Any, side: Side, how: Opening) -> None:
        self.given, self.side, self.how = given, side, how
        if isinstance(given, str | PathLike) and _is_source(fspath(given)):
            from parity.frameworks.keras.sources import build

            self.given = build(fspath(given))
        self._turned = False
        if hasattr(self.given, "get_config") and callable(self.given):
            from parity.frameworks.keras.layout import with_channels_last

            self.given, model = with_channels_last(self.given), self.given
            self._turned = self.given is not model
        self.path = Path(fspath(self.given)) if isinstance(self.given, str | PathLike) else None
        self.framework = framework_of(self.path) if self.path else ""
        self.file: KerasFile | None = None
        self.recording: MatlabRecording | None = None
        self.trace: Trace | None = None

    @cached_property
    def read(self) -> tuple[Network, Recipe] | None:
        """The file's network and recipe, read once and not run; None for a live object."""
        if self.path is None:
            return None
        if self.framework == "matconvnet":
            return self._read_matconvnet(self.path)
        if self.framework == "trace":
            from parity.traces.reader import Trace

            self.trace = Trace(self.path)
            return self.trace.network, self.trace.recipe
        arch = self.how.arch if self.side is KERAS else None
        if arch is not None and _is_source(arch):
            return None  # the model is what the user's own code makes
        from parity.frameworks.keras.files import read
        from parity.frameworks.keras.lift import lift_file

        self.file = read(self.path, arch)
        return lift_file(self.file)

    def _read_matconvnet(self, path: Path) -> tuple[Network, Recipe]:
        from parity.frameworks.matconvnet.lift import lift_data
        from parity.frameworks.matconvnet.matfile import read
        from parity.frameworks.matconvnet.recipe_file import Overrides, read_recipe
        from parity.frameworks.matconvnet.recording import is_recording, read_recording

        given = read_recipe(self.how.ref_recipe) if self.how.ref_recipe else None
        if self.how.ref_version:
            given = replace(given or Overrides(""), version=self.how.ref_version)
        data = read(path)
        if is_recording(data):
            self.recording = read_recording(path, given, data)
            return self.recording.network, self.recording.recipe
        return lift_data(data, str(path), recipe=given)

    @property
    def recorded(self) -> tuple[Batch, str] | None:
        """The batch and the mode of a recorded run; None where the side is run now."""
        if self.path is None or self.read is None:
            return None
        if self.trace is not None:
            from parity.traces.playback import batch_of

            return batch_of(self.trace), self.trace.mode
        if self.recording is None:
            return None
        arrays = _by_name("x", self.recording.inputs) | _by_name("y", self.recording.targets)
        batch = Batch(arrays, source=f"the batch recorded in {self.path}", counted_from_zero=True)
        return batch, self.recording.mode

    @property
    def network(self) -> Network | None:
        """What is known of the network before it is opened."""
        return self.read[0] if self.read else getattr(self.given, "network", None)

    @property
    def channels_first(self) -> bool:
        """Whether it keeps its channels first, and is run as the same model with channels last."""
        return self._turned or bool(self.network is not None and self.network.meta.get("channels_first"))

    @cached_property
    def inputs(self) -> Mapping[str, Shape]:
        """Data input → shape without batch axis; () where nothing is known."""
        if self.network is not None:
            return data_inputs(self.network) or {"input": ()}
        tensors = getattr(self.given, "inputs", None)
        if not tensors:
            return {"input": ()}
        # Keras 3 keeps no list of their names: each tensor's own is that of its input layer.
        own = [str(getattr(tensor, "name", "")) for tensor in tensors]
        plain = own if all(own) and len(set(own)) == len(own) else [f"input{i or ''}" for i in range(len(tensors))]
        names = getattr(self.given, "input_names", None) or plain
        return {str(name): tuple(t.shape[1:]) for name, t in zip(names, tensors, strict=True)}

    @property
    def vocabularies(self) -> Mapping[str, int]:
        """Input of a model in memory → how many tokens it tells apart, where an embedding reads it."""
        if self.network is not None or not getattr(self.given, "inputs", None):
            return {}
        from parity.frameworks.keras.live import vocabularies

        return vocabularies(self.given, list(self.inputs))

    def take_inputs_of(self, other: Unopened) -> None:
        """Where a model in code does not say what it takes, it takes a list of what the other side does, in order."""
        if self.network is None and not getattr(self.given, "inputs", None) and len(other.inputs) > 1:
            self.__dict__["inputs"] = dict(other.inputs)

    def open(self, example: Mapping[str, np.ndarray]) -> Runner:
        """A runner for it; `example` are its inputs by name."""
        if self.framework == "matconvnet":
            from parity.frameworks.matconvnet.lift import with_input
            from parity.frameworks.matconvnet.runner import MatConvNetRunner

            assert self.read is not None
            if self.recording is not None:
                from parity.frameworks.matconvnet.recorded import RecordedRunner

                return RecordedRunner(self.recording)
            network, recipe = self.read
            shapes = {name: x.shape[1:] for name, x in example.items()}
            return MatConvNetRunner(with_input(network, shapes, str(self.path)), recipe)
        if self.trace is not None:
            from parity.traces.playback import open_runner

            return open_runner(self.trace)
        from parity.frameworks.keras.runner import KerasRunner

        small = {name: x[:2] for name, x in example.items()}
        if self.path is not None:
            how = self.how
            arch = how.arch if self.side is KERAS else None
            return KerasRunner.open(
                self.file or self.path, small, how.custom_objects, engine=how.engine, backend=how.backend, arch=arch,
                trust=how.trust,
            )  # fmt: skip
        if all(hasattr(self.given, name) for name in ("network", "isolate", "run", "update")):
            return self.given
        if hasattr(self.given, "get_config") and callable(self.given):
            return KerasRunner(self.given, small)
        raise BadUsage(f"{self.side.words} is a path, a Keras model or a runner, not {type(self.given).__name__}")


def _by_name(letter: str, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by the names that a batch gives them."""
    return {letter if len(values) == 1 else f"{letter}_{name}": value for name, value in values.items()}


def _is_source(spec: str) -> bool:
    from parity.frameworks.keras.sources import is_source

    return is_source(spec)
