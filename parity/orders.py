"""Hidden channels that the Keras file has in another order than the reference, undone where nothing else depends on it.

A network computes the same whatever the order of its hidden channels: filters and all that belongs to them (biases,
normalisations) may be permuted if whatever reads them is permuted alike. Files that went through another framework, or
weights that were matched, pruned or sorted, come so. An order is undone only where every reader follows it; one that a
reader does not follow is left as it is, since it changes what the network computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.align import Alignment, Pair
from parity.layers import Activation, BatchNorm, Concat, Conv, Crop, Dense, Dropout, Identity, Merge, Pad, Pool, Scale
from parity.transfer import Link

__all__ = ["Orders", "hidden_orders", "matched", "row_order"]

Array = np.ndarray

_CHANNELWISE = (Activation, Pool, Dropout, Pad, Crop, Identity)
"""Kinds that make each channel of one channel, each in the same way."""

_NEARER = 0.5
"""What was permuted must be nearer by this factor than what was not for the order to be believed."""

_ASSIGNABLE = 1024
"""Channels for which the assignment of least distance is still a matter of a second; it grows with their cube."""


@dataclass(frozen=True, eq=False)
class Orders:
    """What was put back.

    Attributes:
        values: Keras id → the file's own value with its channels in the reference's order, of those that were moved.
        layers: the reference's layers whose channels Keras makes in another order.
    """

    values: Mapping[str, Array] = field(default_factory=dict)
    layers: tuple[str, ...] = ()


def hidden_orders(
    alignment: Alignment, links: Sequence[Link], expected: Mapping[str, Array], held: Mapping[str, Array]
) -> Orders:
    """The orders of hidden channels that change nothing, and the values without them.

    Args:
        alignment: who is whose partner.
        links: of every parameter.
        expected: Keras id → the reference's values in the Keras layout.
        held: Keras id → the Keras file's own values.
    """
    if alignment.ref_only or alignment.keras_only:
        return Orders()
    search = _Search(alignment, links, expected, held)
    while search.stuck():
        pass
    layers = tuple(name for name, order in search.made.items() if order is not None)
    return Orders(search.values, layers) if layers else Orders()


def matched(mine: Array, theirs: Array) -> Array | None:
    """The order in which rows of `mine` are those of `theirs` (both n × m); None where it is the order they have.

    Exact equality is looked for first; else the assignment of least distance counts, if it brings the rows much nearer
    than they are as they stand.
    """
    count = len(mine)
    if count < 2 or mine.shape != theirs.shape or not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        return None
    apart = _gap(mine, theirs)
    if apart <= 1e-6:
        return None
    order = row_order(mine, theirs)
    if _gap(mine[order], theirs) > 1e-6:
        if count > _ASSIGNABLE:
            return None
        order = _assigned(mine, theirs)
    if np.array_equal(order, np.arange(count)) or _gap(mine[order], theirs) > _NEARER * apart:
        return None
    return order


def _gap(mine: Array, theirs: Array) -> float:
    """Their distance, relative to the size of `theirs`."""
    size = float(np.linalg.norm(theirs))
    return float(np.linalg.norm(mine - theirs)) / size if size > 0 else float(np.any(mine))


def row_order(mine: Array, theirs: Array) -> Array:
    """The order in which rows of `mine` would be those of `theirs` (both n × m) if each has its equal there.

    Rows are told apart by a projection; whether they are equal is for the caller to see.
    """
    along = np.random.default_rng(0).standard_normal(mine.shape[1])
    order = np.empty(len(mine), np.int64)
    order[np.argsort(theirs @ along, kind="stable")] = np.argsort(mine @ along, kind="stable")
    return order


def _assigned(mine: Array, theirs: Array) -> Array:
    """The order of least squared distance (Kuhn 1955, the Hungarian method)."""
    from scipy.optimize import linear_sum_assignment

    if mine.shape[1] > 64:
        onto = np.random.default_rng(0).standard_normal((mine.shape[1], 64))
        mine, theirs = mine @ onto, theirs @ onto
    cost = (theirs**2).sum(axis=1)[:, None] + (mine**2).sum(axis=1)[None, :] - 2 * theirs @ mine.T
    return np.asarray(linear_sum_assignment(cost)[1])


@dataclass(frozen=True, eq=False)
class _Channels:
    """A Keras tensor's channels: its channel k is the reference's order[k]; `makers` are the layers that moved them."""

    order: Array | None = None
    makers: frozenset[str] = frozenset()


_AS_THEY_ARE = _Channels()


class _Search:
    """One walk after another from the inputs to the losses, until no reader is left that does not follow an order."""

    def __init__(
        self, alignment: Alignment, links: Sequence[Link], expected: Mapping[str, Array], held: Mapping[str, Array]
    ) -> None:
        self.alignment, self.expected, self.held = alignment, expected, held
        users = Counter(key for pair in alignment.pairs for keys in pair.keras.params.values() for key in keys)
        self.links: dict[str, dict[str, Link]] = {}
        self.fixed: set[str] = set()
        for link in links:
            if link.keras:  # what Keras lacks has no order there
                self.links.setdefault(link.pair.ref.name, {})[link.role] = link
        for pair in alignment.pairs:
            own = [key for keys in pair.keras.params.values() for key in keys]
            pieces = any(len(keys) > 1 for keys in pair.keras.params.values())
            strange = any(k not in expected or k not in held or expected[k].shape != held[k].shape for k in own)
            turned = pair.ref.rows or pair.keras.rows
            if pieces or strange or turned or any(users[key] > 1 for key in own):
                self.fixed.add(pair.ref.name)
        self.barred: set[str] = set()
        self.values: dict[str, Array] = {}
        self.made: dict[str, Array | None] = {}

    def stuck(self) -> bool:
        """Walk once; whether a reader did not follow, so that another walk is needed without those orders."""
        self.values, self.made = {}, {}
        channels: dict[str, _Channels] = {}
        for pair in self.alignment.pairs:
            read = [self._read(tensor, channels) for tensor in self._inputs(pair)]
            made = self._through(pair, read)
            if made is None:
                return self._bar(frozenset().union(*(c.makers for c in read)))
            channels[pair.keras.output] = made
        for tensor in self.alignment.keras.outputs:
            ends = self._read(tensor, channels)
            if ends.order is not None:
                return self._bar(ends.makers)
        return False

    def _bar(self, makers: frozenset[str]) -> bool:
        """Leave these layers' orders as they are from now on; whether that is news."""
        news = bool(makers - self.barred)
        self.barred |= makers
        if not news:
            self.values, self.made = {}, {}
        return news

    def _inputs(self, pair: Pair) -> tuple[str, ...]:
        return tuple(self.alignment.keras.data(pair.keras.inputs))

    def _read(self, tensor: str, channels: Mapping[str, _Channels]) -> _Channels:
        return channels.get(self.alignment.source(tensor, "keras"), _AS_THEY_ARE)

    def _through(self, pair: Pair, read: Sequence[_Channels]) -> _Channels | None:
        """What a layer makes of such channels; None where it does not follow their order."""
        kind = pair.keras.kind
        moved = any(c.order is not None for c in read)
        if pair.ref.name in self.fixed:
            return None if moved else _AS_THEY_ARE
        if isinstance(kind, Conv | Dense) and "kernel" in self.links.get(pair.ref.name, {}):
            return self._filtered(pair, read[0] if read else _AS_THEY_ARE)
        if not moved:
            return _AS_THEY_ARE
        makers = frozenset().union(*(c.makers for c in read))
        if isinstance(kind, BatchNorm | Scale) and len(read) == 1:
            return read[0] if self._vectors(pair, read[0].order) else None
        if isinstance(kind, Merge):
            first, *others = (c.order for c in read)
            same = first is not None and all(o is not None and np.array_equal(o, first) for o in others)
            return _Channels(first, makers) if same else None
        if isinstance(kind, Concat):
            return self._joined(pair, read, makers)
        if isinstance(kind, _CHANNELWISE) and len(read) == 1 and not pair.keras.params:
            return read[0]
        return None

    def _joined(self, pair: Pair, read: Sequence[_Channels], makers: frozenset[str]) -> _Channels | None:
        shapes = [self.alignment.keras.shape_of(tensor) for tensor in self._inputs(pair)]
        parts: list[Array] = []
        start = 0
        for channels, shape in zip(read, shapes, strict=True):
            width = shape[-1] if shape else None
            if width is None or (channels.order is not None and len(channels.order) != width):
                return None
            parts.append(start + (np.arange(width) if channels.order is None else channels.order))
            start += width
        whole = pair.keras.shape
        return _Channels(np.concatenate(parts), makers) if whole and whole[-1] == start else None

    # ------------------------------------------------------------------------------------------------------ parameters

    def _vectors(self, pair: Pair, order: Array | None) -> bool:
        """Whether a layer's vectors follow an order; they are put back if they do."""
        if order is None:
            return True
        back = np.argsort(order)
        mine, plain, put = 0.0, 0.0, {}
        for link in self.links.get(pair.ref.name, {}).values():
            wanted, held = self.expected[link.keras], self.held[link.keras]
            if held.shape[-1:] != (len(order),):
                return False
            put[link.keras] = held[..., back]
            mine += _gap(put[link.keras].astype(np.float64), wanted)
            plain += _gap(held.astype(np.float64), wanted)
        if mine > 1e-6 and mine > _NEARER * plain:
            return False
        self.values |= put
        return True

    def _filtered(self, pair: Pair, read: _Channels) -> _Channels | None:
        """Filters: they must read in the order of their input; what they make may have an order of its own."""
        links = self.links[pair.ref.name]
        wanted, held = (v[links["kernel"].keras] for v in (self.expected, self.held))
        bias = links.get("bias")
        vectors = [v[bias.keras] if bias else None for v in (self.expected, self.held)]
        if read.order is None and all(
            np.array_equal(self.expected[i.keras], self.held[i.keras]) for i in links.values()
        ):
            return _AS_THEY_ARE
        groups = max(int(getattr(pair.keras.kind, "groups", 1)), 1)
        if wanted.ndim < 2 or self._depthwise(links["kernel"]) or wanted.shape[-1] % groups:
            return None if read.order is not None else _AS_THEY_ARE
        rows = _rows(read.order, wanted.shape[-2] * groups)
        if rows is None:
            return None
        found = self._grouped(wanted, held, rows, groups, vectors)
        if found is None:
            return None
        if read.order is not None:
            plain = self._grouped(wanted, held, np.arange(len(rows)), groups, vectors)
            exact = _gap(found[0], wanted) <= 1e-6
            if not exact and plain is not None and _gap(found[0], wanted) > _NEARER * _gap(plain[0], wanted):
                return None
        if pair.ref.name in self.barred:
            found = self._grouped(wanted, held, rows, groups, vectors, free=False)
        back, order = found or (held, np.arange(held.shape[-1]))
        moved = not np.array_equal(order, np.arange(len(order)))
        if moved and pair.ref.name in self.barred:
            return None  # groups change places with what they read, which whoever reads them does not follow
        if read.order is None and not moved:
            return _AS_THEY_ARE
        self.values[links["kernel"].keras] = back.astype(self.held[links["kernel"].keras].dtype)
        for role, link in links.items():
            own = self.held[link.keras]
            if role != "kernel" and own.shape[-1:] == (len(order),):
                self.values[link.keras] = own[..., np.argsort(order)]
        self.made[pair.ref.name] = order if moved else None
        return _Channels(order, frozenset({pair.ref.name})) if moved else _AS_THEY_ARE

    def _depthwise(self, link: Link) -> bool:
        return self.alignment.keras.params[link.keras].axes.endswith("c m")

    @staticmethod
    def _grouped(
        wanted: Array, held: Array, rows: Array, groups: int, vectors: Sequence[Array | None], free: bool = True
    ) -> tuple[Array, Array] | None:
        """The kernel with its channels put back, and the order of what it makes; None where groups are torn apart."""
        depth, each = wanted.shape[-2], wanted.shape[-1] // groups
        back, order = np.empty_like(held), np.empty(wanted.shape[-1], np.int64)
        for group in range(groups):
            block = rows[group * depth : (group + 1) * depth]
            source = int(block[0]) // depth
            if not (block // depth == source).all():
                return None
            mine = wanted[..., source * each : (source + 1) * each]
            theirs = np.empty_like(mine)
            theirs[..., block % depth, :] = held[..., group * each : (group + 1) * each]
            found = None
            if free:
                pieces = [v.reshape(-1, each).T for v in (mine, theirs)]
                if vectors[0] is not None and vectors[1] is not None and vectors[0].shape == wanted.shape[-1:]:
                    beside = vectors[0][source * each :][:each, None], vectors[1][group * each :][:each, None]
                    joint = matched(*(np.hstack(both) for both in zip(pieces, beside, strict=True)))
                    found = joint if joint is not None else matched(*pieces)
                else:
                    found = matched(*pieces)
            found = np.arange(each) if found is None else found
            back[..., source * each + found] = theirs
            order[group * each : (group + 1) * each] = source * each + found
        return back, order


def _rows(order: Array | None, depth: int) -> Array | None:
    """The order of a kernel's input rows: that of the channels, repeated at each place of a map that was flattened."""
    if order is None:
        return np.arange(depth)
    places, rest = divmod(depth, len(order))
    if rest:
        return None
    return (np.arange(places)[:, None] * len(order) + order).ravel()
