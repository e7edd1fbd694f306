"""The network as a picture: layers in ranks from top to bottom, wires around them, quiet runs folded to one box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from parity.report import LayerRow
from parity.reports.words import worst

__all__ = ["Box", "Picture", "draw"]

WIDTH, HEIGHT = 190, 30
_GAP_X, _GAP_Y, _WIRE = 22, 20, 18
_FOLD_FROM, _FOLD_RUN = 24, 4
_SWEEPS = 6


@dataclass(frozen=True)
class Box:
    """A layer, or a run of layers that all match: `rows` are those it stands for, (x, y) is its upper left corner."""

    rows: tuple[int, ...]
    name: str
    status: str
    x: float
    y: float


@dataclass(frozen=True)
class Picture:
    """Boxes, the wires between them as SVG paths, and the size of it all."""

    boxes: tuple[Box, ...]
    wires: tuple[str, ...]
    width: float
    height: float


def draw(rows: Sequence[LayerRow], *, folded: bool = False) -> Picture:
    """Lay the layers out.

    Args:
        rows: in topological order.
        folded: draw runs of layers that match as one box, where there are many layers.
    """
    groups = _groups(rows, folded)
    place = {row: number for number, group in enumerate(groups) for row in group}
    named = {row.layer or row.keras_layer: number for number, row in enumerate(rows)}
    feeds: list[list[int]] = []
    for number, group in enumerate(groups):
        sources = {place[named[name]] for row in group for name in rows[row].inputs if name in named}
        # What a file says of its wiring cannot be trusted to go forward only; a circle has no ranks.
        feeds.append(sorted(source for source in sources if source < number))
    nodes, ranks, edges = _ranked(feeds)
    order = _ordered(ranks, edges)
    centers = _spread(order, edges, len(groups))
    left = min((x - _width(node, len(groups)) / 2 for node, x in centers.items()), default=0.0)
    right = max((x + _width(node, len(groups)) / 2 for node, x in centers.items()), default=0.0)

    def at(node: int) -> tuple[float, float]:
        return round(centers[node] - left + 12, 1), nodes[node] * (HEIGHT + _GAP_Y) + 12.0

    boxes = []
    for number, group in enumerate(groups):
        x, y = at(number)
        first = rows[group[0]]
        name = f"{len(group)} layers match" if len(group) > 1 else first.layer or first.keras_layer
        status = worst(cell[0] for row in group for cell in rows[row].cells.values())
        boxes.append(Box(tuple(group), name, status, x - WIDTH / 2, y))
    wires = []
    for source, target in edges:
        (x1, y1), (x2, y2) = at(source), at(target)
        # A wire's own points are as high as a box, so that it passes beside boxes straight down.
        start, end = y1 + HEIGHT, y2
        middle = (start + end) / 2
        tail = f" V{end + HEIGHT:g}" if target >= len(groups) else ""
        wires.append(f"M{x1:g} {start:g} C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {end:g}{tail}")
    return Picture(
        tuple(boxes), tuple(wires), round(right - left + 24, 1), (max(nodes.values(), default=0) + 1) * 50 + 4.0
    )


def _groups(rows: Sequence[LayerRow], folded: bool) -> list[list[int]]:
    """Rows one by one, or with runs of matching ones together: a run of a topological order leaves no circle."""
    if not folded or len(rows) <= _FOLD_FROM:
        return [[number] for number in range(len(rows))]
    made: list[list[int]] = []
    run: list[int] = []
    for number in range(len(rows) + 1):
        quiet = number < len(rows) and worst(cell[0] for cell in rows[number].cells.values()) == "match"
        if quiet:
            run.append(number)
            continue
        made += [run] if len(run) >= _FOLD_RUN else [[one] for one in run]
        run = []
        if number < len(rows):
            made.append([number])
    return made


def _width(node: int, boxes: int) -> int:
    return WIDTH if node < boxes else _WIRE


def _ranked(feeds: Sequence[Sequence[int]]) -> tuple[dict[int, int], list[list[int]], list[tuple[int, int]]]:
    """Node → rank by its longest way from above, the nodes of each rank, and edges from one rank to the next alone.

    A wire that passes ranks gets a point of its own in each; those have the numbers behind the boxes'.
    """
    rank: dict[int, int] = {}
    for number, sources in enumerate(feeds):
        rank[number] = max((rank[source] + 1 for source in sources), default=0)
    edges: list[tuple[int, int]] = []
    for number, sources in enumerate(feeds):
        for source in sources:
            last = source
            for level in range(rank[source] + 1, rank[number]):
                point = len(rank)
                rank[point] = level
                edges.append((last, point))
                last = point
            edges.append((last, number))
    levels: list[list[int]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for node, level in rank.items():
        levels[level].append(node)
    return rank, levels, edges


def _neighbours(edges: Sequence[tuple[int, int]]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for source, target in edges:
        above.setdefault(target, []).append(source)
        below.setdefault(source, []).append(target)
    return above, below


def _ordered(levels: list[list[int]], edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Each rank in the order of the mean place of its neighbours, so that few wires cross (Sugiyama's sweeps)."""
    above, below = _neighbours(edges)
    place = {node: float(i) for level in levels for i, node in enumerate(level)}
    for sweep in range(_SWEEPS):
        near = above if sweep % 2 == 0 else below
        for level in levels if sweep % 2 == 0 else reversed(levels):
            level.sort(key=lambda node: (_mean([place[n] for n in near.get(node, [])], place[node]), node))
            place.update({node: float(i) for i, node in enumerate(level)})
    return levels


def _spread(levels: Sequence[Sequence[int]], edges: Sequence[tuple[int, int]], boxes: int) -> Mapping[int, float]:
    """Node → its center: near its neighbours', in the order of its rank, without overlap."""
    above, below = _neighbours(edges)
    center: dict[int, float] = {}
    for level in levels:
        center.update(_apart(level, [0.0] * len(level), boxes))
    for sweep in range(_SWEEPS):
        near = above if sweep % 2 == 0 else below
        for level in levels if sweep % 2 == 0 else reversed(levels):
            wanted = [_mean([center[n] for n in near.get(node, [])], center[node]) for node in level]
            center.update(_apart(level, wanted, boxes))
    return center


def _apart(level: Sequence[int], wanted: Sequence[float], boxes: int) -> dict[int, float]:
    """Centers at least a gap apart, as near to the wanted ones as a push to the right and a common shift allow."""
    made: list[float] = []
    for i, node in enumerate(level):
        own = wanted[i]
        if made:
            room = (_width(level[i - 1], boxes) + _width(node, boxes)) / 2 + _GAP_X
            own = max(own, made[-1] + room)
        made.append(own)
    shift = _mean([w - m for w, m in zip(wanted, made, strict=True)], 0.0)
    return {node: x + shift for node, x in zip(level, made, strict=True)}


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
