"""Configurations that ask for more than any model has are refused before a framework makes anything."""

import json
import zipfile

import h5py
import numpy as np
import pytest

from parity.errors import BadFile
from parity.frameworks.keras.lift import lift
from parity.frameworks.keras.load import open_keras
from tests.frameworks.keras.real import TRACES


def changed(tmp_path, name, change):
    """A copy of a real file with its configuration changed."""
    source, path = TRACES / name, tmp_path / name.rsplit("/", 1)[-1]
    if source.suffix == ".h5":
        path.write_bytes(source.read_bytes())
        with h5py.File(path, "a") as f:
            config = json.loads(f.attrs["model_config"])
            change(config)
            f.attrs["model_config"] = json.dumps(config)
        return path
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            data = old.read(member)
            if member == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config)
            new.writestr(member, data)
    return path


def layers(config):
    inner = config["config"]
    return inner if isinstance(inner, list) else inner["layers"]


def put(class_name, **settings):
    """Changes the first layer of a class."""

    def change(config):
        layer = next(entry for entry in layers(config) if entry["class_name"] == class_name)
        layer["config"].update(settings)

    return change


def before(class_name, config):
    """Puts a layer behind the input of a Sequential."""

    def change(model):
        entry = {"module": "keras.layers", "class_name": class_name, "config": config, "registered_name": None}
        layers(model).insert(1, entry)

    return change


REAL = ["k2.1.6_tf1.8/reg_l2.h5", "k2.15.0_tf2.15/reg_l2.h5"]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("Dense", units=10**9), "units=1,000,000,000"),
        (put("Conv2D", filters=10**8), "filters=100,000,000"),
        (put("Dense", units=10**30), "units="),
        (put("Conv2D", strides=[10**12, 1]), "strides=1,000,000,000,000"),
        (before("UpSampling2D", {"name": "up", "size": [10**5, 10**5]}), "values of one image"),
        (before("ZeroPadding2D", {"name": "pad", "padding": [[10**6, 0], [10**6, 0]]}), "values of one image"),
        (before("Dense", {"name": "free", "units": 10**9}), "units=1,000,000,000, but its arrays hold 0"),
    ],
)
def test_absurd_sizes(tmp_path, monkeypatch, name, change, words):
    path = changed(tmp_path, name, change)
    monkeypatch.setattr("parity.frameworks.keras.load.engine_of", lambda _: pytest.fail("Keras was called"))
    with pytest.raises(BadFile, match=words) as caught:
        open_keras(path)
    assert "\n" not in str(caught.value)
    assert lift(path)[0].framework == "keras"


@pytest.mark.parametrize("name", REAL)
def test_the_file_as_it_is_passes(tmp_path, name):
    assert open_keras(changed(tmp_path, name, lambda config: None)).model is not None


def test_data_in_another_file(tmp_path):
    path = tmp_path / "away.h5"
    path.write_bytes((TRACES / REAL[0]).read_bytes())
    raw = tmp_path / "secret.bin"
    raw.write_bytes(np.zeros(8, np.float32).tobytes())
    with h5py.File(path, "a") as f:
        name = next(iter(f["model_weights"]))
        f.create_dataset(f"model_weights/{name}/stolen", (8,), "f4", external=[(str(raw), 0, 32)])
    with pytest.raises(BadFile, match="lies in another file"):
        lift(path)
    with h5py.File(path, "a") as f:
        del f[f"model_weights/{name}/stolen"]
        f["model_weights/soft"] = h5py.SoftLink("/model_weights")
    with pytest.raises(BadFile, match="is a link"):
        open_keras(path)


def test_pickles_stay_unread(tmp_path):
    """A pickle among a file's attributes is bytes to h5py, and no attribute but Keras' own is looked at."""
    path = tmp_path / "pickled.h5"
    path.write_bytes((TRACES / REAL[1]).read_bytes())
    with h5py.File(path, "a") as f:
        f.attrs["optimizer_pickle"] = np.void(b"cposix\nsystem\n(S'touch /tmp/parity-was-here'\ntR.")
    assert open_keras(path).model is not None
