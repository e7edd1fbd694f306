"""From two files (or live models) to a `Report`: the only place that knows the whole order."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from os import PathLike
from typing import Any

import numpy as np

from parity import batch as batches
from parity.case import Comparison
from parity.comparison import run_comparison
from parity.coverage import coverage
from parity.detail import Detail
from parity.diagnose import diagnose, first_divergence
from parity.errors import BadUsage, CannotCompare
from parity.fixes import Repair, fixable, verified
from parity.identity import identity
from parity.lending import lent
from parity.report import PHASES, Finding, Probe, Report
from parity.runner import Runner
from parity.setup import set_up
from parity.summary import layer_rows, recipe_rows
from parity.traces.between import recorded_pair
from parity.wording import listed

__all__ = ["check", "check_and_fix"]

Progress = Callable[[str, int, int], None]


def _quiet(description: str, done: int, total: int) -> None:
    """Report progress to nobody."""


def check(*, verify: bool = True, **options: Any) -> Report:
    """The report of a comparison.

    Args:
        verify: try the fixes of what diverged on a copy of the Keras model.
        **options: those of `check_and_fix`, but for `fixes`.

    Raises:
        ParityError: as `check_and_fix`.
    """
    return check_and_fix(**options, fixes="diverged" if verify else "never").before


@lent
def check_and_fix(
    *,
    ref: Any,
    keras: Any,
    batch: Any = None,
    mode: str = "train",
    weights: str = "ref",
    steps: int = 3,
    map: str | PathLike[str] | Mapping[str, str] | None = None,
    custom_objects: str | PathLike[str] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    only: str | None = None,
    allow: Sequence[str] = (),
    strict: bool = False,
    keras_engine: str = "auto",
    keras_arch: str | PathLike[str] | None = None,
    backend: str = "",
    trust: bool = False,
    ref_recipe: str | PathLike[str] | None = None,
    ref_version: str = "",
    progress: Progress | None = None,
    details: bool = False,
    fixes: str = "diverged",
) -> Repair:
    """Compare a Keras model with its reference on one batch, and try the fixes of what diverged.

    A model in memory is used while this runs, and has its own weights again afterwards.

    Args:
        ref: path of a MatConvNet (or Keras) file, a Keras model in memory, or a `Runner`.
        keras: path of a Keras file, `module.py:build` (which is run), a Keras model in memory, or a `Runner`.
        batch: path of an `.npz` or `imdb.mat`, a mapping with `x` and `y`, or a `Batch`; None makes a seeded one.
        mode: `"train"`: input, structure, weights, forward, loss, backward, update; `"eval"`: input to loss.
        weights: `"ref"` loads the reference's weights into Keras; `"own"` leaves the Keras file its own.
        steps: training steps in the update phase.
        map: a TOML map file, or reference layer → Keras layer.
        custom_objects: a Python file with the model's custom classes, which is run.
        rtol: relative tolerance in place of the measured noise floor; goes with `atol`.
        atol: absolute tolerance; goes with `rtol`.
        seed: of the probe batch and of dropout.
        only: pattern of layers to show and judge.
        allow: `STATUS:GLOB` items that are not held against the verdict.
        strict: hold against the verdict what differs without showing on this batch (`masked`).
        keras_engine: `"auto"` (the Keras of a file's era), `"keras3"` or `"tf_keras"`.
        keras_arch: for a file of weights alone: the model's JSON, or `module.py:build`, which is run.
        backend: what Keras 3 runs on: `"tensorflow"`, `"torch"` or `"jax"`; empty for what is set.
        trust: let code that comes with a model file run.
        ref_recipe: a TOML file with what a .mat does not say of its training.
        ref_version: `"beta25"` or `"head"`: whose raw values of a loss are told.
        progress: called as progress(what, done, total).
        details: keep where and how each tensor differs, for the page (`Report.details`).
        fixes: which are tried on a copy of the Keras model: those of a `"diverged"` comparison, those of faults that
            this batch does not show too (`"always"`), or none (`"never"`).

    Raises:
        ParityError: a file cannot be read or run, options do not go together, or nothing can be compared.
    """
    tell = progress or _quiet
    tell("reading files", 0, 1)
    setup = set_up(
        ref=ref, keras=keras, batch=batch, mode=mode, weights=weights, steps=steps, map=map,
        custom_objects=custom_objects, rtol=rtol, atol=atol, seed=seed, allow=allow, keras_engine=keras_engine,
        keras_arch=keras_arch, backend=backend, trust=trust, ref_recipe=ref_recipe, ref_version=ref_version,
    )  # fmt: skip
    allowed, recorded = setup.allowed, recorded_pair(setup, steps=steps, details=details, progress=tell)
    if recorded is not None:
        sides, run, findings = recorded
    else:
        sides = setup.sides
        run = run_comparison(
            sides.ref,
            sides.keras,
            sides.data,
            mode=mode,
            own=weights == "own",
            steps=steps,
            mapping=setup.mapping,
            limits=setup.limits,
            details=details,
            progress=tell,
        )
        findings = diagnose(run)
    used, notes = sides.batch, [*sides.notes, *_remarks(run), coverage(run)]
    probes = tuple(p for p in run.probes if only is None or p.phase == "input" or _fits(p, only))
    if only is not None:
        findings = tuple(f for f in findings if not f.layer or fnmatchcase(f.layer, only))
        notes.append(f"Only layers that fit {only!r} are shown and judged.")
        if not any(p.phase not in ("input",) for p in probes):
            raise BadUsage(f"--only {only}: no layer has such a name")
    judged = [p for p in probes if not _allowed(p, allowed)]
    notes += _permitted(probes, allowed)
    findings = tuple(_softened(f, probes, allowed) for f in findings)
    findings = tuple(sorted(findings, key=lambda f: f.severity == "note"))
    first = first_divergence(judged, findings, strict=strict, alone=recorded is None)
    verdict = "diverged" if first else "unverified" if any(p.status == "unverified" for p in judged) else "match"
    if verdict == "match" and not any(p.phase in ("forward", "loss", "backward", "update") for p in judged):
        raise CannotCompare("nothing of the two models could be compared beyond their structure")
    report = Report(
        verdict=verdict,
        first_divergence=first,
        findings=findings,
        probes=probes,
        layers=tuple(r for r in layer_rows(run, probes) if only is None or fnmatchcase(r.layer or r.keras_layer, only)),
        recipe=recipe_rows(run) if mode == "train" else (),
        outcome=run.outcome,
        notes=tuple(dict.fromkeys(note for note in notes if note)),
        environment=_environment(sides.ref, sides.keras, seed),
        inputs={
            "ref": {**identity(ref), **_weights_of(ref, run), "framework": sides.ref.network.framework},
            "keras": {**identity(keras), "framework": sides.keras.network.framework},
            "batch": identity(batch) or {"source": used.source},
        },
        options={
            "mode": mode,
            "weights": "own" if recorded is not None else weights,
            "steps": steps if mode == "train" else 0,
            "seed": seed,
            "rtol": rtol,
            "atol": atol,
            "only": only,
            "allow": list(allow),
            "strict": strict,
        },
        phases=tuple(phase for phase in PHASES if any(p.phase == phase for p in probes)),
        details=_kept(run, only),
    )
    wanted = fixes == "always" or (fixes == "diverged" and verdict == "diverged")
    if not (wanted and fixable(report) and hasattr(sides.keras, "model")):
        tell("done", 1, 1)
        return Repair(report)

    def rerun(runner: Any, again: batches.Batch) -> Report:
        sides.ref.load(run.course.weights[0])
        return check(
            ref=sides.ref, keras=runner, batch=again, mode=mode, weights=weights, steps=steps, map=map, rtol=rtol,
            atol=atol, seed=seed, only=only, allow=allow, strict=strict, verify=False,
        )  # fmt: skip

    tell("trying the fixes", 0, 1)
    runner: Any = getattr(sides.keras, "inner", sides.keras)
    repair = verified(report, runner, run.old_values, used, rerun)
    tell("done", 1, 1)
    return repair


# -------------------------------------------------------------------------------------------------------------- options


def _fits(probe: Probe, pattern: str) -> bool:
    """Whether one of its layers' names fits the pattern."""
    return any(name and fnmatchcase(name, pattern) for name in (probe.layer, probe.keras_layer))


def _allowed(probe: Probe, allowed: Sequence[tuple[str, str]]) -> bool:
    return any(probe.status == status and _fits(probe, pattern) for status, pattern in allowed)


def _kept(run: Comparison, only: str | None) -> tuple[Detail, ...]:
    """The details of what is shown, in the order of the phases."""
    kept = run.album.sorted(PHASES) if run.album is not None else ()
    return tuple(d for d in kept if only is None or any(fnmatchcase(n, only) for n in (d.layer, d.keras_layer) if n))


def _permitted(probes: Sequence[Probe], allowed: Sequence[tuple[str, str]]) -> list[str]:
    notes: list[str] = []
    for status, pattern in allowed:
        names = {p.layer or p.keras_layer for p in probes if _allowed(p, [(status, pattern)])}
        if names:
            notes.append(f"Allowed as {status}: {', '.join(sorted(names))}.")
        else:
            notes.append(f"Nothing was {status} that fits {pattern!r}: the allowance can go.")
    return notes


def _softened(finding: Finding, probes: Sequence[Probe], allowed: Sequence[tuple[str, str]]) -> Finding:
    """A finding whose every fault is allowed becomes a note."""
    if finding.severity == "note" or not allowed:
        return finding
    here = [
        p
        for p in probes
        if p.phase == finding.phase
        and p.status in ("born", "unpaired")
        and (p.layer, p.keras_layer) == (finding.layer, finding.keras_layer)
    ]
    return replace(finding, severity="note") if here and all(_allowed(p, allowed) for p in here) else finding


# ------------------------------------------------------------------------------------------------------ the small print


def _remarks(run: Comparison) -> list[str]:
    """Facts about the files that a reader should know."""
    notes = [*run.notes, *run.ref.network.remarks, *run.keras.network.remarks]
    notes += [*run.ref.recipe.notes, *run.keras.recipe.notes]
    notes += getattr(run.ref, "remarks", [])
    notes += getattr(run.keras, "remarks", [])
    shown = getattr(run.ref, "raw_remark", None)
    if shown is not None and run.course.passes:
        notes.append(shown(run.course.passes[0], len(next(iter(run.data.ref.values())))))
    both = [bool(side.network.losses) for side in (run.ref, run.keras)]
    if not all(both) and run.mode == "train":
        who = "Neither side has a" if not any(both) else f"The {'Keras model' if both[0] else 'reference'} has no"
        notes.append(f"{who} loss: loss, backward and update do not apply.")
    meta = run.ref.network.meta
    normalization = meta.get("normalization") if isinstance(meta.get("normalization"), Mapping) else {}
    average = (normalization or {}).get("averageImage", meta.get("averageImage"))
    if average is not None and np.size(average):
        mean = np.asarray(average, np.float64)
        what = "The file's averageImage"
        try:
            note = batches.mean_note(next(iter(run.data.ref.values())), mean, what)
        except (ValueError, TypeError):
            note = ""
        if note:
            notes.append(note)
    old = {p.note.split(":")[0] for p in run.probes if p.phase == "weights" and p.note}
    if not run.own and old:
        notes.append(
            f"The Keras file's own weights against the reference's: {', '.join(sorted(old))}; "
            "the reference's were loaded over them."
        )
    if run.orders.layers:
        notes.append(
            f"Keras has the channels that {listed(run.orders.layers)} make{'s' * (len(run.orders.layers) == 1)} in "
            "another order, and whatever reads them follows it: the same function. They are compared in the "
            "reference's order."
        )
    schedule = run.ref.recipe.learning_rate
    if run.moves and schedule.kind == "epochs" and len(set(schedule.values)) > 1:
        notes.append(f"Updates use the first rate of the reference's schedule ({schedule}).")
    law = [m for m in run.moves if not m.link.linear and m.link.ref and m.status == "match" and m.isolated]
    if law:
        gap = max(m.isolated.relative for m in law if m.isolated)
        notes.append(
            "Running variances: MatConvNet averages the standard deviation, Keras the variance; their moves differ by "
            f"up to {gap:.2g} of a step by that law alone, for which Keras has no argument."
        )
    return notes


def _weights_of(ref: Any, run: Comparison) -> dict[str, Any]:
    """What tells one model in memory from another of its name: the digest of its weights before the first step."""
    if ref is None or isinstance(ref, str | PathLike) or not run.course.weights:
        return {}
    return {"sha256": identity(run.course.weights[0])["sha256"]}


def _environment(ref: Runner, keras: Runner, seed: int) -> dict[str, Any]:
    import parity

    return {
        "parity": parity.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "ref": dict(ref.engine),
        "keras": dict(keras.engine),
        "seed": seed,
    }
