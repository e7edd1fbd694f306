"""Every recorded file: what it predicts, and the training step that it takes next, as the Keras that wrote it had them.

Other files are tried where PARITY_KERAS_FILES names a folder of them, VERSION/NAME.h5 with NAME.oracle.npz beside it.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from parity.errors import BadFile, Refused
from parity.frameworks.keras.files import read
from parity.frameworks.keras.lift import lift_file
from parity.frameworks.keras.runner import KerasRunner
from parity.frameworks.keras.saved_state import saved_state
from tests.frameworks.keras.real import every, oracle, sample

MORE = os.environ.get("PARITY_KERAS_FILES")
FILES = sorted(p for p in Path(MORE).glob("*/*") if p.suffix in (".h5", ".keras")) if MORE else every()

REFUSED = {
    "lambda": (Refused, r"layer scale is a Lambda, whose code is in the file"),
    "weights": (BadFile, r"holds weights only, without a model; give the model too"),
}
"""What ends in one line, by a word of the file's name."""

OPEN = {
    "dropout": "draws other masks",
    "k2.15 .keras": "holds no slots of a legacy optimizer",
    "k2.1.6": "its own gradients vary with the order of its updates",
}
"""Whose next step is not to be repeated, and why."""


def _id(path):
    return f"{path.parent.name}/{path.name}"


def _reason(path, runner):
    """Why a file's next step cannot be repeated in full, or nothing."""
    if "dropout" in path.name:
        return OPEN["dropout"]
    if path.parent.name.startswith("k2.1.6"):
        return OPEN["k2.1.6"]
    return OPEN["k2.15 .keras"] if not runner.recipe.slots else ""


@pytest.mark.parametrize("path", FILES, ids=_id)
def test_a_file_goes_on_as_its_own_keras(path, measured_files):
    note = measured_files(path)
    refused = next((how for word, how in REFUSED.items() if word in path.name), None)
    if refused is not None:
        with pytest.raises(refused[0], match=refused[1]) as caught:
            KerasRunner.open(path, np.zeros((2, 28, 28, 1), np.float32))
        assert "\n" not in str(caught.value)
        note("one line", "one line")
        return
    saved = oracle(path)
    runner = KerasRunner.open(path, saved["x"])
    inputs = {"x": saved["x"]}
    seen = runner.run(inputs, saved["y"], mode="eval", backward=False)
    found = seen.outputs[runner.network.outputs[0]]
    away = np.abs(found - saved["pred"]).max() / np.abs(saved["pred"]).max()
    assert away <= 1e-6
    if "loss" not in saved:
        assert runner.recipe.optimizer is None
        note(away, "uncompiled")
        return
    _steps(path, runner, saved, inputs, away, note)


def _steps(path, runner, saved, inputs, away, note):
    reason = _reason(path, runner)
    seen = runner.run(inputs, saved["y"])
    if reason != OPEN["dropout"]:
        assert seen.loss + seen.penalty == pytest.approx(float(saved["loss"][0]), rel=2e-6)
    before = runner.model.get_weights()
    runner.update(seen.param_grads, seen.statistics)
    wanted = [saved[key] for key in sorted(saved) if key.startswith("next_w")]
    after = runner.model.get_weights()
    pairs = [(sample(b), sample(a), w) for b, a, w in zip(before, after, wanted, strict=True)]
    moved = np.concatenate([w - b for b, _, w in pairs])
    errors = np.concatenate([a - w for _, a, w in pairs])
    step = float(np.sqrt(np.mean(errors**2) / np.mean(moved**2)))
    note(away, {OPEN["dropout"]: "dropout", OPEN["k2.15 .keras"]: "no slots"}.get(reason, step))
    assert np.abs(moved).max() > 1e-5
    if not reason:
        assert step <= 1e-5
        # Beyond that, no weight is off by more than its own rounding and that of the greatest step.
        rounding = np.concatenate([2e-7 * np.abs(w) for *_, w in pairs])
        assert (np.abs(errors) <= rounding + 1e-5 * np.abs(moved).max()).all()
    elif reason == OPEN["k2.1.6"]:
        # Its last layer's gradients depend on no weight that is being updated meanwhile. The count of updates, on which
        # a decay depends, is not in its RMSprop files.
        share = 1e-5 if "steps" in _scalars(path) else 1.1e-3
        for old, new, want in pairs[-2:]:
            assert np.abs(new - want).max() <= share * np.abs(want - old).max() + 2e-7 * np.abs(want).max()
        assert step <= 0.2
    elif reason == OPEN["dropout"]:
        assert step < 0.5


def _scalars(path):
    file = read(path)
    return saved_state(file, lift_file(file)[0]).scalars


def test_the_sampled_steps_would_show_a_wrong_rate():
    """The check can fail: with a hundredth more of a rate the step is off by a hundredth."""
    path = next(p for p in FILES if p.name == "slim_new_adamw.keras")
    saved = oracle(path)
    runner = KerasRunner.open(path, saved["x"])
    runner.model.optimizer.learning_rate.assign(float(runner.model.optimizer.learning_rate) * 1.01)
    seen = runner.run({"x": saved["x"]}, saved["y"])
    before = runner.model.get_weights()
    runner.update(seen.param_grads, seen.statistics)
    wanted = [saved[key] for key in sorted(saved) if key.startswith("next_w")]
    pairs = zip(before, runner.model.get_weights(), wanted, strict=True)
    errors, moved = zip(*((sample(a) - w, w - sample(b)) for b, a, w in pairs), strict=True)
    off = np.sqrt(np.mean(np.concatenate(errors) ** 2) / np.mean(np.concatenate(moved) ** 2))
    assert off == pytest.approx(0.01, rel=0.05)


def test_a_step_of_keras_2_1_6_reads_weights_that_it_has_updated():
    """Its convolution's recorded step is the one whose gradient came through the dense layer's *next* kernel."""
    import tensorflow as tf

    path = next(p for p in FILES if p.name == "reg_l2.h5" and p.parent.name.startswith("k2.1.6"))
    saved = oracle(path)
    runner = KerasRunner.open(path, saved["x"])
    model = runner.model
    conv, flatten, dense = model.layers
    before = model.get_weights()
    seen = runner.run({"x": saved["x"]}, saved["y"])
    runner.update(seen.param_grads, seen.statistics)
    after, wanted = model.get_weights(), [saved[key] for key in sorted(saved) if key.startswith("next_w")]
    model.set_weights(before)
    hot = saved["y"]
    assert hot.shape == (len(saved["x"]), dense.units)

    def gradients(kernel):
        """Of conv, with this kernel of dense in the backward pass alone."""
        with tf.GradientTape() as tape:
            features = flatten(conv(saved["x"]))
            back = (tf.nn.softmax(features @ before[2] + before[3]) - hot) / len(hot)
            objective = tf.reduce_sum(tf.stop_gradient(back) * (features @ kernel))
        return tape.gradient(objective, conv.trainable_weights)

    rate = float(model.optimizer.learning_rate)
    for i, (early, late) in enumerate(zip(gradients(before[2]), gradients(after[2]), strict=True)):
        step, moved = wanted[i] - sample(before[i]), sample(after[i]) - sample(before[i])
        raced = moved - rate * sample(late - early)
        assert np.linalg.norm(moved - step) > 0.05 * np.linalg.norm(step)
        assert np.linalg.norm(raced - step) < 1e-4 * np.linalg.norm(step)
