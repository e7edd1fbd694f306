"""What a report remembers of its inputs."""

from __future__ import annotations

import hashlib
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import parity
from parity.batch import load
from parity.errors import BadFile
from parity.identity import digest, identity


def test_a_file_has_a_digest(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"weights")
    assert identity(tmp_path / "a.h5") == {
        "path": str(tmp_path / "a.h5"), "sha256": hashlib.sha256(b"weights").hexdigest()
    }  # fmt: skip


def test_code_that_builds_a_model_has_the_digest_of_its_file(tmp_path):
    (tmp_path / "net.py").write_text("def build(): ...\n")
    spec = f"{tmp_path / 'net.py'}:build"
    assert identity(spec) == {"path": spec, "sha256": digest(tmp_path / "net.py")}
    assert identity("package.net:build") == {"path": "package.net:build"}


def test_code_is_told_by_what_it_imports_from_beside_it_too(tmp_path, monkeypatch):
    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return identity(spec)["sha256"] if (tmp_path / "net.py").exists() else ""

    spec = f"{tmp_path / 'net.py'}:build"
    write("parts/__init__.py", "")
    write("parts/blocks.py", "from .deep import leak\nimport numpy\n")
    write("parts/deep.py", "leak = 0.1\n")
    write("other.py", "x = 1\n")
    before = write("net.py", "from parts.blocks import leak\nimport parts.nothing, sys\ndef build(): ...\n")
    assert write("other.py", "x = 2\n") == before  # nobody imports it
    assert write("parts/deep.py", "leak = 0.2\n") != before
    assert write("parts/deep.py", "leak = 0.1\n") == before
    assert write("parts/deep.py", "from . import blocks\nleak = 0.1\n") != before  # a circle ends
    assert identity(spec)["sha256"] == identity(spec)["sha256"]
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("parts.blocks")
    try:
        told = identity("parts.blocks:leak")["sha256"]
        write("parts/deep.py", "leak = 0.3\n")
        assert identity("parts.blocks:leak")["sha256"] != told
    finally:
        for name in ("parts", "parts.blocks", "parts.deep"):
            sys.modules.pop(name, None)
    write("net.py", "def build(:\n")
    assert identity(spec)["sha256"] == hashlib.sha256((tmp_path / "net.py").read_bytes()).hexdigest()


def test_a_folder_has_one_that_tells_renamed_and_changed_files(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "variables" / "v").write_bytes(b"1")
    first = identity(tmp_path)["sha256"]
    (tmp_path / "variables" / "v").write_bytes(b"2")
    second = digest(tmp_path)
    (tmp_path / "variables" / "v").rename(tmp_path / "variables" / "w")
    assert len({first, second, digest(tmp_path)}) == 3


def test_what_is_not_there_is_one_line(tmp_path):
    with pytest.raises(BadFile, match=r"net\.mat: cannot be read \(No such file"):
        identity(tmp_path / "net.mat")


def test_arrays_are_told_by_their_values():
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    given = [
        {"x": x}, {"x": x + 1}, {"x": x.reshape(2, 1, 3)}, {"x": x.astype(np.float64)}, {"x": x, "y": np.zeros(1, int)},
        {"x": np.asfortranarray(x[:, ::-1])},
    ]  # fmt: skip
    digests = [identity(batch)["sha256"] for batch in given]
    assert len(set(digests)) == len(given)
    assert identity({"x": x.copy()})["sha256"] == digests[0]
    assert identity(load({"x": np.zeros((1, 2, 3, 1), np.float32)}))["sha256"]


def test_a_trace_has_the_digest_of_its_seal():
    path = Path(__file__).parents[1] / "traces" / "gate" / "keras.h5"
    assert identity(path)["sha256"] == hashlib.sha256(path.read_bytes()[512:]).hexdigest()


def test_a_live_object_is_its_type_and_name():
    class Model:
        name = "lenet"

    assert identity(Model()) == {"object": "Model", "name": "lenet"}
    assert identity(None) == {}


def test_a_reference_in_memory_is_told_by_its_weights():
    import keras

    def model(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])

    batch = {"x": np.ones((2, 3), np.float32)}
    found = [
        parity.compare(ref=model(seed), keras=model(5), batch=batch, mode="eval").inputs["ref"] for seed in (0, 0, 1)
    ]
    assert found[0]["sha256"] == found[1]["sha256"] != found[2]["sha256"]
