"""A debugging session in a file: where one stands, breakpoints and experiments. JSON, written whole or not at all."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.debugger.breakpoints import Breakpoint
from parity.errors import BadFile, BadUsage, ParityError
from parity.identity import identity
from parity.reports.output import write

if TYPE_CHECKING:
    from parity.debugger.stepper import Stepper

__all__ = ["SCHEMA", "restore", "save", "script"]

SCHEMA = "parity-session/1"


def save(stepper: Stepper, path: Path) -> None:
    """Write a session's file; raises BadUsage where it cannot be written."""
    stop = stepper.stop
    text = json.dumps(
        {
            "schema": SCHEMA,
            "files": _files(stepper),
            "position": {"phase": stop.phase, "layer": stop.layer, "keras_layer": stop.keras_layer, "step": stop.step},
            "inside": list(stepper.inside),
            "breakpoints": [item.to_dict() for item in stepper.breakpoints],
            "experiments": [{"command": item.command, "where": list(item.where)} for item in stepper.experiments],
        },
        indent=2,
        ensure_ascii=False,
    )
    write(path, text + "\n", "--session")


_SIDES = {"ref": "reference", "keras": "Keras model", "batch": "batch"}


def restore(stepper: Stepper, path: Path) -> list[str]:
    """Take up a session where its file left it; what lies before that place is run.

    Of a session whose files have changed since, what still has its layer is taken up.

    Returns:
        What is not as it was, a sentence each. Nothing where there is no such file: that is a session that begins.

    Raises:
        BadFile: it is no session, it is damaged, or it is one of other files, of whose layers there are none here.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(str(path), f"cannot be read as a session ({error})", "name another file") from None
    try:
        held = json.loads(text)
        if not isinstance(held, dict) or held.get("schema") != SCHEMA:
            raise ValueError("its schema is not " + SCHEMA)
        _check(held)
        return _take_up(stepper, path, held)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = f"is no session of the debugger, or damaged ({' '.join(str(error).split())})"
        raise BadFile(str(path), problem, "name another file, or remove it to begin anew") from None


_BREAKPOINT = {"layer": str, "phase": str, "status": str, "condition": str, "after": int, "hits": int,
               "enabled": bool, "number": int}  # fmt: skip

_MOST = 1 << 31
"""Whole numbers of a session are smaller."""


def _check(held: Mapping[str, Any]) -> None:
    """Raises ValueError or KeyError, which say what is not as `save` writes it."""
    for digest in _typed(held["files"], dict, "files").values():
        _typed(digest, str, "a file")
    place = _typed(held["position"], dict, "position")
    for name in _PLACE:
        _typed(place[name], int if name == "step" else str, f"position's {name}")
    for name in _typed(held["inside"], list, "inside"):
        _typed(name, str, "a submodel")
    for item in _typed(held["breakpoints"], list, "breakpoints"):
        for name in _typed(item, dict, "a breakpoint"):
            _typed(item[name], _BREAKPOINT[name], f"a breakpoint's {name}")
        _typed(item["number"], int, "a breakpoint's number")
        try:
            Breakpoint.from_dict(item)
        except BadUsage as problem:
            raise ValueError(str(problem)) from None
    for item in _typed(held["experiments"], list, "experiments"):
        _typed(_typed(item, dict, "an experiment")["command"], str, "an experiment's command")
        where, step = _typed(item["where"], list, "an experiment's place")
        _typed(where, str, "an experiment's place")
        _typed(step, int, "an experiment's step")


def _typed(value: Any, wanted: type, what: str) -> Any:
    if type(value) is not wanted or (wanted is int and not 0 <= value < _MOST):
        raise ValueError(f"{what} is {reprlib.repr(value)}")
    return value


def _take_up(stepper: Stepper, path: Path, held: Mapping[str, Any]) -> list[str]:
    now, then = _files(stepper), dict(held["files"])
    changed = [_SIDES[side] for side, digest in then.items() if digest and now.get(side) and digest != now[side]]
    breakpoints = [Breakpoint.from_dict(item) for item in held["breakpoints"]]
    experiments = [(str(e["command"]), (str(e["where"][0]), int(e["where"][1]))) for e in held["experiments"]]
    place = held["position"]
    names = [str(place["layer"] or place["keras_layer"])]
    names += [item.layer for item in breakpoints] + [where.partition(" ")[0] for _, (where, _) in experiments]
    named = [name for name in names if name]
    if changed and named and not any(_stops(stepper, name) for name in named):
        raise BadFile(str(path), f"is a session of another {changed[0]}", "remove it, or name another file")
    said = [f"the {what} has changed since this session was saved" for what in changed]
    for item in breakpoints:
        if item.layer and not _stops(stepper, item.layer):
            said.append(f"kept, though its layer is gone: breakpoint {item.number} at {item.words}")
        stepper.breakpoints.append(item)
    for command, (where, step) in experiments:
        if where and not any(stepper.stops[index].step == step for index in _stops(stepper, where)):
            said.append(f"dropped: {command} at {where}, step {step}: there is no such place")
            continue
        try:
            stepper.experiments.repeat(command, (where, step))
        except ParityError as error:
            said.append(f"dropped: {command} at {where}, step {step}: {' '.join(str(error).split())}")
    here = [s.index for s in stepper.stops if all(getattr(s, key) == place[key] for key in _PLACE)]
    here = here or _stops(stepper, f"{names[0]} {place['phase']}")
    if not here:
        said.append(f"it stood in {place['phase']} at {names[0]}, which is gone; this is the start")
    stepper.goto(here[0] if here else 0)
    group = stepper.stop.group
    stepper.inside = tuple(str(name) for name in held["inside"])
    if stepper.inside != group[: len(stepper.inside)]:
        stepper.inside = ()
    return said


_PLACE = ("phase", "layer", "keras_layer", "step")


def _stops(stepper: Stepper, where: str) -> list[int]:
    """The stops of these words, none of names that are gone."""
    try:
        return stepper.find(where)
    except BadUsage:
        return []


def _files(stepper: Stepper) -> dict[str, str]:
    """Which side → the digest of its file; empty for what is not a file."""
    made: dict[str, str] = {}
    for side in ("ref", "keras", "batch"):
        found = identity(stepper.options.get(side)) or {}
        made[side] = str(found.get("sha256", ""))
    return made


def script(stepper: Stepper) -> str:
    """The experiments as a Python script that makes them again.

    Raises:
        BadUsage: a side is not a file.
    """
    usual = {"mode": "train", "weights": "ref", "steps": 3, "seed": 0, "only": None, "strict": False}
    lines = ['"""Experiments of a parity debugging session."""', "", "import parity", ""]
    given: list[str] = []
    for name, value in stepper.options.items():
        if name in ("ref", "keras") and not isinstance(value, str | PathLike):
            raise BadUsage("experiments: only those on files can be saved as a script; this side is a live object")
        if name == "batch" and value is not None and not isinstance(value, str | PathLike):
            raise BadUsage("experiments: only those on a batch file can be saved as a script")
        if value in (None, "", (), False, "auto") or usual.get(name) == value:
            continue
        given.append(f"{name}={(fspath(value) if isinstance(value, PathLike) else value)!r}")
    lines.append(f"stepper = parity.Stepper.open({', '.join(given)})")
    for item in stepper.experiments:
        lines += ["", f"stepper.experiments.repeat({item.command!r}, {item.where!r})"]
        lines.append("print(tuple(stepper.experiments)[-1].words)")
    lines += ["", "arrival = stepper.resume()", 'print(arrival.reason, "at", arrival.stop.words, arrival.state.status)']
    lines.append("print(stepper.verdict, stepper.first_divergence)")
    return "\n".join(lines) + "\n"
