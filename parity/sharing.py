"""Parameters that one side shares between layers, and the other side holds apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from parity.align import Pair
from parity.transfer import Link

__all__ = ["Apart", "held_apart", "held_together"]


@dataclass(frozen=True, eq=False)
class Apart:
    """A parameter that one side uses in two layers, and of which the other side has one for each.

    Attributes:
        link: of the later layer.
        first: the pair of the layer before it.
    """

    link: Link
    first: Pair

    @property
    def note(self) -> str:
        """What is wrong where the reference shares it, in words."""
        one, two = self.first, self.link.pair
        return (
            f"{one.ref.name} and {two.ref.name} share it in the reference; {one.keras.origin} and {two.keras.origin} "
            "hold one each, which is trained by its own gradient alone"
        )


def held_together(pairs: Iterable[Pair]) -> list[tuple[Pair, Pair]]:
    """Pairs whose parameters are one in Keras and several in the reference, each behind the first of its kind."""
    first: dict[str, tuple[Pair, str]] = {}
    found: dict[str, tuple[Pair, Pair]] = {}
    for pair in pairs:
        for role, ids in pair.keras.params.items():
            for key in ids:
                holder, word = first.setdefault(key, (pair, role))
                if holder is not pair and holder.ref.params.get(word) != pair.ref.params.get(role):
                    found.setdefault(pair.ref.name, (holder, pair))
    return list(found.values())


def held_apart(links: Iterable[Link]) -> list[Apart]:
    """Trained parameters that are one in the reference and several in Keras, in layers of their own."""
    first: dict[tuple[str, ...], Link] = {}
    found: list[Apart] = []
    for link in links:
        if not (link.ref and link.keras and link.learned) or link.problem:
            continue
        holder = first.setdefault(link.ref, link)
        if holder.pair is not link.pair and holder.keras != link.keras:
            found.append(Apart(link, holder.pair))
    return found
