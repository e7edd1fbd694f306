"""How alike two units are, and the pairing of two graphs of units with the greatest likeness in all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import pairwise

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
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            base = _kinship(a, b)
            if base is None:
                continue
            points = base
            points += 1.0 * same_shape(a.shape, b.shape)
            points += 1.0 * _fields_alike(a.kind, b.kind)
            points += 1.0 * _params_alike(a, b, ref, keras)
            if names_left[i] == names_right[j]:
                points += 0.6
            elif names_left[i] and names_right[j]:
                points += 0.3 * SequenceMatcher(None, names_left[i], names_right[j], autojunk=False).quick_ratio() ** 2
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


def _fields_alike(a: Kind, b: Kind) -> float:
    if type(a) is not type(b):
        return 0.0
    mine, theirs = a.describe(), b.describe()
    keys = [k for k in mine if k not in ("momentum", "stored", "sparse", "squeeze", "reduction", "filters", "config")]
    return sum(mine[k] == theirs[k] for k in keys) / len(keys) if keys else 1.0


def _params_alike(a: Unit, b: Unit, ref: Network, keras: Network) -> float:
    def volume(unit: Unit, network: Network, roles: Sequence[str]) -> int:
        return sum(math.prod(network.params[key].shape) for role in roles for key in unit.params.get(role, ()))

    if not a.params and not b.params:
        return 1.0
    roles = ("kernel", "gamma") if "kernel" in a.params or "gamma" in a.params else tuple(a.params)
    if isinstance(a.kind, Opaque) or isinstance(b.kind, Opaque):  # whose author calls its parameters what they like
        mine, theirs = volume(a, ref, tuple(a.params)), volume(b, keras, tuple(b.params))
    else:
        mine, theirs = volume(a, ref, roles), volume(b, keras, roles)
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
    own = np.where(possible, score, 0.0)
    current = own / max(1.0, float(own.max(initial=1.0)))
    base = current.copy()
    for _ in range(rounds):
        updated = base.copy()
        for i in range(len(left)):
            for j in np.flatnonzero(possible[i]):
                updated[i, j] += 0.5 * _agreement_before(before_left[i], before_right[j], current, left[i].kind)
                updated[i, j] += 0.5 * _agreement_after(after_left[i], after_right[j], current, left)
        current = updated / max(1e-12, float(updated.max(initial=1.0)))
    return np.where(possible, score + 2.0 * current, -np.inf)


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
