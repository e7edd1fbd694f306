"""Files come to life: predictions, optimizer and the next step as the Keras that wrote them had them."""

import numpy as np
import pytest

from parity.errors import BadFile, ParityError, Refused
from parity.frameworks.keras.load import load
from parity.frameworks.keras.runner import KerasRunner
from tests.frameworks.keras.real import TRACES, files


def _id(path):
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", files("*/*lambda*"), ids=_id)
def test_a_lambda_is_refused_before_loading(path, monkeypatch):
    monkeypatch.setattr("parity.frameworks.keras.load.engine_of", lambda _: pytest.fail("Keras was called"))
    with pytest.raises(Refused, match=r"layer scale is a Lambda.*does not run it"):
        load(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_custom_classes(tmp_path, suffix):
    from parity.frameworks.keras.engine import engine_of

    keras = engine_of("keras").keras
    source = tmp_path / "objects.py"
    source.write_text(
        "import keras\nclass Twice(keras.layers.Layer):\n    def call(self, x):\n        return x * 2.0\n"
        "def third(x):\n    return x / 3.0\n"
    )
    space = {}
    exec(source.read_text(), space)
    layers = [keras.Input((4,)), space["Twice"](name="two"), keras.layers.Dense(2, activation=space["third"])]
    model = keras.Sequential(layers)
    path = tmp_path / f"custom{suffix}"
    model.save(path)
    with pytest.raises(Refused, match=r"custom class Twice.*--custom-objects"):
        load(path)
    x = np.ones((3, 4), np.float32)
    runner = KerasRunner.open(path, x, str(source))
    seen = runner.run({"x": x}, None, mode="eval")
    np.testing.assert_allclose(seen.outputs["two"], 2 * x)
    np.testing.assert_allclose(seen.outputs[runner.network.outputs[0]], model(x), rtol=1e-6)
    source.write_text("raise ValueError('no')")
    with pytest.raises(BadFile, match="failed with"):
        load(path, str(source))


def test_a_function_that_leaves_keras_is_refused(tmp_path):
    from parity.frameworks.keras.safety import code_in

    activation = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "activation": activation}}
    assert list(code_in(dense)) == [("d", "system", "function")]
    inner = {
        "module": "keras.src.utils.file_utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": "get_file",
    }
    dense["config"]["activation"] = inner
    assert list(code_in(dense)) == [("d", "get_file", "function")]
    op = {"class_name": "TFOpLambda", "config": {"name": "w", "function": "io.write_file"}}
    assert [kind for _, _, kind in code_in(op)] == ["class"]
    fine = {"class_name": "TFOpLambda", "config": {"name": "a", "function": "__operators__.add"}}
    assert not list(code_in(fine))


def test_what_keras_cannot_rebuild_is_one_line(tmp_path):
    import h5py

    path = tmp_path / "odd.h5"
    path.write_bytes((TRACES / "k2.1.6_tf1.8/reg_l2.h5").read_bytes())
    with h5py.File(path, "a") as f:
        f.attrs["model_config"] = str(f.attrs["model_config"]).replace('"filters": 8', '"filters": 9')
    with pytest.raises(ParityError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("engine", "said"),
    [("tf_keras", {"loss": ["mse"] * 3}), ("tf_keras", {"loss_weights": ["a"]}), ("keras", {"loss_weights": ["a"]})],
)
def test_losses_that_are_not_as_many_as_the_outputs_are_one_line(tmp_path, engine, said):
    import importlib
    import json

    import h5py

    import parity

    path, k = tmp_path / "odd.h5", importlib.import_module(engine)
    model = k.Sequential([k.Input((3,)), k.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.save(path)
    with h5py.File(path, "a") as f:
        f.attrs["training_config"] = json.dumps({**json.loads(str(f.attrs["training_config"])), **said})
    with pytest.raises(ParityError, match=r"do not fit its outputs|cannot rebuild its loss") as caught:
        parity.compare(path, path)
    assert "\n" not in str(caught.value)
