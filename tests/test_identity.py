"""What a report remembers of its inputs."""

from __future__ import annotations

import hashlib

import pytest

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


def test_a_live_object_is_its_type_and_name():
    class Model:
        name = "lenet"

    assert identity(Model()) == {"object": "Model", "name": "lenet"}
    assert identity(None) == {}
