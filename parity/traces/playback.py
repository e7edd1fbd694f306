"""A trace in the part of a runner: what was recorded, when that is what is asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.batch import Batch
from parity.errors import CannotCompare
from parity.feeds import only_recorded
from parity.layers import Dropout
from parity.network import Network
from parity.runner import Labels, Local, Pass, Runner
from parity.traces.format import escaped
from parity.traces.reader import Trace

__all__ = ["TraceRunner", "batch_of", "network_of", "open_runner"]

Array = np.ndarray


def open_runner(trace: Trace) -> Runner:
    """A runner that shows what the trace holds.

    A recorded MatConvNet network is at hand, so what was not recorded (a float64 truth of one layer, other inputs) is
    parity's own run of it. Of a Keras model only what was recorded can be shown.
    """
    if trace.network.framework == "matconvnet":
        from parity.traces.matconvnet import replayed

        return replayed(trace, network_of(trace))
    return TraceRunner(trace)


def network_of(trace: Trace) -> Network:
    """The recorded network with the values that its parameters had before the first step."""
    network, values = trace.network, trace.weights(0)
    params = {key: replace(p, value=values.get(key)) for key, p in network.params.items()}
    return replace(network, params=params)


def _drawing(network: Network, trace: Trace) -> Network:
    """The network, with a remark at every dropout of which nobody recorded what it kept."""
    kept = trace.names("step1/masks")
    layers = tuple(
        replace(layer, remarks=(*layer.remarks, "random, without a mask"))
        if isinstance(layer.kind, Dropout) and layer.kind.rate and trace.mode == "train" and layer.name not in kept
        else layer
        for layer in network
    )
    return replace(network, layers=layers)


def batch_of(trace: Trace) -> Batch:
    """The batch that was recorded, by the names that a batch file has."""
    labels = trace.labels
    arrays = _named("x", trace.inputs)
    if labels is not None:
        arrays |= _named("y", labels.values)
        arrays |= {
            key: labels.weights[name] for key, name in zip(_keys("w", labels.values), labels.values, strict=True)
            if name in labels.weights
        }  # fmt: skip
    return Batch(arrays, source=f"the batch recorded in {trace.path}", counted_from_zero=True)


def _named(letter: str, values: Mapping[str, Array]) -> dict[str, Array]:
    return dict(zip(_keys(letter, values), values.values(), strict=True))


def _keys(letter: str, values: Mapping[str, Array]) -> list[str]:
    """Names of arrays; labels of an output go by its name."""
    if len(values) == 1:
        return [letter]
    return [f"{letter}_{name if letter == 'x' else name.split(':', 1)[-1]}" for name in values]


class TraceRunner:
    """A recorded run, played back (see `parity.runner.Runner` for what its methods give).

    It answers for the recorded inputs, mode and weights, and for layers alone where they are fed what was recorded. It
    raises CannotCompare (or NotImplementedError for a layer alone) for anything else, so nothing is made up.

    Args:
        trace: open for reading.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.network: Network = _drawing(network_of(trace), trace)
        self.recipe = trace.recipe
        self.remarks = [f"{trace.path} was recorded by parity {trace.header.parity}; nothing of it was run again."]
        self._step = 0
        self._weights: Mapping[str, Array] = dict(trace.weights(0))
        self._foreign: dict[str, Array] = {}

    @property
    def engine(self) -> Mapping[str, Any]:
        """What executed the model when it was recorded."""
        return {**self.trace.engine, "recorded": f"parity {self.trace.header.parity}"}

    def params(self) -> dict[str, Array]:
        """Param id → a copy of its value at this step of the recording."""
        return {key: np.array(value) for key, value in {**self._weights, **self._foreign}.items()}

    def load(self, values: Mapping[str, Array]) -> None:
        """Go to the step of the recording that has these values; with any others the runner has nothing to show."""
        for key, value in values.items():
            if key not in self.network.params:
                raise CannotCompare(f"{self.network.name}: it has no parameter {key!r}")
            if tuple(np.shape(value)) != tuple(self.network.params[key].shape):
                raise CannotCompare(f"{self.network.name}: {key} does not have the shape {np.shape(value)}")
        self._foreign = {}
        for step in range(self.trace.steps + 1):
            held = self.trace.weights(step)
            if all(np.array_equal(value, held[key]) for key, value in values.items() if key in held):
                self._to(step)
                return
        self._foreign = {key: np.asarray(value) for key, value in values.items()}

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
        """The recorded pass of the present step.

        Raises:
            CannotCompare: other inputs, another mode or other weights than those recorded.
            NotImplementedError: in float64, of which a trace has statistics alone.
        """
        trace = self.trace
        if precision != 32:
            raise NotImplementedError("a recorded run cannot be repeated in float64")
        only_recorded(trace.path, trace.mode, mode)
        held = trace.lazy("inputs")
        if self._foreign or any(not np.array_equal(value, held.get(name, ())) for name, value in inputs.items()):
            what = "other weights" if self._foreign else "another batch"
            raise CannotCompare(f"{trace.path}: cannot be run on {what} than it was recorded with")
        if self._step + 1 > len(trace.info["passes"]):
            most = len(trace.info["passes"])
            raise CannotCompare(f"{trace.path}: {most} steps were recorded; compare it with --steps {most} at most")
        found = trace.seen(self._step + 1)
        seen = replace(found, outputs={}, output_grads={}, param_grads={}, penalty_grads={})
        if observe:
            seen.outputs = dict(found.outputs)
        if backward:
            seen.output_grads = dict(found.output_grads) if observe else {}
            seen.param_grads = dict(found.param_grads)
            seen.penalty_grads = dict(found.penalty_grads)
        return seen

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
        outputs: bool = True,
    ) -> Local:
        """What was recorded of these layers, where they are fed what was recorded.

        Raises:
            NotImplementedError: anything else; a trace cannot run a layer.
        """
        trace, seen = self.trace, self.trace.seen(1)
        if precision != 32 or mode != trace.mode or self._step or self._foreign:
            raise NotImplementedError("a recorded run cannot be repeated")
        if not all(name in seen.outputs and np.array_equal(value, seen.outputs[name]) for name, value in feeds.items()):
            raise NotImplementedError("a recorded layer cannot be run on other inputs")
        made = [tensor for name in layers for tensor in self.network[name].outputs]
        local = Local(outputs={t: seen.outputs[t] for t in made if t in seen.outputs})
        local.statistics = {name: seen.statistics[name] for name in layers if name in seen.statistics}
        local.losses = {name: seen.losses[name] for name in layers if name in seen.losses}
        local.loss = sum(local.losses.values()) if local.losses else None
        if upstream is None:
            return local
        for name, value in upstream.items():
            if name not in seen.output_grads or not np.array_equal(value, seen.output_grads[name]):
                raise NotImplementedError("a recorded layer cannot be run on another gradient")
        self._gradients(local, layers, seen, made)
        return local

    def drawn(self, step: int) -> Mapping[str, Array]:
        """Layer → what dropout kept of it in a step (from 1), 0 or 1."""
        return self.trace.seen(step).masks if step <= len(self.trace.info["passes"]) else {}

    def update(self, grads: Mapping[str, Array], statistics: Mapping[str, Mapping[str, Array]]) -> None:
        """Go on to the recorded step that follows; raises CannotCompare behind the last one."""
        if self._foreign or self._step >= self.trace.steps:
            raise CannotCompare(f"{self.trace.path}: {self.trace.steps} updates were recorded, and no more")
        self._to(self._step + 1)

    def rehearse(self, weight: Array, gradients: Sequence[Array], factors: Sequence[float]) -> list[Array] | None:
        """None: a recorded optimizer takes the steps that it took, and no others."""
        return None

    def reset(self, slots: Mapping[str, Mapping[str, Array]] | None = None) -> None:
        """Nothing: the recorded optimizer started where it did."""

    def slots(self) -> dict[str, dict[str, Array]]:
        """Empty: a trace has no slots."""
        return {}

    def halted(self) -> Any:
        """Nothing: the step that is played follows from the weights."""

    def resume(self, halted: Any) -> None:
        """Nothing, likewise."""

    def shaken(self) -> Pass:
        """The recorded pass, each tensor moved by its recorded floor: as far off as rounding alone puts it."""
        found = self.trace.seen(1)
        made = replace(found, outputs={}, output_grads={}, param_grads={}, penalty_grads={}, losses={})
        for kind in ("outputs", "output_grads", "param_grads"):
            for name, value in getattr(found, kind).items():
                floor = self.trace.floor(kind, name)
                if floor is not None:
                    getattr(made, kind)[name] = value.astype(np.float64) + floor
        for name in found.losses:
            floor = self.trace.floor("losses", name)
            made.losses[name] = found.losses[name] + (0.0 if floor is None else float(floor[0]))
        return made

    # ---- inside

    def _to(self, step: int) -> None:
        if step != self._step:
            self._step, self._weights = step, dict(self.trace.weights(step))

    def _gradients(self, local: Local, layers: Sequence[str], seen: Pass, made: Sequence[str]) -> None:
        """Gradients of the layers alone: those of the whole run where nobody else adds to them."""
        network, inside = self.network, set(layers)
        for name in layers:
            own = f"isolated/{escaped(name)}"
            grads, weights = self.trace.lazy(f"{own}/input_grads"), self.trace.lazy(f"{own}/param_grads")
            for tensor in network.data(network[name].inputs):
                if tensor in made:
                    continue
                readers = {layer.name for layer in network.consumers.get(tensor, ())}
                if tensor in grads and readers & inside == {name}:
                    local.input_grads[tensor] = grads[tensor]
                elif readers <= inside and tensor in seen.output_grads:
                    local.input_grads[tensor] = seen.output_grads[tensor]
                else:
                    raise NotImplementedError("what this layer alone adds to a gradient was not recorded")
            for key in network[name].params.values():
                users = {layer.name for layer in network if key in layer.params.values()}
                if users <= inside and key in seen.param_grads:
                    local.param_grads[key] = seen.param_grads[key]
                elif key in weights:
                    local.param_grads[key] = weights[key]
