"""Runs that `parity_record.m` recorded: what is in them, and what a comparison with one says."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from parity.cli import main
from parity.errors import BadFile, CannotCompare
from parity.frameworks.matconvnet.matfile import read
from parity.frameworks.matconvnet.recorded import RecordedRunner
from parity.frameworks.matconvnet.recording import is_recording, read_recording
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.runner import Targets

HERE = Path(__file__).parent
RECORDED = Path(__file__).parents[3] / "traces" / "octave"


@pytest.fixture(scope="module")
def octave() -> str:
    found = shutil.which("octave-cli") or shutil.which("octave")
    if found is None:
        pytest.skip("GNU Octave is not installed (Debian: octave)")
    return found


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, octave: str) -> Path:
    """The same runs, recorded now."""
    folder = tmp_path_factory.mktemp("octave")
    code = f"addpath('{HERE / 'octave'}'); record_runs('{folder}')"
    done = subprocess.run([octave, "--no-gui", "--quiet", "--eval", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def simple(
    epsilon: float = 1e-5, slope: float = 0.0, decay: float = 0.00025, rate: float = 0.1, drop: float | None = None
) -> Any:
    """The Keras twin of the recorded SimpleNN."""
    import keras
    from keras import layers

    def penalty() -> Any:
        return keras.regularizers.L2(decay) if decay else None

    x = inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, padding="same", name="c1", kernel_regularizer=penalty(), bias_regularizer=penalty())(x)
    x = layers.BatchNormalization(epsilon=epsilon, momentum=0.9, name="b1")(x)
    x = layers.ReLU(negative_slope=slope, name="r1")(x)
    if drop is not None:
        x = layers.Dropout(drop, name="drop")(x)
    x = layers.Rescaling(0.5, name="half")(x)
    x = layers.Conv2D(3, 6, name="c2", kernel_regularizer=penalty(), bias_regularizer=penalty())(x)
    model = keras.Model(inputs, layers.Flatten()(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(rate, momentum=0.9), loss=loss)
    return model


@pytest.mark.parametrize("name", ["simple_head", "simple_sums", "dag"])
def test_what_was_recorded_is_what_parity_computes(name: str) -> None:
    recording = read_recording(RECORDED / f"{name}.mat")
    runner, own = RecordedRunner(recording), MatConvNetRunner(recording.network, recording.recipe)
    targets = Targets(recording.targets)
    seen = runner.run(recording.inputs, targets)
    again = own.run(recording.inputs, targets)
    compared = [t for t in seen.outputs if t in again.outputs]
    assert len(compared) >= 4
    for tensor in compared:
        np.testing.assert_allclose(seen.outputs[tensor], again.outputs[tensor], rtol=1e-5, atol=2e-6)
    foreign = next(layer for layer in recording.network.layers if layer.name == "half")
    fed = seen.outputs[foreign.inputs[0]]
    np.testing.assert_array_equal(seen.outputs[foreign.output], fed / 2)
    # The mean loss, whichever release recorded it: its derivative with respect to the scores sums to zero per image.
    scores = recording.network.losses[0].inputs[0]
    odds = np.exp(seen.outputs[scores]) / np.exp(seen.outputs[scores]).sum(-1, keepdims=True)
    wanted = (odds - np.eye(3)[recording.targets[recording.network.labels[0]]][:, None, None]) / 5
    np.testing.assert_allclose(seen.output_grads[scores], wanted, atol=1e-6)


def test_sums_and_means_are_the_same_run() -> None:
    means, sums = (read_recording(RECORDED / f"simple_{name}.mat") for name in ("head", "sums"))
    assert (means.recipe.version, sums.recipe.version) == ("head", "beta25")
    for key, value in means.after[-1].items():
        np.testing.assert_allclose(sums.after[-1][key], value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums.losses, means.losses, rtol=1e-5)


def test_the_recorded_updates_are_walked_through() -> None:
    recording = read_recording(RECORDED / "dag.mat")
    runner = RecordedRunner(recording)
    runner.reset()
    for after in recording.after:
        seen = runner.run(recording.inputs, Targets(recording.targets), observe=runner.params() == {})
        runner.update(seen.param_grads, seen.statistics)
        for key, value in runner.params().items():
            np.testing.assert_array_equal(value, after[key])


def test_other_weights_are_not_answered_by_the_recording() -> None:
    recording = read_recording(RECORDED / "dag.mat")
    runner = RecordedRunner(recording)
    runner.load({"c1b": np.full(4, 9.0, np.float32)})
    seen = runner.run(recording.inputs, Targets(recording.targets))
    assert float(np.abs(seen.outputs["a"] - recording.seen.outputs["a"]).min()) > 1.0
    assert "d" not in seen.outputs  # only MatConvNet had its code


@pytest.mark.parametrize("fault", [{}, {"epsilon": 1e-3}, {"slope": 0.2}, {"rate": 0.07}])
def test_a_comparison_with_a_recording(fault: dict[str, float]) -> None:
    report = parity.compare(RECORDED / "simple_head.mat", simple(**fault), verify=False)
    half = [p for p in report.probes if p.layer == "half" and p.phase == "forward"]
    assert half
    assert all(p.status in ("match", "inherited") for p in half)
    causes = {(f.cause, f.layer) for f in report.findings if f.severity == "divergence"}
    assert ("optimizer-lr-multiplier", "c2") in causes  # its biases move twice as fast; nothing in Keras does
    rest = {cause for cause, _ in causes} - {"optimizer-lr-multiplier"}
    wanted = {"epsilon": "bn-epsilon", "slope": "activation-slope", "rate": "optimizer-learning-rate"}
    assert rest == {wanted[key] for key in fault}
    if "epsilon" in fault:
        assert report.first_divergence is not None
        assert (report.first_divergence.phase, report.first_divergence.layer) == ("forward", "b1")


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_keras_drops_what_the_recorded_run_dropped(rate: float) -> None:
    """Else nothing behind a dropout could be compared: layers of the author's own cannot be run with other masks."""
    path = RECORDED / "simple_dropout.mat"
    kept = [masks["drop"] for masks in read_recording(path).masks]
    assert len(kept) == 2
    assert not np.array_equal(*kept)
    report = parity.compare(path, simple(drop=rate), steps=2, verify=False)
    causes = {(f.cause, f.layer, f.confirmed) for f in report.findings if f.severity == "divergence"}
    wanted = {("optimizer-lr-multiplier", "c2", True)} | ({("dropout-rate", "drop", True)} if rate != 0.25 else set())
    assert causes == wanted
    assert not [p for p in report.probes if p.status == "unverified"]
    assert {p.status for p in report.probes if p.layer in ("half", "loss")} <= {"match", "inherited"}


def test_derivatives_and_updates_that_were_not_recorded_are_asked_for_in_one_line(fresh: Path) -> None:
    with pytest.raises(CannotCompare, match=r"2 updates were recorded, of layers that .* --steps 2 at most"):
        parity.compare(RECORDED / "simple_dropout.mat", simple(drop=0.25), verify=False)
    still = read_recording(fresh / "simple_still.mat")  # derivatives, and no updates
    assert (len(still.steps), still.after) == (1, ())
    # The update that was not recorded is the one that MatConvNet's trainer makes.
    moving = read_recording(RECORDED / "simple_dropout.mat")
    runner = RecordedRunner(dataclasses.replace(moving, after=()))
    seen = runner.run(moving.inputs, Targets(moving.targets))
    runner.update(seen.param_grads, seen.statistics)
    for key, value in runner.params().items():
        np.testing.assert_allclose(value, moving.after[0][key], rtol=1e-5, atol=1e-6)
    bare = RecordedRunner(dataclasses.replace(still, steps=()))
    with pytest.raises(CannotCompare, match="holds no derivatives"):
        bare.run(still.inputs, Targets(still.targets))
    assert "half" in {layer.name for layer in still.network.layers}
    assert bare.run(still.inputs, None, backward=False).outputs


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("parity_record(simple, {x}, 'lost.mat')", "the network ends in a loss: INPUTS are {IMAGES, LABELS}"),
        ("parity_record(dagnn.DagNN(), {x}, 'lost.mat')", "INPUTS of a DagNN are names and values"),
        ("parity_record(simple, {x, 1}, 'lost.mat', 'rate', 1)", "unknown option 'rate'"),
        ("parity_record(3, {x, 1}, 'lost.mat')", "NET is neither a SimpleNN nor a DagNN"),
    ],
)
def test_the_function_says_what_it_was_called_without(call: str, said: str, octave: str, tmp_path: Path) -> None:
    matlab = Path(parity.__file__).parent / "frameworks" / "matconvnet" / "matlab"
    begun = f"addpath('{HERE / 'octave'}', '{matlab}'); cd '{tmp_path}'; x = single(ones(6, 6, 2, 1)); "
    net = "simple.layers = {struct('type', 'softmaxloss', 'name', 'loss')}; "
    code = f"{begun}{net}try, {call}; catch found, disp(found.message); end"
    done = subprocess.run([octave, "--no-gui", "--quiet", "--eval", code], capture_output=True, text=True, check=False)
    assert said in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("layer", "said"), [("custom", True), ("relu", False)])
def test_the_function_says_that_a_loss_of_ones_own_is_not_recorded(
    layer: str, said: bool, octave: str, tmp_path: Path
) -> None:
    matlab = Path(parity.__file__).parent / "frameworks" / "matconvnet" / "matlab"
    begun = f"addpath('{HERE / 'octave'}', '{matlab}'); cd '{tmp_path}'; x = single(ones(6, 6, 2, 1)); "
    net = f"net.layers = {{struct('type', '{layer}', 'name', 'own', 'forward', @(l, before, after) before)}}; "
    code = f"{begun}{net}parity_record(net, {{x}}, 'run.mat'); disp(lastwarn())"
    done = subprocess.run([octave, "--no-gui", "--quiet", "--eval", code], capture_output=True, text=True, check=False)
    assert ("neither gradients nor updates are recorded" in done.stdout) == said, done.stderr
    assert (tmp_path / "run.mat").exists()


def test_an_evaluation_that_was_recorded() -> None:
    report = parity.compare(RECORDED / "simple_eval.mat", simple(), mode="eval", verify=False)
    assert report.verdict == "match", report
    with pytest.raises(CannotCompare, match="recorded in eval mode; compare it with --mode eval"):
        parity.compare(RECORDED / "simple_eval.mat", simple(), verify=False)


def test_another_batch_is_refused() -> None:
    batch = {"x": np.zeros((5, 6, 6, 2), np.float32), "y": np.zeros(5, int)}
    with pytest.raises(CannotCompare, match="recorded on another batch"):
        parity.compare(RECORDED / "dag.mat", simple(), batch, verify=False)


def test_damaged_and_newer_recordings_are_refused(tmp_path: Path) -> None:
    held = read(RECORDED / "dag.mat")
    assert is_recording(held)
    newer = {**held, "parity": {**held["parity"], "format": np.array([[2.0]])}}
    with pytest.raises(BadFile, match="format 2, this parity reads up to 1"):
        read_recording("newer.mat", data=newer)
    for key, value in {"images": np.array([[7.0]]), "kind": "simplenn", "steps": [{}], "vars": None}.items():
        damaged = {**held, "parity": {**held["parity"], key: value}}
        with pytest.raises(BadFile, match="damaged"):
            read_recording("damaged.mat", data=damaged)
    whole = (RECORDED / "dag.mat").read_bytes()
    (tmp_path / "cut.mat").write_bytes(whole[: len(whole) // 2])
    assert main(["compare", "--ref", str(tmp_path / "cut.mat"), "--keras", str(RECORDED / "dag.mat")]) == 2


@pytest.mark.parametrize("name", ["simple_head", "simple_sums", "simple_eval", "simple_dropout", "dag"])
def test_octave_records_the_shipped_runs_again(fresh: Path, name: str) -> None:
    now, shipped = (read_recording(folder / f"{name}.mat") for folder in (fresh, RECORDED))
    assert set(now.seen.outputs) == set(shipped.seen.outputs)
    for tensor, value in shipped.seen.outputs.items():
        np.testing.assert_allclose(now.seen.outputs[tensor], value, rtol=1e-4, atol=1e-5)
    assert len(now.after) == len(shipped.after) == {"simple_eval": 0, "simple_dropout": 2, "dag": 2}.get(name, 3)


def test_the_command_writes_the_function(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matlab", "-o", str(tmp_path / "new" / "folder")]) == 0
    text = (tmp_path / "new" / "folder" / "parity_record.m").read_text()
    assert text.startswith("function parity_record(net, inputs, file, varargin)")
    assert "parity compare --ref run.mat" in capsys.readouterr().out
    (tmp_path / "file").write_text("")
    assert main(["matlab", "-o", str(tmp_path / "file")]) == 2
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("loss", "given", "expected"),
    [
        ("softmaxloss", [1, -1, 3, 0, 2], [0, -1, 2, -1, 1]),
        ("loss", [1, -1, 3, 0, 2], [0, 0, 2, -1, 1]),  # vl_nnloss takes a negative label for class 1
    ],
)
def test_labels_that_are_not_classes_are_read_as_matconvnet_does(
    loss: str, given: list[int], expected: list[int]
) -> None:
    data = read(RECORDED / "simple_head.mat")
    data["net"]["layers"][-1]["type"] = loss
    label = next(item for item in data["parity"]["inputs"] if item["name"] == "label")
    label["value"] = np.array([given], np.float32)
    recording = read_recording(Path("x.mat"), None, data)
    np.testing.assert_array_equal(recording.targets["labels"], expected)
    label["value"] = np.array([given], np.float32) + 0.5
    with pytest.raises(BadFile, match="labels labels that are no classes"):
        read_recording(Path("x.mat"), None, data)
