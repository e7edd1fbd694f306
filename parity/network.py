"""The neutral vocabulary: a `Network` is a graph of typed `Layer`s and their `Param`s.

Every framework's file is lifted into these values, and nothing here knows any framework. Arrays are numpy,
activations are laid out `n h w c` (or `n c`), kernels `h w i o`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from parity.layers.base import Kind

__all__ = ["STATISTICS", "Layer", "Network", "Param", "Shape"]

Shape = tuple[int | None, ...]
"""A tensor's shape without its batch axis: `(h, w, c)` or `(c,)`; None where a file leaves an extent open."""

STATISTICS = ("mean", "variance", "deviation")
"""Roles of parameters that averaging moves, not the gradient."""


@dataclass(frozen=True, eq=False)
class Param:
    """One stored array of a network: a weight, or a statistic.

    Attributes:
        id: unique in its network, `layer.role` for a parameter that belongs to one layer.
        role: its role in the layer, in the field's words: kernel, bias, gamma, beta, mean, variance, deviation, or
            the framework's own name of it where the layer is opaque.
        axes: the names of its axes, e.g. `"h w i o"`.
        value: the array as the file (or model) holds it; None where only the shape is known.
        shape: its extents.
        trainable: whether the gradient moves it (batch statistics and frozen weights: False).
        rate_multiplier: factor on the learning rate (MatConvNet's per-layer `learningRate`). For MatConvNet's batch
            moments it is the averaging rate r itself.
        decay_multiplier: factor on the recipe's weight decay (MatConvNet's per-layer `weightDecay`).
        l2: coefficient c of an L2 penalty c·‖w‖² on it alone, which adds 2c·w to its gradient (Keras regularizers).
        l1: coefficient of an L1 penalty on it alone.
        penalty: another penalty on it alone, `class_name` and `config` in the framework's words; empty where none.
        constraint: what its value is made to meet after every update, likewise (Keras' constraints).
        initializer: how the file says that it was drawn, e.g. `"GlorotUniform"`; None where the file does not say.
        source: its name in its own file, e.g. `"layers{1}.weights{1}"` or `"conv2d/kernel:0"`.
    """

    id: str
    role: str
    axes: str
    shape: tuple[int, ...]
    value: np.ndarray | None = None
    trainable: bool = True
    rate_multiplier: float = 1.0
    decay_multiplier: float = 1.0
    l2: float = 0.0
    l1: float = 0.0
    penalty: Mapping[str, Any] = field(default_factory=dict, hash=False)
    constraint: Mapping[str, Any] = field(default_factory=dict, hash=False)
    initializer: str | None = None
    source: str = ""


@dataclass(frozen=True, eq=False)
class Layer:
    """One operation of the graph.

    Attributes:
        name: unique in its network. A Keras layer that is called k times gives `name`, `name@2` … `name@k`; its fused
            activation gives `name:activation`; a layer inside a submodel gives `submodel/name`.
        kind: what it computes, with its fields.
        inputs: names of the tensors it reads, in order.
        outputs: names of the tensors it makes; a layer with one output names it like itself.
        params: role → id of the `Param` in the network (ids may be shared between layers).
        shape: shape of its (first) output, without the batch axis; None where unknown.
        origin: the name that the user knows it by (the Keras layer that holds it, the MatConvNet layer).
        source_type: its type in its own framework, e.g. `"conv"`, `"dagnn.Conv"`, `"Conv2D"`.
        remarks: facts a reader should know (`"runs code from the file"`).
        activity: what is added to the loss for its output (Keras' activity regularizers): `class_name` and `config`,
            and `mean`, whether it is divided by the number of images; empty for nothing.
        settings: its class and its arguments in the framework's own words, for what `kind` has no field for; those of a
            layer inside a wrapper as `layer.strides`. Empty where it has none.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    shape: Shape | None = None
    origin: str = ""
    source_type: str = ""
    remarks: tuple[str, ...] = ()
    activity: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """The name of its first output."""
        return self.outputs[0]


@dataclass(frozen=True, eq=False)
class Network:
    """A graph of layers in an order in which they can run.

    Attributes:
        name: what to call it in a report.
        framework: `"matconvnet"` or `"keras"`.
        inputs: name → shape of each input tensor, without the batch axis.
        outputs: names of the tensors that are its predictions.
        layers: in topological order.
        params: id → `Param`.
        labels: names of input tensors that hold labels, not data.
        objectives: name → weight of the tensors whose weighted sum is differentiated (MatConvNet's derOutputs, Keras'
            loss_weights); empty where every layer that reads labels counts once.
        meta: what else the file says (normalization, class names, versions), for reports.
        remarks: facts about the file that a reader should know.
    """

    name: str
    framework: str
    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    params: Mapping[str, Param]
    labels: tuple[str, ...] = ()
    objectives: Mapping[str, float] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Layer:
        """The layer of this name; raises KeyError."""
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    @property
    def _by_name(self) -> Mapping[str, Layer]:
        found = self.__dict__.get("_names")
        if found is None:
            found = {layer.name: layer for layer in self.layers}
            object.__setattr__(self, "_names", found)
        return found

    def data(self, tensors: Iterable[str]) -> list[str]:
        """Those of these tensors that do not hold labels."""
        return [tensor for tensor in tensors if tensor not in self.labels]

    @property
    def losses(self) -> tuple[Layer, ...]:
        """The layers whose outputs are the objectives, in order; what counts zero times is none."""
        found = self.__dict__.get("_losses")
        if found is None:
            if any(self.objectives.values()):
                found = tuple(layer for layer in self.layers if self.objectives.get(layer.output))
            else:
                labels = {*self.labels}
                found = tuple(layer for layer in self.layers if not labels.isdisjoint(layer.inputs))
            object.__setattr__(self, "_losses", found)
        return found

    def weight(self, loss: Layer) -> float:
        """How often a loss counts in the sum of the objectives."""
        return self.objectives.get(loss.output, 1.0)

    def label_of(self, loss: Layer) -> str:
        """The label tensor that a loss reads; empty where it reads none."""
        return next((tensor for tensor in loss.inputs if tensor in self.labels), "")

    def shape_of(self, tensor: str) -> Shape | None:
        """Shape of a layer's output or of an input, without batch axis; None where it is not known."""
        maker = self.producers.get(tensor)
        return maker.shape if maker else self.inputs.get(tensor)

    @property
    def producers(self) -> Mapping[str, Layer]:
        """Tensor name → the layer that makes it."""
        found = self.__dict__.get("_producers")
        if found is None:
            found = {tensor: layer for layer in self.layers for tensor in layer.outputs}
            object.__setattr__(self, "_producers", found)
        return found

    @property
    def consumers(self) -> Mapping[str, tuple[Layer, ...]]:
        """Tensor name → the layers that read it, in order."""
        found = self.__dict__.get("_consumers")
        if found is None:
            found = {}
            for layer in self.layers:
                for tensor in dict.fromkeys(layer.inputs):
                    found[tensor] = (*found.get(tensor, ()), layer)
            object.__setattr__(self, "_consumers", found)
        return found
