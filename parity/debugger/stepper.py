"""The debugger without a terminal: both sides in lockstep, one stop after the other, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from parity.activity import added
from parity.align import Pair
from parity.comparison import begun
from parity.debugger.breakpoints import Breakpoint
from parity.debugger.experiments import Experiments
from parity.debugger.known import Known, State
from parity.debugger.played import RecordedPair
from parity.debugger.scene import How
from parity.debugger.stops import Stop, common, end_of, entered, known_places, stops_of, within
from parity.debugger.training import Training
from parity.errors import BadUsage
from parity.lending import Loan
from parity.setup import Setup, set_up
from parity.traces.between import recorded_batch

if TYPE_CHECKING:
    from parity.debugger.looking import Look

__all__ = ["Arrival", "Stepper"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Arrival:
    """Where a command came to, and why it stopped there.

    Attributes:
        stop: where one stands.
        state: what is known of it.
        reason: `step`, `breakpoint`, `divergence`, `reached`, `start`, or `end`.
        breakpoint: which one, where that is the reason.
        passed: the first divergence on the way there that nobody had seen before; None where there is none.
    """

    stop: Stop
    state: State
    reason: str = "step"
    breakpoint: Breakpoint | None = None
    passed: Stop | None = None


class Stepper(Known):
    """Both sides of a comparison, run in lockstep as far as one steps.

    Args:
        setup: both sides, opened; `Stepper.open` does that.
        mode, weights, steps, seed, only, strict: as in `parity.compare`.
        memory: bytes of tensors that each side keeps; what goes over it is computed again when it is looked at.
        options: what the sides were opened with, for sessions and scripts.
        loan: of models in memory.

    Attributes:
        stops: every place at which the sides are compared, in order.
        position: the index of the present one.
        inside: the submodels that one has stepped into; a submodel that one is not inside counts as one step.
        breakpoints: in the order in which they were set.
        experiments: what was put in, replaced and fixed, to be undone.
        comparison: what rules and experiments take; it holds what was seen so far.
        training: both sides' steps.
        batch: what both sides are fed.

    Raises:
        CannotCompare: nothing of one side has a partner on the other.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        mode: str = "train",
        weights: str = "ref",
        steps: int = 3,
        seed: int = 0,
        only: str | None = None,
        strict: bool = False,
        memory: int = 1 << 31,
        options: Mapping[str, Any] | None = None,
        loan: Loan | None = None,
    ) -> None:
        super().__init__(setup, only=only, strict=strict)
        self.options, self.mode, self.steps = dict(options or {}), mode, steps
        self._own = weights == "own"
        self._loan = loan or Loan()
        self._how = How(setup.limits, seed, memory, self._loan.take)
        self.seed = seed
        self.batch = setup.sides.batch if self._recorded is None else recorded_batch(self._recorded.ref)
        self.breakpoints: list[Breakpoint] = []
        if self._recorded is None:
            self._file_values = setup.sides.keras.params()
            self.begin(setup.sides.keras, setup.sides.data)
        else:
            self._play(self._recorded)
        self.experiments: Experiments = Experiments(self)

    @classmethod
    def open(
        cls,
        ref: Any,
        keras: Any,
        batch: Any = None,
        *,
        mode: str = "train",
        weights: str = "ref",
        steps: int = 3,
        seed: int = 0,
        only: str | None = None,
        strict: bool = False,
        memory: int = 1 << 31,
        **options: Any,
    ) -> Stepper:
        """A stepper at the start of two sides; nothing has run.

        A model in memory is stepped itself, not a copy of it: `close` (or leaving a `with`) gives it back as it was.

        Args:
            ref: the reference: path of a MatConvNet (or Keras) file or of a trace, a Keras model, or a runner.
            keras: the Keras side: path of a Keras file or of a trace, a Keras model, or a runner.
            batch: path of an `.npz` or `imdb.mat`, a mapping with `x` and `y`; None makes a seeded one.
            mode: `"train"` or `"eval"`.
            weights: `"ref"` or `"own"`.
            steps: training steps that one can step over.
            seed: of the probe batch and of dropout.
            only: pattern of layers to judge.
            strict: count what this batch does not show.
            memory: see `Stepper`.
            **options: the others of `parity.compare` (map, custom_objects, rtol, atol, allow, keras_engine …).

        Raises:
            ParityError: a file cannot be read, options do not go together, or nothing can be compared.
        """
        loan = Loan(ref, keras)
        setup = set_up(ref=ref, keras=keras, batch=batch, mode=mode, weights=weights, steps=steps, seed=seed, **options)
        given = {
            "ref": ref, "keras": keras, "batch": batch, "mode": mode, "weights": weights, "steps": steps, "seed": seed,
            "only": only, "strict": strict, **options,
        }  # fmt: skip
        try:
            return cls(
                setup, mode=mode, weights=weights, steps=steps, seed=seed, only=only, strict=strict, memory=memory,
                options=given, loan=loan,
            )  # fmt: skip
        except BaseException:
            loan.give_back()
            raise

    def close(self) -> None:
        """Give models in memory back as they came; whoever steps on borrows them again, as they are then."""
        self._loan.give_back()
        self.training.idle()

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self) -> None:
        """Import what the first step needs and the start does not, so that the step need not wait for it."""
        prepare = getattr(self.setup.sides.ref, "prepare", None) if self._recorded is None else None
        if prepare is not None:
            prepare()

    def begin(self, keras: Any, data: Any) -> None:
        """Start over with this Keras runner and batch; what was judged is forgotten."""
        ref = self.setup.sides.ref
        self._loan.take()
        if self.stops:
            ref.load(self.training.start)
            self.setup.sides.keras.load(self._file_values)
        self.comparison, slots = begun(ref, keras, data, mode=self.mode, own=self._own, mapping=self.setup.mapping)
        backward = self.mode == "train" and self.comparison.alignment.has_loss
        if self.stops:
            self.training.release()
        recorded = any(hasattr(side, "recording") or hasattr(side, "trace") for side in (ref, keras))
        self.training = Training(self.comparison, slots, self._how)
        adding = [each.pair for each in added(self.comparison)] if backward else []
        self._stop_at(self.steps, backward=backward, recorded=recorded, adding=adding)

    def _play(self, pair: RecordedPair) -> None:
        """The start of two recorded runs, which are played back."""
        self.comparison, played = pair.begun()
        self.training = cast(Training, played)  # in the part that is asked of it; it refuses the rest
        backward = self.mode == "train" and pair.steps > 0
        self._stop_at(min(self.steps, pair.steps) if backward else 1, backward=backward, recorded=True)

    def _stop_at(self, steps: int, *, backward: bool, recorded: bool, adding: Sequence[Pair] = ()) -> None:
        """Every stop anew, and the first of them judged."""
        self._fixed = tuple(self.comparison.probes)
        self.stops = stops_of(
            self.comparison.alignment, self._fixed, steps=steps, backward=backward, recorded=recorded, adding=adding
        )
        self._states.clear()
        self.position, self.inside = 0, ()
        self._judge_through(0)

    # ---- where one stands

    @property
    def here(self) -> Arrival:
        """The present stop and its state."""
        return Arrival(self.stop, self._judge_through(self.position))

    # ---- going

    def next(self) -> Arrival:
        """One stop on; a submodel that one is not inside is one step."""
        if self.position + 1 >= len(self.stops):
            return Arrival(self.stop, self._judge_through(self.position), "end")
        target = self.position + 1
        crossing = entered(self.inside, self.stops[target])
        if crossing:
            target = end_of(self.stops, target, crossing)
        return self._stood(self._proceed(target, "step", passing=target > self.position + 1))

    def previous(self) -> Arrival:
        """One stop back, which costs nothing."""
        if self.position == 0:
            return Arrival(self.stop, self._judge_through(0), "start")
        target = self.position - 1
        crossing = entered(self.inside, self.stops[target])
        if crossing and self.stop.group[: len(crossing)] == crossing:
            while target > 0 and self.stops[target].group[: len(crossing)] == crossing:
                target -= 1
        return self.goto(target)

    def into(self) -> Arrival:
        """Into the submodel that comes next (or that one stands at the end of), to its first layer.

        Raises:
            BadUsage: there is none.
        """
        for at in (self.position, self.position + 1):
            crossing = entered(self.inside, self.stops[at]) if at < len(self.stops) else ()
            if crossing:
                first = at
                while first > 0 and within(self.stops[first - 1], self.stops[at], crossing):
                    first -= 1
                self.inside = crossing
                return self.goto(first) if first <= self.position else self._proceed(first, "step")
        raise BadUsage("into: there is no submodel here; `next` goes on to the next layer")

    def out(self) -> Arrival:
        """Out of the submodel, to its end.

        Raises:
            BadUsage: one is in none.
        """
        if not self.inside:
            raise BadUsage("out: this is no submodel")
        left, self.inside = self.inside, self.inside[:-1]
        return self._proceed(end_of(self.stops, self.position, left), "step", passing=True)

    def resume(self, progress: Callable[[Stop], None] | None = None) -> Arrival:
        """On to the next breakpoint, divergence, or the end.

        A divergence that shows at a layer in one step and again in the next stops a run once; so does an optimizer that
        moves every layer otherwise.

        Args:
            progress: told of each stop that is passed.
        """
        return self._stood(self._proceed(len(self.stops) - 1, "end", passing=True, faults=True, progress=progress))

    def run_to(self, where: str, progress: Callable[[Stop], None] | None = None) -> Arrival:
        """On to the next stop at a layer; breakpoints on the way stop it.

        Args:
            where: a layer of either side (or a pattern), a phase, or both: `ip1`, `backward`, `ip1 backward`.
            progress: told of each stop that is passed.

        Raises:
            BadUsage: there is no such stop.
        """
        found = self.find(where)
        ahead = [index for index in found if index > self.position]
        if not ahead:
            return self.goto(found[0])
        return self._stood(self._proceed(ahead[0], "reached", passing=True, progress=progress))

    def find(self, where: str, asking: str = "run") -> list[int]:
        """The stops at a layer, in a phase, or both (see `run_to`); BadUsage, of `asking`, where there is none."""
        words = where.split()
        phases = [word for word in words if any(stop.phase == word for stop in self.stops)]
        names = [word for word in words if word not in phases]
        found = [
            stop.index
            for stop in self.stops
            if (not phases or stop.phase in phases)
            and all(any(n and fnmatchcase(n, name) for n in (stop.layer, stop.keras_layer)) for name in names)
        ]
        if not words or not found:
            raise BadUsage(f"{asking}: no stop is {where!r}; {known_places(self.stops, names)}")
        return found

    def goto(self, index: int) -> Arrival:
        """Stand at a stop; what lies before it is judged if nobody has been there."""
        if not 0 <= index < len(self.stops):
            raise BadUsage(f"there are stops 0 to {len(self.stops) - 1}, not {index}")
        state = self._judge_through(index)
        self.position = index
        self.inside = common(self.inside, self.stop)
        return Arrival(self.stop, state, "start" if index == 0 else "step")

    def restart(self) -> Arrival:
        """Back to the start; what was judged stays known, and hit counts begin anew."""
        for item in self.breakpoints:
            item.hits = 0
        self.inside = ()
        return self.goto(0)

    def interrupt(self, *, wanted: bool = True) -> None:
        """From another thread: whatever is running ends before the next layer, by a BadUsage that says where.

        Args:
            wanted: False forgets an interrupt that came too late for what it was meant for.
        """
        (self._halt.set if wanted else self._halt.clear)()

    # ---- breakpoints

    def add_breakpoint(self, item: Breakpoint) -> Breakpoint:
        """Set a breakpoint; it gets the next free number."""
        item.number = 1 + max((b.number for b in self.breakpoints), default=0)
        self.breakpoints.append(item)
        return item

    def remove_breakpoint(self, number: int) -> None:
        """Take a breakpoint away; raises BadUsage where there is none of that number."""
        left = [item for item in self.breakpoints if item.number != number]
        if len(left) == len(self.breakpoints):
            raise BadUsage(f"there is no breakpoint {number}")
        self.breakpoints = left

    # ---- looking

    def look(self, index: int | None = None) -> Look:
        """What can be looked at where one stands (or at another stop)."""
        from parity.debugger.looking import Look

        return Look(self, self.position if index is None else index)

    # ---- inside

    def _proceed(
        self,
        target: int,
        reason: str,
        *,
        passing: bool = False,
        faults: bool = False,
        progress: Callable[[Stop], None] | None = None,
    ) -> Arrival:
        """Stop by stop to a target; with `passing`, breakpoints on the way stop it, with `faults` divergences too."""
        passed: Stop | None = None
        for index in range(self.position + 1, target + 1):
            if progress is not None:
                progress(self.stops[index])
            known = self.state(index) is not None
            state = self._judge_through(index)
            self.position = index
            hit = self._hit(self.stops[index], state)
            if hit is not None and (passing or index == target):
                return Arrival(self.stop, state, "breakpoint", hit, passed)
            if faults and self._is_new_fault(index, state):
                return Arrival(self.stop, state, "divergence")
            if index < target and passed is None and not known and self._is_new_fault(index, state):
                passed = self.stop
        return Arrival(self.stop, self._judge_through(self.position), reason, passed=passed)

    def _hit(self, stop: Stop, state: State) -> Breakpoint | None:
        """The breakpoint that stops a run here; every one that is met counts it."""
        met = [item for item in self.breakpoints if item.met(stop, state.probes)]
        for item in met:
            item.hits += 1
        return next((item for item in met if item.hits > item.after), None)

    # ---- submodels

    def _stood(self, arrival: Arrival) -> Arrival:
        """Where a run was stopped in a submodel one is inside it; where it only went on, out of those it left."""
        stopped = arrival.reason in ("breakpoint", "divergence", "reached")
        self.inside = arrival.stop.group if stopped else common(self.inside, arrival.stop)
        return arrival
