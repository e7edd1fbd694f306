"""A report as a list of cases, one for each layer and phase: what JUnit, Markdown and annotations are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parity.report import PHASES
from parity.reports.alike import together
from parity.reports.words import clean, plural, relative, times_floor

if TYPE_CHECKING:
    from parity.report import Finding, Probe, Report

__all__ = ["Alarm", "Case", "Excuse", "Suite", "alarms", "cases", "explains", "finding_lines", "suite_of"]

Excuse = Callable[["Probe"], str]
"""Why a probe's fault is put up with; empty where it is not."""


@dataclass(frozen=True)
class Case:
    """What one layer does in one phase.

    Attributes:
        layer, keras_layer: names; one is empty where the other has no partner.
        phase: one of `PHASES`; empty for what concerns a comparison as a whole.
        outcome: `"passed"`, `"failed"`, `"unverified"`, `"allowed"` (failed, and put up with) or `"inherited"`.
        sentence: what happened, in one line; empty where it passed without remark.
        details: more lines: every tensor that is not right, and the causes with their fixes.
        kind: a word for the failure: a status, or what else went wrong.
    """

    layer: str
    keras_layer: str
    phase: str
    outcome: str
    sentence: str = ""
    details: tuple[str, ...] = ()
    kind: str = ""

    @property
    def name(self) -> str:
        """`conv1 ↔ conv2d_1`, or the one name that there is."""
        names = dict.fromkeys(name for name in (self.layer, self.keras_layer) if name)
        return clean(" ↔ ".join(names)) or "the recipe"


@dataclass(frozen=True)
class Suite:
    """One comparison.

    Attributes:
        name: of the pair.
        verdict: `"match"`, `"diverged"` or `"unverified"`.
        sentence: the verdict in one line.
        cases: one for each layer and phase.
        findings: the causes of divergences, those that are put up with left out.
        files: the paths of both sides; empty where one is in memory.
        seconds: how long it took; None where that is not told.
        allowed: what is put up with, and why.
        remarks: what else a reader should know.
        warnings: what somebody should look at, though it is no fault.
        config: the file that asks for the comparison, and the line there; empty and 0 where there is none.
    """

    name: str
    verdict: str
    sentence: str
    cases: tuple[Case, ...] = ()
    findings: tuple[Finding, ...] = ()
    files: tuple[str, str] = ("", "")
    seconds: float | None = None
    allowed: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    config: tuple[str, int] = ("", 0)


@dataclass(frozen=True)
class Alarm:
    """One thing that somebody should look at: a cause, a case that failed without one, or a warning.

    Attributes:
        level: `"error"` or `"warning"`.
        rule: the cause, or the case's word for its failure; empty for a warning.
        layer: where; empty for the recipe.
        title, text: a line, and all of it.
        file, line: where the comparison is asked for, or the Keras file; "" and 0 where there is none.
    """

    level: str
    rule: str
    layer: str
    title: str
    text: str
    file: str
    line: int


def alarms(suites: Iterable[Suite]) -> Iterator[Alarm]:
    """What is to be looked at: in each suite the causes, the warnings, and the cases that no cause explains."""
    for suite in suites:
        place = suite.config if suite.config[0] else (_source(suite.files[1]), 0)
        explaining = {finding.layer or finding.keras_layer for finding in suite.findings}
        for told in together(suite.findings):
            finding = told.finding
            where = finding.layer or finding.keras_layer
            title = f"{suite.name}: {finding.cause}" + (f" at {where}" if where else "")
            title += f" and {plural(len(told.others), 'layer')} more" if told.others else ""
            text = finding.evidence + (f"\nfix in Keras: {finding.fix}" if finding.fix else "")
            text += f"\nthe same at: {told.named}" if told.others else ""
            yield Alarm("error", finding.cause, where, title, text, *place)
        for warning in suite.warnings:
            yield Alarm("warning", "", "", suite.name, warning, *place)
        recipe = any(finding.phase == "update" for finding in suite.findings)
        for case in suite.cases:
            explained = {case.layer, case.keras_layer} & explaining or (case.phase == "update" and recipe)
            if case.outcome not in ("failed", "unverified") or explained:
                continue
            kind = case.kind or case.outcome
            title = f"{suite.name}: {kind}" + (f" at {case.name}, {case.phase}" if case.phase else "")
            text = "\n".join(dict.fromkeys((case.sentence, *case.details)))  # the sentence may stand among the details
            yield Alarm("error", kind, case.layer or case.keras_layer, title, text, *place)


def _source(file: str) -> str:
    """The file itself of `module.py:build`."""
    head, _, name = file.rpartition(":")
    return head if head.endswith(".py") and name.isidentifier() else file


def suite_of(report: Report, name: str = "") -> Suite:
    """The suite of a single comparison."""
    from parity.reports.console import verdict_line

    files = tuple(str(report.inputs.get(side, {}).get("path", "")) for side in ("ref", "keras"))
    found = cases(report)
    if report.verdict != "match" and not any(case.outcome in ("failed", "unverified") for case in found):
        outcome = "failed" if report.verdict == "diverged" else "unverified"
        found = (*found, Case("", "", "", outcome, verdict_line(report), kind=report.verdict))
    return Suite(
        name=name or " ↔ ".join(file or "in memory" for file in files),
        verdict=report.verdict,
        sentence=verdict_line(report),
        cases=found,
        allowed=tuple(dict.fromkeys(f"{case.name}: {case.sentence}" for case in found if case.outcome == "allowed")),
        findings=tuple(f for f in report.findings if f.severity == "divergence"),
        files=(files[0], files[1]),
        remarks=report.notes,
    )


def explains(finding: Finding, probe: Probe) -> bool:
    """Whether a divergence can be what a probe shows: it lies at its layer, not later; or both are of the updates.

    What differs between two recipes acts on every parameter, so the findings of the update phase explain together.
    """
    if finding.severity != "divergence":
        return False
    if finding.phase == "update":
        return probe.phase == "update"
    if PHASES.index(finding.phase) > PHASES.index(probe.phase):
        return False
    here = {name for name in (probe.layer, probe.keras_layer) if name}
    return bool(here & {finding.layer, finding.keras_layer}) or (
        finding.phase == probe.phase and not (finding.layer or finding.keras_layer)
    )


def cases(report: Report, excuse: Excuse | None = None, phases: Sequence[str] = PHASES) -> tuple[Case, ...]:
    """One case for each layer and phase, phase by phase and in each in the report's order.

    Args:
        report: what was compared.
        excuse: why a fault is put up with; by default the report's own `allow` option says which are.
        phases: the phases that are judged.
    """
    excuse = excuse or _by_option(report)
    first = report.first_divergence
    # Two traces cannot say where a difference was born: there the first of all is the fault that is told.
    told = (first.phase, first.layer, first.keras_layer) if first and first.status == "inherited" else None
    groups: dict[tuple[str, str, str], list[Probe]] = {}
    for probe in sorted(report.probes, key=lambda p: PHASES.index(p.phase)):
        if probe.phase in phases:
            groups.setdefault((probe.phase, probe.layer, probe.keras_layer), []).append(probe)
    strict = bool(report.options.get("strict"))
    return tuple(_case(report, probes, excuse, strict, key == told) for key, probes in groups.items())


def _by_option(report: Report) -> Excuse:
    from fnmatch import fnmatchcase

    from parity.options import allowance

    allowed = [allowance(item) for item in report.options.get("allow") or ()]

    def excuse(probe: Probe) -> str:
        for status, pattern in allowed:
            names = [name for name in (probe.layer, probe.keras_layer) if name]
            if probe.status == status and any(fnmatchcase(name, pattern) for name in names):
                return f"as {status}:{pattern}"
        return ""

    return excuse


def _case(report: Report, probes: Sequence[Probe], excuse: Excuse, strict: bool, told: bool) -> Case:
    first = probes[0]
    grave = ("born", "unpaired", *(("masked",) if strict else ()), *(("inherited",) if told else ()))
    faults = [p for p in probes if p.status in grave]
    dark = [p for p in probes if p.status == "unverified"]
    reasons = {id(p): excuse(p) for p in (*faults, *dark)}
    held = [p for p in faults if not reasons[id(p)]]
    open_ones = [p for p in dark if not reasons[id(p)]]

    def case(outcome: str, sentence: str = "", details: Sequence[str] = (), kind: str = "") -> Case:
        return Case(first.layer, first.keras_layer, first.phase, outcome, sentence, tuple(details), kind)

    if held:
        found = [f for f in report.findings if any(explains(f, p) for p in held)]
        causes = ", ".join(dict.fromkeys(f.cause for f in found))
        lines = [*map(_probe_line, held), *(line for f in found for line in ("", *finding_lines(f)))]
        return case("failed", causes + (": " if causes else "") + _probe_line(held[0]), lines, held[0].status)
    if open_ones:
        return case("unverified", _probe_line(open_ones[0]), list(map(_probe_line, open_ones)), "unverified")
    if faults or dark:
        why = "; ".join(dict.fromkeys(part for p in (*faults, *dark) for part in reasons[id(p)].split("; ")))
        return case("allowed", f"allowed, {why}", list(map(_probe_line, (*faults, *dark))), (faults or dark)[0].status)
    inherited = [p for p in probes if p.status == "inherited"]
    if inherited:
        return case("inherited", "inherited: only its inputs differ", list(map(_probe_line, inherited)), "inherited")
    masked = [p for p in probes if p.status == "masked"]
    return case("passed", _probe_line(masked[0]) if masked else "")


def _probe_line(probe: Probe) -> str:
    """`dkernel born, 2.4e6× the noise floor, relative error 1.0`."""
    step = f", step {probe.step}" if probe.phase == "update" else ""
    parts = [f"{clean(probe.tensor)} {probe.status}{step}"]
    if probe.isolated_x_floor is not None:
        parts.append(f"run alone {times_floor(probe.isolated_x_floor)} the noise floor")
    if probe.rms_rel is not None and probe.phase != "weights":
        parts.append(f"end to end {relative(probe.rms_rel)}")
    return ", ".join(parts) + (f" ({clean(probe.note)})" if probe.note else "")


def finding_lines(finding: Finding) -> list[str]:
    """The cause, its evidence and its fix, one line each."""
    where = clean(finding.layer or finding.keras_layer)
    head = finding.cause + (f" at {where}" if where else "") + (", confirmed" if finding.confirmed else "")
    lines = [head, clean(finding.evidence)]
    if finding.fix:
        tried = "  (tried: the divergence is gone)" if finding.fix_verified else ""
        lines.append(f"fix in Keras: {clean(finding.fix)}{tried}")
    return lines
