"""End-to-end errors beside the isolated ones: what was born in a layer, and what it only passes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from parity.align import Pair
from parity.case import Comparison
from parity.differences import differences
from parity.distances import Distance, distance
from parity.judge import ROUNDED, Verdict
from parity.layers import Activation, Opaque, Pool
from parity.report import Probe
from parity.runner import Pass
from parity.tensors import Named, shaped
from parity.tolerance import CLEAN

__all__ = ["Propagation", "propagated_distances", "propagated_probes", "seen_tensor"]

Array = np.ndarray

_CHAOS = 200.0
"""Propagated error, in floors of one layer, that a clean deep net may pile up before it is looked at more closely."""

_PLAIN = {"forward": 1e-4, "loss": 1e-4, "backward": 1e-2}
"""Relative propagated error below which a net without faults needs no closer look: activations that change sign by
rounding alone make gradients differ by this much."""


def propagated_distances(run: Comparison, ref: Pass, keras: Pass) -> dict[tuple[str, str], Distance]:
    """(pair, tensor) → how far apart the two end-to-end tensors are, of all that both passes saw."""

    def measured(item: tuple[Named, str]) -> Distance | None:
        named, name = item
        if name in named.unlike:
            return None
        expected, actual = seen_tensor(named, name, ref, "ref"), seen_tensor(named, name, keras, "keras")
        if expected is None or actual is None:
            return None
        fits = shaped(actual, expected.shape)
        return None if fits is None else distance(fits, expected)

    items = [(named, name) for named in run.named.values() for name in named.names]
    # numpy lets go of the interpreter inside large arrays, so every processor can measure.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as workers:
        found = workers.map(measured, items)
        return {(n.pair.ref.name, name): apart for (n, name), apart in zip(items, found, strict=True) if apart}


def propagated_probes(run: Comparison) -> list[Probe]:
    """The probes of forward, loss and backward, with their statuses; needs the verdicts and both first passes."""
    return Propagation(run).probes()


def seen_tensor(named: Named, name: str, seen: Pass, side: str) -> Array | None:
    """One end-to-end tensor of a pair."""
    if name in named.sources:
        return seen.output_grads.get(named.sources[name][0 if side == "ref" else 1])
    return named.of(seen, side, name)


class Propagation:
    """End-to-end errors beside the isolated ones, and the status of each probe.

    Args:
        run: its verdicts, distances and passes; what is not known yet is left out.
        seen: the reference's pass; by default that of its first step.
    """

    def __init__(self, run: Comparison, seen: Pass | None = None) -> None:
        self.run, self.ref = run, seen or run.course.passes[0]
        self.distances = run.apart
        self.noise: dict[tuple[str, str], Distance] = {}
        self.x_floors: dict[tuple[str, str], float] = {}
        self.rows_noted = any("ties" in v.note for found in run.verdicts.values() for v in found)

    def probes(self) -> list[Probe]:
        """Every probe, with what its status needs measured first."""
        run = self.run
        faulty = any(p.status in ("born", "unpaired") for p in run.probes)
        faulty |= any(v.status == "born" for found in run.verdicts.values() for v in found)
        if faulty or self._strays():
            self._measure_noise()
        self.x_floors = self._in_floors()
        forward, loss, backward = [], [], []
        tainted = self.tainted()
        for pair in run.alignment.pairs:
            for verdict in run.verdicts[pair.ref.name]:
                if verdict.phase == "forward":
                    forward.append(self.probe(pair, verdict, pair.ref.name in tainted))
                elif verdict.phase == "loss":
                    loss.append(self.probe(pair, verdict, pair.ref.name in tainted))
        before = any(p.status in ("born", "unpaired", "inherited") for p in (*run.probes, *forward, *loss))
        for pair in reversed(run.alignment.pairs):
            here = [v for v in run.verdicts[pair.ref.name] if v.phase == "backward"]
            backward += [self.probe(pair, v, before) for v in here]
            before |= any(v.status == "born" for v in here)
        return forward + loss + backward

    def _strays(self) -> bool:
        """Whether end-to-end values differ by more than clean layers usually pile up."""
        phases = {(name, v.tensor): v.phase for name, found in self.run.verdicts.items() for v in found}
        return any(self.strays(key, phases[key], x_floor) for key, x_floor in self._in_floors().items())

    def strays(self, key: tuple[str, str], phase: str, x_floor: float) -> bool:
        """Whether an end-to-end value differs by more than clean layers usually pile up."""
        return x_floor > _CHAOS and self.distances[key].relative > _PLAIN[phase]

    # ---- distances

    def _in_floors(self) -> dict[tuple[str, str], float]:
        """Propagated distances in floors: of the layer alone, or of the whole net where that was measured."""
        made: dict[tuple[str, str], float] = {}
        for pair in self.run.alignment.pairs:
            for verdict in self.run.verdicts[pair.ref.name]:
                key = (pair.ref.name, verdict.tensor)
                x_floor = self.in_floors(key, verdict)
                if x_floor is not None:
                    made[key] = x_floor
        return made

    def in_floors(self, key: tuple[str, str], verdict: Verdict) -> float | None:
        """One propagated distance in floors; None where it is not known."""
        apart, noise = self.distances.get(key), self.noise.get(key)
        if apart is None:
            return None
        floor = np.asarray(verdict.floor, dtype=np.float64)
        if noise is not None and noise.channel_rms.shape in (floor.shape, ()):
            floor = np.maximum(floor, noise.channel_rms)
        elif noise is not None:
            floor = np.maximum(floor, noise.rms)
        return apart.x_floor(floor)

    def _measure_noise(self) -> None:
        """What half an ulp in every input and weight makes of every tensor: the whole net's own amplification."""
        for shaken in self._shaken():
            for layer, named in self.run.named.items():
                for name in named.names:
                    key = (layer, name)
                    expected = seen_tensor(named, name, self.ref, "ref")
                    moved = seen_tensor(named, name, shaken, "ref")
                    if expected is None or moved is None:
                        continue
                    noise, known = distance(moved, expected), self.noise.get(key)
                    if known is None or noise.rms > known.rms:
                        self.noise[key] = noise

    def _shaken(self) -> Iterator[Pass]:
        """The reference with every input and weight moved by half an ulp; of a recording, what it says of that."""
        run, bench = self.run, self.run.bench
        assert bench is not None
        recorded = getattr(run.ref, "shaken", None)
        if recorded is not None:
            yield recorded()
            return
        values = run.course.weights[0]
        rng = np.random.default_rng(0)

        def jittered(value: Array) -> Array:
            return (value * (1 + rng.uniform(-1, 1, value.shape) * 2.0**-24)).astype(value.dtype)

        try:
            for ties in ("column", "row", "shared") if self.rows_noted else ("column",):
                run.ref.load({key: jittered(value) for key, value in values.items()})
                yield run.ref.run(
                    {name: jittered(value) for name, value in run.data.ref.items()},
                    bench.labels_ref,
                    mode=run.mode,
                    backward=bench.backward,
                    masks=bench.ref_masks,
                    ties=ties,
                )
        finally:
            run.ref.load(values)

    # ---- statuses

    def tainted(self) -> set[str]:
        """Pairs whose end-to-end value may differ by a fault above them (or in their own structure or weights)."""
        run, alignment = self.run, self.run.alignment
        own = {p.layer for p in run.probes if p.phase in ("structure", "weights") and p.status == "born"}
        lost = {unit.output for unit in (*alignment.ref_only, *alignment.keras_only)}
        all_inputs = any(p.phase == "input" and p.status == "born" for p in run.probes)
        return self._from(own, lambda verdict: verdict.status == "born", lost, inputs=all_inputs)

    def _from(
        self,
        own: Set[str],
        source: Callable[[Verdict], bool],
        lost: Set[str] = frozenset(),
        *,
        inputs: bool = False,
    ) -> set[str]:
        """Pairs behind others, on either side, units without a partner looked through along their first input.

        Args:
            own: pairs to begin with, themselves among them.
            source: whether a pair with such a forward verdict is one, itself not among them.
            lost: tensors of units without a partner that count like sources.
            inputs: whether the network's inputs count likewise.
        """
        run, alignment = self.run, self.run.alignment
        found: set[str] = set()
        behind_one = any(v.phase == "forward" and source(v) for verdicts in run.verdicts.values() for v in verdicts)
        if not (own or lost or inputs or behind_one):
            return found

        def behind(tensor: str, side: str) -> bool:
            while True:
                if tensor in lost:
                    return True
                paired = (alignment.by_ref if side == "ref" else alignment.by_keras).get(tensor)
                if paired is not None:
                    name = paired.ref.name
                    return name in found or any(v.phase == "forward" and source(v) for v in run.verdicts.get(name, ()))
                unit = (alignment.ref_makers if side == "ref" else alignment.keras_makers).get(tensor)
                if unit is None or not unit.inputs:
                    return inputs
                tensor = unit.inputs[0]

        for pair in alignment.pairs:
            above = any(behind(t, "ref") for t in pair.ref.inputs) or any(behind(t, "keras") for t in pair.keras.inputs)
            if above or pair.ref.name in own:
                found.add(pair.ref.name)
        return found

    def probe(self, pair: Pair, verdict: Verdict, tainted: bool, shape: tuple[int, ...] | None = None) -> Probe:
        """The probe of one verdict.

        Args:
            pair: whose.
            verdict: on one of its tensors.
            tainted: whether its end-to-end value may differ by a fault before it.
            shape: of the reference's tensor; None looks at it.
        """
        key = (pair.ref.name, verdict.tensor)
        apart, x_floor = self.distances.get(key), self.x_floors.get(key)
        status, note = verdict.status, verdict.note
        above = x_floor is not None and x_floor > 2 * CLEAN and self._beyond(key, verdict)
        if (status == "unverified" and (tainted or self._misfit(pair))) or (status == "match" and above and tainted):
            status = "inherited"
        elif status == "match" and not tainted and self._unaccounted(key, verdict):
            status, note = "unverified", "differs end to end although each layer alone agrees"
        if status == "match" and verdict.tensor in ("output", "loss") and self._hidden(pair, verdict.phase):
            status, note = "masked", "fields differ, but this batch does not show it"
        shown = apart or verdict.distance
        return Probe(
            layer=pair.ref.name,
            keras_layer=pair.keras.origin,
            phase=verdict.phase,
            tensor=verdict.tensor,
            shape=self._shape(pair, verdict) if shape is None else shape,
            status=status,
            max_abs=shown.max_abs if shown else None,
            rms_rel=shown.relative if shown else None,
            floor=verdict.floor_rms if verdict.x_floor is not None else None,
            isolated_x_floor=verdict.x_floor,
            propagated_x_floor=x_floor,
            note=note,
        )

    def _beyond(self, key: tuple[str, str], verdict: Verdict) -> bool:
        """Whether the whole tensor is further off than noise, not only a channel that is all but silent."""
        apart, noise = self.distances[key], self.noise.get(key)
        return apart.rms > 2 * max(noise.rms if noise else 0.0, verdict.floor_rms)

    def _unaccounted(self, key: tuple[str, str], verdict: Verdict) -> bool:
        """Whether the whole net's own noise, as measured, cannot be what makes the end-to-end values differ.

        By the whole tensor, not by channel: where rounding switches one activation of a silent channel on, that
        channel's error is any multiple of its floor.
        """
        apart, noise = self.distances.get(key), self.noise.get(key)
        if apart is None or noise is None or apart.relative <= _PLAIN[verdict.phase]:
            return False
        if not self.bounded(verdict.phase):
            return False
        if key[0] in self._behind_rounding():
            return False
        return apart.rms > _CHAOS * max(noise.rms, verdict.floor_rms)

    def _behind_rounding(self) -> set[str]:
        """Pairs behind one whose float32 results are far apart though float64 agrees, and that one: it makes rounding.

        A batch normalisation of a map that is all but constant divides rounding by the root of epsilon, which shaking
        cannot show. What is a tenth of `_PLAIN` may grow to it further on.
        """

        def large(verdict: Verdict) -> bool:
            size = verdict.distance.relative if verdict.distance else 0.0
            return (verdict.x_floor or 0.0) > _CHAOS or size > 0.1 * _PLAIN["forward"]

        own = {
            name
            for name, verdicts in self.run.verdicts.items()
            if any(v.phase == "forward" and v.note == ROUNDED and large(v) for v in verdicts)
        }
        return self._from(own, lambda _: False) if own else own

    def bounded(self, phase: str) -> bool:
        """Whether shaken runs bound what rounding alone may do end to end in a phase of a net without faults."""
        return not (phase == "backward" and self._jumps())

    def _jumps(self) -> bool:
        """Whether gradients may jump where activations move by rounding: another maximum wins, a relu switches.

        A few shaken runs need not hit the same near tie, so they cannot bound what one of them does to a gradient.
        """
        kinds = [pair.ref.kind for pair in self.run.alignment.pairs]
        return any(
            (isinstance(kind, Pool) and kind.method == "max")
            or (isinstance(kind, Activation) and kind.function.startswith("relu"))
            or isinstance(kind, Opaque)
            for kind in kinds
        )

    def _misfit(self, pair: Pair) -> bool:
        return any(
            p.layer == pair.ref.name and p.phase == "structure" and p.status in ("born", "inherited")
            for p in self.run.probes
        )

    def _hidden(self, pair: Pair, phase: str) -> bool:
        """Whether a field differs that acts in this phase, though no number of the pair does."""
        if any(v.status != "match" for v in self.run.verdicts[pair.ref.name]):
            return False
        return any(d.phase == phase for d in differences(pair))

    def _shape(self, pair: Pair, verdict: Verdict) -> tuple[int, ...]:
        if verdict.tensor == "loss":
            return ()
        expected = seen_tensor(self.run.named[pair.ref.name], verdict.tensor, self.ref, "ref")
        return () if expected is None else tuple(expected.shape)
