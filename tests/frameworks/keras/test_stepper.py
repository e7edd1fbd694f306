"""Slots from elsewhere, resets, and the reference's recipe on an uncompiled model."""

import numpy as np
import pytest

from parity.errors import CannotCompare
from parity.frameworks.keras.runner import KerasRunner
from parity.layers import Loss
from parity.optimizers import SGD
from parity.recipe import Recipe, Schedule


def _dense(keras, optimizer=None, softmax=True):
    last = keras.layers.Dense(3, activation="softmax" if softmax else None, name="fc")
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Flatten(name="flat"), last])
    if optimizer is not None:
        model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def _optimizers(keras):
    found = [keras.optimizers.SGD(0.1, momentum=0.9)]
    if keras.__name__ == "tf_keras":
        found.append(keras.optimizers.legacy.SGD(0.1, momentum=0.9, decay=0.5))
    return found


def test_momentum_is_translated(keras, batch):
    for optimizer in _optimizers(keras):
        runner = KerasRunner(_dense(keras, optimizer), batch[0])
        before = runner.params()
        buffer = np.random.default_rng(0).normal(size=before["fc.kernel"].shape).astype(np.float32)
        runner.reset({"fc.kernel": {"momentum": buffer}})
        zero = {pid: np.zeros_like(value) for pid, value in before.items()}
        runner.update(zero, {})
        # m ← 0.9·m - 0, w ← w + 0.1·m
        np.testing.assert_allclose(
            runner.params()["fc.kernel"], before["fc.kernel"] + 0.09 * buffer, rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(runner.params()["fc.bias"], before["fc.bias"])


def test_what_a_regularizer_adds_is_that_of_the_present_weights(keras, batch):
    """A run works it out for the step behind it, and for no other."""
    x = batch[0]
    held = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5), name="fc")
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Flatten(name="flat"), held])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    runner = KerasRunner(model, x)
    runner.reset()
    first = runner.params()["fc.kernel"]
    zero = {pid: np.zeros_like(value) for pid, value in runner.params().items()}
    runner.run({"x": x}, np.zeros((len(x), 3), np.float32))
    for power in (1, 2):  # w ← w - 0.1·2·0.5·w
        runner.update(zero, {})
        np.testing.assert_allclose(runner.params()["fc.kernel"], first * 0.9**power, rtol=1e-5)
    runner.run({"x": x}, np.zeros((len(x), 3), np.float32))
    runner.load({"fc.kernel": -3 * first})
    runner.update(zero, {})
    np.testing.assert_allclose(runner.params()["fc.kernel"], -2.7 * first, rtol=1e-5)


def test_reset_starts_anew(keras, batch):
    for optimizer in _optimizers(keras):
        runner = KerasRunner(_dense(keras, optimizer), batch[0])
        start = runner.params()
        grads = runner.run({"x": batch[0]}, batch[1]).param_grads
        ends = []
        for _ in range(2):
            runner.load(start)
            runner.reset()
            for _ in range(3):
                runner.update(grads, {})
            ends.append(runner.params())
        for pid in start:
            np.testing.assert_array_equal(ends[0][pid], ends[1][pid])
        once = np.abs(ends[0]["fc.kernel"] - start["fc.kernel"]).max() / np.abs(grads["fc.kernel"]).max()
        assert once > 0.15  # momentum, and not three bare steps of a decayed rate


def test_legacy_decay_lowers_the_rate(batch):
    from parity.frameworks.keras.engine import engine_of

    keras = engine_of("tf_keras").keras
    runner = KerasRunner(_dense(keras, keras.optimizers.legacy.SGD(0.1, decay=1.0)), batch[0])
    assert runner.recipe.learning_rate == Schedule("inverse-time", (pytest.approx(0.1),), 1.0)
    runner.reset()
    one = {"fc.bias": np.ones(3, np.float32)}
    steps = []
    for _ in range(3):
        before = runner.params()["fc.bias"]
        runner.update(one, {})
        steps.append(float((before - runner.params()["fc.bias"])[0]))
    np.testing.assert_allclose(steps, [0.1, 0.05, 0.1 / 3], rtol=1e-5)


@pytest.mark.parametrize("softmax", [True, False])
def test_an_uncompiled_model_adopts_the_reference(keras, batch, softmax):
    x, y = batch
    runner = KerasRunner(_dense(keras, softmax=softmax), x)
    assert runner.recipe.optimizer is None
    assert runner.run({"x": x}, y).loss is None
    runner.adopt(Recipe(Loss("softmaxlog"), SGD(0.9), Schedule("epochs", (0.1, 0.01)), weight_decay=0.05))
    assert runner.network["loss"].kind.function == ("log" if softmax else "softmaxlog")
    assert any("not compiled" in note for note in runner.recipe.notes)
    runner.reset()
    before = runner.params()
    seen = runner.run({"x": x}, y)
    logits = seen.outputs["fc"].astype(np.float64)
    wanted = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y])
    assert seen.loss == pytest.approx(wanted, rel=1e-5)
    for _ in range(2):
        runner.update(seen.param_grads, {})
    w = before["fc.kernel"].astype(np.float64)
    m = 0.0
    for _ in range(2):
        m = 0.9 * m - (seen.param_grads["fc.kernel"] + 0.05 * w)
        w = w + 0.1 * m
    np.testing.assert_allclose(runner.params()["fc.kernel"], w, rtol=1e-5, atol=1e-6)


def test_a_loss_without_a_counterpart(keras, batch):
    runner = KerasRunner(_dense(keras), batch[0])
    with pytest.raises(CannotCompare, match="mshinge has no Keras counterpart"):
        runner.adopt(Recipe(Loss("mshinge"), SGD(0.9)))
