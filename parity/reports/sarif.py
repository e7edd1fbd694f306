"""Comparisons as SARIF 2.1.0 (OASIS), which code hosts show beside the code: a rule for each cause, a result for each.

The few objects that are needed stand here (sections 3.13 to 3.28 of the standard).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from parity.causes import CAUSES, page
from parity.reports.cases import Alarm, Suite, alarms
from parity.reports.words import clean

__all__ = ["to_sarif", "write_sarif"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_WARNING = "warning"
"""The rule of what is no fault."""


def to_sarif(suites: Iterable[Suite]) -> str:
    """The document, with a newline at its end: a run with what `alarms` tells of, and the causes' pages as rules."""
    import parity

    found = list(alarms(suites))
    names = list(dict.fromkeys(alarm.rule or _WARNING for alarm in found))
    driver = {"name": "parity", "version": parity.__version__, "rules": [_rule(name) for name in names]}
    results = [_result(alarm, names.index(alarm.rule or _WARNING)) for alarm in found]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write_sarif(path: Path, suites: Iterable[Suite]) -> None:
    """Write the document whole or not at all.

    Raises:
        BadUsage: it cannot be written.
    """
    from parity.reports.output import write

    write(path, to_sarif(suites), "--sarif")


def _rule(name: str) -> dict[str, Any]:
    if name not in CAUSES:
        return {"id": name}
    told = page(name)
    words = "\n\n".join([told.summary, *(f"## {heading}\n\n{text}" for heading, text in told.sections.items())])
    return {"id": name, "shortDescription": {"text": told.title}, "help": {"text": words, "markdown": words}}


def _result(alarm: Alarm, rule: int) -> dict[str, Any]:
    text = "\n".join(clean(line) for line in (alarm.title, *alarm.text.splitlines()))
    made: dict[str, Any] = {
        "ruleId": alarm.rule or _WARNING, "ruleIndex": rule, "level": alarm.level, "message": {"text": text},
    }  # fmt: skip
    place: dict[str, Any] = {}
    if alarm.file:
        where: dict[str, Any] = {"artifactLocation": {"uri": quote(Path(alarm.file).as_posix())}}
        place["physicalLocation"] = {**where, "region": {"startLine": alarm.line}} if alarm.line else where
    if alarm.layer:
        place["logicalLocations"] = [{"name": clean(alarm.layer)}]
    return {**made, "locations": [place]} if place else made
