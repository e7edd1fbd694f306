"""What the README says to type: every command parses, and the workflows for CI are whole."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from markdown_it import MarkdownIt

from parity.cli import app

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
FENCES = [(token.info, token.content) for token in MarkdownIt().parse(README) if token.type == "fence"]
WORKFLOWS = [yaml.load(text, yaml.BaseLoader) for kind, text in FENCES if kind == "yaml"]
ROOT = typer.main.get_command(app)
OTHERS = {"--constraint", "--parity-update"}
"""Options of pip and pytest."""


def runs(workflow):
    """The shell's lines of a workflow."""
    for job in workflow.get("jobs", workflow).values():
        yield from job.get("script", ())
        yield from (step["run"] for step in job.get("steps", ()) if "run" in step)


LINES = [line for kind, text in FENCES if kind != "yaml" for line in text.splitlines()]
LINES += [line for workflow in WORKFLOWS for line in runs(workflow)]
COMMANDS = sorted({line for line in LINES if line.startswith("parity ")})


def parsed(line):
    """The command of a line, and what its options were given; raises UsageError for what there is not."""
    name, *words = shlex.split(line, comments=True)[1:]
    command = ROOT.commands[name]
    context = command.make_context(name, words)
    return command, context.params


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_line_is_one(line):
    parsed(line)


def test_a_command_line_that_is_none_is_seen():
    with pytest.raises(Exception, match="--junti"):
        parsed("parity gate --junti report.xml")


def test_every_option_is_one():
    known = {option for command in ROOT.commands.values() for p in command.params for option in p.opts}
    known |= {option for p in ROOT.params for option in p.opts} | OTHERS
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", README))
    assert len(named) > 30
    assert named <= known


def test_githubs_workflow_is_whole():
    workflow = next(w for w in WORKFLOWS if "jobs" in w)
    assert {"name", "on", "jobs"} == set(workflow)
    assert set(workflow["on"]) <= {"push", "pull_request"}
    (job,) = workflow["jobs"].values()
    assert set(job) == {"runs-on", "steps"}
    for step in job["steps"]:
        assert set(step) <= {"uses", "with", "run", "if", "name"}
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/checkout@v4"))
    kept = next(step["with"]["path"] for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    assert kept == str(_gate(workflow)["junit"])
    assert next(step for step in job["steps"] if step.get("with", {}).get("path") == kept)["if"] == "always()"


def test_gitlabs_job_is_whole():
    workflow = next(w for w in WORKFLOWS if "jobs" not in w)
    (job,) = workflow.values()
    assert set(job) == {"image", "script", "artifacts"}
    assert job["artifacts"] == {"when": "always", "reports": {"junit": str(_gate(workflow)["junit"])}}


def _gate(workflow):
    """What the gate of a workflow is given."""
    (line,) = [line for line in runs(workflow) if line.startswith("parity gate")]
    return parsed(line)[1]
