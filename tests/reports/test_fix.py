"""The example pair repaired from end to end: the model's file, the script that makes it, and what is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import parity
from parity.batch import load
from parity.changes import Change
from parity.errors import BadUsage
from parity.fixes import Repair, verified
from parity.reports.fix import FixView, change_words, check_fix, save_fix
from parity.reports.output import as_text
from tests.test_fixes import argument, insert

SEED = Path(__file__).parents[2] / "traces" / "seed"


def opened(path, batch, custom=None):
    from parity.frameworks.keras.runner import KerasRunner

    return KerasRunner.open(path, {"input": batch.arrays["x"][:2]}, custom)


def tried(ref, keras, batch, fixes):
    """`verified` on two files, with these changes for the findings of these causes."""
    batch = load(batch)
    runner = opened(keras, batch)
    own = runner.params()
    report = parity.compare(ref=ref, keras=runner, batch=batch)
    findings = tuple(replace(f, changes=tuple(fixes.get(f.cause, ()))) for f in report.findings)
    report = replace(report, findings=findings)
    return verified(report, runner, own, batch, lambda k, b: parity.compare(ref=ref, keras=k, batch=b))


@pytest.fixture(scope="module")
def example():
    """The example pair with every fix that it needs."""

    network = opened(SEED / "model.h5", load(SEED / "batch.npz")).network
    convolutions = [layer.origin for layer in network.layers if {"kernel", "bias"} <= set(layer.params)]
    ref = parity.inspect(SEED / "net.mat")
    rule = {"class_name": "SGD", "config": {"learning_rate": ref.recipe.learning_rate.first, "momentum": 0.9}}
    penalty = ref.recipe.weight_decay / 2
    held = [layer for layer in ref.network.layers if layer.params]
    rates, decays = [], []
    for mine, name in zip(held, convolutions, strict=True):
        for role, pid in mine.params.items():
            param = ref.network.params[pid]
            if param.rate_multiplier != 1:
                rates.append(Change("rate", name, {"role": role, "factor": param.rate_multiplier}))
            decays.append(Change("regularize", name, {"role": role, "l2": penalty * param.decay_multiplier}))
    return tried(
        SEED / "net.mat",
        SEED / "model.h5",
        SEED / "batch.npz",
        {
            "conv-groups": [argument("conv2d_5", groups=2)],
            "optimizer-kind": [Change("optimizer", values=rule)],
            "optimizer-learning-rate": [Change("optimizer", values={"learning_rate": rule["config"]["learning_rate"]})],
            "optimizer-weight-decay-as-lr-decay": [Change("optimizer", values={"decay": 0.0}), *decays],
            "optimizer-lr-multiplier": rates,
        },
    )


def test_after_all_fixes_the_example_matches(example):
    assert example.after.verdict == "match", as_text(example.after)
    assert not example.left
    assert all(f.fix_verified for f in example.before.findings if f.severity == "divergence")


def test_before_and_after_are_shown(example):
    text = as_text(FixView(example))
    assert "verified  conv-groups at conv2d_5" in text
    assert "conv2d_5: groups=2" in text
    lines = [line.split() for line in text.splitlines()]
    structure = next(line for line in lines if line[:1] == ["structure"])
    assert "ip1" in structure
    assert structure[-1] == "match"
    assert lines[-1][0] == "verdict"
    assert lines[-1][-1] == "match"


@pytest.mark.parametrize("extension", [".keras", ".h5"])
def test_the_repaired_model_and_its_script_compute_the_same(example, tmp_path, extension, elsewhere):
    fix, script = tmp_path / f"fixed{extension}", tmp_path / "fix.py"
    kept = (SEED / "model.h5").read_bytes()
    lines = save_fix(example, fix, script, keras=SEED / "model.h5")
    assert any("learning rates are not in the model's file" in line for line in lines)
    assert (SEED / "model.h5").read_bytes() == kept
    batch = load(SEED / "batch.npz")
    ours = opened(fix, batch)
    assert ours.recipe.optimizer.name == "SGD"
    assert [param.l2 for param in ours.network.params.values() if param.role == "kernel"] == pytest.approx([2.5e-4] * 6)
    assert set(ours.recipe.metrics) == set(opened(SEED / "model.h5", batch).recipe.metrics)
    shown = np.asarray(ours.model(batch.arrays["x"]))
    fix.unlink()
    end, _ = elsewhere.run("import runpy; runpy.run_path('fix.py', run_name='__main__')", tmp_path)
    assert end == 0
    np.testing.assert_allclose(np.asarray(opened(fix, batch).model(batch.arrays["x"])), shown, rtol=1e-6, atol=1e-7)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_scripts_factors_multiply_the_steps(example, tmp_path, elsewhere):
    script = tmp_path / "fix.py"
    save_fix(example, None, script, keras=SEED / "model.h5")
    end, said = elsewhere.run(STEPS, tmp_path)
    assert end == 0
    kernel, bias = map(float, said.split()[-2:])
    assert kernel == pytest.approx(1, rel=1e-3)
    assert bias == pytest.approx(2, rel=1e-3)


STEPS = """
import runpy
import numpy as np
import tensorflow as tf

found = runpy.run_path("fix.py")
model = found["main"]()
rate = float(model.optimizer.learning_rate)
variables = model.trainable_variables[:2]
before = [np.array(v) for v in variables]
model.optimizer.build(model.trainable_variables) if hasattr(model.optimizer, "build") else None
model.optimizer.apply_gradients([(tf.ones_like(v), v) for v in model.trainable_variables])
print(*(float(np.mean(b - np.array(v))) / rate for b, v in zip(before, variables)))
"""


def test_nothing_is_written_where_no_fix_holds(example, tmp_path):
    failed = replace(example.before, findings=tuple(replace(f, fix_verified=False) for f in example.before.findings))
    with pytest.raises(BadUsage, match="no fix that was tried"):
        save_fix(replace(example, before=failed), tmp_path / "fixed.keras", None, keras=SEED / "model.h5")
    bare = replace(failed, findings=tuple(replace(f, changes=()) for f in failed.findings))
    with pytest.raises(BadUsage, match="no finding has a fix"):
        save_fix(Repair(bare), tmp_path / "fixed.keras", None, keras=SEED / "model.h5")
    agreed = replace(bare, verdict="match", findings=())
    with pytest.raises(BadUsage, match="nothing to fix"):
        save_fix(Repair(agreed), tmp_path / "fixed.keras", None, keras=SEED / "model.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fix", "script", "words"),
    [
        ("model.keras", None, "would write over"),
        ("link.h5", None, "would write over"),
        ("fixed.txt", None, ".keras or .h5"),
        (None, "fix.sh", ".py"),
        (None, "batch.py", "would write over"),
        ("nowhere/fixed.keras", None, "no directory"),
    ],
)
def test_inputs_are_never_written_over(tmp_path, fix, script, words):
    inputs = [tmp_path / "net.mat", tmp_path / "model.keras", tmp_path / "batch.npz"]
    for path in inputs:
        path.write_bytes(b"")
    (tmp_path / "link.h5").symlink_to(inputs[1])
    check_fix(tmp_path / "good.keras", tmp_path / "good.py", inputs)
    with pytest.raises(BadUsage, match=words):
        check_fix(fix and tmp_path / fix, script and tmp_path / script, inputs)


def test_changes_in_words():
    said = {
        "bn: epsilon=1e-05": argument("bn", epsilon=1e-5),
        "ReLU() behind conv2": insert("conv2", "ReLU"),
        "without tanh": Change("remove", "tanh"),
        "join reads b, a": Change("rewire", "join", {"inputs": ["b", "a"]}),
        "drop behind fc": Change("rewire", "drop", {"behind": "fc"}),
        "conv1: kernel regularizer L2(0.0005)": Change("regularize", "conv1", {"role": "kernel", "l2": 5e-4}),
        "conv1: learning rate of its bias × 2": Change("rate", "conv1", {"role": "bias", "factor": 2.0}),
        "optimizer: SGD(learning_rate=0.01)": Change(
            "optimizer", values={"class_name": "SGD", "config": {"learning_rate": 0.01}}
        ),
        "loss: from_logits=True": Change("loss", values={"config": {"from_logits": True}}),
        "conv1: trainable=False": Change("trainable", "conv1", {"trainable": False}),
        "x = x[..., ::-1]": Change("input", values={"code": "x[..., ::-1]"}),
    }
    assert [change_words(change) for change in said.values()] == list(said)
