"""Which layer of one network is which layer of the other.

Each network is first read as a graph of *units*: one layer, or a few that together do what the other side may do in one
(zero padding and a valid convolution; slices, convolutions and a concatenation that make a grouped convolution; softmax
and cross-entropy). The units of both sides are then paired by topology, kind, fields, shapes and names. What only moves
values about (flatten, reshape), or does nothing in this mode (dropout in eval mode), may stay alone; any other unit
without a partner is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from parity.anchors import anchored, portrait
from parity.errors import BadUsage, CannotCompare
from parity.feeds import data_inputs, matched_inputs
from parity.layers import ConvTranspose, Crop, Loss, Merge, Softmax
from parity.layers.endings import apart_on_both, is_softmax_loss, looked_through
from parity.matching import follow, given_names, is_linear, likeness, pairing, stands_in, with_neighbours, yielding
from parity.network import Layer, Network
from parity.separating import in_one_on_the_other
from parity.units import Unit, units

__all__ = ["Alignment", "Map", "Pair", "align", "readers"]

_NEAR = 2
"""Past how many units with parameters a layer without any may have been moved: a convolution and its normalisation."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A unit of the reference and its partner in Keras."""

    ref: Unit
    keras: Unit


@dataclass(frozen=True)
class Map:
    """What a map file says: reference layer → Keras layer, and layers to leave out on either side."""

    layers: Mapping[str, str] = field(default_factory=dict)
    ignore_ref: tuple[str, ...] = ()
    ignore_keras: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Alignment:
    """The pairs, in the reference's order, and what found no partner.

    Attributes:
        pairs: in the reference's topological order.
        ref_only, keras_only: units without a partner that do change values.
        ref_units, keras_units: every unit of each side, in order.
        ref, keras: the networks.
    """

    pairs: tuple[Pair, ...]
    ref_only: tuple[Unit, ...]
    keras_only: tuple[Unit, ...]
    ref_units: tuple[Unit, ...]
    keras_units: tuple[Unit, ...]
    ref: Network
    keras: Network

    @cached_property
    def by_ref(self) -> Mapping[str, Pair]:
        """Output tensor of the reference's unit → pair."""
        return {pair.ref.output: pair for pair in self.pairs}

    @cached_property
    def by_keras(self) -> Mapping[str, Pair]:
        """Output tensor of the Keras unit → pair."""
        return {pair.keras.output: pair for pair in self.pairs}

    @cached_property
    def ref_makers(self) -> Mapping[str, Unit]:
        """Output tensor → the reference's unit that makes it, with or without a partner."""
        return {unit.output: unit for unit in self.ref_units}

    @cached_property
    def keras_makers(self) -> Mapping[str, Unit]:
        """Output tensor → the Keras unit that makes it, with or without a partner."""
        return {unit.output: unit for unit in self.keras_units}

    @cached_property
    def moved(self) -> tuple[tuple[Unit, Unit], ...]:
        """Units of both sides that stay alone and would be partners if they stood at the same place."""
        found: list[tuple[Unit, Unit]] = []
        left = [unit for unit in self.keras_only if not unit.between]
        for unit in self.ref_only:
            near = [o for o in left if self._near(unit, o)]
            other = next((o for o in near if o.core == unit.core and o.kind == unit.kind), None)
            other = other or next((o for o in near if portrait(o) == portrait(unit)), None)
            other = other or next((o for o in near if stands_in(unit, o)), None)
            if other is not None:
                found.append((unit, other))
                left = [o for o in left if o is not other]
        return tuple(found)

    def _near(self, unit: Unit, other: Unit) -> bool:
        """Whether two units without a partner may be one and the same at another place.

        One relu looks like another: where blocks lie between them, one is missing here and one too many there.
        """
        if unit.params or unit.name == other.name:
            return True
        mine = self._passed(unit, self.ref_units, {pair.ref.name for pair in self.pairs if pair.ref.params})
        theirs = self._passed(other, self.keras_units, {pair.keras.name for pair in self.pairs if pair.ref.params})
        return abs(mine - theirs) <= _NEAR

    @staticmethod
    def _passed(unit: Unit, units: Sequence[Unit], paired: Set[str]) -> int:
        """How many units with parameters, of those that have a partner, run before one."""
        place = next(i for i, each in enumerate(units) if each is unit)
        return sum(each.name in paired for each in units[:place])

    def hidden(self, unit: Unit) -> bool:
        """Whether a unit of the reference without a partner may be among operations that nobody sees.

        These are the operations between the layers of a model in code. Nothing in them has parameters.
        """
        alone = any(unit is other for other in self.ref_only)
        return alone and not unit.params and any(other.between for other in self.keras_units)

    @cached_property
    def has_loss(self) -> bool:
        """Whether a loss of one side has its partner on the other."""
        return any(isinstance(pair.ref.kind, Loss) for pair in self.pairs)

    def source(self, tensor: str, side: str) -> str:
        """The nearest tensor at or above `tensor` that a paired unit (or the network's input) makes.

        Units without a partner are looked through along their first input.
        """
        makers = self.ref_makers if side == "ref" else self.keras_makers
        paired = self.by_ref if side == "ref" else self.by_keras
        seen: set[str] = set()
        while tensor in makers and tensor not in paired and tensor not in seen:
            seen.add(tensor)
            unit = makers[tensor]
            if not unit.inputs:
                break
            tensor = unit.inputs[0]
        return tensor

    def origins(self, tensor: str, side: str) -> frozenset[str]:
        """The nearest tensors above `tensor` that paired units (or the network's inputs) make, through every input.

        One alone, unless a unit without a partner that joins several lies between.
        """
        makers = self.ref_makers if side == "ref" else self.keras_makers
        paired = self.by_ref if side == "ref" else self.by_keras
        found: set[str] = set()
        waiting, seen = [tensor], {tensor}
        while waiting:
            name = waiting.pop()
            inputs = makers[name].inputs if name in makers and name not in paired else ()
            if not inputs:
                found.add(name)
            waiting += [other for other in inputs if other not in seen]
            seen.update(inputs)
        return frozenset(found)

    def counterpart(self, keras_tensor: str) -> str | None:
        """The reference's tensor that holds what this Keras tensor should hold; None where nothing is known of it."""
        source = self.source(keras_tensor, "keras")
        if source in self.by_keras:
            return self.by_keras[source].ref.output
        return self.inputs.get(source)

    @cached_property
    def inputs(self) -> Mapping[str, str]:
        """Keras input tensor → reference input tensor."""
        return matched_inputs(data_inputs(self.ref), data_inputs(self.keras))

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """The reference's label tensor → the Keras one, of losses that are partners."""
        losses = [pair for pair in self.pairs if isinstance(pair.ref.kind, Loss)]
        named = (
            (self.ref.label_of(self.ref[p.ref.layers[-1]]), self.keras.label_of(self.keras[p.keras.layers[-1]]))
            for p in losses
        )
        return {mine: theirs for mine, theirs in named if mine and theirs}

    def summed_alike(self, source: str, other: str) -> bool:
        """Whether as many units add to the gradient of a tensor of the reference as to that of a Keras tensor."""
        if all(len(n.consumers.get(t, ())) < 2 for n, t in ((self.ref, source), (self.keras, other))):
            return True
        mine, theirs = readers(self.ref, self.ref_units, source), readers(self.keras, self.keras_units, other)
        return len(mine) == len(theirs)

    def feeds(self, pair: Pair) -> tuple[dict[str, str], bool]:
        """Keras input tensor → the reference's tensor to put there, and whether the wiring agrees.

        The wiring agrees where both units read what partners made. Then the reference's own direct input is fed (it may
        have passed through a layer that has no partner, whose absence is reported at that layer and nowhere else).
        """
        wired = True
        feeds: dict[str, str] = {}
        ref_inputs, keras_inputs = self.ref.data(pair.ref.inputs), self.keras.data(pair.keras.inputs)
        if not keras_inputs and pair.keras.between:
            return feeds, True  # what operations outside of layers read is not known
        expected = {t: self.origins(t, "ref") for t in ref_inputs}
        commutative = isinstance(pair.ref.kind, Merge) and pair.ref.kind.operation not in ("subtract",)
        free = list(ref_inputs)
        for index, tensor in enumerate(keras_inputs):
            found = self.counterpart(tensor)
            known = {self.counterpart(t) for t in self.origins(tensor, "keras")} - {None}
            candidates = free if commutative else ref_inputs[index : index + 1]
            match = next((t for t in candidates if expected[t] & known), None)
            if match is None and tensor not in feeds:
                makers = (self.keras_makers.get(t) for t in self.origins(tensor, "keras"))
                wired &= any(maker is not None and maker.between for maker in makers)  # then nobody knows
                if found is None:
                    found = ref_inputs[index] if index < len(ref_inputs) else None
                if found is not None:
                    feeds[tensor] = found
                continue
            if match is not None:
                if match in free:
                    free.remove(match)
                feeds[tensor] = match
        if len(set(keras_inputs)) != len(set(ref_inputs)) and len(keras_inputs) != len(ref_inputs):
            wired = False
        return feeds, wired


def readers(network: Network, units: Sequence[Unit], tensor: str) -> list[Unit]:
    """The units that add to a tensor's gradient: those that read it, but for metrics."""
    losses = {layer.name for layer in network.losses}
    found = [unit for unit in units if tensor in unit.inputs]
    return [unit for unit in found if not isinstance(unit.kind, Loss) or not losses.isdisjoint(unit.layers)]


def align(
    ref: Network, keras: Network, mode: str = "train", mapping: Map | None = None, *, labelled: bool = True
) -> Alignment:
    """Pair the layers of two networks.

    Args:
        ref: the reference's network.
        keras: the Keras network.
        mode: `"train"` or `"eval"`.
        mapping: pairs that the user fixes, and layers to leave out.
        labelled: False leaves losses out: there are no labels to compute them with.

    Raises:
        CannotCompare: no layer of one has a partner in the other.
        BadUsage: the map names a layer that does not exist.
    """
    both = labelled and bool(ref.losses) and bool(keras.losses)
    alone, through = apart_on_both(ref, keras), looked_through(ref, keras)
    crops = _crops_on_both(ref, keras)
    separable = in_one_on_the_other(ref, keras, mode)
    left, right = (
        units(
            own, mode, join_loss=both, with_loss=both, with_softmax=_hold_softmax(other), apart=alone[i] | crops[i],
            through=through[i], separable=separable[i],
        )
        for i, (own, other) in enumerate(((ref, keras), (keras, ref)))
    )  # fmt: skip
    if not both:
        left, right = _ending_alike(left, right, keras), _ending_alike(right, left, ref)
    forced = _forced(left, right, mapping or Map())
    all_left, all_right = left, right
    left = tuple(u for u in left if u.name not in forced.drop_ref)
    right = tuple(u for u in right if u.name not in forced.drop_keras)
    score = likeness(left, right, ref, keras)
    if not (is_linear(left) and is_linear(right)):
        score = with_neighbours(score, left, right)
        names = given_names(left, ref), given_names(right, keras)
        score = anchored(score, left, right, matched_inputs(data_inputs(ref), data_inputs(keras)), names)
        left, score = yielding(left, right, score)
        right, score = follow(left, right, score)
    for i, j in forced.indices(left, right):
        score[i, :] = -np.inf
        score[:, j] = -np.inf
        score[i, j] = 100.0
    chosen = pairing(score, [u.optional for u in left], [u.optional for u in right])
    pairs = tuple(Pair(left[i], right[j]) for i, j in chosen)
    taken_left, taken_right = {i for i, _ in chosen}, {j for _, j in chosen}
    if not any(not p.ref.optional for p in pairs):
        some = ", ".join(u.name for u in left[:4])
        others = ", ".join(u.origin for u in right[:4])
        raise CannotCompare(
            f"no layer of the reference ({some} …) has a partner in the Keras model ({others} …); "
            "check that the two files belong together, or pair layers with --map"
        )
    return Alignment(
        pairs=pairs,
        ref_only=tuple(u for i, u in enumerate(left) if i not in taken_left and not u.optional),
        keras_only=tuple(u for j, u in enumerate(right) if j not in taken_right and not u.optional),
        ref_units=all_left,
        keras_units=all_right,
        ref=ref,
        keras=keras,
    )


def _hold_softmax(network: Network) -> bool:
    """Whether every loss of a network is the cross-entropy of a softmax, however it is written."""
    return bool(network.losses) and all(is_softmax_loss(network, layer) for layer in network.losses)


def _crops_on_both(ref: Network, keras: Network) -> tuple[frozenset[str], frozenset[str]]:
    """The crops of each side, by name, that stand behind transposed convolutions which make maps of one size.

    A transposed convolution may crop by itself; but where both sides cut the same map behind it, that is a layer of
    its own on both.
    """
    cuts = [
        [(layer.name, network.shape_of(layer.inputs[0])) for layer in network if _cuts_upsampled(network, layer)]
        for network in (ref, keras)
    ]
    if len(cuts[0]) != len(cuts[1]):
        return frozenset(), frozenset()
    alike = [(a[0], b[0]) for a, b in zip(*cuts, strict=True) if a[1] is not None and a[1] == b[1]]
    return frozenset(a for a, _ in alike), frozenset(b for _, b in alike)


def _cuts_upsampled(network: Network, layer: Layer) -> bool:
    before = network.producers.get(layer.inputs[0]) if isinstance(layer.kind, Crop) else None
    return before is not None and isinstance(before.kind, ConvTranspose)


def _ending_alike(own: tuple[Unit, ...], others: tuple[Unit, ...], theirs: Network) -> tuple[Unit, ...]:
    """One side's units where losses are left out: a softmax at its end may stay alone if the other's loss holds it."""
    inside = any(isinstance(layer.kind, Loss) and layer.kind.function == "softmaxlog" for layer in theirs)
    if not inside or any(isinstance(unit.kind, Softmax) for unit in others):
        return own

    def last(tensor: str) -> bool:
        """Whether nothing behind it changes a value."""
        readers = [unit for unit in own if tensor in unit.inputs and not isinstance(unit.kind, Loss)]
        return all(unit.optional and last(unit.output) for unit in readers)

    return tuple(
        replace(unit, optional=True) if isinstance(unit.kind, Softmax) and last(unit.output) else unit for unit in own
    )


@dataclass(frozen=True)
class _Forced:
    pairs: Mapping[str, str]
    drop_ref: frozenset[str]
    drop_keras: frozenset[str]

    def indices(self, left: Sequence[Unit], right: Sequence[Unit]) -> list[tuple[int, int]]:
        rows = {u.name: i for i, u in enumerate(left)}
        columns = {u.name: j for j, u in enumerate(right)}
        return [(rows[a], columns[b]) for a, b in self.pairs.items()]


def _forced(left: Sequence[Unit], right: Sequence[Unit], mapping: Map) -> _Forced:
    def find(side: Sequence[Unit], name: str, what: str) -> str:
        exact = [u for u in side if u.name == name]
        found = exact or [u for u in side if name in u.layers] or [u for u in side if u.origin == name]
        if not found:
            known = ", ".join(dict.fromkeys(u.name for u in side))
            raise BadUsage(f"the map names {what} layer {name!r}, which does not exist; there are: {known}")
        return found[0].name

    pairs = {find(left, a, "reference"): find(right, b, "Keras") for a, b in mapping.layers.items()}
    if len(set(pairs.values())) < len(pairs):
        raise BadUsage("the map gives two reference layers the same Keras layer; each can have one partner")
    return _Forced(
        pairs,
        frozenset(find(left, a, "reference") for a in mapping.ignore_ref),
        frozenset(find(right, b, "Keras") for b in mapping.ignore_keras),
    )
