"""A Keras file as the reference of another: Keras 3 and Keras 2 agree on one net to the noise floor; faults show."""

import numpy as np
import pytest

import parity
from parity.frameworks.keras.engine import engine_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 8, 8, 3)).astype(np.float32)
Y = RNG.integers(0, 5, 8)


def _file(folder, engine, optimizer, steps, suffix, epsilon=1e-3, **settings):
    keras = engine_of(engine).keras
    layers = keras.layers
    keras.utils.set_random_seed(3)
    x = layers.Input((8, 8, 3), name="x")
    a = layers.Conv2D(4, 3, padding="same", activation="relu", name="c1")(x)
    b = layers.BatchNormalization(epsilon=epsilon, name="n1")(a)
    c = layers.Conv2D(4, 3, padding="same", name="c2")(b)
    d = layers.Concatenate(name="cat")([layers.Add(name="add")([b, c]), b])
    e = layers.Flatten(name="f")(layers.MaxPooling2D(name="p")(d))
    model = keras.Model(x, layers.Dense(5, activation="softmax", name="out")(e))
    made = getattr(keras.optimizers, optimizer)(**settings)
    model.compile(made, keras.losses.CategoricalCrossentropy(label_smoothing=0.1))
    for _ in range(steps):
        model.train_on_batch(X, np.eye(5)[Y])
    path = folder / f"{engine}{suffix}"
    model.save(path)
    return path


OPTIMIZERS = [
    ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}),
    ("AdamW", {"weight_decay": 0.01}),
    ("RMSprop", {}),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ref", "actual"), [("keras", "tf_keras"), ("tf_keras", "keras")])
@pytest.mark.parametrize(("optimizer", "settings"), OPTIMIZERS)
def test_both_kerases_agree(tmp_path, ref, actual, optimizer, settings):
    first = _file(tmp_path, ref, optimizer, 2, ".keras", **settings)
    second = _file(tmp_path, actual, optimizer, 0, ".h5", **settings)
    report = parity.compare(ref=first, keras=second, batch={"x": X, "y": Y})
    assert report.verdict == "match", str(report)
    assert {probe.phase for probe in report.probes} >= {"forward", "loss", "backward", "update"}
    assert {probe.status for probe in report.probes} == {"match"}


@pytest.mark.filterwarnings("ignore")
def test_a_fault_between_them_is_named(tmp_path):
    first = _file(tmp_path, "keras", "SGD", 0, ".keras", momentum=0.9)
    second = _file(tmp_path, "tf_keras", "SGD", 0, ".h5", epsilon=1e-2, momentum=0.8)
    report = parity.compare(ref=first, keras=second, batch={"x": X, "y": Y})
    assert report.verdict == "diverged"
    assert report.first_divergence.layer == "n1"
    causes = {(finding.cause, finding.layer) for finding in report.findings if finding.severity == "divergence"}
    assert ("bn-epsilon", "n1") in causes
    assert any(cause == "optimizer-momentum" for cause, _ in causes)
