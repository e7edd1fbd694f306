"""Layers that stand otherwise on the two sides: what computes the same function matches, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

import parity
from parity import regions
from parity.frameworks.matconvnet.lift import lift
from tests import twins
from tests.test_verdicts import explain

SIZE = (6, 6, 2)


def reference(path, *inner, pool="max", bias=True):
    """conv1 (its biases zero without `bias`), what is given, a pooling, and a classifier."""
    rng = np.random.default_rng(5)
    layers = [
        twins.conv("conv1", rng, (3, 3, 2, 6), pad=np.ones(4)),
        *inner,
        twins.pool("pool1", pool, 2, 2),
        twins.conv("classifier", rng, (3, 3, 6, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]
    if not bias:
        layers[0]["weights"][1][:] = 0
    return twins.save(path / "net.mat", layers, SIZE, weightDecay=0.0)


def normal(rate=0.05):
    return twins.bnorm("bn1", np.random.default_rng(6), 6, rate)


def port(inner, pool="max"):
    """The same in Keras, with what `inner` puts between; it does the pooling itself where `pool` is empty."""
    import keras
    from keras import layers

    x = start = keras.Input(SIZE)
    x = inner(layers.Conv2D(6, 3, padding="same", name="conv1")(x))
    if pool:
        x = pooled(pool)(x)
    model = keras.Model(start, layers.Dense(4, name="classifier")(layers.Flatten()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(twins.RATE, momentum=twins.MOMENTUM), loss)
    return model


def pooled(method):
    from keras import layers

    return (layers.MaxPooling2D if method == "max" else layers.AveragePooling2D)(2, name="pool1")


def compared(ref, model, **options):
    return parity.compare(ref=ref, keras=model, batch=twins.batch(0, SIZE), **options)


def causes(report):
    return [(f.cause, f.layer) for f in report.findings if f.severity == "divergence"]


def proven(report):
    """Whether every divergence is confirmed, and its fix tried."""
    return all(f.confirmed and f.fix_verified for f in report.findings if f.severity == "divergence")


def leaky(spelling, slope):
    """A leaky relu in bare operations."""
    from keras import layers, ops

    return {
        "maximum": lambda x: ops.maximum(slope * x, x),
        "Maximum": lambda x: layers.Maximum()([x, layers.Rescaling(slope)(x)]),
        "where": lambda x: ops.where(x > 0, x, slope * x),
        "two relus": lambda x: ops.relu(x) - slope * ops.relu(-x),
        "absolute": lambda x: (0.5 + slope / 2) * x + (0.5 - slope / 2) * ops.abs(x),
    }[spelling]


@pytest.mark.parametrize("slope", [0.1, 0.1001])
@pytest.mark.parametrize("spelling", ["maximum", "Maximum", "where", "two relus", "absolute"])
def test_a_formula_is_the_layer_that_it_writes_out(tmp_path, spelling, slope):
    ref = reference(tmp_path, twins.relu("relu1", 0.1))
    report = compared(ref, port(leaky(spelling, slope)), mode="train" if spelling == "maximum" else "eval")
    if slope == 0.1:
        assert report.verdict == "match", explain(report)
        return
    assert report.first_divergence.phase == "forward", explain(report)
    assert causes(report) == [("activation-slope", "relu1")], explain(report)
    assert proven(report), explain(report)


@pytest.mark.parametrize("slope", [0.1, 0.2])
def test_the_kink_of_a_formula_is_a_tie(tmp_path, slope):
    """Where a map is exactly zero, a formula has another derivative than the layer: none, and not the slope."""
    ref = reference(tmp_path, twins.relu("relu1", 0.1), twins.relu("relu2", 0.1), bias=False)
    batch = twins.batch(0, SIZE)
    batch["x"][:, :3] = 0

    def inner(x):
        return leaky("two relus", slope)(leaky("two relus", 0.1)(x))

    report = parity.compare(ref=ref, keras=port(inner), batch=batch)
    assert any("kink" in probe.note for probe in report.probes), explain(report)
    assert causes(report) == ([] if slope == 0.1 else [("activation-slope", "relu2")]), explain(report)
    assert proven(report), explain(report)


def test_a_sum_of_a_map_and_its_relu_is_two_layers(tmp_path):
    ref = reference(tmp_path, twins.relu("relu1"))
    from keras import ops

    report = compared(ref, port(lambda x: x + ops.relu(x)), mode="eval")
    assert [cause for cause, _ in causes(report)] == ["layer-extra"], explain(report)


@pytest.mark.parametrize("right", [True, False])
def test_a_chain_of_operations_is_the_layer_that_it_writes_out(tmp_path, right):
    from keras import ops

    ref = reference(tmp_path, {"type": "sigmoid", "name": "sig1"})
    report = compared(ref, port(lambda x: 1 / ((1 if right else 1.1) + ops.exp(-x))))
    assert (report.verdict == "match") is right, explain(report)
    assert right or all(layer in ("sig1", "") for _, layer in causes(report)), explain(report)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("leak", [0.0, 0.1])
@pytest.mark.parametrize("method", ["max", "avg"])
def test_a_relu_behind_a_pooling(tmp_path, method, leak, mode):
    from keras import layers

    ref = reference(tmp_path, normal(), twins.relu("relu1", leak), pool=method)

    def inner(x):
        x = layers.BatchNormalization(epsilon=1e-5, momentum=0.95, name="bn1")(x)
        return layers.ReLU(negative_slope=leak, name="relu1")(pooled(method)(x))

    report = compared(ref, port(inner, pool=""), mode=mode)
    if method == "max":
        assert report.verdict == "match", explain(report)
        assert any("compute the same function" in note for note in report.notes)
        return
    assert report.first_divergence.phase == "structure", explain(report)
    assert [cause for cause, _ in causes(report)] == ["layer-order"], explain(report)
    assert proven(report), explain(report)


def test_a_batch_normalisation_behind_its_pooling_is_elsewhere(tmp_path):
    from keras import layers

    ref = reference(tmp_path, normal())
    norm = layers.BatchNormalization(epsilon=1e-5, momentum=0.95, name="bn1")
    report = compared(ref, port(lambda x: norm(pooled("max")(x)), pool=""))
    assert [cause for cause, _ in causes(report)] == ["layer-order"], explain(report)


@pytest.mark.parametrize(("rate", "verdict"), [(0.4, "match"), (0.3, "diverged")])
def test_a_dropout_before_its_relu_drops_the_same(tmp_path, rate, verdict):
    from keras import layers

    ref = reference(tmp_path, twins.relu("relu1", 0.1), {"type": "dropout", "name": "drop", "rate": 0.4})
    report = compared(ref, port(lambda x: layers.LeakyReLU(0.1)(layers.Dropout(rate)(x))))
    assert report.verdict == verdict, explain(report)
    assert verdict == "match" or ("dropout-rate", "drop") in causes(report), explain(report)


def test_limits_show_in_what_is_tried(tmp_path):
    """A relu twice is one, but not where one of the two saturates beyond what the batch reaches."""
    from keras import layers

    ref = reference(tmp_path, twins.relu("relu1"), twins.relu("relu2"))
    assert compared(ref, port(layers.ReLU()), mode="eval").verdict == "match"
    report = compared(ref, port(layers.ReLU(max_value=20.0)), mode="eval")
    assert "activation-missing" in [cause for cause, _ in causes(report)], explain(report)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    ("lacking", "expected"),
    [
        ({}, []),
        ({"scale": False}, [("layer-missing", "bn1")]),
        ({"center": False}, [("bias-missing", "bn1")]),
        ({"scale": False, "center": False}, [("layer-missing", "bn1"), ("bias-missing", "bn1")]),
    ],
)
def test_a_batch_normalisation_without_its_vectors(tmp_path, lacking, expected, mode):
    from keras import layers

    ref = reference(tmp_path, normal(), twins.relu("relu1"))

    def inner(x):
        return layers.ReLU()(layers.BatchNormalization(epsilon=1e-5, momentum=0.95, name="bn1", **lacking)(x))

    report = compared(ref, port(inner), mode=mode)
    assert causes(report) == expected, explain(report)
    assert proven(report), explain(report)
    assert report.verdict == ("diverged" if expected else "match"), explain(report)
    assert not expected or report.first_divergence.phase == "structure", explain(report)


@pytest.mark.parametrize(("axis", "phase"), [(-1, ""), (1, "structure"), (-2, "structure")])
def test_a_batch_normalisation_along_another_axis(tmp_path, axis, phase):
    """A map of 6×6×4: its vectors would have six elements, and not four."""
    import keras
    from keras import layers

    rng = np.random.default_rng(5)
    nets = [
        twins.conv("conv1", rng, (3, 3, 2, 4), pad=np.ones(4)),
        twins.bnorm("bn1", rng, 4),
        twins.conv("classifier", rng, (6, 6, 4, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]
    ref = twins.save(tmp_path / "net.mat", nets, SIZE, weightDecay=0.0)
    x = start = keras.Input(SIZE)
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(x)
    x = layers.BatchNormalization(axis=axis, epsilon=1e-5, momentum=0.95, name="bn1")(x)
    model = keras.Model(start, layers.Dense(4, name="classifier")(layers.Flatten()(x)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    report = compared(ref, model, mode="eval")
    assert causes(report) == ([("unknown", "bn1")] if phase else []), explain(report)
    if phase:
        assert (report.first_divergence.phase, report.first_divergence.layer) == (phase, "bn1"), explain(report)
        assert "axis=-1" in report.findings[0].fix
        assert report.findings[0].fix_verified, explain(report)
    else:
        assert report.verdict == "match", explain(report)


def test_regions_are_tried_on_as_few_images_as_show_it(monkeypatch, tmp_path):
    """Of large maps; never fewer than two, for a batch normalisation."""
    network = lift(twins.save(tmp_path / "net.mat", twins.plain()))[0]
    inputs = {name: np.zeros((8, 16, 16, 3), np.float32) for name in network.inputs}
    largest = max(int(np.prod([n for n in layer.shape if n])) for layer in network.layers if layer.shape)
    for enough, count in ((1 << 22, 8), (3 * largest, 3), (largest, 2)):
        monkeypatch.setattr(regions, "_ENOUGH", enough)
        assert {len(value) for value in regions._few(inputs, network).values()} == {count}
    both = {**inputs, "boxes": np.zeros((5, 4), np.float32)}
    assert regions._few(both, network) is both
