"""A layer without parameters that is written as a formula of bare operations: `maximum(x, 0.1 * x)` for a leaky relu.

The operations read one tensor and make one: together they are one function of it, whatever each of them is alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from parity.layers import Concat, Dropout, Loss, Merge, Opaque, Rescale, Softmax
from parity.network import Layer, Network

__all__ = ["formula_words", "formulas", "is_operation"]

_LONGEST = 24
"""Operations of a formula; more are a network of their own."""


def formulas(network: Network) -> dict[str, tuple[str, ...]]:
    """Last layer of a formula → all its layers, in the network's order.

    A formula branches from one tensor, joins again in one layer, and holds a number (or another operation that the
    vocabulary does not know): `x + relu(x)` is a network's two layers, `x + 0.1 * relu(x)` a formula.
    """
    found: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for layer in reversed(network.layers):
        if layer.name in taken or len(layer.inputs) < 2 or not isinstance(layer.kind, Merge | Opaque):
            continue
        members = _closed(network, layer)
        if members and taken.isdisjoint(members) and any(_holds_number(network[name]) for name in members):
            found[layer.name] = members
            taken.update(members)
    return found


def is_operation(layer: Layer) -> bool:
    """Whether a layer is a bare operation that the vocabulary does not know."""
    return isinstance(layer.kind, Opaque) and layer.kind.type.startswith("operation ")


def formula_words(layers: Iterable[Layer]) -> str:
    """The operations of a formula, in words."""
    words = [layer.kind.type.split()[-1] if isinstance(layer.kind, Opaque) else layer.source_type for layer in layers]
    return f"formula of {', '.join(word.lower() for word in words)}"


def _holds_number(layer: Layer) -> bool:
    return is_operation(layer) or isinstance(layer.kind, Rescale)


def _plain(layer: Layer) -> bool:
    """Whether a layer may be a part of a formula."""
    if layer.params or len(layer.outputs) != 1 or isinstance(layer.kind, Concat | Dropout | Loss | Softmax):
        return False
    return not isinstance(layer.kind, Opaque) or is_operation(layer)


def _closed(network: Network, last: Layer) -> tuple[str, ...]:
    """The layers between `last` and the nearest tensor that all of it is made of; nothing where others read them."""
    places = {layer.name: i for i, layer in enumerate(network.layers)}
    inside = {last.name}
    if not _plain(last):
        return ()
    reads = set(last.inputs)
    while len(reads) > 1:
        makers = [network.producers[tensor] for tensor in reads if tensor in network.producers]
        if len(inside) > _LONGEST or not makers:
            return ()
        maker = max(makers, key=lambda layer: places[layer.name])
        readers = {reader.name for reader in network.consumers.get(maker.output, ())}
        if not _plain(maker) or not readers <= inside or maker.output in network.outputs:
            return ()
        inside.add(maker.name)
        reads = (reads - {maker.output}) | set(maker.inputs)
    return tuple(sorted(inside, key=places.__getitem__)) if len(inside) > 1 else ()
