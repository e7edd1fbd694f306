"""Keras' losses on torch: the value and the gradient that both Kerases compute, for vectors and for maps."""

import numpy as np
import pytest
import torch

from parity.layers import Context, Loss
from parity.layers.keras_losses import DEFAULTS, class_of, settings_of, word_of

RNG = np.random.default_rng(11)
SHAPES = {"vector": (6, 5), "map": (3, 4, 2, 5)}

# name → settings to try, besides none; what the targets and predictions are
CASES = [
    ("MeanSquaredError", {}, "values"),
    ("MeanAbsoluteError", {"reduction": "sum"}, "values"),
    ("MeanAbsolutePercentageError", {}, "positive"),
    ("MeanSquaredLogarithmicError", {}, "positive"),
    ("Hinge", {}, "binary"),
    ("Hinge", {}, "signs"),
    ("SquaredHinge", {}, "binary"),
    ("CategoricalHinge", {}, "hot"),
    ("Huber", {}, "values"),
    ("Huber", {"delta": 0.3}, "values"),
    ("LogCosh", {}, "values"),
    ("KLDivergence", {}, "distribution"),
    ("Poisson", {}, "positive"),
    ("CosineSimilarity", {}, "values"),
    ("BinaryCrossentropy", {}, "binary"),
    ("BinaryCrossentropy", {"label_smoothing": 0.2}, "binary"),
    ("BinaryCrossentropy", {"from_logits": True}, "binary"),
    ("BinaryFocalCrossentropy", {}, "binary"),
    ("BinaryFocalCrossentropy", {"gamma": 1.5, "apply_class_balancing": True, "alpha": 0.4}, "binary"),
    ("BinaryFocalCrossentropy", {"from_logits": True}, "binary"),
    ("CategoricalFocalCrossentropy", {}, "hot"),
    ("CategoricalFocalCrossentropy", {"gamma": 1.0, "alpha": 0.6, "from_logits": True}, "hot"),
    ("CategoricalFocalCrossentropy", {"label_smoothing": 0.1}, "hot"),
    ("CategoricalCrossentropy", {}, "hot"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "hot"),
    ("CategoricalCrossentropy", {"from_logits": True, "reduction": "sum"}, "hot"),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, "ids"),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.3}, "ids"),
    ("Dice", {}, "hot"),
    ("Tversky", {"alpha": 0.3, "beta": 0.6}, "hot"),
]


def _data(kind, shape, logits):
    """(predictions, targets as Keras takes them, labels as a batch has them)."""
    ids = RNG.integers(0, shape[-1], shape[:-1])
    hot = np.eye(shape[-1])[ids]
    raw = RNG.normal(size=shape)
    p = np.exp(raw) / np.exp(raw).sum(-1, keepdims=True)
    binary = RNG.integers(0, 2, shape).astype(float)
    if kind in ("hot", "ids"):
        return (raw if logits else p), (ids if kind == "ids" else hot), ids
    target = {
        "values": RNG.normal(size=shape),
        "positive": RNG.uniform(0.5, 2, shape),
        "binary": binary,
        "signs": 2 * binary - 1,
        "distribution": np.roll(p, 1, -1),
    }[kind]
    x = {"values": raw, "positive": RNG.uniform(0.3, 2, shape), "distribution": p}.get(kind)
    if x is None:
        x = raw if logits else RNG.uniform(0.05, 0.95, shape)
    return x, target, target


def _on_torch(kind, x, labels):
    """Value and gradient, in double; arrays are n … c."""
    flat = torch.from_numpy(np.moveaxis(x, -1, 1)).requires_grad_()
    if labels.shape == x.shape:
        given = np.moveaxis(labels, -1, 1)
        given = given if given.ndim == 4 else given[:, :, None, None]
    else:
        given = labels
    value = kind.forward([flat], {}, Context(labels=torch.from_numpy(given)))
    (gradient,) = torch.autograd.grad(value, flat)
    return value.item(), np.moveaxis(gradient.numpy(), 1, -1)


@pytest.mark.parametrize("engine", ["keras", "tf_keras"])
@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize(("name", "settings", "targets"), CASES)
def test_as_keras_computes_it(engine, form, name, settings, targets):
    import tensorflow as tf

    from parity.frameworks.keras.engine import engine_of

    keras = engine_of(engine).keras
    made = getattr(keras.losses, name, None)
    if made is None:
        assert engine == "tf_keras"
        return
    double = {"dtype": "float64"} if engine == "keras" else {}
    loss = made(**settings, **double)
    x, target, labels = _data(targets, SHAPES[form], settings.get("from_logits", False))
    # Keras' own configs leave some settings out (3.15: Huber's delta).
    kind = Loss.from_keras(name, {**loss.get_config(), **settings}, [SHAPES[form][1:]])
    means = "mean" if form == "vector" or name in ("Dice", "Tversky") else "pixel-mean"
    assert kind.reduction == settings.get("reduction", means)
    value, gradient = _on_torch(kind, x, labels)
    predictions = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        wanted = loss(tf.constant(target, tf.int64 if targets == "ids" else tf.float64), predictions)
    slope = tape.gradient(wanted, predictions).numpy()
    if kind.function == "log":  # Keras divides by the sum of the probabilities, which a softmax before it makes 1
        slope, gradient = (g - (g * x).sum(-1, keepdims=True) for g in (slope, gradient))
    assert value == pytest.approx(float(wanted), rel=1e-6)
    np.testing.assert_allclose(gradient, slope, rtol=3e-6, atol=1e-6 * np.abs(slope).max())


def test_every_loss_of_keras_is_known():
    from parity.frameworks.keras.engine import engine_of

    for engine in ("keras", "tf_keras"):
        losses = engine_of(engine).keras.losses
        for name in dir(losses):
            item = getattr(losses, name)
            if isinstance(item, type) and name not in ("Loss", "Reduction"):
                assert class_of(name) == name, name
                assert word_of(name) in DEFAULTS
            elif callable(item) and name.islower() and name not in ("serialize", "deserialize", "get"):
                assert word_of(name) in DEFAULTS, name


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("mse", "mean_squared_error"),
        ("MSE", "mean_squared_error"),
        ("MeanSquaredError", "mean_squared_error"),
        ("Custom>MeanSquaredError", "mean_squared_error"),
        ("kullback_leibler_divergence", "kl_divergence"),
        ("KLD", "kl_divergence"),
        ("cosine_proximity", "cosine_similarity"),
        ("logcosh", "log_cosh"),
        ("BCE", "binary_crossentropy"),
        ("my_loss", "my_loss"),
    ],
)
def test_spellings(name, word):
    assert word_of(name) == word


def test_settings_are_those_that_are_not_the_defaults():
    assert settings_of("Huber", {"delta": 1.0, "name": "huber", "reduction": "sum"}) == ()
    assert settings_of("Huber", {"delta": 2.0}) == (("delta", 2.0),)
    assert settings_of("Dice", {"axis": [1, 2, 3]}) == (("axis", (1, 2, 3)),)
    line = Loss.from_keras("Huber", {"delta": 2.0}, ()).keras_line("function")
    assert line == "loss=keras.losses.Huber(delta=2.0)"


def test_labels_below_zero_cost_nothing_in_a_sum_whoever_ignores_them():
    def settings(**config):
        return Loss.from_keras("SparseCategoricalCrossentropy", config, ()).settings

    assert settings(ignore_class=-1, reduction="sum") == ()
    assert settings(ignore_class=2, reduction="sum") == (("ignore_class", 2),)
    assert settings(ignore_class=-1) == ()
    mean = Loss.from_keras("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": -1}, [(4, 4, 3)])
    assert mean.reduction == "counted-mean"  # over the pixels that are left


def test_what_torch_cannot_run_is_said():
    x, hot = np.full((2, 3, 3, 2), 0.4), np.ones((2, 3, 3, 2))
    for name, config in (("CosineSimilarity", {"axis": 1}), ("Dice", {"axis": [0, 1]}), ("Circle", {})):
        with pytest.raises(NotImplementedError):
            _on_torch(Loss.from_keras(name, config, ()), x, hot)
