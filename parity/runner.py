"""Running a network for real and observing it: what every framework's runner offers.

A runner holds one model of one framework and its present weights. It speaks numpy: activations `n h w c` (or `n c`),
parameters in the axes that its `Network` declares. The comparison is written against this protocol only, so any
framework can be the reference and any the actual side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from parity.network import Network
    from parity.recipe import Recipe

__all__ = ["Labels", "Local", "Pass", "Runner", "Targets"]


@dataclass(frozen=True, eq=False)
class Targets:
    """What the losses of one network are held against.

    Attributes:
        values: label tensor → class ids from 0 (n,) or per pixel (n, h, w), -1 ignored; one-hot (n, c); or, for losses
            of attributes and regressions, the targets in the prediction's shape.
        weights: label tensor → weight of each image (n,) or pixel (n, h, w); absent where all count once.
    """

    values: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: Labels, network: Network) -> Targets | None:
        """The targets of a network; an array stands for each of its label tensors."""
        if labels is None or isinstance(labels, Targets):
            return labels
        return cls(dict.fromkeys(network.labels, labels))

    def same(self, other: Targets) -> bool:
        """Whether the others are the same labels with the same weights."""
        pairs = (self.values, other.values), (self.weights, other.weights)
        return all(a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a) for a, b in pairs)


Labels: TypeAlias = "Targets | np.ndarray | None"
"""Targets, or one array for every loss of a network, or None without labels."""


@dataclass
class Pass:
    """What one run of a whole network on one batch shows.

    Attributes:
        outputs: tensor name → value, of every layer (and of the inputs), as the layers made them.
        output_grads: tensor name → derivative of the mean data loss with respect to it; tensors that got none are
            absent (a softmax output whose loss takes the logits behind it).
        param_grads: param id → derivative of the mean data loss, in the param's axes.
        penalty_grads: param id → what regularizers add to its gradient; absent where they add nothing.
        loss: the mean data loss (the weighted sum of all objectives), or None without a loss.
        losses: loss layer → its share of that sum.
        penalty: what regularizers add to the loss.
        masks: layer name → 0/1 array of what a dropout layer kept, in its output's shape.
        statistics: layer name → {"mean", "variance"}: the batch statistics (biased variance) that a batch
            normalisation computed, of shape (c).
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    output_grads: dict[str, np.ndarray] = field(default_factory=dict)
    param_grads: dict[str, np.ndarray] = field(default_factory=dict)
    penalty_grads: dict[str, np.ndarray] = field(default_factory=dict)
    loss: float | None = None
    losses: dict[str, float] = field(default_factory=dict)
    penalty: float = 0.0
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    statistics: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


@dataclass
class Local:
    """What a few layers show when they are run alone on given inputs.

    Attributes:
        outputs: tensor name → value, of every tensor those layers make.
        input_grads: tensor name → derivative with respect to each fed tensor, given the upstream gradients.
        param_grads: param id → derivative.
        statistics: as in `Pass`.
        loss: where loss layers are among them, their weighted sum.
        losses: loss layer → its share of that sum.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    input_grads: dict[str, np.ndarray] = field(default_factory=dict)
    param_grads: dict[str, np.ndarray] = field(default_factory=dict)
    statistics: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    loss: float | None = None
    losses: dict[str, float] = field(default_factory=dict)


class Runner(Protocol):
    """One model of one framework, ready to run.

    Attributes:
        network: the graph as it is executed. Its labels' loss is a layer of kind `Loss`, whether the framework counts
            it as a layer (MatConvNet) or not (Keras: a layer named `loss`).
        recipe: how it is trained.
    """

    network: Network
    recipe: Recipe

    @property
    def engine(self) -> Mapping[str, Any]:
        """Name and version of what executes the model."""
        ...

    def params(self) -> dict[str, np.ndarray]:
        """Param id → a copy of its present value, statistics included."""
        ...

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Put these values in; params that are not named stay as they are."""
        ...

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
        """Run the whole network; with `backward` the gradients too. Weights do not move, batch statistics do not move.

        Args:
            inputs: name → n h w c, float32.
            labels: what the losses are held against, or one array for all of them; None leaves the losses out.
            mode: `"train"` or `"eval"`.
            backward: whether to compute gradients (only where there is a loss).
            observe: False keeps only params' gradients, masks, statistics and the loss.
            masks: layer name → 0/1 mask for dropout layers, in the output's shape; what has none draws its own.
            ties: see `Context.ties`; a runner that cannot choose ignores it.
            precision: 32 or 64 bits.
            keep: with `observe`, the tensors to show; None for all. A runner may show more.
        """
        ...

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
        """Run only these layers, on these inputs; nothing of the model's state changes.

        Args:
            layers: names in topological order.
            feeds: tensor name → value, for every tensor that they read and do not make themselves.
            labels: for a loss layer.
            upstream: tensor name → derivative of the objective with respect to that output; None runs forward only.
                Where a loss layer is among `layers` its weight in the objective is upstream.
            mode: `"train"` or `"eval"`.
            masks: layer name → 0/1 mask for dropout layers; needed there in train mode.
            params: param id → value to use instead of the present one.
            ties: see `Context.ties`.
            precision: 32 or 64 bits of the computation. Raises NotImplementedError where a layer cannot run in 64.
            wanted: tensors and param ids whose gradients are asked for; those of others may be missing. None: of all.
            outputs: False where nobody looks at what the layers make, but for their gradients: it may be missing.
        """
        ...

    def update(self, grads: Mapping[str, np.ndarray], statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """One step of the model's own optimizer on its present weights, in one go for all parameters.

        Args:
            grads: param id → gradient of the mean data loss. What regularizers and weight decay add is added here.
            statistics: layer → batch statistics, which move the averaged moments by the model's own rule.
        """
        ...

    def rehearse(
        self, weight: np.ndarray, gradients: Sequence[np.ndarray], factors: Sequence[float]
    ) -> list[np.ndarray] | None:
        """What a new optimizer of the model's settings makes of a parameter that is not the model's.

        Args:
            weight: the parameter before each step, of two axes.
            gradients: one for each step, of its shape; nothing is added to them.
            factors: one for each step, on the learning rate that the optimizer's own schedule has there.

        Returns:
            The parameter after each step; None where there is no optimizer, or it cannot be run alone.
        """
        ...

    def reset(self, slots: Mapping[str, Mapping[str, np.ndarray]] | None = None) -> None:
        """Put the optimizer at its start: step 0, slots zero or made of `slots` (param id → slot name → value)."""
        ...

    def slots(self) -> dict[str, dict[str, np.ndarray]]:
        """Param id → slot name → a copy of what the optimizer holds, as the rules of `parity.optimizers` name it.

        A momentum is without the learning rate, as `reset` takes it. Empty where nothing is held or known.
        """
        ...

    def halted(self) -> Any:
        """The optimizer as it stands between two updates, for one `resume`; until that or a `reset` there is none."""
        ...

    def resume(self, halted: Any) -> None:
        """Put the optimizer back to where `halted` found it; the weights are loaded apart from it."""
        ...
