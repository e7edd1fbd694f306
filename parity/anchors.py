"""Units of two graphs that are the same by where they stand: alike in everything above them, or in everything below.

The ancestry of a unit is condensed into one number, made of what it is and of the ancestries of what it reads, in order
(Weisfeiler and Leman's refinement along the edges of a graph without cycles); its descent likewise, from the end. Where
two graphs differ in a few places, the ancestries agree above the first of them and the descents below the last, so that
few units are left to be paired by their likeness alone, and a block that occurs twenty times is not taken for its twin.
Further rounds do the same from the pairs of the rounds before, so that what lies between two such places is found too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.layers import Activation, Conv, Merge, Pool
from parity.units import Unit

__all__ = ["anchored", "portrait"]

_BOTH, _ONE, _ROUGH = 30.0, 15.0, 2.0
"""What ancestry and descent together, one of them, and one of them in rough outline add to a likeness."""


def anchored(
    score: np.ndarray,
    left: Sequence[Unit],
    right: Sequence[Unit],
    inputs: Mapping[str, str],
    names: tuple[Sequence[str], Sequence[str]],
) -> np.ndarray:
    """The scores, raised where two units are the same by where they stand, and shut for others in their place.

    Args:
        score: likeness of each two units, -inf where they cannot be partners.
        left: the reference's units, in topological order.
        right: the Keras units, in topological order.
        inputs: Keras input tensor → the reference's.
        names: what users called both sides' units, which decides between branches that are alike in all else; empty
            where a framework made the name up.
    """
    graphs = _Graph.of(left, {tensor: tensor for tensor in inputs.values()}), _Graph.of(right, inputs)
    chosen = _Chosen(score, graphs, names)
    done = -1
    while done < len(chosen.partner):  # a second round begins at the pairs of the first, and so on
        done = len(chosen.partner)
        for rough in (False, True):
            word = _outline if rough else portrait
            above, below, below_slots = chosen.hashes(word)
            both = [list(zip(a, b, strict=True)) for a, b in zip(above, below, strict=True)]
            chosen.pair(both, below_slots, _ONE if rough else _BOTH)
            bonus = _ROUGH if rough else _ONE
            chosen.pair(above, below_slots, bonus, alone=True)
            chosen.pair(below, below_slots, bonus, alone=True)
        if done == len(chosen.partner):
            # A layer written as a class of one's own is known by what stands around it.
            above, _, below_slots = chosen.hashes(portrait)
            places = [
                [(graph.around(k, own, up=True), graph.followers(k)) for k in range(len(graph.units))]
                for graph, own in zip(graphs, above, strict=True)
            ]
            chosen.pair(places, below_slots, _ROUGH, alone=True)
    return chosen.raised()


@dataclass(frozen=True, eq=False)
class _Graph:
    """The units of one side that may not stay alone, and who reads whom through those that may."""

    units: Sequence[Unit]
    sources: Sequence[Sequence[int | str]]
    readers: Sequence[Sequence[tuple[int, int]]]

    @classmethod
    def of(cls, units: Sequence[Unit], inputs: Mapping[str, str]) -> _Graph:
        made = {unit.output: index for index, unit in enumerate(units)}

        def origin(tensor: str) -> int | str:
            while tensor in made and units[made[tensor]].optional and units[made[tensor]].inputs:
                tensor = units[made[tensor]].inputs[0]
            return made[tensor] if tensor in made else "input:" + inputs.get(tensor, "")

        # Labels are no ancestry: the two sides call them what they like.
        sources = [[origin(tensor) for tensor in unit.inputs if tensor in made or tensor in inputs] for unit in units]
        readers: list[list[tuple[int, int]]] = [[] for _ in units]
        for index, unit in enumerate(units):
            if unit.optional:
                continue
            for slot, source in enumerate(sources[index]):
                if isinstance(source, int):
                    readers[source].append((slot if not isinstance(unit.kind, Merge) else -1, index))
        return cls(units, sources, readers)

    def hashes(
        self, word: Callable[[Unit], tuple[object, ...]], known: Mapping[int, int], *, up: bool, slots: bool = False
    ) -> list[int]:
        """One number for the ancestry (`up`) or the descent of each unit, as far as the nearest units that are paired.

        With `slots`, a descent also says which input of its readers a unit makes.

        Args:
            word: what a unit is.
            known: unit that is paired → the number of its pair, which stands for all that lies behind it.
            up: which way.
            slots: see above.
        """
        made = [0] * len(self.units)
        order = range(len(self.units)) if up else reversed(range(len(self.units)))
        for index in order:
            if index in known:
                made[index] = hash(("pair", known[index]))
            else:
                made[index] = hash((word(self.units[index]), self.around(index, made, up=up, slots=slots)))
        return made

    def around(self, index: int, made: Sequence[int], *, up: bool, slots: bool = False) -> tuple[int, ...]:
        """The numbers of what a unit reads (`up`), in order where that counts, or of what reads it."""
        if up:
            found = [made[s] if isinstance(s, int) else hash(s) for s in self.sources[index]]
            return tuple(sorted(found) if isinstance(self.units[index].kind, Merge) else found)
        return tuple(sorted(hash((slot if slots else -1, made[k])) for slot, k in self.readers[index]))

    def followers(self, index: int) -> tuple[int, ...]:
        """What a unit's readers are."""
        return tuple(sorted(hash(portrait(self.units[k])) for _, k in self.readers[index]))


def portrait(unit: Unit) -> tuple[object, ...]:
    """What a unit is, but for the fields that ports get wrong without changing its place: epsilons, pads, rates."""
    kind = unit.kind
    if isinstance(kind, Conv):
        return (unit.core, kind.filters, kind.size, kind.stride)
    if isinstance(kind, Pool):
        return (unit.core, kind.method, kind.size, kind.stride)
    if isinstance(kind, Activation):
        return (unit.core, kind.function)
    return (unit.core, getattr(kind, "operation", ""))


def _outline(unit: Unit) -> tuple[object, ...]:
    """The family alone, and how many channels it makes."""
    return (unit.core, getattr(unit.kind, "filters", 0))


@dataclass(eq=False)
class _Chosen:
    """The pairs so far."""

    score: np.ndarray
    graphs: tuple[_Graph, _Graph]
    names: tuple[Sequence[str], Sequence[str]]
    partner: dict[int, int] = field(default_factory=dict)
    bonus: dict[tuple[int, int], float] = field(default_factory=dict)

    def hashes(self, word: Callable[[Unit], tuple[object, ...]]) -> tuple[list[list[int]], ...]:
        """Ancestries, descents, and descents with slots, of both sides, from the pairs so far."""
        known = {i: i for i in self.partner}, {j: i for i, j in self.partner.items()}
        sides = list(zip(self.graphs, known, strict=True))
        return (
            [graph.hashes(word, own, up=True) for graph, own in sides],
            [graph.hashes(word, own, up=False) for graph, own in sides],
            [graph.hashes(word, own, up=False, slots=True) for graph, own in sides],
        )

    def pair(
        self,
        keys: Sequence[Sequence[object]],
        slots: Sequence[Sequence[int]],
        bonus: float,
        *,
        alone: bool = False,
    ) -> None:
        """Pair the units of both sides that have the same key; with `alone` only where one unit of each side has it."""
        groups: list[dict[object, list[int]]] = []
        taken = set(self.partner), set(self.partner.values())
        for graph, own, done in zip(self.graphs, keys, taken, strict=True):
            found: dict[object, list[int]] = defaultdict(list)
            for index, key in enumerate(own):
                if index not in done and not graph.units[index].optional:
                    found[key].append(index)
            groups.append(found)
        for key, mine in sorted(groups[0].items(), key=lambda item: item[1][0]):
            theirs = groups[1].get(key, [])
            if len(mine) != len(theirs) or (alone and len(mine) > 1):
                continue
            for i, j in self._assigned(mine, theirs, slots):
                if np.isfinite(self.score[i, j]) and not self._crosses(i, j):
                    self.partner[i] = j
                    self.bonus[i, j] = bonus

    def _crosses(self, i: int, j: int) -> bool:
        """Whether what it reads is already paired with something that its partner does not read."""
        left, right = self.graphs
        expected = {self.partner[s] for s in left.sources[i] if isinstance(s, int) and s in self.partner}
        read = {s for s in right.sources[j] if isinstance(s, int)}
        known = set(self.partner.values())
        return bool(expected) and not expected & read and read <= known

    def _assigned(
        self, mine: Sequence[int], theirs: Sequence[int], slots: Sequence[Sequence[int]]
    ) -> list[tuple[int, int]]:
        """Who of a group of look-alikes is whose partner: what reads partners, is called alike, feeds the same."""
        if len(mine) == 1:
            return [(mine[0], theirs[0])]
        left, right = self.graphs
        rated: list[tuple[float, int, int]] = []
        for a, i in enumerate(mine):
            expected = {self.partner.get(s, -1) if isinstance(s, int) else s for s in left.sources[i]}
            for b, j in enumerate(theirs):
                points = 4.0 * bool(expected & set(right.sources[j]))
                points += 3.0 * (left.units[i].kind == right.units[j].kind)
                points += 2.0 * (self.names[0][i] == self.names[1][j] != "")
                points += 1.0 * (slots[0][i] == slots[1][j])
                rated.append((points - 0.1 * abs(a - b) / len(mine), i, j))
        made: list[tuple[int, int]] = []
        done: tuple[set[int], set[int]] = (set(), set())
        for _, i, j in sorted(rated, key=lambda row: (-row[0], row[1], row[2])):
            if i not in done[0] and j not in done[1]:
                made.append((i, j))
                done[0].add(i)
                done[1].add(j)
        return made

    def raised(self) -> np.ndarray:
        """The scores with every pair's bonus; what is surely paired is nobody else's partner."""
        made = self.score.copy()
        for (i, j), bonus in self.bonus.items():
            own = made[i, j] + bonus
            if bonus >= _ONE:
                made[i, :] = -np.inf
                made[:, j] = -np.inf
            made[i, j] = own
        return made
