"""Reading Keras files' facts, and one line for every bad one."""

import copy
import dataclasses
import io
import json
import random
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from parity.errors import BadFile
from parity.frameworks.keras.files import read
from parity.frameworks.keras.lift import lift, lift_file
from tests.frameworks.keras.real import TRACES, files


@pytest.mark.parametrize("path", files(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_facts(path):
    file = read(path)
    assert file.version == path.parent.name.split("_")[0][1:]
    assert file.era == (3 if path.parent.name.startswith("k3") else 2)
    assert file.format == ("zip" if path.suffix == ".keras" else "hdf5")
    assert file.training_config is not None
    stored = [s for arrays in file.weights.values() for s in arrays]
    assert stored
    assert file.read(stored[0]).shape == stored[0].shape
    # Early optimizers keep no count of their steps.
    counted = any("iter" in s.name or s.name == "optimizer/vars/0" for s in file.slots)
    assert file.steps_done == (2 if counted else 0)


def test_format_goes_by_content(tmp_path):
    other = tmp_path / "model.keras"
    other.write_bytes((TRACES / "k2.1.6_tf1.8/reg_l2.h5").read_bytes())
    assert read(other).format == "hdf5"


@pytest.mark.parametrize("name", ["k2.1.6_tf1.8/arch_residual.h5", "k3.15.1_tf2.21/arch_residual.keras"])
@pytest.mark.parametrize("tenth", range(10))
def test_truncated(tmp_path, name, tenth):
    whole = (TRACES / name).read_bytes()
    cut = tmp_path / f"cut{name[-3:]}"
    cut.write_bytes(whole[: len(whole) * tenth // 10])
    with pytest.raises(BadFile) as caught:
        lift(cut)
    assert "\n" not in str(caught.value)
    assert str(cut) in str(caught.value)


def _damaged(tmp_path, **replaced):
    """A copy of a .keras archive with some members replaced."""
    path = tmp_path / "bad.keras"
    with zipfile.ZipFile(TRACES / "k3.15.1_tf2.21/arch_residual.keras") as whole, zipfile.ZipFile(path, "w", 8) as bad:
        for member in whole.namelist():
            data = replaced.get(member.split(".")[0], whole.read(member))
            if data is not None:
                bad.writestr(member, data)
    return path


def test_not_keras(tmp_path):
    cases = {
        "missing.h5": (None, "does not exist"),
        "empty.h5": (b"", "is empty"),
        "text.h5": (b"not a model at all", "neither an HDF5 file nor a .keras archive"),
    }
    for name, (data, words) in cases.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(BadFile, match=words):
            read(path)
    with pytest.raises(BadFile, match="is a folder"):
        read(tmp_path)
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["data"] = np.zeros(3)
    with pytest.raises(BadFile, match="not a Keras model"):
        read(tmp_path / "other.h5")
    with h5py.File(tmp_path / "weights.h5", "w") as f:
        f.attrs["layer_names"] = [b"dense"]
    with pytest.raises(BadFile, match="weights only"):
        read(tmp_path / "weights.h5")


def test_bombs(tmp_path):
    with pytest.raises(BadFile, match="unfolds to"):
        read(_damaged(tmp_path, config=b" " * (100 << 20)))
    wide = io.BytesIO()
    with h5py.File(wide, "w") as f:
        f.create_dataset("layers/dense/vars/0", shape=(1 << 40,), dtype="f4", chunks=(1 << 20,), compression="gzip")
    with pytest.raises(BadFile, match="cannot hold"):
        read(_damaged(tmp_path, model=wide.getvalue()))
    with pytest.raises(BadFile, match=r"nested too deeply|damaged"):
        read(_damaged(tmp_path, config=b"[" * 200_000))
    with pytest.raises(BadFile, match="without weights"):
        read(_damaged(tmp_path, model=None))


def test_links_are_refused(tmp_path):
    path = tmp_path / "linked.h5"
    path.write_bytes((TRACES / "k2.1.6_tf1.8/reg_l2.h5").read_bytes())
    with h5py.File(path, "a") as f:
        f["model_weights/away"] = h5py.ExternalLink("/etc/hostname", "/")
    with pytest.raises(BadFile, match="is a link"):
        read(path)


def test_submodels_that_unfold_without_end(tmp_path):
    def model(depth):
        layer = (
            {"class_name": "Flatten", "name": "flatten", "config": {"name": "flatten"}}
            if not depth
            else model(depth - 1)
        )
        name = layer["name"]
        start = {
            "class_name": "InputLayer",
            "name": "x",
            "inbound_nodes": [],
            "config": {"name": "x", "batch_input_shape": [None, 4]},
        }
        nodes = [[["x", 0, 0, {}]]] + [[[name, i, 0, {}]] for i in range(9)]
        inner = {**layer, "inbound_nodes": nodes}
        config = {
            "name": f"m{depth}",
            "layers": [start, inner],
            "input_layers": [["x", 0, 0]],
            "output_layers": [[name, 9, 0]],
        }
        return {"class_name": "Functional", "name": f"m{depth}", "config": config}

    path = _damaged(tmp_path, config=json.dumps(model(8)).encode())
    with pytest.raises(BadFile, match="more than 100,000 calls"):
        lift(path)


def test_reading_loads_no_framework():
    path = TRACES / "k3.15.1_tf2.21/arch_residual.keras"
    code = (
        "import sys; from parity.frameworks.keras.lift import lift; import parity.frameworks.keras.runner;"
        f"lift({str(path)!r}); assert not {{'tensorflow', 'keras', 'tf_keras', 'torch'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TRACES.parents[1])


@pytest.mark.parametrize("path", files(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_changed_configurations_end_in_one_line(path):
    """Whatever stands in a configuration: a lifted network, or BadFile."""
    draw = random.Random(path.name)
    values = [
        None,
        "x",
        -1,
        0,
        10**30,
        [],
        {},
        1.5,
        True,
        "same",
        [None],
        float("nan"),
        ["a", 0, 0],
        {"class_name": "Lambda"},
    ]

    def places(item, place=()):
        if isinstance(item, dict | list):
            for key in item if isinstance(item, dict) else range(len(item)):
                yield (*place, key)
                yield from places(item[key], (*place, key))

    file = read(path)
    refused = 0
    for _ in range(60):
        part = draw.choice(["model_config", "training_config"])
        config = copy.deepcopy(getattr(file, part))
        *place, last = draw.choice(list(places(config)))
        holder = config
        for key in place:
            holder = holder[key]
        if draw.random() < 0.2:
            del holder[last]
        else:
            holder[last] = draw.choice(values)
        try:
            network, _ = lift_file(dataclasses.replace(file, **{part: config}))
        except BadFile as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert network.framework == "keras"
    assert refused < 60
