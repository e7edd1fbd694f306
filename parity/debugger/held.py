"""What a lane keeps of what it made, within a limit: the rest is made again when it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from parity.debugger.nodes import Node
from parity.runner import Local

__all__ = ["Held"]

Array = np.ndarray


class Held:
    """Tensors, their gradients by the nodes that add to them, and which nodes ran backward.

    What goes first is what the backward run has passed. Then what costs least to make again for the room that it takes
    and the time that nobody used it, the neighbours counted that are gone already: so a few tensors stay here and there
    and whatever is asked for again is a few layers from one of them, where the least recently used would all be at one
    end of the net (Kirisame et al., Dynamic Tensor Rematerialization, ICLR 2021, h_DTR-eq).

    Args:
        limit: bytes of tensors and gradients.
        makers: tensor → the node that makes it.
        readers: tensor → the nodes that read it.

    Attributes:
        backed: node → what its backward run showed, but for the gradients of what it reads.
        latest: the tensors of the node that ran last: whoever asked for that looks at them.
    """

    def __init__(
        self,
        limit: int,
        makers: Mapping[str, Node],
        readers: Mapping[str, Sequence[Node]],
    ) -> None:
        self._limit, self._makers, self._readers = limit, makers, readers
        self._values: dict[str, Array] = {}
        self._gone: set[str] = set()
        self._used: dict[str, int] = {}
        self._time = 0
        self._flows: dict[str, dict[str, Array]] = {}
        self._lost: set[str] = set()
        self._most = 0  # bytes at most: what is let go of is not taken off at once
        self.backed: dict[str, Local] = {}
        self.latest: frozenset[str] = frozenset()

    # ---- tensors

    def __contains__(self, tensor: str) -> bool:
        """Whether a tensor is at hand."""
        return tensor in self._values

    def get(self, tensor: str) -> Array | None:
        """A tensor, if it is at hand."""
        self._time += 1
        self._used[tensor] = self._time
        return self._values.get(tensor)

    def keep(self, tensor: str, value: Array) -> None:
        """Have a tensor at hand."""
        self._time += 1
        self._used[tensor] = self._time
        self._values[tensor] = value
        self._gone.discard(tensor)
        self._most += value.nbytes

    def drop(self, tensor: str) -> None:
        """Let go of a tensor that is not true any more."""
        self._values.pop(tensor, None)
        self._gone.discard(tensor)

    # ---- gradients

    def flows(self, tensor: str) -> Mapping[str, Array]:
        """What each node adds to the gradient of a tensor, as far as that is at hand."""
        return self._flows.get(tensor, {})

    def add(self, tensor: str, node_name: str, flow: Array) -> None:
        """Keep what a node adds to the gradient of a tensor."""
        self._flows.setdefault(tensor, {})[node_name] = flow
        self._most += flow.nbytes

    def waits(self, node: Node, tensor: str) -> bool:
        """Whether a node must run backward, for the first time or again, before this gradient is known."""
        return node.name not in self.backed or (tensor in self._lost and node.name not in self.flows(tensor))

    def drop_gradients(self, tensor: str | None = None) -> None:
        """Let go of the gradient of a tensor, or of all, which are not true any more."""
        if tensor is not None:
            self._flows.pop(tensor, None)
            return
        self._flows.clear()
        self._lost.clear()
        self.backed.clear()

    # ---- memory

    @property
    def bytes(self) -> int:
        """Bytes of tensors and gradients that are at hand."""
        return sum(value.nbytes for value in self._all())

    def _all(self) -> Iterator[Array]:
        yield from self._values.values()
        for parts in self._flows.values():
            yield from parts.values()

    def clear(self) -> None:
        """Let go of everything."""
        self._values.clear()
        self._gone.clear()
        self.drop_gradients()

    def trim(self, needed: Collection[str]) -> None:
        """Let go of what is over the limit, but for what is needed now."""
        if self._most <= self._limit:
            return
        self._most = self.bytes
        needed = self.latest.union(needed)
        for tensor in [t for t in self._flows if t not in needed and self._passed(t)]:
            if self._most <= self._limit:
                return
            self._lost.add(tensor)
            self._most -= sum(flow.nbytes for flow in self._flows.pop(tensor).values())
        for tensor in [t for t in self._values if t not in needed and self._spent(t)]:
            if self._most <= self._limit:
                return
            self._most -= self._values.pop(tensor).nbytes
        if self._most > self._limit:
            self._let_go([tensor for tensor in self._values if tensor not in needed])

    def _let_go(self, tensors: list[str]) -> None:
        """Let go of these tensors, as far as the limit demands it, the cheapest first."""
        regions = self._regions()
        sizes = Counter(regions.values())
        while tensors and self._most > self._limit:
            beside = {t: {regions[n] for n in self._neighbours(t) if n in regions} for t in tensors}

            def price(tensor: str, beside: Mapping[str, set[int]] = beside) -> float:
                idle = self._time + 1 - self._used.get(tensor, 0)
                runs = 1 + sum(sizes[region] for region in beside[tensor])
                return runs / (max(1, self._values[tensor].nbytes) * idle)

            cheapest = min(tensors, key=price)
            tensors.remove(cheapest)
            self._most -= self._values.pop(cheapest).nbytes
            self._gone.add(cheapest)
            merged = len(sizes) + len(regions) + 1
            joined = beside[cheapest]
            for tensor in [t for t, region in regions.items() if region in joined]:
                regions[tensor] = merged
            regions[cheapest] = merged
            sizes[merged] = 1 + sum(sizes[region] for region in joined)

    def _regions(self) -> dict[str, int]:
        """Each tensor that was let go of → the number of its region: of those that are made of each other."""
        found: dict[str, int] = {}
        for number, start in enumerate(self._gone):
            waiting = [start]
            while waiting:
                tensor = waiting.pop()
                if tensor in self._gone and tensor not in found:
                    found[tensor] = number
                    waiting += self._neighbours(tensor)
        return found

    def _neighbours(self, tensor: str) -> list[str]:
        """What a tensor is made of, and what is made of it."""
        makers = [self._makers[tensor]] if tensor in self._makers else []
        made = [name for node in self._readers.get(tensor, ()) for name in node.outputs]
        return [*(name for node in makers for name in node.inputs), *made]

    def _passed(self, tensor: str) -> bool:
        """Whether a gradient has been carried on to what is before it."""
        maker = self._makers.get(tensor)
        return maker is None or maker.name in self.backed

    def _spent(self, tensor: str) -> bool:
        """Whether every node that reads a tensor has run backward."""
        readers = self._readers.get(tensor, ())
        return bool(readers) and all(node.name in self.backed for node in readers)
