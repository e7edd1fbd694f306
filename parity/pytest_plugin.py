"""A plugin for pytest: the fixture `parity`, and baselines of tests that `--parity-update` makes.

Installing parity makes it known to pytest. Nothing is imported before a test asks for the fixture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from parity.testing import NotInParity, assert_parity, compared, failure_of

if TYPE_CHECKING:
    from parity.report import Report

__all__ = ["ParityFixture", "parity", "pytest_addoption"]

_LOCK = "parity-tests.lock"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--parity-update`, and where the baselines are."""
    group = parser.getgroup("parity")
    group.addoption("--parity-update", action="store_true", help="make the baselines of assert_locked anew")
    parser.addini("parity_lock", f"file of the baselines of assert_locked, default {_LOCK}", default=_LOCK)


class ParityFixture:
    """What the fixture `parity` is: assertions that know which test they are in.

    Attributes:
        lock: the file of the baselines.
        update: whether they are to be made.
    """

    def __init__(self, node: str, lock: Path, update: bool) -> None:
        self._node, self.lock, self.update = node, lock, update
        self._names: set[str] = set()

    def assert_parity(self, expected: Any, actual: Any, batch: Any = None, **options: Any) -> Report | None:
        """As `parity.assert_parity`."""
        __tracebackhide__ = True
        return assert_parity(expected, actual, batch, **options)

    __call__ = assert_parity

    def assert_locked(
        self,
        expected: Any,
        actual: Any,
        batch: Any = None,
        *,
        name: str = "",
        allow: tuple[str, ...] | list[str] = (),
        **options: Any,
    ) -> Report:
        """Fail unless two sides agree, and no tensor is worse than its baseline.

        Args:
            expected: as in `assert_parity`, but no arrays.
            actual: likewise.
            batch: likewise.
            name: of the baseline, where a test has several.
            allow: `STATUS:GLOB` items that are not held against the verdict.
            **options: those of `parity.compare`.

        Raises:
            NotInParity: they differ, got worse, or there is no baseline of this comparison.
            ParityError: a file cannot be read, options do not go together, or nothing can be compared.
        """
        __tracebackhide__ = True
        import datetime

        from parity.errors import BadUsage
        from parity.gate.baseline import against, asked, judged_phases
        from parity.gate.config import Exemption, Pair
        from parity.gate.judgement import judge
        from parity.gate.lock import Entry, merge, read_lock
        from parity.options import allowance

        whole = f"{self._node}[{name}]" if name else self._node
        if whole in self._names:
            raise BadUsage(f"{self._node}: two baselines {name!r} in one test; give each a name=")
        self._names.add(whole)
        granted = [allowance(item) for item in allow]
        exemptions = tuple(Exemption("allow=", layer=glob, status=status) for status, glob in granted)
        pair = Pair(whole, options, allow=exemptions)
        report = compared(ref=expected, keras=actual, batch=batch, **options)
        judgement = judge(pair, report, datetime.datetime.now(datetime.timezone.utc).date())
        command = f"pytest --parity-update '{self._node}'"
        if not self.update:
            judgement = against(judgement, read_lock(self.lock, command).get(whole), self.lock, command)
        if judgement.problems:
            lines = [
                line
                for p in judgement.problems
                for line in (f"{p.kind}: {p.sentence}", f"  {p.remedy}")
                if line.strip()
            ]
            text = failure_of(report) if report.verdict != "match" and judgement.first is not None else ""
            raise NotInParity("\n".join([*lines, *(["", text] if text else [])]), report)
        if self.update:
            entry = Entry.of(
                [report], asked(pair, report), [e.words for e in judgement.allowed], judged_phases(pair, report)
            )
            merge(self.lock, {whole: entry}, command=command)
        return report


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> ParityFixture:
    """Assertions that two models, files or arrays agree: `parity.assert_parity(expected, actual, batch)`.

    `parity.assert_locked` also holds every tensor against the baseline that `--parity-update` makes.
    """
    config = request.config
    lock = config.rootpath / str(config.getini("parity_lock"))
    return ParityFixture(request.node.nodeid, lock, bool(config.getoption("--parity-update")))
