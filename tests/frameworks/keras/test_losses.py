"""What a file says about its losses and metrics, in every form, lifted and live."""

import json

import h5py
import numpy as np
import pytest

import parity
from parity.errors import BadFile
from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.lift import lift
from parity.frameworks.keras.losses import kinds_of, loss_layers, specs_of, weights_of
from parity.frameworks.keras.recipes import metric_names
from parity.frameworks.keras.runner import KerasRunner
from parity.layers import Loss
from parity.layers.keras_losses import class_of
from parity.layers.loss_words import INTEGERS

MSE = Loss("mean_squared_error", sparse=False)
MAE = Loss("mean_absolute_error", sparse=False)
SUM = Loss("mean_squared_error", "sum", sparse=False)
EACH = Loss("mean_squared_error", "none", sparse=False)
SMOOTH = Loss("softmaxlog", label_smoothing=0.1, sparse=False)
LOGITS = Loss("binary_crossentropy", sparse=False, settings=(("from_logits", True),))
WIDE = Loss("huber", sparse=False, settings=(("delta", 2.0),))


def _object(class_name, **config):
    return {"class_name": class_name, "config": config}


FORMS = [
    ("mse", [MSE]),
    ("MeanSquaredError", [MSE]),
    (_object("MeanSquaredError", reduction="auto", name="mean_squared_error"), [MSE]),
    (_object("MeanSquaredError", reduction="sum"), [SUM]),
    (_object("LossFunctionWrapper", fn="mean_squared_error", reduction=None), [EACH]),
    ({"module": "builtins", "class_name": "function", "config": "mean_squared_error"}, [MSE]),
    (_object("CategoricalCrossentropy", from_logits=True, label_smoothing=0.1), [SMOOTH]),
    (_object("BinaryCrossentropy", from_logits=True), [LOGITS]),
    (_object("Huber", delta=2.0), [WIDE]),
    ("sparse_categorical_crossentropy", [Loss("log")]),
    ("hinge", [Loss("mean_hinge", sparse=False)]),
    (["mse", "mae"], [MSE, MAE]),
    ({"a": "mse", "b": _object("MeanAbsoluteError")}, [MSE, MAE]),
    ("my_loss", [Loss("my_loss", sparse=False)]),
    (None, []),
]


@pytest.mark.parametrize(("said", "kinds"), FORMS)
def test_forms(said, kinds):
    assert kinds_of(said) == kinds


def test_weights_go_by_name_or_in_order():
    specs = list(specs_of({"a": "mse", "b": "mae"}))
    assert weights_of({"b": 0.2}, specs) == [1.0, 0.2]
    assert weights_of([0.5, None], specs) == [0.5, 1.0]
    assert weights_of(None, specs) == [1.0, 1.0]
    layers = loss_layers(
        {"loss": {"b": "mae", "a": "mse"}, "loss_weights": {"b": 3}}, ("x/a:activation", "b"), {"b": (4, 4, 2)}
    )
    assert [(layer.name, layer.inputs, weight) for layer, weight in layers] == [
        ("loss:x/a:activation", ("x/a:activation", "labels:x/a:activation"), 1.0),
        ("loss:b", ("b", "labels:b"), 3.0),
    ]
    assert [layer.kind.reduction for layer, _ in layers] == ["mean", "pixel-mean"]


METRICS = [
    (None, ()),
    (["accuracy", "mse"], ("accuracy", "mse")),
    ([["acc"], ["acc", "mae"]], ("acc", "mae")),
    ({"out": ["accuracy"], "aux": "mae"}, ("accuracy", "mae")),
    ([{"class_name": "MeanMetricWrapper", "config": {"name": "top5", "fn": "top_k", "dtype": "float32"}}], ("top_k",)),
    ([{"class_name": "AUC", "config": {"name": "auc_1"}}], ("auc_1",)),
    ([{"module": "builtins", "class_name": "function", "config": "my_metric"}], ("my_metric",)),
    ([None, 3, {"class_name": "Precision", "config": None}], ("3", "Precision")),
]


@pytest.mark.parametrize(("said", "names"), METRICS)
def test_metrics(said, names):
    found = metric_names(said)
    assert found == tuple(n if n != "3" else "int" for n in names)


def _two_outputs(keras):
    keras.utils.set_random_seed(1)
    layers = keras.layers
    x = layers.Input((5,), name="x")
    h = layers.Dense(4, "tanh", name="h")(x)
    return keras.Model(x, [layers.Dense(3, "softmax", name="kind")(h), layers.Dense(1, name="size")(h)])


LOSSES = [
    {"kind": "categorical_crossentropy", "size": "mse"},
    ["categorical_crossentropy", "huber"],
    "mse",
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("engine", ["keras", "tf_keras"])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_lifted_and_live_losses_are_the_same(tmp_path, engine, suffix, loss):
    keras = engine_of(engine).keras
    model = _two_outputs(keras)
    weights = {"kind": 0.5, "size": 2.0} if isinstance(loss, dict) else [0.5, 2.0] if isinstance(loss, list) else None
    model.compile("sgd", loss, loss_weights=weights, metrics={"kind": ["accuracy"], "size": ["mae"]})
    path = tmp_path / f"model{suffix}"
    model.save(path)
    network, recipe = lift(path)
    runner = KerasRunner.open(path, np.ones((2, 5), np.float32))
    lifted = [(n.name, n.kind, n.inputs, n.remarks) for n in network if isinstance(n.kind, Loss)]
    assert lifted == [(n.name, n.kind, n.inputs, n.remarks) for n in runner.network if isinstance(n.kind, Loss)]
    assert dict(network.objectives) == dict(runner.network.objectives)
    assert list(network.objectives.values()) == ([0.5, 2.0] if weights else [1.0, 1.0])
    assert network.labels == runner.network.labels
    assert recipe.loss == runner.recipe.loss == lifted[0][1]
    assert recipe.metrics == runner.recipe.metrics
    assert len(recipe.metrics) == 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", ["2.1.6", "2.15.0", "3.5.0"])
def test_strange_metrics_and_losses_of_other_versions_do_not_stop_a_load(tmp_path, version):
    keras = engine_of("keras" if version.startswith("3") else "tf_keras").keras
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, activation="softmax", name="d")])
    model.compile("sgd", "categorical_crossentropy")
    path = tmp_path / "odd.h5"
    model.save(path)
    metrics = ["acc", "no_such_metric", {"class_name": "Fancy", "config": {"x": 1}}, [None], {"a": ["b"]}]
    said = {"reduction": "auto", "name": "cce", "from_logits": False, "label_smoothing": 0, "axis": -1}
    loss = _object("CategoricalCrossentropy", fn="categorical_crossentropy", **said)
    with h5py.File(path, "a") as f:
        training = json.loads(f.attrs["training_config"])
        training.update(metrics=metrics, weighted_metrics=metrics, loss=loss)
        f.attrs["training_config"] = json.dumps(training)
        f.attrs["keras_version"] = version
    recipe = lift(path)[1]
    runner = KerasRunner.open(path, np.ones((2, 4), np.float32))
    assert runner.recipe.metrics == recipe.metrics == ("acc", "no_such_metric", "Fancy", "b")
    assert runner.recipe.loss == recipe.loss == Loss("log", sparse=False)


INTEGER_LABELS = np.array([[1, 2], [2, 0], [3, 3], [1, 4], [2, 2], [4, 1], [1, 1], [3, 0]])
NEWER = {
    "circle": (dict(gamma=20.0), dict(gamma=30.0), np.arange(8) % 3),
    "ctc": ({}, None, INTEGER_LABELS),
    "dice": ({}, dict(axis=[1, 2, 3]), None),
    "tversky": (dict(alpha=0.3, beta=0.7), dict(alpha=0.7, beta=0.3), None),
}
"""Loss → its settings, others, and labels that it takes (None for one-hot)."""


def _newer(keras, name, settings, folder, activation="tanh"):
    """A small model with one of the losses that only newer Kerases have, saved."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    if name == "ctc":
        net = [layers.Input((6, 3)), layers.Conv1D(4, 1, activation=activation, name="hidden"), layers.Dense(5)]
    else:
        end = layers.UnitNormalization() if name == "circle" else layers.Activation("softmax")
        net = [layers.Input((5, 5, 3)), layers.Conv2D(4, 3, activation=activation, name="hidden")]
        net += [*([layers.Flatten()] if name == "circle" else []), layers.Dense(3, name="scores"), end]
    model = keras.Sequential(net)
    model.compile(keras.optimizers.SGD(0.1), getattr(keras.losses, class_of(name))(**settings))
    path = folder / f"{name}-{activation}-{len(list(folder.iterdir()))}.keras"
    model.save(path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEWER)
def test_losses_of_newer_kerases(tmp_path, name):
    """Compared by value: equal to themselves, other settings and another layer before them are named."""
    keras = engine_of("keras").keras
    settings, others, y = NEWER[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 6, 3) if name == "ctc" else (8, 5, 5, 3)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, (8, 3, 3))] if y is None else y
    path, batch = _newer(keras, name, settings, tmp_path), {"x": x, "y": y}
    for given in (batch, None):
        report = parity.compare(ref=path, keras=path, batch=given)
        assert (report.verdict, report.findings) == ("match", ())
    (loss,) = (layer.kind for layer in lift(path)[0].losses)
    assert (loss.function, loss.sparse) == (name, name in INTEGERS)
    bent = parity.compare(ref=path, keras=_newer(keras, name, settings, tmp_path, "relu"), batch=batch, verify=False)
    assert bent.verdict == "diverged"
    assert ("activation-kind", "hidden:activation") in [(f.cause, f.layer) for f in bent.findings]
    if others is not None:
        other = parity.compare(ref=path, keras=_newer(keras, name, others, tmp_path), batch=batch, verify=False)
        assert other.verdict == "diverged"
        assert [f.cause for f in other.findings] == ["loss-kind"]


@pytest.mark.filterwarnings("ignore")
def test_labels_that_a_sequence_loss_does_not_take_are_one_line(tmp_path):
    path = _newer(engine_of("keras").keras, "ctc", {}, tmp_path)
    for y in (np.arange(8) % 3, INTEGER_LABELS - 1, INTEGER_LABELS + 0.5):
        with pytest.raises(BadFile, match="is no sequence of classes") as caught:
            parity.compare(ref=path, keras=path, batch={"x": np.ones((8, 6, 3), np.float32), "y": y})
        assert "\n" not in str(caught.value)


def test_a_loss_of_ones_own_may_take_class_ids():
    import keras

    class SumOfPixels(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return keras.ops.sum(keras.losses.sparse_categorical_crossentropy(y_true, y_pred), axis=(1, 2))

    def model(loss):
        keras.utils.set_random_seed(0)
        given = keras.Input((4, 4, 2))
        made = keras.Model(given, keras.layers.Conv2D(3, 1, activation="softmax", name="scores")(given))
        made.compile(keras.optimizers.SGD(0.1), loss)
        return made

    rng = np.random.default_rng(0)
    batch = {"x": rng.standard_normal((2, 4, 4, 2)).astype(np.float32), "y": rng.integers(0, 3, (2, 4, 4))}
    summed = keras.losses.SparseCategoricalCrossentropy(reduction="sum")
    assert parity.compare(model(summed), model(SumOfPixels(reduction="sum")), batch, steps=1).verdict == "match"
    report = parity.compare(model(summed), model(SumOfPixels()), batch, steps=1)
    assert report.first_divergence is not None
    assert (report.first_divergence.phase, report.findings[0].cause) == ("loss", "loss-reduction")


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
def test_the_mean_of_images_whose_pixels_add_up_is_told_in_words_of_keras(tmp_path, reduction):
    import keras

    from tests import twins

    filters = twins.conv("scores", np.random.default_rng(0), (1, 1, 2, 3))
    path = twins.save(
        tmp_path / "net.mat", [filters, {"type": "softmaxloss", "name": "loss"}], (4, 4, 2), weightDecay=0
    )
    given = keras.Input((4, 4, 2))
    model = keras.Model(given, keras.layers.Conv2D(3, 1, activation="softmax", name="scores")(given))
    loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
    model.compile(keras.optimizers.SGD(twins.RATE, momentum=twins.MOMENTUM), loss)
    batch = {"x": twins.batch(size=(4, 4, 2))["x"], "y": np.random.default_rng(1).integers(0, 3, (8, 4, 4))}
    report = parity.compare(path, model, batch, steps=1)
    (found,) = [f for f in report.findings if f.severity == "divergence"]
    assert (found.cause, found.confirmed, found.fix_verified) == ("loss-reduction", True, True)
    assert "loss_weights: 16 times as much" in found.fix
