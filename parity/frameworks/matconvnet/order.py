"""In which order DagNN evaluates its layers (matlab/+dagnn/@DagNN/rebuild.m, `getOrder`)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["CycleError", "evaluation_order"]


class CycleError(Exception):
    """Layers (indices from 0) that run in a circle, each reading what the one before it writes."""

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = tuple(layers)
        super().__init__(f"a circle of {len(self.layers)} layers")


def evaluation_order(inputs: Sequence[Sequence[str]], outputs: Sequence[Sequence[str]]) -> list[int]:
    """Indices of the layers, those with the longest way to a sink first, equals by index.

    Args:
        inputs: the variables that each layer reads.
        outputs: the variables that each layer writes.

    Raises:
        CycleError: there is no such order.
    """
    readers: dict[str, list[int]] = {}
    for layer, names in enumerate(inputs):
        for name in dict.fromkeys(names):
            readers.setdefault(name, []).append(layer)
    after = [list(dict.fromkeys(r for name in names for r in readers.get(name, ()))) for names in outputs]
    hops = [0] * len(after)  # layers on the longest way to a sink; 0 not visited
    for start in range(len(after)):
        _visit(start, after, hops)
    return sorted(range(len(after)), key=lambda layer: -hops[layer])


def _visit(start: int, after: Sequence[Sequence[int]], hops: list[int]) -> None:
    """Depth first, without recursion: a net may have thousands of layers."""
    if hops[start]:
        return
    path, at, on_path = [start], [0], {start}
    while path:
        layer = path[-1]
        if at[-1] < len(after[layer]):
            child = after[layer][at[-1]]
            at[-1] += 1
            if child in on_path:
                raise CycleError([*path[path.index(child) :], child])
            if not hops[child]:
                path.append(child)
                at.append(0)
                on_path.add(child)
            continue
        hops[layer] = 1 + max((hops[child] for child in after[layer]), default=0)
        on_path.discard(layer)
        path.pop()
        at.pop()
