"""Which layers of a network do together what the other side may do in one, and what that is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import pairwise

from parity.formulas import formula_words, formulas
from parity.layers import (
    Concat,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    Flatten,
    Identity,
    Kind,
    Loss,
    Opaque,
    Pad,
    Pool,
    Reshape,
    SeparableConv,
    Slice,
    Softmax,
    Split,
)
from parity.layers.endings import activation_behind, softmax_behind
from parity.network import Layer, Network
from parity.separating import joined_with

__all__ = ["Grouping", "order_of"]


class Grouping:
    """Which layers join the unit of which other layer."""

    def __init__(
        self,
        network: Network,
        mode: str,
        *,
        join_loss: bool,
        with_softmax: bool,
        apart: Collection[str],
        through: Collection[str],
        separable: Collection[str],
    ) -> None:
        self.network, self.mode, self.with_softmax, self.through = network, mode, with_softmax, through
        self.members: dict[str, tuple[str, ...]] = {}
        self.kinds: dict[str, Kind] = {}
        self.absorbed: set[str] = set()
        self.rows: dict[str, tuple[int, ...]] = {}
        for layer in network:
            if isinstance(layer.kind, Conv | Pool):
                self._padding(layer)
                if layer.name in separable:
                    self._pointwise(layer)
            elif isinstance(layer.kind, Crop) and layer.name not in apart:
                self._cropping(layer)
            elif isinstance(layer.kind, Dense):
                self._turning(layer)
            elif isinstance(layer.kind, Opaque):
                self._bias(layer)
        for last, members in formulas(network).items():
            if self.absorbed.isdisjoint(members):
                self._take(network[last], members, Opaque(formula_words(network[name] for name in members)))
        for layer in network:
            if isinstance(layer.kind, Concat):
                self._split_convolution(layer)
            elif isinstance(layer.kind, Loss) and join_loss and layer.name not in apart:
                self._softmax_loss(layer)

    def _producer(self, tensor: str) -> Layer | None:
        """The layer that makes `tensor`, if it makes it for one reader only."""
        layer = self.network.producers.get(tensor)
        if layer is None or len(self.network.consumers.get(tensor, ())) != 1 or layer.name in self.absorbed:
            return None
        return layer

    def _take(self, layer: Layer, members: Iterable[str], kind: Kind) -> None:
        members = tuple(members)
        self.members[layer.name] = members
        self.kinds[layer.name] = kind
        self.absorbed.update(m for m in members if m != layer.name)

    def _padding(self, layer: Layer) -> None:
        padded, kind = self._zeros_before(layer.inputs[0], {layer.name}, layer.kind)
        if padded:
            self._take(layer, (*padded, layer.name), kind)

    def _pointwise(self, layer: Layer) -> None:
        """A convolution of single cells behind one that has a group for each channel: a separable one."""
        found = joined_with(self.network, layer, self.mode)
        if not found or found[0].name in self.absorbed or layer.name in self.members:
            return
        before, *idle = found
        deep, kind = self.kinds.pop(before.name, before.kind), layer.kind
        assert isinstance(deep, Conv)
        assert isinstance(kind, Conv)
        inside = self.members.pop(before.name, (before.name,))
        members = (*inside, *(between.name for between in idle), layer.name)
        self._take(layer, members, SeparableConv.of(deep, kind))

    def _cropping(self, layer: Layer) -> None:
        """A transposed convolution whose map is cropped right behind it crops by itself."""
        before, crop = self._producer(layer.inputs[0]), layer.kind
        if before is None or not isinstance(before.kind, ConvTranspose) or not isinstance(crop, Crop):
            return
        if crop.crop is None or len(crop.crop) != len(before.kind.crop):
            return
        cells = tuple(a + b for a, b in zip(before.kind.crop, crop.crop, strict=True))
        self._take(layer, (before.name, layer.name), replace(before.kind, crop=cells))

    def _turning(self, layer: Layer) -> None:
        """A map that is turned before it is flattened: the rows of the dense layer go through it in another order.

        So a port keeps the order in which MATLAB goes through a map, by columns.
        """
        between: list[str] = []
        before = self._producer(layer.inputs[0])
        while before is not None and isinstance(before.kind, Flatten | Reshape | Identity):
            between.insert(0, before.name)
            flat, before = before, self._producer(before.inputs[0])
            if len(flat.shape or (0, 0)) != 1 and not isinstance(flat.kind, Identity):
                return
        order = () if before is None else order_of(before, flat=not between)
        if before is None or not order:
            return
        shape = self.network.shape_of(before.inputs[0])
        if shape is None or len(shape) != 3 or None in shape:
            return
        self.rows[layer.name] = order
        self._take(layer, (before.name, *between, layer.name), layer.kind)

    def _bias(self, layer: Layer) -> None:
        """A class of the user's that is called a bias and holds nothing else, behind a layer of filters without one."""
        before, kind = self._producer(layer.inputs[0]) if len(layer.inputs) == 1 else None, layer.kind
        if not (isinstance(kind, Opaque) and "bias" in kind.type.lower() and set(layer.params) == {"bias"}):
            return
        if before is None or not isinstance(before.kind, Conv | ConvTranspose | Dense) or "bias" in before.params:
            return
        if before.shape == layer.shape and self.network.params[layer.params["bias"]].shape == (layer.shape or ())[-1:]:
            inside = self.members.pop(before.name, (before.name,))
            self._take(layer, (*inside, layer.name), replace(self.kinds.pop(before.name, before.kind), bias=True))

    def _zeros_before(self, tensor: str, readers: set[str], kind: Kind) -> tuple[tuple[str, ...], Kind]:
        """A zero padding that only `readers` read, and `kind` with its cells; nothing where there is none."""
        before = self.network.producers.get(tensor)
        if before is None or not isinstance(before.kind, Pad) or before.kind.value != 0 or before.name in self.absorbed:
            return (), kind
        if {reader.name for reader in self.network.consumers.get(tensor, ())} != readers:
            return (), kind
        if not isinstance(kind, Conv | Pool) or kind.pad is None or len(kind.pad) != len(before.kind.pad):
            return (), kind
        pad = tuple(a + b for a, b in zip(kind.pad, before.kind.pad, strict=True))
        return (before.name,), replace(kind, pad=pad)

    def _softmax_loss(self, layer: Layer) -> None:
        kind = layer.kind
        assert isinstance(kind, Loss)
        prediction = next(iter(self.network.data(layer.inputs)), "")
        joined = layer.name in self.through
        found = (activation_behind if joined else softmax_behind)(self.network, prediction)
        if not found or any(self._producer(one.output) is not one for one in found):
            return
        if kind.function in ("log", "softmaxlog") and isinstance(found[0].kind, Softmax):
            kind = replace(kind, function="softmaxlog")
        elif not (self.with_softmax or joined):
            return
        self._take(layer, (*(one.name for one in found), layer.name), kind)

    def _split_convolution(self, layer: Layer) -> None:
        """Slices of one tensor, convolved apart and concatenated, are one grouped convolution."""
        assert isinstance(layer.kind, Concat)
        branches: list[Layer] = []
        sources: list[tuple[str, int, int]] = []
        cuts: list[str] = []
        for tensor in layer.inputs:
            conv = self._producer(tensor)
            if conv is None or not isinstance(conv.kind, Conv | ConvTranspose) or layer.kind.axis != -1:
                return
            cut = self.network.producers.get(conv.inputs[0])
            if cut is None or conv.name in self.members:
                return
            span = _span(self.network, cut, conv.inputs[0])
            if span is None:
                return
            branches.append(conv)
            sources.append(span)
            if cut.name not in cuts:
                cuts.append(cut.name)
        kinds = [b.kind for b in branches]
        first = kinds[0] if kinds else None
        if len(branches) < 2 or not isinstance(first, Conv | ConvTranspose):
            return
        alike = all(k == first for k in kinds)
        # Joined in another order than they were cut, they are still the groups of one convolution: with a fault in it.
        order = sorted(range(len(sources)), key=lambda k: sources[k][1])
        sources, branches = [sources[k] for k in order], [branches[k] for k in order]
        contiguous = all(a[0] == b[0] and a[2] == b[1] for a, b in pairwise(sources))
        equal = len({stop - start for _, start, stop in sources}) == 1 and sources[0][1] == 0
        if not (alike and contiguous and equal):
            return
        kind = replace(first, filters=first.filters * len(branches), groups=first.groups * len(branches))
        padded, kind = self._zeros_before(sources[0][0], set(cuts), kind)
        self._take(layer, (*padded, *cuts, *(b.name for b in branches), layer.name), kind)


def order_of(layer: Layer, *, flat: bool) -> tuple[int, ...]:
    """The axes of a map h w c in the order in which a layer turns them; empty for one that does something else.

    Args:
        layer: what a dense layer reads, or reads through what flattens.
        flat: whether it must flatten as well.
    """
    kind = layer.kind
    if not isinstance(kind, Opaque):
        return ()
    found: tuple[int, ...] = ()
    if flat and kind.type == "Flatten" and kind.config.get("data_format") == "channels_first":
        return (1, 2, 0)  # takes the first axis for the channels and moves it behind the others
    if not flat and kind.type == "Permute":
        found = tuple(int(axis) - 1 for axis in kind.config.get("dims") or ())
    elif not flat and kind.type == "operation Transpose":
        batch, *axes = (int(axis) for axis in kind.config.get("axes") or (1,))
        found = () if batch else tuple(axis - 1 for axis in axes)
    return found if sorted(found) == [0, 1, 2] else ()


def _span(network: Network, cut: Layer, tensor: str) -> tuple[str, int, int] | None:
    """(tensor that is cut, first channel, past the last) of what `cut` hands out as `tensor`."""
    if isinstance(cut.kind, Slice) and cut.kind.axis == -1:
        return cut.inputs[0], cut.kind.start, cut.kind.stop
    if isinstance(cut.kind, Split) and cut.kind.axis == -1:
        shape = network.shape_of(cut.inputs[0])
        if not shape or shape[-1] is None:
            return None
        edges = (0, *cut.kind.bounds, shape[-1])
        index = cut.outputs.index(tensor)
        return cut.inputs[0], edges[index], edges[index + 1]
    return None
