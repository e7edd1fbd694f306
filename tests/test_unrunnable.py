"""A custom layer in the reference: what is before it is compared, it and what needs it is unverified, never a pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import parity
from tests import twins, twins_dag

CUSTOM = {"type": "custom", "name": "mine", "forward": "forward", "backward": "backward"}


def custom_net(tmp_path: Path) -> Path:
    """The plain net with a layer of the author's own behind `relu2`."""
    layers = twins.plain()
    at = [layer["name"] for layer in layers].index("relu2") + 1
    return twins.save(tmp_path / "custom.mat", [*layers[:at], CUSTOM, *layers[at:]])


def custom_model() -> Any:
    import keras

    class Mine(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return 2 * inputs

    return twins.twin(twins.plain(), after={"relu2": lambda x: Mine(name="mine")(x)})


def statuses(report: parity.Report, phase: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for probe in report.probes:
        if probe.phase == phase:
            found.setdefault(probe.layer, set()).add(probe.status)
    return found


BEFORE = {"conv1", "relu1", "pool1", "conv2", "relu2"}
BEHIND = {"mine", "pool2", "fc", "relu3", "classifier"}


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_it_and_what_needs_it_is_unverified(mode: str, tmp_path: Path) -> None:
    report = parity.compare(ref=custom_net(tmp_path), keras=custom_model(), batch=twins.batch(), mode=mode)
    assert report.verdict == "unverified"
    assert report.first_divergence is None
    forward = statuses(report, "forward")
    assert {name: forward[name] for name in BEFORE} == {key: {"match"} for key in BEFORE}
    assert {name: forward[name] for name in BEHIND} == {key: {"unverified"} for key in BEHIND}
    assert statuses(report, "loss") == {"loss": {"unverified"}}
    notes = {probe.layer: probe.note for probe in report.probes if probe.phase == "forward"}
    assert notes["mine"] == "mine runs code that parity does not have"
    if mode == "train":
        updates = statuses(report, "update")
        assert set(updates) == {"conv1", "conv2", "fc", "classifier"}
        assert all(found == {"unverified"} for found in updates.values())


def test_it_may_be_allowed_by_name(tmp_path: Path) -> None:
    model, path = custom_model(), custom_net(tmp_path)
    allow = [f"unverified:{name}" for name in (*BEHIND, "loss")]
    assert parity.compare(ref=path, keras=model, batch=twins.batch(), mode="eval", allow=allow).verdict == "match"
    fewer = parity.compare(ref=path, keras=model, batch=twins.batch(), mode="eval", allow=allow[1:])
    assert fewer.verdict == "unverified"


def divergences(report: parity.Report) -> list[parity.Finding]:
    """The findings that are no notes."""
    return [finding for finding in report.findings if finding.severity == "divergence"]


def test_a_fault_before_it_is_found(tmp_path: Path) -> None:
    import keras

    class Mine(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return 2 * inputs

    model = twins.twin(twins.plain(), edits={"relu1": {"leak": 0.3}}, after={"relu2": lambda x: Mine(name="mine")(x)})
    report = parity.compare(ref=custom_net(tmp_path), keras=model, batch=twins.batch())
    first = report.first_divergence
    assert first is not None
    assert (first.phase, first.layer) == ("forward", "relu1")
    assert [finding.cause for finding in divergences(report)] == ["activation-slope"]


def test_a_layer_that_keras_does_not_have(tmp_path: Path) -> None:
    report = parity.compare(ref=custom_net(tmp_path), keras=twins.twin(twins.plain()), batch=twins.batch())
    first = report.first_divergence
    assert first is not None
    assert (first.phase, first.layer, first.status) == ("structure", "mine", "unpaired")
    assert [(finding.cause, finding.layer) for finding in divergences(report)] == [("layer-missing", "mine")]


def test_a_class_of_the_author_in_a_dagnn(tmp_path: Path) -> None:
    """It is the partner of the plain Keras layer at its place, whose parameters it may well have."""
    dag = twins_dag.inception(1)
    next(row for row in dag.rows if row["name"] == "scale")["type"] = "dagnn.Mine"
    model = twins_dag.twin(twins_dag.inception(1))
    report = parity.compare(ref=twins_dag.save(tmp_path / "net.mat", dag), keras=model, batch=twins_dag.batch(dag))
    assert report.verdict == "unverified"
    assert divergences(report) == []
    assert {probe.status for probe in report.probes} == {"match", "unverified"}
    forward = statuses(report, "forward")
    assert forward["concat"] == {"match"}
    assert forward["scale"] == forward["conv2"] == forward["up"] == {"unverified"}
    assert statuses(report, "structure")["scale"] == {"unverified"}


def test_a_fault_before_a_class_of_the_author_is_found(tmp_path: Path) -> None:
    dag = twins_dag.inception(1)
    next(row for row in dag.rows if row["name"] == "scale")["type"] = "dagnn.Mine"
    model = twins_dag.twin(twins_dag.inception(1), edits={"relu1": {"leak": 0.3}})
    report = parity.compare(ref=twins_dag.save(tmp_path / "net.mat", dag), keras=model, batch=twins_dag.batch(dag))
    first = report.first_divergence
    assert first is not None
    assert (first.phase, first.layer) == ("forward", "relu1")
    assert [finding.cause for finding in divergences(report)] == ["activation-slope"]
