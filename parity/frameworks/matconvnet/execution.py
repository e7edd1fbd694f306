"""One forward pass of some of a MatConvNet network's layers on torch and, on request, the gradients of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from parity.errors import CannotCompare, Refused
from parity.frameworks.matconvnet.labels import has_labels, labels_of
from parity.frameworks.matconvnet.sizes import times
from parity.frameworks.matconvnet.tensors import derivatives, from_torch, to_torch, weight_tensor
from parity.layers import Context, Dropout, Loss, Opaque
from parity.network import Layer, Network
from parity.runner import Targets

if TYPE_CHECKING:
    import torch

__all__ = ["Execution", "Settings", "runnable"]


@dataclass(frozen=True)
class Settings:
    """How layers are run.

    Attributes:
        mode: `"train"` or `"eval"`.
        masks: layer → 0/1 mask of what a dropout layer keeps, n h w c; without one it keeps all.
        ties: see `Context.ties`.
        precision: 32 or 64 bits.
        backward: whether gradients will be wanted.
        wanted: tensors and param ids whose gradients will be wanted; None: of all.
        outputs: whether anybody looks at what the last layers make, but for their gradients.
    """

    mode: str = "train"
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    ties: str = "column"
    precision: int = 32
    backward: bool = True
    wanted: Collection[str] | None = None
    outputs: bool = True

    def differentiates(self, name: str) -> bool:
        """Whether the gradient with respect to a tensor or parameter will be wanted."""
        return self.backward and (self.wanted is None or name in self.wanted)

    def __post_init__(self) -> None:
        if self.precision not in (32, 64):
            raise ValueError(f"precision is 32 or 64, not {self.precision}")


def runnable(network: Network, inputs: Iterable[str], targets: Targets | None) -> tuple[list[Layer], list[Layer]]:
    """The layers that these inputs and labels reach, and the opaque ones that stand in the way.

    MatConvNet passes over a layer one of whose inputs is not set (DagNN/eval.m); so is one behind a layer that parity
    does not run.
    """
    reached: set[str] = {*inputs}
    layers: list[Layer] = []
    opaque: list[Layer] = []
    for layer in network.layers:
        if not reached.issuperset(network.data(layer.inputs)) or not has_labels(network, layer, targets):
            continue
        if isinstance(layer.kind, Opaque):
            opaque.append(layer)
            continue
        layers.append(layer)
        reached.update(layer.outputs)
    return layers, opaque


class Execution:
    """Some layers, run once.

    Args:
        network: whose layers.
        layers: in topological order.
        feeds: tensor → value, for what they read and do not make.
        targets: for losses.
        weights: param id → value, of the parameters that they read.
        settings: how.

    Attributes:
        masks: layer → mask, of the dropout layers that ran in train mode.
        statistics: layer → {"mean", "variance"} of the batch, of the layers that compute them.
    """

    def __init__(
        self,
        network: Network,
        layers: Sequence[Layer],
        feeds: Mapping[str, torch.Tensor],
        targets: Targets | None,
        weights: Mapping[str, np.ndarray],
        settings: Settings,
    ) -> None:
        self.network, self.layers, self.feeds, self.targets, self.settings = network, layers, feeds, targets, settings
        self.masks: dict[str, np.ndarray] = {}
        self.statistics: dict[str, dict[str, np.ndarray]] = {}
        self._read = {name for layer in layers for name in layer.inputs}
        self._leaves: dict[str, torch.Tensor] = {}
        for id_ in dict.fromkeys(id_ for layer in layers for id_ in layer.params.values()):
            if id_ not in weights:
                raise CannotCompare(f"{network.name}: the value of {id_} is not known")
            grad = settings.differentiates(id_) and network.params[id_].trainable
            self._leaves[id_] = weight_tensor(np.asarray(weights[id_]), settings.precision, grad)

    def forward(self, keep: set[str] | None = None) -> dict[str, torch.Tensor]:
        """Tensor → value; with `keep` only those are held on to, and the rest is freed as soon as it may be."""
        import torch

        tensors = dict(self.feeds)
        last = {name: at for at, layer in enumerate(self.layers) for name in layer.inputs}
        with torch.set_grad_enabled(self.settings.backward):
            for at, layer in enumerate(self.layers):
                tensors.update(zip(layer.outputs, self._layer(layer, tensors), strict=False))
                if keep is not None:
                    for name in layer.inputs:
                        if last[name] == at and name not in keep:
                            tensors.pop(name, None)
        return tensors

    def share(self, loss: Layer, tensors: Mapping[str, torch.Tensor], factor: float = 1.0) -> torch.Tensor:
        """What a loss adds to the sum of the objectives; `factor` is that of a sub-batch."""
        value, weight = tensors[loss.output], self.network.weight(loss) * factor
        return (value if weight == 1 else value * weight).sum()

    def gradients(
        self,
        sources: Sequence[torch.Tensor],
        upstream: Sequence[torch.Tensor | None],
        watched: Mapping[str, torch.Tensor],
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Derivatives of Σ ⟨upstream, source⟩ for the watched tensors and the trainable parameters."""
        params = {id_: leaf for id_, leaf in self._leaves.items() if leaf.requires_grad}
        wanted = {name: tensor for name, tensor in watched.items() if tensor.requires_grad}
        usable = [(s, u) for s, u in zip(sources, upstream, strict=True) if s.requires_grad]
        if not usable or not (params or wanted):
            return {}, {}
        found = derivatives([s for s, _ in usable], [*wanted.values(), *params.values()], [u for _, u in usable])
        return (
            {name: from_torch(g) for name, g in zip(wanted, found, strict=False) if g is not None},
            {id_: g.numpy() for id_, g in zip(params, found[len(wanted) :], strict=True) if g is not None},
        )

    def _layer(self, layer: Layer, tensors: Mapping[str, torch.Tensor]) -> Sequence[torch.Tensor]:
        """The outputs of one layer."""
        network, settings = self.network, self.settings
        if isinstance(layer.kind, Opaque):
            raise Refused(f"{network.name}: layer {layer.name} ({layer.kind.type}) runs code that parity does not have")
        try:
            inputs = [tensors[name] for name in network.data(layer.inputs)]
        except KeyError as error:
            raise CannotCompare(f"{network.name}: layer {layer.name} lacks its input {error.args[0]!r}") from None
        context = Context(mode=settings.mode, ties=settings.ties)
        context.outputs = settings.outputs or not self._read.isdisjoint(layer.outputs)
        if isinstance(layer.kind, Loss):
            context.labels, context.weights = labels_of(network, layer, self.targets, inputs[0])
        if isinstance(layer.kind, Dropout) and settings.mode == "train":
            context.mask = self._mask(layer, inputs[0])
        params = {role: self._leaves[id_] for role, id_ in layer.params.items()}
        try:
            made = layer.kind.forward(inputs, params, context)
        except (RuntimeError, ValueError, IndexError) as error:
            at = ", ".join(times(from_torch(tensor).shape[1:]) for tensor in inputs)
            raise CannotCompare(f"{network.name}: layer {layer.name} cannot run on {at}: {error}") from None
        if context.statistics:
            self.statistics[layer.name] = {role: value.numpy() for role, value in context.statistics.items()}
        return made if isinstance(made, (tuple, list)) else (made,)

    def _mask(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        mask = self.settings.masks.get(layer.name)
        if mask is None:
            mask = np.ones(from_torch(x).shape, np.float32)
        self.masks[layer.name] = np.asarray(mask)
        return to_torch(np.asarray(mask), self.settings.precision)
