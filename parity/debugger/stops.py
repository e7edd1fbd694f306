"""Where one can stand: the places of a run at which the two sides are held against each other, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TypeAlias

from parity.align import Alignment, Pair
from parity.layers import Loss
from parity.report import Probe

__all__ = ["FAULTS", "Faults", "Stop", "common", "end_of", "entered", "known_places", "stops_of", "within"]

FAULTS = ("born", "unpaired", "inherited")
"""The statuses of what does not agree."""

Faults: TypeAlias = frozenset[tuple[str, str]]
"""(phase, status) of what does not agree."""


@dataclass(frozen=True, eq=False)
class Stop:
    """One place of a run.

    Attributes:
        index: its place among all stops, from 0.
        phase: `input`, `structure`, `weights`, `forward`, `loss`, `backward` or `update`.
        step: the training step, from 1.
        layer: the reference's layer; empty where only Keras has it, and at the start.
        keras_layer: the Keras layer.
        pair: whose tensors are compared; None in the phases in which nothing runs.
        group: the submodels that the Keras layer stands in, from the outermost on.
        fixed: what is compared in the phases in which nothing runs.
        adds: whether what is compared is what each side adds to the loss for the pair's output.
    """

    index: int
    phase: str
    step: int
    layer: str
    keras_layer: str
    pair: Pair | None = None
    group: tuple[str, ...] = ()
    fixed: tuple[Probe, ...] = field(default=(), repr=False)
    adds: bool = False

    @property
    def words(self) -> str:
        """Where it is, e.g. `forward of ip1 (Keras conv2d_5), step 2`."""
        if not self.layer and not self.keras_layer:
            return "the start: what both sides are fed"
        name = self.layer or f"Keras {self.keras_layer}"
        partner = f" (Keras {self.keras_layer})" if self.layer and self.keras_layer not in ("", self.layer) else ""
        step = f", step {self.step}" if self.step > 1 or self.phase == "update" else ""
        what = f"what is added to the {self.phase} for" if self.adds else f"{self.phase} of"
        return f"{what} {name}{partner}{step}"


def stops_of(
    alignment: Alignment,
    fixed: Sequence[Probe],
    *,
    steps: int,
    backward: bool,
    recorded: bool = False,
    adding: Sequence[Pair] = (),
) -> tuple[Stop, ...]:
    """Every stop in order: the start, what differs in structure and weights, then each training step.

    Args:
        alignment: who is whose partner.
        fixed: the probes of the phases in which nothing runs.
        steps: training steps.
        backward: False stops behind the loss of the first step.
        recorded: whether a side only plays back what was recorded: of its later steps there are the updates alone.
        adding: the pairs for whose output a side adds something to the loss.
    """
    made: list[Stop] = []

    def add(
        phase: str, step: int, pair: Pair | None, probes: Iterable[Probe] = (), names: tuple[str, str] = ("", "")
    ) -> None:
        layer, keras = (pair.ref.name, pair.keras.origin) if pair else names
        group = tuple(keras.split("/")[:-1]) if phase in ("forward", "backward", "update") else ()
        made.append(Stop(len(made), phase, step, layer, keras, pair, group, tuple(probes)))

    add("input", 1, None, [p for p in fixed if p.phase == "input"])
    for phase in ("structure", "weights"):
        names = dict.fromkeys((p.layer, p.keras_layer) for p in fixed if p.phase == phase and p.status != "match")
        for layer, keras in names:
            here = [p for p in fixed if p.phase == phase and (p.layer, p.keras_layer) == (layer, keras)]
            add(phase, 1, None, here, (layer, keras))
    losses = [pair for pair in alignment.pairs if isinstance(pair.ref.kind, Loss)]
    others = [pair for pair in alignment.pairs if pair not in losses]
    with_params = [pair for pair in alignment.pairs if pair.ref.params or pair.keras.params]
    for step in range(1, (steps if backward else 1) + 1):
        if step == 1 or not recorded:
            for pair in others:
                add("forward", step, pair)
            for pair in losses:
                add("loss", step, pair)
            for pair in adding if step == 1 else ():  # it is a law of the two networks, the same in every step
                add("loss", step, pair)
                made[-1] = replace(made[-1], adds=True)
            if backward:
                for pair in reversed(alignment.pairs):
                    add("backward", step, pair)
        if backward:
            for pair in with_params:
                add("update", step, pair)
    return tuple(made)


def known_places(stops: Sequence[Stop], names: Sequence[str]) -> str:
    """What somebody can go to who asked for layers of these names: what is like the first that there is none of."""
    known = list(dict.fromkeys(name for stop in stops for name in (stop.layer, stop.keras_layer) if name))
    phases = list(dict.fromkeys(stop.phase for stop in stops))
    strange = next((n for n in names if not any(fnmatchcase(name, n) for name in known)), "")
    near = get_close_matches(strange, [*phases, *known], 3) if strange else []
    meant = f"perhaps {' or '.join(near)} is meant; " if near else ""
    first = list(dict.fromkeys(stop.layer or stop.keras_layer for stop in stops if stop.layer or stop.keras_layer))
    more = f" and {len(first) - _NAMED} more" if len(first) > _NAMED else ""
    return f"{meant}the phases are {', '.join(phases)}, and the layers {', '.join(first[:_NAMED])}{more}"


_NAMED = 12
"""Layers that a message names."""

# ---- submodels


def common(inside: Sequence[str], stop: Stop) -> tuple[str, ...]:
    """Of the submodels that one is inside, those that a stop stands in too."""
    depth = 0
    for mine, theirs in zip(inside, stop.group, strict=False):
        if mine != theirs:
            break
        depth += 1
    return tuple(inside[:depth])


def entered(inside: Sequence[str], stop: Stop) -> tuple[str, ...]:
    """The submodel just below the present one that a stop stands in; () where it stands in none."""
    depth = len(common(inside, stop))
    return stop.group[: depth + 1] if len(stop.group) > depth == len(inside) else ()


def within(stop: Stop, other: Stop, group: Sequence[str]) -> bool:
    """Whether a stop stands in a submodel in the same phase and step as another."""
    return (stop.phase, stop.step) == (other.phase, other.step) and stop.group[: len(group)] == tuple(group)


def end_of(stops: Sequence[Stop], index: int, group: Sequence[str]) -> int:
    """The last of the stops from `index` on that stand in a submodel."""
    last = index
    while last + 1 < len(stops) and within(stops[last + 1], stops[index], group):
        last += 1
    return last
