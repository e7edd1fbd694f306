"""Comparisons in which a side is a trace that cannot be run: the other side is recorded too, and the two compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
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

__all__ = ["recorded_pair"]

Progress = Callable[[str, int, int], None]


def recorded_pair(
    setup: Setup, *, steps: int, progress: Progress = lambda *_: None
) -> tuple[Sides, Comparison, tuple[Finding, ...]] | None:
    """The comparison of two recorded runs; None where both sides can be run, or the trace can stand for a runner.

    Args:
        setup: what is compared.
        steps: updates at most.
        progress: called as progress(what, done, total).

    Raises:
        ParityError: a file cannot be read or run, or the two have nothing in common.
    """
    ref, keras, mode = setup.ref, setup.keras, setup.mode
    mine = Trace(fspath(ref)) if is_trace(ref) else None
    theirs = Trace(fspath(keras)) if is_trace(keras) else None
    if theirs is None and (mine is None or mine.network.framework == "matconvnet" or mine.tensors == "all"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        notes: list[str] = []
        other = mine or theirs
        assert other is not None
        if mine is None or theirs is None:
            name = "reference" if mine is None else "Keras model"
            notes.append(f"The {name} was run on the recorded batch; layers of a trace cannot be run alone.")
            made = Trace(_recorded(Path(folder), setup, mine, other, progress))
            mine, theirs = mine or made, theirs or made
        run = compare_traces(
            mine, theirs, mode=mode, steps=steps, mapping=setup.mapping, limits=setup.limits, batch=setup.given,
            progress=progress,
        )  # fmt: skip
        notes += _remarks(mine, theirs, steps if mode == "train" else 0)
        found = findings_of(run)
        batch = Batch({}, source=str(mine.info.get("batch", {}).get("path") or f"the batch recorded in {mine.path}"))
        sides = Sides(cast(Runner, run.ref), cast(Runner, run.keras), run.data, batch, tuple(notes))
        return sides, run, found


def _recorded(folder: Path, setup: Setup, mine: Trace | None, other: Trace, progress: Progress) -> Path:
    """The side that is no trace, recorded as the other one was."""
    from parity.traces.capture import record

    target = folder / "recorded.h5"
    sides = {"ref": setup.ref} if mine is None else {"ref": setup.ref, "keras": setup.keras}
    return record(
        target, **sides, batch=other.path, mode=setup.mode, steps=max(1, other.steps), seed=setup.seed,
        tensors=other.tensors, how=setup.how, progress=progress,
    )  # fmt: skip


def _remarks(mine: Trace, theirs: Trace, steps: int) -> list[str]:
    made = []
    kept = {trace.tensors for trace in (mine, theirs)} - {"all"}
    if kept:
        what = "statistics" if "stats" in kept else "a sample and statistics"
        made.append(f"Tensors were compared by {what}: that is what a trace keeps of them.")
    if 0 < min(mine.steps, theirs.steps) < steps:
        made.append(f"{min(mine.steps, theirs.steps)} updates were recorded on both sides, and so many compared.")
    made += [str(n) for trace in (mine, theirs) for n in trace.info.get("notes", [])]
    return made
