"""Depthwise and pointwise convolutions of one network that are one layer of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parity.layers import Conv, SeparableConv
from parity.network import Layer, Network

__all__ = ["depthwise_before", "in_one_on_the_other"]


@dataclass(frozen=True)
class _Site:
    """A separable convolution, in one layer or in two.

    Attributes:
        name: of its last layer.
        form: channels that it reads, filters for each of them, and filters of the second convolution.
        one: whether it is one layer.
    """

    name: str
    form: tuple[int, int, int]
    one: bool


def depthwise_before(network: Network, layer: Layer) -> Layer | None:
    """The convolution with a group for each channel that a convolution of single cells alone reads; None without."""
    kind = layer.kind
    if type(kind) is not Conv or kind.groups > 1 or "kernel" not in layer.params:
        return None
    if any(n != 1 for n in (*kind.size, *kind.stride)) or any(kind.pad or ()):
        return None
    before = network.producers.get(layer.inputs[0])
    if before is None or type(before.kind) is not Conv or "kernel" not in before.params:
        return None
    shape = network.shape_of(before.inputs[0])
    alone = len(network.consumers.get(before.output, ())) == 1 and before.output not in network.outputs
    return before if alone and shape and 1 < before.kind.groups == shape[-1] else None


def in_one_on_the_other(ref: Network, keras: Network) -> tuple[frozenset[str], frozenset[str]]:
    """The convolutions of each side, by name, that are one with the depthwise one before: the other side has them so.

    Sites of one form are partners in the order in which they stand; then those that are left, whose form a mistake may
    have changed.
    """
    left, right = [*_sites(ref)], [*_sites(keras)]
    if not any(site.one for site in (*left, *right)):
        return frozenset(), frozenset()
    pairs = _partners(left, right)
    mine = frozenset(a.name for a, b in pairs if b.one and not a.one)
    return mine, frozenset(b.name for a, b in pairs if a.one and not b.one)


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


def _sites(network: Network) -> Iterator[_Site]:
    for layer in network:
        kind, deep = layer.kind, depthwise_before(network, layer)
        first = layer if deep is None else deep
        channels = int((network.shape_of(first.inputs[0]) or (0,))[-1] or 0)
        if isinstance(kind, SeparableConv):
            yield _Site(layer.name, (channels, kind.multiplier, kind.filters), True)
        elif deep is not None and isinstance(deep.kind, Conv) and isinstance(kind, Conv):
            yield _Site(layer.name, (channels, deep.kind.filters // deep.kind.groups, kind.filters), False)
