"""Comparisons in which a side is a trace that cannot be run: the other side is recorded too, and the two compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from os import fspath
from pathlib import Path
from typing import cast

from parity.batch import Batch
from parity.case import Comparison
from parity.report import Finding
from parity.runner import Runner
from parity.setup import Setup
from parity.sides import Sides
from parity.traces.format import is_trace
from parity.traces.reader import Trace
from parity.traces.two import compare_traces, findings_of

__all__ = ["recorded_batch", "recorded_pair", "traces_of"]

Progress = Callable[[str, int, int], None]


def recorded_pair(
    setup: Setup, *, steps: int, details: bool = False, progress: Progress = lambda *_: None
) -> tuple[Sides, Comparison, tuple[Finding, ...]] | None:
    """The comparison of two recorded runs; None where both sides can be run, or the trace can stand for a runner.

    Args:
        setup: what is compared.
        steps: updates at most.
        details: keep where and how tensors differ (`Comparison.album`).
        progress: called as progress(what, done, total).

    Raises:
        ParityError: a file cannot be read or run, or the two have nothing in common.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = traces_of(setup, Path(folder), progress)
        if found is None:
            return None
        mine, theirs, notes = found
        mode = setup.mode
        run = compare_traces(
            mine, theirs, mode=mode, steps=steps, mapping=setup.mapping, limits=setup.limits, batch=setup.given,
            details=details, progress=progress,
        )  # fmt: skip
        notes += _remarks(mine, theirs, steps if mode == "train" else 0)
        sides = Sides(
            cast(Runner, run.ref), cast(Runner, run.keras), run.data, recorded_batch(mine), tuple(notes)
        )  # fmt: skip
        return sides, run, findings_of(run)


def traces_of(
    setup: Setup, folder: Path, progress: Progress = lambda *_: None
) -> tuple[Trace, Trace, list[str]] | None:
    """Both sides as traces, and what is to be said of that; None where `recorded_pair` is.

    Args:
        setup: what is compared.
        folder: where a side that is no trace is recorded; it is kept as long as the traces are read.
        progress: called as progress(what, done, total).

    Raises:
        ParityError: a file cannot be read or run.
    """
    ref, keras = setup.ref, setup.keras
    with ThreadPoolExecutor(2) as both:  # to hold a file against its digest takes as long as to read it
        mine, theirs = both.map(lambda side: Trace(fspath(side)) if is_trace(side) else None, (ref, keras))
    other = mine or theirs
    if other is None:
        return None
    if theirs is None and mine is not None and (mine.network.framework == "matconvnet" or mine.tensors == "all"):
        return None
    notes: list[str] = []
    if mine is None or theirs is None:
        name = "reference" if mine is None else "Keras model"
        notes.append(f"The {name} was run on the recorded batch; layers of a trace cannot be run alone.")
        made = Trace(_recorded(folder, setup, mine, other, progress))
        mine, theirs = mine or made, theirs or made
    notes += _floors(folder, mine)
    return mine, theirs, notes


def recorded_batch(trace: Trace) -> Batch:
    """Where a trace's batch came from; its arrays are the trace's."""
    path = trace.info.get("batch", {}).get("path")
    return Batch({}, source=str(path or f"the batch recorded in {trace.path}"))


def _recorded(folder: Path, setup: Setup, mine: Trace | None, other: Trace, progress: Progress) -> Path:
    """The side that is no trace, recorded as the other one was."""
    from parity.traces.capture import record

    target = folder / "recorded.h5"
    sides = {"ref": setup.ref} if mine is None else {"ref": setup.ref, "keras": setup.keras}
    return record(
        target, **sides, batch=other.path, mode=setup.mode, steps=max(1, other.steps), seed=setup.seed,
        tensors=other.tensors, how=setup.how, progress=progress,
    )  # fmt: skip


def _floors(folder: Path, mine: Trace) -> list[str]:
    """What is said of the floors of a reference whose trace holds none, as one from elsewhere may."""
    if mine.network.framework != "matconvnet" or any(mine.names(f"floors/{kind}") for kind in ("outputs", "losses")):
        return []
    from parity.traces.matconvnet import lend_floors
    from parity.traces.playback import network_of

    if not lend_floors(mine, network_of(mine), folder / "floors.h5"):
        return []
    return ["The reference's trace holds no noise floors: they are those of parity's own run of its network."]


def _remarks(mine: Trace, theirs: Trace, steps: int) -> list[str]:
    made = []
    kept = {trace.tensors for trace in (mine, theirs)} - {"all"}
    if kept:
        what = "statistics" if "stats" in kept else "a sample and statistics"
        made.append(f"Tensors were compared by {what}: that is what a trace keeps of them.")
    if steps and any(trace.network.losses and not trace.steps for trace in (mine, theirs)):
        made.append("No labels were recorded: loss, backward and update could not be compared.")
    if 0 < min(mine.steps, theirs.steps) < steps:
        made.append(f"{min(mine.steps, theirs.steps)} updates were recorded on both sides, and so many compared.")
    made += [str(n) for trace in (mine, theirs) for n in trace.info.get("notes", [])]
    return made
