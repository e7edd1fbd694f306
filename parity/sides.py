"""The two sides of a comparison, from paths or live objects to runners, and the batch that both take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.align import align
from parity.batch import Batch
from parity.case import Data
from parity.errors import BadUsage, CannotCompare
from parity.feeds import Side, data_inputs, inputs_for, matched_inputs, only_fed, only_recorded, targets_for
from parity.interrupts import heeded
from parity.joined import joined
from parity.network import Network, Shape
from parity.opening import framework_of
from parity.probes import open_extents, probe_inputs, with_targets
from parity.recipe import Recipe
from parity.runner import Runner, Targets

if TYPE_CHECKING:
    from parity.frameworks.keras.files import KerasFile
    from parity.frameworks.matconvnet.recording import MatlabRecording
    from parity.traces.reader import Trace

__all__ = ["Opening", "Sides", "open_one", "open_sides"]

_REF = Side("ref", "the reference")
_KERAS = Side("keras", "the Keras model")


@dataclass(frozen=True, eq=False)
class Sides:
    """Both sides, ready to be compared.

    Attributes:
        ref, keras: the runners.
        data: the batch as each takes it.
        batch: the batch itself.
        notes: what a reader should know of how they were opened.
    """

    ref: Runner
    keras: Runner
    data: Data
    batch: Batch
    notes: tuple[str, ...] = ()


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


@heeded()  # this is where frameworks are imported
def open_sides(ref: Any, keras: Any, given: Batch | None, how: Opening, seed: int, mode: str) -> Sides:
    """Both runners, and the batch as each takes it.

    Args:
        ref: path, Keras model or runner of the reference.
        keras: the same of the Keras side.
        given: the batch; None makes a seeded one of the shapes that the files name.
        how: files are opened.
        seed: of the probe batch.
        mode: `"train"` or `"eval"`.

    Raises:
        ParityError: a file cannot be read, or the batch does not fit it.
    """
    if ref is keras and hasattr(ref, "get_config"):
        from parity.frameworks.keras.live import copied

        ref = copied(keras)  # two runners must not step the same weights
    if how.backend:
        from parity.frameworks.keras.choice import use_backend

        use_backend(how.backend)
    mine, theirs = _Unopened(ref, _REF, how), _Unopened(keras, _KERAS, how)
    theirs.take_inputs_of(mine)
    if theirs.framework == "trace":
        raise CannotCompare(f"{theirs.path}: layers of a recorded Keras model cannot be run alone; name the model")
    given = _as_recorded(given, mine, mode)
    keras_to_ref = matched_inputs(mine.inputs, theirs.inputs)
    ref_to_keras = {b: a for a, b in keras_to_ref.items()}
    rng = np.random.default_rng(seed)
    generated = given is None
    if given is None:
        given = probe_inputs(mine.network, _shapes(mine, theirs, ref_to_keras), rng, mine.vocabularies)
        given = replace(given, source=f"a probe batch (seed {seed})")
    said: list[str] = []
    feeds_ref = inputs_for(given, _REF, mine.inputs, ref_to_keras, channels_first=mine.channels_first, notes=said)
    feeds_keras = inputs_for(
        given, _KERAS, theirs.inputs, keras_to_ref, channels_first=theirs.channels_first, notes=said
    )
    ref_runner, keras_runner = joined(mine.open(feeds_ref)), joined(theirs.open(feeds_keras))
    notes = [*_adopted(ref_runner, keras_runner), *said]
    networks = ref_runner.network, keras_runner.network
    partners = _paired_losses(*networks, mode)
    if generated:
        told = dict(zip((u.name for u in networks[0].losses), (v.name for v in networks[1].losses), strict=False))
        kinds = {mine: networks[1][theirs].kind for mine, theirs in (partners or told).items()}
        given = with_targets(given, networks[0] if networks[0].losses else networks[1], rng, kinds)
    labels_ref, remarks_ref = targets_for(given, _REF, *networks, partners)
    _check_recorded(
        mine, feeds_ref, labels_ref, ref_to_keras, lambda own: targets_for(own, _REF, *networks, partners)[0]
    )
    turned = None if partners is None else {theirs: mine for mine, theirs in partners.items()}
    labels_keras, remarks_keras = targets_for(given, _KERAS, networks[1], networks[0], turned)
    if mode == "train" and labels_ref is None and networks[0].losses:
        notes.append("The batch has no labels: loss, backward and update could not be compared.")
    data = Data(
        ref=_named(feeds_ref, networks[0]),
        keras=_named(feeds_keras, networks[1]),
        labels_ref=labels_ref,
        labels_keras=labels_keras,
    )
    notes += [*given.notes, *remarks_ref, *remarks_keras]
    return Sides(ref_runner, keras_runner, data, given, tuple(dict.fromkeys(notes)))


@heeded()
def open_one(
    given: Any, key: str, batch: Batch | None, how: Opening, seed: int, mode: str, lender: Network | None = None
) -> tuple[Runner, Mapping[str, np.ndarray], Targets | None, Batch, tuple[str, ...]]:
    """One side alone, to be recorded: its runner, the batch as it takes it, the batch itself, and remarks.

    Args:
        given: path, Keras model or runner.
        key: `"ref"` or `"keras"`: which side it will be.
        batch: None makes a seeded one.
        how: files are opened.
        seed: of the probe batch.
        mode: `"train"` or `"eval"`.
        lender: the network of the trace that the batch is from, whose names its arrays bear.

    Raises:
        ParityError: a file cannot be read, or the batch does not fit it.
    """
    side = _REF if key == "ref" else _KERAS
    if how.backend:
        from parity.frameworks.keras.choice import use_backend

        use_backend(how.backend)
    mine = _Unopened(given, side, how)
    used, rng = _as_recorded(batch, mine, mode), np.random.default_rng(seed)
    generated = used is None
    if used is None:
        used = probe_inputs(
            mine.network, _shapes(mine, mine, {name: name for name in mine.inputs}), rng, mine.vocabularies
        )
        used = replace(used, source=f"a probe batch (seed {seed})")
    said: list[str] = []
    partners = {} if lender is None else matched_inputs(data_inputs(lender), mine.inputs)
    feeds = inputs_for(used, side, mine.inputs, partners, channels_first=mine.channels_first, notes=said)
    runner = joined(mine.open(feeds))
    if generated:
        used = with_targets(used, runner.network, rng)
    network = runner.network
    labels, remarks = targets_for(used, side, network, lender or network)
    _check_recorded(mine, feeds, labels, {}, lambda own: targets_for(own, side, network, network)[0])
    return runner, _named(feeds, network), labels, used, (*used.notes, *said, *remarks)


def _as_recorded(given: Batch | None, side: _Unopened, mode: str) -> Batch | None:
    """The batch that is given; or the one that a side was recorded with, where it is a recording."""
    recorded = side.recorded
    if recorded is None:
        return given
    batch, recorded_mode = recorded
    only_recorded(side.path, recorded_mode, mode)
    return batch if given is None else given


def _check_recorded(
    side: _Unopened,
    feeds: Mapping[str, np.ndarray],
    labels: Targets | None,
    partners: Mapping[str, str],
    told: Callable[[Batch], Targets | None],
) -> None:
    """Raise CannotCompare where a recorded side is fed, or held against, another batch than its own."""
    if side.recorded is None:
        return
    batch = side.recorded[0]
    own = inputs_for(batch, side.side, side.inputs, partners, channels_first=side.channels_first)
    only_fed(side.path, labels, told(batch), lambda: all(np.array_equal(feeds[name], own[name]) for name in feeds))


def _shapes(mine: _Unopened, theirs: _Unopened, partners: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """Input → shape of what is generated: every input of the reference, then what only Keras has."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in mine.inputs.items():
        own = open_extents(shape or None) or open_extents(theirs.inputs.get(partners.get(name, "")) or None)
        if own is None:
            raise CannotCompare(
                "neither file says how large its input is, so no probe batch can be made; give images with --batch"
            )
        shapes[name] = own
    for name in theirs.inputs:
        own = open_extents(theirs.inputs[name] or None)
        if own is not None and name not in partners.values():
            shapes[name] = own
    return shapes


def _paired_losses(ref: Network, keras: Network, mode: str) -> dict[str, str] | None:
    """The reference's loss → the Keras one, where each side has several; None where order is as good."""
    if len(ref.losses) < 2 or len(keras.losses) < 2:
        return None
    pairs = align(ref, keras, mode).pairs
    return {p.ref.layers[-1]: p.keras.layers[-1] for p in pairs if p.ref.core == "Loss"}


def _named(feeds: Mapping[str, np.ndarray], network: Network) -> dict[str, np.ndarray]:
    """The arrays by the names that the opened network has for its inputs."""
    own = network.data(network.inputs)
    if set(own) == set(feeds) or len(own) != len(feeds):
        return dict(feeds)
    return dict(zip(own, feeds.values(), strict=True))


def _adopted(ref: Runner, keras: Runner) -> list[str]:
    """A Keras model that is not compiled takes the other side's loss and recipe; and the report says so."""
    notes: list[str] = []
    if ref.network.losses and ref.recipe.optimizer is None and keras.recipe.optimizer is not None:
        take = getattr(ref, "adopt", None)  # a file of Keras may hold the loss alone
        if take is not None:
            take(keras.recipe, whose="the Keras model", donor=keras)
            notes.append(
                "The reference's file does not say which optimizer trained it: it is updated by a translation of the "
                "Keras model's, so nothing is said about that."
            )
    if keras.recipe.optimizer is not None and keras.recipe.loss is not None:
        return notes
    losses = ref.network.losses
    adopt = getattr(keras, "adopt", None)
    if not losses or adopt is None:
        return notes
    adopt(ref.recipe, losses[0].kind, donor=ref)
    notes.append(
        "The Keras model is not compiled: it is compared with the reference's loss and a translation of its recipe, so "
        "nothing is said about its own training."
    )
    return notes


class _Unopened:
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
        arch = self.how.arch if self.side is _KERAS else None
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

    def take_inputs_of(self, other: _Unopened) -> None:
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
            arch = how.arch if self.side is _KERAS else None
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
