"""What is known of each stop of a run: its probes and their gravest status, and the verdict on all that was seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from parity.activity import added_probes
from parity.case import Comparison
from parity.debugger.nodes import Blocked
from parity.debugger.played import RecordedPair
from parity.debugger.stops import FAULTS, Faults, Stop
from parity.diagnose import first_divergence
from parity.errors import BadUsage, ParityError
from parity.report import FirstDivergence, Probe
from parity.reports.words import worst
from parity.setup import Setup

if TYPE_CHECKING:
    from parity.debugger.scene import Scene
    from parity.debugger.training import Training

__all__ = ["Known", "State"]


@dataclass(frozen=True)
class State:
    """What is known of a stop.

    Attributes:
        status: the gravest of its probes; `match` where there is nothing to compare.
        probes: its compared tensors.
        seconds: how long it took to run and judge it.
        faults: (phase, status) of what is at fault here and at every stop before.
    """

    status: str
    probes: tuple[Probe, ...]
    seconds: float = 0.0
    faults: Faults = frozenset()


class Known:
    """The stops of a run and what was judged of them: a stop is judged after all before it, once.

    Attributes:
        setup: both sides, opened.
        stops: every place at which the sides are compared, in order.
        position: the index of the present one.
        comparison: what rules and experiments take; it holds what was seen so far.
        training: both sides' steps.
    """

    def __init__(self, setup: Setup, *, only: str | None, strict: bool) -> None:
        self.setup, self._only, self._strict = setup, only, strict
        self._recorded = RecordedPair.of(setup)
        self._halt = threading.Event()
        self.comparison: Comparison
        self.training: Training
        self.stops: tuple[Stop, ...] = ()
        self.position = 0
        self._fixed: tuple[Probe, ...] = ()
        self._states: dict[int, State] = {}

    @property
    def stop(self) -> Stop:
        """The present stop."""
        return self.stops[self.position]

    def state(self, index: int | None = None) -> State | None:
        """What is known of a stop (the present one by default); None where nobody has been there."""
        return self._states.get(self.position if index is None else index)

    def scene(self, index: int | None = None) -> Scene:
        """Both sides at a stop's training step (the present stop by default).

        Raises:
            BadUsage: an update before it cannot be made.
        """
        stop = self.stops[self.position if index is None else index]
        try:
            return self.training.scene(stop.step)
        except Blocked as problem:
            raise BadUsage(f"{stop.words} cannot be come to: {problem}") from None

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Every tensor compared so far, in the order of the stops; those of phases without a run are all there."""
        seen = [p for index in sorted(self._states) for p in self._states[index].probes if self.stops[index].pair]
        return (*self._fixed, *seen)

    @property
    def judged(self) -> list[Probe]:
        """Of `probes` those that count: what `only` names and nobody allows."""
        return [p for p in self.probes if self._counts(p)]

    @property
    def first_divergence(self) -> FirstDivergence | None:
        """The earliest fault of what was compared so far; None while there is none."""
        return first_divergence(self.judged, (), strict=self._strict, alone=self._recorded is None)

    @property
    def verdict(self) -> str:
        """`diverged`, `unverified` or `match`, of what was compared so far."""
        if self.first_divergence is not None:
            return "diverged"
        return "unverified" if any(p.status == "unverified" for p in self.judged) else "match"

    @property
    def finished(self) -> bool:
        """Whether every stop was judged."""
        return len(self._states) == len(self.stops)

    def _counts(self, probe: Probe) -> bool:
        names = [name for name in (probe.layer, probe.keras_layer) if name]
        if self._only is not None and probe.phase != "input" and not any(fnmatchcase(n, self._only) for n in names):
            return False
        return not any(
            probe.status == status and any(fnmatchcase(name, pattern) for name in names)
            for status, pattern in self.setup.allowed
        )

    def _judge_through(self, index: int) -> State:
        """The state of a stop, after every stop before it."""
        for at in range(len(self._states), index + 1):  # what is known has no gaps
            if self._halt.is_set():
                self._halt.clear()
                raise BadUsage(f"stopped at {self.stop.words}")
            state = self._states[at] = self._judge(self.stops[at])
            if self.stops[at].pair is not None:
                self.comparison.probes += filter(_kept, state.probes)
        return self._states[index]

    def ahead(self) -> Iterator[Stop]:
        """The stops behind the present one, each judged when it is come to; one stays where one is."""
        for index in range(self.position + 1, len(self.stops)):
            self._judge_through(index)
            yield self.stops[index]

    def _judge(self, stop: Stop) -> State:
        began = time.perf_counter()
        before = self._states[stop.index - 1].faults if stop.index else _faults(self._fixed)
        if stop.pair is None:
            return State(worst(p.status for p in stop.fixed), stop.fixed, faults=before)
        try:
            if stop.adds:
                probes = [probe for probe in added_probes(self.comparison) if probe.layer == stop.layer]
            elif stop.phase == "update":
                probes = self.training.probes(stop.step, stop.layer, before)
            else:
                probes = self.training.scene(stop.step).judge(stop.pair, stop.phase, before)
        except (Blocked, ParityError) as problem:
            note = " ".join(str(problem).split())
            name = {"forward": "output", "loss": "loss", "backward": "dx"}.get(stop.phase, "update")
            probes = [Probe(stop.layer, stop.keras_layer, stop.phase, name, stop.step, status="unverified", note=note)]
        if stop.phase == "backward" and any(p.status not in ("match", "masked") for p in probes):
            self._unmask(stop)
        seconds = time.perf_counter() - began
        return State(worst(p.status for p in probes), tuple(probes), seconds, before | _faults(probes))

    def _unmask(self, stop: Stop) -> None:
        """A field that seemed to be hidden by the batch shows in the gradients: then it is not masked."""
        for at, state in list(self._states.items()):
            other = self.stops[at]
            if other.pair is stop.pair and other.step == stop.step and state.status == "masked":
                probes = tuple(replace(p, status="match", note="") if p.status == "masked" else p for p in state.probes)
                self._states[at] = replace(state, status=worst(p.status for p in probes), probes=probes)
                self._note()

    def forget(self, index: int) -> None:
        """What was judged from a stop on is not true any more; the present stop is judged anew."""
        self.comparison.explanations.clear()
        for at in [at for at in self._states if at >= index]:
            stop = self.stops[at]
            del self._states[at]
            if stop.pair is not None and stop.phase != "update":
                run = self.training.scene(stop.step).run if stop.step <= self.training.reached else None
                if run is not None:
                    kept = [v for v in run.verdicts.get(stop.layer, []) if v.phase != stop.phase]
                    run.verdicts[stop.layer] = kept
                    run.explanations.pop(stop.layer, None)
        self._note()
        self._judge_through(self.position)

    def _note(self) -> None:
        """What rules look at holds what was seen so far: as in `compare`, of later steps their updates."""
        self.comparison.probes[:] = filter(_kept, self.probes)

    def _is_new_fault(self, index: int, state: State) -> bool:
        alone = self._recorded is None  # else nobody can say in which layer what two runs differ by was born
        bad = {*FAULTS, *(("masked",) if self._strict else ())} - ({"inherited"} if alone else set())
        stop = self.stops[index]
        if not any(p.status in bad and self._counts(p) for p in state.probes):
            return False
        earlier = [
            s
            for s in self.stops[:index]
            if s.phase == stop.phase and (not alone or s.phase == "update" or s.layer == stop.layer)
        ]
        return not any(p.status in bad and self._counts(p) for s in earlier for p in self._states[s.index].probes)


def _kept(probe: Probe) -> bool:
    return probe.step == 1 or probe.phase == "update"


def _faults(probes: Iterable[Probe]) -> Faults:
    return frozenset((p.phase, p.status) for p in probes if p.status in FAULTS)
