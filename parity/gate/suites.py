"""A gate's result as the values that reports draw: suites of cases, and one document for machines."""

from __future__ import annotations

import json
from typing import Any

from parity.gate.config import Exemption
from parity.gate.judgement import Judgement, Problem
from parity.gate.run import GateResult, PairResult
from parity.report import Probe
from parity.reports.cases import Case, Suite, cases
from parity.reports.console import verdict_line
from parity.reports.json import to_dict
from parity.reports.words import plural

__all__ = ["SCHEMA", "sentence_of", "suites_of", "to_json"]

SCHEMA = "parity-gate/1"


def sentence_of(judgement: Judgement) -> str:
    """The verdict on a pair in one line: its first problem, or what was compared and what allowed."""
    if judgement.problems:
        first, rest = judgement.problems[0], len(judgement.problems) - 1
        more = f" (and {plural(rest, 'more problem', 'more problems')})" if rest else ""
        return f"{judgement.verdict}: {first.sentence}{more}"
    assert judgement.report is not None
    if not judgement.allowed:
        return verdict_line(judgement.report)
    phases = judgement.pair.phases or judgement.report.phases
    names = ", ".join(exemption.words for exemption in judgement.allowed)
    return f"match: both sides agree in {', '.join(phases)}, but for what is allowed: {names}"


def suites_of(result: GateResult) -> list[Suite]:
    """A suite for each pair."""
    return [_suite(result, found) for found in result.results]


def _suite(result: GateResult, found: PairResult) -> Suite:
    judgement = found.judgement
    pair, report = judgement.pair, judgement.report
    made: list[Case] = []
    if report is not None:
        places = {id(probe): i for i, probe in enumerate(report.probes)}

        def excuse(probe: Probe) -> str:
            return "; ".join(_grounds(e) for e in judgement.excused.get(places[id(probe)], ()))

        made = list(cases(report, excuse, pair.phases or report.phases))
    for problem in judgement.problems:
        _enter(made, problem)
    return Suite(
        name=pair.name,
        verdict=judgement.verdict,
        sentence=sentence_of(judgement),
        cases=tuple(made),
        findings=judgement.findings,
        files=(str(pair.options["ref"]), str(pair.options["keras"])),
        seconds=found.seconds,
        allowed=tuple(f"allowed, {_grounds(exemption)}" for exemption in judgement.allowed),
        warnings=judgement.warnings,
        config=(str(result.config.path), pair.line),
    )


def _grounds(exemption: Exemption) -> str:
    """`conv-groups at ip1: why (until 2027-01-01)`."""
    date = f"until {exemption.until}" if exemption.until else f"since {exemption.since}"
    return f"{exemption.words}: {exemption.reason} ({date})"


def _enter(made: list[Case], problem: Problem) -> None:
    """Have a problem among the cases: in the case of its layer and phase if that passed, or as a case of its own."""
    outcome = "failed" if problem.kind in ("divergence", "regression") else "unverified"
    lines = tuple(line for line in (problem.sentence, problem.remedy) if line)
    case = Case(problem.layer, problem.keras_layer, problem.phase, outcome, problem.sentence, lines, problem.kind)
    for i, known in enumerate(made):
        here = {n for n in (known.layer, known.keras_layer) if n} & {n for n in (case.layer, case.keras_layer) if n}
        recipe = not (case.layer or case.keras_layer) and case.kind == "divergence"
        if known.phase == problem.phase and (here or recipe):
            if known.outcome == "failed":
                return  # it says so already, with its causes
            if here:
                made[i] = case
                return
    made.append(case)


def to_json(result: GateResult) -> str:
    """The whole result, schema `parity-gate/1`: the same bytes for the same result, without any time."""
    return json.dumps(_document(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _document(result: GateResult) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "verdict": result.verdict,
        "exit_code": result.exit_code,
        "config": str(result.config.path),
        "notes": list(result.notes),
        "pairs": [_pair(found.judgement) for found in result.results],
    }


def _pair(judgement: Judgement) -> dict[str, Any]:
    return {
        "name": judgement.pair.name,
        "verdict": judgement.verdict,
        "sentence": sentence_of(judgement),
        "problems": [
            {
                "kind": p.kind,
                "layer": p.layer,
                "keras_layer": p.keras_layer,
                "phase": p.phase,
                "tensor": p.tensor,
                "sentence": p.sentence,
                "remedy": p.remedy,
            }
            for p in judgement.problems
        ],
        "allowed": [
            {
                "cause": e.cause,
                "layer": e.layer,
                "status": e.status,
                "since": e.since and e.since.isoformat(),
                "until": e.until and e.until.isoformat(),
                "reason": e.reason,
            }
            for e in judgement.allowed
        ],
        "warnings": list(judgement.warnings),
        "report": None if judgement.report is None else to_dict(judgement.report),
    }
