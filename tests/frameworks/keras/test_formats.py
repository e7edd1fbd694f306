"""Weights alone, SavedModels, models from the user's code, engines and backends: each opens, or says why not."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from parity import cli, opening
from parity.errors import BadFile, BadUsage, CannotCompare, ParityError, Refused
from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.files import read
from parity.frameworks.keras.lift import lift
from parity.frameworks.keras.load import open_keras
from parity.frameworks.keras.sources import build, is_source
from tests.frameworks.keras.real import TRACES, oracle


def small(keras, compiled=True, recurrent="LSTM"):
    """A net with every kind of variable that a file of weights has to tell apart."""
    layers = keras.layers
    start = layers.Input((8, 8, 2), name="images")
    x = layers.Conv2D(3, 3, activation="relu", name="conv")(start)
    x = layers.BatchNormalization(name="bn")(x)
    inner = keras.Sequential([layers.Input((6, 6, 3)), layers.Conv2D(4, 3, name="deep"), layers.BatchNormalization()])
    x = layers.Reshape((16, 4))(inner(x))
    x = layers.Bidirectional(getattr(layers, recurrent)(3), name="both")(x)
    model = keras.Model(start, layers.Dense(4, activation="softmax", name="out")(x))
    if compiled:
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    return model


def predicted(model, x):
    return np.asarray(model(x))


@pytest.fixture
def trained(keras):
    """A small model after a step, its batch, and what it predicts."""
    rng = np.random.default_rng(1)
    model = small(keras)
    x, y = rng.normal(size=(6, 8, 8, 2)).astype(np.float32), rng.integers(0, 4, size=6)
    model.run_eagerly = True  # tracing and compiling it would take seconds
    model.train_on_batch(x, y)
    return model, x, predicted(model, x)


@pytest.mark.parametrize("extension", ["_weights.h5", ".weights.h5"])
def test_weights_alone_with_the_models_json(tmp_path, trained, extension, keras):
    model, x, wanted = trained
    weights, arch = tmp_path / f"net{extension}", tmp_path / "model.json"
    if extension == "_weights.h5" and keras.__name__ == "keras":
        from keras.src.legacy.saving import legacy_h5_format

        with h5py.File(weights, "w") as f:
            legacy_h5_format.save_weights_to_hdf5_group(f, model)
    else:
        model.save_weights(weights)
    arch.write_text(model.to_json())
    with pytest.raises(BadFile, match=r"weights only.*--keras-arch"):
        read(weights)
    opened = open_keras(weights, arch=arch)
    assert opened.engine == keras.__name__
    np.testing.assert_allclose(predicted(opened.model, x), wanted, atol=1e-6)
    network, _ = opening.lift(weights, arch)
    names = {layer.origin: layer for layer in network}
    assert len(network.params) == len(model.weights)
    assert sum(np.prod(p.shape) for p in network.params.values()) == model.count_params()
    assert names["both"].shape == (6,)
    other = json.loads(arch.read_text())
    layers = other["config"]["layers"]
    next(layer for layer in layers if layer["config"]["name"] == "out")["config"]["units"] = 5
    arch.write_text(json.dumps(other))
    with pytest.raises(ParityError) as caught:
        open_keras(weights, arch=arch)
    assert "\n" not in str(caught.value)
    assert "out" in str(caught.value)


def test_weights_of_another_model(tmp_path):
    arch = tmp_path / "model.json"
    for text, words in (("[1, 2]", "not one that Keras writes"), ("{", "is damaged")):
        arch.write_text(text)
        with pytest.raises(BadFile, match=words):
            read(_weights(tmp_path), arch)
    with pytest.raises(BadFile, match=r"model\.json: does not exist"):
        read(_weights(tmp_path), tmp_path / "no" / "model.json")


def _weights(folder):
    path = folder / "w.h5"
    with h5py.File(path, "w") as f:
        f.attrs["layer_names"] = [b"dense"]
        f.create_group("dense").attrs["weight_names"] = []
    return path


def source(folder, engine, body="return model"):
    """A Python file that builds a model, with a custom class beside it."""
    (folder / "own_layers.py").write_text(
        f"import {engine} as keras\n\n\nclass Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n        return 2.0 * x\n"
    )
    path = folder / "net.py"
    path.write_text(
        f"import {engine} as keras\nfrom own_layers import Twice\n\n\ndef build():\n"
        "    model = keras.Sequential([keras.layers.Input((4,)), Twice(), keras.layers.Dense(3)])\n"
        f"    {body}\n\n\nmade = build()\n"
    )
    return path


@pytest.fixture
def fresh_modules():
    yield
    for name in ("own_layers", "net"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("fresh_modules")
def test_a_model_from_the_users_code(tmp_path, keras):
    path = source(tmp_path, keras.__name__)
    assert is_source(f"{path}:build")
    assert not is_source(str(path))
    assert not is_source(str(tmp_path / "model.h5"))
    for name in ("build", "made"):
        opened = open_keras(f"{path}:{name}")
        assert opened.engine == keras.__name__
        assert opened.model.count_params() == 15
    weights = tmp_path / "own.weights.h5"
    opened.model.save_weights(weights)
    again = open_keras(weights, arch=f"{path}:build")
    for one, two in zip(opened.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(BadFile, match="does not fit the model"):
        open_keras(TRACES / "k2.1.6_tf1.8/reg_l2.h5", arch=f"{path}:build")


@pytest.mark.usefixtures("fresh_modules")
@pytest.mark.parametrize(
    ("body", "name", "words"),
    [
        ("raise ValueError('no such\\nfile')", "build", r"failed at line 7 \(ValueError: no such file\)"),
        ("return (", "build", "failed at line .*SyntaxError"),
        ("import sys; sys.exit(3)", "build", "failed at line 7.*SystemExit"),
        ("return model", "create", "has no create"),
    ],
)
def test_errors_in_the_users_code_are_one_line(tmp_path, body, name, words):
    path = source(tmp_path, "keras", body)
    with pytest.raises(BadFile, match=words) as caught:
        build(f"{path}:{name}")
    assert "\n" not in str(caught.value)


def test_what_is_no_model(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("def build():\n    return 3\n")
    with pytest.raises(CannotCompare, match="a int is not a Keras model"):
        open_keras(f"{path}:build")
    with pytest.raises(BadFile, match="does not exist"):
        open_keras(f"{tmp_path / 'gone.py'}:build")
    with pytest.raises(BadUsage, match="is a model already"):
        open_keras(f"{path}:build", arch="model.json")


@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_is_read_without_running_it(tmp_path, monkeypatch):
    keras = engine_of("tf_keras").keras
    rng = np.random.default_rng(2)
    # Of an LSTM Keras traces several versions, for seconds.
    model, x = small(keras, recurrent="SimpleRNN"), rng.normal(size=(6, 8, 8, 2)).astype(np.float32)
    model.run_eagerly = True
    model.train_on_batch(x, rng.integers(0, 4, size=6))
    wanted, folder = predicted(model, x), tmp_path / "saved"
    model.save(folder, save_format="tf")
    monkeypatch.setattr("tensorflow.saved_model.load", lambda *_: pytest.fail("its functions were run"))
    network, recipe = opening.lift(folder)
    assert recipe.steps_done == 1
    assert len(recipe.slots) == len(model.trainable_weights)
    assert network.params["conv.kernel"].shape == (3, 3, 2, 3)
    for engine in ("auto", "keras3"):
        opened = open_keras(folder, engine=engine)
        np.testing.assert_allclose(predicted(opened.model, x), wanted, atol=1e-6)
        assert int(np.asarray(opened.model.optimizer.iterations)) == 1
    network, _ = lift(folder)
    assert network.meta["format"] == "savedmodel"
    data = next((folder / "variables").glob("*.data*"))
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(BadFile, match=r"is missing|too short"):
        open_keras(folder)
    (folder / "variables" / "variables.index").write_bytes(b"nonsense")
    with pytest.raises(BadFile, match=r"variables\.index: is damaged"):
        opening.lift(folder)
    (folder / "keras_metadata.pb").write_bytes(b"\\xff\\xff")
    with pytest.raises(BadFile):
        opening.lift(folder)


@pytest.mark.filterwarnings("ignore")
def test_folders_that_hold_no_model(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    module.v = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "plain"))
    small(engine_of("tf_keras").keras).save_weights(str(tmp_path / "ckpt" / "net"))
    (tmp_path / "empty").mkdir()
    for folder, words in (
        ("plain", "without Keras' own description"),
        ("ckpt", "checkpoint, which is weights only"),
        ("empty", "is a directory"),
    ):
        with pytest.raises(BadFile, match=words) as caught:
            opening.lift(tmp_path / folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadFile, match="checkpoint, which holds weights only"):
        read(tmp_path / "ckpt" / "net.index")


OLD = [
    "k2.1.6_tf1.8/arch_residual.h5",
    "k2.1.6_tf1.8/arch_seq_of_func.h5",
    "k2.1.6_tf1.8/arch_nested_seq.h5",
    "k2.15.0_tf2.15/arch_mixed.h5",
    "k2.15.0_tf2.15/arch_shared_submodel.keras",
    "k2.15.0_tf2.15/slim_adam_decay.h5",
]


@pytest.mark.parametrize("name", OLD)
def test_an_old_file_under_keras_3(name):
    path = TRACES / name
    saved = oracle(path)
    opened = open_keras(path, engine="keras3")
    assert type(opened.model).__module__.startswith("keras.")
    seen = np.asarray(opened.model(saved["x"], training=False))
    np.testing.assert_allclose(seen, saved["pred"], rtol=0, atol=2e-6)
    assert opened.remarks[0].startswith("saved by Keras 2")
    if "decay" in name:
        assert any("InverseTimeDecay" in remark for remark in opened.remarks)
    if "mixed" in name:
        assert any("Bessel's correction" in remark for remark in opened.remarks)
    assert not any("saved by Keras" in remark for remark in open_keras(path).remarks)


@pytest.mark.filterwarnings("ignore")
def test_names_with_slashes(tmp_path):
    """Keras 2 allows them (its DenseNet has them), Keras 3 does not; they are no submodels either."""
    keras = engine_of("tf_keras").keras
    L = keras.layers
    start = L.Input((8, 8, 3))
    x = L.BatchNormalization(name="conv1/bn")(L.Conv2D(4, 3, name="conv1/conv")(start))
    inner = keras.Sequential(
        [L.Input((6, 6, 4)), L.Conv2D(5, 3, name="a/b"), L.GlobalAveragePooling2D()], name="in/ner"
    )
    model = keras.Model(start, L.Dense(3, name="conv1")(inner(x)))
    path = tmp_path / "net.h5"
    model.save(path)
    network, _ = opening.lift(path)
    assert sum(int(np.prod(p.shape)) for p in network.params.values()) == model.count_params()
    given = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    wanted = predicted(model, given)
    for engine in ("auto", "keras3"):
        opened = open_keras(path, engine=engine)
        np.testing.assert_allclose(predicted(opened.model, given), wanted, atol=1e-6)


def test_engines_and_backends_that_cannot_be(monkeypatch):
    old, new = TRACES / OLD[0], TRACES / "k3.15.1_tf2.21/arch_residual.keras"
    with pytest.raises(CannotCompare, match=r"saved by Keras 3\.15\.1, which Keras 2 cannot read"):
        open_keras(new, engine="tf_keras")
    with pytest.raises(BadUsage, match="no Keras engine theano"):
        open_keras(old, engine="theano")
    with pytest.raises(BadUsage, match="no backend mxnet"):
        open_keras(old, backend="mxnet")
    engine_of("keras")
    with pytest.raises(CannotCompare, match="already runs on tensorflow in this process"):
        open_keras(new, backend="torch")
    monkeypatch.setattr("parity.frameworks.keras.load.use_backend", lambda _: None)
    with pytest.raises(BadUsage, match="Keras 2 runs on tensorflow only"):
        open_keras(old, engine="tf_keras", backend="torch")


@pytest.mark.parametrize("name", ["arch_residual.keras", "arch_bn.h5"])
def test_keras_2_on_a_file_of_keras_3_is_one_line(capsys, name):
    path = str(TRACES / "k3.15.1_tf2.21" / name)
    assert cli.main(("compare", "--ref", path, "--keras", path, "--keras-engine", "tf_keras")) == 2
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    assert line.endswith("saved by Keras 3.15.1, which Keras 2 cannot read; leave out --keras-engine")
    assert "arch_" in line


def test_a_backend_is_set_before_keras_is_imported():
    code = (
        "from parity.frameworks.keras.load import open_keras\n"
        "from tests.frameworks.keras.real import TRACES, oracle\n"
        f"path = TRACES / {OLD[0]!r}\n"
        "opened, saved = open_keras(path, backend='torch'), oracle(path)\n"
        "import keras\n"
        "assert keras.config.backend() == 'torch' and opened.engine == 'keras'\n"
        "assert abs(opened.model.predict(saved['x'], verbose=0) - saved['pred']).max() < 2e-6\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_trust(tmp_path):
    keras = engine_of("keras").keras
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Lambda(lambda x: 2 * x, name="double")])
    path = tmp_path / "code.keras"
    model.save(path)
    with pytest.raises(Refused, match="layer double is a Lambda"):
        open_keras(path)
    seen = open_keras(path, trust=True).model(np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(np.asarray(seen), 2)
