"""What the fixes did: before and after as renderables, the repaired model as a file, and the script that makes it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from parity.changes import Change, holder
from parity.errors import BadUsage
from parity.frameworks.keras.edits.optimizers import OWN_OPTIMIZERS
from parity.frameworks.keras.edits.own import OWN
from parity.report import PHASES, Finding, Report
from parity.reports.console import PROSE, verdict_line
from parity.reports.output import check_target, replacing, write
from parity.reports.words import clean, plural, verdict_style, worst

if TYPE_CHECKING:
    from rich.console import RenderableType

    from parity.fixes import Repair

__all__ = ["FixView", "change_words", "check_fix", "save_fix"]

_EXTENSIONS = (".keras", ".h5")

_BAD = ("born", "unpaired", "unverified")


# Before a run, and the files after it ---------------------------------------------------------------------------------


def check_fix(fix: Path | None, script: Path | None, inputs: Sequence[Path]) -> None:
    """Raise before a long run if a repaired model or its script could not be written after it.

    Args:
        fix: the model's file, `.keras` or `.h5`.
        script: the script's, `.py`.
        inputs: what is read; none of it may be written over.

    Raises:
        BadUsage: another extension, an input, or a place that cannot be written to.
    """
    for path, option, extensions in ((fix, "--fix", _EXTENSIONS), (script, "--fix-script", (".py",))):
        if path is None:
            continue
        if path.suffix not in extensions:
            raise BadUsage(f"{option} {path}: name a file that ends with {' or '.join(extensions)}")
        targets = [path, path.with_suffix(".npz")] if option == "--fix-script" else [path]
        for target in targets:
            check_target(target, option, inputs, regular=option == "--fix")


def save_fix(
    repair: Repair,
    fix: Path | None,
    script: Path | None,
    *,
    keras: Path,
    custom_objects: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Writes the repaired model and the script that makes it, each whole or not at all.

    Args:
        repair: what `parity.fixes.verified` found.
        fix: where the model goes; None for nowhere.
        script: where the script goes; None for nowhere. Large arrays go beside it, into an `.npz` of the same name.
        keras: the file that was compared.
        custom_objects: the Python file with its custom classes.

    Returns:
        A line for each file that was written, and for what it cannot hold.

    Raises:
        BadUsage: there is no fix that holds, or a file cannot be written.
    """
    option, target = ("--fix", fix) if fix is not None else ("--fix-script", script)
    if not any(finding.fix_verified for finding in repair.before.findings) or repair.runner is None:
        raise BadUsage(f"{option} {target}: {_why_nothing(repair)}")
    lines: list[str] = []
    metrics = repair.runner.recipe.metrics
    if fix is not None:
        _save_model(repair.runner.model, fix, metrics)
        lines.append(f"The repaired model is in {fix}.")
    if script is not None:
        lines += _save_script(repair, fix, script, keras, custom_objects, metrics)
    if repair.runner.edited.rates:
        where = f"{script} trains with them" if script is not None else "--fix-script writes a training that has them"
        lines.append(f"Factors on learning rates are not in the model's file: Keras has no argument for them; {where}.")
    lacking = [name for name in OWN if any(name == change.values.get("class_name") for change, _ in repair.done)]
    optimizer = type(getattr(repair.runner.model, "optimizer", None)).__name__
    lacking += [optimizer] if optimizer in OWN_OPTIMIZERS else []
    if fix is not None and lacking:
        named = " or ".join(lacking)
        lines.append(f"Keras has no {named}: whoever loads the file needs its class, which --fix-script writes.")
    fed = [change for change, _ in repair.done if change.action in ("input", "labels")]
    lines += [f"{change_words(change)}: this is not in the model's file." for change in fed]
    return lines


def _why_nothing(repair: Repair) -> str:
    """Why no fix holds, in a few words."""
    if repair.before.verdict == "match" and not any(f.changes for f in repair.before.findings):
        return "nothing to fix, both sides agree"
    if repair.after is not None:
        return "nothing was written: no fix that was tried took its fault away"
    if repair.left:
        return f"nothing was written: no fix could be tried ({repair.left[0][1]})"
    return "nothing was written: no finding has a fix that parity can carry out"


def _save_model(model: Any, path: Path, metrics: Sequence[str]) -> None:
    from parity.frameworks.keras.edits.saving import save_model

    with replacing(path, "--fix") as name:
        try:
            save_model(model, name, metrics)
        except (ValueError, TypeError, NotImplementedError) as error:
            words = " ".join(str(error).split())[:160]
            raise BadUsage(f"--fix {path}: Keras cannot save this model ({words})") from error


def _save_script(
    repair: Repair,
    fix: Path | None,
    script: Path,
    keras: Path,
    custom_objects: str | os.PathLike[str] | None,
    metrics: Sequence[str],
) -> list[str]:
    from parity.frameworks.keras.edits.script import script_of

    assert repair.runner is not None
    result = fix if fix is not None else script.with_suffix(".keras")
    custom = None if custom_objects is None else str(Path(custom_objects).resolve())
    try:
        made = script_of(
            repair.runner.edited,
            [_reason(finding) for _, finding in repair.done],
            source=str(keras.resolve()),
            result=str(result.resolve()),
            custom_objects=custom,
            metrics=metrics,
        )
    except ValueError as error:
        raise BadUsage(f"--fix-script {script}: {error}; --fix writes the model all the same") from error
    beside = script.with_suffix(".npz")
    if made.arrays:
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in made.arrays.items()}
        with replacing(beside, "--fix-script") as name:
            np.savez(name, **arrays)
    write(script, made.text.replace("{arrays}", beside.name), "--fix-script")
    return [f"The script that makes it is in {script}" + (f", its arrays in {beside}." if made.arrays else ".")]


def _reason(finding: Finding) -> str:
    """The comment of a change in the script."""
    where = " / ".join(dict.fromkeys(name for name in (finding.layer, finding.keras_layer) if name))
    return f"{finding.cause}{', ' + clean(where) if where else ''}: {clean(finding.evidence)}"


# What is shown --------------------------------------------------------------------------------------------------------


class FixView:
    """Draws itself: which fixes held, and the comparison before and after them."""

    def __init__(self, repair: Repair) -> None:
        self.repair = repair

    def __rich_console__(self, console: Any, options: Any) -> Iterator[RenderableType]:
        width = min(options.max_width, PROSE)
        for piece in _render(self.repair):
            yield Constrain(piece, width)


def _render(repair: Repair) -> Iterator[RenderableType]:
    if repair.after is None:
        words = _why_nothing(repair)
        yield Text(words[0].upper() + words[1:] + ".")
        return
    yield Text("Fixes, tried on a copy", style="bold")
    for finding in repair.before.findings:
        if finding.changes:
            yield from _tried(finding, repair)
    yield Text()
    yield _table(repair.before, repair.after)


def _tried(finding: Finding, repair: Repair) -> Iterator[RenderableType]:
    """One fix: whether it held, its changes, and what of it could not be carried out."""
    line = Text()
    word, style = ("verified", "green") if finding.fix_verified else ("not verified", "yellow")
    line.append(f"{word}  ", style=style)
    line.append(finding.cause, style="bold")
    where = finding.keras_layer or finding.layer
    line.append(f" at {clean(where)}" if where else "")
    yield line
    for words in _grouped(finding.changes):
        yield Padding(Text(words), (0, 0, 0, 4))
    left = {reason for change, reason in repair.left if any(change is c for c in finding.changes)}
    for reason in sorted(left):
        yield Padding(Text(f"not carried out: {clean(reason)}", style="yellow"), (0, 0, 0, 4))


def _grouped(changes: Sequence[Change]) -> Iterator[str]:
    """The changes in words, a few of each action."""
    by_action: dict[str, list[Change]] = {}
    for change in changes:
        by_action.setdefault(change.action, []).append(change)
    for alike in by_action.values():
        yield from (change_words(change) for change in alike[:3])
        if len(alike) > 3:
            yield f"and {len(alike) - 3} more like this"


def change_words(change: Change) -> str:
    """A change in a few words, e.g. `conv2: groups=2`."""
    name, values = clean(change.layer), change.values
    given = values.get("config", {}) if "class_name" in values or "config" in values else values
    arguments = ", ".join(f"{key}={_short(value)}" for key, value in given.items())
    made = f"{values.get('class_name', '')}({arguments})"
    role = values.get("role", "")
    match change.action:
        case "argument":
            return f"{name}: {arguments}"
        case "replace":
            return f"{name}: {made} in its place"
        case "insert":
            where = "before" if values.get("before") else "beside what reads" if values.get("aside") else "behind"
            read = f"({', '.join(clean(part) for part in values['inputs'])})" if values.get("inputs") else ""
            return f"{made}{read} {where} {name or 'the input'}"
        case "remove":
            return f"without {name}"
        case "rewire" if "behind" in values:
            return f"{name} behind {clean(values['behind'])}"
        case "rewire":
            read = values.get("inputs") or [f"input {i + 1}" for i in values.get("order", ())]
            return f"{name} reads {', '.join(clean(part) for part in read)}"
        case "weights":
            return f"{name}: another {role}"
        case "optimizer" if "class_name" in values and "config" not in values:
            return f"optimizer: {values['class_name']}, with the same settings"
        case "optimizer":
            return f"optimizer: {made if 'class_name' in values else arguments}"
        case "loss" if "weight" in values:
            return f"loss weight × {values['weight']:g}"
        case "loss":
            return f"loss: {made if 'class_name' in values else arguments}"
        case "regularize" | "constrain":
            made = holder(change).split(".", 2)[-1]
            what = "regularizer" if change.action == "regularize" else "constraint"
            return f"{name}: {role} {what} " + ("off" if made == "None" else made)
        case "rate":
            return f"{name}: learning rate of its {role} × {values['factor']:g}"
        case "trainable":
            return f"{name}: trainable={bool(values['trainable'])}"
        case _:
            letter = "y" if change.action == "labels" else "x"
            return f"{letter} = {clean(values.get('code', letter))}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return str(value.get("class_name", "…"))
    return clean(repr(value)) if not isinstance(value, np.ndarray) else f"array {value.shape}"


def _table(before: Report, after: Report) -> Table:
    """Phase by phase: what was found before, and after."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in ("phase", "before", "after"):
        table.add_column(title, overflow="fold")
    for phase in PHASES:
        if phase in before.phases or phase in after.phases:
            table.add_row(phase, _cell(before, phase), _cell(after, phase))
    table.add_section()
    table.add_row(Text("verdict", style="bold"), *(_verdict(report) for report in (before, after)))
    return table


def _cell(report: Report, phase: str) -> Text:
    """`first at conv1 (output): 3 born, 8 inherited`; `match`."""
    probes = [probe for probe in report.probes if probe.phase == phase]
    if not probes:
        return Text("not compared", style="dim")
    counts = Counter(probe.status for probe in probes)
    worse = worst(counts)
    if worse == "match":
        return Text("match", style=verdict_style("match"))
    shown = [f"{counts[status]} {status}" for status in ("born", "unpaired", "unverified", "inherited", "masked")]
    words = ", ".join(part for part in shown if not part.startswith("0 "))
    first = next((probe for probe in probes if probe.status in _BAD), None)
    if first is not None:
        words = f"first at {clean(first.layer or first.keras_layer)} ({clean(first.tensor)}): {words}"
    return Text(words, style=verdict_style(worse))


def _verdict(report: Report) -> Text:
    line = verdict_line(report) if report.verdict != "match" else "match"
    if report.verdict == "diverged":
        first = report.first_divergence
        causes = sum(finding.severity == "divergence" for finding in report.findings)
        where = f": first in {first.phase} at {clean(first.layer or first.keras_layer)}" if first else ""
        line = f"diverged{where}; {plural(causes, 'cause')}"
    return Text(line, style=verdict_style(report.verdict))
