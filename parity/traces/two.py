"""Two recorded runs side by side: what differs end to end, with nothing run again and no framework loaded.

Layers cannot be run alone here. So where the two part, the first probe above noise is named; in which layer the
difference was born stays open, though what differs between the two networks and recipes is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from parity.align import Map, Pair
from parity.batch import Batch
from parity.case import Comparison
from parity.comparison import outcome_of, score_names
from parity.detail import Album
from parity.differences import differences
from parity.distances import Distance, distance
from parity.layers import Activation, Dropout, Opaque, Pool
from parity.report import PHASES, Finding, Outcome, Probe
from parity.rules import RULES
from parity.runner import Pass
from parity.stretches import Size, same
from parity.tensors import Named
from parity.tolerance import CLEAN, ROUNDOFF
from parity.traces.gaps import Measured, against, gap
from parity.traces.held import Held
from parity.traces.moves import recorded_moves, update_probes
from parity.traces.pictures import LARGEST, look_at_gradient, look_at_held, look_at_moves
from parity.traces.reader import Trace
from parity.traces.recorded import Laid, begun_traces
from parity.traces.shares import share
from parity.transfer import Link
from parity.updates import Move

__all__ = ["OPEN", "Two", "compare_traces", "findings_of"]

Array = np.ndarray

OPEN = "the first probe above noise; two traces cannot say in which layer it was born"
"""The note of the first probe at which two traces part."""

_DRAWN = "dropout kept other values on the two sides; record the reference with the Keras trace as its --batch"

_SUM = "other layers read its input on one side, and what this one adds to the gradient was not recorded"

_ABOVE = 2 * CLEAN
"""Floors above which an end-to-end difference is no noise, in the worst channel."""

_PLAIN = {"forward": 1e-4, "loss": 1e-4, "backward": 1e-2}
"""Relative differences that rounding alone can grow to in a deep network: an activation that switches makes them."""

_GROWN = 200.0
"""Floors that rounding alone can grow to, where an activation or a maximum switches that did not in the shaken run."""


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
    run.outcome = two.outcome()
    progress("done", total, total)
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
        self.sizes: dict[str, float] = {}
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
        found = recorded_moves(self.run.links, self.ref, self.keras, count, self.sizes)
        look_at_moves(self.run, self.ref, self.keras, found)
        if not self.masked:
            return found
        return [m if m.status == "match" else replace(m, status="unverified", note=_DRAWN) for m in found]

    def _forward(self, pair: Pair) -> None:
        name = "loss" if pair.ref.core == "Loss" else "output"
        phase = "loss" if name == "loss" else "forward"
        of = self.run.named[pair.ref.name]
        if name == "loss":
            self._judge(pair, phase, name, self._losses(pair), ())
            return
        mine = self.ref.held("step1/outputs", pair.ref.output)
        theirs = self.keras.held("step1/outputs", pair.keras.output)
        self._tensors(of, phase, name, mine, theirs, ("outputs", pair.ref.output), ("outputs", pair.keras.output))

    def _backward(self, pair: Pair) -> None:
        of = self.run.named[pair.ref.name]
        for name, (source, *others) in of.sources.items():
            mine = self.ref.held("step1/output_grads", source)
            theirs = self.keras.held("step1/output_grads", others[0])
            if mine is None and theirs is None:
                continue
            kinds = ("output_grads", source), ("output_grads", others[0])
            if name in of.unlike:
                self._shares(of, name, (mine, theirs), *kinds)
            else:
                self._tensors(of, "backward", name, mine, theirs, *kinds)
        for name, link in of.gradients.items():
            self._parameter(pair, name, link)

    def _shares(
        self,
        of: Named,
        name: str,
        sums: tuple[Held | None, Held | None],
        place: tuple[str, str],
        other: tuple[str, str],
    ) -> None:
        """What the pair alone adds to the gradient of its input, which more layers read on one side than on the other.

        Where that was not recorded the sums may still be equal; that they differ says nothing.
        """
        mine = share(self.ref, of.pair, self.run.alignment, "ref", place[1])
        theirs = share(self.keras, of.pair, self.run.alignment, "keras", other[1])
        if mine is not None and theirs is not None:
            self._tensors(of, "backward", name, mine, theirs, place, other, whole=False)
            return
        parted = self.parted
        self._tensors(of, "backward", name, *sums, place, other, whole=False)
        if self.made[-1].status == "inherited":
            self.parted = parted
            self.made[-1] = replace(self.made[-1], status="unverified", note=_SUM)

    def outcome(self) -> Outcome | None:
        """What the predictions say, where both traces hold them whole, and as vectors."""
        names = score_names(self.run, *self.seen)
        for trace, name in zip((self.ref, self.keras), names, strict=True):
            held = trace.held("step1/outputs", name)
            if held is None or held.kept != "all" or math.prod(held.shape[1:-1]) != 1:
                return None
            if math.prod(held.shape) > LARGEST:
                return None
        return outcome_of(self.run, *self.seen)

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
        *,
        whole: bool = True,
    ) -> None:
        if mine is None or theirs is None:
            who = "the reference's trace" if mine is None else "the Keras side's trace"
            self._add(of.pair, phase, name, "unverified", note=f"{who} does not hold it", held=mine or theirs)
            return
        found, how = gap(theirs, mine, [self.ref.floor_held(*place), self.keras.floor_held(*other)])
        if found is None:
            misfit = "shape" in how and "statistics" not in how
            status = "inherited" if misfit and self.parted else "unverified"
            self._add(of.pair, phase, name, status, note=how, held=mine)
            return
        parted = self.parted
        self._judge(of.pair, phase, name, found, mine.shape, how)
        if self.made[-1].status == "inherited" and not parted and whole:
            self._beside_the_truth(mine, theirs, self.ref.truth(*place))
        look_at_held(self.run, of.pair, (phase, name), theirs, mine, self.made[-1].floor)

    def _beside_the_truth(self, mine: Held, theirs: Held, truth: Held | None) -> None:
        """Add to the first probe above noise how far either side is from the reference's float64 run, where sampled."""
        samples = [None if held is None else held.sample() for held in (mine, theirs, truth)]
        own, other, exact = samples
        if own is None or other is None or exact is None or not own.shape == other.shape == exact.shape:
            return
        off = [distance(np.asarray(value, np.float64), exact).relative for value in (own, other)]
        probe = self.made[-1]
        note = f"from the reference's float64 run the reference is off by {off[0]:.1g}, Keras by {off[1]:.1g}"
        self.made[-1] = replace(probe, note=f"{probe.note}; {note}" if probe.note else note)

    def _parameter(self, pair: Pair, name: str, link: Link) -> None:
        grads = self.keras.unread("step1/param_grads")
        laid = Laid((link,), self.ref, "step1/param_grads", self.run.keras.network)
        if link.keras not in grads or link.keras not in laid:
            if self.run.keras.network.params[link.keras].trainable:
                self._add(pair, "backward", name, "unverified", note="one of the traces does not hold it")
            return
        expected, actual = laid[link.keras], grads[link.keras]
        shape = tuple(expected.shape)
        if math.prod(shape) != math.prod(actual.shape):
            self._add(pair, "backward", name, "unverified", note="its shapes do not fit")
            return
        # A floor per channel is laid out as the gradient is; where that turns, the largest channel's stands for all.
        mine = [self.ref.floor("param_grads", key) for key in link.ref]
        widest = None if any(m is None for m in mine) else _widest(mine)
        floors = [widest, self.keras.floor_held("param_grads", link.keras)]
        own = Size()
        found = against(actual, expected, floors, lambda part, _: own.add(part))
        self.sizes[f"keras:{link.keras}"] = own.whole
        if link.plain:
            self.sizes[f"ref:{link.ref[0]}"] = found.apart.scale
        self._judge(pair, "backward", name, found, shape)
        axes = self.run.keras.network.params[link.keras].axes
        look_at_gradient(self.run, pair, name, actual, expected, axes, self.made[-1].floor)

    def _losses(self, pair: Pair) -> Measured | None:
        mine = self.seen[0].losses.get(pair.ref.layers[-1])
        theirs = self.seen[1].losses.get(pair.keras.layers[-1])
        if mine is None or theirs is None:
            return None
        floors = [self.ref.floor("losses", pair.ref.layers[-1]), self.keras.floor("losses", pair.keras.layers[-1])]
        floors.append(np.asarray([4 * ROUNDOFF * abs(mine)]))
        return against(np.asarray([theirs]), np.asarray([mine]), floors)

    def _judge(
        self, pair: Pair, phase: str, name: str, found: Measured | None, shape: tuple[int, ...], how: str = ""
    ) -> None:
        if found is None:
            if self.run.data.labels_ref is not None and self.run.data.labels_keras is not None:
                self._add(pair, phase, name, "unverified", note="no loss value was recorded")
            return
        apart, x_floor, size = found.apart, found.x_floor, found.floor
        above = x_floor > _ABOVE and apart.rms > 2 * size
        note = f"compared {how}" if how else ""
        if self.limits is not None:
            rtol, atol = self.limits
            above, note = apart.max_abs > atol + rtol * apart.scale, "rtol and atol given"
        status = "match" if not above else "inherited"
        grown = x_floor <= _GROWN and apart.relative <= _PLAIN[phase]
        if above and self.masked and self.limits is None:
            status, note = "unverified", _DRAWN
        elif above and grown and not self.parted and self.limits is None and (self.jumps and phase == "backward"):
            status, note = "unverified", "above noise, but no more than activations that switch by rounding make of it"
        if status == "match" and name in ("output", "loss") and any(d.phase == phase for d in differences(pair)):
            status, note = "masked", "fields differ, but this batch does not show it"
        self.parted |= status == "inherited"
        if status == "unverified" and not self.parted and found.bare:
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
        mine, theirs = self.ref.unread("step1/masks"), self.keras.unread("step1/masks")
        for pair in self.run.alignment.pairs:
            if isinstance(pair.ref.kind, Dropout) and pair.ref.kind.rate:
                a, b = mine.get(pair.ref.layers[-1]), theirs.get(pair.keras.layers[-1])
                if a is None or b is None or not same(a, b):
                    return True
        return False


def _widest(floors: list[Array | None]) -> Array:
    return np.asarray(max(float(np.max(f, initial=0.0)) for f in floors if f is not None))
