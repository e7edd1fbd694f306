"""Comparisons as Markdown: for a pull request's comment, and for GitHub's job summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from parity.report import PHASES
from parity.reports.alike import together
from parity.reports.cases import Case, Suite
from parity.reports.words import clean, plural

__all__ = ["to_markdown", "write_markdown"]

_SIGNS = {"match": "✅", "diverged": "❌", "unverified": "❔"}
_OUTCOMES = {
    "passed": "ok",
    "failed": "**differs**",
    "unverified": "**unverified**",
    "allowed": "allowed",
    "inherited": "inherited",
}
_ORDER = ("passed", "inherited", "allowed", "unverified", "failed")
_ROWS = 60
"""A table of more layers than this shows those that are not all right, and says how many it leaves out."""


def to_markdown(suites: Sequence[Suite], title: str = "parity") -> str:
    """A document: the verdicts, and for each pair its causes, their fixes, and the table of its layers.

    Args:
        suites: the comparisons.
        title: of the document.
    """
    lines = [f"## {_escape(title)}", ""]
    if len(suites) > 1:
        lines += ["| pair | verdict | |", "|---|---|---|"]
        lines += [f"| {_escape(s.name)} | {_verdict(s)} | {_escape(_rest(s.sentence))} |" for s in suites]
        lines.append("")
    for suite in suites:
        lines += _pair(suite, only=len(suites) == 1)
    return "\n".join(lines).rstrip("\n") + "\n"


def write_markdown(path: Path, suites: Sequence[Suite], title: str = "parity") -> None:
    """Write the document whole or not at all.

    Raises:
        BadUsage: it cannot be written.
    """
    from parity.reports.output import write

    write(path, to_markdown(suites, title), "--markdown")


def _verdict(suite: Suite) -> str:
    return f"{_SIGNS.get(suite.verdict, '')} {suite.verdict}".strip()


def _rest(sentence: str) -> str:
    """The verdict's sentence without the verdict's word, which stands before it."""
    return re.sub(r"^(match|diverged|unverified): ", "", sentence)


def _pair(suite: Suite, only: bool) -> Iterable[str]:
    if only:
        yield f"**{_verdict(suite)}**: {_escape(_rest(suite.sentence))}"
    else:
        yield f"### {_SIGNS.get(suite.verdict, '')} {_escape(suite.name)}"
        yield ""
        yield _escape(suite.sentence)
    yield ""
    if any(suite.files):
        yield f"{_code(suite.files[0] or 'in memory')} against {_code(suite.files[1] or 'in memory')}"
        yield ""
    for number, told in enumerate(together(suite.findings), 1):
        finding = told.finding
        where = finding.layer or finding.keras_layer
        words = "confirmed" if finding.confirmed else "not confirmed"
        at = f" at {_code(where)}" if where else ""
        at += f" and {plural(len(told.others), 'layer')} more" if told.others else ""
        yield f"{number}. **{finding.cause}**{at}, {finding.phase}, {words}  "
        yield f"   {_escape(finding.evidence)}"
        if finding.fix:
            tried = " (tried: the divergence is gone)" if finding.fix_verified else ""
            yield f"   fix in Keras: {_code(finding.fix)}{tried}" + ("  " if told.others else "")
        if told.others:
            yield f"   the same at: {_escape(told.named)}"
    if suite.findings:
        yield ""
    whole = [case for case in suite.cases if not case.phase and case.outcome != "passed"]
    for case in whole:
        yield f"- {_escape(case.sentence)}" + "".join(f"  \n  {_escape(line)}" for line in case.details if line)
    if whole:
        yield ""
    yield from _table([case for case in suite.cases if case.phase])
    lines = (*(f"⚠ {warning}" for warning in suite.warnings), *suite.allowed, *suite.remarks)
    yield from (f"- {_escape(line)}" for line in lines)
    if lines:
        yield ""


def _table(cases: Sequence[Case]) -> Iterable[str]:
    """Layers by phases; of many layers only those that are not all right."""
    phases = [phase for phase in PHASES if any(case.phase == phase for case in cases)]
    rows: dict[str, dict[str, str]] = {}
    for case in cases:
        row = rows.setdefault(case.name, {})
        row[case.phase] = max(row.get(case.phase, "passed"), case.outcome, key=_ORDER.index)
    if not rows:
        return
    chosen = rows
    if len(rows) > _ROWS:
        odd = {name: row for name, row in rows.items() if set(row.values()) != {"passed"}}
        chosen = dict(list(odd.items())[:_ROWS])
    counts = {word: sum(case.outcome == word for case in cases) for word in _ORDER}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    yield f"<details><summary>{plural(len(rows), 'layer')}: {told}</summary>"
    yield ""
    if chosen:
        yield "| layer | " + " | ".join(phases) + " |"
        yield "|---|" + "---|" * len(phases)
        for name, row in chosen.items():
            cells = " | ".join(_OUTCOMES[row[phase]] if phase in row else "·" for phase in phases)
            yield f"| {_escape(name)} | {cells} |"
        yield ""
    if len(chosen) < len(rows):
        yield f"{plural(len(rows) - len(chosen), 'layer')} left out."
        yield ""
    yield "</details>"
    yield ""


def _escape(text: str) -> str:
    """Text from a file as text: no markup, no mention of a user, and no break of a table's row."""
    flat = clean(" ".join(str(text).split()))
    flat = re.sub(r"([\\`*_{}\[\]<>|#~$!@])", r"\\\1", flat)
    return flat.replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\@", "&#64;")


def _code(text: str) -> str:
    """Text in a code span, whatever backticks it holds."""
    flat = clean(" ".join(str(text).split())).replace("|", "¦")
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", flat)), default=0) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{ticks}{pad}{flat}{pad}{ticks}"
