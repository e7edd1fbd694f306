"""One training step on both sides: their tensors as far as they were looked at, and the verdict on each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from parity.align import Pair
from parity.bench import Bench, Trial, Unfit
from parity.case import Comparison
from parity.comparison import same_labels
from parity.debugger.beside import both
from parity.debugger.drawn import Drawn
from parity.debugger.lane import Lane, pass_of
from parity.debugger.nodes import Blocked, nodes_of
from parity.debugger.noise import Noise
from parity.debugger.stops import Faults
from parity.differences import differences
from parity.distances import Distance, distance
from parity.errors import CannotCompare, ParityError
from parity.judge import Verdict, examine
from parity.layers import Kind
from parity.propagation import Propagation, seen_tensor
from parity.report import Probe
from parity.runner import Pass
from parity.sight import at_first_sight
from parity.tensors import shaped
from parity.tolerance import CLEAN
from parity.units import Unit

__all__ = ["How", "Scene"]

Array = np.ndarray


@dataclass(frozen=True)
class How:
    """How both sides are run.

    Attributes:
        limits: (rtol, atol) in place of measured floors, or None.
        seed: of dropout.
        memory: bytes of tensors that each side may keep.
        borrow: called before weights are loaded into either side.
    """

    limits: tuple[float, float] | None = None
    seed: int = 0
    memory: int = 1 << 31
    borrow: Callable[[], None] = lambda: None


class Scene:
    """Both sides at one training step.

    Args:
        run: the comparison that it is a part of; the first step's verdicts go into it.
        step: from 1.
        weights_ref, weights_keras: parameters at its start, by id.
        how: both sides are run.

    Attributes:
        ref, keras: the two lanes.
        run: what rules and experiments take: at later steps a comparison of that step alone.
        edited: reference name of a pair → what its unit computes since an experiment changed it.
        loaded: whether both runners hold this step's weights.
    """

    def __init__(
        self,
        run: Comparison,
        step: int,
        weights_ref: Mapping[str, Array],
        weights_keras: Mapping[str, Array],
        how: How,
    ) -> None:
        self.step, self.how = step, how
        if step > 1:
            known = [p for p in run.probes if p.phase in ("input", "structure", "weights")]
            run = replace(run, verdicts={}, apart={}, explanations={}, bench=None, probes=known)
        self.run = run
        alignment, data, mode = run.alignment, run.data, run.mode
        has_loss = alignment.has_loss
        self._labels = (data.labels_ref if has_loss else None, data.labels_keras if has_loss else None)
        self._drawn = Drawn(run, step, how.seed, lambda tensor: self.keras.value(tensor).shape)
        self._base = (dict(weights_ref), dict(weights_keras))
        self.ref = self.lane_of_ref(weights_ref, data.ref)
        nodes = nodes_of(run.keras.network, alignment.keras_units)
        self.keras = Lane(
            run.keras, nodes, data.keras, self._labels[1], weights_keras, mode=mode, mask=self._drawn.of_keras,
            memory=how.memory,
        )  # fmt: skip
        self.backward = mode == "train" and has_loss
        self._benches: dict[bool, Bench] = {}
        self._propagation: Propagation | None = None
        self._noise = Noise(self)
        self.loaded = False
        self._touched = False
        self.edited: dict[str, Kind] = {}

    def lane_of_ref(self, weights: Mapping[str, Array], inputs: Mapping[str, Array]) -> Lane:
        """The reference with these weights on these inputs."""
        run = self.run
        nodes = nodes_of(run.ref.network, run.alignment.ref_units)
        return Lane(
            run.ref, nodes, inputs, self._labels[0], weights, mode=run.mode, mask=self._drawn.of_ref,
            memory=self.how.memory,
        )  # fmt: skip

    # ---- what both sides show

    @cached_property
    def seen_ref(self) -> Pass:
        """The reference's pass; its tensors are computed when they are asked for."""
        return pass_of(self.ref)

    @cached_property
    def seen_keras(self) -> Pass:
        """The Keras model's pass; its tensors are computed when they are asked for."""
        return pass_of(self.keras)

    def tensor(self, pair: Pair, name: str, side: str) -> Array | None:
        """One end-to-end tensor of a pair by its name in reports; the Keras one in the reference's shape if it fits.

        Raises:
            Blocked: it cannot be computed.
        """
        lane, unit = (self.ref, pair.ref) if side == "ref" else (self.keras, pair.keras)
        named = self.run.named[pair.ref.name]
        if name in ("output", "loss"):
            lane.value(unit.output)  # says why where it cannot be
        elif self.backward:
            lane.local(unit.name)
        value = seen_tensor(named, name, self.seen_ref if side == "ref" else self.seen_keras, side)
        if value is None or side == "ref":
            return value
        expected = seen_tensor(named, name, self.seen_ref, "ref")
        same = None if expected is None else shaped(value, expected.shape)
        return value if same is None else same

    def bench(self, *, backward: bool) -> Bench:
        """Where pairs are run alone."""
        if backward not in self._benches:
            run = self.run
            bench = Bench(
                ref=self.ref.runner,
                keras=self.keras.runner,
                alignment=run.alignment,
                links=run.links,
                named=run.named,
                observed=self.seen_ref,
                mode=run.mode,
                backward=backward,
                labels_ref=self._labels[0],
                labels_keras=same_labels(run.alignment, run.data) if self._labels[0] is not None else None,
                masks=self._drawn.masks,
                limits=self.how.limits,
            )
            self._benches[backward] = bench
        return self._benches[backward]

    def ready(self) -> None:
        """See to it that both runners hold this step's weights, as what runs layers alone expects."""
        if not self.loaded:
            self.how.borrow()
            self.ref.runner.load(self.ref.weights)
            self.keras.runner.load(self.keras.weights)
            self.loaded = True

    def release(self) -> None:
        """Let go of every tensor; what is looked at later is computed again."""
        for lane in (self.ref, self.keras, *self._noise.lanes):
            lane.release()

    def changed(self) -> None:
        """Forget what experiments made untrue: loaded weights, gradients of a finished step, benches and noise."""
        self.loaded, self._touched = False, True
        for lane, seen in ((self.ref, self.seen_ref), (self.keras, self.seen_keras)):
            seen.param_grads = pass_of(lane).param_grads
        self._benches.clear()
        self._propagation = None
        self._noise.forget()

    # ---- verdicts

    def judge(self, pair: Pair, phase: str, before: Faults) -> list[Probe]:
        """The probes of one pair in `forward`, `loss` or `backward`; `before`: the faults at all earlier stops."""
        backward = phase == "backward"
        self.ready()
        self.run.bench = bench = self.bench(backward=backward)
        self.set_weights(bench, pair)
        self._run_both(pair, backward)
        tainted = self._tainted(pair, phase, before)
        apart: dict[str, Distance] = {}
        try:
            trial = bench.trial(pair)
            if self.backward and phase == "forward":
                trial.as_output(self.ref.value(pair.ref.output))  # else its gradient would not fit: it is not run alone
            if not self._touched:
                self._share(trial)
            seen: dict[str, Verdict] = {}
            if not (tainted or self._touched):
                seen, apart = self._at_first_sight(trial)
            found = examine(trial, gradients_only=backward, known=seen)
        except (ParityError, NotImplementedError, Unfit, Blocked) as problem:
            name = "dx" if backward else "loss" if phase == "loss" else "output"
            found = [Verdict(phase, name, "unverified", note=" ".join(str(problem).split()))]
        here = [verdict for verdict in found if verdict.phase == phase]
        name = pair.ref.name
        known = [verdict for verdict in self.run.verdicts.get(name, []) if verdict.phase != phase]
        self.run.verdicts[name] = known + here
        for verdict in here:
            if verdict.tensor in apart and self._shows(pair, verdict.tensor):
                self.run.apart[name, verdict.tensor] = apart[verdict.tensor]
            else:
                self._measure(pair, verdict.tensor)
        probes = [self._probe(pair, verdict, tainted) for verdict in here]
        return [probe if self.step == 1 else replace(probe, step=self.step) for probe in probes]

    def _share(self, trial: Trial) -> None:
        """Give a trial what the reference's lane made of the same inputs and the same upstream gradient."""
        unit = trial.pair.ref
        own = self.ref.seen(unit.name, trial.backward) if self.ref.closed(unit.name, unit.output) else None
        if own is not None:
            trial.__dict__["ref_local"] = own

    def _at_first_sight(self, trial: Trial) -> tuple[dict[str, Verdict], dict[str, Distance]]:
        """What the two end-to-end runs alone can say of a pair, and how far apart their tensors are."""
        pair, backward = trial.pair, trial.bench.backward
        seen = [lane.seen(unit.name, backward) for lane, unit in ((self.ref, pair.ref), (self.keras, pair.keras))]
        mine, theirs = seen
        if mine is None or theirs is None:
            return {}, {}
        pulled = self.keras.gradient(pair.keras.output) if backward else None
        read, above = self._apart_before(trial)
        return at_first_sight(trial, mine, theirs, pulled, gradients_only=backward, read=read, above=above)

    def _apart_before(self, trial: Trial) -> tuple[dict[str, Distance], Distance | None]:
        """How far apart what a pair reads is, and the gradients of what it makes, as far as other stops saw it."""
        run, output = self.run, trial.pair.ref.output
        read: dict[str, Distance] = {}
        for source in trial.ref_feeds:
            maker = run.alignment.by_ref.get(source)
            if maker is not None and (maker.ref.name, "output") in run.apart:
                read[source] = run.apart[maker.ref.name, "output"]
        reader = self.ref.reader(output)
        if reader not in run.named or not self.keras.reader(trial.pair.keras.output):
            return read, None
        sources = run.named[reader].sources
        name = next((n for n, (source, *_) in sources.items() if source == output), "")
        return read, run.apart.get((reader, name))

    def _shows(self, pair: Pair, name: str) -> bool:
        """Whether what a pair makes of a tensor is held against its partner's, and not the end-to-end tensors.

        Of an input's gradient that is so where nobody else reads the input, or where others do and nobody has come to
        them yet: to run their layers is not this stop's business.
        """
        source, *theirs = self.run.named[pair.ref.name].sources.get(name, ("",))
        if not source:
            return True
        if len(theirs) != 1:
            return False
        whole = self.ref.sole(source) and self.keras.sole(theirs[0])
        return whole or self.ref.awaits(source) or self.keras.awaits(theirs[0])

    def _held(self, pair: Pair, name: str) -> tuple[Array | None, Array | None]:
        """What of a pair's tensor is held against each other; raises Blocked where it cannot be computed."""
        source, *theirs = self.run.named[pair.ref.name].sources.get(name, ("",))
        if not source or not self._shows(pair, name):
            return self.tensor(pair, name, "ref"), self.tensor(pair, name, "keras")
        expected, own = self.ref.share(pair.ref.name, source), self.keras.share(pair.keras.name, theirs[0])
        return expected, own if expected is None or own is None else shaped(own, expected.shape)

    def _run_both(self, pair: Pair, backward: bool) -> None:
        """Both sides' own run of a pair, at the same time where neither needs what the other one makes or runs on."""

        def run(lane: Lane, unit: Unit) -> None:
            with suppress(Blocked):  # the judge says so
                if backward:
                    lane.local(unit.name)
                else:
                    lane.value(unit.output)

        mine, theirs = partial(run, self.ref, pair.ref), partial(run, self.keras, pair.keras)
        both(mine, theirs, at_once=self._independent(pair, backward))

    def _independent(self, pair: Pair, backward: bool) -> bool:
        """Whether the two sides run on libraries of their own, and no mask of a dropout is still to be drawn."""
        ref, keras = (getattr(lane.runner, "library", "") for lane in (self.ref, self.keras))
        if not ref or not keras or ref == keras:
            return False
        if self._drawn.settled():
            return True
        if backward or self._drawn.touches(pair.keras):
            return False
        own = (self.ref, pair.ref.output), (self.keras, pair.keras.output)
        with suppress(Blocked):  # the run says why
            return all(len(lane.lacking(tensor)) <= 1 for lane, tensor in own)
        return False

    def set_weights(self, bench: Bench, pair: Pair) -> None:
        """The parameters that both sides are given alone: the reference's, but for those an experiment replaced."""
        values = self.ref.weights
        bench.__dict__["ref_values"] = values
        made: dict[str, Array] = {}
        mine, theirs = self._base
        for link in self.run.links_of(pair):
            if link.keras and link.to_keras is not None and all(key in mine for key in link.ref):
                made[link.keras] = link.to_keras(mine)
        for key in dict.fromkeys(key for keys in pair.keras.params.values() for key in keys):
            if key in theirs and self.keras.weights[key] is not theirs[key]:
                made[key] = self.keras.weights[key]
        bench.__dict__["keras_values"] = made

    def _measure(self, pair: Pair, name: str) -> None:
        key = (pair.ref.name, name)
        self.run.apart.pop(key, None)
        if name in self.run.named[pair.ref.name].unlike:
            return
        try:
            expected, actual = self._held(pair, name)
        except Blocked:
            return
        if expected is not None and actual is not None and actual.shape == expected.shape:
            self.run.apart[key] = distance(actual, expected)

    def _tainted(self, pair: Pair, phase: str, before: Faults) -> bool:
        if self.step > 1 and before:
            return True
        if phase == "backward":
            return any(status == "born" or at != "backward" for at, status in before)
        lost = self.run.alignment.ref_only or self.run.alignment.keras_only
        return bool(before or lost) and pair.ref.name in self._judging.tainted()

    @property
    def _judging(self) -> Propagation:
        if self._propagation is None:
            self._propagation = Propagation(self.run, self.seen_ref)
        return self._propagation

    def _probe(self, pair: Pair, verdict: Verdict, tainted: bool) -> Probe:
        judging, key = self._judging, (pair.ref.name, verdict.tensor)
        judging.noise.pop(key, None)
        judging.x_floors.pop(key, None)
        x_floor = judging.in_floors(key, verdict)
        if x_floor is not None and verdict.status == "match":
            doubtful = tainted and x_floor > 2 * CLEAN
            strays = judging.strays(key, verdict.phase, x_floor) and judging.bounded(verdict.phase)
            if doubtful or strays:  # else noise, which takes a run of the reference, would change no status
                noise = self._noise.at(pair, verdict.tensor, drifted=self.step > 1 and not tainted)
                if noise is not None:
                    judging.noise[key] = noise
                x_floor = judging.in_floors(key, verdict)
        if x_floor is not None:
            judging.x_floors[key] = x_floor
        source = self.run.named[pair.ref.name].sources.get(verdict.tensor, ("",))[0]
        share = self.ref.share(pair.ref.name, source)  # has the shape of the whole, for which others may have to run
        probe = judging.probe(pair, verdict, tainted, None if share is None else share.shape)
        if probe.status == "masked" and pair.ref.name in self.edited:
            now = replace(pair.ref, kind=self.edited[pair.ref.name])
            if not any(d.phase == verdict.phase for d in differences(Pair(now, pair.keras))):
                return replace(probe, status="match", note="")
        return probe

    # ---- the end of the step

    def finish(self) -> None:
        """Everything that an update needs; both passes hold it from now on.

        Raises:
            Blocked: a gradient cannot be computed.
        """
        for lane, seen in ((self.ref, self.seen_ref), (self.keras, self.seen_keras)):
            recorded = self._recorded(lane)
            if recorded is not None:
                seen.param_grads, seen.statistics = recorded.param_grads, recorded.statistics
                continue
            for node in lane.nodes:
                if any(name in lane.network and _averages(lane, name) for name in node.layers):
                    lane.value(node.outputs[-1])
            seen.param_grads = lane.param_gradients()
            seen.statistics = lane.statistics

    def _recorded(self, lane: Lane) -> Pass | None:
        """What a recorded side goes on from, which nothing but the recording may make: its layers may be its own."""
        if self.edited and lane is self.ref:
            return None
        try:
            return lane.recorded()
        except CannotCompare as problem:
            raise Blocked(str(problem)) from None


def _averages(lane: Lane, name: str) -> bool:
    return lane.network[name].kind.name == "BatchNorm" and name not in lane.statistics
