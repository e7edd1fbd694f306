"""A judgement against its baseline: what got worse, what is gone, and whether the baseline answers this question."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.gate.config import Pair
from parity.gate.judgement import Judgement, Problem
from parity.gate.lock import Budget, Entry, key_of
from parity.identity import digest
from parity.report import STATUSES, Probe, Report
from parity.reports.words import clean, plural, relative, times_floor
from parity.tolerance import CLEAN

__all__ = ["against", "asked", "judged_phases"]

_NEW = ("masked", "born", "unpaired", "unverified")
"""Statuses that a tensor may not newly have; that it inherits an error is said by its budget."""

_SHOWN = 3

_SHRUNK = 0.1
"""An allowed error below this share of its budget, which has at most 3.75 times as much room, is another one now."""


def asked(pair: Pair, report: Report) -> dict[str, Any]:
    """What a comparison asks, by name: the reference, the batch, other files and the options; not the Keras model.

    A baseline holds as long as these are the same.

    Raises:
        BadFile: a file cannot be read.
    """
    made: dict[str, Any] = {
        side: report.inputs[side].get("sha256") or report.inputs[side].get("name") or report.inputs[side].get("source")
        for side in ("ref", "batch")
        if side in report.inputs
    }
    for key in ("map", "ref_recipe"):
        if pair.options.get(key):
            made[key] = digest(Path(pair.options[key]))
    for key in ("mode", "weights", "steps", "seed", "rtol", "atol", "only"):
        if report.options.get(key) is not None:
            made[key] = report.options[key]
    for key in ("keras_engine", "backend", "ref_version"):
        if pair.options.get(key):
            made[key] = pair.options[key]
    return made


def judged_phases(pair: Pair, report: Report) -> tuple[str, ...]:
    """The phases that a pair's baseline is about."""
    return pair.phases or report.phases


def against(judgement: Judgement, entry: Entry | None, lock: Path, command: str) -> Judgement:
    """The judgement with what its baseline adds.

    Args:
        judgement: of the pair's report alone.
        entry: its baseline; None where there is none.
        lock: the baseline's file, for the messages.
        command: what makes the baseline anew.
    """
    report = judgement.report
    if report is None:
        return judgement
    if entry is None and judgement.problems:
        return judgement  # none can be made of it
    if entry is None:
        missing = Problem("stale", f"{lock} has no baseline for it", remedy=f"make one: {command}")
        return replace(judgement, problems=(*judgement.problems, missing))
    changed = _changed(entry.asked, asked(judgement.pair, report))
    if changed:
        stale = Problem("stale", f"the baseline in {lock} is stale: {changed}", remedy=f"make it anew: {command}")
        return replace(judgement, problems=(*judgement.problems, stale))
    problems = [*_missing(judgement, entry, lock, command), *_worse(judgement, entry)]
    warnings = (*judgement.warnings, *_better(judgement, entry, command))
    return replace(judgement, problems=(*judgement.problems, *problems), warnings=warnings)


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    files = [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]
    said = [
        f"{key} is another one"
        if key in ("ref", "batch", "map", "ref_recipe")
        else f"{key} was {old.get(key, 'not given')} and is {new.get(key, 'not given')}"
        for key in files
    ]
    return ", ".join(said)


def _missing(judgement: Judgement, entry: Entry, lock: Path, command: str) -> list[Problem]:
    """Phases and tensors that are in one of the two and not in the other."""
    report = judgement.report
    assert report is not None
    phases = judged_phases(judgement.pair, report)
    renew = f"make the baseline anew: {command}"

    def told(kind: str, sentence: str, key: tuple[str, str, str], remedy: str) -> Problem:
        return Problem(kind, sentence, layer=key[1], phase=key[0], tensor=key[2], remedy=remedy)

    made = [
        Problem("unverified", f"{phase} was compared for the baseline, and is not now", phase=phase)
        for phase in entry.phases
        if phase not in report.phases and not any(p.phase == phase for p in judgement.problems)
    ]
    here = {key_of(probe) for probe in report.probes if probe.phase in phases}
    gone = [key for key in entry.tensors if key not in here and key[0] in report.phases]
    new = [key for key in here if key not in entry.tensors]
    if gone:
        sentence = f"{_named(gone)} {'was' if len(gone) == 1 else 'were'} compared for the baseline, and not now"
        made.append(told("unverified", sentence, gone[0], f"if that is right, {renew}"))
    if new:
        order = {key_of(probe): i for i, probe in enumerate(report.probes)}
        new.sort(key=lambda key: order[key])
        made.append(told("stale", f"{lock} knows nothing of {_named(new)}", new[0], renew))
    return made


def _named(keys: list[tuple[str, str, str]]) -> str:
    shown = [f"{clean(tensor)} of {clean(layer)} in {phase}" for phase, layer, tensor in keys[:_SHOWN]]
    more = len(keys) - len(shown)
    return ", ".join(shown) + (f" and {plural(more, 'more tensor', 'more tensors')}" if more else "")


def _worse(judgement: Judgement, entry: Entry) -> list[Problem]:
    """Tensors that are worse than their budgets; of each the worst step. Not what is a problem already."""
    report = judgement.report
    assert report is not None
    phases = judged_phases(judgement.pair, report)
    told = {(p.layer, p.keras_layer) for p in judgement.problems if p.kind == "divergence"}
    recipe = any(p.kind == "divergence" and p.phase == "update" for p in judgement.problems)
    found: dict[tuple[str, str, str], tuple[float, Problem]] = {}
    for probe in report.probes:
        budget = entry.tensors.get(key_of(probe))
        if budget is None or probe.phase not in phases:
            continue
        if (probe.layer, probe.keras_layer) in told or (probe.phase == "update" and recipe):
            continue
        if probe.status == "inherited" and told:
            continue  # a consequence of what is told already
        excess, sentence = _excess(probe, budget)
        hints = [f.cause for f in report.findings if f.phase == probe.phase and f.layer and f.layer == probe.layer]
        if hints:
            sentence = f"{', '.join(dict.fromkeys(hints))}: {sentence}"
        if excess > found.get(key_of(probe), (1.0,))[0]:
            problem = Problem("regression", sentence, probe.layer, probe.keras_layer, probe.phase, probe.tensor)
            found[key_of(probe)] = excess, problem
    return [problem for _, problem in found.values()]


def _better(judgement: Judgement, entry: Entry, command: str) -> list[str]:
    """What is allowed, and far smaller than it was: it may be another fault than the one that was allowed."""
    report = judgement.report
    assert report is not None
    worst: dict[tuple[str, str, str], float] = {}
    for i in judgement.excused:
        probe = report.probes[i]
        if probe.status == "born" and probe.rms_rel is not None:
            worst[key_of(probe)] = max(worst.get(key_of(probe), 0.0), probe.rms_rel)
    shrunk = [
        key for key, end in worst.items() if key in entry.tensors and end < _SHRUNK * (entry.tensors[key].end or 0)
    ]
    if not shrunk:
        return []
    return [f"{_named(shrunk)}: allowed, and far less off than for the baseline; look at it, and then: {command}"]


def _excess(probe: Probe, budget: Budget) -> tuple[float, str]:
    """How many times its budget a tensor takes, and what that means; 1 where it is within."""
    what = f"{clean(probe.tensor)} of {clean(probe.layer or probe.keras_layer)} in {probe.phase}"
    step = f", step {probe.step}" if probe.phase == "update" else ""
    if probe.status in _NEW and STATUSES.index(probe.status) > STATUSES.index(budget.status):
        why = f" ({clean(probe.note)})" if probe.note else ""
        return math.inf, f"{what} was {budget.status} and is {probe.status}{step}{why}"
    worst = 1.0, ""
    if probe.status not in ("born", "inherited") or budget.status in ("born", "inherited"):
        alone, end = probe.isolated_x_floor, probe.rms_rel
        if alone is not None and budget.alone is not None and alone > budget.alone:
            said = (
                f"{what} is {times_floor(alone)} the noise floor alone{step}; its budget is {times_floor(budget.alone)}"
            )
            worst = max(worst, (alone / budget.alone, said))
        # Of a tensor that is zero but for rounding (a bias before a batch normalisation), all is relative to rounding.
        rounded = probe.propagated_x_floor is not None and probe.propagated_x_floor <= CLEAN
        if end is not None and budget.end is not None and end > budget.end and not rounded:
            said = f"{what} is off by {relative(end)} end to end{step}; its budget is {relative(budget.end)}"
            worst = max(worst, (end / budget.end if budget.end else math.inf, said))
    return worst
