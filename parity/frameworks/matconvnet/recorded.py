"""A run that MatConvNet itself made and `parity_record.m` saved, as a reference.

What was recorded is shown as it is: tensors, derivatives and updates of MatConvNet's own code, layers of the file's
author included. What was not (float64 truths, other inputs, the noise of rounding) is parity's own run of the network
that the file holds, where parity can run it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import BadFile, CannotCompare
from parity.frameworks.matconvnet.labels import labels_from_matlab
from parity.frameworks.matconvnet.lift import lift_with_places
from parity.frameworks.matconvnet.matfile import read
from parity.frameworks.matconvnet.recipe_file import Overrides
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.frameworks.matconvnet.sizes import with_input
from parity.frameworks.matconvnet.solver_state import shaped
from parity.layers import BatchNorm, Dropout, Opaque
from parity.network import STATISTICS, Network
from parity.recipe import Recipe
from parity.runner import Labels, Local, Pass

__all__ = ["FORMAT", "MatlabRecording", "RecordedRunner", "is_recording", "read_recording"]

Array = np.ndarray

FORMAT = 1
"""The newest recording that this parity reads."""

_AGAIN = "record it again with parity_record.m (`parity matlab -o DIR` writes it)"


@dataclass(frozen=True, eq=False)
class MatlabRecording:
    """What a recording holds, in the neutral vocabulary.

    Attributes:
        path: of the file.
        network: its input sizes those of the batch.
        recipe: with the version of MatConvNet that ran.
        mode: `"train"` or `"eval"`.
        inputs, targets: what MatConvNet was fed: input → n h w c, label → class ids from 0 (-1: ignored) or values.
        seen: the first pass; derivatives are those of the mean loss, whichever release ran.
        steps: param id → derivative, for every update.
        statistics: layer → batch statistics, for every update.
        after: param id → value after every update; fewer than `steps` where derivatives alone were recorded.
        masks: layer → 0/1 mask, n h w c, for the first pass and each update after it, as far as they were kept.
        engine: the words for what ran it.
    """

    path: str
    network: Network
    recipe: Recipe
    mode: str
    inputs: Mapping[str, Array]
    targets: Mapping[str, Array]
    seen: Pass
    steps: tuple[Mapping[str, Array], ...] = ()
    statistics: tuple[Mapping[str, dict[str, Array]], ...] = ()
    after: tuple[Mapping[str, Array], ...] = ()
    losses: tuple[float, ...] = ()
    masks: tuple[Mapping[str, Array], ...] = ()
    engine: str = ""


def is_recording(data: Mapping[str, Any]) -> bool:
    """Whether the variables of a MAT file are those of a recording."""
    held = data.get("parity")
    return isinstance(held, Mapping) and "format" in held and "vars" in held and "net" in data


def read_recording(
    path: str | Path, recipe: Overrides | None = None, data: Mapping[str, Any] | None = None
) -> MatlabRecording:
    """A recording that `parity_record.m` wrote.

    Args:
        path: the MAT file.
        recipe: a recipe file, which takes precedence over what the recording says.
        data: the file's variables, where they have been read already.

    Raises:
        BadFile: no recording, of a newer format, or parts of it that do not fit together.
    """
    data = read(path) if data is None else data
    if not is_recording(data):
        raise BadFile(path, "is no recording of a MatConvNet run", _AGAIN)
    held = data["parity"]
    written = _number(held["format"])
    if written > FORMAT:
        raise BadFile(
            path, f"is a recording of format {written:g}, this parity reads up to {FORMAT}", "use a newer parity"
        )
    try:
        return _Reader(str(path), data, recipe).recording()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise BadFile(path, f"its recording is damaged ({' '.join(what.split())})", _AGAIN) from None


class _Reader:
    """Turns MATLAB's arrays into tensors by the network's names."""

    def __init__(self, file: str, data: Mapping[str, Any], recipe: Overrides | None) -> None:
        self.file, self.held = file, data["parity"]
        self.version = str(self.held["version"])
        overrides = replace(recipe or Overrides(""), version=self.version)
        self.chain = str(self.held["kind"]) == "simplenn"
        self.names = [str(p["name"]) for p in _structs(data["net"].get("params", []))]
        self.network, self.recipe, self.places = lift_with_places(data, file, recipe=overrides)
        self.images = int(_number(self.held["images"]))
        # Releases before 2018 differentiate the sum over the images.
        self.share = 1.0 / self.images if self.version == "beta25" else 1.0

    def recording(self) -> MatlabRecording:
        held = self.held
        given = {str(item["name"]): np.asarray(item["value"]) for item in _structs(held["inputs"])}
        inputs, targets = self._batch(given)
        network = with_input(self.network, {name: x.shape[1:] for name, x in inputs.items()}, path=self.file)
        network = replace(network, remarks=tuple(r for r in network.remarks if "size of its input" not in r))
        written = _structs(held.get("steps", []))
        steps = [self._step(item) for item in written]
        seen = self._first(steps)
        # Earlier writers kept the masks of the first pass alone.
        masks = [held["masks"], *(item["masks"] for item in written[1:] if "masks" in item)]
        return MatlabRecording(
            path=self.file,
            network=network,
            recipe=self.recipe,
            mode="train" if str(held["mode"]) == "train" else "eval",
            inputs=inputs,
            targets=targets,
            seen=seen,
            steps=tuple(step[0] for step in steps),
            statistics=tuple(step[1] for step in steps),
            after=tuple(step[2] for step in steps if step[2]),
            losses=tuple(step[3] for step in steps),
            masks=tuple(self._masks(each) for each in masks),
            engine=str(held.get("engine", "")),
        )

    def _masks(self, value: Any) -> dict[str, Array]:
        return {str(m["layer"]): (self._tensor(m["value"]) > 0).astype(np.float32) for m in _structs(value)}

    def _batch(self, given: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        network, inputs, targets = self.network, {}, {}
        for name in network.data(network.inputs):
            value = given.get("x0") if self.chain else given.get(name)
            if value is None:
                raise ValueError(f"no input {name} was recorded")
            inputs[name] = self._tensor(value)
        for name in network.labels:
            value = given.get("label") if self.chain else given.get(name)
            if value is not None:
                one = value.reshape(-1, 1, 1, 1, order="F") if value.size == self.images else self._tensor(value)
                targets[name] = labels_from_matlab(self.file, network, name, one)
        return inputs, targets

    def _tensor(self, value: Any) -> Array:
        """Axes h w c n → n h w c; MATLAB drops the trailing axes of extent 1."""
        array = np.asarray(value)
        full = array.reshape((*array.shape, *[1] * (4 - array.ndim)))
        if full.shape[-1] != self.images and full.size:
            raise ValueError(f"a tensor of shape {array.shape} in a batch of {self.images}")
        return np.ascontiguousarray(full.transpose(3, 0, 1, 2), np.float32)

    def _laid(self, name: str, value: Any) -> Array:
        """A tensor as the network has it: a grid that is a map of points there is recorded with its points first."""
        tensor, maker = self._tensor(value), self.network.producers.get(name)
        last = maker is not None and bool(getattr(maker.kind, "points_last", False)) and len(maker.inputs) == 1
        return np.ascontiguousarray(np.moveaxis(tensor, 1, 3)) if last else tensor

    def _first(self, steps: Sequence[tuple[Any, ...]]) -> Pass:
        network, seen = self.network, Pass()
        losses = {layer.output: layer for layer in network.losses}
        variables = _structs(self.held["vars"])
        if not variables:
            raise ValueError("no variables were recorded")
        for position, item in enumerate(variables):
            tensor = self._name(position, str(item["name"]))
            value, der = np.asarray(item["value"]), np.asarray(item["der"])
            if not tensor or tensor in network.labels or not value.size:
                continue
            if tensor in losses:
                layer = losses[tensor]
                seen.losses[layer.name] = float(np.sum(value)) * self.share * network.weight(layer)
                continue
            if value.shape[-1:] == (self.images,) or self.images == 1 or value.ndim >= 4:
                seen.outputs[tensor] = self._laid(tensor, value)
                if der.size and str(self.held["mode"]) == "train":
                    seen.output_grads[tensor] = self._laid(tensor, der) * np.float32(self.share)
        seen.loss = sum(seen.losses.values()) if seen.losses else None
        if steps:
            seen.param_grads, seen.statistics = dict(steps[0][0]), dict(steps[0][1])
        return seen

    def _name(self, position: int, written: str) -> str:
        """The network's name of a recorded variable."""
        if not self.chain:
            return written
        if position == 0:
            return next(iter(self.network.data(self.network.inputs)))
        layers = self.network.layers
        return layers[position - 1].output if position <= len(layers) else ""

    def _step(self, item: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Any], dict[str, Array], float]:
        params = self.network.params
        grads: dict[str, Array] = {}
        after: dict[str, Array] = {}
        moments: dict[str, Array] = {}
        for name, der, value in zip(*(_cell(item[key]) for key in ("param", "der", "after")), strict=True):
            place = self._place(name)
            for id_ in (key for key, at in self.places.items() if at == place):
                column = {"mean": 0, "deviation": 1, "variance": 1}.get(params[id_].role)
                moved = np.size(value) > 0  # a recording of no updates has nothing here
                if params[id_].role in STATISTICS and column is not None:
                    if moved:
                        after[id_] = np.asarray(value, np.float32)[:, column]
                    moments[id_] = np.asarray(der, np.float64)[:, column] * self.share
                else:
                    if moved:
                        after[id_] = shaped(np.asarray(value), params[id_]).astype(np.float32)
                    grads[id_] = (shaped(np.asarray(der), params[id_]) * self.share).astype(np.float32)
        statistics: dict[str, Any] = {}
        for layer in self.network.layers:
            kind = layer.kind
            mean, second = layer.params.get("mean", ""), layer.params.get("deviation", "")
            if isinstance(kind, BatchNorm) and mean in moments and second in moments:
                variance = np.maximum(moments[second] ** 2 - kind.epsilon, 0.0)
                statistics[layer.name] = {"mean": moments[mean], "variance": variance}
        return grads, statistics, after, float(np.sum(np.asarray(item["objective"]))) * self.share

    def _place(self, name: Any) -> tuple[int, ...]:
        if isinstance(name, str):
            return (self.names.index(name),)
        return tuple(int(part) - 1 for part in np.ravel(name))


class RecordedRunner(MatConvNetRunner):
    """A recorded run in the part of a runner (see `parity.runner.Runner`).

    Asked for what was recorded, it gives that; asked for anything else, parity runs the recorded network itself.

    Args:
        recording: as `read_recording` gives it.
    """

    def __init__(self, recording: MatlabRecording) -> None:
        super().__init__(recording.network, recording.recipe)
        self.recording = recording
        self._step = 0
        self._last: Pass | None = None
        words = f"MatConvNet's own run was recorded by {recording.engine or 'MATLAB'}, losses as in {self.version}."
        self.remarks.append(words)

    @property
    def engine(self) -> Mapping[str, Any]:
        """What made the recording, and what runs beside it."""
        return {**super().engine, "recorded": self.recording.engine}

    def load(self, values: Mapping[str, Array]) -> None:
        """Put these values in; the recording holds as long as they are its own."""
        super().load(values)
        self._step = self._position()

    def reset(self, slots: Mapping[str, Mapping[str, Array]] | None = None) -> None:
        """Put the trainer at its start."""
        super().reset(slots)
        self._step = self._position()

    def run(
        self,
        inputs: Mapping[str, Array],
        labels: Labels,
        *,
        mode: str = "train",
        backward: bool = True,
        observe: bool = True,
        masks: Mapping[str, Array] | None = None,
        ties: str = "column",
        precision: int = 32,
        keep: frozenset[str] | None = None,
    ) -> Pass:
        """The recorded pass, where it is what is asked for; else parity's own run of the network.

        Raises:
            CannotCompare: more updates are asked for than were recorded, of layers that parity cannot run.
        """
        foreign = any(isinstance(layer.kind, Opaque) for layer in self.network.layers)
        trained = backward and labels is not None
        if foreign and trained:
            self._check_derived()
        own = precision == 32 and mode == self.recording.mode and self._same(inputs) and self._drawn(mode, masks)
        own &= bool(self.recording.steps) or not trained
        if own and self._step >= 0 and (self._step == 0 or (self._step < len(self.recording.steps) and not observe)):
            self._last = self._recorded(trained)
            return self._last
        return super().run(
            inputs, labels, mode=mode, backward=backward, observe=observe, masks=masks, ties=ties, precision=precision,
            keep=keep,
        )  # fmt: skip

    def isolate(
        self,
        layers: Sequence[str],
        feeds: Mapping[str, Array],
        *,
        labels: Labels = None,
        upstream: Mapping[str, Array] | None = None,
        mode: str = "train",
        masks: Mapping[str, Array] | None = None,
        params: Mapping[str, Array] | None = None,
        ties: str = "column",
        precision: int = 32,
        wanted: Collection[str] | None = None,
    ) -> Local:
        """Parity's own run of these layers; of a layer whose code only MatConvNet had, what was recorded.

        Raises:
            NotImplementedError: such a layer is asked for anything else.
        """
        foreign = [name for name in layers if isinstance(self.network[name].kind, Opaque)]
        if not foreign:
            return super().isolate(
                layers, feeds, labels=labels, upstream=upstream, mode=mode, masks=masks, params=params, ties=ties,
                precision=precision, wanted=wanted,
            )  # fmt: skip
        seen = self.recording.seen
        recorded = all(np.array_equal(value, seen.outputs.get(name, ())) for name, value in feeds.items())
        if precision != 32 or not recorded or mode != self.recording.mode:
            raise NotImplementedError(f"{foreign[0]} runs code that parity does not have")
        made = {t for name in layers for t in self.network[name].outputs}
        return Local(outputs={t: seen.outputs[t] for t in made if t in seen.outputs})

    def drawn(self, step: int) -> Mapping[str, Array]:
        """Layer → what dropout kept of it in a step (from 1), 0 or 1; empty where nobody wrote it down."""
        return self.recording.masks[step - 1] if 1 <= step <= len(self.recording.masks) else {}

    def update(self, grads: Mapping[str, Array], statistics: Mapping[str, Mapping[str, Array]]) -> None:
        """The recorded step, after the recorded pass; else one step of parity's own trainer."""
        steps = self.recording.after
        if self._last is not None and grads is self._last.param_grads and 0 <= self._step < len(steps):
            super().update(grads, statistics)  # its slots go on, should the recording end before the steps do
            super().load(steps[self._step])
            self._step += 1
        else:
            super().update(grads, statistics)
            self._step = -1
        self._last = None

    # ------------------------------------------------------------------------------------------------------- inside

    def _check_derived(self) -> None:
        """Raise CannotCompare where derivatives of layers that cannot be run are asked for, and were not recorded."""
        recording = self.recording
        if not recording.steps:
            raise CannotCompare(
                f"{recording.path}: holds no derivatives, and has layers that cannot be run; record it with "
                f"'derOutputs', or with 'mode', 'test' for --mode eval"
            )
        count = len(recording.after)
        if 0 < count <= self._step:
            raise CannotCompare(
                f"{recording.path}: {count} updates were recorded, of layers that cannot be run for more; "
                f"compare it with --steps {count} at most"
            )

    def _recorded(self, backward: bool) -> Pass:
        seen, step = self.recording.seen, self._step
        made = Pass(
            outputs=dict(seen.outputs), loss=seen.loss, losses=dict(seen.losses), masks=dict(self.drawn(step + 1))
        )
        if step < len(self.recording.steps):
            made.statistics = dict(self.recording.statistics[step])
        if step:
            made.outputs, made.losses, made.loss = {}, {}, self.recording.losses[step]
        if backward:
            made.output_grads = dict(seen.output_grads) if not step else {}
            made.param_grads = dict(self.recording.steps[step]) if step < len(self.recording.steps) else {}
        return made

    def _same(self, inputs: Mapping[str, Array]) -> bool:
        given = self.recording.inputs
        return all(np.array_equal(value, given.get(name, ())) for name, value in inputs.items())

    def _drawn(self, mode: str, masks: Mapping[str, Array] | None) -> bool:
        """Whether the masks that are asked for are the recorded ones."""
        if mode != "train":
            return True
        held = self.drawn(self._step + 1)
        for layer in self.network.layers:
            if isinstance(layer.kind, Dropout) and layer.kind.rate:
                wanted, own = (masks or {}).get(layer.name), held.get(layer.name)
                if wanted is not None and (own is None or not np.array_equal(wanted, own)):
                    return False
        return True

    def _position(self) -> int:
        """How many recorded updates lie behind the present weights; -1 where they are none of the recording's."""
        params = self.network.params
        start = {key: p.value for key, p in params.items() if p.value is not None}
        if all(
            np.array_equal(self._weights[key], np.reshape(value, params[key].shape)) for key, value in start.items()
        ):
            return 0
        for step, values in enumerate(self.recording.after, start=1):
            if all(np.array_equal(self._weights[key], value) for key, value in values.items()):
                return step
        return -1

    def _remark_on(self, opaque: Sequence[str], layers: Sequence[Any]) -> None:
        """Nothing: what parity cannot run is in the recording."""


# ------------------------------------------------------------------------------------------------------ MATLAB's values


def _structs(value: Any) -> list[Mapping[str, Any]]:
    """A struct array, whose only element a reader gives bare."""
    if isinstance(value, Mapping):
        return [value]
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _cell(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if np.size(value) == 0 else [value]


def _number(value: Any) -> float:
    return float(np.asarray(value).flat[0])
