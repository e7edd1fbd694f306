"""A pair at first sight: judged by what both sides made of their own tensors, without running the Keras unit again.

Where nothing before a pair is at fault, what the two sides read differs by rounding alone. If their results then agree
to the floor there is nothing to run. If not, rounding from before may have been carried through: the reference is held
against the Keras unit on the Keras side's own tensors, wherever that costs less than a second run in Keras.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from parity.bench import Trial
from parity.errors import ParityError
from parity.judge import Judge, Verdict
from parity.layers import BatchNorm, Conv, Dense
from parity.runner import Local
from parity.tensors import shaped
from parity.tolerance import (
    CLEAN,
    Distance,
    carried,
    channel_rms,
    distance,
    forward_floor,
    gradient_floor,
    parameter_floor,
)

__all__ = ["at_first_sight"]

Array = np.ndarray

_CARRIED = 2.0
"""How many floors of what came from before may be added to a layer's own: a fault of a few more still shows."""

_NEAR = 30.0
"""Up to how many floors float64 is asked whether a difference is rounding."""

_FAULTS = (ParityError, NotImplementedError, ValueError, RuntimeError)
"""What a runner raises for layers that it cannot run alone."""

_CHANNELS = 4
"""How many channels are looked at of a unit that does the same to each."""


def at_first_sight(
    trial: Trial, ref: Local, keras: Local, pulled: Array | None = None, *, gradients_only: bool = False
) -> tuple[dict[str, Verdict], dict[str, Distance]]:
    """The verdicts on a pair that its two end-to-end results allow, though each had its own inputs.

    Args:
        trial: of the pair; its Keras unit is not run.
        ref: what the reference's unit made of its own inputs and gradients.
        keras: the same of the Keras unit; its `outputs` have what the unit reads as well.
        pulled: the Keras side's own gradient of what the unit makes, or None where there is none.
        gradients_only: leave what it makes out.

    Returns:
        A match for each tensor that is right, without a figure for the pair alone; those in doubt are absent. And by
        tensor how far apart the results are.
    """
    if trial.bench.limits is not None or trial.absent or (trial.bench.mode == "train" and trial.draws):
        return {}, {}
    seen = Trial(trial.bench, trial.pair)
    seen.__dict__.update(ref_local=ref, keras_local=keras)
    sight = _Sight(seen, pulled, gradients_only=gradients_only)
    return {found.tensor: found for found in sight.verdicts() if found.status == "match"}, sight.apart


class _Sight(Judge):
    """The first tier, on what each side made of its own tensors."""

    def __init__(self, trial: Trial, pulled: Array | None, *, gradients_only: bool) -> None:
        super().__init__(trial, gradients_only=gradients_only)
        self._pulled = pulled
        self._several: _Part | None = None
        self._cut: tuple[_Part, tuple[dict[str, Array], Array | None, dict[str, Array]]] | None = None
        self._shown: dict[int, Local] = {}

    def verdicts(self) -> list[Verdict]:
        """As of a pair alone, but for the distance, which is not that."""
        return [replace(verdict, x_floor=None) for verdict in super().verdicts()]

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
        carried = self._is_let_through if tensor == "output" else self._is_carried
        if carried(tensor, floor, actual, expected, apart) or self._is_right(
            tensor, actual, expected, apart.x_floors(floor)
        ):
            return Verdict(phase, tensor, "match", x_floor, floor, apart)
        return Verdict(phase, tensor, "unverified", x_floor, floor, apart)

    # ---- the Keras side's own tensors, as the reference has them

    @cached_property
    def _own_feeds(self) -> dict[str, Array] | None:
        """Reference tensor → what the Keras side has for it; None where something is missing or of another shape."""
        made: dict[str, Array] = {}
        for tensor, source in self.trial.named.wiring.items():
            value = self.trial.keras_local.outputs.get(tensor)
            theirs = self.trial.ref_feeds.get(source)
            own = None if value is None or theirs is None else shaped(value, theirs.shape)
            if own is None or source in made:
                return None
            made[source] = own
        return made if made.keys() == self.trial.ref_feeds.keys() else None

    @cached_property
    def _own_upstream(self) -> Array | None:
        """The Keras side's gradient of what the unit makes, in the reference's shape."""
        theirs = self.trial.upstream_ref
        return None if self._pulled is None or theirs is None else shaped(self._pulled, theirs.shape)

    # ---- what is carried through

    def _is_let_through(self, tensor: str, floor: Array, actual: Array, expected: Array, apart: Distance) -> bool:
        """Whether what a convolution reads explains that its output is a few floors away."""
        trial, feeds = self.trial, self._own_feeds
        kernel = trial.roles.get("kernel")
        if kernel is None or feeds is None or len(feeds) != 1 or not isinstance(trial.pair.ref.kind, Conv | Dense):
            return False
        if apart.x_floor((1 + _CARRIED) * floor) > CLEAN:
            return False
        ((source, mine),) = feeds.items()
        more = distance(mine, trial.ref_feeds[source]).rms * np.sqrt(kernel[..., 0].size) * channel_rms(kernel)
        return more.shape == floor.shape and apart.x_floor(floor + np.minimum(more, _CARRIED * floor)) <= CLEAN

    def _is_carried(self, tensor: str, floor: Array, actual: Array, expected: Array, apart: Distance) -> bool:
        """Whether what a convolution was given explains that a parameter's gradient is a few floors away."""
        trial, link = self.trial, self.trial.named.gradients.get(tensor)
        mine, theirs = self._own_upstream, trial.upstream_ref
        if link is None or mine is None or theirs is None or not isinstance(trial.pair.ref.kind, Conv | Dense):
            return False
        truths = [trial.summed(tensor, pulled) for pulled in (theirs, mine)]
        if truths[0] is not None and truths[1] is not None:  # of a bias: the sum itself, of each side's own
            raised = np.maximum(floor, distance(expected, truths[0]).channel_rms)
            return distance(actual, truths[1]).x_floor(raised) <= CLEAN
        inputs, feeds = list(trial.ref_feeds.values()), self._own_feeds
        if feeds is None or len(inputs) != 1 or apart.x_floor((1 + _CARRIED) * floor) > CLEAN:
            return False
        read = distance(next(iter(feeds.values())), inputs[0])
        more = carried(link.role, inputs, theirs, read, distance(mine, theirs), expected)
        return apart.x_floor(floor + np.minimum(more, _CARRIED * floor)) <= CLEAN

    # ---- the reference on the Keras side's tensors

    def _is_right(self, tensor: str, actual: Array, expected: Array, x_floors: Array) -> bool:
        """Whether the Keras unit made a tensor of its own as the reference makes it of the same.

        Not looked for where a run of the reference costs no less than one of Keras: of inner products and the like.

        Args:
            tensor: its name.
            actual: what the Keras unit made.
            expected: what the reference made of its own, in the same shape.
            x_floors: how far apart they are, in floors of each channel.
        """
        trial, kind = self.trial, self.trial.pair.ref.kind
        if len(trial.pair.ref.layers) > 1 or not (self._in_slices or isinstance(kind, BatchNorm | Conv)):
            return False
        if self._own_feeds is None or (trial.backward and self._own_upstream is None):
            return False
        try:
            return all(self._agrees(tensor, actual, part) for part in self._parts(tensor, actual, expected, x_floors))
        except _FAULTS:
            return False

    def _parts(self, tensor: str, actual: Array, expected: Array, x_floors: Array) -> Iterator[_Part]:
        """Where to look: at the images or the channels where the two sides are furthest apart.

        A unit that does the same to every image, or every channel, does wrong there whatever it does wrong, or it does
        so to less than came from before.
        """
        trial, kind = self.trial, self.trial.pair.ref.kind
        link = trial.named.gradients.get(tensor)
        if link is None and (self._in_slices or isinstance(kind, Conv)):
            image = int(np.argmax([_furthest(*both) for both in zip(actual, expected, strict=True)]))
            yield _Part(slice(image, image + 1))
            return
        alike = kind.groups == 1 if isinstance(kind, Conv) else isinstance(kind, BatchNorm) and kind.axis == -1
        own = None if link is None else trial.ref_local.param_grads.get(link.ref[0])
        other_axes = link is not None and (own is None or not np.array_equal(own, expected))
        if not alike or other_axes or not getattr(trial.bench.ref, "takes_channels", False):
            yield _Part()
        elif isinstance(kind, Conv):
            yield _Part(channels=_worst(x_floors))
        else:
            self._several = self._several or _Part(channels=np.unique([_worst(x_floors), *self._worst_sums]))
            yield self._several

    @property
    def _worst_sums(self) -> Iterator[Array]:
        """The channels of a batch normalisation's parameters whose gradients are furthest apart, as far as it shows."""
        trial, pulled = self.trial, self._own_upstream
        if pulled is None:
            return
        size = np.maximum(channel_rms(pulled), np.finfo(np.float32).tiny)
        for name in trial.named.gradients:
            mine, theirs = trial.tensor(trial.keras_local, "keras", name), trial.tensor(trial.ref_local, "ref", name)
            if mine is not None and theirs is not None and mine.shape == theirs.shape == size.shape:
                yield _worst(np.abs(mine - theirs) / size)

    def _agrees(self, name: str, actual: Array, part: _Part) -> bool:
        """Whether a part of a tensor is what the reference makes of the same."""
        trial, kind = self.trial, self.trial.pair.ref.kind
        link = trial.named.gradients.get(name)
        wanted = trial.named.sources[name][:1] if name in trial.named.sources else None if link is None else link.ref

        def made(precision: int = 32) -> Array | None:
            local = self._once(precision) if part is self._several else self._reference(part, precision, wanted)
            if link is not None and part.channels is not None:  # Keras has the same axes
                return local.param_grads.get(link.ref[0])
            return trial.tensor(local, "ref", name)

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
        if x_floor <= CLEAN or self._in_slices:
            return x_floor <= CLEAN
        truth = made(64) if x_floor <= _NEAR else None
        if truth is None:
            return False
        own = distance(expected, truth)
        if distance(same, truth).x_floor(np.maximum(floor, own.channel_rms)) > CLEAN:
            return False
        if own.x_floor(floor) <= CLEAN:
            return True
        once = self._reference(part, 32, wanted)
        again = trial.tensor(once, "ref", name) if link is None else once.param_grads.get(link.ref[0])
        return again is not None and distance(again, expected).x_floor(floor) <= CLEAN  # else it is chance

    @property
    def _in_slices(self) -> bool:
        """Whether it does the same to every image, and nothing is summed up over them."""
        pair = self.trial.pair
        return pair.ref.kind.by_image and not pair.ref.params and not pair.keras.params

    def _given(self, part: _Part) -> tuple[dict[str, Array], Array | None, dict[str, Array]]:
        """The Keras side's own tensors, its gradient of what the unit makes, and the parameters by role."""
        if self._cut is None or self._cut[0] is not part:
            # A batch normalisation makes each channel of the same one.
            cut = part.of if isinstance(self.trial.pair.ref.kind, BatchNorm) else part.imaged
            feeds = {name: cut(value) for name, value in (self._own_feeds or {}).items()}
            pulled = None if self._own_upstream is None else part.of(self._own_upstream)
            roles = {role: part.channelled(value) for role, value in self.trial.roles.items()}
            self._cut = part, (feeds, pulled, roles)
        return self._cut[1]

    def _once(self, precision: int) -> Local:
        """The reference's unit on the channels that are looked at for all of its tensors."""
        assert self._several is not None
        if precision not in self._shown:
            self._shown[precision] = self._reference(self._several, precision)
        return self._shown[precision]

    def _reference(self, part: _Part, precision: int = 32, wanted: Collection[str] | None = None) -> Local:
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
        )


@dataclass(frozen=True, eq=False)
class _Part:
    """Some images or some channels of a unit's tensors.

    Attributes:
        images: which.
        channels: which of what the unit makes; None for all.
    """

    images: slice | None = None
    channels: Array | None = None

    def imaged(self, value: Array) -> Array:
        """These images of a tensor n … c."""
        return value if self.images is None else value[self.images]

    def channelled(self, value: Array) -> Array:
        """These channels of a tensor or a parameter, the last axis."""
        return value if self.channels is None else np.ascontiguousarray(value[..., self.channels])

    def of(self, value: Array) -> Array:
        """Both."""
        return self.channelled(self.imaged(value))


def _furthest(actual: Array, expected: Array) -> float:
    """The largest absolute difference."""
    gap = actual - expected
    return max(float(gap.max(initial=0)), -float(gap.min(initial=0)))


def _worst(x_floors: Array) -> Array:
    """The channels that are furthest from what is expected, in their order."""
    return np.sort(np.argsort(x_floors)[-_CHANNELS:])
