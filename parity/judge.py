"""Is a difference rounding, or was it born in this layer? One layer, given the reference's inputs on both sides.

Three tiers, each only where the one before it leaves a doubt: (1) the two float32 results against what rounding a sum
of that many terms may do; (2) both against the reference in float64 on the same float32 inputs; (3) the referee: the
same Keras layer in float64 against the reference in float64. If these agree, the difference was rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from parity.align import Alignment, Pair
from parity.layers import Dropout, Loss, Pool
from parity.runner import Local, Pass, Runner
from parity.tolerance import CLEAN, ROUNDOFF, Distance, distance, forward_floor, gradient_floor, parameter_floor
from parity.transfer import Link, transferred

__all__ = ["Bench", "Trial", "Verdict", "gradient_names", "masks_for_ref", "shaped"]

Array = np.ndarray

_SETTLED = 0.5
"""In float64 the two sides must agree to this share of the float32 floor for a difference to count as rounding."""

_WITHOUT_REFEREE = 30.0
"""How many floors are taken for rounding where a layer cannot be run in float64."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """What one isolated tensor says.

    Attributes:
        phase, tensor: which (words of `report.Probe`).
        status: match, born, or unverified.
        x_floor: distance from the truth in floors.
        floor: the floor per channel, absolute.
        distance: of the two float32 tensors.
        note: how it was settled, if not at first sight.
    """

    phase: str
    tensor: str
    status: str
    x_floor: float | None = None
    floor: Array | float = 0.0
    distance: Distance | None = None
    note: str = ""


def shaped(value: Array, like: tuple[int, ...]) -> Array | None:
    """`value` with the shape `like` if it has as many elements and as many images; row-major, so a flat map fits."""
    if value.shape == like:
        return value
    if value.size == int(np.prod(like)) and (not value.ndim or not like or value.shape[0] == like[0]):
        return value.reshape(like)
    return None


def gradient_names(links: Iterable[Link]) -> dict[str, Link]:
    """Names for the gradients of one pair's parameters, as reports show them; only of those that can be compared."""
    made: dict[str, Link] = {}
    for link in links:
        if not (link.linear and link.to_keras is not None and link.keras and link.ref):
            continue
        name, count = f"d{link.role}", 1
        while name in made:
            count += 1
            name = f"d{link.role}{count}"
        made[name] = link
    return made


def masks_for_ref(alignment: Alignment, masks: Mapping[str, Array]) -> dict[str, Array]:
    """Reference layer → the dropout mask that its Keras partner drew, in the reference's shape."""
    made: dict[str, Array] = {}
    for pair in alignment.pairs:
        mask = masks.get(pair.keras.layers[-1])
        if mask is None or not isinstance(pair.ref.kind, Dropout):
            continue
        shape = pair.ref.shape
        fitted = mask if shape is None else shaped(mask, (mask.shape[0], *_filled(shape, mask)))
        if fitted is not None:
            made[pair.ref.layers[-1]] = fitted
    return made


@dataclass(eq=False)
class Bench:
    """Where pairs are run alone: both runners, the reference's own pass to take inputs from, and how to judge.

    Attributes:
        ref, keras: the runners, with their weights loaded.
        alignment, links: who is whose partner.
        observed: the reference's float32 pass over the batch.
        mode: `"train"` or `"eval"`.
        backward: whether gradients are compared.
        labels: class ids or one-hot.
        masks: Keras layer → dropout mask that Keras drew.
        limits: (rtol, atol) that replace the measured floors, or None.
    """

    ref: Runner
    keras: Runner
    alignment: Alignment
    links: tuple[Link, ...]
    observed: Pass
    mode: str
    backward: bool
    labels_ref: Array | None
    labels_keras: Array | None
    masks: Mapping[str, Array] = field(default_factory=dict)
    limits: tuple[float, float] | None = None

    def examine(self, pair: Pair) -> list[Verdict]:
        """Every isolated tensor of a pair: its output (or loss), its input gradients, its parameters' gradients."""
        return Trial(self, pair).verdicts()

    def trial(self, pair: Pair) -> Trial:
        """The pair's isolated runs, for rules that experiment."""
        return Trial(self, pair)

    @cached_property
    def ref_values(self) -> Mapping[str, Array]:
        """The reference's present parameters."""
        return self.ref.params()

    @cached_property
    def keras_values(self) -> Mapping[str, Array]:
        """The reference's parameters as Keras holds them."""
        return transferred(self.links, self.ref_values)

    @cached_property
    def ref_masks(self) -> Mapping[str, Array]:
        """Reference layer → the mask that its Keras partner drew."""
        return masks_for_ref(self.alignment, self.masks)


class Trial:
    """One pair on the bench. Every run is made once, and only when somebody looks."""

    def __init__(self, bench: Bench, pair: Pair) -> None:
        self.bench, self.pair = bench, pair
        self.wiring, self.wired = bench.alignment.feeds(pair)
        self.is_loss = isinstance(pair.ref.kind, Loss)
        observed = bench.observed
        self.upstream_ref = observed.output_grads.get(pair.ref.output)
        self.backward = bench.backward and (self.is_loss or self.upstream_ref is not None)

    # ---- inputs

    @cached_property
    def ref_feeds(self) -> dict[str, Array]:
        """Reference tensor → the value the reference itself made, for what its unit reads."""
        labels = self.bench.ref.network.labels
        return {t: self.bench.observed.outputs[t] for t in self.pair.ref.inputs if t not in labels}

    @cached_property
    def keras_feeds(self) -> dict[str, Array]:
        """Keras tensor → the reference's value for it, in the shape that Keras has there. Raises _Unfit."""
        network = self.bench.keras.network
        made: dict[str, Array] = {}
        for tensor in self.pair.keras.inputs:
            if tensor in network.labels:
                continue
            source = self.wiring.get(tensor)
            value = self.bench.observed.outputs.get(source) if source else None
            if value is None:
                raise _Unfit("nothing is known of its input")
            maker = network.producers.get(tensor)
            shape = maker.shape if maker else network.inputs.get(tensor)
            fitted = value if shape is None else shaped(value, (value.shape[0], *_filled(shape, value)))
            if fitted is None:
                raise _Unfit("its input has another shape than the reference's")
            made[tensor] = fitted
        return made

    def _upstream(self, side: str, shape: tuple[int, ...] | None = None) -> dict[str, Array] | None:
        if not self.backward:
            return None
        if self.is_loss:
            return {}
        assert self.upstream_ref is not None
        if side == "ref":
            return {self.pair.ref.output: self.upstream_ref}
        network = self.bench.keras.network
        own = network[self.pair.keras.layers[-1]].shape
        value = self.upstream_ref
        fitted = value if own is None else shaped(value, (value.shape[0], *_filled(own, value)))
        if fitted is None:
            raise _Unfit("its output has another shape than the reference's")
        return {self.pair.keras.output: fitted}

    # ---- runs

    def run_ref(self, *, precision: int = 32, ties: str = "column", runner: Runner | None = None) -> Local:
        """The reference's unit on the reference's inputs."""
        return (runner or self.bench.ref).isolate(
            self.pair.ref.layers,
            self.ref_feeds,
            labels=self.bench.labels_ref,
            upstream=self._upstream("ref"),
            mode=self.bench.mode,
            masks=self.bench.ref_masks,
            ties=ties,
            precision=precision,
        )

    def run_keras(self, *, precision: int = 32) -> Local:
        """The Keras unit on the reference's inputs, with the reference's parameters."""
        ids = {key for keys in self.pair.keras.params.values() for key in keys}
        return self.bench.keras.isolate(
            self.pair.keras.layers,
            self.keras_feeds,
            labels=self.bench.labels_keras,
            upstream=self._upstream("keras"),
            mode=self.bench.mode,
            masks=self.bench.masks,
            params={key: value for key, value in self.bench.keras_values.items() if key in ids},
            precision=precision,
        )

    @cached_property
    def ref_local(self) -> Local:
        """The reference's float32 results: taken from its own pass where nobody else shares the unit's inputs."""
        network, observed = self.bench.ref.network, self.bench.observed
        data = [t for t in self.pair.ref.inputs if t not in network.labels]
        inside = set(self.pair.ref.layers)
        shared = any(not {c.name for c in network.consumers.get(t, ())} <= inside for t in data)
        shared |= len(set(data)) != len(data)
        uses = {key for name in inside for key in network[name].params.values()}
        elsewhere = {k for layer in network if layer.name not in inside for k in layer.params.values()}
        if self.backward and (shared or uses & elsewhere):
            return self.run_ref()
        local = Local(outputs=observed.outputs, loss=observed.loss)
        if self.backward:
            local.input_grads = {t: observed.output_grads[t] for t in data if t in observed.output_grads}
            local.param_grads = {k: observed.param_grads[k] for k in uses if k in observed.param_grads}
        if self.is_loss and sum(isinstance(layer.kind, Loss) for layer in network) > 1:
            return self.run_ref()
        return local

    @cached_property
    def keras_local(self) -> Local:
        """The Keras unit's float32 results."""
        return self.run_keras()

    @cached_property
    def truth(self) -> Local | None:
        """The reference in float64 on the same float32 inputs; None where it cannot be run so."""
        try:
            return self.run_ref(precision=64)
        except NotImplementedError:
            return None

    @cached_property
    def referee(self) -> Local | None:
        """The Keras unit rebuilt in float64 on the same inputs; None where it cannot be run so."""
        try:
            return self.run_keras(precision=64)
        except NotImplementedError:
            return None

    @cached_property
    def truth_by_rows(self) -> Local | None:
        """The reference with ties of a maximum given to the first in row-major order, as tensorflow does."""
        if not isinstance(self.pair.ref.kind, Pool) or self.pair.ref.kind.method != "max":
            return None
        return self.run_ref(ties="row")

    # ---- verdicts

    def verdicts(self) -> list[Verdict]:
        """Judge every tensor of the pair."""
        phase = "loss" if self.is_loss else "forward"
        name = "loss" if self.is_loss else "output"
        if self.bench.mode == "train" and self._draws():
            note = "draws random numbers and leaves no mask that both sides could be given"
            made = [Verdict(phase, name, "unverified", note=note)]
            return made + ([Verdict("backward", "dx", "unverified", note=note)] if self.backward else [])
        try:
            self.keras_local  # noqa: B018  (runs it)
        except _Unfit as problem:
            made = [Verdict(phase, name, "unverified", note=str(problem))]
            return made + ([Verdict("backward", "dx", "unverified", note=str(problem))] if self.backward else [])
        made = [self._loss() if self.is_loss else self._output()]
        if self.backward:
            made += self._input_gradients()
            made += self._parameter_gradients()
        return made

    @cached_property
    def sources(self) -> dict[str, list[str]]:
        """Reference tensor that the pair reads → the Keras tensors that hold it."""
        made: dict[str, list[str]] = {}
        for tensor, source in self.wiring.items():
            made.setdefault(source, []).append(tensor)
        return made

    @cached_property
    def gradients(self) -> dict[str, Link]:
        """Name of a parameter's gradient (`dkernel`; `dkernel2` for the second of several) → its link."""
        return gradient_names(link for link in self.bench.links if link.pair is self.pair)

    def tensor(self, local: Local | Pass, side: str, name: str) -> Array | None:
        """One tensor of an isolated run by the name it has in the report, parameters in the Keras layout; or None."""
        if name == "output":
            return local.outputs.get(self.pair.ref.output if side == "ref" else self.pair.keras.output)
        if name == "loss":
            return None if local.loss is None else np.asarray([local.loss])
        if name in self.gradients:
            link = self.gradients[name]
            if side == "keras":
                return _flowing(local.param_grads.get(link.keras), self.bench.keras.network.params[link.keras].shape)
            known = link.to_keras is not None and all(key in local.param_grads for key in link.ref)
            return link.to_keras(local.param_grads) if known and link.to_keras else None
        source = list(self.sources)[int(name[2:] or 1) - 1]
        assert isinstance(local, Local)
        if side == "ref":
            return local.input_grads.get(source)
        parts = [local.input_grads[t] for t in self.sources[source] if t in local.input_grads]
        return sum(parts[1:], parts[0]) if parts else _flowing(None, self.ref_feeds[source].shape)

    def _draws(self) -> bool:
        sides = ((self.bench.ref, self.pair.ref), (self.bench.keras, self.pair.keras))
        return any(
            remark.startswith("random")
            for runner, unit in sides
            for name in unit.layers
            for remark in runner.network[name].remarks
        )

    def _output(self) -> Verdict:
        expected = self.tensor(self.ref_local, "ref", "output")
        assert expected is not None
        floor = forward_floor(self.pair.ref.kind, list(self.ref_feeds.values()), self._roles(), expected)
        return self._judge("forward", "output", floor)

    def _loss(self) -> Verdict:
        expected, actual = self.ref_local.loss, self.keras_local.loss
        if expected is None or actual is None:
            return Verdict("loss", "loss", "unverified", note="no loss value")
        logits = next(iter(self.ref_feeds.values()))
        size = abs(expected) + float(np.sqrt(np.mean(np.square(logits, dtype=np.float64))))
        return self._judge("loss", "loss", np.asarray([4 * ROUNDOFF * size]))

    def _input_gradients(self) -> list[Verdict]:
        made: list[Verdict] = []
        for index, source in enumerate(self.sources):
            expected = self.ref_local.input_grads.get(source)
            if expected is None:
                continue
            floor = gradient_floor(self.pair.ref.kind, self.upstream_ref, self._roles(), expected)
            if self.is_loss:
                floor = np.maximum(floor, ROUNDOFF / max(1, expected.shape[0]))
            made.append(self._judge("backward", "dx" if index == 0 else f"dx{index + 1}", floor))
        return made

    def _parameter_gradients(self) -> list[Verdict]:
        made: list[Verdict] = []
        inputs = list(self.ref_feeds.values())
        for name, link in self.gradients.items():
            expected = self.tensor(self.ref_local, "ref", name)
            if expected is not None and self.bench.keras.network.params[link.keras].trainable:
                made.append(
                    self._judge("backward", name, parameter_floor(link.role, inputs, self.upstream_ref, expected))
                )
        return made

    def _roles(self) -> dict[str, Array]:
        values = self.bench.ref_values
        return {role: values[keys[0]] for role, keys in self.pair.ref.params.items() if keys[0] in values}

    def _judge(self, phase: str, tensor: str, floor: Array) -> Verdict:
        expected = self.tensor(self.ref_local, "ref", tensor)
        actual = self.tensor(self.keras_local, "keras", tensor)
        if expected is None:
            return Verdict(phase, tensor, "unverified", note="the reference has none")
        if actual is None:
            return Verdict(phase, tensor, "unverified", note="Keras has no such tensor")
        fitted = shaped(actual, expected.shape)
        if fitted is None:
            return Verdict(phase, tensor, "born", note=f"shape {actual.shape[1:]} against {expected.shape[1:]}")
        apart = distance(fitted, expected)
        if self.bench.limits is not None:
            return self._by_limits(phase, tensor, fitted, expected, apart, floor)
        x_floor = apart.x_floor(floor)
        if x_floor <= CLEAN:
            return Verdict(phase, tensor, "match", x_floor, floor, apart)
        return self._doubt(phase, tensor, floor, fitted, expected, apart, x_floor)

    def _by_limits(
        self, phase: str, tensor: str, actual: Array, expected: Array, apart: Distance, floor: Array
    ) -> Verdict:
        assert self.bench.limits is not None
        rtol, atol = self.bench.limits
        with np.errstate(all="ignore"):
            ok = np.allclose(actual, expected, rtol=rtol, atol=atol, equal_nan=True)
        return Verdict(
            phase, tensor, "match" if ok else "born", apart.x_floor(floor), floor, apart, "rtol and atol given"
        )

    def _doubt(
        self,
        phase: str,
        tensor: str,
        floor: Array,
        actual: Array,
        expected: Array,
        apart: Distance,
        x_floor: float,
    ) -> Verdict:
        """Tiers two and three: float64 says what is rounding."""
        if tensor.startswith("dx") and self.truth_by_rows is not None:
            by_rows = self.tensor(self.truth_by_rows, "ref", tensor)
            if by_rows is not None and distance(actual, by_rows).x_floor(floor) <= CLEAN:
                count = int(np.count_nonzero(expected != by_rows))
                return Verdict(
                    phase, tensor, "match", 0.0, floor, apart, f"ties ({count} gradients go to an equal maximum)"
                )
        truth = self.tensor(self.truth, "ref", tensor) if self.truth else None
        if truth is not None:
            own = distance(expected, truth)
            floor = np.maximum(floor, own.channel_rms) if own.finite else floor
            x_floor = distance(actual, truth).x_floor(floor)
            if x_floor <= CLEAN:
                return Verdict(phase, tensor, "match", x_floor, floor, apart)
            judged = self.tensor(self.referee, "keras", tensor) if self.referee else None
            if judged is not None:
                settled = shaped(judged, truth.shape)
                if settled is not None and distance(settled, truth).x_floor(floor) <= _SETTLED:
                    return Verdict(phase, tensor, "match", x_floor, floor, apart, "rounding: equal in float64")
                return Verdict(phase, tensor, "born", x_floor, floor, apart)
        if x_floor <= _WITHOUT_REFEREE:
            return Verdict(phase, tensor, "match", x_floor, floor, apart, "by the floor alone: no float64 run")
        return Verdict(phase, tensor, "born", x_floor, floor, apart)


def _flowing(gradient: Array | None, shape: tuple[int, ...]) -> Array:
    """A gradient; zeros where the framework says that none flows (a stop_gradient inside the layer)."""
    return np.zeros(shape, np.float32) if gradient is None else gradient


class _Unfit(Exception):
    """The Keras unit cannot be given the reference's tensors."""


def _filled(shape: tuple[int | None, ...], value: Array) -> tuple[int, ...]:
    """A shape without batch axis whose open extents are taken from `value`'s."""
    if None not in shape:
        return tuple(int(d) for d in shape if d is not None)
    own = value.shape[1:]
    if len(own) == len(shape):
        return tuple(int(b if a is None else a) for a, b in zip(shape, own, strict=True))
    return own
