"""The example pair through the command line: what the README shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import parity
from parity import cli

SEED = Path(__file__).parents[1] / "traces" / "seed"
PAIR = ("--ref", str(SEED / "net.mat"), "--keras", str(SEED / "model.h5"), "--batch", str(SEED / "batch.npz"))


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> tuple[int, dict, Path]:
    target = tmp_path_factory.mktemp("example") / "report.json"
    code = cli.main(["compare", *PAIR, "--json", str(target)])
    return code, json.loads(target.read_text()), target


def test_it_diverges_first_in_the_structure_of_ip1(example):
    code, report, _ = example
    assert code == 1
    assert report["verdict"] == "diverged"
    first = report["first_divergence"]
    assert (first["phase"], first["layer"], first["keras_layer"]) == ("structure", "ip1", "conv2d_5")


def test_it_names_every_cause(example):
    _, report, _ = example
    causes = {finding["cause"]: finding["severity"] for finding in report["findings"]}
    divergences = {
        "conv-groups", "optimizer-kind", "optimizer-learning-rate", "optimizer-weight-decay-as-lr-decay",
        "optimizer-lr-multiplier",
    }  # fmt: skip
    assert {cause for cause, severity in causes.items() if severity == "divergence"} == divergences
    assert {cause for cause, severity in causes.items() if severity == "note"} >= {"initializer", "metric"}


def test_forward_matches_and_backward_does_not_at_ip1(example):
    _, report, _ = example
    forward = {p["layer"]: p["status"] for p in report["probes"] if p["phase"] in ("forward", "loss")}
    assert set(forward.values()) == {"match"}
    backward = {p["layer"] for p in report["probes"] if p["phase"] == "backward" and p["status"] == "born"}
    assert backward == {"ip1"}


def test_every_parameter_and_step_was_updated_and_compared(example):
    _, report, _ = example
    updates = [p for p in report["probes"] if p["phase"] == "update"]
    assert {p["step"] for p in updates} == {1, 2, 3}
    assert len({(p["layer"], p["tensor"]) for p in updates}) == 12


def test_the_report_says_what_was_compared_and_with_what(example):
    _, report, _ = example
    assert report["inputs"]["ref"]["framework"] == "matconvnet"
    assert len(report["inputs"]["batch"]["sha256"]) == 64
    assert report["environment"]["keras"]["framework"] == "tf_keras"
    assert report["outcome"]["images"] == 32


def test_python_and_the_command_line_agree(example):
    _, expected, _ = example
    report = parity.compare(ref=SEED / "net.mat", keras=SEED / "model.h5", batch=SEED / "batch.npz", mode="eval")
    assert report.first_divergence is not None
    assert report.first_divergence.layer == expected["first_divergence"]["layer"]
    assert set(report.phases) <= {"input", "structure", "weights", "forward", "loss"}


def test_it_can_be_shown(capsys):
    assert cli.main(["compare", *PAIR, "--mode", "eval"]) == 1
    out, err = capsys.readouterr()
    assert "\x1b" not in out
    assert "MatConvNet ↔ Keras" in out
    assert "diverged: first in structure at ip1" in out
    assert err == ""
