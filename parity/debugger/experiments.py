"""Experiments on a run: put one side's tensor in the other, replace a value, edit a field, apply a fix; and undo."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.align import Pair
from parity.bench import Unfit
from parity.debugger import written
from parity.debugger.exchange import SIDES, carried, put_gradients, put_output, put_weights, undoing
from parity.debugger.nodes import Blocked
from parity.distances import distance
from parity.errors import BadUsage, ParityError
from parity.experiments import Edit, Experiment
from parity.report import Finding
from parity.reports.words import times_floor
from parity.tensors import shaped
from parity.tolerance import CLEAN

if TYPE_CHECKING:
    from parity.debugger.stepper import Stepper

__all__ = ["Applied", "Experiments"]

Array = np.ndarray

_FAULTS = (
    ParityError, NotImplementedError, RuntimeError, ValueError, KeyError, TypeError, Unfit,
    ArithmeticError, AssertionError, IndexError,
)  # fmt: skip
"""What running a layer raises that was given a value which it cannot have: torch has no one error for that."""


@dataclass(frozen=True, eq=False)
class Applied:
    """One experiment that was made.

    Attributes:
        command: as a script would make it, e.g. `put ref`.
        where: the stop at which it was made, as `run` takes it with its step, e.g. `("ip1 forward", 1)`.
        words: what was done and what came of it.
        reproduces: of an edited field: whether the edited reference makes what Keras makes; None where nothing was
            tried.
        figures: tensor → distance of the edited reference from Keras, in noise floors.
        first: the first stop that it changes.
        undo: takes it back.
        changes: of a fix: what was carried out on the copy.
    """

    command: str
    where: tuple[str, int]
    words: str
    first: int
    undo: Callable[[], None]
    reproduces: bool | None = None
    figures: Mapping[str, float] | None = None
    changes: tuple[Any, ...] = ()


class Experiments:
    """The experiments of one stepper, in the order in which they were made."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self._made: list[Applied] = []
        self._findings: dict[int, tuple[Finding, ...]] = {}

    def __iter__(self) -> Iterator[Applied]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    # ---- tensors

    def put(self, source: str = "ref") -> Applied:
        """Put one side's tensors of the present stop in the other side's run, and go on from there.

        Of a forward stop that is the layer's output, of a backward stop the gradients of its inputs and parameters, of
        an update the layer's parameters after it.

        Args:
            source: whose tensors: `"ref"` (they go into the Keras run) or `"keras"` (the other way round).

        Raises:
            BadUsage: there is no such side, nothing runs here, or the tensor does not fit the other side.
        """
        if source not in SIDES:
            raise BadUsage(f"put: whose tensor, ref or keras? not {source!r}")
        self._stepper.training.refuse("put")
        stop = self._stepper.stop
        if stop.pair is None or stop.phase == "loss":
            raise BadUsage(f"put: there is nothing to put in at {stop.words}; go on to a layer's forward or backward")
        target = "keras" if source == "ref" else "ref"
        try:
            make = {"forward": put_output, "backward": put_gradients, "update": put_weights}
            first, undo, what = make[stop.phase](self._stepper, stop.pair, source, target)
        except Blocked as problem:
            raise BadUsage(f"put: {problem}") from None
        words = f"{SIDES[source]}'s {what} of {stop.layer} put in the {_run_of(target)}"
        return self._noted(Applied(f"put {source}", self._where(), words, first, undo))

    # ---- fields and parameters

    def set(self, assignment: str) -> Applied:
        """Edit a field of the reference's layer, or replace a parameter of either side.

        Args:
            assignment: `epsilon=1e-3` edits a field of the reference's layer, and tells at once whether it makes what
                Keras makes then. `kernel=FILE.npy`, `keras.bias=0`, `kernel=keras` or `keras.kernel=ref` replace a
                parameter by an array, a number, or the other side's.

        Raises:
            BadUsage: there is no such field or parameter here, or the value does not fit.
        """
        self._stepper.training.refuse("set")
        stop = self._stepper.stop
        name, equals, text = assignment.partition("=")
        side, dot, plain = name.strip().rpartition(".")
        side = side if dot else "ref"
        if not equals or side not in SIDES:
            raise BadUsage("set: write NAME=VALUE, e.g. epsilon=1e-3, kernel=FILE.npy, keras.bias=0, kernel=keras")
        if stop.pair is None:
            raise BadUsage(f"set: there is no layer at {stop.words}; go on to a layer")
        unit = stop.pair.ref if side == "ref" else stop.pair.keras
        text = text.strip()
        if plain in unit.params:
            first, undo, words = self._set_parameter(stop.pair, side, plain, text)
            made = Applied(f"set {assignment}", self._where(), words, first, undo)
        elif side == "keras":
            roles = ", ".join(unit.params) or "none"
            raise BadUsage(f"set: Keras' layer has no parameter {plain!r} (it has {roles}); fields of the Keras model "
                           "are changed by `fix`")  # fmt: skip
        else:
            made = self._set_field(stop.pair, plain, text, assignment)
        return self._noted(made)

    def _set_field(self, pair: Pair, name: str, text: str, assignment: str) -> Applied:
        stepper, stop, scene = self._stepper, self._stepper.stop, self._stepper.scene()
        network = scene.ref.network
        owner = next((n for n in pair.ref.layers if name in written.field_names(network[n].kind)), "")
        if not owner:
            kinds = dict.fromkeys(f for n in pair.ref.layers for f in written.field_names(network[n].kind))
            known = ", ".join(dict.fromkeys([*kinds, *pair.ref.params]))
            raise BadUsage(f"set: {stop.layer} has no field or parameter {name!r}; it has {known or 'none'}")
        kind = network[owner].kind
        value = written.value(text, kind, name)
        edited = replace(kind, **{name: value})
        figures, reproduces = self._tried(pair, {name: value}, assignment)
        words = f"{name} of {stop.layer} is {value} instead of {getattr(kind, name)}"
        if reproduces is not None:
            words += (
                ": the reference then makes what Keras makes" if reproduces else ", which is not what Keras computes"
            )
            if figures:
                words += f" ({', '.join(f'{k} {times_floor(v)}' for k, v in figures.items())} the noise floor)"
        make = getattr(scene.ref.runner, "edited", None)
        first = next(s.index for s in stepper.stops if s.pair is pair and s.step == stop.step)
        if make is None:
            return Applied(f"set {assignment}", self._where(), words + "; the reference itself cannot be run so", first,
                           lambda: None, reproduces, figures)  # fmt: skip
        runner, known = scene.ref.runner, scene.edited.get(pair.ref.name)
        try:
            scene.ref.use(make(owner, edited), pair.ref.layers)
            scene.ref.isolate(scene.ref.node(pair.ref.name), None)
        except (Blocked, *_FAULTS) as problem:
            scene.ref.use(runner, pair.ref.layers)
            raise _refused(stop.layer, assignment, problem) from None
        scene.edited[pair.ref.name] = replace(pair.ref.kind, **{name: value})
        stepper.training.changed(stop.step)

        def undo() -> None:
            scene.ref.use(runner, pair.ref.layers)
            scene.edited.pop(pair.ref.name, None)
            if known is not None:
                scene.edited[pair.ref.name] = known

        return Applied(
            f"set {assignment}", self._where(), words, first, undoing(stepper, stop.step, undo), reproduces, figures
        )

    def _tried(self, pair: Pair, edit: Mapping[str, Any], assignment: str) -> tuple[dict[str, float], bool | None]:
        """How far the edited reference is from Keras, and whether it makes the same, on these inputs and on others."""
        stepper, stop, scene = self._stepper, self._stepper.stop, self._stepper.scene()
        first = next(s for s in stepper.stops if s.pair is pair and s.step == stop.step)
        stepper.goto(stop.index)
        run = scene.run
        if run.bench is None or not run.verdicts.get(first.layer):
            return {}, None
        scene.ready()
        run.bench = scene.bench(backward=any(v.phase == "backward" for v in run.verdicts[first.layer]))
        experiment = Experiment(run, pair)
        figures: dict[str, float] = {}
        if not experiment.possible:
            return {}, None
        try:
            experiment.evaluate(experiment.first, Edit(fields=edit), gradients=False)
        except _FAULTS as problem:
            raise _refused(pair.ref.name, assignment, problem) from None
        try:
            made = experiment.evaluate(experiment.first, Edit(fields=edit))
            keras = experiment.first.keras_local
        except (NotImplementedError, RuntimeError, ValueError, KeyError, TypeError, Unfit):
            return {}, False
        for name, floor in experiment.floors.items():
            actual = experiment.first.tensor(keras, "keras", name)
            expected = experiment.first.tensor(made, "ref", name)
            same = None if actual is None or expected is None else shaped(actual, expected.shape)
            if same is not None and expected is not None:
                alike = experiment.comparable(name, expected)
                figures[name] = distance(same, expected).x_floor(floor) if alike else math.inf
        agrees = all(figure <= CLEAN for figure in figures.values()) and bool(figures)
        return figures, agrees or experiment.explains(Edit(fields=edit))

    def _set_parameter(self, pair: Pair, side: str, role: str, text: str) -> tuple[int, Callable[[], None], str]:
        stop, stepper = self._stepper.stop, self._stepper
        scene, training = stepper.scene(), stepper.training
        unit, lane = (pair.ref, scene.ref) if side == "ref" else (pair.keras, scene.keras)
        keys = unit.params[role]
        values: dict[str, Array] = {}
        if text in SIDES:
            other = scene.ref if text == "ref" else scene.keras
            for link in stepper.comparison.links_of(pair):
                if text != side and set(keys) & {*link.ref, link.keras}:
                    values |= carried(link, other.weights, side, lane)
            values = {key: value for key, value in values.items() if key in keys}
        elif len(keys) == 1:
            values = {keys[0]: written.array(text, lane.weights[keys[0]])}
        if not values:
            links = [link for link in stepper.comparison.links_of(pair) if set(keys) & {*link.ref, link.keras}]
            problem = next((f": {link.problem}" for link in links if link.problem), "")
            raise BadUsage(f"set: {text} gives no value for the {role} of {stop.layer}{problem}")
        before = {key: training.set_weight(side, stop.step, key, value) for key, value in values.items()}

        def undo() -> None:
            for key, value in before.items():
                training.set_weight(side, stop.step, key, value)

        first = next(s.index for s in stepper.stops if s.step == stop.step and s.pair is not None)
        return first, undo, f"{role} of {stop.layer} in {SIDES[side]} replaced by {text}"

    # ---- rules and fixes

    def rules(self) -> tuple[Finding, ...]:
        """What the rules say of the present stop: causes of what was seen so far, at this layer or in the recipe."""
        stepper, stop = self._stepper, self._stepper.stop
        if stop.index not in self._findings:
            found = stepper.training.findings(stop.phase)
            here = [f for f in found if _concerns(f, stop.layer, stop.keras_layer, stop.phase)]
            self._findings[stop.index] = tuple(here)
        return self._findings[stop.index]

    def fix(self, which: str = "") -> Applied:
        """Carry out a fix on a copy of the Keras model, and run the copy from the start to where one stands.

        Args:
            which: a finding of `rules` by its number or cause; by default the first that has a fix.

        Raises:
            BadUsage: there is no such finding, it has no fix that can be carried out, or the copy cannot be run.
        """
        from parity.fixes import prepared
        from parity.frameworks.keras.edit import EditedRunner, apply
        from parity.sides import open_sides
        from parity.unopened import Opening

        stepper = self._stepper
        stepper.training.refuse("fix")
        finding = self._chosen(which)
        before, batch = (stepper.comparison.keras, stepper.comparison.data), stepper.batch
        inner: Any = getattr(before[0], "inner", before[0])
        if not hasattr(inner, "model"):
            raise BadUsage("fix: this side was recorded, and cannot be changed")
        inner.load(stepper.comparison.old_values)
        try:
            edited = apply(inner.graph_model, finding.changes)
            if not edited.done:
                raise BadUsage(f"fix: {finding.cause} cannot be carried out: {edited.left[0][1]}")
            runner = EditedRunner.of(edited, inner)
            changed = prepared(batch, edited.done)
            sides = open_sides(stepper.comparison.ref, runner, changed, Opening(), stepper.seed, stepper.mode)
        except BadUsage:
            raise
        except (ParityError, ValueError, RuntimeError, TypeError) as error:
            raise BadUsage(f"fix: {' '.join(str(error).split())[:200]}") from None
        where, was = self._where(), stepper.here.state.status
        words = finding.fix or finding.cause
        self._begin(sides.keras, sides.data, where)
        stepper.batch = changed

        def undo() -> None:
            stepper.batch = batch
            self._begin(*before, where)

        words = f"{words}: {where[0] or 'the start'} was {was}, and is {stepper.here.state.status} now"
        made = Applied(f"fix {finding.cause}", where, words, 0, undo, changes=edited.done)
        self._made.append(made)
        return made

    def _chosen(self, which: str) -> Finding:
        found = self.rules()
        fixable = [f for f in found if f.changes]
        if not which:
            if not fixable:
                raise BadUsage("fix: no rule has a fix here; `rule` lists what they say")
            return fixable[0]
        chosen = next((f for i, f in enumerate(found, start=1) if which in (str(i), f.cause)), None)
        if chosen is None:
            known = ", ".join(f"{i} {f.cause}" for i, f in enumerate(found, start=1)) or "none"
            raise BadUsage(f"fix: there is no finding {which!r} here; there are {known}")
        if not chosen.changes:
            raise BadUsage(f"fix: {chosen.cause} has no fix that parity can carry out")
        return chosen

    # ---- the list

    def undo(self) -> Applied:
        """Take the last experiment back; raises BadUsage where there is none."""
        if not self._made:
            raise BadUsage("undo: there is no experiment to take back")
        made = self._made.pop()
        made.undo()
        self._findings.clear()
        if not made.command.startswith("fix "):
            self._stepper.forget(made.first)
        return made

    def repeat(self, command: str, where: tuple[str, int]) -> None:
        """Make an experiment again, at its stop; the stepper stands there afterwards."""
        stepper = self._stepper
        stepper.goto(self._found(where))
        word, _, rest = command.partition(" ")
        {"put": self.put, "set": self.set, "fix": self.fix}[word](rest)

    def _begin(self, keras: Any, data: Any, where: tuple[str, int]) -> None:
        """Another Keras side: the experiments made so far are made again on it, but for fixes, which it holds."""
        stepper, again = self._stepper, [item for item in self._made if not item.command.startswith("fix ")]
        fixes = [item for item in self._made if item.command.startswith("fix ")]
        stepper.begin(keras, data)
        self._findings.clear()
        self._made = fixes
        for item in again:
            self.repeat(item.command, item.where)
        stepper.goto(self._found(where))

    def _found(self, where: tuple[str, int]) -> int:
        """The stop of that name, or the nearest that there is."""
        words, step = where
        try:
            found = self._stepper.find(words) if words else [0]
        except BadUsage:
            return 0
        at = [index for index in found if self._stepper.stops[index].step == step]
        return (at or found)[0]

    def _where(self) -> tuple[str, int]:
        stop = self._stepper.stop
        return (f"{stop.layer or stop.keras_layer} {stop.phase}".strip() if stop.index else "", stop.step)

    def _noted(self, made: Applied) -> Applied:
        """On the list; what was tried at later training steps stood on what is changed now, and is off it."""
        gone = [item for item in self._made if item.where[1] > made.where[1] and not item.command.startswith("fix ")]
        if gone:
            what = ", ".join(f"{item.command} at {item.where[0]}, step {item.where[1]}" for item in gone)
            made = replace(made, words=f"{made.words}; taken back, since it came after this: {what}")
        self._made = [*(item for item in self._made if item not in gone), made]
        self._findings.clear()
        self._stepper.forget(made.first)
        return made


def _refused(layer: str, assignment: str, problem: Exception) -> BadUsage:
    """That a layer cannot run as it was edited, in one line."""
    why = " ".join(str(problem).split())
    return BadUsage(f"set: {layer} cannot be run with {assignment}: {shorten(why, 200, placeholder=' …')}")


def _run_of(side: str) -> str:
    return "reference's run" if side == "ref" else "Keras run"


def _concerns(finding: Finding, layer: str, keras_layer: str, phase: str) -> bool:
    """Whether a finding has to do with a stop: its layer, or the recipe as a whole."""
    if finding.layer or finding.keras_layer:
        same = finding.layer == layer if layer else finding.keras_layer == keras_layer
        return same or (phase == "update" and finding.phase == "update")
    return finding.phase == phase or phase == "input"
