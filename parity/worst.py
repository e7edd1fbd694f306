"""Where two sides are furthest apart: the images or the channels of a unit's tensors that are looked at again.

A unit that does the same to every image, or to every channel, does wrong there whatever it does wrong, or it does so to
less than came from before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from parity.bench import Trial
from parity.distances import TINY, Distance, channel_rms, distance
from parity.layers import LRN, Activation, BatchNorm, Conv, Dropout, Merge, Pool
from parity.tensors import shaped
from parity.tolerance import carried

__all__ = ["Own", "Part", "Worst"]

Array = np.ndarray

_CHANNELS = 4
"""How many channels are looked at of a unit that does the same to each."""

_SMALL, _QUICK = 1 << 17, 1 << 24
"""Up to how many entries, and how many products of a convolution, all of a tensor is looked at: in milliseconds."""

_MORE = 1.5
"""How many times as far apart as others an image is, for what came from before, that is looked at beside the worst."""

_LIGHT = (Activation, Dropout, LRN, Merge, Pool)
"""Kinds that do the same to every image, of which the reference costs no more than Keras does."""


class Own:
    """What both sides of a pair made of their own tensors, and were given, the Keras side's as the reference has it.

    Args:
        trial: with each side's own run; its Keras unit is not run.
        pulled: the Keras side's own gradient of what the unit makes, or None where there is none.
        read: reference tensor → how far apart the two sides' are, where that is known.
        above: how far apart the two sides' gradients of what the unit makes are, where known.
    """

    def __init__(
        self, trial: Trial, pulled: Array | None, read: Mapping[str, Distance], above: Distance | None
    ) -> None:
        self.trial, self._pulled, self._known_read, self._known_above = trial, pulled, read, above

    @cached_property
    def feeds(self) -> dict[str, Array] | None:
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
    def upstream(self) -> Array | None:
        """The Keras side's gradient of what the unit makes, in the reference's shape."""
        theirs = self.trial.upstream_ref
        return None if self._pulled is None or theirs is None else shaped(self._pulled, theirs.shape)

    @cached_property
    def read_apart(self) -> tuple[Distance, Array]:
        """How far apart the two sides' first inputs are, and the reference's own."""
        ((source, mine), *_) = (self.feeds or {}).items()
        theirs = self.trial.ref_feeds[source]
        return self._known_read.get(source) or distance(mine, theirs), theirs

    @cached_property
    def pulled_apart(self) -> Distance | None:
        """How far apart the two sides' gradients of what the unit makes are."""
        mine, theirs = self.upstream, self.trial.upstream_ref
        if mine is None or theirs is None:
            return None
        return self._known_above or distance(mine, theirs, by_image=True)


@dataclass(frozen=True, eq=False)
class Part:
    """Some images or some channels of a unit's tensors.

    Attributes:
        images: which.
        channels: which of what the unit makes; None for all.
    """

    images: Array | None = None
    channels: Array | None = None

    def imaged(self, value: Array) -> Array:
        """These images of a tensor n … c; of one alone a view."""
        if self.images is None:
            return value
        return value[self.images[0] :][:1] if len(self.images) == 1 else value[self.images]

    def channelled(self, value: Array) -> Array:
        """These channels of a tensor or a parameter, the last axis."""
        return value if self.channels is None else value.take(self.channels, axis=-1)

    def of(self, value: Array) -> Array:
        """Both."""
        return self.channelled(self.imaged(value))


class Worst:
    """Chooses the parts of a pair's tensors that are looked at again."""

    def __init__(self, own: Own) -> None:
        self._own, self._all = own, Part()
        self._several: Part | None = None
        self._imaged: dict[tuple[int, ...], Part] = {}

    @property
    def light(self) -> bool:
        """Whether it does the same to every image, and nothing is summed up over them."""
        pair = self._own.trial.pair
        return isinstance(pair.ref.kind, _LIGHT) and not pair.ref.params and not pair.keras.params

    def part(self, tensor: str, expected: Array, actual: Array, apart: Distance, floor: Array) -> Part:
        """Where to look: at all of a small tensor, else at the images or channels where the two sides are worst."""
        trial, kind = self._own.trial, self._own.trial.pair.ref.kind
        link = trial.named.gradients.get(tensor)
        by_image = link is None and (self.light or isinstance(kind, Conv))
        alike = kind.groups == 1 if isinstance(kind, Conv) else isinstance(kind, BatchNorm) and kind.axis == -1
        own = None if link is None else trial.ref_local.param_grads.get(link.ref[0])
        other_axes = link is not None and (own is None or not np.array_equal(own, expected))
        takes = alike and not other_axes and getattr(trial.bench.ref, "takes_channels", False)
        if self._is_small or not (by_image or takes):
            return self._all
        if by_image:
            images = self._worst_images(tensor, actual, expected, apart)
            return self._imaged.setdefault(tuple(images), Part(images))
        worst = self._worst_channels(tensor, expected, apart, floor)
        if isinstance(kind, Conv):
            return Part(channels=worst)
        self._several = self._several or Part(channels=np.unique([*worst, *(c for of in self._worst_sums for c in of)]))
        return self._several

    @cached_property
    def _is_small(self) -> bool:
        """Whether the reference runs on all that the unit reads within milliseconds."""
        trial = self._own.trial
        made = trial.upstream_ref if trial.upstream_ref is not None else trial.ref_local.outputs[trial.pair.ref.output]
        kernel = trial.roles.get("kernel")
        if kernel is not None and isinstance(trial.pair.ref.kind, Conv):
            return made.size * kernel[..., 0].size <= _QUICK
        return max([made.size, *(value.size for value in trial.ref_feeds.values())]) <= _SMALL

    def _worst_images(self, tensor: str, actual: Array, expected: Array, apart: Distance) -> Array:
        """The image that is furthest apart, and those that are so for how far apart is what the unit was given.

        In the first, rounding from before may have switched a rectifier, or let another maximum win: what that does is
        larger than many a fault, which another image would show.
        """
        made = _by_image(apart, actual, expected)
        mine, theirs, pulled = self._own.upstream, self._own.trial.upstream_ref, self._own.pulled_apart
        if tensor == "output" or mine is None or theirs is None or pulled is None or len(theirs) != len(expected):
            return np.unique(made.argmax(axis=1))  # what a unit makes jumps nowhere
        found = {int(np.argmax(made[0]))}
        for out, came in zip(made, _by_image(pulled, mine, theirs), strict=True):
            more = np.nan_to_num(out / (came + 1e-3 * np.median(came) + TINY))
            if more.max() > _MORE * more.min():
                found.add(int(np.argmax(more)))
        return np.array(sorted(found))

    def _worst_channels(self, tensor: str, expected: Array, apart: Distance, floor: Array) -> Array:
        """The channels that are furthest apart, and those that are so for what may have been carried to them."""
        trial, pulled = self._own.trial, self._own.pulled_apart
        link, (read, value) = trial.named.gradients.get(tensor), self._own.read_apart
        own = channel_rms(expected) if apart.own is None else apart.own
        if link is not None and pulled is not None and trial.upstream_ref is not None:
            more = carried(link.role, [value], trial.upstream_ref, read, pulled, expected, size=trial.size)
        else:  # a batch normalisation's, channel by channel
            more = read.channel_rms * own / np.maximum(trial.size(value), TINY)
            if tensor != "output" and pulled is not None and trial.upstream_ref is not None:
                more = more + pulled.channel_rms * own / np.maximum(trial.size(trial.upstream_ref), TINY)
        return _worst(apart.x_floors(floor), apart.x_floors(floor + more))

    @property
    def _worst_sums(self) -> Iterator[Array]:
        """The channels of a batch normalisation's parameters whose gradients are furthest apart, as far as it shows."""
        trial, pulled = self._own.trial, self._own.upstream
        if pulled is None:
            return
        theirs, apart = trial.upstream_ref, self._own.pulled_apart
        size = channel_rms(pulled) if theirs is None or apart is None else trial.size(theirs)
        size = np.maximum(size, TINY)
        for name in trial.named.gradients:
            mine, theirs = trial.tensor(trial.keras_local, "keras", name), trial.tensor(trial.ref_local, "ref", name)
            if mine is not None and theirs is not None and mine.shape == theirs.shape == size.shape:
                gap = np.abs(mine - theirs) / size
                pulled = self._own.pulled_apart
                yield _worst(gap) if pulled is None else _worst(gap, gap * size / np.maximum(pulled.channel_rms, TINY))


def _by_image(apart: Distance, actual: Array, expected: Array) -> Array:
    """The largest difference and the root mean square of each image: 2 rows."""
    known = apart.images if apart.images is not None else distance(actual, expected, by_image=True).images
    return np.zeros((2, len(expected))) if known is None else known


def _worst(*criteria: Array) -> Array:
    """The channels that are worst by each of these, as many by each, in their order."""
    ranked = [np.argsort(of)[: -_CHANNELS - 1 : -1] for of in criteria]
    return np.sort([*dict.fromkeys(int(at) for turn in zip(*ranked, strict=True) for at in turn)][:_CHANNELS])
