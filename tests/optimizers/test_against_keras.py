"""The vocabulary's update rules against the optimizers of Keras themselves, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity.frameworks.keras.recipes import recipe_of
from parity.network import Param
from parity.optimizers import RULES, OpaqueRule
from parity.optimizers.constraints import BOUNDS, bounded
from parity.optimizers.updater import Updater

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.5, "centered": True, "clipnorm": 0.3}),
    ("Adam", {"amsgrad": True, "clipvalue": 0.2}),
    ("AdamW", {"epsilon": 1e-3}),
    ("Adagrad", {"global_clipnorm": 0.5}),
    ("Adadelta", {}),
    ("Adamax", {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-3}),
    ("Nadam", {"beta_1": 0.8, "epsilon": 1e-3}),
    ("Ftrl", {"l1_regularization_strength": 0.01, "l2_regularization_strength": 0.1, "beta": 0.2}),
    ("Ftrl", {"learning_rate_power": -0.3, "l2_shrinkage_regularization_strength": 0.05}),
    ("Lion", {"beta_1": 0.8, "beta_2": 0.7}),
    ("Lamb", {"epsilon": 1e-3}),
    ("Adafactor", {"clip_threshold": 0.5}),
]
LEGACY: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9, "decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Adam", {}),
    ("Adagrad", {}),
    ("Adadelta", {}),
    ("Adamax", {}),
    ("Nadam", {}),
    ("Ftrl", {"l1_regularization_strength": 0.01, "l2_regularization_strength": 0.1, "beta": 0.2}),
]


def test_every_rule_is_held_against_keras() -> None:
    assert {rule.__name__ for rule in RULES} == {name.replace("AdamW", "Adam") for name, _ in CASES}


BOUND = [
    ("MaxNorm", {"max_value": 0.7, "axis": [0, 1, 2]}),
    ("MinMaxNorm", {"min_value": 0.5, "max_value": 0.8, "rate": 0.3}),
    ("NonNeg", {}),
    ("UnitNorm", {"axis": -1}),
]


def test_every_constraint_is_held_against_keras() -> None:
    import keras

    value = np.random.default_rng(0).standard_normal((3, 3, 2, 4)).astype(np.float32)
    assert {name for name, _ in BOUND} == set(BOUNDS)
    for name, config in BOUND:
        wanted = np.asarray(getattr(keras.constraints, name)(**config)(value))
        assert np.abs(wanted - value).max() > 0.1
        assert np.abs(bounded(value, {"class_name": name, "config": config}) - wanted).max() < 1e-6
    assert bounded(value, {}) is value
    assert bounded(value, {"class_name": "OfSomeone", "config": {}}) is value


def course(optimizer: Any, variables: list[Any], grads: list[list[np.ndarray]], constant: Any) -> list[np.ndarray]:
    """The weights after each step, all in one vector."""
    seen = []
    for step in grads:
        optimizer.apply_gradients([(constant(g), v) for g, v in zip(step, variables, strict=True)])
        seen.append(np.concatenate([np.ravel(v.numpy()) for v in variables]))
    return seen


def held(optimizer: Any, variables: list[Any], era: int, constant: Any) -> None:
    rng = np.random.default_rng(3)
    start = [v.numpy() for v in variables]
    grads = [[(rng.standard_normal(w.shape) * 0.3).astype(np.float32) for w in start] for _ in range(4)]
    grads[1][0].flat[:3] = (0.0, 1e-9, -1e-5)
    recipe = recipe_of({"class_name": type(optimizer).__name__, "config": optimizer.get_config()}, (), (), era)
    assert not isinstance(recipe.optimizer, OpaqueRule)
    weights = {str(i): w.copy() for i, w in enumerate(start)}
    params = {id: Param(id, "kernel", "", w.shape) for id, w in weights.items()}
    updater = Updater(recipe, params)
    before = np.concatenate([w.ravel() for w in start])
    for step, expected in zip(grads, course(optimizer, variables, grads, constant), strict=True):
        weights |= updater.step(weights, {str(i): g for i, g in enumerate(step)})
        found = np.concatenate([weights[str(i)].ravel() for i in range(len(start))])
        # Keras' own scalars are float32: 1 - beta2^t is known to 3e-5 of itself.
        np.testing.assert_allclose(found - before, expected - before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_rule_steps_as_keras_does(name: str, settings: dict[str, Any]) -> None:
    import keras

    rng = np.random.default_rng(1)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (4,), (1, 2, 3, 2))]
    optimizer = getattr(keras.optimizers, name)(0.05, **settings)
    held(optimizer, [keras.Variable(w) for w in start], 3, keras.ops.convert_to_tensor)


@pytest.mark.parametrize(("name", "settings"), LEGACY)
def test_a_rule_steps_as_the_classes_before_did(name: str, settings: dict[str, Any]) -> None:
    import tensorflow as tf
    import tf_keras

    rng = np.random.default_rng(1)
    start = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (4,))]
    optimizer = getattr(tf_keras.optimizers.legacy, name)(0.05, **settings)
    held(optimizer, [tf.Variable(w) for w in start], 2, tf.constant)
