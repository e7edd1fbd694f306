"""Layers that Keras lacks: they do what MatConvNet does, in every Keras, and survive being saved."""

from __future__ import annotations

import numpy as np
import pytest

from parity.changes import Change
from parity.frameworks.keras.edit import apply
from parity.frameworks.keras.edits.own import OWN, own_layer
from parity.frameworks.keras.edits.script import script_of
from parity.frameworks.keras.load import load


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
