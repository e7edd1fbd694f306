"""Runs single nodes of a model alone, on constants, with the model's own layers (or float64 copies of them)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.graph import Graph, Node
from parity.frameworks.keras.observe import DROPOUTS, Place, Recorder, fill
from parity.runner import Targets

__all__ = ["Replay", "Replayed"]


@dataclass
class Replayed:
    """Tensors by name, the loss, its sources' gradients, batch statistics."""

    tensors: dict[str, Any] = field(default_factory=dict)
    gradients: dict[str, Any] = field(default_factory=dict)
    param_gradients: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    loss: float | None = None
    losses: dict[str, float] = field(default_factory=dict)


class Replay:
    """Replays nodes of one model.

    Args:
        engine: whose model it is.
        graph: its graph.
        labels: (term, targets, prediction) → a loss's arguments: y_true, y_pred, and the sample weights if there are.
    """

    def __init__(self, engine: Engine, graph: Graph, labels: Callable[[Any, Any, Any], Any]) -> None:
        self.engine, self.graph, self.labels = engine, graph, labels
        self._copies: dict[str, Any] = {}
        self._losses: dict[str, Any] = {}

    def run(
        self,
        names: Sequence[str],
        feeds: Mapping[str, np.ndarray],
        *,
        labels: Targets | None,
        upstream: Mapping[str, np.ndarray] | None,
        mode: str,
        masks: Mapping[str, np.ndarray],
        params: Mapping[str, np.ndarray],
        precision: int,
        inner: bool = False,
    ) -> Replayed:
        """Outputs of these nodes, and gradients with respect to what they are fed and to their parameters.

        Args:
            names: nodes in topological order.
            feeds: name → value of every tensor they read and do not make.
            labels: for a loss.
            upstream: tensor → derivative of the objective with respect to it; None for forward only.
            mode: `"train"` or `"eval"`.
            masks: dropout node → 0/1 mask.
            params: param id → value to use instead.
            precision: 32 or 64.
            inner: also the gradients with respect to every tensor that the nodes make.

        Raises:
            NotImplementedError: a node that cannot run alone, or not in this precision.
        """
        tf = self.engine.tf
        nodes = [self.graph.nodes[name] for name in names]
        dtype = tf.float64 if precision == 64 else tf.float32
        found = Replayed()
        tensors = {name: tf.constant(np.asarray(value), dtype) for name, value in feeds.items()}
        fed = dict(tensors)
        with self._layers(nodes, params, precision) as (layers, variables), tf.GradientTape() as tape:
            for tensor in fed.values():
                tape.watch(tensor)
            variables = {pid: v for pid, v in variables.items() if self.graph.differentiable(pid)}
            for variable in variables.values():
                tape.watch(self.engine.raw(variable))
            losses: list[Any] = []
            for node in nodes:
                if node.step == "loss":
                    losses.append(self._loss(node, tensors, labels, precision))
                    tensors[node.layer.output] = losses[-1]
                    found.losses[node.layer.name] = float(losses[-1])
                else:
                    tensors.update(self._node(node, layers, tensors, mode, masks, found, dtype))
        found.tensors = {name: tensor for name, tensor in tensors.items() if name not in fed}
        if losses:
            found.loss = sum(found.losses.values())
        if upstream is None and not losses:
            return found
        targets, seeds = list(losses), [tf.ones_like(loss) for loss in losses]
        for name, value in (upstream or {}).items():
            if name in found.tensors:
                targets.append(tensors[name])
                seeds.append(tf.constant(np.asarray(value), tensors[name].dtype))
        sources = dict(fed) | (found.tensors if inner else {})
        raw = {pid: self.engine.raw(v) for pid, v in variables.items()}
        wanted = [list(sources.values()), list(raw.values())]
        gradients, by_param = tape.gradient(targets, wanted, output_gradients=seeds)
        found.gradients = {n: g for n, g in zip(sources, gradients, strict=True) if g is not None}
        pairs = zip(raw, by_param, strict=True)
        found.param_gradients = {pid: tf.convert_to_tensor(g) for pid, g in pairs if g is not None}
        return found

    # The layers of a replay -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _layers(
        self, nodes: Sequence[Node], params: Mapping[str, np.ndarray], precision: int
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Path → layer to run, and param id → its variable; what is put in or moves is put back afterwards."""
        places = {node.record.place.path: node.record.place for node in nodes if node.record is not None}
        owned = {pid: v for pid, v in self.graph.variables.items() if self.graph.owners[pid] in places}
        layers = {path: place.item for path, place in places.items()}
        trained = {id(v) for pid, v in owned.items() if self.graph.network.params[pid].trainable}
        overridden = {id(v) for pid, v in owned.items() if pid in params}
        with contextlib.ExitStack() as stack:
            state = [v for item in layers.values() if self.engine.is_layer(item) for v in self.engine.state(item)]
            moved = [v for v in state if id(v) not in trained or id(v) in overridden]
            stack.enter_context(self.engine.untouched(moved))
            for pid, value in params.items():
                if pid in owned:
                    owned[pid].assign(np.asarray(value, np.float32).reshape(tuple(owned[pid].shape)))
            if precision == 32:
                yield layers, owned
                return
            doubles = {path: self._double(place, nodes) for path, place in places.items()}
            renamed: dict[str, Any] = {}
            for path, place in places.items():
                if not self.engine.is_layer(place.item):
                    continue
                mine = {id(v): i for i, v in enumerate(place.item.weights)}
                for pid, variable in owned.items():
                    if self.graph.owners[pid] == path and id(variable) in mine:
                        target = doubles[path].weights[mine[id(variable)]]
                        value = params.get(pid, variable.numpy())
                        target.assign(np.asarray(value, np.float64).reshape(tuple(target.shape)))
                        renamed[pid] = target
            yield doubles, renamed

    def _double(self, place: Place, nodes: Sequence[Node]) -> Any:
        """A float64 copy of a layer, made once."""
        if not self.engine.is_layer(place.item):
            return place.item
        if place.path in self._copies:
            return self._copies[place.path]
        if not place.own:
            raise NotImplementedError(f"{place.path} is a class of the user's, not rebuilt in float64")
        copy = self.engine.double(place.item)
        record = next(n.record for n in nodes if n.record is not None and n.record.place is place)
        tf = self.engine.tf
        try:
            inputs = [tf.zeros(t.shape, tf.float64) if t.dtype.is_floating else t for t in record.tensors]
            arguments = {k: v for k, v in record.kwargs.items() if k != "training"}
            copy(*fill(record.args, inputs), **fill(arguments, inputs))  # builds it
        except Exception as error:
            raise NotImplementedError(f"{place.path} cannot be built in float64") from error
        if any("float64" not in str(v.dtype) for v in copy.weights) or len(copy.weights) != len(place.item.weights):
            raise NotImplementedError(f"{place.path} keeps a part of itself below float64")
        self._copies[place.path] = copy
        return copy

    def _node(
        self,
        node: Node,
        layers: Mapping[str, Any],
        tensors: Mapping[str, Any],
        mode: str,
        masks: Mapping[str, np.ndarray],
        found: Replayed,
        dtype: Any,
    ) -> dict[str, Any]:
        """The tensors that one node makes."""
        tf, record = self.engine.tf, node.record
        if record is None:
            raise NotImplementedError(f"{node.layer.name}: {node.layer.kind.name} cannot be run alone")
        layer = layers[record.place.path]
        train = mode == "train"
        if node.step == "activation":
            given = tensors[node.layer.inputs[0]]
            if dtype == tf.float32:  # a layer below float32 has its activation there too
                given = tf.cast(given, record.outputs[node.layer.inputs[0]].dtype)
            return self._exact(node, [layer.activation(given)], dtype)
        inputs = [tensors[name] for name in node.layer.inputs]
        if record.place.own and record.place.type in DROPOUTS and train and layer.rate:
            if node.layer.name not in masks:
                raise ValueError(f"{node.layer.name} needs a mask to be run alone in train mode")
            mask = tf.constant(np.asarray(masks[node.layer.name]), dtype)
            return {node.layer.output: inputs[0] * (mask * tf.constant(1.0 / (1.0 - layer.rate), dtype))}
        kwargs = {k: v for k, v in record.kwargs.items() if k != "training"}
        if self.engine.is_layer(layer) and self.engine.takes(layer, "training"):
            kwargs["training"] = train
        place = Place(node.layer.name, layer, record.place.type, record.place.own)
        names = {f"input:{i}": tensor for i, tensor in enumerate(inputs)}
        with self._without_activation(layer, node.fused), Recorder(self.engine, [place], names) as recorder:
            output = layer(*fill(record.args, inputs), **fill(kwargs, inputs))
        found.statistics.update(recorder.statistics)
        return self._exact(node, tf.nest.flatten(output), dtype)

    def _exact(self, node: Node, values: Sequence[Any], dtype: Any) -> dict[str, Any]:
        """What a node made, by name; in float64 it must have stayed there."""
        if dtype == self.engine.tf.float64 and any(value.dtype != dtype for value in values):
            raise NotImplementedError(f"{node.layer.name} leaves float64")
        return dict(zip(node.layer.outputs, values, strict=True))

    @contextlib.contextmanager
    def _without_activation(self, layer: Any, fused: bool) -> Iterator[None]:
        """Switches a fused activation off: its step is a node of its own."""
        if not fused:
            yield
            return
        before = layer.activation
        object.__setattr__(layer, "activation", lambda x: x)
        try:
            yield
        finally:
            object.__setattr__(layer, "activation", before)

    def _loss(self, node: Node, tensors: Mapping[str, Any], labels: Targets | None, precision: int) -> Any:
        """The loss on the very tensor that the softmax made, so that Keras finds the logits behind it."""
        term = node.term
        assert term is not None
        if labels is None or term.label not in labels.values:
            raise ValueError(f"{term.name} needs labels")
        loss = term.loss
        if precision == 64:
            if term.name not in self._losses:
                self._losses[term.name] = self.engine.loss_in_double(loss)
            loss = self._losses[term.name]
        prediction = tensors[term.prediction]
        value = loss(*self.labels(term, labels, prediction))
        return value * self.engine.tf.cast(term.weight, value.dtype) if term.weight != 1 else value
