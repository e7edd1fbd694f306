"""Depthwise and pointwise convolutions of one network that are one layer of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parity.layers import LRN, Activation, BatchNorm, Conv, Dropout, Identity, Scale, SeparableConv
from parity.network import Layer, Network

__all__ = ["depthwise_behind", "in_one_on_the_other", "joined_with"]


_BETWEEN = (Activation, BatchNorm, Dropout, Identity, LRN, Scale)
"""What may stand between the two convolutions of a separable one, by mistake or by design."""


@dataclass(frozen=True)
class _Site:
    """A separable convolution, in one layer or in two.

    Attributes:
        name: of its last layer.
        form: channels that it reads, filters for each of them, and filters of the second convolution.
        one: whether it is one layer.
        parted: whether something stands between the two layers that it is.
    """

    name: str
    form: tuple[int, int, int]
    one: bool = False
    parted: bool = False


def joined_with(network: Network, layer: Layer, mode: str) -> tuple[Layer, ...]:
    """The depthwise convolution with which one of single cells is a separable one, and what is idle between the two.

    Args:
        network: either side's.
        layer: of it.
        mode: `"train"` or `"eval"`, in which a dropout is idle.
    """
    found = depthwise_behind(network, layer)
    return found if all(_idle(between, mode) for between in found[1:]) else ()


def _idle(layer: Layer, mode: str) -> bool:
    kind = layer.kind
    return isinstance(kind, Identity) or (isinstance(kind, Dropout) and (mode == "eval" or kind.rate == 0))


def depthwise_behind(network: Network, layer: Layer) -> tuple[Layer, ...]:
    """The convolution with a group for each channel, and what is between it and a convolution of single cells.

    Each of them is read by the next alone, and what is between does with every cell and channel the same. Empty where
    there is no such convolution.
    """
    kind = layer.kind
    if type(kind) is not Conv or kind.groups > 1 or "kernel" not in layer.params:
        return ()
    if any(n != 1 for n in (*kind.size, *kind.stride)) or any(kind.pad or ()):
        return ()
    found: list[Layer] = []
    while layer.inputs:
        before = network.producers.get(layer.inputs[0])
        alone = before is not None and len(network.consumers.get(before.output, ())) == 1
        if before is None or not alone or before.output in network.outputs:
            return ()
        found.insert(0, before)
        if type(before.kind) is Conv:
            shape = network.shape_of(before.inputs[0])
            deep = "kernel" in before.params and shape and 1 < before.kind.groups == shape[-1]
            return tuple(found) if deep else ()
        if not isinstance(before.kind, _BETWEEN):
            return ()
        layer = before
    return ()


def in_one_on_the_other(ref: Network, keras: Network, mode: str) -> tuple[frozenset[str], frozenset[str]]:
    """The convolutions of each side, by name, that are one with the depthwise one before: the other side has them so.

    Sites of one form are partners in the order in which they stand; then those that are left, whose form a mistake may
    have changed.
    """
    if not any(isinstance(layer.kind, SeparableConv) for layer in (*ref, *keras)):
        return frozenset(), frozenset()
    pairs = _partners([*_sites(ref, mode)], [*_sites(keras, mode)])
    mine = frozenset(a.name for a, b in pairs if b.one and not a.one and not a.parted)
    return mine, frozenset(b.name for a, b in pairs if a.one and not b.one and not b.parted)


def _partners(left: Sequence[_Site], right: Sequence[_Site]) -> list[tuple[_Site, _Site]]:
    found: list[tuple[_Site, _Site]] = []
    mine, theirs = [*left], [*right]
    for site in left:
        other = next((o for o in theirs if o.form == site.form), None)
        if other is not None:
            found.append((site, other))
            mine.remove(site)
            theirs.remove(other)
    return found + [*zip(mine, theirs, strict=False)]


def _sites(network: Network, mode: str) -> Iterator[_Site]:
    for layer in network:
        kind, behind = layer.kind, depthwise_behind(network, layer)
        first = behind[0] if behind else layer
        channels = int((network.shape_of(first.inputs[0]) or (0,))[-1] or 0) if first.inputs else 0
        if isinstance(kind, SeparableConv):
            yield _Site(layer.name, (channels, kind.multiplier, kind.filters), one=True)
        elif behind and isinstance(first.kind, Conv) and isinstance(kind, Conv):
            form = (channels, first.kind.filters // first.kind.groups, kind.filters)
            yield _Site(layer.name, form, parted=not all(_idle(between, mode) for between in behind[1:]))
