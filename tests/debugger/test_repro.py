"""Scripts for bug reports: each runs where parity cannot be imported, and shows the same tensors as differing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity.debugger.repro import write_repro
from parity.debugger.stepper import Stepper
from parity.errors import BadUsage
from tests import twins

SEED = Path(__file__).parents[2] / "traces" / "seed"
HASTY = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)
"""Compiling well would take most of jax' time."""


@pytest.fixture
def shown(elsewhere):
    """Gives a script's exit code, and the tensors that differ by what it prints."""

    def run(folder):
        code, said = elsewhere.run("import runpy; runpy.run_path('repro.py', run_name='__main__')", folder)
        assert said, code
        return code, _differing(said)

    return run


def _differing(said):
    rows = [line.split() for line in said.splitlines()[1:]]
    assert rows, said
    return {row[0] for row in rows if row[-1] == "differs"}


def born(stepper):
    return {p.tensor for p in stepper.here.state.probes if p.status == "born"}


def test_a_script_that_takes_parity_or_ends_badly_is_told(elsewhere, tmp_path):
    assert "import of parity halted" in elsewhere.run("import parity", tmp_path)[0]
    assert elsewhere.run("print('seen'); raise SystemExit(1)", tmp_path) == (1, "seen\n")


def test_the_update_of_a_layer(tmp_path, shown):
    """SGD of the reference against the file's RMSprop."""
    stepper = Stepper.open(SEED / "net.mat", SEED / "model.h5", SEED / "batch.npz", steps=2)
    stepper.goto(next(s.index for s in stepper.stops if s.phase == "update" and s.layer == "conv2" and s.step == 2))
    assert born(stepper) == {"kernel", "bias"}
    write_repro(stepper, tmp_path)
    assert shown(tmp_path) == (1, {"kernel", "bias"})


def two_models(**second):
    """A Keras model and its copy, but for what is named."""
    layers = twins.normalised()
    return [twins.twin(layers, decay=None, weights=True, **options) for options in ({}, second)]


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ({"edits": {"bn2": {"epsilon": 1e-2}}}, "bn2 forward"),
        ({"edits": {"bn2": {"epsilon": 1e-2}}}, "bn2 backward"),
    ],
)
def test_a_keras_reference(fault, where, tmp_path, shown):
    ref, keras = two_models(**fault)
    stepper = Stepper.open(ref, keras, twins.batch(), steps=1)
    stepper.run_to(where)
    found = born(stepper)
    assert found
    write_repro(stepper, tmp_path)
    assert "torch" not in (tmp_path / "repro.py").read_text(encoding="utf-8")
    code, differing = shown(tmp_path)
    assert code == 1
    assert found <= differing


def test_another_pooling_of_matconvnet(tmp_path, shown):
    """A maximum looks for NaN, which no trace of it can."""
    import keras

    layers = twins.plain()
    path = twins.save(tmp_path / "net.mat", layers)
    mean = {"pool1": lambda *_, **named: keras.layers.AveragePooling2D(2, 2, name="pool1")}
    stepper = Stepper.open(path, twins.twin(layers, swap=mean), twins.batch(), steps=1)
    stepper.run_to("pool1 backward")
    assert born(stepper) == {"dx"}
    write_repro(stepper, tmp_path)
    assert shown(tmp_path) == (1, {"output", "dx"})


def test_what_differs_by_little_is_told_from_rounding(tmp_path):
    """Some tens of noise floors, which the script would else take for rounding on another machine."""
    layers = twins.normalised()
    path = twins.save(tmp_path / "net.mat", layers)
    port = twins.twin(layers, edits={"bn2": {"epsilon": 5e-5}})
    stepper = Stepper.open(path, port, twins.batch(), steps=1)
    stepper.run_to("bn2 forward")
    (probe,) = stepper.here.state.probes
    assert probe.status == "born"
    assert probe.isolated_x_floor < 100
    stepper.restart()
    assert "forward of bn2" in write_repro(stepper, tmp_path)
    assert stepper.position == 0  # it goes nowhere
    stepper.run_to("bn2 forward")
    (row,) = re.findall(r'\("output", .*, ([\d.e-]+)\),', (tmp_path / "repro.py").read_text(encoding="utf-8"))
    look = stepper.look()
    gap = look.tensor("output", "keras") - look.tensor("output", "ref")
    assert probe.floor < float(row) < np.sqrt(np.mean(gap.astype(float) ** 2))


CLASSES = """
import keras


@keras.saving.register_keras_serializable("own")
class Halved(keras.layers.Layer):
    def __init__(self, factor=0.5, **named):
        super().__init__(**named)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}
"""


def test_a_class_of_the_users_own_file_is_copied_beside_the_script(tmp_path, shown):
    import runpy

    import keras

    own = tmp_path / "classes.py"
    own.write_text(CLASSES, encoding="utf-8")
    made = runpy.run_path(str(own))["Halved"]
    layers = twins.plain()
    half = {"relu2": lambda *_, **named: made(0.25, name="relu2")}
    twins.twin(layers, swap=half).save(tmp_path / "model.keras")
    keras.saving.get_custom_objects().clear()
    path = twins.save(tmp_path / "net.mat", layers)
    stepper = Stepper.open(path, tmp_path / "model.keras", twins.batch(), steps=1, custom_objects=str(own))
    stepper.run_to("relu2 forward")
    assert born(stepper) == {"output"}
    said = write_repro(stepper, tmp_path / "repro")
    assert "custom_objects.py" in said
    own.unlink()
    assert shown(tmp_path / "repro") == (1, {"output"})


def test_a_frozen_batch_normalisation_takes_its_averages_in_the_script_too(tmp_path, shown):
    layers = twins.normalised()
    path = twins.save(tmp_path / "net.mat", layers)
    port = twins.twin(layers)
    port.get_layer("bn2").trainable = False
    stepper = Stepper.open(path, port, twins.batch(), steps=1)
    for where, tensors in (("bn2 forward", {"output"}), ("bn2 backward", {"output", "dx"})):
        stepper.run_to(where)
        assert born(stepper) <= tensors
        write_repro(stepper, tmp_path)
        code, differing = shown(tmp_path)
        assert code == 1
        assert tensors <= differing


def _of_operations(module, flaw):
    """A model with bare operations between its layers: a slice, a product with an array, a mean, a rectifier."""
    made = module.Input((8, 8, 3))
    x = module.layers.Conv2D(4, 3, name="conv")(made)[..., 1:3]
    shift = np.array([1.0, 2.0 + flaw], np.float32)
    if module.__name__ == "keras":
        x = module.ops.relu6(module.ops.mean(module.ops.multiply(x, shift), axis=(1, 2)))
    else:
        import tensorflow as tf

        x = tf.nn.relu6(tf.reduce_mean(tf.multiply(x, shift), axis=(1, 2)))
    model = module.Model(made, module.layers.Dense(4, name="dense")(x))
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("name", ["keras", "tf_keras"])
def test_bare_operations(name, tmp_path, shown):
    import importlib

    module = importlib.import_module(name)
    ref, port = (_of_operations(module, flaw) for flaw in (0.0, 0.5))
    port.set_weights(ref.get_weights())
    stepper = Stepper.open(ref, port, twins.batch(size=(8, 8, 3)), steps=1)
    for phase in ("forward", "backward"):
        stepper.goto(next(s.index for s in stepper.stops if s.phase == phase and "multiply" in s.layer))
        found = born(stepper)
        assert found
        write_repro(stepper, tmp_path)
        code, differing = shown(tmp_path)
        assert code == 1
        assert found <= differing
    text = (tmp_path / "repro.py").read_text(encoding="utf-8")
    assert ("keras.ops.multiply(" if name == "keras" else "tf.math.multiply(") in text
    assert "def mean" not in text  # nothing that it does not need


def test_an_optimizer_of_ones_own_is_refused(tmp_path):
    import keras

    class Own(keras.optimizers.SGD):
        pass

    ref, port = two_models(optimizer=Own(0.02))
    stepper = Stepper.open(ref, port, twins.batch(), steps=1)
    stepper.run_to("conv2 update")
    with pytest.raises(BadUsage, match="its optimizer is Own, a class that is not Keras' own"):
        write_repro(stepper, tmp_path)


def test_two_optimizers_of_keras(tmp_path, shown):
    import keras

    ref, port = two_models(optimizer=keras.optimizers.Adam(0.01))
    stepper = Stepper.open(ref, port, twins.batch(), steps=1)
    stepper.run_to("conv2 update")
    write_repro(stepper, tmp_path)
    assert shown(tmp_path) == (1, {"kernel", "bias"})


def test_a_loss_that_adds_up_weighted_images(tmp_path, shown):
    import keras

    layers, batch = twins.plain(), twins.batch()
    path = twins.save(tmp_path / "net.mat", layers)
    port = twins.twin(layers, loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum"))
    weights = np.linspace(0.2, 2, len(batch["y"]), dtype=np.float32)
    stepper = Stepper.open(path, port, {**batch, "w": weights}, steps=1)
    for where, tensors in (("loss loss", {"loss"}), ("loss backward", {"loss", "dx"})):
        stepper.run_to(where)
        assert born(stepper) == tensors - ({"loss"} if "dx" in tensors else set())
        write_repro(stepper, tmp_path)
        assert shown(tmp_path) == (1, tensors)
    held = np.load(tmp_path / "tensors.npz")
    assert np.array_equal(held["w loss"], weights[: len(held["w loss"])])


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_gradients_on_another_backend(backend, tmp_path):
    """A batch normalisation, whose averages have no gradient, in a process that parity leaves for the script."""
    code = """
import os, runpy, sys
from pathlib import Path
import numpy as np
from parity.debugger.repro import write_repro
from parity.debugger.stepper import Stepper
from tests import twins
folder, layers = Path(sys.argv[1]), twins.normalised()
layers = [*layers[:2], twins.conv("classifier", np.random.default_rng(0), (7, 7, 6, 4)), layers[-1]]
path = twins.save(folder / "net.mat", layers)
stepper = Stepper.open(path, twins.twin(layers, edits={"bn1": {"epsilon": 1e-2}}), twins.batch(), steps=1)
stepper.goto(next(stop.index for stop in stepper.stops if (stop.layer, stop.phase) == ("bn1", "backward")))
write_repro(stepper, folder)
os.chdir(folder)
sys.modules.update({name: None for name in sys.modules if name.split(".")[0] == "parity"})
runpy.run_path("repro.py", run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2], capture_output=True, text=True,
        timeout=300, check=False, env={**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": HASTY},
    )  # fmt: skip
    assert "tensorflow" not in (tmp_path / "repro.py").read_text(encoding="utf-8")
    assert done.returncode == 1, done.stderr[-2000:]
    assert {"dx", "dgamma"} <= _differing(done.stdout)


def test_what_cannot_be_written_is_said_in_a_line(tmp_path):
    import keras

    optimizer = keras.optimizers.Adam(0.01, global_clipnorm=1.0)
    ref, port = two_models(optimizer=optimizer)
    stepper = Stepper.open(ref, port, twins.batch(), steps=1)
    stepper.run_to("conv2 update")
    with pytest.raises(BadUsage, match="all parameters together"):
        write_repro(stepper, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_right_update_shows_nothing(tmp_path, shown):
    """The script is held against rounding: of optimizers that agree it says so."""
    from parity.debugger.repro_update import update_script

    layers = twins.plain()
    path = twins.save(tmp_path / "net.mat", layers)
    stepper = Stepper.open(path, twins.twin(layers), twins.batch(), steps=2)
    stepper.goto(len(stepper.stops) - 1)
    moves = stepper.training.update(2)
    for move in moves:  # as if they had been born: what the script then computes is what counts
        object.__setattr__(move, "status", "born")
    code, arrays = update_script(stepper, stepper.stop)
    (tmp_path / "repro.py").write_text(code, encoding="utf-8")
    np.savez(tmp_path / "tensors.npz", **arrays)
    assert shown(tmp_path) == (0, set())
