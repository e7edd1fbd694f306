"""Comparisons as JUnit XML, which every CI server shows: a suite for each pair, a case for each layer and phase."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from parity.reports.cases import Case, Suite

__all__ = ["to_junit", "write_junit"]

_NO_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(suites: Iterable[Suite]) -> str:
    """The XML document, with a declaration and a newline at its end.

    What failed is a failure, what could not be verified an error, what is allowed or inherited is skipped, with the
    reason; all have the same `classname` in one pair.
    """
    from junitparser import JUnitXml, Properties, Property, TestSuite
    from junitparser.junitparser import SystemOut

    root = JUnitXml("parity")
    listed = list(suites)
    for suite in listed:
        made = TestSuite(_text(suite.name))
        properties = Properties()
        for name, value in (("ref", suite.files[0]), ("keras", suite.files[1]), ("verdict", suite.verdict)):
            if value:
                properties.add_property(Property(name, _text(value)))
        made.append(properties)
        for case in suite.cases:
            made.add_testcase(_case(suite, case))
        if suite.warnings or suite.remarks:
            made.append(SystemOut(_text("\n".join((*suite.warnings, *suite.remarks)))))
        root.add_testsuite(made)
    root.update_statistics()
    for made, suite in zip(root, listed, strict=True):
        made.time = round(suite.seconds or 0.0, 3)
    root.time = round(sum(suite.seconds or 0.0 for suite in listed), 3)
    target = io.BytesIO()
    root.write(target, pretty=True)
    return target.getvalue().decode("utf-8").rstrip("\n") + "\n"


def write_junit(path: Path, suites: Iterable[Suite]) -> None:
    """Write the document whole or not at all.

    Raises:
        BadUsage: it cannot be written.
    """
    from parity.reports.output import write

    write(path, to_junit(suites), "--junit")


def _case(suite: Suite, case: Case) -> Any:
    from junitparser import Error, Failure, Skipped, TestCase

    name = f"{case.name} [{case.phase}]" if case.phase else case.name
    made = TestCase(_text(name), _text(suite.name), 0.0)
    kind = {"failed": Failure, "unverified": Error, "allowed": Skipped, "inherited": Skipped}.get(case.outcome)
    if kind is not None:
        result = kind(_text(case.sentence), _text(case.kind or case.outcome))
        if case.details:
            result.text = _text("\n".join(case.details))
        made.result = [result]
    elif case.sentence:
        made.system_out = _text(case.sentence)
    return made


def _text(value: str) -> str:
    """Without what XML 1.0 has no place for."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", value)
