"""Whether a pair holds: its report, what is allowed in it, and its baseline. Whatever is in doubt does not."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from parity.diagnose import first_divergence
from parity.gate.config import Exemption, Pair
from parity.report import Finding, FirstDivergence, Probe, Report
from parity.reports.cases import explains
from parity.reports.words import clean

__all__ = ["Judgement", "Problem", "judge"]

_GRAVE = ("masked", "born", "unpaired", "unverified")
"""Statuses that can be allowed."""


@dataclass(frozen=True)
class Problem:
    """Why a pair does not hold.

    Attributes:
        kind: `"divergence"`, `"regression"` (allowed or within the limit, and worse than its baseline), `"unverified"`,
            `"stale"` (the baseline answers another question, or is missing) or `"error"` (could not be compared).
        sentence: what and where, in one line.
        layer, keras_layer, phase, tensor: where; empty for the pair as a whole.
        remedy: what to do.
    """

    kind: str
    sentence: str
    layer: str = ""
    keras_layer: str = ""
    phase: str = ""
    tensor: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Judgement:
    """What became of one pair.

    Attributes:
        pair: the pair.
        report: its comparison; None where it could not be compared.
        problems: why it does not hold, the gravest first; empty where it does.
        allowed: each exception that was needed.
        warnings: what should be looked at all the same.
        excused: a probe's place in the report → the exceptions that it falls under, one for each of its causes.
        first: the first divergence that nothing allows.
        findings: the divergences that nothing allows.
    """

    pair: Pair
    report: Report | None
    problems: tuple[Problem, ...] = ()
    allowed: tuple[Exemption, ...] = ()
    warnings: tuple[str, ...] = ()
    excused: Mapping[int, tuple[Exemption, ...]] = field(default_factory=dict)
    first: FirstDivergence | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> str:
        """`match`, `diverged` or `unverified`."""
        if any(problem.kind in ("divergence", "regression") for problem in self.problems):
            return "diverged"
        return "unverified" if self.problems else "match"


def judge(pair: Pair, report: Report, today: datetime.date) -> Judgement:
    """A pair's report and its exceptions, without its baseline.

    Args:
        pair: what is asked, and what is allowed.
        report: its comparison, in which nothing was allowed.
        today: decides which exceptions hold.
    """
    return _Judge(pair, report, today).judgement()


class _Judge:
    def __init__(self, pair: Pair, report: Report, today: datetime.date) -> None:
        self.pair, self.report = pair, report
        self.strict = bool(report.options.get("strict"))
        # Two traces say what differs end to end, and not where it was born: there every difference counts.
        self.alone = report.first_divergence is None or report.first_divergence.status != "inherited"
        judged = pair.phases or report.phases
        self.probes = [(i, p) for i, p in enumerate(report.probes) if p.phase in judged]
        self.findings = [f for f in report.findings if f.severity == "divergence" and f.phase in judged]
        self.valid = [e for e in pair.allow if _holds(e, today)]
        self.invalid = [e for e in pair.allow if not _holds(e, today)]
        self.used: list[Exemption] = []

    def judgement(self) -> Judgement:
        excused = {i: e for i, p in self.probes if (e := self._excuse(p))}
        kept = [p for i, p in self.probes if i not in excused]
        open_findings = tuple(f for f in self.findings if not self._softened(f, excused))
        first = first_divergence(kept, open_findings, strict=self.strict, alone=self.alone)
        problems = [*self._divergences(kept, open_findings, first), *self._unverified(kept)]
        for exemption in self.valid:
            fitting = [f for f in self.findings if self._fits(exemption, f)]
            if fitting and exemption.cause:
                self.used.append(exemption)
        used = tuple(e for e in self.pair.allow if e in self.used)
        return Judgement(
            pair=self.pair,
            report=self.report,
            problems=tuple(problems),
            allowed=used,
            warnings=tuple(self._warnings(used)),
            excused=excused,
            first=first,
            findings=open_findings,
        )

    # ---- exceptions

    def _fits(self, exemption: Exemption, finding: Finding) -> bool:
        return exemption.cause == finding.cause and exemption.fits(finding.layer, finding.keras_layer)

    def _excuse(self, probe: Probe) -> tuple[Exemption, ...]:
        """The exceptions under which a probe's fault falls: of its status, or of every cause that explains it."""
        if probe.status not in _GRAVE and (self.alone or probe.status != "inherited"):
            return ()
        for exemption in self.valid:
            of_status = exemption.status == probe.status and not exemption.cause
            if of_status and exemption.fits(probe.layer, probe.keras_layer):
                self.used.append(exemption)
                return (exemption,)
        if probe.status == "unverified":
            return ()  # a cause says what differs, not what could not be seen
        causes = [f for f in self.findings if explains(f, probe)]
        able = [e for e in self.valid if e.status in ("", probe.status)]
        fitting = [next((e for e in able if self._fits(e, f)), None) for f in causes]
        found = tuple(dict.fromkeys(e for e in fitting if e is not None))
        return found if None not in fitting else ()

    def _softened(self, finding: Finding, excused: Mapping[int, tuple[Exemption, ...]]) -> bool:
        """Whether a divergence is allowed itself, or everything that it shows is."""
        if any(self._fits(e, finding) for e in self.valid):
            return True
        shown = [i for i, p in self.probes if p.status in _GRAVE and explains(finding, p)]
        return bool(shown) and all(i in excused for i in shown)

    # ---- what does not hold

    def _divergences(
        self, kept: Sequence[Probe], findings: Sequence[Finding], first: FirstDivergence | None
    ) -> list[Problem]:
        found: list[Problem] = []
        for finding in findings:
            where = clean(finding.layer or finding.keras_layer)
            expired = [e for e in self.invalid if self._fits(e, finding)]
            sentence = f"{finding.cause}{f' at {where}' if where else ''} in {finding.phase}: {finding.evidence}"
            remedy = finding.fix and f"fix in Keras: {finding.fix}"
            if expired:
                remedy = f"{_expiry(expired[0])}; {remedy}" if remedy else _expiry(expired[0])
            found.append(Problem("divergence", sentence, finding.layer, finding.keras_layer, finding.phase, "", remedy))
        if first is not None and not any(_at(problem, first) for problem in found):
            where = clean(first.layer or first.keras_layer)
            sentence = f"{first.tensor} of {where or 'the recipe'} is {first.status} in {first.phase}"
            sentence += f": {first.sentence}" if first.sentence else ""
            remedy = ""
            if first.status in ("unpaired", "inherited"):
                remedy = f'allow it where that is right: [[pair.allow]] layer = "{where}", status = "{first.status}"'
            found.insert(
                0, Problem("divergence", sentence, first.layer, first.keras_layer, first.phase, first.tensor, remedy)
            )
        return found

    def _unverified(self, kept: Sequence[Probe]) -> list[Problem]:
        made = [
            Problem("unverified", f"{phase} was not compared", phase=phase, remedy=self._phase_remedy(phase))
            for phase in self.pair.required
            if phase not in self.report.phases
        ]
        dark: dict[tuple[str, str], Probe] = {}
        for probe in kept:
            if probe.status == "unverified":
                dark.setdefault((probe.phase, probe.layer or probe.keras_layer), probe)
        for (phase, layer), probe in dark.items():
            why = f" ({clean(probe.note)})" if probe.note else ""
            sentence = f"{clean(probe.tensor)} of {clean(layer)} could not be judged in {phase}{why}"
            remedy = f'look at it, or allow it: [[pair.allow]] layer = "{clean(layer)}", status = "unverified"'
            made.append(Problem("unverified", sentence, probe.layer, probe.keras_layer, phase, probe.tensor, remedy))
        return made

    def _phase_remedy(self, phase: str) -> str:
        if phase in ("loss", "backward", "update"):
            return "give a batch with labels and models with losses, or say what is compared: phases = [...], mode"
        return "say which phases are compared: phases = [...]"

    def _warnings(self, used: Sequence[Exemption]) -> list[str]:
        made = []
        for exemption in self.pair.allow:
            if exemption in self.invalid:
                # Where it is missed, the divergence says so.
                made += [] if any(self._fits(exemption, f) for f in self.findings) else [_expiry(exemption)]
            elif exemption not in used:
                made.append(f"the exception for {exemption.words} is not needed any more and can go")
        return made


def _holds(exemption: Exemption, today: datetime.date) -> bool:
    begun = exemption.since is None or exemption.since <= today
    return begun and (exemption.until is None or today <= exemption.until)


def _expiry(exemption: Exemption) -> str:
    if exemption.until is not None and (exemption.since is None or exemption.since <= exemption.until):
        return f"the exception for {exemption.words} held until {exemption.until}"
    return f"the exception for {exemption.words} does not hold before {exemption.since}"


def _at(problem: Problem, first: FirstDivergence) -> bool:
    """Whether a problem already names the place of the first divergence."""
    same = {n for n in (problem.layer, problem.keras_layer) if n} & {n for n in (first.layer, first.keras_layer) if n}
    return bool(same) or (problem.phase == first.phase == "update")
