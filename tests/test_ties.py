"""A gradient that goes to another of several equal maxima is a tie; one that goes where no maximum is, is a fault."""

from __future__ import annotations

import numpy as np
import pytest

import parity
from tests import twins


def layers(rectified: bool) -> list[twins.Layer]:
    rng = np.random.default_rng(3)
    return [
        twins.conv("conv1", rng, (3, 3, 3, 4)),
        *([twins.relu("relu1")] if rectified else []),
        twins.pool("pool1", "max", 3, 2, (1, 1, 1, 1)),
        twins.conv("fc", rng, (7, 7, 4, 5)),
        {"type": "softmaxloss", "name": "loss"},
    ]


def over_zeros(net):
    """A port that puts zeros around the map and then takes maxima of it."""
    import keras

    def pool(layer, x):
        x = keras.layers.ZeroPadding2D(1)(x)
        return keras.layers.MaxPooling2D(3, 2, name="pool1")(x)

    return built(net, pool)


def built(net, pool):
    import keras

    x = start = keras.Input((16, 16, 3))
    conv, fc = net[0], net[-2]
    x = keras.layers.Conv2D(4, 3, name="conv1")(x)
    if net[1]["type"] == "relu":
        x = keras.layers.ReLU(name="relu1")(x)
    x = pool(net, x)
    x = keras.layers.Conv2D(5, 7, name="fc")(x)
    model = keras.Model(start, keras.layers.Softmax()(keras.layers.Flatten()(x)))
    for layer, source in ((model.get_layer("conv1"), conv), (model.get_layer("fc"), fc)):
        layer.set_weights([source["weights"][0], source["weights"][1].ravel()])
    return model


@pytest.fixture
def compared(tmp_path):
    def run(net, model):
        import keras

        decay = keras.regularizers.L2(twins.DECAY / 2)
        for name in ("conv1", "fc"):
            model.get_layer(name).kernel_regularizer = model.get_layer(name).bias_regularizer = decay
        rebuilt = keras.models.clone_model(model)
        rebuilt.set_weights(model.get_weights())
        rebuilt.compile(keras.optimizers.SGD(twins.RATE, twins.MOMENTUM), "sparse_categorical_crossentropy")
        path = twins.save(tmp_path / "net.mat", net)
        batch = twins.batch(classes=5)
        return parity.compare(ref=path, keras=rebuilt, batch=batch, steps=1)

    return run


def row(report, tensor="dx"):
    return next(p for p in report.probes if p.layer == "pool1" and p.tensor == tensor and p.phase != "structure")


def test_a_zero_around_a_rectified_map_may_tie_with_what_is_in_it(compared):
    net = layers(rectified=True)
    report = compared(net, over_zeros(net))
    assert report.verdict == "match", str(report)
    assert row(report).status == "match"
    assert "a zero around the map" in row(report).note


def test_zeros_that_are_a_maximum_among_negatives_are_a_fault(compared):
    net = layers(rectified=False)
    report = compared(net, over_zeros(net))
    assert report.first_divergence.layer == "pool1"
    assert report.first_divergence.phase == "forward"
    assert report.findings[0].cause == "pool-pad-value"


def silent(method: str) -> list[twins.Layer]:
    """Half of the channels never rise above zero: all cells of their maps are equal maxima."""
    rng = np.random.default_rng(5)
    conv = twins.conv("conv1", rng, (3, 3, 3, 4))
    conv["weights"][1][..., :2] = -50.0
    return [
        conv,
        twins.relu("relu1"),
        twins.pool("pool1", method, 14, 1, (0, 0, 0, 0)),
        twins.conv("fc", rng, (1, 1, 4, 5)),
        {"type": "softmaxloss", "name": "loss"},
    ]


def reduced(share):
    """A pooling of the whole map by a reduction over its axes, or one that gives every maximum the whole gradient."""
    import keras

    class Whole(keras.layers.Layer):
        def call(self, x):
            top = keras.ops.max(x, (1, 2), keepdims=True)
            if share:
                return top
            at = keras.ops.cast(x == top, "float32")
            return keras.ops.stop_gradient(top) + keras.ops.sum(
                at * (x - keras.ops.stop_gradient(x)), (1, 2), keepdims=True
            )

    return Whole(name="pool1")


def on_whole_maps(net, pool):
    import keras

    x = start = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="conv1")(x)
    x = pool(keras.layers.ReLU(name="relu1")(x))
    x = keras.layers.Dense(5, name="fc")(keras.layers.Flatten()(x))
    model = keras.Model(start, keras.layers.Softmax()(x))
    model.get_layer("conv1").set_weights([net[0]["weights"][0], net[0]["weights"][1].ravel()])
    model.get_layer("fc").set_weights([net[-2]["weights"][0].reshape(4, 5), net[-2]["weights"][1].ravel()])
    return model


def test_a_reduction_over_axes_shares_the_gradient_of_equal_maxima(compared):
    import keras

    net = silent("max")
    report = compared(net, on_whole_maps(net, keras.layers.GlobalMaxPooling2D(name="pool1")))
    assert report.verdict == "match", str(report)
    assert "all equal maxima" in row(report).note
    net = silent("avg")
    report = compared(net, on_whole_maps(net, keras.layers.GlobalMaxPooling2D(name="pool1")))
    assert (report.first_divergence.phase, report.first_divergence.layer) == ("forward", "pool1")
    assert [(f.cause, f.confirmed) for f in report.findings if f.severity == "divergence"] == [("pool-method", True)]


@pytest.mark.parametrize("share", [True, False])
def test_a_maximum_written_out_must_not_give_the_gradient_several_times(share, compared):
    net = silent("max")
    report = compared(net, on_whole_maps(net, reduced(share)))
    assert report.verdict == ("match" if share else "diverged")
    assert row(report).status == ("match" if share else "born")
