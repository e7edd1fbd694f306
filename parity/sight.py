"""A pair at first sight: judged by what both sides made of their own tensors, without running the Keras unit again.

Where nothing before a pair is at fault, what the two sides read differs by rounding alone. If their results then agree
to the floor there is nothing to run. If not, rounding from before may have been carried through: the reference is held
against the Keras unit on the Keras side's own tensors, wherever that costs less than a second run in Keras.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
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

_SLICE = 1 << 20
"""About how many elements the reference runs on at a time: its tensors stay small, and are made in the same memory."""


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
        if carried(tensor, floor, actual, expected, apart) or tensor in self._right:
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

    @cached_property
    def _right(self) -> frozenset[str]:
        """The tensors that the Keras unit made of its own as the reference makes them of the same.

        Not looked for where a run of the reference costs no less than one of Keras: of inner products and the like.
        """
        trial, kind = self.trial, self.trial.pair.ref.kind
        if len(trial.pair.ref.layers) > 1 or not (self._in_slices or isinstance(kind, BatchNorm | Conv)):
            return frozenset()
        feeds, upstream = self._own_feeds, self._own_upstream
        if feeds is None or (trial.backward and upstream is None):
            return frozenset()
        names = ["output"] * (not self.gradients_only)
        names += [*trial.named.sources, *trial.named.gradients] if trial.backward else []
        made = {name: trial.tensor(trial.keras_local, "keras", name) for name in names}
        right = {name for name, value in made.items() if value is not None}
        try:
            for images, local in self._turned(feeds, upstream):
                fed = [value[images] for value in feeds.values()]
                pulled = None if upstream is None else upstream[images]
                for name in sorted(right):
                    value = made[name]
                    assert value is not None
                    mine = value if name in trial.named.gradients else value[images]
                    if not self._agrees(name, mine, local, fed, pulled):
                        right.discard(name)
                if not right:
                    break
        except _FAULTS:
            return frozenset()
        return frozenset(right)

    def _agrees(self, name: str, actual: Array, local: Local, fed: list[Array], pulled: Array | None) -> bool:
        """Whether a tensor, or some images of it, is what the reference made of the same."""
        trial, kind, expected = self.trial, self.trial.pair.ref.kind, self.trial.tensor(local, "ref", name)
        same = None if expected is None else shaped(actual, expected.shape)
        if expected is None or same is None:
            return False
        if name == "output":
            floor = forward_floor(kind, fed, trial.roles, expected)
        elif name in trial.named.gradients:
            floor = parameter_floor(trial.named.gradients[name].role, fed, pulled, expected)
        else:
            floor = gradient_floor(kind, pulled, trial.roles, expected)
        x_floor = distance(same, expected).x_floor(floor)
        if x_floor <= CLEAN or self._in_slices:
            return x_floor <= CLEAN
        truth = trial.tensor(self._turned_truth, "ref", name) if x_floor <= _NEAR and self._turned_truth else None
        if truth is None:
            return False
        own = distance(expected, truth)
        if distance(same, truth).x_floor(np.maximum(floor, own.channel_rms)) > CLEAN:
            return False
        if own.x_floor(floor) <= CLEAN:
            return True
        once = None if self._turned_again is None else trial.tensor(self._turned_again, "ref", name)
        return once is not None and distance(once, expected).x_floor(floor) <= CLEAN  # else it is chance

    @cached_property
    def _turned_truth(self) -> Local | None:
        """The reference's unit in float64 on the Keras side's tensors; None where it cannot be run so."""
        return self._whole(precision=64)

    @cached_property
    def _turned_again(self) -> Local | None:
        """The reference's unit on the Keras side's tensors once more."""
        return self._whole()

    def _whole(self, precision: int = 32) -> Local | None:
        try:
            return self._reference(slice(None), self._own_feeds or {}, self._own_upstream, precision)
        except _FAULTS:
            return None

    @property
    def _in_slices(self) -> bool:
        """Whether a few images at a time may be looked at: nothing is summed up over them."""
        pair = self.trial.pair
        return pair.ref.kind.by_image and not pair.ref.params and not pair.keras.params

    def _turned(self, feeds: Mapping[str, Array], upstream: Array | None) -> Iterator[tuple[slice, Local]]:
        """The reference's unit on the Keras side's tensors, a few images at a time where it does not matter."""
        largest = max(feeds.values(), key=np.size)
        count = len(largest)
        step = max(1, _SLICE * count // max(1, largest.size)) if self._in_slices else max(1, count)
        for start in range(0, count, step):
            images = slice(start, start + step)
            yield images, self._reference(images, feeds, upstream)

    def _reference(
        self, images: slice, feeds: Mapping[str, Array], upstream: Array | None, precision: int = 32
    ) -> Local:
        """One run of the reference's unit on some images."""
        trial, bench = self.trial, self.trial.bench
        masks = {name: mask for name, mask in bench.ref_masks.items() if name in trial.pair.ref.layers}
        return bench.ref.isolate(
            trial.pair.ref.layers,
            {name: value[images] for name, value in feeds.items()},
            labels=None,
            upstream=None if upstream is None else {trial.pair.ref.output: upstream[images]},
            mode=bench.mode,
            masks={name: mask[images] for name, mask in masks.items()},
            precision=precision,
        )
