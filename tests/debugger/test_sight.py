"""First sight in the debugger: rounding that is carried through a layer is no reason to run it in Keras again."""

from __future__ import annotations

import numpy as np
import pytest

import parity
from parity import worst
from parity.bench import Trial
from parity.debugger.stepper import Stepper
from tests import twins

DEPTH = 12


def deep(seed=3):
    """Convolutions and rectifiers one after the other: what rounding does to the first grows to the last, and back."""
    rng, layers, depth = np.random.default_rng(seed), [], 3
    for n in range(1, DEPTH + 1):
        layers += [twins.conv(f"conv{n}", rng, (3, 3, depth, 16), pad=np.ones(4)), twins.relu(f"relu{n}", 0.1)]
        depth = 16
    return [
        *layers,
        twins.pool("pool", "max", 2, 2),
        twins.conv("classifier", rng, (8, 8, 16, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]


def bent(size):
    """A leaky rectifier whose gradient, and nothing else, is off by so much where it is positive."""
    import keras
    import tensorflow as tf

    class Bent(keras.layers.Layer):
        def call(self, x):
            @tf.custom_gradient
            def leaky(x):
                def back(pulled):
                    return tf.where(x > 0, pulled * (1 + size), pulled * 0.1)

                return tf.where(x > 0, x, 0.1 * x), back

            return leaky(x)

    return Bent


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return twins.save(tmp_path_factory.mktemp("sight") / "net.mat", deep())


def stepped(path, monkeypatch, **twin):
    """A stepper at the end of the backward pass, and the units of which Keras ran one on the reference's tensors."""
    again: list[str] = []
    run = Trial.run_keras

    def counted(self, **options):
        again.append(self.pair.ref.name)
        return run(self, **options)

    monkeypatch.setattr(Trial, "run_keras", counted)
    stepper = Stepper.open(path, twins.twin(deep(), **twin), twins.batch(), steps=1)
    while stepper.stops[stepper.position + 1].phase != "update":
        stepper.next()
    return stepper, again


def test_keras_runs_once_where_nothing_is_wrong(path, monkeypatch):
    stepper, again = stepped(path, monkeypatch)
    probes = [p for p in stepper.probes if p.phase in ("forward", "backward")]
    assert {p.status for p in probes} == {"match"}
    carried = {p.layer for p in probes if (p.propagated_x_floor or 0) > 4}
    assert len([name for name in carried if "relu" in name]) >= 3, "nothing to be explained: the test shows nothing"
    assert not [name for name in again if "relu" in name or name.startswith("conv")]


@pytest.mark.parametrize("size", [7e-5, 1e-2])
def test_a_gradient_that_is_a_little_off_is_found_at_its_layer(path, monkeypatch, size):
    stepper, again = stepped(path, monkeypatch, swap={"relu4": lambda **named: bent(size)(name="relu4")})
    first = stepper.first_divergence
    assert first is not None
    assert (first.phase, first.layer, first.status) == ("backward", "relu4", "born")
    assert "relu4" in again
    assert [p.layer for p in stepper.probes if p.status == "born"] == ["relu4"]


def test_a_slope_that_is_a_little_off_is_found_at_its_layer(path, monkeypatch):
    stepper, _ = stepped(path, monkeypatch, edits={"relu5": {"leak": 0.1 * (1 + 2e-4)}})
    first = stepper.first_divergence
    assert first is not None
    assert (first.phase, first.layer, first.status) == ("forward", "relu5", "born")


def in_one_image(size):
    """A rectifier whose gradient, and nothing else, is off by so much in the sixth image."""
    import keras
    import tensorflow as tf

    class Bent(keras.layers.Layer):
        def call(self, x):
            @tf.custom_gradient
            def rectified(x):
                def back(pulled):
                    sixth = tf.reshape(tf.cast(tf.range(tf.shape(x)[0]) == 5, x.dtype), (-1, 1, 1, 1))
                    return tf.where(x > 0, pulled * (1 + size * sixth), 0.0)

                return tf.nn.relu(x), back

            return rectified(x)

    return Bent


def of_one_offset(size):
    """A batch normalisation that makes the gradient of its fourth offset, and nothing else, so much larger."""
    import keras
    import tensorflow as tf

    class Bent(keras.layers.BatchNormalization):
        def call(self, x, training=None, mask=None):
            @tf.custom_gradient
            def bent(beta):
                return tf.identity(beta), lambda pulled: pulled * (1 + size * tf.one_hot(3, 12, dtype=pulled.dtype))

            mean, variance = tf.nn.moments(x, (0, 1, 2))
            normal = (x - mean) * tf.math.rsqrt(variance + self.epsilon)
            return normal * self.gamma + bent(tf.convert_to_tensor(self.beta))

    return Bent


@pytest.mark.parametrize("small", [True, False], ids=["small", "large"])
@pytest.mark.parametrize(
    ("layer", "tensor", "swap"),
    [
        ("relu1", "dx", lambda **named: in_one_image(1e-2)(name="relu1")),
        ("bn2", "dbeta", lambda **options: of_one_offset(7e-5)(**options)),
    ],
    ids=["a rectifier", "an offset"],
)
def test_what_rounding_does_elsewhere_hides_no_fault(tmp_path, monkeypatch, small, layer, tensor, swap):
    """A rectifier that rounding switches in one image changes more than the fault does, which is in another."""
    if not small:
        monkeypatch.setattr(worst, "_SMALL", 0)
        monkeypatch.setattr(worst, "_QUICK", 0)
    rng, layers, depth, size = np.random.default_rng(4), [], 3, (64, 64, 3)
    for n in range(1, 5):
        layers += [
            twins.conv(f"conv{n}", rng, (3, 3, depth, 12), pad=np.ones(4)),
            twins.bnorm(f"bn{n}", rng, 12),
            twins.relu(f"relu{n}"),
        ]
        depth = 12
    layers.insert(9, twins.pool("ties", "max", 3, 1, (1, 1, 1, 1)))
    layers += [
        twins.pool("pool", "max", 2, 2),
        twins.pool("mean", "avg", 4, 4),
        twins.conv("classifier", rng, (8, 8, 12, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]
    path = twins.save(tmp_path / "net.mat", layers, size)
    model = twins.twin(layers, size=size, swap={layer: swap})
    stepper = Stepper.open(path, model, twins.batch(4, size), steps=1)
    while stepper.stops[stepper.position + 1].phase != "update":
        stepper.next()
    born = [(p.phase, p.layer, p.tensor) for p in stepper.probes if p.status == "born"]
    assert born == [("backward", layer, tensor)]


def for_float32(size):
    """A rectifier whose gradient is off by so much, and is written for float32 alone."""
    import keras
    import tensorflow as tf

    class Bent(keras.layers.Layer):
        def call(self, x):
            @tf.custom_gradient
            def rectified(x):
                return tf.nn.relu(x), lambda pulled: tf.where(x > 0, pulled, 0.0) * tf.constant(1 + size, tf.float32)

            return rectified(x)

    return Bent


def test_a_gradient_that_float64_cannot_run_is_judged_by_its_floor(tmp_path):
    layers = twins.plain()
    path = twins.save(tmp_path / "net.mat", layers)

    def model():
        return twins.twin(layers, swap={"relu2": lambda **named: for_float32(1e-3)(name="relu2")})

    report = parity.compare(path, model(), twins.batch(), steps=1, verify=False)
    stepper = Stepper.open(path, model(), twins.batch(), steps=1)
    while stepper.resume().reason != "end":
        pass
    for first in (report.first_divergence, stepper.first_divergence):
        assert first is not None
        assert (first.phase, first.layer, first.tensor) == ("backward", "relu2", "dx")
