"""A report as rich renderables: for the terminal at any width, for a pipe, and (through `notebook`) for HTML.

The order puts what decides at the end, where a terminal leaves the reader: tables, recipe, findings, the first
divergence, the verdict. With `weights="own"` the outcome comes first as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.constrain import Constrain
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from parity.reports.alike import Told, together
from parity.reports.tables import layer_table, recipe_table, update_notes, update_table
from parity.reports.words import clean, plural, relative, times_floor, verdict_style

if TYPE_CHECKING:
    from rich.console import RenderableType

    from parity.report import Outcome, Report

__all__ = ["PROSE", "bullets", "outcome_line", "render", "side_names", "verdict_line"]

PROSE = 104
"""Sentences are set to at most this many columns: longer lines are hard to follow."""

_LEGEND = "n×: run alone, in units of the noise floor; then the relative error end to end"
_FRAMEWORKS = {"matconvnet": "MatConvNet", "keras": "Keras", "torch": "torch"}


def render(report: Report, width: int) -> Iterator[RenderableType]:
    """The whole report, piece by piece.

    Args:
        report: the report.
        width: columns of the page; from `tables.WIDE` on a layer takes a single line.
    """
    names = side_names(report)
    yield from _header(report, names)
    if report.options.get("weights") == "own" and report.outcome is not None:
        yield Text(outcome_line(report.outcome, names), style="bold")
    yield Text()
    if report.layers:
        yield layer_table(report, width, names)
        yield Text(_LEGEND, style="dim")
        yield Text()
    updates, recipe = update_table(report), recipe_table(report.recipe, names)
    if updates is not None:
        yield updates
        yield from update_notes(report)
        yield Text()
    if recipe is not None:
        yield recipe
        yield Text()
    prose = [*_findings(report), *_notes(report.notes), *_conclusion(report, names)]
    yield from (Constrain(piece, min(width, PROSE)) for piece in prose)


def side_names(report: Report) -> tuple[str, str]:
    """What to call the two sides: their frameworks, or `reference` and `Keras` where those are the same or unknown."""
    words = [_FRAMEWORKS.get(str(_fact(report.inputs, side, "framework")), "") for side in ("ref", "keras")]
    if not words[0] or words[0] == (words[1] or "Keras"):
        words[0] = "reference"
    return words[0], words[1] or "Keras"


def outcome_line(outcome: Outcome, names: tuple[str, str]) -> str:
    """`3 of 32 predictions differ; top-1 right: MatConvNet 17, Keras 16`."""
    verb = "differs" if outcome.differ == 1 else "differ"
    line = f"{outcome.differ} of {plural(outcome.images, 'prediction')} {verb}"
    if outcome.ref_correct is not None and outcome.keras_correct is not None:
        line += f"; top-1 right: {names[0]} {outcome.ref_correct}, {names[1]} {outcome.keras_correct}"
    return line


def verdict_line(report: Report) -> str:
    """The verdict in one sentence, without markup; what is unverified is named, so that it can be looked at."""
    divergences = len(together([finding for finding in report.findings if finding.severity == "divergence"]))
    if report.verdict == "match":
        permitted = any(probe.status not in ("match", "masked") for probe in report.probes)
        who = "what --allow does not permit agrees" if permitted else "both sides agree"
        return f"match: {who} to rounding noise in {', '.join(report.phases)}"
    if report.verdict == "diverged":
        first = report.first_divergence
        where = f" first in {first.phase} at {clean(first.layer or first.keras_layer)}" if first else ""
        return f"diverged:{where or ' see the findings'}" + (
            f"; {plural(divergences, 'cause')} found" if divergences else ""
        )
    open_ones = [probe for probe in report.probes if probe.status in ("unverified", "unpaired")]
    if not open_ones:
        return f"{report.verdict}: " + (clean(report.notes[0]) if report.notes else "nothing could be compared")
    shown = list(dict.fromkeys(_probe_words(p.layer or p.keras_layer, p.phase, p.status) for p in open_ones))
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return f"{report.verdict}: {'; '.join(shown[:3])}{more}"


def _probe_words(layer: str, phase: str, status: str) -> str:
    return f"{clean(layer) or 'the recipe'} is {status} in {phase}"


def _fact(facts: Mapping[str, Any], side: str, key: str) -> Any:
    """A fact about one side, whether `facts[side]` is a mapping or a bare path."""
    found = facts.get(side)
    if isinstance(found, Mapping):
        return found.get(key)
    return found if key == "path" else None


def _header(report: Report, names: tuple[str, str]) -> Iterator[RenderableType]:
    """The two files and what ran them, and what was fed."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for side, label in (("ref", "reference"), ("keras", "Keras")):
        path = clean(_fact(report.inputs, side, "path") or _fact(report.inputs, side, "name") or "in memory")
        framework = names[0] if side == "ref" and names[0] != "reference" else ""
        facts = ", ".join(part for part in (framework, _engine(report.environment.get(side))) if part)
        grid.add_row(label, Text.assemble((path, "bold"), f"  {facts}".rstrip()))
    batch = clean(_fact(report.inputs, "batch", "source") or _fact(report.inputs, "batch", "path") or "in memory")
    if report.outcome is not None:
        batch += f"  {plural(report.outcome.images, 'image')}"
    grid.add_row("batch", batch)
    grid.add_row("mode", ", ".join(_mode(report.options)))
    yield Text("parity", style="bold")
    yield grid


def _engine(facts: Any) -> str:
    """What ran a side, e.g. `tf_keras 2.21.0 on tensorflow 2.21.0`."""
    if not isinstance(facts, Mapping):
        return ""
    name = clean(facts.get("name") or facts.get("framework") or "")
    version = clean(facts.get("version") or "").split("+")[0]
    backends = ("tensorflow", "torch", "jax") if name in ("keras", "tf_keras") else ()
    below = next((f" on {word} {clean(facts[word]).split('+')[0]}" for word in backends if facts.get(word)), "")
    return f"{name} {version}".strip() + below


def _mode(options: Mapping[str, Any]) -> Iterator[str]:
    mode = options.get("mode", "train")
    yield clean(mode)
    yield "weights of the reference in both" if options.get("weights", "ref") == "ref" else "each side's own weights"
    if mode == "train" and options.get("steps"):
        yield plural(int(options["steps"]), "update")
    if options.get("rtol") is not None:
        yield f"rtol {options['rtol']:g}, atol {options['atol']:g}"
    if options.get("only"):
        yield f"only {clean(options['only'])}"
    if options.get("allow"):
        allow = options["allow"]
        yield "allowed " + clean(allow if isinstance(allow, str) else " ".join(map(str, allow)))


def _findings(report: Report) -> Iterator[RenderableType]:
    for severity, title in (("divergence", "Divergences"), ("note", "Also different, without a part in the verdict")):
        chosen = together([finding for finding in report.findings if finding.severity == severity])
        if not chosen:
            continue
        yield Text(title, style="bold")
        grid = Table.grid(padding=(0, 1))
        grid.add_column(justify="right", no_wrap=True, style="dim")
        grid.add_column(overflow="fold")
        for number, told in enumerate(chosen, 1):
            grid.add_row(f"{number}." if severity == "divergence" else "-", _finding(told))
        yield Padding(grid, (0, 0, 1, 1))


def _finding(told: Told) -> Text:
    finding = told.finding
    loud = finding.severity == "divergence"
    text = Text()
    text.append(clean(finding.cause), style="bold red" if loud else "bold")
    where = clean(finding.layer or finding.keras_layer)
    if where:
        text.append(f" at {where}", style="bold")
    if finding.keras_layer and finding.keras_layer != finding.layer and finding.layer:
        text.append(f" (Keras {clean(finding.keras_layer)})")
    if told.others:
        text.append(f" and {plural(len(told.others), 'layer')} more", style="bold")
    text.append(f", {finding.phase}", style="dim")
    if finding.confirmed:
        text.append(", confirmed", style="green")
    text.append("\n" + clean(finding.evidence))
    if finding.fix:
        text.append("\nfix in Keras: ", style="dim")
        text.append(clean(finding.fix), style="cyan")
        if finding.fix_verified:
            text.append("  (tried: the divergence is gone)", style="green")
    if told.others:
        text.append(f"\nthe same{', and the same fix,' if finding.fix else ''} at: ", style="dim")
        text.append(clean(told.named))
    return text


def _notes(notes: tuple[str, ...]) -> Iterator[RenderableType]:
    if notes:
        yield Text("Notes", style="bold")
        yield bullets(notes)


def bullets(sentences: Iterable[str]) -> RenderableType:
    """Sentences as a list."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for sentence in sentences:
        grid.add_row("-", Text(clean(sentence)))
    return Padding(grid, (0, 0, 1, 1))


def _conclusion(report: Report, names: tuple[str, str]) -> Iterator[RenderableType]:
    first = report.first_divergence
    if first is not None:
        where = clean(first.layer or first.keras_layer or "the recipe")
        body = Text()
        body.append(f"{first.phase} at {where}", style="bold red")
        if first.keras_layer and first.keras_layer != first.layer and first.layer:
            body.append(f" (Keras {clean(first.keras_layer)})")
        tensor = clean(first.tensor)
        if tensor:
            body.append(f", {tensor}")
        if first.phase == "update":
            body.append(f", step {first.step}")
        if first.sentence:
            body.append("\n" + clean(first.sentence))
        numbers = _numbers(first.isolated, first.propagated)
        if numbers:
            body.append("\n" + numbers, style="dim")
        yield Panel(body, title="First divergence", title_align="left", border_style="red", box=box.ROUNDED)
    else:
        yield Rule(style="dim")
    verdict, _, rest = verdict_line(report).partition(":")
    yield Text.assemble((verdict, verdict_style(verdict) or "bold"), (":" + rest, "bold"))
    if report.outcome is not None:
        yield Text(outcome_line(report.outcome, names))


def _numbers(isolated: float | None, propagated: float | None) -> str:
    parts = []
    if isolated is not None:
        parts.append(f"run alone: {times_floor(isolated)} the noise floor")
    if propagated is not None:
        parts.append(f"end to end: relative error {relative(propagated)}")
    return "; ".join(parts)
