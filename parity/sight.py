"""A pair at first sight: judged by what both sides made of their own tensors, without running the Keras unit again.

Where nothing before a pair is at fault, what the two sides read differs by rounding alone. If their results then agree
to the floor there is nothing to run. If not, rounding from before may have been carried through: the reference is held
against the Keras unit on the Keras side's own tensors, wherever that costs less than a second run in Keras.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from parity.bench import Trial
from parity.distances import Distance, channel_rms, channel_sum, distance
from parity.errors import ParityError
from parity.judge import Judge, Verdict
from parity.layers import BatchNorm, Conv, Dense
from parity.runner import Local
from parity.tensors import shaped
from parity.tolerance import CLEAN, carried, forward_floor, gradient_floor, parameter_floor
from parity.worst import Own, Part, Worst

__all__ = ["at_first_sight"]

Array = np.ndarray

_CARRIED = 2.0
"""How many floors of what came from before may be added to a layer's own: a fault of a few more still shows."""

_NEAR = 30.0
"""Up to how many floors float64 is asked whether a difference is rounding."""

_FAULTS = (ParityError, NotImplementedError, ValueError, RuntimeError)
"""What a runner raises for layers that it cannot run alone."""


def at_first_sight(
    trial: Trial,
    ref: Local,
    keras: Local,
    pulled: Array | None = None,
    *,
    gradients_only: bool = False,
    read: Mapping[str, Distance] | None = None,
    above: Distance | None = None,
) -> tuple[dict[str, Verdict], dict[str, Distance]]:
    """The verdicts on a pair that its two end-to-end results allow, though each had its own inputs.

    Args:
        trial: of the pair; its Keras unit is not run.
        ref: what the reference's unit made of its own inputs and gradients.
        keras: the same of the Keras unit; its `outputs` have what the unit reads as well.
        pulled: the Keras side's own gradient of what the unit makes, or None where there is none.
        gradients_only: leave what it makes out.
        read: reference tensor → how far apart the two sides' are, where that is known of what the unit reads.
        above: how far apart the two sides' gradients of what the unit makes are, where known.

    Returns:
        A match for each tensor that is right, without a figure for the pair alone; those in doubt are absent. And by
        tensor how far apart the results are.
    """
    if trial.bench.limits is not None or trial.absent or (trial.bench.mode == "train" and trial.draws):
        return {}, {}
    seen = Trial(trial.bench, trial.pair)
    seen.__dict__.update(ref_local=ref, keras_local=keras)
    known = {name: apart for name, apart in (read or {}).items() if _fits(apart, seen.ref_feeds[name])}
    above = above if seen.upstream_ref is not None and _fits(above, seen.upstream_ref) else None
    for name, apart in known.items():
        seen.note_size(seen.ref_feeds[name], apart.own)
    if above is not None and seen.upstream_ref is not None:
        seen.note_size(seen.upstream_ref, above.own)
    sight = _Sight(seen, pulled, gradients_only=gradients_only, read=known, above=above)
    return {found.tensor: found for found in sight.verdicts() if found.status == "match"}, sight.apart


class _Sight(Judge):
    """The first tier, on what each side made of its own tensors."""

    def __init__(
        self,
        trial: Trial,
        pulled: Array | None,
        *,
        gradients_only: bool,
        read: Mapping[str, Distance],
        above: Distance | None,
    ) -> None:
        super().__init__(trial, gradients_only=gradients_only)
        self._own = Own(trial, pulled, read, above)
        self._worst = Worst(self._own)
        self._cut: tuple[Part, tuple[dict[str, Array], Array | None, dict[str, Array]]] | None = None
        self._shown: dict[tuple[Part, int], Local] = {}

    def verdicts(self) -> list[Verdict]:
        """As of a pair alone, but for the distance, which is not that."""
        return [replace(verdict, x_floor=None) for verdict in super().verdicts()]

    def _apart(self, actual: Array, expected: Array) -> Distance:
        return distance(actual, expected, by_image=True)

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
        right = self._sums(tensor, floor, actual, expected)
        if right is None:
            carried = self._is_let_through if tensor == "output" else self._is_carried
            right = carried(tensor, floor, actual, expected, apart)
            right = right or self._is_right(tensor, actual, expected, apart, floor)
        return Verdict(phase, tensor, "match" if right else "unverified", x_floor, floor, apart)

    # ---- what is carried through

    def _is_let_through(self, tensor: str, floor: Array, actual: Array, expected: Array, apart: Distance) -> bool:
        """Whether what a convolution reads explains that its output is a few floors away."""
        trial, feeds = self.trial, self._own.feeds
        kernel = trial.roles.get("kernel")
        if kernel is None or feeds is None or len(feeds) != 1 or not isinstance(trial.pair.ref.kind, Conv | Dense):
            return False
        if apart.x_floor((1 + _CARRIED) * floor) > CLEAN:
            return False
        more = self._own.read_apart[0].rms * np.sqrt(kernel[..., 0].size) * channel_rms(kernel)
        return more.shape == floor.shape and apart.x_floor(floor + np.minimum(more, _CARRIED * floor)) <= CLEAN

    def _sums(self, tensor: str, floor: Array, actual: Array, expected: Array) -> bool | None:
        """Whether a bias' gradient is the sum of each side's own, in every channel; None of what is no such sum."""
        mine, theirs = self._own.upstream, self.trial.upstream_ref
        if mine is None or theirs is None:
            return None
        expected_sum, sums = self._sum(tensor, theirs), self._sum(tensor, mine)
        if expected_sum is None or sums is None or not expected_sum.shape == sums.shape == expected.shape:
            return None
        raised = np.maximum(floor, distance(expected, expected_sum).channel_rms)
        return distance(actual, sums).x_floor(raised) <= CLEAN

    def _sum(self, tensor: str, pulled: Array) -> Array | None:
        """`Trial.summed`, and the same of a batch normalisation's offset."""
        trial, kind, link = self.trial, self.trial.pair.ref.kind, self.trial.named.gradients.get(tensor)
        if link is None or link.role != "beta" or len(link.ref) != 1:
            return trial.summed(tensor, pulled)
        own = trial.ref_local.param_grads.get(link.ref[0])
        if not isinstance(kind, BatchNorm) or kind.axis != -1 or len(trial.pair.ref.layers) > 1:
            return None
        if own is None or own.size != pulled.shape[-1]:
            return None
        total = channel_sum(pulled).reshape(own.shape)
        return trial.tensor(Local(param_grads={link.ref[0]: total}), "ref", tensor)

    def _is_carried(self, tensor: str, floor: Array, actual: Array, expected: Array, apart: Distance) -> bool:
        """Whether what a convolution was given explains that a parameter's gradient is a few floors away."""
        trial, link = self.trial, self.trial.named.gradients.get(tensor)
        mine, theirs, pulled = self._own.upstream, trial.upstream_ref, self._own.pulled_apart
        if (
            link is None
            or mine is None
            or theirs is None
            or pulled is None
            or not isinstance(trial.pair.ref.kind, Conv | Dense)
        ):
            return False
        inputs, feeds = list(trial.ref_feeds.values()), self._own.feeds
        if feeds is None or len(inputs) != 1 or apart.x_floor((1 + _CARRIED) * floor) > CLEAN:
            return False
        more = carried(link.role, inputs, theirs, self._own.read_apart[0], pulled, expected, size=trial.size)
        return apart.x_floor(floor + np.minimum(more, _CARRIED * floor)) <= CLEAN

    # ---- the reference on the Keras side's tensors

    def _is_right(self, tensor: str, actual: Array, expected: Array, apart: Distance, floor: Array) -> bool:
        """Whether the Keras unit made a tensor of its own as the reference makes it of the same.

        Not looked for where a run of the reference costs no less than one of Keras: of inner products and the like.

        Args:
            tensor: its name.
            actual: what the Keras unit made.
            expected: what the reference made of its own, in the same shape.
            apart: how far apart they are.
            floor: what rounding may do to each channel.
        """
        trial, kind = self.trial, self.trial.pair.ref.kind
        if len(trial.pair.ref.layers) > 1 or not (self._worst.light or isinstance(kind, BatchNorm | Conv)):
            return False
        if self._own.feeds is None or (trial.backward and self._own.upstream is None):
            return False
        try:
            return self._agrees(tensor, actual, self._worst.part(tensor, expected, actual, apart, floor))
        except _FAULTS:
            return False

    def _agrees(self, name: str, actual: Array, part: Part) -> bool:
        """Whether a part of a tensor is what the reference makes of the same."""
        trial, kind = self.trial, self.trial.pair.ref.kind
        link = trial.named.gradients.get(name)
        wanted = trial.named.sources[name][:1] if name in trial.named.sources else None if link is None else link.ref

        def shown(local: Local) -> Array | None:
            if link is not None and part.channels is not None:  # Keras has the same axes
                return local.param_grads.get(link.ref[0])
            return trial.tensor(local, "ref", name)

        def made(precision: int = 32) -> Array | None:
            once = isinstance(kind, BatchNorm) or self._worst.light
            return shown(self._once(part, precision) if once else self._reference(part, precision, wanted))

        expected = made()
        mine = part.channelled(actual) if link is not None else part.of(actual)
        same = None if expected is None else shaped(mine, expected.shape)
        if expected is None or same is None:
            return False
        if np.array_equal(same, expected):
            return True
        feeds, pulled, roles = self._given(part)
        apart = distance(same, expected)
        if name == "output":
            floor = forward_floor(kind, [*feeds.values()], roles, expected, apart.own)
        elif link is not None:
            floor = parameter_floor(link.role, [*feeds.values()], pulled, expected, apart.own)
        else:
            floor = gradient_floor(kind, pulled, roles, expected, apart.own)
        x_floor = apart.x_floor(floor)
        if x_floor <= CLEAN or self._worst.light:
            return x_floor <= CLEAN
        truth = made(64) if x_floor <= _NEAR else None
        if truth is None:
            return False
        own = distance(expected, truth)
        if distance(same, truth).x_floor(np.maximum(floor, own.channel_rms)) > CLEAN:
            return False
        if own.x_floor(floor) <= CLEAN:
            return True
        again = shown(self._reference(part, 32, wanted))
        return again is not None and distance(again, expected).x_floor(floor) <= CLEAN  # else it is chance

    def _given(self, part: Part) -> tuple[dict[str, Array], Array | None, dict[str, Array]]:
        """The Keras side's own tensors, its gradient of what the unit makes, and the parameters by role."""
        if self._cut is None or self._cut[0] is not part:
            # A batch normalisation makes each channel of the same one.
            cut = part.of if isinstance(self.trial.pair.ref.kind, BatchNorm) else part.imaged
            feeds = {name: cut(value) for name, value in (self._own.feeds or {}).items()}
            pulled = None if self._own.upstream is None else part.of(self._own.upstream)
            roles = {role: part.channelled(value) for role, value in self.trial.roles.items()}
            self._cut = part, (feeds, pulled, roles)
        return self._cut[1]

    def _once(self, part: Part, precision: int) -> Local:
        """The reference's unit on a part of the Keras side's own tensors, once for all tensors that it makes."""
        if (part, precision) not in self._shown:
            self._shown[part, precision] = self._reference(part, precision)
        return self._shown[part, precision]

    def _reference(self, part: Part, precision: int = 32, wanted: Collection[str] | None = None) -> Local:
        """One run of the reference's unit on a part of the Keras side's own tensors."""
        trial, bench = self.trial, self.trial.bench
        feeds, pulled, roles = self._given(part)
        masks = {name: mask for name, mask in bench.ref_masks.items() if name in trial.pair.ref.layers}
        params = {trial.pair.ref.params[role][0]: value for role, value in roles.items()}
        return bench.ref.isolate(
            trial.pair.ref.layers,
            feeds,
            labels=None,
            upstream=None if pulled is None else {trial.pair.ref.output: pulled},
            mode=bench.mode,
            masks={name: part.imaged(mask) for name, mask in masks.items()},
            params=None if part.channels is None else params,
            precision=precision,
            wanted=wanted,
            outputs=not trial.backward or not self.gradients_only,
        )


def _fits(apart: Distance | None, value: Array) -> bool:
    """Whether a distance that was measured before is one of tensors with as many channels."""
    return apart is not None and apart.channel_rms.shape == value.shape[-1:]
