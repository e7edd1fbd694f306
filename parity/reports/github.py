"""What GitHub's runners read: annotations on standard output, and the job's summary in a file that they name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from parity.reports.cases import Suite, alarms
from parity.reports.markdown import to_markdown
from parity.reports.words import clean

__all__ = ["tell_github", "workflow_commands"]

_MOST = 10
"""GitHub shows ten errors of a step; the last of ours then says how many more there are."""


def workflow_commands(suites: Iterable[Suite]) -> list[str]:
    """`::error file=…,title=…::…` for each cause and each case that failed otherwise, `::warning` for the rest."""
    errors: list[str] = []
    warnings: list[str] = []
    for alarm in alarms(suites):
        place = {"file": alarm.file, "line": str(alarm.line) if alarm.line else "", "title": alarm.title}
        told = errors if alarm.level == "error" else warnings
        told.append(_command(alarm.level, place, alarm.text))
    if len(errors) > _MOST:
        rest = _command("error", {"title": "parity"}, f"and {len(errors) - _MOST + 1} more; see the job's summary")
        errors = [*errors[: _MOST - 1], rest]
    return errors + warnings


def tell_github(
    suites: Sequence[Suite], title: str = "parity", environment: Mapping[str, str] | None = None
) -> list[str]:
    """The annotations to print where a GitHub runner listens, with the summary written; else nothing.

    Args:
        suites: the comparisons.
        title: of the summary.
        environment: variables; those of the process by default.
    """
    variables = os.environ if environment is None else environment
    summary = variables.get("GITHUB_STEP_SUMMARY")
    if summary:
        # The runner gave the file; that it cannot be written is no fault of what was compared.
        with contextlib.suppress(OSError), Path(summary).open("a", encoding="utf-8") as file:
            file.write(to_markdown(suites, title) + "\n")
    return workflow_commands(suites) if variables.get("GITHUB_ACTIONS") == "true" else []


def _command(kind: str, properties: Mapping[str, str], message: str) -> str:
    """A workflow command, escaped as the runner reads it."""

    def data(text: str) -> str:
        flat = "\n".join(clean(line) for line in text.splitlines())
        return flat.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def value(text: str) -> str:
        return data(text).replace(":", "%3A").replace(",", "%2C")

    held = ",".join(f"{name}={value(text)}" for name, text in properties.items() if text)
    return f"::{kind} {held}::{data(message)}"
