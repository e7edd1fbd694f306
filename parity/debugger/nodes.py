"""What a lane is made of: layers that run in one go, and tensors that are computed when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from parity.layers import Loss
from parity.network import Network
from parity.units import Unit

__all__ = ["Blocked", "Node", "Seen", "Wiring", "nodes_of"]

Array = np.ndarray


class Blocked(Exception):
    """A tensor of a side cannot be computed; says why."""


@dataclass(frozen=True, eq=False)
class Node:
    """Layers of one network that run in one go.

    Attributes:
        name: of the unit that they are.
        layers: their names, in running order.
        inputs: the tensors that they read from outside.
        outputs: every tensor that they make.
        params: ids of the parameters that they use.
        is_loss: whether a loss is among them.
    """

    name: str
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: frozenset[str]
    is_loss: bool


def nodes_of(network: Network, units: Iterable[Unit]) -> tuple[Node, ...]:
    """A network as nodes in running order: its units, and by itself each layer that is in none of them.

    What is counted and not differentiated (a top-1 error) is left out.
    """
    made: list[tuple[int, Node]] = []
    places = {layer.name: i for i, layer in enumerate(network)}
    groups = [(unit.name, unit.layers) for unit in units]
    taken = {name for _, layers in groups for name in layers}
    groups += [(n, (n,)) for n in places if n not in taken and not isinstance(network[n].kind, Loss)]
    losses = {layer.name for layer in network.losses}
    for name, members in groups:
        layers = [network[member] for member in members]
        outputs = tuple(t for layer in layers for t in layer.outputs)
        read = dict.fromkeys(t for layer in layers for t in layer.inputs if t not in outputs)
        params = frozenset(key for layer in layers for key in layer.params.values())
        node = Node(name, tuple(members), tuple(network.data(read)), outputs, params, not losses.isdisjoint(members))
        made.append((max(places[member] for member in members), node))
    return tuple(node for _, node in sorted(made, key=lambda item: item[0]))


class Wiring:
    """Which node makes and which nodes read each tensor.

    Args:
        nodes: in running order.

    Attributes:
        makers: tensor → the node that makes it.
        readers: tensor → the nodes that read it.
        places: node → its place in running order.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self.places = {node.name: i for i, node in enumerate(nodes)}
        self.makers = {tensor: node for node in nodes for tensor in node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node in nodes:
            for tensor in node.inputs:
                self.readers.setdefault(tensor, []).append(node)

    def node(self, name: str) -> Node:
        """The node of a unit."""
        return self._nodes[self.places[name]]

    def before(self, tensor: str, at_hand: Callable[[str], bool]) -> list[Node]:
        """The nodes that must run for a tensor, in running order, where some are at hand; raises Blocked."""
        found: set[str] = set()
        waiting = [tensor]
        while waiting:
            name = waiting.pop()
            if at_hand(name):
                continue
            node = self.makers.get(name)
            if node is None:
                raise Blocked(f"nothing makes {name}")
            if node.name not in found:
                found.add(node.name)
                waiting += node.inputs
        return [self._nodes[place] for place in sorted(self.places[name] for name in found)]

    def behind(self, tensor: str, waits: Callable[[Node, str], bool]) -> list[Node]:
        """The nodes behind a tensor whose backward run is waited for, the last one first."""
        found: set[str] = set()
        waiting = [tensor]
        while waiting:
            name = waiting.pop()
            for node in self.readers.get(name, ()):
                if node.name not in found and waits(node, name):
                    found.add(node.name)
                    waiting += node.outputs
        return [self._nodes[place] for place in sorted((self.places[name] for name in found), reverse=True)]

    def all_behind(self, nodes: Iterable[Node]) -> list[Node]:
        """These nodes and all that read what they make, directly or not."""
        waiting, found = list(nodes), dict[str, Node]()
        while waiting:
            node = waiting.pop()
            if node.name not in found:
                found[node.name] = node
                for tensor in node.outputs:
                    waiting += self.readers.get(tensor, ())
        return [*found.values()]


class Seen(dict[str, Array]):
    """Tensors of a lane by name, each computed when it is asked for; a name that cannot be computed is not in it."""

    def __init__(self, find: Callable[[str], Array | None]) -> None:
        super().__init__()
        self._find = find

    def __missing__(self, key: str) -> Array:
        """The tensor; raises KeyError where it cannot be computed."""
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self.get(str(key)) is not None

    def get(self, key: str, default: Array | None = None) -> Array | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The tensor, or the default where it cannot be computed."""
        try:
            value = self._find(key)
        except Blocked:
            return default
        return default if value is None else value
