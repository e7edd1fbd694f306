"""A gate's result as it is read."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from parity.gate.config import Config, Exemption, Pair
from parity.gate.console import closing_lines, compare_command, pair_lines
from parity.gate.judgement import Judgement, Problem
from parity.gate.run import GateResult, PairResult
from parity.gate.suites import suites_of, to_json
from parity.reports.github import workflow_commands
from parity.reports.output import as_text
from tests.reports import examples

OPTIONS = {"ref": "my net.mat", "keras": "model.h5", "steps": 2, "trust": True, "strict": False}
ALLOW = Exemption("known", "ip1", "conv-groups", since=datetime.date(2026, 1, 1))
GOOD, BAD = Pair("good", OPTIONS, allow=(ALLOW,), line=3), Pair("a bad one", OPTIONS, line=9)
PROBLEMS = tuple(Problem("divergence", f"bn-epsilon at bn{i} in forward", f"bn{i}", "", "forward") for i in range(8))
RESULT = GateResult(
    Config(Path("parity.toml"), (GOOD, BAD), Path("parity.lock")),
    (
        PairResult(Judgement(GOOD, examples.matching(), allowed=(ALLOW,), warnings=("look at \x1b[31mthis",)), 1.25),
        PairResult(Judgement(BAD, examples.divergent(), PROBLEMS), 2.0),
    ),
    ("a note",),
    ("good",),
)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_what_is_told_of_pairs(width):
    text = "\n".join(as_text(line, width) for found in RESULT.results for line in pair_lines(found, RESULT.config))
    assert all(len(line) <= width for line in text.splitlines())
    flat = " ".join(text.split())
    assert flat.startswith("match good 9 tensors in 7 phases, 1 exception needed 1.2 s")
    assert "warning: look at �[31mthis" in flat
    assert "diverged a bad one 2.0 s divergence: bn-epsilon at bn0 in forward" in flat
    assert "and 2 more problems" in flat
    assert "all of it: parity compare \\ --ref 'my net.mat' \\ --keras model.h5 \\ --steps 2 \\ --trust" in flat


def test_the_command_is_one_that_can_be_pasted():
    assert compare_command(GOOD)[0] == "parity compare"
    assert "--strict" not in " ".join(compare_command(GOOD))


def test_the_verdict_comes_last():
    lines = "\n".join(as_text(line) for line in closing_lines(RESULT)).splitlines()
    assert lines[0] == "note: a note"
    assert "parity.lock: 1 baseline made anew" in lines
    assert "left as it was: a bad one; only what holds, or is allowed, makes a baseline" in lines
    assert lines[-1] == "diverged: 2 pairs, 1 match, 1 diverged"


def test_annotations_point_at_the_pair_in_the_configuration():
    commands = workflow_commands(suites_of(RESULT))
    assert commands[0].startswith("::error file=parity.toml,line=9,title=a bad one")
    assert commands[-1].startswith("::warning file=parity.toml,line=3,title=good::look at")
    for command in commands:
        lines = command.split("::")[-1].split("%0A")
        assert len(lines) == len(set(lines)), command


def test_the_document_holds_no_time():
    slower = GateResult(RESULT.config, tuple(PairResult(r.judgement, 9.9) for r in RESULT.results), RESULT.notes)
    assert to_json(RESULT) == to_json(slower)
    assert "seconds" not in to_json(RESULT)
