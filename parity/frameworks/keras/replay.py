"""Runs single nodes of a model alone, on constants, with the model's own layers (or float64 copies of them)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.frameworks.keras.backends import Made, Watch
from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.graph import Graph, Node
from parity.frameworks.keras.observe import DROPOUTS, Recorder, shadowed
from parity.frameworks.keras.records import Place, Record, fill
from parity.runner import Targets

__all__ = ["Replay", "Replayed"]


@dataclass
class Replayed:
    """Tensors by name, the losses, derivatives, batch statistics."""

    tensors: dict[str, Any] = field(default_factory=dict)
    gradients: dict[str, Any] = field(default_factory=dict)
    param_gradients: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, dict[str, Any]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float | None:
        """The sum of the losses, or None where none was run."""
        return sum(self.losses.values()) if self.losses else None


@dataclass(frozen=True, eq=False)
class _Task:
    """What is to be run: see `Replay.run`."""

    nodes: Sequence[Node]
    labels: Targets | None
    mode: str
    masks: Mapping[str, np.ndarray]
    precision: int

    @property
    def dtype(self) -> str:
        return f"float{self.precision}"


class Replay:
    """Replays nodes of one model.

    Args:
        engine: whose model it is.
        graph: its graph.
        labels: (term, targets, prediction) → a loss's arguments: y_true, y_pred, and the sample weights if there are.

    Attributes:
        counts: node → elements per channel that its batch statistics were last computed from.
    """

    def __init__(self, engine: Engine, graph: Graph, labels: Callable[[Any, Any, Any], Any]) -> None:
        self.engine, self.backend, self.graph, self.labels = engine, engine.backend, graph, labels
        self._copies: dict[str, Any] = {}
        self._losses: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

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
        backend = self.backend
        task = _Task([self.graph.nodes[name] for name in names], labels, mode, masks, precision)
        losses = {node.layer.output for node in task.nodes if node.step == "loss"}
        with backend.precision(precision), self._layers(task, params) as (layers, variables):
            fed = {
                name: backend.lent(np.asarray(value, self.graph.whole.get(name, task.dtype)))
                for name, value in feeds.items()
            }

            def forward(given: Mapping[str, Any], watch: Watch) -> Made:
                return self._forward(task, layers, dict(given), watch)

            computing = {node.record.place.path for node in task.nodes if node.record and node.step == "core"}
            wanted = {
                pid: variable
                for pid, variable in variables.items()
                if self.graph.differentiable(pid) and self.graph.owners[pid] in computing
            }
            backward = upstream is not None or bool(losses)
            with _in(precision, task.nodes):
                made, gradients = backend.differentiate(forward, fed, wanted, backward)
            seeds = dict.fromkeys(losses)
            for name, value in (upstream or {}).items():
                if name in made.objectives:
                    seeds[name] = backend.lent(np.asarray(value), backend.dtype(made.objectives[name]))
            found = Replayed(made.objectives | made.other["whole"], statistics=made.other["statistics"])
            for node in task.nodes:
                if node.step == "loss":
                    found.losses[node.layer.name] = backend.scalar(made.objectives[node.layer.output])
            if seeds:
                sources = [*fed, *(made.tensors if inner else ())]
                with _in(precision, task.nodes):
                    found.gradients, found.param_gradients = gradients(seeds, sources)
        return found

    def _forward(self, task: _Task, layers: Mapping[str, Any], tensors: dict[str, Any], watch: Watch) -> Made:
        """Runs the nodes one after the other, from the tensors that they are fed."""
        floats: dict[str, Any] = {}
        made = Made(other={"whole": {}, "statistics": {}})
        for node in task.nodes:
            if node.step == "loss":
                outputs = {node.layer.output: self._loss(node, tensors, task)}
            else:
                outputs = self._node(node, layers, tensors, task, made.other["statistics"])
            for name, tensor in outputs.items():
                if self.backend.is_floating(tensor):
                    floats[name] = tensors[name] = watch(tensor)
                else:
                    made.other["whole"][name] = tensors[name] = tensor
        made.objectives = floats
        made.tensors = dict(floats)
        return made

    # The layers of a replay -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _layers(self, task: _Task, params: Mapping[str, np.ndarray]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Path → layer to run, and param id → its variable; what is put in or moves is put back afterwards."""
        places = {node.record.place.path: node.record.place for node in task.nodes if node.record is not None}
        owned = {pid: v for pid, v in self.graph.variables.items() if self.graph.owners[pid] in places}
        layers = {path: place.item for path, place in places.items()}
        params = {pid: self._as_held(owned[pid], value) for pid, value in params.items() if pid in owned}
        params = {pid: value for pid, value in params.items() if not self.backend.holds(owned[pid], value)}
        trained = {id(v) for pid, v in owned.items() if self.graph.network.params[pid].trainable}
        overridden = {id(owned[pid]) for pid in params}
        with contextlib.ExitStack() as stack:
            state = [v for item in layers.values() if self.engine.is_layer(item) for v in self.engine.state(item)]
            moved = [v for v in state if id(v) not in trained or id(v) in overridden]
            stack.callback(self.engine.settle, layers.values())
            stack.enter_context(self.backend.untouched(moved))
            for pid, value in params.items():
                owned[pid].assign(value)
            self.engine.settle(layers.values())
            if task.precision == 32:
                yield layers, owned
                return
            doubles = {path: self._double(place, task.nodes) for path, place in places.items()}
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
            self.engine.settle(doubles.values())
            yield doubles, renamed

    @staticmethod
    def _as_held(variable: Any, value: np.ndarray) -> np.ndarray:
        """A parameter in the shape that its variable has, and in its type, but for those below float32."""
        wanted = np.float64 if "float64" in str(variable.dtype) else np.float32
        return np.asarray(value, wanted).reshape(tuple(variable.shape))

    def _double(self, place: Place, nodes: Sequence[Node]) -> Any:
        """A float64 copy of a layer, made once."""
        if not self.engine.is_layer(place.item):
            return place.item
        if place.path in self._copies:
            return self._copies[place.path]
        record = next(n.record for n in nodes if n.record is not None and n.record.place is place)
        copy = self.engine.double(place.item)
        symbolic = self.backend.compiles and place.own  # where a run is dear, shapes are enough to build a layer
        try:
            inputs = [self._doubled(tensor, symbolic) for tensor in record.tensors]
            copy(*fill(record.args, inputs), **fill(record.kwargs, inputs))  # builds it
        except Exception as error:
            raise NotImplementedError(f"{place.path} cannot be built in float64") from error
        low = [v for v in copy.weights if "float" in str(v.dtype) and "float64" not in str(v.dtype)]
        if low or len(copy.weights) != len(place.item.weights):
            raise NotImplementedError(f"{place.path} keeps a part of itself below float64")
        if not place.own:
            self._repeats(place, record)
        self._copies[place.path] = copy
        return copy

    def _doubled(self, tensor: Any, symbolic: bool) -> Any:
        """A recorded tensor in float64, or only its shape and type."""
        dtype = "float64" if self.backend.is_floating(tensor) else self.backend.dtype(tensor)
        if symbolic:
            return self.engine.keras.KerasTensor(tuple(tensor.shape), dtype)
        return self.backend.constant(tensor, dtype)

    def _node(
        self,
        node: Node,
        layers: Mapping[str, Any],
        tensors: Mapping[str, Any],
        task: _Task,
        statistics: dict[str, Any],
    ) -> dict[str, Any]:
        """The tensors that one node makes."""
        backend, record = self.backend, node.record
        if record is None:
            raise NotImplementedError(f"{node.layer.name} is {'; '.join(node.layer.remarks) or 'no layer'}")
        layer = layers[record.place.path]
        if node.step == "activation":
            given = tensors[node.layer.inputs[0]]
            if task.precision == 32:  # a layer below float32 has its activation there too
                given = backend.cast(given, backend.dtype(record.outputs[node.layer.inputs[0]]))
            return self._exact(node, [layer.activation(given)], task)
        inputs = [tensors[name] for name in record.inputs]
        if node.step == "mask":
            earlier = [None if name is None else tensors[name] for name in node.earlier]
            given = (fill(record.args[0], values) for values in (inputs, earlier))
            return {node.layer.output: layer.compute_mask(*given)}
        asked = task.mode == "train" if self.engine.is_layer(layer) and self.engine.takes(layer, "training") else None
        training = record.training.get(task.mode, asked)
        if record.place.own and record.place.type in DROPOUTS and training and layer.rate:
            if node.layer.name not in task.masks:
                raise ValueError(f"{node.layer.name} needs a mask to be run alone in train mode")
            mask = backend.lent(np.asarray(task.masks[node.layer.name]), backend.dtype(inputs[0]))
            return {node.layer.output: inputs[0] * (mask * (1.0 / (1.0 - layer.rate)))}
        kwargs = {key: value for key, value in record.kwargs.items() if key != "training"}
        if training is not None:
            kwargs["training"] = training
        place = Place(node.layer.name, layer, record.place.type, record.place.own)
        names = {f"input:{i}": tensor for i, tensor in enumerate(inputs)}
        with self._without_activation(layer, node.fused), Recorder(self.engine, [place], names) as recorder:
            output = layer(*fill(record.args, inputs), **fill(kwargs, inputs))
        statistics.update(recorder.statistics)
        self.counts.update(recorder.counts)
        return self._exact(node, self.engine.flatten(output), task)

    def _exact(self, node: Node, values: Sequence[Any], task: _Task) -> dict[str, Any]:
        """What a node made, by name; in float64 it must have stayed there."""
        backend = self.backend
        if task.precision == 64 and any(backend.is_floating(v) and backend.dtype(v) != "float64" for v in values):
            raise NotImplementedError(f"{node.layer.name} leaves float64")
        return dict(zip(node.layer.outputs, values, strict=True))

    def _repeats(self, place: Place, record: Record) -> None:
        """A class of the user's may have state that its configuration does not tell: its copy must do the same.

        A copy in the layer's own precision is held against it: in float64 a small difference would pass as rounding.
        """
        engine, item = self.engine, place.item
        args, kwargs = fill(record.args, record.tensors), fill(record.kwargs, record.tensors)
        try:
            with self.backend.untouched(engine.state(item)):
                twin = type(item).from_config(item.get_config())
                twin(*args, **kwargs)  # builds it
                for mine, theirs in zip(twin.weights, item.weights, strict=True):
                    mine.assign(theirs)
                made = [[self.backend.numpy(t) for t in engine.flatten(x(*args, **kwargs))] for x in (twin, item)]
        except Exception as error:
            raise NotImplementedError(f"{place.path} is a class of the user's, which cannot be copied") from error
        for mine, theirs in zip(*made, strict=True):
            a, b = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
            if not np.allclose(a, b, rtol=1e-6, atol=1e-6 * float(np.abs(b).max(initial=0.0))):
                raise NotImplementedError(f"{place.path} is a class of the user's, whose copy computes something else")

    @contextlib.contextmanager
    def _without_activation(self, layer: Any, fused: bool) -> Iterator[None]:
        """Switches a fused activation off: its step is a node of its own."""
        if not fused:
            yield
            return
        with shadowed(layer, "activation", lambda x: x):
            yield

    def _loss(self, node: Node, tensors: Mapping[str, Any], task: _Task) -> Any:
        """The loss on the very tensor that the softmax made, so that Keras finds the logits behind it."""
        term = node.term
        assert term is not None
        if task.labels is None or term.label not in task.labels.values:
            raise ValueError(f"{term.name} needs labels")
        loss = term.loss
        if task.precision == 64:
            if term.name not in self._losses:
                self._losses[term.name] = self.engine.loss_in_double(loss)
            loss = self._losses[term.name]
        prediction = tensors[term.prediction]
        if term.mask:
            self.engine.set_mask(prediction, tensors[term.mask])
        value = loss(*self.labels(term, task.labels, prediction))
        return value * term.weight if term.weight != 1 else value


@contextlib.contextmanager
def _in(precision: int, nodes: Sequence[Node]) -> Iterator[None]:
    """A layer or loss of the user's own may be written for float32 alone: whatever it raises in float64 says that."""
    try:
        yield
    except Exception as error:
        if precision == 32:
            raise
        names = ", ".join(node.layer.name for node in nodes)
        raise NotImplementedError(f"{names} cannot be run in float64 ({type(error).__name__})") from error
