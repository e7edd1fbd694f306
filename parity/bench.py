"""Where one pair is run alone: the reference's inputs, weights and upstream gradient on both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from parity.align import Alignment, Pair
from parity.distances import channel_rms, channel_sum
from parity.fitting import Fitting, Unfit, other_values
from parity.layers import Conv, Dense, Dropout, Loss, Opaque, Pool, ROIPooling
from parity.masks import masks_for_ref
from parity.runner import Local, Pass, Runner, Targets
from parity.tensors import Named
from parity.ties import over_zeros, past_kinks
from parity.transfer import Link, transferred

__all__ = ["Bench", "Trial", "Unfit"]

Array = np.ndarray


@dataclass(eq=False)
class Bench:
    """Where pairs are run alone: both runners, the reference's own pass to take inputs from, and how to judge.

    Attributes:
        ref, keras: the runners, with their weights loaded.
        alignment, links: who is whose partner.
        named: reference name → the tensors of each pair.
        observed: the reference's float32 pass over the batch.
        mode: `"train"` or `"eval"`.
        backward: whether gradients are compared.
        labels_ref, labels_keras: what the losses are held against.
        masks: Keras layer → dropout mask that Keras drew.
        limits: (rtol, atol) that replace the measured floors, or None.
    """

    ref: Runner
    keras: Runner
    alignment: Alignment
    links: tuple[Link, ...]
    named: Mapping[str, Named]
    observed: Pass
    mode: str
    backward: bool
    labels_ref: Targets | None
    labels_keras: Targets | None
    masks: Mapping[str, Array] = field(default_factory=dict)
    limits: tuple[float, float] | None = None
    _ref_masks: tuple[tuple[str, ...], Mapping[str, Array]] | None = field(default=None, init=False, repr=False)

    def trial(self, pair: Pair, *, backward: bool = True) -> Trial:
        """The pair's isolated runs; without `backward` forward only."""
        return Trial(self, pair, backward=backward)

    @cached_property
    def users(self) -> Mapping[str, frozenset[str]]:
        """Parameter of the reference → the layers that use it."""
        made: dict[str, frozenset[str]] = {}
        for layer in self.ref.network:
            for key in layer.params.values():
                made[key] = made.get(key, frozenset()) | {layer.name}
        return made

    @cached_property
    def ref_values(self) -> Mapping[str, Array]:
        """The reference's present parameters."""
        return self.ref.params()

    @cached_property
    def keras_values(self) -> Mapping[str, Array]:
        """The reference's parameters as Keras holds them."""
        return transferred(self.links, self.ref_values)

    @property
    def ref_masks(self) -> Mapping[str, Array]:
        """Reference layer → the mask that its Keras partner drew; they may be drawn one after the other."""
        drawn = (*self.masks,)
        if self._ref_masks is None or self._ref_masks[0] != drawn:
            self._ref_masks = drawn, masks_for_ref(self.alignment, self.masks)
        return self._ref_masks[1]


class Trial(Fitting):
    """One pair on the bench. Every run is made once, and only when somebody looks."""

    def __init__(self, bench: Bench, pair: Pair, varied: int | None = None, *, backward: bool = True) -> None:
        self.bench, self.pair, self.varied = bench, pair, varied
        self.named = bench.named[pair.ref.name]
        self.is_loss = isinstance(pair.ref.kind, Loss)
        observed = bench.observed
        self._truths: dict[str, Local] = {}
        self._sizes: list[tuple[Array, Array]] = []
        backward = backward and bench.backward
        # A pass may make its gradients when they are asked for: forward only, none is.
        self.upstream_ref = observed.output_grads.get(pair.ref.output) if backward else None
        self.backward = backward and (self.is_loss or self.upstream_ref is not None)
        if varied is not None and self.upstream_ref is not None:
            self.upstream_ref = other_values(self.upstream_ref, varied + 1, apart=True)

    def again(self, seed: int = 1) -> Trial:
        """The same pair on other inputs, and with another upstream gradient, of the same kind."""
        return Trial(self.bench, self.pair, seed, backward=self.backward)

    @property
    def absent(self) -> str:
        """Why the reference shows nothing of this pair (it cannot run it, or what it reads); empty if it does."""
        network, seen = self.bench.ref.network, self.bench.observed.outputs
        for name in self.pair.ref.layers:
            kind = network[name].kind
            if isinstance(kind, Opaque) and kind.runs_code and network[name].output not in seen:
                return f"{name} runs code that parity does not have"
        read = network.data(self.pair.ref.inputs)
        return "" if all(tensor in seen for tensor in read) else "what it reads could not be observed in the reference"

    def size(self, value: Array) -> Array:
        """The root mean square per channel of a tensor; what the reference's unit is given is looked at once."""
        for known, size in self._sizes:
            if known is value:
                return size
        size = channel_rms(value)
        if any(value is given for given in (*self.ref_feeds.values(), self.upstream_ref)):
            self.note_size(value, size)
        return size

    def note_size(self, value: Array, size: Array | None) -> None:
        """Tell the root mean square per channel of what the reference's unit is given; None is not known."""
        if size is not None and size.shape == value.shape[-1:]:
            self._sizes.append((value, size))

    # ---- runs

    def run_ref(
        self,
        *,
        precision: int = 32,
        ties: str = "column",
        runner: Runner | None = None,
        wanted: Collection[str] | None = None,
    ) -> Local:
        """The reference's unit on the reference's inputs; `wanted`: see `Runner.isolate`."""
        return (runner or self.bench.ref).isolate(
            self.pair.ref.layers,
            self.ref_feeds,
            labels=self.bench.labels_ref,
            upstream=self.upstream("ref"),
            mode=self.bench.mode,
            masks=self.bench.ref_masks,
            ties=ties,
            precision=precision,
            wanted=wanted,
        )

    def run_keras(self, *, precision: int = 32) -> Local:
        """The Keras unit on the reference's inputs, with the reference's parameters. Raises Unfit."""
        return self._isolated(self.upstream("keras"), precision)

    @cached_property
    def ref_local(self) -> Local:
        """The reference's float32 results: taken from its own pass where nobody else shares the unit's inputs."""
        network, observed = self.bench.ref.network, self.bench.observed
        if self.varied is not None:
            return self.run_ref()
        data = network.data(self.pair.ref.inputs)
        inside = set(self.pair.ref.layers)
        shared = any(not {c.name for c in network.consumers.get(t, ())} <= inside for t in data)
        shared |= len(set(data)) != len(data)
        shared |= any(network.producers[t].activity for t in data if t in network.producers)  # the loss reads it too
        uses = {key for name in inside for key in network[name].params.values()}
        shared |= any(not self.bench.users[key] <= inside for key in uses)
        if self.backward and shared:
            return self.run_ref()
        local = Local(outputs=observed.outputs, loss=observed.loss, losses=observed.losses)
        if self.backward:
            local.input_grads = {t: observed.output_grads[t] for t in data if t in observed.output_grads}
            local.param_grads = {k: observed.param_grads[k] for k in uses if k in observed.param_grads}
        return local

    @cached_property
    def keras_local(self) -> Local:
        """The Keras unit's float32 results. Raises Unfit, where it cannot be run alone too."""
        try:
            return self.run_keras()
        except NotImplementedError as error:  # operations between the layers of a model that is a class of the user's
            raise Unfit(str(error)) from error

    @cached_property
    def keras_again(self) -> Local:
        """The same once more: what differs from `keras_local` is chance."""
        return self.run_keras()

    @cached_property
    def ref_again(self) -> Local | None:
        """The reference's unit once more, which chance may change too; None where it cannot be run by itself."""
        try:
            return self.run_ref()
        except NotImplementedError:
            return None

    def truth(self, name: str) -> Array | None:
        """A tensor of the reference in float64 on the same float32 inputs; None where it cannot be run so.

        The first one that is asked for is made alone, since most pairs leave no more than one in doubt.
        """
        summed = None if self.upstream_ref is None else self.summed(name, self.upstream_ref)
        if summed is not None:
            return summed
        made = self._truths.get(name) or self._truths.get("")
        if made is None:
            wanted = None if self._truths else self._behind(name)
            try:
                made = self.run_ref(precision=64, wanted=wanted)
            except NotImplementedError:
                return None
            self._truths["" if wanted is None else name] = made
        return self.tensor(made, "ref", name)

    def summed(self, name: str, pulled: Array) -> Array | None:
        """The gradient of a bias in float64, the sum of what comes from above: nothing has to be run for it.

        Args:
            name: of a parameter's gradient; None is returned for one that is no such sum.
            pulled: the derivative with respect to what the unit makes, n … c.
        """
        link, unit = self.named.gradients.get(name), self.pair.ref
        if link is None or link.role != "bias" or len(link.ref) != 1 or len(unit.layers) > 1:
            return None
        if not isinstance(unit.kind, Conv | Dense) or tuple(unit.params.get("bias", ())) != link.ref:
            return None
        total = channel_sum(pulled)
        # As the Keras parameter has it, which may be a part of it: of a filter bank that Keras keeps in groups.
        return self.tensor(Local(param_grads={link.ref[0]: total}), "ref", name)

    def _behind(self, name: str) -> tuple[str, ...]:
        """The reference's tensors or parameters whose gradients make up one tensor of its pair."""
        if name in self.named.sources:
            return self.named.sources[name][:1]
        link = self.named.gradients.get(name)
        return () if link is None else tuple(link.ref)

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
        return self.run_ref(ties="row") if self._takes_maxima else None

    @cached_property
    def truth_by_shares(self) -> Local | None:
        """The reference with a maximum's gradient shared by all that are equal, as a reduction over axes does it."""
        return self.run_ref(ties="shared") if self._takes_maxima else None

    @property
    def _takes_maxima(self) -> bool:
        kind = self.pair.ref.kind
        return isinstance(kind, Pool | ROIPooling) and kind.method == "max"

    @cached_property
    def truth_over_zeros(self) -> Local | None:
        """A maximum whose padding is zeros that take part in it, ties by rows; None where these change an output."""
        kind = self.pair.ref.kind
        if not isinstance(kind, Pool) or self.upstream_ref is None or len(self.ref_feeds) != 1:
            return None
        ((source, value),) = self.ref_feeds.items()
        plain = self.ref_local.outputs[self.pair.ref.output]
        gradient = over_zeros(kind, value, plain, self.upstream_ref, self.bench.mode)
        return None if gradient is None else Local(input_grads={source: gradient})

    def past_kinks(self, actual: Array, expected: Array) -> tuple[Array, int]:
        """A derivative with the reference's own choice where a rectifier stands at its kink; how many change."""
        fed = next(iter(self.ref_feeds.values()), None)
        if fed is None or self.upstream_ref is None:
            return actual, 0
        return past_kinks(self.pair.ref.kind, fed, self.upstream_ref, actual, expected)

    # ---- what they show

    def tensor(self, local: Local, side: str, name: str) -> Array | None:
        """One tensor of an isolated run by its name; zeros for a gradient that Keras says does not flow."""
        if name in self.named.sources:
            source, *theirs = self.named.sources[name]
            if side == "ref":
                return local.input_grads.get(source)
            parts = [local.input_grads[t] for t in theirs if t in local.input_grads]
            return sum(parts[1:], parts[0]) if parts else np.zeros(self.ref_feeds[source].shape, np.float32)
        value = self.named.of(local, side, name)
        if value is None and side == "keras" and name in self.named.gradients:
            return np.zeros(self.bench.keras.network.params[self.named.gradients[name].keras].shape, np.float32)
        return value

    @cached_property
    def low_precision(self) -> str:
        """The type below float32 in which a Keras layer of the pair computes; empty where none does."""
        said = [r for name in self.pair.keras.layers for r in self.bench.keras.network[name].remarks]
        return next((r.split()[-1] for r in said if r.startswith("computes in ")), "")

    @property
    def draws(self) -> bool:
        """Whether a layer of either side draws random numbers and leaves no mask.

        So does whatever a class of the user's own does in the place of a dropout: the reference cannot drop the same.
        """
        layers = [self.bench.keras.network[name] for name in self.pair.keras.layers]
        if isinstance(self.pair.ref.kind, Dropout) and any("a class of the user's" in x.remarks for x in layers):
            return self.pair.ref.layers[-1] not in self.bench.ref_masks
        sides = ((self.bench.ref, self.pair.ref), (self.bench.keras, self.pair.keras))
        return any(
            remark.startswith("random")
            for runner, unit in sides
            for name in unit.layers
            for remark in runner.network[name].remarks
        )

    @property
    def drops_inside(self) -> bool:
        """Whether a layer drops inside itself, as an LSTM can, and the two sides are not the same Keras."""
        settings = self.pair.ref.settings
        said = [name for name, value in settings.items() if name.split(".")[-1].endswith("dropout") and value]
        return bool(said) and self.bench.ref.engine.get("framework") != self.bench.keras.engine.get("framework")

    @property
    def roles(self) -> dict[str, Array]:
        """Role → value of the reference's parameters."""
        values = self.bench.ref_values
        return {role: values[keys[0]] for role, keys in self.pair.ref.params.items() if keys[0] in values}
