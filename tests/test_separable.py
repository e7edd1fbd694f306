"""A depthwise and a pointwise convolution of the reference, which Keras has as one layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from tests.twins_dag import DECAY, MOMENTUM, RATE, Dag, batch, save


def net(multiplier: int = 2, *, bias: bool = False) -> Dag:
    """Two separable convolutions, the first with a bias between its two layers if asked for, and a third one apart."""
    dag = Dag(0, {"input": (8, 8, 3)})
    x = dag.relu("relu1", dag.conv("conv1", "input", (3, 3, 3, 6), pad=(1, 1, 1, 1)))
    x = dag.conv("deep", x, (3, 3, 1, 6 * multiplier), pad=(1, 1, 1, 1), bias=bias)
    x = dag.relu("relu2", dag.conv("wide", x, (1, 1, 6 * multiplier, 8)))
    x = dag.conv("deep2", x, (3, 3, 1, 8), stride=2, bias=False)
    x = dag.bnorm("norm", dag.conv("wide2", x, (1, 1, 8, 10), bias=False), 10)
    x = dag.conv("deep3", dag.relu("relu3", x), (3, 3, 1, 10), pad=(1, 1, 1, 1))
    x = dag.relu("relu4", dag.conv("wide3", x, (1, 1, 10, 8)))
    x = dag.conv("top", dag.pool("pool", x, "avg", 3, 1), (1, 1, 8, 5))
    dag.loss("loss", x, "objective")
    return dag


def port(multiplier: int = 2, *, decay: bool = True, **first: Any) -> Any:
    """Its port, in which the third one is two layers; `first` are arguments of the first."""
    import keras

    k = keras.layers

    def penalties(*words: str) -> dict[str, Any]:
        return {f"{word}_regularizer": keras.regularizers.L2(DECAY / 2) for word in words if decay}

    separable, plain = ("depthwise", "pointwise", "bias"), ("kernel", "bias")
    options = {"padding": "same", "activation": "relu", "depth_multiplier": multiplier, **first}
    kept = separable[:2] if options.get("use_bias") is False else separable
    layers = [
        keras.Input((8, 8, 3)),
        k.Conv2D(6, 3, padding="same", activation="relu", name="conv1", **penalties(*plain)),
        k.SeparableConv2D(8, 3, name="first", **options, **penalties(*kept)),
        k.SeparableConv2D(10, 3, strides=2, use_bias=False, name="second", **penalties(*separable[:2])),
        k.BatchNormalization(epsilon=1e-5, momentum=0.9, name="norm", **penalties("gamma", "beta")),
        k.ReLU(name="relu3"),
        k.DepthwiseConv2D(3, padding="same", name="third", **penalties("depthwise", "bias")),
        k.Conv2D(8, 1, activation="relu", name="third_wide", **penalties(*plain)),
        k.GlobalAveragePooling2D(name="pool"),
        k.Dense(5, name="top", **penalties(*plain)),
    ]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), loss)
    return model


def compared(tmp_path: Path, dag: Dag, model: Any) -> parity.Report:
    model.save(tmp_path / "model.keras")
    return parity.compare(save(tmp_path / "net.mat", dag), tmp_path / "model.keras", batch(dag))


def divergences(report: parity.Report) -> list[parity.Finding]:
    return [finding for finding in report.findings if finding.severity == "divergence"]


@pytest.mark.parametrize("multiplier", [1, 2])
def test_right_ports_match(tmp_path, multiplier):
    report = compared(tmp_path, net(multiplier), port(multiplier))
    assert report.verdict == "match"
    assert not divergences(report)
    gradients = {probe.tensor for probe in report.probes if probe.layer == "wide" and probe.phase == "backward"}
    assert {"ddepthwise_kernel", "dpointwise_kernel", "dbias"} <= gradients


@pytest.mark.parametrize(
    ("fault", "cause", "line"),
    [
        ({"dilation_rate": 2}, "conv-dilation", "first: SeparableConv2D(…, dilation_rate=(1, 1)"),
        ({"padding": "valid"}, "padding-size", 'first: SeparableConv2D(…, padding="same")'),
        ({"strides": 2}, "conv-stride", "first: SeparableConv2D(…, strides=(1, 1)"),
        ({"use_bias": False}, "bias-missing", "first: SeparableConv2D(…, use_bias=True"),
    ],
)
def test_faults_of_the_one_layer_are_told_at_it(tmp_path, fault, cause, line):
    report = compared(tmp_path, net(), port(**fault))
    (found,) = [finding for finding in divergences(report) if finding.keras_layer == "first"]
    assert (found.cause, found.layer, found.confirmed, found.fix_verified) == (cause, "wide", True, True)
    assert found.fix.startswith(line)
    assert report.first_divergence is not None
    assert report.first_divergence.layer == "wide"
    assert divergences(report)[0] is found


def test_another_depth_multiplier_is_put_right(tmp_path):
    (found,) = divergences(compared(tmp_path, net(), port(depth_multiplier=1)))
    assert (found.layer, found.keras_layer, found.phase, found.fix_verified) == ("wide", "first", "structure", True)
    assert found.fix == "first: SeparableConv2D(…, depth_multiplier=2)"


def test_a_bias_in_between_has_no_place_in_the_one_layer(tmp_path):
    report = compared(tmp_path, net(bias=True), port())
    (found,) = divergences(report)
    assert (found.cause, found.layer, found.confirmed) == ("bias-missing", "wide", True)
    assert "depthwise_bias" in found.evidence
    assert "DepthwiseConv2D" in found.fix


def test_a_missing_decay_is_told_in_the_arguments_of_the_layer(tmp_path):
    (found,) = divergences(compared(tmp_path, net(), port(decay=False)))
    assert (found.cause, found.fix_verified) == ("optimizer-weight-decay-missing", True)
    for word in ("kernel", "depthwise", "pointwise", "bias"):
        assert f"{word}_regularizer" in found.fix


def test_mirrored_filters_of_each_channel_are_told(tmp_path):
    import keras

    dag = Dag(1, {"input": (6, 6, 3)})
    x = dag.conv("wide", dag.conv("deep", "input", (3, 3, 1, 6), bias=False), (1, 1, 6, 4))
    dag.loss("loss", dag.conv("top", dag.relu("relu", x), (4, 4, 4, 5)), "objective")
    layers = [keras.layers.SeparableConv2D(4, 3, depth_multiplier=2, activation="relu", name="first")]
    model = keras.Sequential([keras.Input((6, 6, 3)), *layers, keras.layers.Flatten(), keras.layers.Dense(5)])
    model.compile(keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    held = {name: row["value"] for name, row in dag.params.items()}
    deep = held["deepf"].reshape(3, 3, 3, 2)
    ending = [held["topf"].reshape(-1, 5), held["topb"].ravel()]
    for filters, causes in ((deep, set()), (deep[::-1, ::-1], {"kernel-flip"})):
        model.set_weights([filters, held["widef"], held["wideb"].ravel(), *ending])
        model.save(tmp_path / "model.keras")
        report = parity.compare(save(tmp_path / "net.mat", dag), tmp_path / "model.keras", batch(dag), weights="own")
        found = [finding for finding in divergences(report) if finding.phase in ("weights", "forward")]
        assert {finding.cause for finding in found} == causes
        assert all(finding.layer == "wide" and finding.confirmed and finding.fix_verified for finding in found)


def test_of_two_kerases_the_one_that_has_it_in_two_layers_may_be_either(tmp_path):
    import keras

    def model(*, one: bool, stride: int = 1) -> Path:
        k = keras.layers
        pair = [
            k.DepthwiseConv2D(3, padding="same", strides=stride, use_bias=False, name="deep"),
            k.Conv2D(8, 1, name="wide"),
        ]
        layers = [k.SeparableConv2D(8, 3, padding="same", name="deepwide")] if one else pair
        ends = [k.ReLU(name="relu"), k.GlobalAveragePooling2D(name="pool"), k.Dense(5, name="top")]
        made = keras.Sequential([keras.Input((8, 8, 3)), *layers, *ends])
        made.compile(keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        made.save(tmp_path / f"{one}{stride}.keras")
        return tmp_path / f"{one}{stride}.keras"

    data = {"x": np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32), "y": np.arange(4)}
    one, two, wrong = model(one=True), model(one=False), model(one=False, stride=2)
    assert parity.compare(one, two, data).verdict == "match"
    assert parity.compare(two, one, data).verdict == "match"
    found = divergences(parity.compare(one, wrong, data))
    assert [(finding.cause, finding.layer, finding.keras_layer) for finding in found] == [
        ("conv-stride", "deepwide", "wide")
    ]
    assert found[0].fix_verified


def parted(between: tuple[str, ...]) -> Dag:
    """Two residual branches of a depthwise and a pointwise convolution, the first with more between the two."""
    dag = Dag(2, {"input": (8, 8, 3)})
    x = dag.relu("relu1", dag.conv("conv1", "input", (3, 3, 3, 6), pad=(1, 1, 1, 1)))
    for name, made in (("a", between), ("b", ())):
        y = dag.conv(f"{name}_deep", x, (3, 3, 1, 6), pad=(1, 1, 1, 1), bias=False)
        for kind in made:
            y = dag.bnorm("norm", y, 6) if kind == "norm" else dag.relu("relu", y)
        y = dag.bnorm(f"{name}_norm", dag.conv(f"{name}_wide", y, (1, 1, 6, 6), bias=False), 6)
        x = dag.relu(f"{name}_relu", dag.sum(f"{name}_sum", (x, y)))
    dag.loss("loss", dag.conv("top", dag.pool("pool", x, "avg", 8, 1), (1, 1, 6, 5)), "objective")
    return dag


def joined(whole: str = "ab", between: tuple[str, ...] = (), epsilon: float = 1e-5) -> Any:
    """Its port, in which the branches of `whole` are one layer each; the first has `between` if it is two."""
    import keras

    k = keras.layers

    def held(maker: Any, *given: Any, words: str = "kernel bias", **more: Any) -> Any:
        return maker(
            *given, **more, **{f"{word}_regularizer": keras.regularizers.L2(DECAY / 2) for word in words.split()}
        )

    def norm(name: str, epsilon: float = 1e-5) -> Any:
        return held(k.BatchNormalization, words="gamma beta", epsilon=epsilon, momentum=0.9, name=name)

    start = keras.Input((8, 8, 3), name="input")
    x = held(k.Conv2D, 6, 3, padding="same", activation="relu", name="conv1")(start)
    for name, made in (("a", between), ("b", ())):
        options = {"padding": "same", "use_bias": False}
        if name in whole:
            words = "depthwise pointwise"
            y = held(k.SeparableConv2D, 6, 3, words=words, name=f"{name}_one", **options)(x)
        else:
            y = held(k.DepthwiseConv2D, 3, words="depthwise", name=f"{name}_deep", **options)(x)
            for kind in made:
                y = norm("norm")(y) if kind == "norm" else k.ReLU(name="relu")(y)
            y = held(k.Conv2D, 6, 1, words="kernel", name=f"{name}_wide", **options)(y)
        y = norm(f"{name}_norm", epsilon if name == "a" else 1e-5)(y)
        x = k.ReLU(name=f"{name}_relu")(k.Add(name=f"{name}_sum")([x, y]))
    model = keras.Model(start, held(k.Dense, 5, name="top")(k.GlobalAveragePooling2D(name="pool")(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), loss)
    return model


@pytest.mark.parametrize("between", [("relu",), ("norm",), ("norm", "relu")])
@pytest.mark.parametrize("whole", ["ab", "a"])
def test_what_stands_between_the_two_is_missing_in_the_one_layer(tmp_path, between, whole):
    report = compared(tmp_path, parted(between), joined(whole, epsilon=1e-3))
    causes = {"norm": "layer-missing", "relu": "activation-missing"}
    found = divergences(report)
    told = [(finding.cause, finding.layer, finding.keras_layer) for finding in found]
    assert told == [*((causes[name], name, "a_one") for name in between), ("bn-epsilon", "a_norm", "a_norm")]
    assert all(finding.confirmed and finding.fix_verified for finding in found)
    assert report.first_divergence is not None
    assert report.first_divergence.layer == between[0]
    assert {probe.status for probe in report.probes if probe.layer in ("a_deep", "a_wide")} == {"unverified"}


@pytest.mark.parametrize("whole", ["b", ""])
def test_two_layers_with_something_between_them_match_where_both_sides_have_them(tmp_path, whole):
    assert compared(tmp_path, parted(("norm", "relu")), joined(whole, ("norm", "relu"))).verdict == "match"


def test_what_only_keras_has_between_the_two_is_too_much(tmp_path):
    joined("ab").save(tmp_path / "one.keras")
    joined("b", ("relu",)).save(tmp_path / "two.keras")
    (found,) = divergences(parity.compare(tmp_path / "one.keras", tmp_path / "two.keras", batch(parted(()))))
    assert (found.cause, found.keras_layer, found.fix) == ("activation-extra", "relu", "remove relu")
    assert found.confirmed
    assert found.fix_verified
    assert "a_one" in found.evidence


def test_a_dropout_between_the_two_counts_in_train_mode_alone(tmp_path):
    dag = Dag(3, {"input": (8, 8, 3)})
    x = dag.conv("deep", "input", (3, 3, 1, 6), pad=(1, 1, 1, 1), bias=False)
    x = dag.conv("wide", dag.add("drop", "DropOut", x, rate=0.4, frozen=False), (1, 1, 6, 8))
    x = dag.pool("pool", dag.relu("relu", x), "avg", 8, 1)
    dag.loss("loss", dag.conv("top", x, (1, 1, 8, 5)), "objective")
    path = save(tmp_path / "net.mat", dag)
    import keras

    k = keras.layers
    first = k.SeparableConv2D(8, 3, padding="same", depth_multiplier=2, activation="relu", name="one")
    model = keras.Sequential([keras.Input((8, 8, 3)), first, k.GlobalAveragePooling2D(), k.Dense(5, name="top")])
    model.compile(keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert parity.compare(path, model, batch(dag), mode="eval").verdict == "match"
    found = [
        finding for finding in divergences(parity.compare(path, model, batch(dag))) if finding.phase == "structure"
    ]
    assert [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in found] == [("dropout-missing", "drop", True, True)]
