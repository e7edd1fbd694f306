"""MAT files that are sound as files and lie about what they hold: one line on standard error, exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from parity.cli import main
from parity.frameworks.matconvnet.matfile import read
from tests.frameworks.matconvnet.write import VERSIONS, write

Net = dict[str, Any]


def f32(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def row(*values: float) -> np.ndarray:
    return np.array([values], float)


def sound() -> Net:
    """conv, pool, bnorm, relu, convt, lrn, dropout, conv, loss on 8×8×3."""
    return {
        "layers": [
            {"type": "conv", "name": "conv1", "weights": [f32(3, 3, 3, 4), f32(1, 4)], "pad": row(1), "stride": row(1)},
            {"type": "pool", "name": "pool1", "method": "max", "pool": row(2, 2), "stride": row(2), "pad": row(0)},
            {"type": "bnorm", "name": "bn", "weights": [f32(4, 1), f32(4, 1), abs(f32(4, 2))], "epsilon": row(1e-5)},
            {"type": "relu", "name": "relu", "leak": row(0.1)},
            {
                "type": "convt", "name": "up", "weights": [f32(2, 2, 3, 4), f32(1, 6)], "upsample": row(2),
                "crop": row(0), "numGroups": row(2),
            },
            {"type": "lrn", "name": "lrn", "param": row(5, 1, 0.1, 0.75)},
            {"type": "dropout", "name": "drop", "rate": row(0.5)},
            {"type": "conv", "name": "fc", "weights": [f32(8, 8, 6, 2), f32(1, 2)], "learningRate": row(1, 2)},
            {"type": "softmaxloss", "name": "loss"},
        ],
        "meta": {"inputSize": row(8, 8, 3)},
    }  # fmt: skip


def field(index: int, name: str, value: Any) -> Callable[[Net], None]:
    def lie(net: Net) -> None:
        net["layers"][index][name] = value

    return lie


def weight(index: int, cell: int, value: Any) -> Callable[[Net], None]:
    def lie(net: Net) -> None:
        net["layers"][index]["weights"][cell] = value

    return lie


def without(index: int, name: str) -> Callable[[Net], None]:
    def lie(net: Net) -> None:
        del net["layers"][index][name]

    return lie


def put(name: str, value: Any) -> Callable[[Net], None]:
    def lie(net: Net) -> None:
        net[name] = value

    return lie


SPARSE = scipy.sparse.csc_matrix(np.eye(4))

LIES: dict[str, tuple[Callable[[Net], None], tuple[str, ...]]] = {
    "layers are text": (put("layers", "conv"), ("`layers`",)),
    "layers are numbers": (put("layers", row(1, 2)), ("`layers`",)),
    "no layers": (put("layers", []), ("no layers",)),
    "a layer is text": (lambda net: net["layers"].insert(2, "relu"), ("layers{3}", "struct")),
    "a layer is a cell": (lambda net: net["layers"].insert(2, ["relu"]), ("layers{3}", "struct")),
    "a type is a number": (field(0, "type", row(3)), ("layers{1}", "type")),
    "a type is missing": (without(0, "type"), ("layers{1}", "type")),
    "an unknown type": (field(3, "type", "prelu"), ("relu", "not supported", "supported are")),
    "weights are text": (field(0, "weights", "none"), ("conv1", "weights")),
    "weights are a struct": (field(0, "weights", {"a": row(1)}), ("conv1", "weights")),
    "weights are missing": (without(0, "weights"), ("conv1", "weights")),
    "filters of a convt are missing": (field(4, "weights", []), ("up", "filters")),
    "a bnorm without weights": (field(2, "weights", []), ("bn", "weights")),
    "a bnorm of one weight": (field(2, "weights", [f32(4, 1)]), ("bn", "weights")),
    "moments of one column": (weight(2, 2, f32(4, 1)), ("bn", "moments")),
    "moments of other channels": (weight(2, 2, f32(5, 2)), ("bn", "5 mean")),
    "a weight is text": (weight(0, 0, "x"), ("conv1", "weights{1}")),
    "a weight is a cell": (weight(0, 0, [row(1)]), ("conv1", "weights{1}")),
    "a weight is integer": (weight(0, 0, np.ones((3, 3, 3, 4), np.int8)), ("conv1", "weights{1}")),
    "a weight is complex": (weight(0, 1, row(1, 2, 3, 4) * 1j), ("conv1", "weights{2}", "complex")),
    "a weight is sparse": (weight(0, 1, SPARSE), ("conv1", "weights{2}", "sparse")),
    "filters of five axes": (weight(0, 0, f32(3, 3, 3, 2, 2)), ("conv1", "axes")),
    "filters deeper than the input": (weight(0, 0, f32(3, 3, 5, 4)), ("conv1", "5 deep on 3")),
    "no whole number of groups": (field(0, "weights", [f32(3, 3, 2, 4), f32(1, 4)]), ("conv1", "2 deep on 3")),
    "filters that groups cannot share": (weight(0, 0, f32(3, 3, 1, 4)), ("conv1", "3 groups")),
    "biases of another number": (weight(0, 1, f32(1, 5)), ("conv1", "4 filters but 5 biases")),
    "filters larger than the map": (field(0, "pad", row(0)), ("fc", "8 cells does not fit into 6")),
    "pads of three": (field(0, "pad", row(1, 1, 1)), ("conv1", "its pad", "one or four")),
    "pads of text": (field(0, "pad", "same"), ("conv1", "its pad", "text")),
    "pads below zero": (field(0, "pad", row(-1)), ("conv1", "out of range")),
    "pads in halves": (field(0, "pad", row(0.5)), ("conv1", "whole")),
    "pads not finite": (field(0, "pad", row(np.nan)), ("conv1", "whole")),
    "pads without end": (field(0, "pad", row(np.inf)), ("conv1", "whole")),
    "pads sparse": (field(0, "pad", SPARSE), ("conv1", "a sparse array")),
    "pads complex": (field(0, "pad", row(1) * 1j), ("conv1", "a complex array")),
    "a stride of zero": (field(0, "stride", row(0)), ("conv1", "out of range")),
    "a stride of text": (field(0, "stride", "2"), ("conv1", "numbers")),
    "a dilation of three": (field(0, "dilate", row(1, 1, 1)), ("conv1", "one or two")),
    "pads larger than the pool": (field(1, "pad", row(2, 2, 2, 2)), ("pool1", "not smaller")),
    "a pool without a method": (without(1, "method"), ("pool1", "method")),
    "a pool without a window": (without(1, "pool"), ("pool1", "window")),
    "a pool of another method": (field(1, "method", "median"), ("pool1", "median")),
    "a pool's method as a number": (field(1, "method", row(1)), ("pool1", "method")),
    "a pool larger than the map": (field(1, "pool", row(20, 20)), ("pool1", "does not fit")),
    "a pool of zero": (field(1, "pool", row(0, 2)), ("pool1", "out of range")),
    "a leak of text": (field(3, "leak", "0.1"), ("relu", "numbers")),
    "two leaks": (field(3, "leak", row(0.1, 0.2)), ("relu", "one number")),
    "groups in halves": (field(4, "numGroups", row(1.5)), ("up", "numGroups", "whole")),
    "groups of zero": (field(4, "numGroups", row(0)), ("up", "numGroups")),
    "groups without end": (field(4, "numGroups", row(np.inf)), ("up", "numGroups")),
    "groups that do not divide": (field(4, "numGroups", row(3)), ("up", "3 groups")),
    "a convt on other channels": (weight(4, 0, f32(2, 2, 3, 6)), ("up", "6 channels", "has 4")),
    "an upsampling of zero": (field(4, "upsample", row(0)), ("up", "out of range")),
    "a crop that leaves nothing": (field(4, "crop", row(5, 5, 0, 0)), ("up", "leaves nothing")),
    "an lrn of three numbers": (field(5, "param", row(5, 1, 0.1)), ("lrn", "param")),
    "an lrn over half a channel": (field(5, "param", row(2.5, 1, 0.1, 0.75)), ("lrn", "param")),
    "an lrn over no channel": (field(5, "param", row(0, 1, 0.1, 0.75)), ("lrn", "param")),
    "an lrn of text": (field(5, "param", "5"), ("lrn", "numbers")),
    "a rate above one": (field(6, "rate", row(1.5)), ("drop", "rate")),
    "a rate that is no number": (field(6, "rate", row(np.nan)), ("drop", "rate")),
    "an epsilon of text": (field(2, "epsilon", "small"), ("bn", "numbers")),
    "a learning rate of text": (field(7, "learningRate", "fast"), ("fc", "numbers")),
    "a learning rate in a cell": (field(7, "learningRate", [row(1), "x"]), ("fc", "number")),
    "a layer behind the loss": (lambda net: net["layers"].append(net["layers"][3]), ("loss",)),
    "an input size of text": (lambda net: net["meta"].update(inputSize="large"), ("inputSize",)),
    "spnorm without its numbers": (
        lambda net: net["layers"].insert(3, {"type": "spnorm", "name": "sp"}), ("sp", "param"),
    ),
    "noffset of one number": (
        lambda net: net["layers"].insert(3, {"type": "noffset", "name": "off", "param": row(1)}), ("off", "param"),
    ),
    "pdist of a negative power": (
        lambda net: net["layers"].__setitem__(8, {"type": "pdist", "name": "d", "p": row(-1)}), ("d", "p is -1"),
    ),
}  # fmt: skip
"""What is false → how the file comes to say it, and words that the line must hold."""


def opened(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["inspect", str(path)])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sound_one(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = opened(write(tmp_path / "net.mat", sound(), version), capsys)
    assert (code, said) == (0, "")


@pytest.mark.parametrize("name", LIES)
def test_a_lie_gives_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lie, words = LIES[name]
    net = sound()
    lie(net)
    for version in ("v7", "v73"):
        code, said = opened(write(tmp_path / f"{version}.mat", net, version), capsys)
        assert code == 2, said
        assert said.count("\n") == 1, said
        for word in (f"{version}.mat", *words):
            assert word in said


def test_two_layers_of_one_name_are_told_apart(tmp_path: Path) -> None:
    import parity

    net = sound()
    net["layers"][3]["name"] = "conv1"
    inspection = parity.inspect(write(tmp_path / "net.mat", net))
    assert [layer.name for layer in inspection.network][3] == "conv1_2"
    assert any("'conv1_2'" in remark for remark in inspection.network.remarks)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    """The three versions of a file hold the same, so that a lie told in one is told in all."""
    from tests.frameworks.matconvnet.test_matfile import same

    made = [read(write(tmp_path / f"{version}.mat", sound(), version)) for version in VERSIONS]
    same(made[1], made[0])
    same(made[2], made[0])


def test_what_a_reader_should_know_of_a_layer_is_said(tmp_path: Path) -> None:
    import parity

    network = parity.inspect(write(tmp_path / "net.mat", sound())).network
    assert any("approximates them by up to a few per mille" in remark for remark in network["lrn"].remarks)
    assert network["conv1"].remarks == ()
