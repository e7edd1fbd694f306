"""Models, and blocks of models, that are written in code: what they compute between layers is seen and compared."""

from __future__ import annotations

import numpy as np
import pytest

import parity
from tests import twins_dag
from tests.test_verdicts import explain
from tests.twins_dag import Dag

SIZE = (6, 6, 3)


def reference(tmp_path):
    """Two residual blocks whose inner layers are called alike in the port, and a concatenation."""
    net = Dag(3, {"data": SIZE})
    x = first = net.relu("relu1", net.conv("conv1", "data", (3, 3, 3, 4), pad=(1,) * 4))
    for block in "ab":
        y = net.bnorm(f"bn_{block}", net.conv(f"conv_{block}", x, (3, 3, 4, 4), pad=(1,) * 4), 4)
        x = net.relu(f"relu_{block}", net.sum(f"sum_{block}", (x, y)), 0.1)
    x = net.add("drop", "DropOut", net.concat("cat", (x, first)), rate=0.4, frozen=False)
    net.loss("loss", net.conv("fc", x, (6, 6, 8, 5), out="prediction"), "objective")
    return twins_dag.save(tmp_path / "net.mat", net, weightDecay=0.0), twins_dag.batch(net)


def block(k, base, functions, *, skip=True, slope=0.1):
    """A block that adds and rectifies in code."""

    class Block(base):
        def __init__(self, name):
            super().__init__(name=name)
            self.conv = k.layers.Conv2D(4, 3, padding="same", name="conv")
            self.bn = k.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name="bn")

        def call(self, x, training=None):
            y = self.bn(self.conv(x), training=training)
            y = x + y if skip else y
            return functions.maximum(y, slope * y)

    return Block


def port(k, functions, one, other, *, functional=False, swapped=False, eager=False):
    """The whole model: a class, or a functional model of the blocks."""
    layers = k.layers
    conv = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")
    blocks = one("block_a"), other("block_b")
    drop, flat, fc = layers.Dropout(0.4), layers.Flatten(), layers.Dense(5, name="fc")
    join = getattr(functions, "concatenate", None) or functions.concat

    class Net(k.Model):
        def __init__(self):
            super().__init__()
            self.held = [conv, *blocks, drop, flat, fc]

        def call(self, x, training=None):
            if eager:
                x = x + 0 * float(np.asarray(x).sum())
            x = first = conv(x)
            for inner in blocks:
                x = inner(x, training=training)
            pieces = [first, x] if swapped else [x, first]
            return fc(flat(drop(join(pieces, -1), training=training)))

    if functional:
        start = k.Input(SIZE)
        x = blocks[1](blocks[0](first := conv(start)))
        model = k.Model(start, fc(flat(drop(layers.Concatenate(name="cat")([x, first])))))
    else:
        model = Net()
        model(np.zeros((2, *SIZE), np.float32))
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.SGD(twins_dag.RATE, momentum=twins_dag.MOMENTUM), loss)
    return model


def causes(report):
    return [(f.cause, f.layer) for f in report.findings if f.severity == "divergence"]


@pytest.fixture(params=["keras", "tensorflow on keras", "tf_keras"])
def words(request):
    """Keras, and the functions that code is written in."""
    if request.param == "keras":
        import keras

        return keras, keras.ops
    tf = pytest.importorskip("tensorflow")
    if request.param == "tf_keras":
        return pytest.importorskip("tf_keras"), tf
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("its functions are those of the backend")
    return keras, tf


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("base", ["Layer", "Model"])
def test_clean_blocks_match(tmp_path, words, base, functional):
    k, functions = words
    mat, batch = reference(tmp_path)
    made = block(k, getattr(k.layers if base == "Layer" else k, base), functions)
    model = port(k, functions, made, made, functional=functional)
    report = parity.compare(ref=mat, keras=model, batch=batch, mode="train" if base == "Layer" else "eval")
    assert report.verdict == "match", explain(report)
    judged = {probe.layer for probe in report.probes if probe.phase == "forward"}
    assert judged >= {"sum_a", "relu_b", "cat", "bn_b"}
    assert [layer.name for layer in model.layers if layer.name.startswith("block")] == ["block_a", "block_b"]


@pytest.mark.parametrize(
    ("fault", "cause", "layer"),
    [
        ({"skip": False}, "layer-missing", "sum_b"),
        ({"slope": 0.2}, "activation-slope", "relu_b"),
        ({"swapped": True}, "channel-order", "cat"),
    ],
)
def test_faults_between_layers_are_named(tmp_path, words, fault, cause, layer):
    k, functions = words
    mat, batch = reference(tmp_path)
    inside = {key: value for key, value in fault.items() if key != "swapped"}
    made = block(k, k.layers.Layer, functions), block(k, k.layers.Layer, functions, **inside)
    model = port(k, functions, *made, swapped="swapped" in fault)
    report = parity.compare(ref=mat, keras=model, batch=batch, mode="eval")
    assert causes(report)[:1] == [(cause, layer)], explain(report)
    assert report.first_divergence.layer == layer


@pytest.mark.parametrize("slope", [0.1, 0.2])
def test_what_cannot_be_seen_is_unverified(tmp_path, slope):
    import keras

    mat, batch = reference(tmp_path)
    made = block(keras, keras.Model, keras.ops, slope=slope)
    model = port(keras, keras.ops, made, made, eager=True)
    report = parity.compare(ref=mat, keras=model, batch=batch, mode="eval")
    assert report.verdict == "unverified", explain(report)
    assert not causes(report), explain(report)
    assert {"sum_a", "sum_b", "cat"} <= {p.layer for p in report.probes if p.status == "unverified"}, explain(report)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_class_that_takes_two_inputs(tmp_path, swapped):
    import keras
    from keras import layers, ops

    net = twins_dag.two_inputs(4)
    mat = twins_dag.save(tmp_path / "net.mat", net, weightDecay=0.0)
    wide = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv_a")
    narrow = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv_b")
    pool, flat, fc = layers.AveragePooling2D(2, name="pool_a"), layers.Flatten(), layers.Dense(5, name="fc")

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.held = [wide, narrow, pool, flat, fc]

        def call(self, pair):
            left, right = pair
            both = pool(wide(left)) + narrow(right)
            return fc(flat(ops.concatenate([right, both] if swapped else [both, right], -1)))

    model = Net()
    model([np.zeros((2, 10, 10, 3), np.float32), np.zeros((2, 5, 5, 2), np.float32)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    report = parity.compare(ref=mat, keras=model, batch=twins_dag.batch(net), mode="eval")
    assert causes(report) == ([("channel-order", "concat")] if swapped else []), explain(report)
    assert report.verdict == ("diverged" if swapped else "match"), explain(report)
