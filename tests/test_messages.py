"""What users read when something is wrong: one line that names the file, what is wrong with it, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from parity import cli
from parity.errors import BadFile, BadUsage, CannotCompare, ParityError, Refused

SEED = Path(__file__).parents[1] / "traces" / "seed"


def complaint(capsys, *arguments: object) -> str:
    """The one line that a command that cannot work leaves, after it ended with 2 and printed nothing else."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    assert "please report" not in err
    return err.removesuffix("\n")


def test_the_tree_of_errors():
    assert all(issubclass(error, ParityError) for error in (BadFile, BadUsage, CannotCompare, Refused))
    assert str(BadFile("net.mat", "is empty", "copy it again")) == "net.mat: is empty; copy it again"
    assert str(BadFile(Path("net.mat"), "is empty")) == "net.mat: is empty"
    assert str(CannotCompare("two\nlines  and\tblanks")) == "two lines and blanks"


def test_files_that_are_no_models(capsys, tmp_path):
    (tmp_path / "text.mat").write_text("x = 1\n" * 300)
    (tmp_path / "empty.h5").touch()
    expected = {
        "none.mat": "there is no such file; check the path",
        "text.mat": "is neither a MatConvNet .mat nor a Keras .h5 or .keras file; check the path",
        "empty.h5": "is empty; copy or save it again",
    }
    for name, words in expected.items():
        assert complaint(capsys, "inspect", tmp_path / name) == f"parity: {tmp_path / name}: {words}"
    batch = SEED / "batch.npz"
    refusal = f"parity: {batch}: is an .npz archive, not a model; pass it as --batch"
    assert complaint(capsys, "inspect", batch) == refusal
    assert complaint(capsys, "inspect", tmp_path).endswith("is a directory; save the model as one file, .keras or .h5")


@pytest.mark.parametrize("name", ["net.mat", "model.h5"])
def test_truncated_files_name_themselves(capsys, tmp_path, name):
    whole = (SEED / name).read_bytes()
    for tenth in range(10):
        path = tmp_path / f"{tenth}-{name}"
        path.write_bytes(whole[: len(whole) * tenth // 10])
        assert str(path) in complaint(capsys, "inspect", path)


def test_a_mat_file_without_a_network(capsys, tmp_path):
    path = tmp_path / "data.mat"
    scipy.io.savemat(path, {"images": np.zeros((4, 4))})
    assert str(path) in complaint(capsys, "inspect", path)


def test_a_file_name_cannot_speak_to_the_terminal(capsys, tmp_path):
    path = tmp_path / "net\x1b[2J\n.mat"
    shutil.copy(SEED / "batch.npz", path)
    assert "\x1b" not in complaint(capsys, "inspect", path)


X = np.random.default_rng(0).standard_normal((4, 28, 28, 1)).astype(np.float32)
Y = np.array([0, 1, 0, 1])
BATCHES = {
    "shape": (
        {"x": X[:, :20], "y": Y},
        "holds images of 20×28×1, but the reference takes 28×28×1; prepare the images as the network takes them",
    ),
    "range": (
        {"x": X, "y": Y + 1},
        (
            "holds the label 2, but the network has 2 classes; labels in a batch count from 0, "
            "and these seem to count from 1: subtract 1"
        ),
    ),
    "NaN": ({"x": X * np.nan, "y": Y}, "x holds 3136 values that are NaN or Inf, the first at [0, 0, 0, 0]; clean it"),
    "classes": ({"x": X, "y": np.eye(3)[Y]}, "has one-hot labels of 3 classes, but the network has 2"),
    "sides": (
        {"x_ref": X, "x_keras": X[:, :20], "y": Y},
        "holds images of 20×28×1, but the Keras model takes 28×28×1; prepare the images as the network takes them",
    ),
}


@pytest.mark.parametrize("case", BATCHES)
def test_a_batch_that_does_not_fit(capsys, tmp_path, case):
    arrays, words = BATCHES[case]
    path = tmp_path / "batch.npz"
    np.savez(path, **arrays)
    pair = ("--ref", SEED / "net.mat", "--keras", SEED / "model.h5")
    assert complaint(capsys, "compare", *pair, "--batch", path) == f"parity: {path}: {words}"


@pytest.mark.parametrize("missing", ["--ref", "--keras", "--batch", "--map", "--custom-objects"])
def test_every_missing_file_is_named(capsys, tmp_path, missing):
    files = {"--ref": SEED / "net.mat", "--keras": SEED / "model.h5", "--batch": SEED / "batch.npz"}
    path = tmp_path / "none"
    arguments = [word for pair in {**files, missing: path}.items() for word in pair]
    assert complaint(capsys, "compare", *arguments).startswith(f"parity: {path}: ")
