"""Running a MatConvNet network: its layers on torch with MatConvNet's semantics, its trainer in numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.errors import CannotCompare, Refused
from parity.frameworks.matconvnet.lift import lift, with_input
from parity.frameworks.matconvnet.tensors import (
    from_torch,
    label_tensor,
    label_weights,
    target_tensor,
    to_torch,
    weight_tensor,
)
from parity.layers import BatchNorm, Context, Dropout, Kind, Loss, Opaque
from parity.network import Layer, Network
from parity.optimizers.base import OpaqueRule
from parity.optimizers.updater import Updater
from parity.recipe import Recipe
from parity.runner import Labels, Local, Pass, Targets

if TYPE_CHECKING:
    import torch

__all__ = ["MatConvNetRunner"]


class MatConvNetRunner:
    """A MatConvNet network, ready to run (see `parity.runner.Runner` for what its methods give).

    The loss and its gradients are means over the images, whichever version wrote the file: the value of releases before
    2018 is a sum, which their trainer divides by the batch (cnn_train.m:455).

    Args:
        network: as `lift` gives it.
        recipe: how it is trained.

    Attributes:
        network: the graph.
        recipe: how it is trained.
        engine: torch's version and threads.
        remarks: what MatConvNet would do and this runner does not (an index error that stops its trainer).
    """

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
    def open(cls, path: str | Path, input_shape: tuple[int, ...] | None = None) -> MatConvNetRunner:
        """The runner of a MAT file; raises BadFile (see `lift`)."""
        return cls(*lift(path, input_shape))

    @property
    def engine(self) -> Mapping[str, Any]:
        """Name, version and number of threads of what executes the network."""
        import torch

        return {"name": "torch", "version": torch.__version__, "threads": torch.get_num_threads()}

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
        """Run the whole network; see `Runner.run`. Without labels the loss layer is left out.

        `keep` is ignored: every tensor is a view of what autograd holds anyway.
        """
        network, targets = self.network, Targets.of(labels, self.network)
        layers = [item for item in network.layers if _has_labels(network, item, targets)]
        losses = [item for item in network.losses if item in layers]
        backward = backward and bool(losses)
        for name, value in inputs.items():
            self._check_input(name, value)
        feeds = {name: to_torch(value, precision, backward and observe) for name, value in inputs.items()}
        execution = _Execution(self, layers, feeds, targets, mode, masks, ties, precision, {}, backward)
        tensors = execution.forward(None if observe else {item.output for item in losses})
        result = Pass(statistics=execution.statistics, masks=execution.masks)
        shares = {item.name: _share(network, item, tensors) for item in losses}
        result.losses = {name: float(share.detach()) for name, share in shares.items()}
        if shares:
            result.loss = sum(result.losses.values())
        if backward:
            watched = dict(tensors) if observe else {}
            sources = [*shares.values()]
            result.output_grads, result.param_grads = execution.gradients(sources, [None] * len(sources), watched)
        if observe:
            result.outputs = {name: from_torch(tensor) for name, tensor in tensors.items()}
        return result

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
    ) -> Local:
        """Run only these layers, on these inputs; see `Runner.isolate`."""
        chosen = [self.network[name] for name in layers]
        backward = upstream is not None
        fed = {name: to_torch(value, precision, backward) for name, value in feeds.items()}
        targets = Targets.of(labels, self.network)
        execution = _Execution(self, chosen, fed, targets, mode, masks, ties, precision, params or {}, backward)
        tensors = execution.forward(None)
        made = {name: tensor for name, tensor in tensors.items() if name not in fed}
        result = Local(statistics=execution.statistics)
        losses = [item for item in self.network.losses if item in chosen]
        shares = {item.output: _share(self.network, item, tensors) for item in losses}
        result.losses = {item.name: float(shares[item.output].detach()) for item in losses}
        if losses:
            result.loss = sum(result.losses.values())
        if upstream is not None:
            above = {name: to_torch(value, precision) for name, value in upstream.items() if name in made}
            sources = {name: made[name] for name in above} | {n: s for n, s in shares.items() if n not in above}
            result.input_grads, result.param_grads = execution.gradients(
                [*sources.values()], [above.get(name) for name in sources], fed
            )
        result.outputs = {name: from_torch(tensor) for name, tensor in made.items()}
        return result

    def update(self, grads: Mapping[str, np.ndarray], statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """One step of the trainer (cnn_train.m, `accumulateGradients`): moments averaged, then weights moved.

        Raises CannotCompare where the recipe names an update rule that parity does not know.
        """
        rule = self.recipe.optimizer
        if rule is None or isinstance(rule, OpaqueRule):
            what = "no update rule" if rule is None else f"the unknown update rule {rule.name!r}"
            raise CannotCompare(f"{self.network.name}: its recipe has {what}")
        moved = self._updater.step(self._weights, grads)
        for item in self.network.layers:
            if isinstance(item.kind, BatchNorm) and item.name in statistics:
                with np.errstate(all="ignore"):  # what overflows shows in the result
                    moved |= self._averaged(item, item.kind, statistics[item.name])
        self._weights.update(moved)

    def reset(self, slots: Mapping[str, Mapping[str, np.ndarray]] | None = None) -> None:
        """Put the trainer at its start; slots as the file's recipe has them."""
        self._updater.reset(slots)

    def _averaged(self, layer: Layer, kind: BatchNorm, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The running moments after one update: (1 - r)·old + r·[mean, deviation] (cnn_train.m:469-473)."""
        if kind.momentum is None:
            remark = (
                f"{layer.name}: its learningRate has no third entry, so MatConvNet's trainer stops with an index error"
            )
            if remark not in self.remarks:
                self.remarks.append(remark)
            return {}
        second = np.asarray(batch["variance"], np.float64)
        if kind.stored == "deviation":
            second = np.sqrt(np.maximum(second, 0) + kind.epsilon)
        r = np.float32(1 - kind.momentum)
        moved: dict[str, np.ndarray] = {}
        for role, value in (("mean", batch["mean"]), (kind.stored, second)):
            id_ = layer.params.get(role)
            if id_ is not None:
                moved[id_] = (np.float32(1) - r) * self._weights[id_] + r * np.asarray(value, np.float32)
        return moved

    def _check_input(self, name: str, value: np.ndarray) -> None:
        shape = self.network.inputs.get(name)
        if shape is None or name in self.network.labels:
            raise CannotCompare(
                f"{self.network.name}: it has no input {name!r} (it has {', '.join(self.network.inputs)})"
            )
        given = tuple(value.shape[1:])
        if len(given) != len(shape) or any(want not in (None, got) for want, got in zip(shape, given, strict=True)):
            raise CannotCompare(f"{self.network.name}: its input is {_times(shape)}, but the batch is {_times(given)}")
        if None in shape:
            with_input(self.network, given)  # says which layer does not fit


class _Execution:
    """One forward pass of some layers and, on request, the gradients of it."""

    def __init__(
        self,
        runner: MatConvNetRunner,
        layers: Sequence[Layer],
        feeds: Mapping[str, torch.Tensor],
        labels: Targets | None,
        mode: str,
        masks: Mapping[str, np.ndarray] | None,
        ties: str,
        precision: int,
        overrides: Mapping[str, np.ndarray],
        backward: bool,
    ) -> None:
        if precision not in (32, 64):
            raise ValueError(f"precision is 32 or 64, not {precision}")
        self.runner, self.layers, self.feeds, self.labels = runner, layers, feeds, labels
        self.mode, self.given, self.ties, self.precision = mode, masks or {}, ties, precision
        self.masks: dict[str, np.ndarray] = {}
        self.statistics: dict[str, dict[str, np.ndarray]] = {}
        self.leaves: dict[str, torch.Tensor] = {}
        self.backward = backward
        for id_ in dict.fromkeys(id_ for layer in layers for id_ in layer.params.values()):
            value = overrides.get(id_, runner._weights.get(id_))
            if value is None:
                raise CannotCompare(f"{runner.network.name}: the value of {id_} is not known")
            self.leaves[id_] = weight_tensor(
                np.asarray(value), precision, backward and runner.network.params[id_].trainable
            )

    def forward(self, keep: set[str] | None) -> dict[str, torch.Tensor]:
        """Tensor name → value; with `keep` only those are held on to, and the rest is freed as soon as it may be."""
        import torch

        tensors = dict(self.feeds)
        last = {name: at for at, layer in enumerate(self.layers) for name in layer.inputs}
        with torch.set_grad_enabled(self.backward):
            for at, layer in enumerate(self.layers):
                tensors.update(zip(layer.outputs, self._layer(layer, tensors), strict=False))
                if keep is not None:
                    for name in layer.inputs:
                        if last[name] == at and name not in keep:
                            tensors.pop(name, None)
        return tensors

    def _layer(self, layer: Layer, tensors: Mapping[str, torch.Tensor]) -> Sequence[torch.Tensor]:
        """The outputs of one layer."""
        network = self.runner.network
        if isinstance(layer.kind, Opaque):
            raise Refused(f"{network.name}: layer {layer.name} ({layer.kind.type}) runs code that parity does not have")
        try:
            inputs = [tensors[name] for name in layer.inputs if name not in network.labels]
        except KeyError as error:
            raise CannotCompare(f"{network.name}: layer {layer.name} lacks its input {error.args[0]!r}") from None
        context = Context(mode=self.mode, ties=self.ties)
        if isinstance(layer.kind, Loss):
            context.labels, context.weights = _labels(network, layer, self.labels, inputs[0])
        if isinstance(layer.kind, Dropout) and self.mode == "train":
            context.mask = self._mask(layer, inputs[0])
        params = {role: self.leaves[id_] for role, id_ in layer.params.items()}
        try:
            made = layer.kind.forward(inputs, params, context)
        except (RuntimeError, ValueError) as error:
            at = ", ".join(_times(from_torch(tensor).shape[1:]) for tensor in inputs)
            raise CannotCompare(f"{network.name}: layer {layer.name} cannot run on {at}: {error}") from None
        if context.statistics:
            self.statistics[layer.name] = {role: value.numpy() for role, value in context.statistics.items()}
        return made if isinstance(made, (tuple, list)) else (made,)

    def _mask(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        mask = self.given.get(layer.name)
        if mask is None:
            mask = np.ones(from_torch(x).shape, np.float32)
        self.masks[layer.name] = np.asarray(mask)
        return to_torch(np.asarray(mask), self.precision)

    def gradients(
        self,
        sources: Sequence[torch.Tensor],
        upstream: Sequence[torch.Tensor | None],
        watched: Mapping[str, torch.Tensor],
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Derivatives of Σ ⟨upstream, source⟩ for the watched tensors and the trainable parameters."""
        import torch

        params = {id_: leaf for id_, leaf in self.leaves.items() if leaf.requires_grad}
        wanted = {name: tensor for name, tensor in watched.items() if tensor.requires_grad}
        usable = [(s, u) for s, u in zip(sources, upstream, strict=True) if s.requires_grad]
        if not usable or not (params or wanted):
            return {}, {}
        found = torch.autograd.grad(
            [s for s, _ in usable],
            [*wanted.values(), *params.values()],
            [torch.ones_like(s) if u is None else u.reshape(s.shape) for s, u in usable],
            allow_unused=True,
        )
        grads = [None if g is None else g for g in found]
        return (
            {name: from_torch(g) for name, g in zip(wanted, grads, strict=False) if g is not None},
            {id_: g.numpy() for id_, g in zip(params, grads[len(wanted) :], strict=True) if g is not None},
        )


def _has_labels(network: Network, layer: Layer, targets: Targets | None) -> bool:
    """Whether a layer reads no labels, or these hold what it reads."""
    label = network.label_of(layer)
    return not label or (targets is not None and label in targets.values)


def _share(network: Network, loss: Layer, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What a loss adds to the sum of the objectives."""
    value, weight = tensors[loss.output], network.weight(loss)
    return value if weight == 1 else value * weight


def _labels(
    network: Network, layer: Layer, targets: Targets | None, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Labels and instance weights of a loss on predictions `x` (n c h w): ids from 0, -1 ignored.

    Raises CannotCompare for labels that do not fit.
    """
    from parity.layers._losses import BINARY

    name, label = network.name, network.label_of(layer)
    if targets is None or label not in targets.values:
        raise CannotCompare(f"{name}: the loss {layer.name} needs labels")
    values = np.asarray(targets.values[label])
    weights = targets.weights.get(label)
    weighing = None if weights is None else label_weights(weights, x)
    function = getattr(layer.kind, "function", "")
    if function in BINARY:
        weighing = None if weighing is None else weighing.unsqueeze(1)
        return target_tensor(_signs(values), x), weighing
    return _label_ids(name, layer, values, x), weighing


def _signs(values: np.ndarray) -> np.ndarray:
    """Labels of attributes as -1 and +1, 0 ignored: a batch may hold them so, or as 0 and 1."""
    return values if values.size and values.min() < 0 else 2 * values - 1


def _label_ids(name: str, layer: Layer, given: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    """Class ids from 0, -1 ignored, checked against the predictions `x` (n c h w)."""
    images, classes, *extents = x.shape
    if given.ndim in (3, 4) and given.shape[1:] not in ((*extents,), (*extents, 1)):
        raise CannotCompare(
            f"{name}: labels per pixel are {_times(given.shape[1:])}, the predictions {_times(extents)}"
        )
    if given.ndim == 4:
        given = given[..., 0]
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim not in (1, 2, 3) or len(given) != images:
        raise CannotCompare(f"{name}: {images} images, but labels of shape {given.shape}")
    if given.ndim == 2:
        if given.shape[1] != classes:
            raise CannotCompare(f"{name}: one-hot labels of {given.shape[1]} classes for {classes} outputs")
    elif given.size and not np.array_equal(given, np.round(given)):
        raise CannotCompare(f"{name}: class labels must be whole numbers")
    elif given.size and (given.min() < -1 or given.max() >= max(classes, 1 + _probability(layer, classes))):
        low, high = int(given.min()), int(given.max())
        raise CannotCompare(
            f"{name}: labels run from {low} to {high}, but its {classes} classes count from 0 to {classes - 1}"
        )
    return label_tensor(given)


def _probability(layer: Layer, classes: int) -> bool:
    """Whether the only output is a probability or value, for which labels 0 and 1 are targets and not classes."""
    from parity.layers._losses import VECTOR

    return classes == 1 and isinstance(layer.kind, Loss) and layer.kind.function in VECTOR


def _reshaped(network: Network) -> Network:
    """The network with its shapes worked out anew, where its input has three axes."""
    shape = network.inputs.get("input")
    return with_input(network, shape, fit=False) if shape is not None and len(shape) == 3 else network


def _times(extents: Iterable[Any]) -> str:
    return "×".join("?" if n is None else str(int(n)) for n in extents) or "a number"
