"""Files are told apart by what is in them."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from parity.errors import BadFile
from parity.opening import framework_of, lift

SEED = Path(__file__).parents[1] / "traces" / "seed"


def test_the_example_pair_under_any_name(tmp_path):
    for name, framework in (("net.mat", "matconvnet"), ("model.h5", "keras")):
        for other in ("file", "file.h5", "file.mat", "file.keras"):
            shutil.copy(SEED / name, tmp_path / other)
            assert framework_of(tmp_path / other) == framework
            assert framework_of(str(tmp_path / other)) == framework


def test_every_container(tmp_path):
    scipy.io.savemat(tmp_path / "v5", {"a": 1.0}, appendmat=False)
    assert framework_of(tmp_path / "v5") == "matconvnet"
    with h5py.File(tmp_path / "v73", "w", userblock_size=512) as file:
        file["a"] = 1.0
    with (tmp_path / "v73").open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    assert framework_of(tmp_path / "v73") == "matconvnet"
    with h5py.File(tmp_path / "v73_without_a_header", "w") as file:
        file.create_group("net").attrs["MATLAB_class"] = np.bytes_("struct")
    assert framework_of(tmp_path / "v73_without_a_header") == "matconvnet"
    with h5py.File(tmp_path / "h5", "w") as file:
        file.attrs["keras_version"] = "2.1.6"
    assert framework_of(tmp_path / "h5") == "keras"
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("config.json", "{}")
    assert framework_of(tmp_path / "zip") == "keras"


@pytest.mark.parametrize("name", ["net.mat", "model.h5"])
def test_lift_finds_the_framework(name):
    network, recipe = lift(SEED / name)
    assert network.framework == {"net.mat": "matconvnet", "model.h5": "keras"}[name]
    assert len(network.layers) > 10
    assert recipe.optimizer is not None


def test_what_is_neither(tmp_path):
    (tmp_path / "text").write_text("hello " * 200)
    np.savez(tmp_path / "b.npz", x=np.zeros(3))
    for path, words in (
        ("none", "there is no such file"),
        (".", "is a directory"),
        ("text", "is neither a MatConvNet .mat nor a Keras .h5 or .keras file"),
        ("b.npz", "is an .npz archive, not a model; pass it as --batch"),
    ):
        with pytest.raises(BadFile, match=words):
            framework_of(tmp_path / path)
