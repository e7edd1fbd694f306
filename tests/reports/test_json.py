"""The JSON report: its keys, its numbers, and that it is the same for the same report."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np

from parity.report import SCHEMA, Probe
from tests.reports import examples

PROBE_KEYS = {
    "layer", "keras_layer", "phase", "tensor", "step", "shape", "status", "max_abs", "rms_rel", "floor",
    "isolated_x_floor", "propagated_x_floor",
}  # fmt: skip
FINDING_KEYS = {
    "cause", "severity", "layer", "keras_layer", "phase", "confirmed", "evidence", "fix", "fix_verified",
}  # fmt: skip
FIRST_KEYS = {"phase", "layer", "keras_layer", "tensor", "step", "status", "isolated", "propagated", "floor"}


def read(report) -> dict:
    def refuse(word: str):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(report.to_json(), parse_constant=refuse)


def test_the_schema_and_its_keys():
    data = read(examples.divergent())
    assert data["schema"] == SCHEMA == "parity-report/1"
    assert data["verdict"] == "diverged"
    assert data["exit_code"] == 1
    assert data["first_divergence"].keys() >= FIRST_KEYS
    assert data["first_divergence"]["layer"] == "ip1"
    assert all(row.keys() >= PROBE_KEYS for row in data["probes"])
    assert all(finding.keys() >= FINDING_KEYS for finding in data["findings"])
    assert data["environment"]["ref"]["threads"] == 2
    assert data["inputs"]["ref"]["sha256"] == "a" * 64
    assert data["outcome"] == {"images": 32, "differ": 3, "ref_correct": 17, "keras_correct": 16}
    assert data["layers"][0]["cells"]["forward"] == {
        "status": "match",
        "isolated_x_floor": 0.8,
        "propagated": 2.1e-7,
    }


def test_nothing_diverged_is_null():
    data = read(examples.matching())
    assert data["first_divergence"] is None
    assert data["findings"] == []
    assert data["exit_code"] == 0


def test_divergences_come_before_notes_in_their_own_order():
    report = examples.divergent()
    mixed = dataclasses.replace(report, findings=(report.findings[4], *report.findings[:2]))
    causes = [finding["cause"] for finding in read(mixed)["findings"]]
    assert causes == ["conv-groups", "optimizer-kind", "initializer"]


def test_numbers_of_numpy_and_numbers_without_a_word_in_json():
    probe = Probe(
        "conv1", "conv2d", "forward", "output", np.int64(1), (np.int64(2), 3), "born",  # pyright: ignore
        np.float32(0.5), math.nan, np.float64(math.inf), -math.inf, None,  # pyright: ignore
    )  # fmt: skip
    row = read(dataclasses.replace(examples.matching(), probes=(probe,)))["probes"][0]
    assert row["shape"] == [2, 3]
    assert row["max_abs"] == 0.5
    assert row["rms_rel"] == "nan"
    assert row["floor"] == "inf"
    assert row["isolated_x_floor"] == "-inf"
    assert row["propagated_x_floor"] is None
    assert math.isnan(float(row["rms_rel"]))


def test_whatever_environment_and_inputs_hold_is_written():
    odd = {"path": Path("a/b"), 3: {np.float32(1.5)}, "array": np.arange(3), "none": None, "flag": np.bool_(True)}
    data = read(dataclasses.replace(examples.matching(), environment=odd, inputs={"name": "\udcff\u2028"}))
    assert data["environment"] == {"path": "a/b", "3": [1.5], "array": [0, 1, 2], "none": None, "flag": True}


def test_the_same_report_gives_the_same_bytes():
    assert examples.divergent().to_json() == examples.divergent().to_json()
    assert examples.divergent().to_json().endswith("}\n")
