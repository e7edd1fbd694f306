"""Runs cases and holds what parity says against what was planted."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from bench.faults.cases import Case, cases
from bench.faults.scene import PHASES, Planted, Scene

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@dataclass(frozen=True)
class Score:
    """How one planted fault fared; what does not apply is None.

    Attributes:
        cause: the row of the table.
        detected: the verdict is `diverged` and something is said of the place.
        located: phase and layer are exact.
        named: the first cause named for it is right.
        confirmed: that finding is confirmed.
        fixed: its fix is verified, where there is one.
    """

    cause: str
    detected: bool
    located: bool
    named: bool
    confirmed: bool | None
    fixed: bool | None


@dataclass(frozen=True)
class Result:
    """What came of one case.

    Attributes:
        id: of the case.
        kind: fault, double, masked or clean.
        scores: of each planted fault.
        passed: for masked and clean cases, whether the verdict and the notes are right.
        extra: causes that were named as divergences and were not planted.
        expected, said: one line each.
        seconds: that it took.
    """

    id: str
    kind: str
    scores: tuple[Score, ...] = ()
    passed: bool = True
    extra: tuple[str, ...] = ()
    expected: str = ""
    said: str = ""
    seconds: float = 0.0
    failed: tuple[str, ...] = field(default_factory=tuple)


def run_all(seed: int, only: str = "*", jobs: int = 2, every: int = 1) -> Iterator[Result]:
    """The results of a seed's cases, as they come."""
    chosen = [case.id for case in cases(seed) if fnmatchcase(case.id, only)][::every]
    if jobs == 1:
        for name in chosen:
            yield run_case(seed, name)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _start, (max(1, (os.cpu_count() or 1) // jobs),)) as pool:
        yield from pool.imap_unordered(_numbered, [(seed, name) for name in chosen])


def _start(threads: int) -> None:
    """A worker keeps to its share of the processors, and the frameworks' own remarks to itself."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    import tensorflow as tf
    import torch

    torch.set_num_threads(threads)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _numbered(task: tuple[int, str]) -> Result:
    return run_case(*task)


def run_case(seed: int, name: str) -> Result:
    """One case, from its scene to its result; what parity raises is a failure."""
    case = next(case for case in cases(seed) if case.id == name)
    start = time.perf_counter()
    scene = case.scene(np.random.default_rng([seed, zlib.crc32(name.encode())]))
    try:
        report = compare(scene)
    except Exception as error:  # whatever it is, it counts against parity
        line = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return _broken(case, scene, line, time.perf_counter() - start)
    return judged(case, scene, report, time.perf_counter() - start)


def compare(scene: Scene) -> Any:
    """What parity says of a scene."""
    import keras
    import tensorflow as tf

    import parity
    from bench.faults.matlab import save
    from bench.faults.port import port

    keras.utils.set_random_seed(0)
    tf.random.set_seed(0)
    training = scene.training if scene.compiled else None
    model = port(scene.port, scene.spelling, training, scene.own, scene.held)
    if scene.model is not None:
        model = scene.model(model)
    try:
        with tempfile.TemporaryDirectory() as folder:
            ref: Any = save(Path(folder) / "net.mat", scene.ref)
            if scene.storage != "live":
                path = Path(folder) / f"model.{scene.storage}"
                model.save(path)
                model = path
            return parity.compare(ref=ref, keras=model, batch=scene.batch, **scene.options)
    finally:
        keras.backend.clear_session()


# ------------------------------------------------------------------------------------------------------------- judgment


def judged(case: Case, scene: Scene, report: Any, seconds: float) -> Result:
    """The result of a case, from its report."""
    planted = [p for p in scene.planted if not p.masked]
    named = [f for f in report.findings if f.severity == "divergence"]
    first = report.first_divergence
    said = _said(report)
    expected = _expected(scene)
    if not planted:
        noted = {f.cause for f in report.findings if f.severity == "note"}
        lacking = [p.cause[0] for p in scene.planted if p.noted and not noted & set(p.cause)]
        passed = report.verdict == "match" and not named and not lacking
        failed = (
            () if passed else (*(["false alarm"] if report.verdict != "match" or named else []), *_unnoted(lacking))
        )
        return Result(case.id, case.kind, (), passed, (), expected, said, seconds, tuple(failed))
    ordered = sorted(planted, key=lambda p: min(PHASES.index(w) for w in p.phase.split()))
    scores = tuple(_score(case, p, p is ordered[0] and len(planted) == 1, report, named, first) for p in planted)
    if len(planted) > 1 and not any(_first(p, report) for p in planted):
        scores = tuple(Score(s.cause, s.detected, False, s.named, s.confirmed, s.fixed) for s in scores)
    wanted = {cause for p in scene.planted for cause in p.cause} | scene.true
    extra = tuple(f"{f.cause}@{f.layer or f.keras_layer}" for f in named if f.cause not in wanted)
    failed = _failures(scores, extra)
    return Result(case.id, case.kind, scores, not failed, extra, expected, said, seconds, failed)


def _unnoted(causes: Sequence[str]) -> list[str]:
    return [f"no note on {cause}" for cause in causes]


def _score(case: Case, p: Planted, only: bool, report: Any, named: Sequence[Any], first: Any) -> Score:
    if p.unverified:
        return _score_noise(case, p, report)
    here = [f for f in named if _placed(p, f.layer) or not f.layer]
    mine = [f for f in here if f.cause in p.cause]
    if only:
        chosen = named[0] if named and named[0].cause in p.cause else None
        detected = report.verdict == "diverged"
        located = _first(p, report)
    else:
        chosen = mine[0] if mine else None
        shown = [r for r in report.probes if r.status in ("born", "unpaired") and r.phase in p.phase.split()]
        located = any(_placed(p, r.layer) for r in shown) or any(_placed(p, f.layer) for f in mine)
        detected = located or bool(here)
    confirmed = any(f.confirmed for f in mine) if p.confirm else None
    fixed = any(f.fix_verified for f in mine) if p.fix else None
    return Score(
        p.cause[0] if case.kind == "double" else case.cause, detected, located, chosen is not None, confirmed, fixed
    )


def _score_noise(case: Case, p: Planted, report: Any) -> Score:
    """A layer that does not repeat itself must be said to, whatever the verdict is called; it is never a pass."""
    shown = [r for r in report.probes if r.status in ("born", "unverified") and r.phase in p.phase.split()]
    named = any(f.cause in p.cause and _placed(p, f.layer) for f in report.findings)
    located = bool(shown) and _placed(p, shown[0].layer)
    return Score(case.cause, report.verdict != "match", located, named, None, None)


def _placed(p: Planted, layer: str) -> bool:
    return p.layers is None or layer in p.layers


def _first(p: Planted, report: Any) -> bool:
    found = report.first_divergence
    return found is not None and found.phase in p.phase.split() and _placed(p, found.layer)


def _failures(scores: Sequence[Score], extra: Sequence[str]) -> tuple[str, ...]:
    made = []
    for s in scores:
        words = {"not detected": s.detected, "place": s.located, "cause": s.named}
        lacks = [word for word, good in words.items() if not good]
        lacks += ["not confirmed"] if s.confirmed is False and s.named else []
        lacks += ["fix not verified"] if s.fixed is False and s.named else []
        made += lacks
    return (*dict.fromkeys(made), *(["extra findings"] if extra else []))


def _expected(scene: Scene) -> str:
    words = []
    for p in scene.planted:
        where = "anywhere" if p.layers is None else "|".join(name or "(Keras only)" for name in p.layers)
        words.append(f"{'|'.join(p.cause)} in {p.phase} at {where}" + (" (masked)" if p.masked else ""))
    return "; ".join(words) or "match"


def _said(report: Any) -> str:
    first = report.first_divergence
    where = f" first {first.phase} at {first.layer or '(' + first.keras_layer + ')'}.{first.tensor}" if first else ""
    marks = {True: "+", False: ""}
    found = [
        f"{f.cause}@{f.layer or f.keras_layer or '-'}{marks[f.confirmed]}{marks[f.fix_verified]}"
        + (" (note)" if f.severity == "note" else "")
        for f in report.findings
    ]
    return f"{report.verdict}{where}: {', '.join(found) or 'no findings'}"


def _broken(case: Case, scene: Scene, line: str, seconds: float) -> Result:
    scores = tuple(
        Score(
            p.cause[0] if case.kind == "double" else case.cause,
            False,
            False,
            False,
            False if p.confirm else None,
            False if p.fix else None,
        )
        for p in scene.planted
        if not p.masked
    )
    return Result(case.id, case.kind, scores, False, (), _expected(scene), line, seconds, ("error",))
