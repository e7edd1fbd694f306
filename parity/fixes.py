"""Tries the fixes that a report proposes: they are carried out on a copy of the Keras model, and the copy is compared.

A finding's fix is verified where, in the comparison of the copy, what the finding explains is gone and nothing new went
wrong. All fixes are tried together; only where that leaves or breaks something are they tried one after the other, each
on top of the good ones before it. Fixes of the recipe act on the same updates, and are one step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.batch import Batch
from parity.changes import Change
from parity.errors import ParityError
from parity.report import Finding, Probe, Report

if TYPE_CHECKING:
    from parity.frameworks.keras.edit import EditedRunner
    from parity.frameworks.keras.runner import KerasRunner

__all__ = ["Repair", "Rerun", "fixable", "prepared", "verified"]

Rerun = Callable[[Any, Batch], Report]
"""(a runner of the Keras side, the batch) → the report of a comparison with the same options, no fix of it tried."""

_BAD = ("born", "unpaired")

_PROVING = frozenset(
    "argument insert remove rewire optimizer loss regularize constrain rate trainable".split()  # noqa: SIM905
)
"""Changes that set right what the cause names and nothing else: where the copy then matches, the cause is proven.

A layer that is replaced, or a value that is loaded, makes a copy match whatever was wrong there; but for the values of
a layer that the same finding puts in, which had none.
"""

_MOST = 12
"""Steps that are tried one after the other; each costs a comparison."""


@dataclass(frozen=True, eq=False)
class Repair:
    """What became of the fixes.

    Attributes:
        before: the report, with `fix_verified` on its findings.
        after: the report of the copy; None where nothing could be tried.
        runner: of the copy, with the weights that a file of it should hold; None where there is no copy.
        done: what was carried out on it, with the finding that asked for it.
        left: what was not, and why.
    """

    before: Report
    after: Report | None = None
    runner: EditedRunner | None = None
    done: tuple[tuple[Change, Finding], ...] = ()
    left: tuple[tuple[Change, str], ...] = ()


def fixable(report: Report) -> bool:
    """Whether there is a fix to try: of a divergence, or of a fault that this batch does not show."""
    return any(finding.changes for finding in report.findings)


def verified(report: Report, keras: KerasRunner, own: Mapping[str, np.ndarray], batch: Batch, rerun: Rerun) -> Repair:
    """Tries a report's fixes.

    Args:
        report: of a comparison that has run.
        keras: its Keras side; gets its own weights back, and is not touched otherwise.
        own: these weights, by param id (`Comparison.old_values`).
        batch: what both sides were fed.
        rerun: compares again.
    """
    keras.load(own)
    trial = _Trial(report, keras, batch, rerun)
    fixes = [i for i, finding in enumerate(report.findings) if finding.changes]
    if not fixes:
        return Repair(report)
    found = trial.attempt(fixes)
    if isinstance(found, str):
        changes = [change for i in fixes for change in report.findings[i].changes]
        return Repair(report, left=tuple((change, found) for change in changes))
    good = found.good(report)
    steps = _steps(report, fixes)
    if (not found.clean(report) or set(good) < set(found.whole)) and 1 < len(steps) <= _MOST:
        found = trial.one_by_one(steps) or found
        good = found.good(report)
    if found.runner is not None:
        found.runner.restore()
    findings = tuple(
        replace(f, fix_verified=True, confirmed=f.confirmed or _proven(f))
        if i in good
        else replace(f, fix_verified=False)
        for i, f in enumerate(report.findings)
    )
    # What helped nobody is not in the copy, unless there is no other.
    return Repair(replace(report, findings=findings), found.report, found.runner, found.done, found.left)


def _proven(finding: Finding) -> bool:
    """Whether a fix that helped says that its cause is the right one."""
    new = {(c.values.get("config") or {}).get("name") for c in finding.changes if c.action == "insert"}

    def proves(change: Change) -> bool:
        return change.action in _PROVING or (change.action == "weights" and change.layer.split("/")[-1] in new)

    return finding.cause != "unknown" and all(proves(change) for change in finding.changes)


def _steps(report: Report, fixes: Sequence[int]) -> list[list[int]]:
    """The findings in order, those of the recipe together at the end."""
    recipe = [i for i in fixes if report.findings[i].phase == "update"]
    return [[i] for i in fixes if i not in recipe] + ([recipe] if recipe else [])


class _Trial:
    """A report whose fixes are tried in several selections."""

    def __init__(self, report: Report, keras: KerasRunner, batch: Batch, rerun: Rerun) -> None:
        self.report, self.keras, self.batch, self.rerun = report, keras, batch, rerun

    def attempt(self, chosen: Sequence[int]) -> _Attempt | str:
        """The comparison of a copy with the fixes of these findings; why there is none, where it could not be run."""
        from parity.frameworks.keras.edit import FAULTS, EditedRunner, apply

        wanted = _distinct([(change, i) for i in chosen for change in self.report.findings[i].changes])
        try:
            edited = apply(self.keras.graph_model, [change for change, _ in wanted])
            runner = EditedRunner.of(edited, self.keras)
            batch = prepared(self.batch, edited.done)
            after = self.rerun(runner, batch)
        except (ParityError, *FAULTS) as error:
            return " ".join(str(error).split())[:200] or type(error).__name__
        left = [_key(change) for change, _ in edited.left]
        findings = self.report.findings
        whole = [i for i in chosen if not any(_key(change) in left for change in findings[i].changes)]
        done = tuple((change, findings[i]) for change, i in wanted if _key(change) not in left)
        return _Attempt(after, runner, tuple(whole), done, edited.left)

    def one_by_one(self, steps: Sequence[Sequence[int]]) -> _Attempt | None:
        """The last attempt to which every step added something good; None where none did."""
        kept: list[int] = []
        best: _Attempt | None = None
        before, left = self.report, []
        for step in steps:
            found = self.attempt([*kept, *step])
            if isinstance(found, str):
                left += [(change, found) for i in step for change in self.report.findings[i].changes]
                continue
            helped = [i for i in found.good(self.report) if i in step]
            if not helped or _new_faults(before, found.report):
                left += [
                    (c, "the copy is no nearer to the reference") for i in step for c in self.report.findings[i].changes
                ]
                continue
            kept += step
            best, before = found, found.report
        return None if best is None else replace(best, left=(*best.left, *left))


@dataclass(frozen=True, eq=False)
class _Attempt:
    """A comparison of a copy: findings whose every change is in it (`whole`), what was done and what was left."""

    report: Report
    runner: EditedRunner
    whole: tuple[int, ...]
    done: tuple[tuple[Change, Finding], ...]
    left: tuple[tuple[Change, str], ...]

    def clean(self, before: Report) -> bool:
        """Whether nothing is wrong that was right before."""
        return not _new_faults(before, self.report)

    def good(self, before: Report) -> tuple[int, ...]:
        """The findings whose fix is in the copy and that the copy has no trace of."""
        if not self.clean(before):
            return ()
        return tuple(i for i in self.whole if _gone(before, self.report, before.findings[i]))


# What was and what is -------------------------------------------------------------------------------------------------


def _place(probe: Probe) -> tuple[str, str, str, int]:
    return probe.phase, probe.layer or f"keras:{probe.keras_layer}", probe.tensor, probe.step


def _new_faults(before: Report, after: Report) -> list[Probe]:
    """Faults at what was right by itself before, and layers without a partner that were not there."""
    was = {_place(probe): probe for probe in before.probes}

    def right(probe: Probe) -> bool:
        old = was.get(_place(probe))
        if old is None:
            return not probe.layer
        # What only inherited an error was right, if it could be run alone.
        return old.status in ("match", "masked") or (old.status == "inherited" and old.isolated_x_floor is not None)

    return [probe for probe in after.probes if probe.status in _BAD and right(probe)]


def _gone(before: Report, after: Report, finding: Finding) -> bool:
    """Whether what a finding explains is no fault any more."""
    faults = [probe for probe in after.probes if probe.status in _BAD]
    if finding.phase == "update":
        return _updates_agree(before, after, finding)
    if finding.phase in ("input", "loss") and not finding.layer:
        return not any(probe.phase == finding.phase for probe in faults)
    here = [probe for probe in faults if _at(probe, finding)]
    others = [
        f for f in before.findings if f is not finding and f.severity == "divergence" and f.layer == finding.layer
    ]
    if finding.severity == "note":
        masked = [p for p in after.probes if p.status == "masked" and p.phase == finding.phase and _at(p, finding)]
        same = any(f.cause == finding.cause and f.layer == finding.layer for f in after.findings)
        return not here and not masked and not same
    if others:  # what is left here may be theirs
        return not any(probe.phase == finding.phase for probe in here)
    return not any(probe.phase != "update" for probe in here)


def _at(probe: Probe, finding: Finding) -> bool:
    if finding.layer:
        return probe.layer == finding.layer
    return probe.keras_layer == finding.keras_layer


def _updates_agree(before: Report, after: Report, finding: Finding) -> bool:
    """Whether the updates that a finding explains agree now.

    What names layers (a penalty, a factor, a frozen layer) explains theirs. What holds for the whole recipe is right
    where some parameter that was moved otherwise takes the same steps now, whatever is left at others.
    """
    updates = [probe for probe in after.probes if probe.phase == "update"]
    born = [probe for probe in updates if probe.status in _BAD]
    if not born:
        return True
    named = {change.layer for change in finding.changes if change.layer}
    if named:
        return not any(probe.keras_layer in named for probe in born)
    if finding.layer and not any(change.action == "optimizer" for change in finding.changes):
        return not any(_at(probe, finding) for probe in born)
    was = {_param(p) for p in before.probes if p.phase == "update" and p.status in _BAD}
    return bool(was - {_param(probe) for probe in born})


def _param(probe: Probe) -> tuple[str, str]:
    return probe.layer, probe.tensor


# The changes ----------------------------------------------------------------------------------------------------------


def _key(change: Change) -> tuple[Any, ...]:
    """What tells two changes apart, arrays by their content."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return tuple((key, plain(part)) for key, part in sorted(value.items()))
        if isinstance(value, np.ndarray):
            return value.shape, value.tobytes()
        return tuple(plain(part) for part in value) if isinstance(value, list | tuple) else value

    return change.action, change.layer, plain(change.values)


def _distinct(changes: Sequence[tuple[Change, int]]) -> list[tuple[Change, int]]:
    """Every change once: two findings may ask for the same."""
    found: dict[tuple[Any, ...], tuple[Change, int]] = {}
    for change, i in changes:
        found.setdefault(_key(change), (change, i))
    return list(found.values())


def prepared(batch: Batch, changes: Sequence[Change]) -> Batch:
    """The batch with the Keras side's inputs and labels prepared as the `input` and `labels` changes say.

    Args:
        batch: as both sides were fed.
        changes: others than these are passed over. `axes`, `flip` and `order` come first, then `reverse_channels`,
            `scale`, and `offset` (each a number, or one per channel); for labels `table` gives each class id another,
            and `shift` is added, modulo `classes` where all ids are in that range, and rolls one-hot rows.
    """
    arrays = dict(batch.arrays)
    for change in changes:
        letter = {"input": "x", "labels": "y"}.get(change.action)
        if letter is None:
            continue
        for name in [name for name in arrays if name == letter or name.startswith(f"{letter}_")]:
            rest = name[2:]
            if rest == "ref" or rest.startswith("ref_"):
                continue
            own = rest == "keras" or rest.startswith("keras_")
            called = rest.removeprefix("keras").removeprefix("_") if own else rest
            if change.layer and called and called != change.layer:
                continue
            value = arrays[name]
            if not own:
                arrays[f"{letter}_ref_{rest}".rstrip("_")] = arrays.pop(name)
                name = f"{letter}_keras_{rest}".rstrip("_")
            arrays[name] = _changed(value, change.values)
    return replace(batch, arrays=arrays)


def _changed(value: np.ndarray, how: Mapping[str, Any]) -> np.ndarray:
    if "table" in how:
        return np.asarray(how["table"], value.dtype)[value]
    if how.get("axes"):
        value = value.transpose(how["axes"])
    if "flip" in how:
        value = np.flip(value, how["flip"])
    if "order" in how:
        value = value[how["order"]]
    if "shift" in how:
        step = int(how["shift"])
        hot = value.ndim > 1 and value.shape[-1] > 1 and value.dtype.kind == "f"
        if hot:
            return np.roll(value, step, axis=-1)
        classes = how.get("classes")
        moved = value + np.asarray(step, value.dtype)
        return moved % classes if classes and value.min() >= 0 and value.max() < classes else moved
    if not {"scale", "offset", "reverse_channels"} & set(how):
        return np.ascontiguousarray(value)
    made = value[..., ::-1] if how.get("reverse_channels") else value
    made = made.astype(np.float64) * np.asarray(how.get("scale", 1.0)) + np.asarray(how.get("offset", 0.0))
    return np.ascontiguousarray(made, value.dtype)
