"""Layers that stand otherwise on the two sides and compute the same function, found by running them.

A relu before a maximum pooling or behind it, a relu twice, a sigmoid written out, cells put around a map before the
activation: the alignment leaves some of these units alone, though nothing is wrong. Between two places that the sides
have in common, what lies there is run on the same values on both sides, forward and backward. Where both make the same
tensors of any values, it is compared as one unit from then on; where not, everything stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.align import Alignment, Pair
from parity.distances import TINY
from parity.errors import CannotCompare, ParityError
from parity.layers import BatchNorm, Dropout, Loss, Merge, Opaque
from parity.network import Network
from parity.runner import Local, Runner
from parity.tensors import fitted, shaped
from parity.transfer import links, transferred
from parity.units import Unit

__all__ = ["regrouped"]

Array = np.ndarray

_WIDEST = 12
"""Units of one side between two common places; what takes more of them is no spelling of the same thing."""

_EQUAL = 1e-6
"""Share of a tensor's size within which both sides' float64 results are the same; of float32 results `_NEAR`."""

_NEAR = 1e-5

_FOLDED = 1e-5
"""The same where each side has its own weights: those into which a batch normalisation was folded were rounded."""

_ENOUGH = 1 << 22
"""Entries of the largest tensor that show whether two functions are one: of more, the first images are run."""

_SIZES = (1.0, 10.0)
"""Sizes of the values that are tried, in units of what the reference has there: limits must show."""


def regrouped(
    alignment: Alignment,
    ref: Runner,
    keras: Runner,
    inputs: Mapping[str, Array],
    mode: str,
    *,
    own: bool = False,
) -> tuple[Alignment, tuple[str, ...]]:
    """The alignment with what computes the same function between two common places as one pair, and notes on it.

    Nothing is run where every unit has its partner. Where nothing trains and each side keeps its own weights, a
    convolution into which a batch normalisation was folded is such a function (cnn_imagenet_deploy.m:176-185).

    Args:
        alignment: of the two networks.
        ref: the reference's runner; no state changes.
        keras: the Keras runner, likewise.
        inputs: of the reference, as it takes them (n h w c).
        mode: `"train"` or `"eval"`.
        own: whether the Keras side keeps its own weights.
    """
    folded = own and mode == "eval"
    if not alignment.ref_only and not alignment.keras_only:
        return alignment, ()
    notes: list[str] = []
    tried: set[tuple[str, str, str, str]] = set()
    trial: _Trial | None = None
    for side in ("keras", "ref"):
        for unit in alignment.keras_only if side == "keras" else alignment.ref_only:
            lonely = alignment.keras_only if side == "keras" else alignment.ref_only
            if unit not in lonely:
                continue  # a region that was found before holds it
            for region in _Search(alignment, folded=folded).around(unit, side):
                if region.key in tried:
                    continue
                tried.add(region.key)
                trial = trial or _Trial(alignment, ref, keras, inputs, mode, folded=folded)
                if trial.alike(region):
                    alignment = _as_one(alignment, region, folded=folded)
                    notes.append(region.words)
                    break
    return alignment, tuple(notes)


@dataclass(frozen=True, eq=False)
class _Region:
    """What lies between two places that both sides have in common.

    Attributes:
        ref, keras: the units of each side, in order.
        entry: the tensor (of each side) that all of it is made of.
        exit: the tensor (of each side) that others read.
    """

    ref: tuple[Unit, ...]
    keras: tuple[Unit, ...]
    entry: tuple[str, str]
    exit: tuple[str, str]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from others."""
        return (*self.entry, *self.exit)

    @property
    def size(self) -> int:
        """How many units it has in all."""
        return len(self.ref) + len(self.keras)

    @property
    def words(self) -> str:
        """A note on it."""
        mine = " and ".join(unit.name for unit in _working(self.ref))
        theirs = " and ".join(dict.fromkeys(unit.origin for unit in _working(self.keras)))
        return (
            f"{mine} in the reference and {theirs} in Keras compute the same function of whatever they are given: "
            "they are compared as one layer."
        )


class _Search:
    """The regions around a unit that has no partner, the smallest first; `folded` ones may hold several parameters."""

    def __init__(self, alignment: Alignment, *, folded: bool = False) -> None:
        self.alignment, self.folded = alignment, folded
        self.units = {"ref": alignment.ref_units, "keras": alignment.keras_units}
        self.makers = {"ref": alignment.ref_makers, "keras": alignment.keras_makers}
        self.networks = {"ref": alignment.ref, "keras": alignment.keras}
        self.readers: dict[str, dict[str, list[Unit]]] = {"ref": {}, "keras": {}}
        for side, units in self.units.items():
            for unit in units:
                for tensor in dict.fromkeys(unit.inputs):
                    self.readers[side].setdefault(tensor, []).append(unit)
        self.entries = [(mine, theirs) for theirs, mine in alignment.inputs.items()]
        self.entries += [(pair.ref.output, pair.keras.output) for pair in alignment.pairs]

    def around(self, unit: Unit, side: str) -> list[_Region]:
        """Every region that holds a unit and can be run as one."""
        found: dict[tuple[str, str, str, str], _Region] = {}
        own = 0 if side == "ref" else 1
        for exit in self._exits():
            above = self._above(exit[own], side)
            if unit.output not in above:
                continue
            for entry in self.entries:
                if entry[own] not in above and entry[own] not in self.networks[side].inputs:
                    continue
                region = self._between(entry, exit)
                if region is not None and any(u is unit for u in (*region.ref, *region.keras)):
                    found.setdefault(region.key, region)
        return sorted(found.values(), key=lambda region: region.size)

    def _exits(self) -> Iterator[tuple[str, str]]:
        """Tensors that the sides have in common from above: what partners read, and what the networks hand out."""
        alignment = self.alignment
        for pair in alignment.pairs:
            mine, theirs = alignment.ref.data(pair.ref.inputs), alignment.keras.data(pair.keras.inputs)
            if isinstance(pair.ref.kind, Merge):
                yield from ((a, b) for a in mine for b in theirs)
            else:
                yield from zip(mine, theirs, strict=False)
        yield from zip(alignment.ref.outputs, alignment.keras.outputs, strict=False)

    def _above(self, tensor: str, side: str) -> set[str]:
        """The tensors of which `tensor` is made, itself among them, as far up as a region reaches."""
        found, waiting = {tensor}, [tensor]
        while waiting and len(found) <= 4 * _WIDEST:
            maker = self.makers[side].get(waiting.pop(0))
            for other in maker.inputs if maker else ():
                if other not in found:
                    found.add(other)
                    waiting.append(other)
        return found

    def _between(self, entry: tuple[str, str], exit: tuple[str, str]) -> _Region | None:
        """What lies between two common places; None where it is not made of the entry alone, or read elsewhere."""
        parts: list[tuple[Unit, ...]] = []
        ends: list[str] = []
        for side, start, stop in zip(("ref", "keras"), entry, exit, strict=True):
            end = self._trimmed(stop, start, side)
            inside = self._inside(start, end, side)
            if inside is None:
                return None
            parts.append(inside)
            ends.append(end)
        ref, keras = parts
        if not _working(ref) or not _working(keras):
            return None
        for pair in self.alignment.pairs:
            if any(u is pair.ref for u in ref) != any(u is pair.keras for u in keras):
                return None
        return _Region(ref, keras, entry, (ends[0], ends[1]))

    def _trimmed(self, tensor: str, start: str, side: str) -> str:
        """Without what changes nothing at the end."""
        while tensor != start and tensor in self.makers[side] and self.makers[side][tensor].optional:
            tensor = self.makers[side][tensor].inputs[0]
        return tensor

    def _inside(self, start: str, stop: str, side: str) -> tuple[Unit, ...] | None:
        makers, readers, network = self.makers[side], self.readers[side], self.networks[side]
        found: dict[str, Unit] = {}
        waiting = [stop]
        while waiting:
            tensor = waiting.pop()
            if tensor == start or tensor in found or tensor in network.labels:
                continue
            unit = makers.get(tensor)
            if unit is None or isinstance(unit.kind, Loss) or len(found) >= _WIDEST or not unit.inputs:
                return None
            if isinstance(unit.kind, BatchNorm) and not self.folded:
                return None
            if isinstance(unit.kind, Opaque) and unit.kind.runs_code:
                return None
            found[tensor] = unit
            waiting += unit.inputs
        inside = [unit for unit in self.units[side] if unit.output in found]
        for unit in inside:
            if unit.output == stop:
                continue
            if unit.output in network.outputs or any(r.output not in found for r in readers.get(unit.output, ())):
                return None
        return tuple(inside) if self.folded or sum(bool(unit.params) for unit in inside) <= 1 else None


class _Trial:
    """Runs regions on both sides.

    Args:
        alignment: of the two networks; says how parameters correspond.
        ref, keras: the runners.
        inputs: of the reference, of which a few images are run where they are large.
        mode: `"train"` or `"eval"`.
        folded: the Keras side keeps its own parameters.
    """

    def __init__(
        self, alignment: Alignment, ref: Runner, keras: Runner, inputs: Mapping[str, Array], mode: str, *, folded: bool
    ) -> None:
        self.ref, self.keras, self.mode, self.folded = ref, keras, mode, folded
        self.values = transferred(links(alignment), ref.params())
        try:
            few = _few(inputs, ref.network)
            self.seen = {**few, **ref.run(few, None, mode=mode, backward=False).outputs}
        except CannotCompare:  # what was recorded is of the whole batch
            self.seen = {**inputs, **ref.run(inputs, None, mode=mode, backward=False).outputs}

    def alike(self, region: _Region) -> bool:
        """Whether both sides make the same tensors and derivatives of any values."""
        given = self.seen.get(region.entry[0])
        if given is None:
            return False
        rng = np.random.default_rng(0)
        size = float(np.sqrt(np.mean(np.square(given, dtype=np.float64)))) or 1.0
        try:
            for factor in _SIZES:
                values = (rng.standard_normal(given.shape) * size * factor).astype(np.float32)
                if not self._equal(region, values, rng):
                    return False
            return self._equal(region, given, rng)
        except (ParityError, NotImplementedError, ValueError, KeyError, TypeError, RuntimeError, AttributeError):
            return False

    def _equal(self, region: _Region, values: Array, rng: np.random.Generator) -> bool:
        upstream = rng.standard_normal(self.seen[region.exit[0]].shape).astype(np.float32)
        masks = self._masks(region, len(values), rng)
        precision = 64
        try:
            mine, theirs = self._run(region, values, upstream, masks, 64)
        except NotImplementedError:
            precision = 32
            mine, theirs = self._run(region, values, upstream, masks, 32)
        within = _FOLDED if self.folded else _EQUAL if precision == 64 else _NEAR
        pairs = [(mine.outputs[region.exit[0]], theirs.outputs[region.exit[1]])]
        if not self.folded:  # nothing trains there, and MatConvNet's derivative in test mode is another one
            pairs.append((mine.input_grads[region.entry[0]], theirs.input_grads[region.entry[1]]))
        return all(_same(a, b, within) for a, b in pairs)

    def _run(
        self,
        region: _Region,
        values: Array,
        upstream: Array,
        masks: tuple[Mapping[str, Array], Mapping[str, Array]],
        precision: int,
    ) -> tuple[Local, Local]:
        """Both sides of a region on these values, and on this derivative of what it makes."""
        network = self.keras.network
        fed = fitted(values, network.shape_of(region.entry[1]))
        pulled = fitted(upstream, network.shape_of(region.exit[1]))
        if fed is None or pulled is None:
            raise ValueError("the sides have other shapes there")
        mine = self.ref.isolate(
            _layers(region.ref),
            {region.entry[0]: values},
            upstream={region.exit[0]: upstream},
            mode=self.mode,
            masks=masks[0],
            precision=precision,
        )
        own = {key for unit in region.keras for keys in unit.params.values() for key in keys}
        theirs = self.keras.isolate(
            _layers(region.keras),
            {region.entry[1]: fed},
            upstream={region.exit[1]: pulled},
            mode=self.mode,
            masks=masks[1],
            params=None if self.folded else {key: value for key, value in self.values.items() if key in own},
            precision=precision,
        )
        return mine, theirs

    def _masks(
        self, region: _Region, count: int, rng: np.random.Generator
    ) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
        """What the dropouts of both sides keep: the same, if they are as many; otherwise nothing is known of them."""
        mine, theirs = _dropouts(self.ref.network, region.ref), _dropouts(self.keras.network, region.keras)
        if self.mode != "train" or not (mine or theirs):
            return {}, {}
        made: tuple[dict[str, Array], dict[str, Array]] = {}, {}
        for one, other in zip(mine, theirs, strict=True):
            shape = self.seen[self.ref.network[one].output].shape[1:]
            mask = (rng.random((count, *shape)) < 0.5).astype(np.float32)
            fits = fitted(mask, self.keras.network[other].shape)
            if fits is None:
                raise ValueError("the dropouts have other shapes")
            made[0][one], made[1][other] = mask, fits
        return made


def _few(inputs: Mapping[str, Array], network: Network) -> Mapping[str, Array]:
    """As many images of the inputs as it takes, two at least: a batch normalisation needs more than one."""
    shapes = (layer.shape for layer in network.layers)
    known = [math.prod(extents) for shape in shapes if shape and (extents := [n for n in shape if n])]
    largest = max([*known, *(value[:1].size for value in inputs.values())], default=1)
    count = max(2, _ENOUGH // max(1, largest))
    lengths = {len(value) for value in inputs.values()}
    return {name: value[:count] for name, value in inputs.items()} if len(lengths) == 1 else inputs


def _dropouts(network: Network, units: Sequence[Unit]) -> list[str]:
    return [name for name in _layers(units) if isinstance(network[name].kind, Dropout)]


def _layers(units: Sequence[Unit]) -> tuple[str, ...]:
    return tuple(name for unit in units for name in unit.layers)


def _same(expected: Array, actual: Array, within: float) -> bool:
    fits = shaped(actual, expected.shape)
    if fits is None:
        return False
    with np.errstate(all="ignore"):
        gap = np.abs(fits.astype(np.float64) - expected)
    gap = np.where(np.isnan(fits) & np.isnan(expected), 0.0, gap)
    scale = float(np.sqrt(np.nanmean(np.square(expected, dtype=np.float64)))) if expected.size else 0.0
    return bool(np.isfinite(gap).all() and gap.max(initial=0.0) <= within * max(scale, TINY))


def _working(units: Sequence[Unit]) -> list[Unit]:
    """Those that change a value."""
    return [unit for unit in units if not unit.optional]


def _as_one(alignment: Alignment, region: _Region, *, folded: bool) -> Alignment:
    """The alignment with a region's units as one pair; `folded` parameters have no counterparts, one by one."""
    mine, gone = _joined(region.ref, region.entry[0], region.exit[0], alignment.ref)
    theirs, lost = _joined(region.keras, region.entry[1], region.exit[1], alignment.keras)
    if folded:
        mine, theirs = replace(mine, params={}), replace(theirs, params={})
    ref_units = _instead(alignment.ref_units, gone, mine)
    places = {unit.output: i for i, unit in enumerate(ref_units)}
    left = [pair for pair in alignment.pairs if pair.ref not in gone and pair.keras not in lost]
    return replace(
        alignment,
        pairs=tuple(sorted([*left, Pair(mine, theirs)], key=lambda pair: places[pair.ref.output])),
        ref_only=tuple(unit for unit in alignment.ref_only if unit not in gone),
        keras_only=tuple(unit for unit in alignment.keras_only if unit not in lost),
        ref_units=ref_units,
        keras_units=_instead(alignment.keras_units, lost, theirs),
    )


def _instead(units: Sequence[Unit], gone: Sequence[Unit], one: Unit) -> tuple[Unit, ...]:
    """One unit in the place of several: where the last of them stood."""
    return tuple(one if unit is gone[-1] else unit for unit in units if unit is gone[-1] or unit not in gone)


def _joined(units: Sequence[Unit], entry: str, exit: str, network: Network) -> tuple[Unit, Sequence[Unit]]:
    """Several units as one, and which it stands for; one that works alone stays what it is."""
    working = _working(units)
    if len(working) == 1:
        return working[0], working
    last = next(unit for unit in units if unit.output == exit)
    known_by = next((unit for unit in units if unit.params), last)
    joined = replace(
        last,
        name=known_by.name,
        origin=known_by.origin,
        kind=Opaque(type=" and ".join(unit.kind.name.lower() for unit in working)),
        layers=_layers(units),
        inputs=(entry,),
        params=known_by.params,
        fed=network.shape_of(entry),
        optional=False,
    )
    return joined, units
