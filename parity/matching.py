"""How alike two units are, and the pairing of two graphs of units with the greatest likeness in all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

import numpy as np

from parity.layers import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dropout,
    Kind,
    Loss,
    Merge,
    Opaque,
    Pad,
    Scale,
    Softmax,
)
from parity.network import Network
from parity.units import Unit, same_shape

__all__ = ["follow", "given_names", "is_linear", "likeness", "pairing", "stands_in", "with_neighbours", "yielding"]

_NEVER_OPAQUE = (Loss, Dropout, Concat, Merge, Pad)
"""What a custom layer is not taken for: a loss, or what moves values and does nothing else."""

_GAP = -1.5
"""Score of leaving a unit alone; two gaps cost more than a pair of one family whose fields all differ."""


def likeness(left: Sequence[Unit], right: Sequence[Unit], ref: Network, keras: Network) -> np.ndarray:
    """How alike each two units are, from their own properties; -inf where they cannot be partners."""
    table = np.full((len(left), len(right)), -np.inf)
    names_left, names_right = _plain_names(left), _plain_names(right)
    fields_left, fields_right = ([_compared(unit.kind) for unit in side] for side in (left, right))
    sizes_left, sizes_right = ([_Sizes(unit, of) for unit in side] for side, of in ((left, ref), (right, keras)))
    matchers = [SequenceMatcher(None, "", name, autojunk=False) for name in names_right]  # each counts its letters once
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            base = _kinship(a, b)
            if base is None:
                continue
            points = base
            points += 1.0 * same_shape(a.shape, b.shape)
            points += 1.0 * _fields_alike(a.kind, b.kind, fields_left[i], fields_right[j])
            points += 1.0 * _params_alike(a, b, sizes_left[i], sizes_right[j])
            if names_left[i] == names_right[j]:
                points += 0.6
            elif names_left[i] and names_right[j]:
                matchers[j].set_seq1(names_left[i])
                points += 0.3 * matchers[j].quick_ratio() ** 2
            points -= 0.2 * abs(i / max(1, len(left)) - j / max(1, len(right)))
            table[i, j] = points
    return table


def _plain_names(side: Sequence[Unit]) -> list[str]:
    """What the units are called, without case, folders and punctuation."""
    return [_plain(unit.origin or unit.name) for unit in side]


def given_names(side: Sequence[Unit], network: Network) -> list[str]:
    """The plain names that a user gave; empty where it is only the layer's type and a number, which each Keras counts
    in its own way.
    """
    made: list[str] = []
    for unit, name in zip(side, _plain_names(side), strict=True):
        kinds = [_plain(network[layer].source_type) for layer in unit.layers]
        automatic = any(name.startswith(kind) and (name[len(kind) :] or "0").isdigit() for kind in kinds if kind)
        made.append("" if automatic else name)
    return made


def _plain(name: str) -> str:
    return "".join(c for c in name.lower().split("/")[-1].split(":")[0] if c.isalnum())


def _kinship(a: Unit, b: Unit) -> float | None:
    """A start score for two units that may be partners, or None."""
    if a.core == b.core:
        if a.core == "Layout":
            return 0.5
        if isinstance(a.kind, Softmax) != isinstance(b.kind, Softmax):
            return -1.4
        if isinstance(a.kind, Activation) and isinstance(b.kind, Activation):
            return 0.0 if (a.kind.function == "linear") == (b.kind.function == "linear") else -2.0
        return 1.0 if not isinstance(a.kind, Opaque) or a.kind.type == getattr(b.kind, "type", None) else 0.2
    if not stands_in(a, b):
        return None
    if not a.unseen and bool(a.params) != bool(b.params):
        return -1.6  # a layer that learns and one that does not: only if nothing else is there
    if same_shape(a.shape, b.shape) or any(not unit.shape or unit.shape[-1] is None for unit in (a, b)):
        return -0.6 if a.params or b.params else -0.2  # what a file's own code makes has a shape that only it knows
    # Its shape may be another one because something above it went wrong; its channels are not.
    channels = [unit.shape[-1] if unit.shape else None for unit in (a, b)]
    return -1.2 if channels[0] == channels[1] and len(a.shape or ()) == len(b.shape or ()) else None


def stands_in(a: Unit, b: Unit) -> bool:
    """Whether one of two units is a layer that the vocabulary does not know, and may be the other one all the same.

    An LRN written as a custom layer. One without parameters must not swallow a layer that has some; but of a layer of
    the reference whose code is elsewhere nobody knows which it has.
    """
    if a.unseen and not isinstance(b.kind, _NEVER_OPAQUE):
        return True
    for known, other in ((a, b), (b, a)):
        if not isinstance(other.kind, Opaque) or isinstance(known.kind, _NEVER_OPAQUE):
            continue
        if not known.params or (isinstance(known.kind, Conv | ConvTranspose | BatchNorm | Scale) and other.params):
            return True
    return False


_APART = ("momentum", "stored", "sparse", "squeeze", "reduction", "filters", "config")
"""Fields that say nothing of which layer is whose partner."""


def _compared(kind: Kind) -> dict[str, Any]:
    """The fields of a kind by which partners are known."""
    return {name: value for name, value in kind.describe().items() if name not in _APART}


def _fields_alike(a: Kind, b: Kind, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    if type(a) is not type(b):
        return 0.0
    return sum(mine[k] == theirs[k] for k in mine) / len(mine) if mine else 1.0


class _Sizes:
    """How many values a unit's parameters have."""

    def __init__(self, unit: Unit, network: Network) -> None:
        self._unit, self._network = unit, network
        self._known: dict[tuple[str, ...], int] = {}

    def of(self, roles: tuple[str, ...]) -> int:
        """Of these roles together."""
        if roles not in self._known:
            keys = [key for role in roles for key in self._unit.params.get(role, ())]
            self._known[roles] = sum(math.prod(self._network.params[key].shape) for key in keys)
        return self._known[roles]


def _params_alike(a: Unit, b: Unit, sizes_a: _Sizes, sizes_b: _Sizes) -> float:
    if not a.params and not b.params:
        return 1.0
    roles = ("kernel", "gamma") if "kernel" in a.params or "gamma" in a.params else tuple(a.params)
    if isinstance(a.kind, Opaque) or isinstance(b.kind, Opaque):  # whose author calls its parameters what they like
        mine, theirs = sizes_a.of(tuple(a.params)), sizes_b.of(tuple(b.params))
    else:
        mine, theirs = sizes_a.of(roles), sizes_b.of(roles)
    if mine == theirs:
        return 1.0
    return 0.5 * min(mine, theirs) / max(mine, theirs, 1)


def is_linear(side: Sequence[Unit]) -> bool:
    """Whether each unit reads the one before it and nothing else."""
    return all(a.output in b.inputs and sum(1 for u in side if a.output in u.inputs) == 1 for a, b in pairwise(side))


def with_neighbours(score: np.ndarray, left: Sequence[Unit], right: Sequence[Unit], rounds: int = 6) -> np.ndarray:
    """Scores raised where predecessors and successors are alike too, so that a branch finds its own counterpart.

    The slot of a concatenation's input counts: partners feed the same slot.
    """
    made_left = {u.output: i for i, u in enumerate(left)}
    made_right = {u.output: j for j, u in enumerate(right)}
    before_left = [[made_left.get(t, -1) for t in u.inputs] for u in left]
    before_right = [[made_right.get(t, -1) for t in u.inputs] for u in right]
    after_left: list[list[tuple[int, int]]] = [[] for _ in left]
    after_right: list[list[tuple[int, int]]] = [[] for _ in right]
    for before, after in ((before_left, after_left), (before_right, after_right)):
        for index, sources in enumerate(before):
            for slot, source in enumerate(sources):
                if source >= 0:
                    after[source].append((index, slot))
    possible = np.isfinite(score)
    pairs = np.argwhere(possible)
    before = _Neighbours(
        pairs,
        [[(source, 0) for source in sources] for sources in before_left],
        [[(source, 0) for source in sources] for sources in before_right],
        lambda i, j, current: _agreement_before(before_left[i], before_right[j], current, left[i].kind),
    )
    behind = _Neighbours(
        pairs,
        after_left,
        after_right,
        lambda i, j, current: _agreement_after(after_left[i], after_right[j], current, left),
        weigh=lambda i, slot, other: 1.0 if slot == other or isinstance(left[i].kind, Merge) else 0.7,
        alone=1.0,
    )
    own = np.where(possible, score, 0.0)
    current = own / max(1.0, float(own.max(initial=1.0)))
    base = current.copy()
    for _ in range(rounds):
        updated = base.copy()
        updated[possible] += 0.5 * before.agreement(current)
        updated[possible] += 0.5 * behind.agreement(current)
        current = updated / max(1e-12, float(updated.max(initial=1.0)))
    return np.where(possible, score + 2.0 * current, -np.inf)


class _Neighbours:
    """How well the neighbours of each pair of units agree: looked up all at once where each unit has one neighbour.

    Args:
        pairs: (left, right) of each pair.
        left, right: of each unit the (unit, slot) of its neighbours on its side; -1 is the network's input.
        otherwise: says it of one pair whose units have several.
        weigh: what a pair of neighbours counts, by the left one and both slots.
        alone: what it counts that neither has any.
    """

    def __init__(
        self,
        pairs: np.ndarray,
        left: Sequence[Sequence[tuple[int, int]]],
        right: Sequence[Sequence[tuple[int, int]]],
        otherwise: Callable[[int, int, np.ndarray], float],
        *,
        weigh: Callable[[int, int, int], float] = lambda *_: 1.0,
        alone: float = 0.0,
    ) -> None:
        self._fixed, self._otherwise = np.zeros(len(pairs)), otherwise
        self._several: list[tuple[int, int, int]] = []
        looked_up: list[tuple[int, int, int]] = []
        weights: list[float] = []
        for at, (i, j) in enumerate(pairs.tolist()):
            mine, theirs = left[i], right[j]
            if not mine or not theirs:
                self._fixed[at] = 0.0 if mine or theirs else alone
            elif len(mine) > 1 or len(theirs) > 1:
                self._several.append((at, i, j))
            else:
                ((a, slot),), ((b, other),) = mine, theirs
                if min(a, b) < 0:
                    self._fixed[at] = float(a == b)
                else:
                    looked_up.append((at, a, b))
                    weights.append(weigh(a, slot, other))
        self._at, self._left, self._right = np.asarray(looked_up, int).reshape(-1, 3).T
        self._weights = np.asarray(weights)

    def agreement(self, current: np.ndarray) -> np.ndarray:
        """Of each pair, given how alike all units are."""
        made = self._fixed.copy()
        made[self._at] = current[self._left, self._right] * self._weights
        for at, i, j in self._several:
            made[at] = self._otherwise(i, j, current)
        return made


def _agreement_before(mine: list[int], theirs: list[int], current: np.ndarray, kind: Kind) -> float:
    if not mine or not theirs:
        return 0.0
    total = 0.0
    for slot, i in enumerate(mine):
        if isinstance(kind, Merge):
            total += max((current[i, j] if i >= 0 and j >= 0 else float(i == j)) for j in theirs)
        elif slot < len(theirs):
            j = theirs[slot]
            total += current[i, j] if i >= 0 and j >= 0 else float(i == j)
    return total / max(len(mine), len(theirs))


def _agreement_after(
    mine: list[tuple[int, int]], theirs: list[tuple[int, int]], current: np.ndarray, left: Sequence[Unit]
) -> float:
    if not mine or not theirs:
        return float(not mine and not theirs)
    total = 0.0
    for i, slot in mine:
        ordered = not isinstance(left[i].kind, Merge)
        total += max(
            (current[i, j] * (1.0 if slot == other or not ordered else 0.7) for j, other in theirs), default=0.0
        )
    return total / max(len(mine), len(theirs))


def yielding(left: Sequence[Unit], right: Sequence[Unit], score: np.ndarray) -> tuple[tuple[Unit, ...], np.ndarray]:
    """The left side in a topological order that the right side can follow, and the scores in that order.

    A branch that reads the wrong layer stands behind it on the right, and need not on the left: without this the two
    could not be paired in one order. Units that have one candidate alone say so; where the two sides want the opposite
    of each other, no order does, and the left side stays as it is.
    """
    possible = np.isfinite(score)
    sure = {int(j): int(i) for i, j in np.argwhere(possible) if possible[i].sum() == 1 == possible[:, j].sum()}
    made = {u.output: i for i, u in enumerate(left)}
    waiting = [{made[t] for t in u.inputs if t in made} for u in left]
    made = {u.output: j for j, u in enumerate(right)}
    # Of each unit of the right, in its order: the left's units that stand for what it needs.
    before: list[set[int]] = []
    for j, unit in enumerate(right):
        needs = {made[t] for t in unit.inputs if t in made}
        before.append({i for k in needs for i in ({sure[k]} if k in sure else before[k])})
        if j in sure:
            waiting[sure[j]] |= before[j]
    order: dict[int, None] = {}
    behind = list(range(len(left)))
    while behind:
        ready = next((i for i in behind if waiting[i] <= order.keys()), None)
        if ready is None:
            return tuple(left), score
        order[ready] = None
        behind.remove(ready)
    return tuple(left[i] for i in order), score[list(order)]


def follow(left: Sequence[Unit], right: Sequence[Unit], score: np.ndarray) -> tuple[tuple[Unit, ...], np.ndarray]:
    """The right side in the topological order that follows the left side's order best, and the scores in that order."""
    best = [int(np.argmax(score[:, j])) if np.isfinite(score[:, j]).any() else -1 for j in range(len(right))]
    made = {u.output: j for j, u in enumerate(right)}
    waiting = {j: {made[t] for t in u.inputs if t in made} for j, u in enumerate(right)}
    # A unit without a candidate goes right behind what it reads.
    for j in range(len(right)):
        if best[j] < 0:
            best[j] = max((best[k] for k in waiting[j]), default=0)
    order: list[int] = []
    ready = [j for j, needs in waiting.items() if not needs]
    while ready:
        j = min(ready, key=lambda k: (best[k], k))
        ready.remove(j)
        order.append(j)
        for k, needs in waiting.items():
            if j in needs:
                needs.discard(j)
                if not needs:
                    ready.append(k)
    return tuple(right[j] for j in order), score[:, order]


def pairing(score: np.ndarray, free_left: Sequence[bool], free_right: Sequence[bool]) -> list[tuple[int, int]]:
    """The monotone pairing with the greatest sum (Needleman and Wunsch 1970); gaps of optional units cost nothing."""
    rows, columns = score.shape
    gap_left = [0.0 if f else _GAP for f in free_left]
    gap_right = [0.0 if f else _GAP for f in free_right]
    total = np.zeros((rows + 1, columns + 1))
    total[1:, 0] = np.cumsum(gap_left)
    total[0, 1:] = np.cumsum(gap_right)
    step = np.zeros((rows + 1, columns + 1), dtype=np.int8)
    step[1:, 0] = 1
    step[0, 1:] = 2
    for i in range(1, rows + 1):
        line, above = total[i], total[i - 1]
        points = score[i - 1]
        for j in range(1, columns + 1):
            best, kind = above[j] + gap_left[i - 1], 1
            other = line[j - 1] + gap_right[j - 1]
            if other > best:
                best, kind = other, 2
            paired = above[j - 1] + points[j - 1]
            if paired >= best:
                best, kind = paired, 0
            line[j], step[i, j] = best, kind
    pairs: list[tuple[int, int]] = []
    i, j = rows, columns
    while i or j:
        kind = step[i, j]
        if kind == 0:
            pairs.append((i - 1, j - 1))
            i, j = i - 1, j - 1
        elif kind == 1:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
