"""Fix scripts of both Kerases: run, they write what was tried, and train with the factors that no file holds."""

from __future__ import annotations

import runpy

import numpy as np
import pytest

from parity.changes import Change
from parity.frameworks.keras.edit import EditedRunner, apply
from parity.frameworks.keras.edits.script import script_of
from parity.frameworks.keras.load import load
from tests.frameworks.keras.test_edit import functional, nested, run, sequential

STRUCTURE = {
    "functional": [
        Change("argument", "conv", {"groups": 2, "padding": [1, 0, 1, 0]}),
        Change("rewire", "join", {"order": [1, 0]}),
        Change("insert", "conv:activation", {"class_name": "BatchNormalization", "config": {}, "before": True}),
        Change("weights", "bn", {"role": "gamma", "value": np.arange(6, dtype=np.float32)}),
    ],
    "sequential": [
        Change("replace", "relu", {"class_name": "LeakyReLU", "config": {"negative_slope": 0.25}}),
        Change("trainable", "conv", {"trainable": False}),
        Change("input", values={"code": "x / 255", "scale": 1 / 255}),
    ],
    "settings": [
        Change("argument", "conv", {"groups": 2, "use_bias": False}),
        Change("regularize", "conv", {"role": "kernel", "l2": 0.1}),
        Change("weights", "bn", {"role": "gamma", "value": np.arange(6, dtype=np.float32)}),
        Change("trainable", "bn", {"trainable": False}),
    ],
    "stack": [
        Change("replace", "relu", {"class_name": "LeakyReLU", "config": {"negative_slope": 0.25}}),
        Change("argument", "conv", {"strides": [1, 1]}),
    ],
    "nested": [
        Change("remove", "block/leaky"),
        Change("regularize", "shared", {"role": "kernel", "l2": 0.1}),
        Change("insert", "flat", {"class_name": "Dropout", "config": {"rate": 0.5}}),
    ],
}

MODELS = {
    "functional": functional,
    "sequential": sequential,
    "settings": functional,
    "stack": sequential,
    "nested": nested,
}

DROPOUT = {"class_name": "Dropout", "config": {"rate": 0.0}}

CLONED = ("sequential", "settings", "stack")
"""Where the graph stays as it is, which takes a shorter script."""


def written(model, changes, folder, **options):
    """The copy, and the script as a module that has run."""
    source, result = folder / "model.keras", folder / "fixed.keras"
    model.save(source)
    edited = apply(model, changes)
    assert not edited.left, edited.left
    why = [f"cause-{i}: because of {change.layer or 'it'}" for i, change in enumerate(changes)]
    made = script_of(edited, why, source=str(source), result=str(result), **options)
    path = folder / "fix.py"
    path.write_text(made.text.replace("{arrays}", "fix.npz"))
    if made.arrays:
        np.savez(folder / "fix.npz", **made.arrays)
    for words in why:
        assert words in made.text.replace("\n    # ", " ")
    return edited.model, runpy.run_path(str(path)), result


@pytest.mark.parametrize("name", MODELS)
def test_a_script_makes_what_was_tried(keras, batch, tmp_path, name):
    copy, script, result = written(MODELS[name](keras), STRUCTURE[name], tmp_path, metrics=("accuracy",))
    made = script["main"]()
    x = batch[0]
    for model in (made, load(result)):
        np.testing.assert_allclose(run(model, x), run(copy, x), rtol=1e-6, atol=1e-7)
        assert [layer.name for layer in model.layers][1:] == [layer.name for layer in copy.layers][1:]
        assert len(model.trainable_weights) == len(copy.trainable_weights)
        assert type(model.optimizer).__name__ == "SGD"
        assert model.optimizer.get_config()["momentum"] == pytest.approx(0.9)
    assert ("Surgery" in script) == (name not in CLONED)
    if name in CLONED:
        assert len((tmp_path / "fix.py").read_text().splitlines()) < 100
    if name == "sequential":
        assert "x = x / 255" in (tmp_path / "fix.py").read_text()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("how", ["clone", "graph", "as it is"])
def test_a_script_trains_with_factors(keras, batch, tmp_path, optimizer, how):
    model = functional(keras)
    model.compile(getattr(keras.optimizers, optimizer)(0.01), "sparse_categorical_crossentropy")
    changes = [
        Change("rate", "conv", {"role": "bias", "factor": 4.0}),
        Change("optimizer", values={"learning_rate": 0.02}),
        Change("loss", values={"config": {"from_logits": True}}),
    ]
    changes += {
        "clone": [Change("argument", "bn", {"epsilon": 0.1})],
        "graph": [Change("insert", "join", DROPOUT)],
    }.get(how, [])
    _, script, result = written(model, changes, tmp_path)
    assert ("Surgery" in script, "cloned" in script) == (how == "graph", how == "clone")
    trained = script["main"]()
    runner = EditedRunner(apply(model, changes), {"image": batch[0]})
    images, labels = batch
    before = [np.array(v) for v in trained.trainable_weights]
    trained.run_eagerly = how != "clone"  # traced once with each optimizer: the factors are the same code in all
    trained.fit(images, labels, batch_size=6, epochs=1, verbose=0, shuffle=False)
    moved = [np.array(v) - old for v, old in zip(trained.trainable_weights, before, strict=True)]
    seen = runner.run({"image": images}, labels)
    runner.reset()
    start = runner.params()
    runner.update(seen.param_grads, seen.statistics)
    learned = [pid for pid, param in runner.network.params.items() if param.role not in ("mean", "variance")]
    for ours, pid in zip(moved, learned, strict=True):
        np.testing.assert_allclose(ours, runner.params()[pid] - start[pid], rtol=2e-3, atol=2e-6)
    plain = load(result)
    assert type(plain.optimizer).__name__ == optimizer  # a file that any Keras opens


def test_a_file_that_keras_does_not_load_by_itself_has_no_script(keras, tmp_path):
    edited = apply(sequential(keras), [Change("remove", "relu")])
    (tmp_path / "model.keras").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot load"):
        script_of(edited, ["why"], source=str(tmp_path / "model.keras"), result=str(tmp_path / "fixed.keras"))
    functional(keras).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="relu"):
        script_of(edited, ["why"], source=str(tmp_path / "model.keras"), result=str(tmp_path / "fixed.keras"))


def test_classes_of_the_users_own_are_asked_of_their_file(keras, tmp_path, batch):
    own = tmp_path / "own.py"
    own.write_text(f"import {keras.__name__.split('.')[0]} as keras\n\n" + OWN)
    classes = runpy.run_path(str(own))
    start = keras.Input((8, 8, 4))
    x = keras.layers.Flatten(name="flat")(classes["Half"](name="half")(start))
    model = keras.Model(start, keras.layers.Dense(3, name="out")(x))
    model.compile("sgd", classes["spread"])
    changes = [Change("argument", "half", {"factor": 0.25})]
    copy, script, _ = written(model, changes, tmp_path, custom_objects=str(own))
    np.testing.assert_allclose(run(script["main"](), batch[0]), run(copy, batch[0]), rtol=1e-6, atol=1e-7)


OWN = """
class Half(keras.layers.Layer):
    def __init__(self, factor=0.5, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def spread(y_true, y_pred):
    return y_pred**2
"""
