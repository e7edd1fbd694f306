"""Running a MatConvNet network: its layers on torch with MatConvNet's semantics, its trainer in numpy."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from parity.errors import CannotCompare
from parity.frameworks.matconvnet.execution import Execution, Settings, runnable
from parity.frameworks.matconvnet.lift import lift
from parity.frameworks.matconvnet.recipe import VERSIONS, Overrides
from parity.frameworks.matconvnet.sizes import times, with_input
from parity.frameworks.matconvnet.subbatches import Piece, joined, pieces
from parity.frameworks.matconvnet.tensors import from_torch, to_torch
from parity.garbage import unsought
from parity.layers import BatchNorm, Kind, Loss, PDist
from parity.network import Layer, Network
from parity.optimizers.base import OpaqueRule
from parity.optimizers.updater import Updater, rehearsed
from parity.recipe import Recipe
from parity.runner import Labels, Local, Pass, Targets

if TYPE_CHECKING:
    import torch

__all__ = ["MatConvNetRunner"]


class MatConvNetRunner:
    """A MatConvNet network, ready to run (see `parity.runner.Runner` for what its methods give).

    The loss and its gradients are means over the images, whichever version wrote the file: the value of releases before
    2018 is a sum, which their trainer divides by the batch (cnn_train.m:455). `raw_loss` gives what MatConvNet shows.

    A layer that parity cannot run (a custom layer, a class of the file's author) and all that needs it are passed over:
    their tensors are absent from what a pass shows, and `remarks` says so.

    Args:
        network: as `lift` gives it.
        recipe: how it is trained; its `version` says which release trains, the newest where it is empty.

    Attributes:
        network: the graph.
        recipe: how it is trained.
        engine: torch's version and threads.
        remarks: what MatConvNet would do and this runner does not.
    """

    library: ClassVar[str] = "torch"
    """What it runs on."""

    takes_channels: ClassVar[bool] = True
    """Whether `isolate` runs a convolution with some of its filters, a batch normalisation with some channels."""

    def __init__(self, network: Network, recipe: Recipe) -> None:
        self.network = network
        self.recipe = recipe
        self.remarks: list[str] = []
        self._weights: dict[str, np.ndarray] = {
            param.id: np.ascontiguousarray(param.value, np.float32).reshape(param.shape)
            for param in network.params.values()
            if param.value is not None
        }
        self._updater = Updater(recipe, network.params)

    @classmethod
    def open(
        cls,
        path: str | Path,
        input_shape: Sequence[int | None] | Mapping[str, Sequence[int | None]] | None = None,
        *,
        recipe: Overrides | None = None,
    ) -> MatConvNetRunner:
        """The runner of a MAT file; raises BadFile (see `lift`)."""
        return cls(*lift(path, input_shape, recipe=recipe))

    def prepare(self) -> None:
        """Import what everything here runs on; whatever needs it does so by itself."""
        if "torch" not in sys.modules:
            with unsought():
                importlib.import_module("torch")

    @property
    def engine(self) -> Mapping[str, Any]:
        """Name, version and number of threads of what executes the network."""
        self.prepare()
        import torch

        return {"name": "torch", "version": torch.__version__, "threads": torch.get_num_threads()}

    @property
    def version(self) -> str:
        """Whose trainer steps the weights: `"head"` or `"beta25"`."""
        return self.recipe.version or "head"

    def edited(self, layer_name: str, kind: Kind) -> MatConvNetRunner:
        """A runner on the same weights (shared, not copied) in which one layer is of another kind; shapes follow.

        Raises:
            KeyError: no such layer.
            CannotCompare: the network does not fit together with this kind.
        """
        if layer_name not in self.network:
            raise KeyError(layer_name)
        layers = tuple(replace(item, kind=kind) if item.name == layer_name else item for item in self.network.layers)
        other = object.__new__(MatConvNetRunner)
        other.network = _reshaped(replace(self.network, layers=layers))
        other.recipe = self.recipe
        other.remarks = []
        other._weights = self._weights
        other._updater = Updater(self.recipe, self.network.params)
        return other

    def params(self) -> dict[str, np.ndarray]:
        """Param id → a copy of its present value."""
        return {id_: value.copy() for id_, value in self._weights.items()}

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Put these values in; raises CannotCompare for an unknown id or a shape that does not fit."""
        for id_, value in values.items():
            if id_ not in self.network.params:
                raise CannotCompare(f"{self.network.name}: it has no parameter {id_!r}")
            shape = self.network.params[id_].shape
            if tuple(np.shape(value)) != shape:
                raise CannotCompare(f"{self.network.name}: {id_} has shape {shape}, not {tuple(np.shape(value))}")
            self._weights[id_] = np.array(value, np.float32)

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        labels: Labels,
        *,
        mode: str = "train",
        backward: bool = True,
        observe: bool = True,
        masks: Mapping[str, np.ndarray] | None = None,
        ties: str = "column",
        precision: int = 32,
        keep: frozenset[str] | None = None,
    ) -> Pass:
        """Run the whole network; see `Runner.run`. Without labels the loss layers are left out.

        In train mode a recipe with sub-batches runs them one after the other, as its trainer does. `keep` is ignored:
        every tensor is a view of what autograd holds anyway.
        """
        self.prepare()
        network, targets = self.network, Targets.of(labels, self.network)
        images = self._check_inputs(inputs)
        layers, opaque = runnable(network, inputs, targets)
        self._remark_on([layer.name for layer in opaque], layers)
        losses = [item for item in network.losses if item in layers]
        settings = Settings(mode, masks or {}, ties, precision, backward and bool(losses))

        def one(piece: Piece) -> Pass:
            parts = replace(settings, masks=piece.of(settings.masks))
            watch = settings.backward and observe
            feeds = {name: to_torch(value, precision, watch) for name, value in piece.of(inputs).items()}
            execution = Execution(network, layers, feeds, piece.targets(targets), self._weights, parts)
            tensors = execution.forward(None if observe else {item.output for item in losses})
            made = Pass(statistics=execution.statistics, masks=execution.masks)
            shares = {item.name: self._share(execution, item, tensors, piece, images) for item in losses}
            made.losses = {name: float(share.detach()) for name, share in shares.items()}
            made.loss = sum(made.losses.values()) if shares else None
            if settings.backward:
                nothing = [None] * len(shares)
                made.output_grads, made.param_grads = execution.gradients(
                    [*shares.values()], nothing, tensors if observe else {}
                )
            if observe:
                made.outputs = {name: from_torch(tensor) for name, tensor in tensors.items()}
            return made

        return self._piecewise(one, mode, images)

    def isolate(
        self,
        layers: Sequence[str],
        feeds: Mapping[str, np.ndarray],
        *,
        labels: Labels = None,
        upstream: Mapping[str, np.ndarray] | None = None,
        mode: str = "train",
        masks: Mapping[str, np.ndarray] | None = None,
        params: Mapping[str, np.ndarray] | None = None,
        ties: str = "column",
        precision: int = 32,
        wanted: Collection[str] | None = None,
        outputs: bool = True,
    ) -> Local:
        """Run only these layers, on these inputs; see `Runner.isolate`.

        Raises:
            Refused: one of them is a layer that parity cannot run.
            CannotCompare: an input or parameter is missing, or does not fit.
        """
        self.prepare()
        chosen = [self.network[name] for name in layers]
        targets = Targets.of(labels, self.network)
        losses = [item for item in self.network.losses if item in chosen]
        backward = upstream is not None and (wanted is None or len(wanted) > 0)
        settings = Settings(mode, masks or {}, ties, precision, backward, wanted, outputs or not backward)
        weights = {**self._weights, **(params or {})}
        images = max((len(value) for value in feeds.values() if np.ndim(value)), default=0)

        def one(piece: Piece) -> Local:
            parts = replace(settings, masks=piece.of(settings.masks))
            fed = {name: to_torch(v, precision, parts.differentiates(name)) for name, v in piece.of(feeds).items()}
            execution = Execution(self.network, chosen, fed, piece.targets(targets), weights, parts)
            tensors = execution.forward()
            made = {name: tensor for name, tensor in tensors.items() if name not in fed}
            shares = {item.output: self._share(execution, item, tensors, piece, images) for item in losses}
            local = Local(statistics=execution.statistics)
            local.losses = {item.name: float(shares[item.output].detach()) for item in losses}
            local.loss = sum(local.losses.values()) if losses else None
            if upstream is not None and backward:
                given = {name: value for name, value in piece.of(upstream).items() if name in made}
                above = {name: to_torch(value, precision) for name, value in given.items()}
                sources = {name: made[name] for name in above} | {n: s for n, s in shares.items() if n not in above}
                local.input_grads, local.param_grads = execution.gradients(
                    [*sources.values()], [above.get(name) for name in sources], fed
                )
            if settings.outputs:
                local.outputs = {name: from_torch(tensor) for name, tensor in made.items()}
            return local

        return self._piecewise(one, mode, images)

    def _share(
        self, execution: Execution, loss: Layer, tensors: Mapping[str, torch.Tensor], piece: Piece, images: int
    ) -> torch.Tensor:
        """What an objective adds to the loss; up to beta25 the trainer divides one of many values by the batch too."""
        count = len(range(images)[piece.images]) if self.version == "beta25" and tensors[loss.output].dim() else 1
        return execution.share(loss, tensors, piece.factor / max(count, 1))

    def raw_loss(self, seen: Pass | Local, images: int, version: str = "") -> dict[str, float]:
        """Loss layer → its value as MatConvNet itself shows it (`res(end).x`, the value of a loss's variable).

        Up to beta25 that is the sum over the images, later their mean; weights of the objectives are not in it.

        Args:
            seen: what `run` or `isolate` gave.
            images: how many images it ran on.
            version: whose; the recipe's where it is empty.
        """
        found: dict[str, float] = {}
        for layer in self.network.losses:
            weight = self.network.weight(layer)
            if layer.name in seen.losses and isinstance(layer.kind, Loss | PDist) and weight:
                value = seen.losses[layer.name] / weight
                found[layer.name] = layer.kind.raw_value(value, images, version or self.version)
        return found

    def raw_remark(self, seen: Pass | Local, images: int) -> str:
        """What MatConvNet itself shows of the losses, by its version where that is known; empty without a loss."""
        by = {version: self.raw_loss(seen, images, version) for version in VERSIONS}
        one = len(by["head"]) == 1

        def said(version: str) -> str:
            return ", ".join(f"{value:.6g}{'' if one else f' ({name})'}" for name, value in by[version].items())

        if not by["head"]:
            return ""
        what = f"the loss of {next(iter(by['head']))}" if one else "the losses"
        old = f"{said('beta25')} up to beta25 (a sum over {images} images)"
        new = f"{said('head')} since 2018"
        if self.recipe.version:
            return f"MatConvNet itself shows {what} as {old if self.version == 'beta25' else new}."
        if by["beta25"] == by["head"]:
            return ""
        return f"MatConvNet itself shows {what} as {old}, and as {new}."

    def update(self, grads: Mapping[str, np.ndarray], statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """One step of the trainer (`accumulateGradients` of cnn_train.m and cnn_train_dag.m).

        Moments are averaged, and weights moved. Raises CannotCompare where the recipe names an update rule that parity
        does not know.
        """
        rule = self.recipe.optimizer
        if rule is None or isinstance(rule, OpaqueRule):
            what = "no update rule" if rule is None else f"the unknown update rule {rule.name!r}"
            raise CannotCompare(f"{self.network.name}: its recipe has {what}")
        moved = self._updater.step(self._weights, grads)
        with np.errstate(all="ignore"):  # what overflows shows in the result
            moved |= self._averaged(statistics)
        self._weights.update(moved)

    def rehearse(
        self, weight: np.ndarray, gradients: Sequence[np.ndarray], factors: Sequence[float]
    ) -> list[np.ndarray] | None:
        """What the trainer's update rule makes of a parameter; see `Runner.rehearse`."""
        rule = self.recipe.optimizer
        known = rule is not None and not isinstance(rule, OpaqueRule)
        return rehearsed(self.recipe, weight, gradients, factors) if known else None

    def reset(self, slots: Mapping[str, Mapping[str, np.ndarray]] | None = None) -> None:
        """Put the trainer at its start; slots as the file's recipe has them."""
        self._updater.reset(slots)

    def slots(self) -> dict[str, dict[str, np.ndarray]]:
        """What the trainer holds beside the weights; nothing before its first update but what the file has."""
        return self._updater.held()

    def halted(self) -> Any:
        """The trainer between two updates."""
        return self._updater.halted()

    def resume(self, halted: Any) -> None:
        """Put the trainer back to there."""
        self._updater.resume(halted)

    def _piecewise(self, one: Any, mode: str, images: int) -> Any:
        """What `one` gives for the batch, or for its sub-batches put together."""
        count = self.recipe.sub_batches if mode == "train" else 1
        if count <= 1:
            return one(Piece(slice(None), 1.0))
        parts = pieces(images, count, self.version)
        norms = {item.name: item.kind.epsilon for item in self.network.layers if isinstance(item.kind, BatchNorm)}
        return joined([one(piece) for piece in parts], parts, images, norms)

    def _averaged(self, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """The running moments after one update: (1 - r)·old + r·[mean, deviation] (cnn_train.m:469-473).

        Moments that several layers share take the mean of theirs (cnn_train_dag.m, the parameter's fanout).
        """
        sharing: dict[tuple[str, ...], list[tuple[BatchNorm, Mapping[str, np.ndarray]]]] = {}
        for item in self.network.layers:
            if not isinstance(item.kind, BatchNorm) or item.name not in statistics:
                continue
            if item.kind.momentum is None:
                short = "its learningRate has no third entry, so MatConvNet's trainer stops with an index error"
                self._remark(f"{item.name}: {short}")
                continue
            ids = tuple(item.params.get(role, "") for role in ("mean", item.kind.stored))
            sharing.setdefault(ids, []).append((item.kind, statistics[item.name]))
        moved: dict[str, np.ndarray] = {}
        for ids, found in sharing.items():
            r = np.float32(1 - (found[0][0].momentum or 0.0))
            means = [np.asarray(batch["mean"], np.float64) for _, batch in found]
            seconds = [_second(kind, batch) for kind, batch in found]
            for id_, values in zip(ids, (means, seconds), strict=True):
                if id_:
                    value = np.mean(values, axis=0).astype(np.float32)
                    moved[id_] = (np.float32(1) - r) * self._weights[id_] + r * value
        return moved

    def _remark_on(self, opaque: Sequence[str], layers: Sequence[Layer]) -> None:
        if opaque:
            names = {layer.name for layer in layers}
            left = sum(item.name not in names and item.name not in opaque for item in self.network.layers)
            behind = f" and {left} layers that need {'it' if len(opaque) == 1 else 'them'}" if left else ""
            which = f"layer {opaque[0]}" if len(opaque) == 1 else f"layers {', '.join(opaque)}"
            self._remark(
                f"{which} cannot be run by parity: {'it' if len(opaque) == 1 else 'they'}{behind} are not observed"
            )

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)

    def _check_inputs(self, inputs: Mapping[str, np.ndarray]) -> int:
        """How many images they hold; raises CannotCompare for inputs that do not fit the network."""
        network, opened = self.network, {}
        wanted = network.data(network.inputs)
        for name, value in inputs.items():
            if name not in wanted:
                raise CannotCompare(f"{network.name}: it has no input {name!r} (it has {', '.join(network.inputs)})")
            shape, given = network.inputs[name], tuple(value.shape[1:])
            if len(given) != len(shape) or any(want not in (None, got) for want, got in zip(shape, given, strict=True)):
                called = "its input" if len(wanted) == 1 else f"its input {name}"
                raise CannotCompare(f"{network.name}: {called} is {times(shape)}, but the batch is {times(given)}")
            if None in shape:
                opened[name] = given
        if opened:
            with_input(network, opened)  # says which layer does not fit
        counts = {name: len(value) for name, value in inputs.items()}
        if not counts:
            raise CannotCompare(f"{network.name}: it is given none of its inputs ({', '.join(wanted)})")
        return max(counts.values())


def _second(kind: BatchNorm, batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """What the second moment keeps of a batch: its deviation including epsilon, or its variance."""
    variance = np.asarray(batch["variance"], np.float64)
    return np.sqrt(np.maximum(variance, 0) + kind.epsilon) if kind.stored == "deviation" else variance


def _reshaped(network: Network) -> Network:
    """The network with its shapes worked out anew, where its inputs have three axes."""
    shapes = {name: network.inputs[name] for name in network.data(network.inputs)}
    return with_input(network, shapes, fit=False) if all(len(shape) == 3 for shape in shapes.values()) else network
