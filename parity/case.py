"""What one comparison holds: both runners, who is whose partner, and everything that was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from parity.align import Alignment, Pair
from parity.bench import Bench
from parity.detail import Album
from parity.distances import Distance
from parity.judge import Verdict
from parity.orders import Orders
from parity.rehearsal import Rehearsal
from parity.report import Outcome, Probe
from parity.runner import Runner, Targets
from parity.tensors import Named
from parity.transfer import Link
from parity.updates import Course, Move

__all__ = ["Comparison", "Data"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Data:
    """The batch as each side takes it: input → n h w c, and what the losses are held against."""

    ref: Mapping[str, Array]
    keras: Mapping[str, Array]
    labels_ref: Targets | None
    labels_keras: Targets | None


@dataclass(eq=False)
class Comparison:
    """Everything that one comparison knows, for rules and reports.

    Attributes:
        ref, keras: the runners.
        data: the batch.
        mode: `"train"` or `"eval"`.
        own: whether the Keras file's own weights were kept.
        alignment, links: who is whose partner.
        named: reference name → the tensors of each pair.
        bench: where pairs are run alone.
        verdicts: pair name → its isolated verdicts.
        moves: the isolated updates.
        rehearsal: what both optimizers make of gradients that the batch does not have; None where one cannot be asked.
        course, free: both sides' free runs over the steps.
        probes: every compared tensor, in phase order.
        apart: (pair, tensor) → how far apart the end-to-end tensors are.
        outcome: what the predictions say.
        old_values: the Keras file's own parameters, before anything was loaded; what `orders` tells of is undone.
        orders: the hidden channels that the Keras file has in another order, which changes nothing that it computes.
        notes: what a reader should know of how the layers were paired.
        explanations: pair name → what the rules found to explain it, kept so that it is looked for once.
        album: where details of tensors are kept; None where nobody asked for them.
    """

    ref: Runner
    keras: Runner
    data: Data
    mode: str
    own: bool
    alignment: Alignment
    links: tuple[Link, ...]
    named: Mapping[str, Named]
    old_values: Mapping[str, Array]
    notes: tuple[str, ...] = ()
    explanations: dict[str, Any] = field(default_factory=dict)
    orders: Orders = field(default_factory=Orders)
    bench: Bench | None = None
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    rehearsal: Rehearsal | None = None
    course: Course = field(default_factory=Course)
    free: Course = field(default_factory=Course)
    apart: dict[tuple[str, str], Distance] = field(default_factory=dict)
    probes: list[Probe] = field(default_factory=list)
    outcome: Outcome | None = None
    album: Album | None = None

    def links_of(self, pair: Pair) -> list[Link]:
        """Those of a pair's own parameters, and of those that it shares with others."""
        own = dict.fromkeys(key for keys in pair.keras.params.values() for key in keys)
        by_pair, by_key = self._linked
        shared = [link for key in own for link in by_key.get(key, ())]
        return list(dict.fromkeys([*by_pair.get(pair.ref.name, ()), *shared]))

    @cached_property
    def _linked(self) -> tuple[dict[str, list[Link]], dict[str, list[Link]]]:
        by_pair: dict[str, list[Link]] = {}
        by_key: dict[str, list[Link]] = {}
        for link in self.links:
            by_pair.setdefault(link.pair.ref.name, []).append(link)
            if link.keras:
                by_key.setdefault(link.keras, []).append(link)
        return by_pair, by_key

    def diverged(self, pair: Pair, *phases: str) -> bool:
        """Whether a fault was born in this pair in one of these phases."""
        return any(p.layer == pair.ref.name and p.phase in phases and p.status == "born" for p in self.probes)
