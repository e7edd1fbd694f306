"""Layers and optimizers that Keras lacks: they do what MatConvNet does, in every Keras, and survive being saved."""

from __future__ import annotations

import numpy as np
import pytest

from parity.changes import Change
from parity.frameworks.keras.edit import apply
from parity.frameworks.keras.edits.optimizers import OWN_OPTIMIZERS
from parity.frameworks.keras.edits.own import OWN, own_layer
from parity.frameworks.keras.edits.script import script_of
from parity.frameworks.keras.load import load
from parity.frameworks.keras.runner import KerasRunner
from parity.optimizers.updater import rehearsed


def small(k):
    x = inputs = k.Input((3, 3, 7))
    x = k.layers.Activation("linear", name="before")(x)
    return k.Model(inputs, k.layers.Activation("linear", name="behind")(x))


def by_hand(x, size, kappa, alpha, beta):
    """x·(kappa + alpha·Σ x²)^-beta with a loop over the channels, in float64."""
    before, made = (size - 1) // 2, np.empty(x.shape)
    for k in range(x.shape[-1]):
        window = x[..., max(0, k - before) : k + size - before].astype(np.float64)
        made[..., k] = x[..., k] * (kappa + alpha * (window**2).sum(axis=-1)) ** -beta
    return made


@pytest.mark.parametrize("module", ["keras", "tf_keras"])
@pytest.mark.parametrize("size", [4, 5])
def test_it_is_put_in_and_saved_and_read(module, size, tmp_path):
    k = pytest.importorskip(module)
    model = small(k)
    config = {"size": size, "kappa": 1.5, "alpha": 0.3, "beta": 0.75}
    edited = apply(model, [Change("insert", "before", {"class_name": "LocalResponse", "config": config})])
    assert not edited.left
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 7)).astype(np.float32)
    wanted = by_hand(x, **config)
    np.testing.assert_allclose(np.asarray(edited.model(x)), wanted, rtol=2e-6)
    path = tmp_path / ("copy.keras" if module == "keras" else "copy.h5")
    edited.model.save(path)
    np.testing.assert_allclose(np.asarray(load(path)(x)), wanted, rtol=2e-6)


def test_a_script_holds_its_class(tmp_path):
    import runpy

    import keras

    source, result = tmp_path / "model.keras", tmp_path / "fixed.keras"
    model = small(keras)
    model.save(source)
    edited = apply(model, [Change("insert", "before", {"class_name": "LocalResponse", "config": {"size": 5}})])
    script = tmp_path / "fix.py"
    script.write_text(script_of(edited, ["It is missing."], source=str(source), result=str(result)).text)
    made = runpy.run_path(str(script))["main"]()
    x = np.random.default_rng(0).standard_normal((2, 3, 3, 7)).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(made(x)), np.asarray(edited.model(x)))


def test_it_is_made_once_for_each_keras():
    import keras

    assert own_layer(keras, "LocalResponse") is own_layer(keras, "LocalResponse")
    assert own_layer(keras, "Conv2D") is None
    assert {own_layer(keras, name).__name__ for name in OWN} == set(OWN)


@pytest.mark.parametrize("name", OWN_OPTIMIZERS)
def test_an_optimizer_that_keras_lacks_is_saved_read_and_scripted(name, tmp_path):
    """Its step is that of the rule with epsilon beside the root; of Keras 2 it is the legacy class."""
    import runpy

    import keras
    import tf_keras

    source, result, script = (tmp_path / word for word in ("model.keras", "fixed.keras", "fix.py"))
    model = small(keras)
    kind = name.removeprefix("Outside")
    model.compile(getattr(keras.optimizers, kind)(0.01, epsilon=1e-3, clipvalue=0.5), "mse")
    model.save(source)
    edited = apply(model, [Change("optimizer", "", {"class_name": name})])
    assert not edited.left
    held = {**model.optimizer.get_config(), "name": edited.model.optimizer.name}
    assert edited.model.optimizer.get_config() == held
    edited.model.save(tmp_path / "copy.keras")
    script.write_text(script_of(edited, ["It is elsewhere."], source=str(source), result=str(result)).text)
    runpy.run_path(str(script))["main"]()
    example = {"x": np.ones((2, 3, 3, 7), np.float32)}
    weight = np.linspace(-1, 1, 6, dtype=np.float32)
    grads = [weight * np.float32(size) for size in (1.0, 1e-3, 1e-6)]
    for path in (tmp_path / "copy.keras", result):
        runner = KerasRunner.open(path, example)
        rule = runner.recipe.optimizer
        assert (type(rule).__name__, rule.epsilon_inside, runner.recipe.custom) == (kind, False, "")
        made = runner.rehearse(weight, grads, (1.0, 1.0, 1.0))
        for ours, formula in zip(made, rehearsed(runner.recipe, weight, grads, (1.0, 1.0, 1.0)), strict=True):
            np.testing.assert_allclose(ours - weight, formula - weight, rtol=1e-4, atol=1e-7)
    old = small(tf_keras)
    old.compile(getattr(tf_keras.optimizers, kind)(0.01), "mse")
    legacy = getattr(tf_keras.optimizers.legacy, kind)
    there = apply(old, [Change("optimizer", "", {"class_name": name})]).model
    assert type(there.optimizer) is legacy
    back = apply(there, [Change("optimizer", "", {"class_name": kind, "config": {"epsilon": 1e-3}})]).model
    assert type(back.optimizer) is type(old.optimizer)
    assert back.optimizer.get_config()["epsilon"] == 1e-3
