"""DagNN nets and their Keras twins, whole: clean ones match in every phase, planted faults are found at their layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from tests import twins_dag
from tests.twins_dag import Dag

TRAINING = {"input", "structure", "weights", "forward", "loss", "backward", "update"}


def compared(tmp_path: Path, dag: Dag, model: Any, **options: Any) -> parity.Report:
    path = twins_dag.save(tmp_path / "net.mat", dag, **options.pop("recipe", {}))
    # The fixes of such faults in such nets are tried in `test_fixes`.
    return parity.compare(ref=path, keras=model, batch=twins_dag.batch(dag), verify=False, **options)


def causes(report: parity.Report) -> set[tuple[str, str]]:
    return {(finding.cause, finding.layer) for finding in report.findings if finding.severity == "divergence"}


def custom_scale(name: str) -> Any:
    """A Scale as a user would write it."""
    import keras

    class Scale(keras.layers.Layer):
        def build(self, input_shape: Any) -> None:
            decay = keras.regularizers.L2(twins_dag.DECAY / 2)
            self.a = self.add_weight(name="a", shape=(input_shape[-1],), initializer="ones", regularizer=decay)
            self.b = self.add_weight(name="b", shape=(input_shape[-1],), initializer="zeros", regularizer=decay)

        def call(self, inputs: Any) -> Any:
            return inputs * self.a + self.b

    return Scale(name=name)


NETS = {
    "residual": (twins_dag.resnet, {}),
    "inception": (twins_dag.inception, {}),
    "inception, a custom Scale": (twins_dag.inception, {"scale": custom_scale}),
    "two heads": (twins_dag.two_heads, {}),
    "two inputs": (twins_dag.two_inputs, {}),
    "probabilities": (twins_dag.probable, {}),
}


@pytest.mark.parametrize("name", NETS)
def test_clean_twins_match_through_three_updates(name: str, tmp_path: Path) -> None:
    build, options = NETS[name]
    dag = build(seed=len(name))
    report = compared(tmp_path, dag, twins_dag.twin(dag, **options))
    assert report.verdict == "match", report.first_divergence
    assert set(report.phases) == TRAINING
    # End to end, too: where heads flatten for themselves, a sum of gradients is not held against its terms.
    assert max(p.rms_rel or 0 for p in report.probes if p.phase == "backward") < 1e-2
    assert {probe.step for probe in report.probes if probe.phase == "update"} >= {1, 2, 3}
    judged = {probe.layer for probe in report.probes if probe.phase == "forward"}
    apart = {"dagnn.Loss", "dagnn.SoftMax"}  # a softmax before a loss on probabilities is a part of the loss
    assert judged >= {row["name"] for row in dag.rows if row["type"] not in apart}


def test_a_missing_skip_connection(tmp_path: Path) -> None:
    dag = twins_dag.resnet(3)

    def wire(name: str, tensors: list[Any]) -> list[Any]:
        return tensors[1:] if name == "sum2" else tensors

    report = compared(tmp_path, dag, twins_dag.twin(dag, wire=wire))
    first = report.first_divergence
    assert report.verdict == "diverged"
    assert first is not None
    assert (first.phase, first.layer) == ("structure", "sum2")
    assert ("layer-missing", "sum2") in causes(report)


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 2, 1, 3), (3, 1, 2, 0)])
def test_swapped_inputs_of_a_concatenation(order: tuple[int, ...], tmp_path: Path) -> None:
    dag = twins_dag.inception(3)

    def wire(name: str, tensors: list[Any]) -> list[Any]:
        return [tensors[at] for at in order] if name == "concat" else tensors

    report = compared(tmp_path, dag, twins_dag.twin(dag, wire=wire))
    first = report.first_divergence
    assert first is not None
    assert (first.phase, first.layer, first.keras_layer) == ("structure", "concat", "concat")
    assert causes(report) == {("channel-order", "concat")}


@pytest.mark.parametrize("seed", range(5))
def test_nets_that_nobody_thought_of(seed: int, tmp_path: Path) -> None:
    dag = twins_dag.random_dag(seed)
    report = compared(tmp_path, dag, twins_dag.twin(dag))
    assert report.verdict == "match", report.first_divergence


SPREAD = {"branch_b2": {"dilate": np.ones(2), "pad": np.ones(4)}}

FAULTS = {
    "a dilation": (twins_dag.inception, SPREAD, "branch_b2", {"conv-dilation", "padding-size"}),
    "an epsilon": (twins_dag.resnet, {"bn3a": {"epsilon": 1e-3}}, "bn3a", {"bn-epsilon"}),
    "a momentum": (twins_dag.resnet, {"bn2b": {"momentum": 0.5}}, "bn2b", {"bn-momentum"}),
    "a leak": (twins_dag.resnet, {"relu3": {"leak": 0.3}}, "relu3", {"activation-slope"}),
    "a pooling": (twins_dag.inception, {"pool_c": {"method": "avg"}}, "pool_c", {"pool-method"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_branch(name: str, tmp_path: Path) -> None:
    build, edits, layer, expected = FAULTS[name]
    dag = build(5)
    report = compared(tmp_path, dag, twins_dag.twin(dag, edits=edits))
    assert report.verdict == "diverged"
    assert causes(report) == {(cause, layer) for cause in expected}


def test_der_outputs_that_keras_does_not_weigh(tmp_path: Path) -> None:
    """The second loss counts a quarter in MatConvNet; a model that says so matches, one that does not differs."""
    dag = twins_dag.two_heads(2)
    recipe = {"recipe": {"derOutputs": twins_dag.cell(["objective1", 1.0, "objective2", 0.25])}}
    right = compared(tmp_path, dag, twins_dag.twin(dag, loss_weights=[1.0, 0.25]), **recipe)
    assert right.verdict == "match", right.first_divergence
    wrong = compared(tmp_path, dag, twins_dag.twin(dag), **recipe)
    assert wrong.verdict == "diverged"
    first = wrong.first_divergence
    assert first is not None
    assert (first.phase, first.layer) == ("loss", "loss2")


def gated(gate: bool) -> Dag:
    """A map times what its means say of each channel, or plus another map; then a pooling with padded cells."""
    dag = Dag(3, {"data": (7, 8, 3)})
    x = dag.relu("relu1", dag.conv("conv1", "data", (3, 3, 3, 6), pad=(1, 1, 1, 1)))
    if gate:
        side = dag.add(
            "mean", "Pooling", x, method="avg", poolSize=np.array([7.0, 8]), stride=np.ones(2), pad=np.zeros(4)
        )
        side = dag.add("gate", "Sigmoid", dag.conv("fc", side, (1, 1, 6, 6)))
        x = dag.add("join", "Scale", (x, side), size=np.array([1.0, 1, 6]), hasBias=False)
    else:
        side = dag.relu("relu2", dag.conv("conv2", x, (3, 3, 6, 6), pad=(1, 1, 1, 1)))
        x = dag.sum("join", (x, side))
    x = dag.pool("pool", x, "avg", 3, 2, (1, 1, 0, 1))
    dag.loss("loss", dag.conv("top", x, (4, 4, 6, 5)), "objective")
    return dag


def gated_port(gate: bool, join: str, *, pool: bool = True) -> Any:
    import keras

    k = keras.layers

    def held(maker: Any, *given: Any, **more: Any) -> Any:
        decay = keras.regularizers.L2(twins_dag.DECAY / 2)
        return maker(*given, kernel_regularizer=decay, bias_regularizer=decay, **more)

    start = keras.Input((7, 8, 3))
    x = held(k.Conv2D, 6, 3, padding="same", activation="relu", name="conv1")(start)
    if gate:
        side = held(k.Dense, 6, activation="sigmoid", name="fc")(k.GlobalAveragePooling2D(name="mean")(x))
        side = k.Reshape((1, 1, 6))(side)
    else:
        side = held(k.Conv2D, 6, 3, padding="same", activation="relu", name="conv2")(x)
    x = getattr(k, join)(name="join")([x, side])
    if pool:
        x = k.AveragePooling2D(3, 2, padding="same", name="pool")(x)
    model = keras.Model(start, held(k.Dense, 5, name="top")(k.Flatten()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(twins_dag.RATE, momentum=twins_dag.MOMENTUM), loss)
    return model


@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("join", ["Add", "Multiply", "Average", "Maximum", "Minimum"])
def test_tensors_that_are_joined_by_another_operation(gate: bool, join: str, tmp_path: Path) -> None:
    dag = gated(gate)
    path = twins_dag.save(tmp_path / "net.mat", dag)
    report = parity.compare(path, gated_port(gate, join), twins_dag.batch(dag))
    found = [f for f in report.findings if f.severity == "divergence"]
    right = "Multiply" if gate else "Add"
    wrong = [] if join == right else [("layer-missing", "join", f"join: {right}() in its place", True, True)]
    assert [(f.cause, f.layer, f.fix, f.confirmed, f.fix_verified) for f in found] == wrong
    assert report.verdict == ("diverged" if wrong else "match")


def test_a_missing_average_leaves_padded_cells_out_of_its_count(tmp_path: Path) -> None:
    dag = gated(gate=False)
    path = twins_dag.save(tmp_path / "net.mat", dag)
    report = parity.compare(path, gated_port(False, "Add", pool=False), twins_dag.batch(dag))
    found = [f for f in report.findings if f.severity == "divergence"]
    assert [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in found] == [("layer-missing", "pool", True, True)]
    assert 'padding="same"' in found[0].fix


@pytest.mark.parametrize(
    ("layer", "size", "line"),
    [
        ("conv2a", (3, 3, 8, 6), "conv2a: Conv2D(…, filters=8)"),
        ("conv3a", (5, 5, 8, 12), "conv3a: Conv2D(…, kernel_size=(3, 3)"),
        ("fc", (1, 1, 12, 7), "fc: Dense(…, units=5)"),
    ],
)
def test_another_number_of_filters_or_another_size_is_put_right(
    layer: str, size: tuple[int, ...], line: str, tmp_path: Path
) -> None:
    dag = twins_dag.resnet(1)
    path = twins_dag.save(tmp_path / "net.mat", dag)
    pads = {"pad": (2, 2, 2, 2)} if size[0] == 5 else {}
    dense = {"conv2b": {"groups": 1}}
    model = twins_dag.twin(dag, edits={**dense, layer: {"size": np.array(size, float), **pads}})
    report = parity.compare(path, model, twins_dag.batch(dag))
    found = [f for f in report.findings if f.severity == "divergence"]
    assert any(finding.fix.startswith(line) for finding in found)
    assert all(f.fix_verified and (f.layer, f.phase) == (layer, "structure") for f in found)
