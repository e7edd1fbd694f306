"""The baseline of a gate: what each tensor may differ by, so that what gets worse is seen while it still passes.

A baseline holds *budgets*, not measurements. Rounding is another on another processor, with another number of threads
or another convolution algorithm, so a pair is measured under several of them (`CLIMATES`), the worst counts, it gets
headroom, and is rounded up to 1, 2 or 5 times a power of ten: a baseline made elsewhere is then the same file.

- run alone: units of the noise floor. 4 times the worst, and at least `_LEAST_ALONE`: as far as clean libraries go.
  What float64 proved to be rounding at 500 floors may go to 2000, and no further.
- end to end: relative error. 4 times the worst, and at least `_LEAST_END`; gradients may jump by a hundredth where
  rounding lets another maximum win or switches a relu.
- what diverges and is allowed: half as much again as it did. It is no noise, but it may not get worse.

The Keras model may change as long as it stays within its budgets. The reference, the batch and the options are what is
asked; where they are others, the baseline is the answer to another question, and stale.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.errors import BadFile
from parity.report import PHASES, STATUSES

if TYPE_CHECKING:
    from parity.report import Probe, Report

__all__ = ["CLIMATES", "SCHEMA", "Budget", "Entry", "guarded", "merge", "read_lock", "to_text"]

UPDATE = "parity gate --update"
"""The command that makes a gate's baselines."""

SCHEMA = "parity-lock/1"

CLIMATES: tuple[Mapping[str, str], ...] = (
    {},
    {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "0"},
)
"""Environments under which a baseline is measured: as it comes, and on one thread with other kernels."""

_HEADROOM, _HEADROOM_FAULT = 4.0, 1.5
_LEAST_ALONE = {"forward": 10.0}
_LEAST_ALONE_ELSE = 20.0
_LEAST_END = {"forward": 5e-6, "loss": 5e-6}
_LEAST_END_ELSE = 1e-2

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Budget:
    """What a tensor may differ by.

    Attributes:
        status: the gravest that it had.
        alone: units of the noise floor with the layer run alone; None where that is not judged.
        end: relative error end to end; None where that is not judged.
    """

    status: str
    alone: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Entry:
    """The baseline of one pair.

    Attributes:
        asked: what was compared and how: digests of files and options, by name.
        phases: which were compared.
        allowed: the divergences that were put up with.
        tensors: (phase, layer, tensor) → its budget, the worst of all steps.
    """

    asked: Mapping[str, Any]
    phases: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    tensors: Mapping[Key, Budget] = field(default_factory=dict)

    @staticmethod
    def of(reports: Iterable[Report], asked: Mapping[str, Any], allowed: Iterable[str], phases: Iterable[str]) -> Entry:
        """The baseline of one pair, from a report for each climate."""
        judged = tuple(phases)
        worst: dict[Key, Budget] = {}
        seen: set[str] = set()
        for report in reports:
            seen.update(report.phases)
            for probe in report.probes:
                if probe.phase in judged:
                    worst[key_of(probe)] = _worse(worst.get(key_of(probe)), probe)
        tensors = {key: _budget(key[0], found) for key, found in worst.items()}
        return Entry(asked, tuple(p for p in judged if p in seen), tuple(sorted(set(allowed))), tensors)


def key_of(probe: Probe) -> Key:
    """By the reference's names: Keras counts its layers anew in each process."""
    return probe.phase, probe.layer or probe.keras_layer, probe.tensor


def _worse(known: Budget | None, probe: Probe) -> Budget:
    """What was measured so far and now, the worse of each."""
    counted = probe.phase not in ("structure", "weights", "input")
    now = Budget(probe.status, probe.isolated_x_floor if counted else None, probe.rms_rel if counted else None)
    if known is None:
        return now

    def larger(a: float | None, b: float | None) -> float | None:
        return max((x for x in (a, b) if x is not None), default=None)

    status = max(known.status, now.status, key=STATUSES.index)
    return Budget(status, larger(known.alone, now.alone), larger(known.end, now.end))


def _budget(phase: str, worst: Budget) -> Budget:
    if worst.status in ("born", "inherited"):
        return Budget(worst.status, None, _with_headroom(worst.end, _HEADROOM_FAULT, 0.0))
    return Budget(
        worst.status,
        _with_headroom(worst.alone, _HEADROOM, _LEAST_ALONE.get(phase, _LEAST_ALONE_ELSE)),
        _with_headroom(worst.end, _HEADROOM, _LEAST_END.get(phase, _LEAST_END_ELSE)),
    )


def _with_headroom(measured: float | None, headroom: float, least: float) -> float | None:
    if measured is None or not math.isfinite(measured):
        return None
    value = max(headroom * measured, least)
    if value <= 0:
        return 0.0
    power = math.floor(math.log10(value))
    # Written out, so that the file holds 5e-06 and not a neighbour of it.
    steps = (float(f"{digit}e{power + up}") for digit, up in ((1, 0), (2, 0), (5, 0), (1, 1)))
    return next(step for step in steps if step >= value * (1 - 1e-9))


# ------------------------------------------------------------------------------------------------------------- the file


def read_lock(path: Path, command: str = UPDATE) -> dict[str, Entry]:
    """Pair → its baseline; {} where there is no file.

    Args:
        path: the file.
        command: what makes it, for messages.

    Raises:
        BadFile: it is no baseline, or one of a version that this parity does not read.
    """
    # It is not overwritten: what stands there may be a newer parity's, or somebody's other file.
    remedy = f"delete it, and make it anew: {command}"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else "it is not JSON"
        raise BadFile(path, f"cannot be read as a baseline ({what})", remedy) from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        name, _, version = str(schema).partition("/")
        if SCHEMA.startswith(f"{name}/") and version.isdecimal() and int(version) > int(SCHEMA.rpartition("/")[2]):
            remedy = f"a newer parity wrote it: use that one, or delete it, and make it anew: {command}"
        raise BadFile(path, f"has schema {schema!r}; this parity reads {SCHEMA}", remedy)
    try:
        return {str(name): _entry(held) for name, held in data["pairs"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile(path, f"is damaged ({type(error).__name__}: {error})", remedy) from None


def _entry(held: Mapping[str, Any]) -> Entry:
    tensors: dict[Key, Budget] = {}
    for phase, layer, tensor, status, alone, end in held["tensors"]:
        if phase not in PHASES or status not in STATUSES or not isinstance(layer, str) or not isinstance(tensor, str):
            raise ValueError(f"the line of {layer!r} in {phase!r}")
        tensors[phase, layer, tensor] = Budget(status, *(None if x is None else float(x) for x in (alone, end)))
    asked, phases, allowed = dict(held["asked"]), tuple(held["phases"]), tuple(held["allowed"])
    return Entry(asked, phases, allowed, tensors)


def to_text(entries: Mapping[str, Entry]) -> str:
    """The file: pairs by name, tensors in the network's order, one line each, so that a change is one line."""

    def line(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    pairs = []
    for name, entry in sorted(entries.items()):
        rows = [
            line([*key, budget.status, budget.alone, budget.end])
            for key, budget in sorted(entry.tensors.items(), key=lambda item: PHASES.index(item[0][0]))
        ]
        asked = ",\n".join(f"    {line(key)}: {line(value)}" for key, value in sorted(entry.asked.items()))
        pairs.append(
            f" {line(name)}: {{\n"
            f'  "asked": {{\n{asked}\n  }},\n'
            f'  "phases": {line(list(entry.phases))},\n'
            f'  "allowed": {line(list(entry.allowed))},\n'
            '  "tensors": [\n' + ",\n".join(f"   {row}" for row in rows) + "\n  ]\n }"
        )
    body = ",\n".join(pairs)
    return f'{{\n"schema": {line(SCHEMA)},\n"pairs": {{\n{body}\n}}\n}}\n'


def guarded() -> AbstractContextManager[Any]:
    """Held by one process of a user at a time, so that nobody's part of a baseline is lost when several write theirs.

    There is one for all baselines: to write one takes no time, and a file for each could never be removed, since
    another process may be waiting for it.
    """
    from filelock import FileLock

    user = os.getuid() if hasattr(os, "getuid") else ""
    return FileLock(Path(tempfile.gettempdir()) / f"parity-{user}.guard")


def merge(path: Path, made: Mapping[str, Entry], keep: Iterable[str] | None = None, command: str = UPDATE) -> None:
    """Put new baselines into the file beside what it holds; it is written whole or not at all.

    Args:
        path: the file.
        made: pair → its new baseline.
        keep: the other pairs that stay; None for all.
        command: what makes it, for messages.

    Raises:
        BadFile: what stands there is no baseline.
        BadUsage: it cannot be written.
    """
    from parity.reports.output import write

    with guarded():
        held = read_lock(path, command)
        wanted = set(held) if keep is None else set(keep)
        write(path, to_text({**{n: e for n, e in held.items() if n in wanted}, **made}), "--update")
