"""Reading a run that MatConvNet itself made and `parity_record.m` saved: its arrays as tensors of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import BadFile
from parity.frameworks.matconvnet.labels import labels_from_matlab
from parity.frameworks.matconvnet.lift import lift_with_places
from parity.frameworks.matconvnet.matfile import read
from parity.frameworks.matconvnet.recipe_file import Overrides
from parity.frameworks.matconvnet.sizes import with_input
from parity.frameworks.matconvnet.solver_state import shaped
from parity.layers import BatchNorm
from parity.network import STATISTICS, Network
from parity.recipe import Recipe
from parity.runner import Pass

__all__ = ["FORMAT", "MatlabRecording", "is_recording", "read_recording"]

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
