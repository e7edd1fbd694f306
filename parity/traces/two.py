"""Two recorded runs side by side: what differs end to end, with nothing run again and no framework loaded.

Layers cannot be run alone here. So where the two part, the first probe above noise is named; in which layer the
difference was born stays open, though what differs between the two networks and recipes is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity.align import Map, Pair, align
from parity.batch import Batch
from parity.case import Comparison, Data
from parity.comparison import outcome_of
from parity.detail import Album
from parity.differences import differences
from parity.errors import CannotCompare
from parity.layers import Activation, Dropout, Opaque, Pool
from parity.report import PHASES, Finding, Probe
from parity.rules import RULES
from parity.runner import Pass
from parity.structure import compare_inputs, compare_labels, compare_structure, compare_weights
from parity.tensors import Named, named, shaped
from parity.tolerance import CLEAN, ROUNDOFF, Distance, distance
from parity.traces.gaps import gap
from parity.traces.held import Held
from parity.traces.moves import recorded_moves, update_probes
from parity.traces.reader import Trace
from parity.transfer import Link, links
from parity.updates import Move

__all__ = ["OPEN", "Recorded", "Two", "begun_traces", "compare_traces", "findings_of"]

Array = np.ndarray

OPEN = "the first probe above noise; two traces cannot say in which layer it was born"
"""The note of the first probe at which two traces part."""

_DRAWN = "dropout kept other values on the two sides; record the reference with the Keras trace as its --batch"

_ABOVE = 2 * CLEAN
"""Floors above which an end-to-end difference is no noise, in the worst channel."""

_PLAIN = {"forward": 1e-4, "loss": 1e-4, "backward": 1e-2}
"""Relative differences that rounding alone can grow to in a deep network: an activation that switches makes them."""

_PICTURED = 1 << 24
"""Elements of the largest tensor that is looked into: it must be held whole, on both sides."""

_GROWN = 200.0
"""Floors that rounding alone can grow to, where an activation or a maximum switches that did not in the shaken run."""


class Recorded:
    """A trace in the part that rules and reports want of a runner: who it is, not what it runs."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.network, self.recipe = trace.network, trace.recipe
        self.remarks = [str(r) for r in trace.info.get("remarks", [])]

    @property
    def engine(self) -> Mapping[str, Any]:
        """What executed the model when it was recorded."""
        return {**self.trace.engine, "recorded": f"parity {self.trace.header.parity}"}

    def params(self) -> Mapping[str, Array]:
        """Param id → its value before the first step, read when asked for."""
        return self.trace.weights(0)


class _Transferred(Mapping[str, Array]):
    """Keras id → the reference's values in the Keras layout, made one by one."""

    def __init__(self, all_links: tuple[Link, ...], values: Mapping[str, Array]) -> None:
        self.values_of = values
        self.links = {
            link.keras: link
            for link in all_links
            if link.to_keras is not None and link.keras and all(key in values for key in link.ref)
        }

    def __getitem__(self, key: str) -> Array:
        link = self.links[key]
        assert link.to_keras is not None
        return link.to_keras({key: self.values_of[key] for key in link.ref})

    def __iter__(self) -> Iterator[str]:
        return iter(self.links)

    def __len__(self) -> int:
        return len(self.links)


def compare_traces(
    ref: Trace,
    keras: Trace,
    *,
    mode: str = "train",
    steps: int = 3,
    mapping: Map | None = None,
    limits: tuple[float, float] | None = None,
    batch: Batch | None = None,
    details: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Comparison:
    """Compare two recorded runs, tensor by tensor, reading both as it goes.

    Args:
        ref: the reference's trace.
        keras: the Keras side's.
        mode: `"train"` or `"eval"`: what both were recorded in.
        steps: updates at most.
        mapping: pairs that the user fixes.
        limits: (rtol, atol) in place of the recorded floors.
        details: keep where and how tensors differ that both traces hold whole (`Comparison.album`).
        batch: what the user says that both were fed; None believes the traces.
        progress: called as progress(what, done, total).

    Raises:
        CannotCompare: another mode or batch than recorded, or nothing in common.
    """
    run = begun_traces(ref, keras, mode=mode, mapping=mapping, batch=batch)
    total = len(run.alignment.pairs) + 1
    if details:
        run.album = Album(expected=2 * total + len(run.links))
    two = Two(run, ref, keras, limits)
    for done, pair in enumerate(run.alignment.pairs):
        progress(pair.ref.name, done, total)
        run.probes += two.forward(pair)
    if two.backs:
        for pair in reversed(run.alignment.pairs):
            run.probes += two.backward(pair)
        progress("updates", total - 1, total)
        count = min(steps, ref.steps, keras.steps)
        run.course.passes = [Pass() for _ in range(count)]  # how many steps there were, for what is said of schedules
        run.moves = two.moves(count)
        run.probes += update_probes(run.moves)
    run.probes = _first_named(run.probes)
    if ref.tensors == keras.tensors == "all":
        run.outcome = outcome_of(run, ref.seen(1), keras.seen(1))
    progress("done", total, total)
    return run


def begun_traces(
    ref: Trace, keras: Trace, *, mode: str = "train", mapping: Map | None = None, batch: Batch | None = None
) -> Comparison:
    """The comparison of two recorded runs up to their weights; arguments and errors are those of `compare_traces`."""
    for trace, key in ((ref, "ref"), (keras, "keras")):
        if trace.mode != mode:
            raise CannotCompare(f"{trace.path}: was recorded in {trace.mode} mode; compare it with --mode {trace.mode}")
        if batch is not None:
            _same_batch(trace, key, batch)
    sides = Recorded(ref), Recorded(keras)
    labels = ref.labels, keras.labels
    alignment = align(sides[0].network, sides[1].network, mode, mapping, labelled=labels[0] is not None)
    found = links(alignment)
    data = Data(ref.lazy("inputs"), keras.lazy("inputs"), *labels)
    run = Comparison(
        sides[0], sides[1], data, mode, True, alignment, found, named(alignment, found), old_values=keras.weights(0)  # type: ignore[arg-type]
    )  # fmt: skip
    run.probes += compare_inputs(alignment, data.ref, data.keras)
    run.probes += compare_labels(alignment, *labels)
    run.probes += compare_structure(alignment, found, ref.weights(0), training=bool(ref.steps and keras.steps))
    run.probes += compare_weights(found, _Transferred(found, ref.weights(0)), keras.weights(0), own=True)
    return run


def findings_of(run: Comparison) -> tuple[Finding, ...]:
    """What differs between the two networks and recipes, as causes: none is confirmed, since nothing was run.

    A difference at a probe above noise may be its cause; any other is a note.
    """
    apart = {p.layer for p in run.probes if p.status == "inherited"}
    suspects = {p.ref.name for p in run.alignment.pairs if p.ref.name in apart and differences(p)}
    shown = run.probes
    try:
        run.probes = [
            replace(p, status="born") if p.layer in suspects and p.status == "inherited" else p for p in shown
        ]
        found = [replace(f, confirmed=f.confirmed and f.phase == "weights") for rule in RULES for f in rule(run)]
    finally:
        run.probes = shown
    places = {unit.name: i for i, unit in enumerate(run.alignment.ref_units)}

    def order(finding: Finding) -> tuple[bool, int, int]:
        place = places.get(finding.layer, -1 if finding.phase == "update" else len(places))
        return finding.severity == "note", PHASES.index(finding.phase), place

    return tuple(sorted(dict.fromkeys(found), key=order))


def _same_batch(trace: Trace, key: str, batch: Batch) -> None:
    for name, value in trace.lazy("inputs").items():
        fed = batch.get(f"x_{key}", f"x_{key}_{name}", f"x_{name}", "x")
        if fed is None or not np.array_equal(fed[1], value):
            raise CannotCompare(f"{trace.path}: was recorded on another batch; leave --batch out, or record it again")


def _first_named(probes: list[Probe]) -> list[Probe]:
    """The probes, the first above noise with the note that its birth is open; none where a fault was born before it."""
    faults = [p for p in probes if p.status in ("born", "unpaired", "inherited")]
    first = min(faults, key=lambda p: PHASES.index(p.phase), default=None)
    if first is None or first.status != "inherited":
        return probes
    note = f"{first.note}; {OPEN}" if first.note else OPEN
    return [replace(p, note=note) if p is first else p for p in probes]


class Two:
    """The propagated values of two traces, pair by pair, in the order in which a run makes them.

    Args:
        run: their comparison, begun.
        ref, keras: the traces.
        limits: (rtol, atol) in place of the recorded floors.

    Attributes:
        backs: whether both recorded gradients and updates.
    """

    def __init__(self, run: Comparison, ref: Trace, keras: Trace, limits: tuple[float, float] | None) -> None:
        self.run, self.ref, self.keras, self.limits = run, ref, keras, limits
        self.backs = bool(ref.steps and keras.steps)
        self.made: list[Probe] = []
        self.seen = ref.seen(1), keras.seen(1)
        self.parted = any(p.status in ("born", "unpaired", "inherited") for p in run.probes)
        self.masked = self._other_masks()
        kinds = [pair.ref.kind for pair in run.alignment.pairs]
        self.jumps = any(
            isinstance(k, Opaque | Activation) or (isinstance(k, Pool) and k.method == "max") for k in kinds
        )

    def forward(self, pair: Pair) -> list[Probe]:
        """The probes of its output, or of its loss."""
        self.made = []
        self._forward(pair)
        return self.made

    def backward(self, pair: Pair) -> list[Probe]:
        """The probes of the gradients of its inputs and of its parameters."""
        self.made = []
        self._backward(pair)
        return self.made

    def moves(self, count: int) -> list[Move]:
        """How each of so many updates moved each parameter."""
        found = recorded_moves(self.run.links, self.ref, self.keras, count)
        if not self.masked:
            return found
        return [m if m.status == "match" else replace(m, status="unverified", note=_DRAWN) for m in found]

    def _forward(self, pair: Pair) -> None:
        name = "loss" if pair.ref.core == "Loss" else "output"
        phase = "loss" if name == "loss" else "forward"
        of = self.run.named[pair.ref.name]
        if name == "loss":
            self._judge(pair, phase, name, self._losses(pair), 1)
            return
        mine = self.ref.held("step1/outputs", pair.ref.output)
        theirs = self.keras.held("step1/outputs", pair.keras.output)
        self._tensors(of, phase, name, mine, theirs, ("outputs", pair.ref.output), ("outputs", pair.keras.output))

    def _backward(self, pair: Pair) -> None:
        of = self.run.named[pair.ref.name]
        for name, (source, *others) in of.sources.items():
            mine = self.ref.held("step1/output_grads", source)
            theirs = self.keras.held("step1/output_grads", others[0])
            if mine is not None or theirs is not None:
                kinds = ("output_grads", source), ("output_grads", others[0])
                self._tensors(of, "backward", name, mine, theirs, *kinds)
        for name, link in of.gradients.items():
            self._parameter(pair, name, link)

    # ---- one probe

    def _tensors(
        self,
        of: Named,
        phase: str,
        name: str,
        mine: Held | None,
        theirs: Held | None,
        place: tuple[str, str],
        other: tuple[str, str],
    ) -> None:
        if mine is None or theirs is None:
            who = "the reference's trace" if mine is None else "the Keras side's trace"
            self._add(of.pair, phase, name, "unverified", note=f"{who} does not hold it", held=mine or theirs)
            return
        apart, how = gap(theirs, mine)
        if apart is None:
            misfit = "shape" in how and "statistics" not in how
            status = "inherited" if misfit and self.parted else "unverified"
            self._add(of.pair, phase, name, status, note=how, held=mine)
            return
        floors = [self.ref.floor(*place), self.keras.floor(*other)]
        self._judge(of.pair, phase, name, (apart, floors, mine.shape), apart.scale, how)
        if mine.kept == theirs.kept == "all" and max(math.prod(mine.shape), math.prod(theirs.shape)) <= _PICTURED:
            self._look(of.pair, phase, name, lambda: (theirs.value(), mine.value()))

    def _parameter(self, pair: Pair, name: str, link: Link) -> None:
        grads = self.ref.lazy("step1/param_grads"), self.keras.lazy("step1/param_grads")
        if link.keras not in grads[1] or any(key not in grads[0] for key in link.ref):
            if self.run.keras.network.params[link.keras].trainable:
                self._add(pair, "backward", name, "unverified", note="one of the traces does not hold it")
            return
        assert link.to_keras is not None
        expected = link.to_keras({key: grads[0][key] for key in link.ref})
        actual = shaped(grads[1][link.keras], expected.shape)
        if actual is None:
            self._add(pair, "backward", name, "unverified", note="its shapes do not fit")
            return
        # A floor per channel is laid out as the gradient is; where that turns, the largest channel's stands for all.
        mine = [self.ref.floor("param_grads", key) for key in link.ref]
        floors = [None if any(m is None for m in mine) else _widest(mine), self.keras.floor("param_grads", link.keras)]
        apart = distance(actual, expected)
        self._judge(pair, "backward", name, (apart, floors, expected.shape), apart.scale)
        axes = self.run.keras.network.params[link.keras].axes
        self._look(pair, "backward", name, lambda: (actual, expected), axes)

    def _look(self, pair: Pair, phase: str, name: str, both: Callable[[], tuple[Array, Array]], axes: str = "") -> None:
        """Keep what the two tensors show that were judged last, if anybody wants to see it."""
        if self.run.album is not None:
            names = (pair.ref.name, pair.keras.origin)
            self.run.album.look(names, phase, name, both(), floor=self.made[-1].floor, axes=axes)

    def _losses(self, pair: Pair) -> tuple[Distance, list[Array | None], tuple[int, ...]] | None:
        mine = self.seen[0].losses.get(pair.ref.layers[-1])
        theirs = self.seen[1].losses.get(pair.keras.layers[-1])
        if mine is None or theirs is None:
            return None
        apart = distance(np.asarray([theirs]), np.asarray([mine]))
        floors = [self.ref.floor("losses", pair.ref.layers[-1]), self.keras.floor("losses", pair.keras.layers[-1])]
        return apart, [*floors, np.asarray([4 * ROUNDOFF * abs(mine)])], ()

    def _judge(
        self,
        pair: Pair,
        phase: str,
        name: str,
        found: tuple[Distance, list[Array | None], tuple[int, ...]] | None,
        scale: float,
        how: str = "",
    ) -> None:
        if found is None:
            if self.run.data.labels_ref is not None and self.run.data.labels_keras is not None:
                self._add(pair, phase, name, "unverified", note="no loss value was recorded")
            return
        apart, floors, shape = found
        floor = _floor(floors, apart)
        x_floor = apart.x_floor(floor)
        size = float(np.sqrt(np.mean(np.square(floor))))
        above = x_floor > _ABOVE and apart.rms > 2 * size
        note = f"compared {how}" if how else ""
        if self.limits is not None:
            rtol, atol = self.limits
            above, note = apart.max_abs > atol + rtol * scale, "rtol and atol given"
        status = "match" if not above else "inherited"
        grown = x_floor <= _GROWN and apart.relative <= _PLAIN[phase]
        if above and self.masked and self.limits is None:
            status, note = "unverified", _DRAWN
        elif above and grown and not self.parted and self.limits is None and (self.jumps and phase == "backward"):
            status, note = "unverified", "above noise, but no more than activations that switch by rounding make of it"
        if status == "match" and name in ("output", "loss") and any(d.phase == phase for d in differences(pair)):
            status, note = "masked", "fields differ, but this batch does not show it"
        self.parted |= status == "inherited"
        if status == "unverified" and not self.parted and all(f is None for f in floors):
            note = "above rounding, but the traces hold no floors to say by how much it may grow"
        self._add(pair, phase, name, status, note=note, shape=shape, apart=apart, floor=size, x_floor=x_floor)

    def _add(
        self,
        pair: Pair,
        phase: str,
        name: str,
        status: str,
        *,
        note: str = "",
        held: Held | None = None,
        shape: tuple[int, ...] = (),
        apart: Distance | None = None,
        floor: float | None = None,
        x_floor: float | None = None,
    ) -> None:
        self.made.append(
            Probe(
                layer=pair.ref.name,
                keras_layer=pair.keras.origin,
                phase=phase,
                tensor=name,
                shape=held.shape if held is not None else shape,
                status=status,
                max_abs=apart.max_abs if apart else None,
                rms_rel=apart.relative if apart else None,
                floor=floor,
                propagated_x_floor=x_floor,
                note=note,
            )
        )

    def _other_masks(self) -> bool:
        """Whether dropout was drawn otherwise on the two sides."""
        if self.run.mode != "train":
            return False
        mine, theirs = self.seen[0].masks, self.seen[1].masks
        for pair in self.run.alignment.pairs:
            if isinstance(pair.ref.kind, Dropout) and pair.ref.kind.rate:
                a, b = mine.get(pair.ref.layers[-1]), theirs.get(pair.keras.layers[-1])
                if a is None or b is None or a.size != b.size or not np.array_equal(a.ravel(), b.ravel()):
                    return True
        return False


def _widest(floors: list[Array | None]) -> Array:
    return np.asarray(max(float(np.max(f, initial=0.0)) for f in floors if f is not None))


def _floor(floors: list[Array | None], apart: Distance) -> Array:
    """The larger of both sides' floors per channel, and no less than the rounding of the values themselves."""
    floor = np.full(apart.channel_rms.shape, 4 * ROUNDOFF * apart.scale)
    for given in floors:
        if given is not None:
            fits = given.shape in (floor.shape, ())
            floor = np.maximum(floor, given if fits else float(np.sqrt(np.mean(np.square(given)))))
    return floor
