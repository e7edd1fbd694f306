"""A model saved after two steps takes its third one as the process that saved it, with every optimizer."""

import json
from dataclasses import dataclass
from functools import lru_cache

import h5py
import numpy as np
import pytest

from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.files import read
from parity.frameworks.keras.lift import lift
from parity.frameworks.keras.optimizer_state import live_slots, modern_config, stepping
from parity.frameworks.keras.runner import KerasRunner
from parity.frameworks.keras.saved_state import saved_state
from parity.frameworks.keras.slots import Variable, canonical, slots_of, standalone
from parity.frameworks.keras.stored import Stored

SGD = {"learning_rate": 0.05, "momentum": 0.9}
NEW = {
    "sgd": ("SGD", {"learning_rate": 0.05}),
    "nesterov": ("SGD", {**SGD, "nesterov": True, "weight_decay": 0.01}),
    "clipped": ("SGD", {**SGD, "clipnorm": 0.05}),
    "clipped-all": ("SGD", {**SGD, "global_clipnorm": 0.05}),
    "clipped-value": ("SGD", {**SGD, "clipvalue": 0.01}),
    "averaged": ("SGD", {**SGD, "use_ema": True, "ema_overwrite_frequency": 3}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop-all": ("RMSprop", {"momentum": 0.9, "centered": True}),
    "adam": ("Adam", {}),
    "adam-all": ("Adam", {"amsgrad": True, "use_ema": True}),
    "adamw": ("AdamW", {"weight_decay": 0.02}),
    "adamax": ("Adamax", {}),
    "nadam": ("Nadam", {}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {"learning_rate": 1.0}),
    "ftrl": ("Ftrl", {}),
    "lion": ("Lion", {}),
}
KERAS_3 = {
    "accumulating": ("SGD", {**SGD, "gradient_accumulation_steps": 2}),
    "adafactor": ("Adafactor", {}),
    "lamb": ("Lamb", {}),
    "muon": ("Muon", {}),
}
LEGACY = {
    "sgd": ("SGD", {**SGD, "decay": 0.3}),
    "rmsprop": ("RMSprop", {"momentum": 0.9, "centered": True}),
    "adam": ("Adam", {"amsgrad": True, "decay": 0.1}),
    "adamax": ("Adamax", {}),
    "nadam": ("Nadam", {}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {"learning_rate": 1.0}),
    "ftrl": ("Ftrl", {}),
}
CASES = [
    *(("keras", name, suffix) for name in (*NEW, *KERAS_3, "schedule", "scaled") for suffix in (".h5", ".keras")),
    *(("tf_keras", name, suffix) for name in (*NEW, "schedule", "scaled") for suffix in (".h5", ".keras")),
    *(("legacy", name, ".h5") for name in LEGACY),
]
# Keras itself cannot save Adafactor's and Muon's variables to .h5: two have one name.
CASES = [case for case in CASES if case[1:] not in (("adafactor", ".h5"), ("muon", ".h5"))]
UNKNOWN = ("muon",)
"""Optimizers whose slots parity does not tell apart by parameter."""


def _optimizer(keras, style, name):
    optimizers = keras.optimizers
    if name == "schedule":
        return optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), momentum=0.9)
    if name == "scaled":
        home = optimizers if style == "keras" else keras.mixed_precision
        return home.LossScaleOptimizer(optimizers.SGD(**SGD))
    if style == "legacy":
        kind, settings = LEGACY[name]
        return getattr(optimizers.legacy, kind)(**settings)
    kind, settings = {**NEW, **KERAS_3}[name]
    return getattr(optimizers, kind)(**settings)


def _model(keras):
    keras.utils.set_random_seed(4)
    layers = keras.layers
    x = layers.Input((6,), name="x")
    # Two branches of one depth and a submodel: the order of the layers is not that of their names or calls.
    inner = keras.Sequential([layers.Input((5,)), layers.Dense(4, "tanh", name="z")], name="inner")
    b, a = layers.Dense(5, "tanh", name="b")(x), layers.Dense(5, name="a", use_bias=False)(x)
    y = layers.Dense(3, "softmax", name="out")(
        inner(layers.Add(name="add")([b, layers.BatchNormalization(name="n")(a)]))
    )
    return keras.Model(x, y)


@dataclass
class Trained:
    """A model of two steps that was saved in every format that can hold it, and its third.

    Attributes:
        paths: suffix → file.
        variables: how many are trained.
        held: (variable, slot) → value, as saved.
        before, wanted: its weights, as saved and after the third step.
    """

    paths: dict
    x: np.ndarray
    y: np.ndarray
    variables: int
    held: dict
    before: list
    wanted: list


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Style and name of an optimizer → what it trained, made once for all formats."""

    @lru_cache(1)
    def of(style, name):
        engine = engine_of("keras" if style == "keras" else "tf_keras")
        model = _model(engine.keras)
        rng = np.random.default_rng(2)
        x = rng.normal(size=(8, 6)).astype(np.float32)
        y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 8)]
        model.compile(_optimizer(engine.keras, style, name), "categorical_crossentropy", run_eagerly=True)
        for _ in range(2):
            model.train_on_batch(x, y)
        folder = tmp_path_factory.mktemp(name)
        # An .h5 goes last: Keras 3 takes the optimizer out of what it tells of the compilation when it saves one.
        suffixes = sorted((suffix for *which, suffix in CASES if which == [style, name]), reverse=True)
        paths = {suffix: folder / f"model{suffix}" for suffix in suffixes}
        for path in paths.values():
            model.save(path)
        slots = live_slots(engine, model.optimizer, model.trainable_variables)
        held = {(i, slot): np.array(v) for i, slot, v in slots}
        before = model.get_weights()
        model.train_on_batch(x, y)
        return Trained(paths, x, y, len(model.trainable_variables), held, before, model.get_weights())

    return of


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("style", "name", "suffix"), CASES)
def test_the_third_step(trained, style, name, suffix):
    saved = trained(style, name)
    x, y, held, before, wanted = saved.x, saved.y, dict(saved.held), saved.before, saved.wanted
    path = saved.paths[suffix]

    runner = KerasRunner.open(path, x)
    for a, b in zip(before, runner.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    file = read(path)
    network, recipe = lift(path)
    state = saved_state(file, network)
    every = 2 if name == "accumulating" else 1
    assert recipe.steps_done == runner.recipe.steps_done == 2 // every
    if name not in UNKNOWN:
        assert len(state.rows) == saved.variables or not held
        for index, row in enumerate(state.rows):
            for slot, stored in row.items():
                np.testing.assert_array_equal(file.read(stored), held.pop((index, slot)), err_msg=f"{index} {slot}")
        assert not held
        assert {key: set(row) for key, row in recipe.slots.items()} == {
            key: set(row) for key, row in runner.recipe.slots.items()
        }
    seen = runner.run({"x": x}, y)
    runner.update(seen.param_grads, seen.statistics)
    moved = max(float(np.abs(w - b).max()) for w, b in zip(wanted, before, strict=True))
    for got, want in zip(runner.model.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=2e-5 * moved)
    assert moved > 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["keras", "tf_keras"])
@pytest.mark.parametrize("name", ["nesterov", "rmsprop-all", "adam-all", "adagrad", "adadelta"])
def test_a_recipe_is_where_another_start_begins(tmp_path, engine, name):
    """`reset` with a file's own slots goes on where the file stopped: the neutral slots say all there is."""
    engine = engine_of(engine)
    model = _model(engine.keras)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(8, 6)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 8)]
    model.compile(_optimizer(engine.keras, "new", name), "categorical_crossentropy", run_eagerly=True)
    for _ in range(2):
        model.train_on_batch(x, y)
    path = tmp_path / "model.keras"
    model.save(path)
    steps = []
    for slots in ("kept", "recipe", None):
        runner = KerasRunner.open(path, x)
        if slots != "kept":
            runner.reset(runner.recipe.slots if slots else None)
        seen = runner.run({"x": x}, y)
        runner.update(seen.param_grads, seen.statistics)
        steps.append(np.concatenate([w.ravel() for w in runner.model.get_weights()]))
    np.testing.assert_allclose(steps[1], steps[0], rtol=1e-6, atol=1e-6)
    assert np.abs(steps[2] - steps[0]).max() > 2e-5


# Layouts of Keras before it was part of tensorflow -----------------------------------------------------------------


VARIABLES = [
    Variable("dense_2/kernel:0", (4, 3)),
    Variable("dense_2/bias:0", (3,)),
    Variable("dense_10/kernel:0", (3, 2)),
    Variable("dense_10/bias:0", (2,)),
]
BY_NAME = [3, 2, 1, 0]


def _stored(names_and_shapes):
    return [Stored(name, shape, name) for name, shape in names_and_shapes]


def _blocks(order, count, prefix="", scalars=()):
    shapes = [VARIABLES[i].shape for _ in range(count) for i in order]
    return _stored([*scalars, *((f"{prefix}Variable_{i}:0", shape) for i, shape in enumerate(shapes))])


def test_blocks_of_early_keras_are_sorted_by_name():
    count = [("iterations:0", ())]
    early = slots_of(_blocks(BY_NAME, 2, scalars=count), "Adam", {}, VARIABLES, modern=False)
    assert early.steps.name == "iterations:0"
    assert [row["mean"].name for row in early.rows] == [f"Variable_{i}:0" for i in (3, 2, 1, 0)]
    assert [row["square"].name for row in early.rows] == [f"Variable_{i}:0" for i in (7, 6, 5, 4)]
    late = slots_of(_blocks(range(4), 2, "training/Adam/", count), "Adam", {}, VARIABLES, modern=False)
    assert [row["mean"].name for row in late.rows] == [f"training/Adam/Variable_{i}:0" for i in range(4)]
    # Where the names' order does not fit the shapes, the layers' does.
    other = slots_of(_blocks(range(4), 1), "RMSprop", {}, VARIABLES, modern=False)
    assert [row["square"].name for row in other.rows] == [f"Variable_{i}:0" for i in range(4)]
    assert other.steps is None


def test_placeholders_for_maxima_are_left_out():
    dummies = [(f"training/Adam/Variable_{i}:0", (1,)) for i in range(8, 12)]
    stored = _blocks(range(4), 2, "training/Adam/", [("Adam/iterations:0", ())]) + _stored(dummies)
    found = slots_of(stored, "Adam", {"amsgrad": False}, VARIABLES, modern=False)
    assert [sorted(row) for row in found.rows] == [["mean", "square"]] * 4
    whole = _blocks(range(4), 3, "training/Adam/", [("Adam/iterations:0", ())])
    assert "max" in slots_of(whole, "Adam", {"amsgrad": True}, VARIABLES, modern=False).rows[0]


def test_nadams_product():
    stored = _blocks(range(4), 2, "training/Nadam/", [("Nadam/iterations:0", ()), ("Nadam/m_schedule:0", ())])
    found = slots_of(stored, "Nadam", {}, VARIABLES, modern=False)
    assert found.scalars["product"].name == "Nadam/m_schedule:0"
    assert len(found.rows) == 4


def test_arrays_that_fit_nothing_are_said_to():
    assert slots_of(_blocks(range(3), 1), "SGD", {}, VARIABLES, modern=False).unknown
    assert slots_of(_blocks(range(4), 3), "SGD", {}, VARIABLES, modern=False).unknown
    numbered = _stored([("optimizer/vars/0", ()), ("optimizer/vars/1", (4, 3))])
    assert slots_of(numbered, "Lookahead", {}, VARIABLES, modern=False).unknown
    wrong = _stored([("SGD/iter:0", ()), *((f"SGD/{v.name[:-2]}/momentum:0", (9,)) for v in VARIABLES)])
    assert slots_of(wrong, "SGD", {}, VARIABLES, modern=False).unknown


OWN = {"1.2.2": True, "2.1.6": True, "2.3.1": True, "2.2.4-tf": False, "2.4.0": False, "3.0.5": False}


@pytest.mark.parametrize(("version", "own"), OWN.items())
def test_versions_of_keras_as_a_package_of_its_own(version, own):
    assert standalone(version) is own


def test_names():
    assert canonical("Custom>SGD") == "SGD"
    assert canonical("rmsprop") == "RMSprop"
    assert canonical("Mine") == "Mine"


def test_a_file_of_keras_2_0(tmp_path):
    """Written by hand as Keras 2.0 lays it out: blocks sorted by name, a rate called lr, a norm of all gradients."""
    keras = engine_of("tf_keras").keras
    model = keras.Sequential(
        [keras.layers.Dense(3, input_shape=(4,), name="dense_2"), keras.layers.Dense(2, name="dense_10")]
    )
    path = tmp_path / "old.h5"
    model.save(path, save_format="h5")
    rng = np.random.default_rng(5)
    values = [rng.normal(size=v.shape).astype(np.float32) for v in VARIABLES]
    config = {"lr": 0.1, "momentum": 0.9, "decay": 0.0, "nesterov": False, "clipnorm": 0.5}
    training = {"optimizer_config": {"class_name": "SGD", "config": config}, "loss": "mse", "metrics": ["acc", "fancy"],
                "sample_weight_mode": None, "loss_weights": None}  # fmt: skip
    with h5py.File(path, "a") as f:
        f.attrs["keras_version"] = f["model_weights"].attrs["keras_version"] = b"2.0.5"
        f.attrs["training_config"] = json.dumps(training).encode()
        group = f.create_group("optimizer_weights")
        named = [("iterations:0", np.float32(7)), *((f"Variable_{i}:0", values[j]) for i, j in enumerate(BY_NAME))]
        for name, value in named:
            group[name] = value
        group.attrs["weight_names"] = [name.encode() for name, _ in named]
    network, recipe = lift(path)
    assert recipe.steps_done == 7
    assert recipe.clip == {"global_clipnorm": 0.5}
    assert recipe.metrics == ("acc", "fancy")
    for key, value in zip(network.params, values, strict=True):
        np.testing.assert_allclose(recipe.slots[key]["momentum"], value / np.float32(0.1), rtol=1e-6)
    x = rng.normal(size=(5, 4)).astype(np.float32)
    runner = KerasRunner.open(path, x)
    optimizer = stepping(runner.model.optimizer)
    assert (optimizer.clipnorm, optimizer.global_clipnorm) == (None, 0.5)
    for variable, value in zip(runner.model.trainable_variables, values, strict=True):
        np.testing.assert_array_equal(optimizer.get_slot(variable, "momentum"), value)
    assert int(optimizer.iterations) == 7


def test_older_settings_in_the_words_of_keras_3():
    name, config, notes = modern_config(
        "SGD", {"lr": 0.1, "decay": 0.01, "momentum": 0.9, "clipnorm": 1.0}, legacy=True, version="2.1.6"
    )
    assert (name, notes) == ("SGD", [])
    assert config["global_clipnorm"] == 1.0
    assert config["learning_rate"]["class_name"] == "InverseTimeDecay"
    optimizer = engine_of("keras").keras.optimizers.deserialize({"class_name": name, "config": config})
    for t in (0, 3, 10):
        assert float(optimizer._learning_rate(t)) == pytest.approx(0.1 / (1 + 0.01 * t))
    assert "schedule_decay" in modern_config("Nadam", {"lr": 0.1, "schedule_decay": 0.004}, legacy=True)[2][0]
