"""Lifting SimpleNN files: what they say, and one line for those that do not fit together."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from parity.errors import BadFile, CannotCompare, ParityError
from parity.frameworks.matconvnet.lift import lift, lift_data, with_input
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.frameworks.matconvnet.values import Unreadable
from parity.layers import BatchNorm, Conv, DistanceLoss, Dropout, Loss, Opaque, Pool
from parity.network import Layer
from parity.optimizers import SGD, Adam, OpaqueRule
from parity.runner import Targets
from tests.frameworks.matconvnet.golden import TRACES, golden, record


def conv(h: int, w: int, c: int, k: int, **fields: Any) -> dict[str, Any]:
    rng = np.random.default_rng(h + w + c + k)
    weights = [rng.normal(size=(h, w, c, k)).astype(np.float32), np.zeros((1, k), np.float32)]
    return {"type": "conv", "weights": weights, **fields}


def bnorm(c: int, **fields: Any) -> dict[str, Any]:
    ones, zeros = np.ones((c, 1), np.float32), np.zeros((c, 1), np.float32)
    return {"type": "bnorm", "weights": [ones, zeros, np.zeros((c, 2), np.float32)], **fields}


POOL = {"type": "pool", "method": "max", "pool": np.array([[2.0, 2.0]])}
LOSS = {"type": "softmaxloss"}


def net(*layers: Any, size: tuple[int, ...] | None = (8, 8, 3), **meta: Any) -> dict[str, Any]:
    shape = {} if size is None else {"inputSize": np.array([size], float)}
    return {"layers": list(layers), "meta": {**shape, **meta}}


def refused(network: Any, *words: str) -> str:
    with pytest.raises(BadFile) as caught:
        lift_data(network, "bad.mat")
    text = str(caught.value)
    assert text.startswith("bad.mat: ")
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


def test_the_example() -> None:
    network, recipe = lift(TRACES / "seed_slim_f01_net_v7.mat")
    assert [layer.name for layer in network] == [
        "conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "conv4", "pool4", "ip1", "relu", "classifier", "loss",
    ]  # fmt: skip
    ip1 = network["ip1"]
    assert isinstance(ip1.kind, Conv)
    assert ip1.kind.groups == 2
    assert (ip1.inputs, ip1.outputs, ip1.shape, ip1.source_type) == (("pool4",), ("ip1",), (1, 1, 32), "conv")
    kernel = network.params[ip1.params["kernel"]]
    assert (kernel.shape, kernel.axes, kernel.source) == ((1, 1, 32, 32), "h w i o", "layers{9}.weights{1}")
    assert kernel.value is not None
    assert (kernel.value.dtype, kernel.rate_multiplier) == (np.float32, 1)
    assert network.params["ip1.bias"].rate_multiplier == 2
    assert network.inputs == {"input": (28, 28, 1), "labels": ()}
    assert (network.labels, network.outputs, network.framework) == (("labels",), ("classifier",), "matconvnet")
    assert isinstance(network["loss"].kind, Loss)
    assert recipe.optimizer == SGD(0.9)
    assert recipe.learning_rate.values == (0.01,) * 10 + (0.001,) * 10 + (0.0001,) * 10
    assert (recipe.learning_rate.kind, recipe.weight_decay, recipe.batch_size, recipe.epochs) == (
        "epochs",
        0.0005,
        256,
        30,
    )
    assert not recipe.defaults
    assert recipe.loss == network["loss"].kind
    assert recipe.metrics == ("top-1 error", "top-5 error")


def test_three_versions_and_a_variable_net_are_twins(tmp_path: Path) -> None:
    first, _ = lift(TRACES / "seed_slim_f01_net_v6.mat")
    data = golden("seed_slim_f01_net_v6")
    others = [lift(TRACES / f"seed_slim_f01_net_{v}.mat")[0] for v in ("v7", "v73")]
    others += [lift_data({"net": data}, "x")[0], lift_data({"cnn": data, "other": 1}, "x")[0]]
    for other in others:
        assert [(a.name, a.kind, a.shape) for a in first] == [(b.name, b.kind, b.shape) for b in other]
        for id_, p in first.params.items():
            np.testing.assert_array_equal(p.value, other.params[id_].value)
        record("v6/v7/v7.3 twins", 0)  # they are the same or they are not


def test_defaults_are_marked() -> None:
    _, recipe = lift_data(net(conv(3, 3, 3, 2), LOSS), "x")
    assert recipe.defaults == {"learning_rate", "optimizer", "weight_decay", "batch_size", "epochs"}
    assert (recipe.learning_rate.first, recipe.optimizer, recipe.weight_decay) == (0.001, SGD(0.9), 0.0005)
    assert (recipe.batch_size, recipe.epochs, recipe.origin) == (256, 300, "cnn_train's defaults")
    options = {"learningRate": np.array([[0.1]]), "nesterovUpdate": np.array([[True]]), "batchSize": np.array([[10.0]])}
    _, recipe = lift_data(net(conv(3, 3, 3, 2), LOSS, trainOpts=options), "x")
    assert recipe.defaults == {"optimizer", "weight_decay", "epochs"}
    assert recipe.optimizer == SGD(0.9, nesterov=True)
    assert (recipe.learning_rate.kind, recipe.learning_rate.values, recipe.batch_size) == ("constant", (0.1,), 10)


def test_what_the_trainer_counts() -> None:
    def counted(**options: Any) -> tuple[str, ...]:
        return lift_data(net(conv(3, 3, 3, 2), LOSS, trainOpts=options), "x")[1].metrics

    assert counted() == counted(errorFunction="multiclass") == ("top-1 error", "top-5 error")
    assert counted(errorFunction="binary") == ("binary error",)
    assert counted(errorFunction="none") == ()


def test_solvers() -> None:
    def rule(**options: Any) -> Any:
        return lift_data(net(conv(3, 3, 3, 2), LOSS, trainOpts=options), "x")[1]

    given = {"beta1": np.array([[0.8]]), "eps": np.array([[1e-3]])}
    recipe = rule(solver=Unreadable("a function handle", "solver.adam"), solverOpts=given)
    assert recipe.optimizer == Adam(0.8, 0.999, 1e-3)
    assert "optimizer" not in recipe.defaults
    assert rule(solver="adam").optimizer == Adam()
    assert rule(solver=np.zeros((0, 0))).optimizer == SGD(0.9)
    strange = rule(solver=Unreadable("a function handle", "mine"))
    assert strange.optimizer == OpaqueRule("mine")
    assert "mine" in strange.notes[0]


def test_adam_slots_of_a_checkpoint() -> None:
    state = {"m": np.full((3, 3, 3, 2), 0.5), "v": np.ones((3, 3, 3, 2)), "t": np.array([[7.0]])}
    data = {
        "net": net(conv(3, 3, 3, 2), LOSS, trainOpts={"solver": "adam"}),
        "state": {"solverState": [[state, np.array([[0.0]])], []]},
        "stats": {"train": [{}, {}], "val": [{}, {}]},
    }
    network, recipe = lift_data(data, "x")
    assert set(recipe.slots) == {"layer1.kernel"}
    slots = recipe.slots["layer1.kernel"]
    assert slots["mean"].shape == network.params["layer1.kernel"].shape
    assert slots["step"] == 7
    del data["net"]["meta"]["trainOpts"]
    network, recipe = lift_data(data, "x")
    assert recipe.optimizer == Adam()
    assert set(recipe.slots) == {"layer1.kernel"}
    assert "does not name" in recipe.notes[0]
    state["m"] = np.ones((3, 3))
    refused(data, "state.solverState{1}{1} has shape (3, 3, 1, 1)")
    assert "after epoch 2" in recipe.notes[-1]


def test_an_input_of_unknown_size() -> None:
    network, _ = lift_data(
        net(conv(3, 3, 3, 4), POOL | {"stride": np.array([[2.0]])}, conv(2, 2, 2, 6), LOSS, size=None), "x"
    )
    assert network.inputs["input"] == (None, None, 3)
    assert network["layer1"].shape == (None, None, 4)
    assert network["layer3"].kind.describe()["groups"] == 2
    assert any("does not say the size" in remark for remark in network.remarks)
    known = with_input(network, (9, 8, 3))
    assert [layer.shape for layer in known] == [(7, 6, 4), (3, 3, 4), (2, 2, 6), ()]
    grouped = with_input(network, (9, 8, 6))
    assert grouped["layer1"].kind.describe()["groups"] == 2
    with pytest.raises(
        CannotCompare, match=r"layer layer3: a window of 2 cells does not fit into 1 \(its input is 1×2×4\)"
    ):
        with_input(network, (5, 6, 3))
    with pytest.raises(CannotCompare, match="no whole number of groups"):
        with_input(network, (9, 8, 4))
    assert lift_data(net(bnorm(5), LOSS, size=None), "x")[0].inputs["input"] == (None, None, 5)
    old = net(conv(3, 3, 3, 4), LOSS, size=None) | {"normalization": {"imageSize": np.array([[7.0, 6.0, 3.0]])}}
    assert lift_data(old, "x")[0].inputs["input"] == (7, 6, 3)
    assert lift_data(old, "x", (12, 12, 3))[0]["layer1"].shape == (10, 10, 4)


def test_fields_of_every_type() -> None:
    fields = {
        "pad": np.array([[1.0, 2.0, 0.0, 1.0]]),
        "stride": np.array([[2.0, 1.0]]),
        "dilate": np.array([[1.0, 2.0]]),
    }
    network, _ = lift_data(
        net(
            conv(3, 2, 3, 4, name="c", **fields),
            bnorm(4, learningRate=np.array([[2.0, 1.0, 0.05]]), epsilon=np.array([[1e-3]])),
            {"type": "relu", "leak": np.array([[0.1]])},
            {"type": "sigmoid"},
            POOL | {"method": "avg", "pool": np.array([[3.0]]), "pad": np.array([[1.0]])},
            {"type": "lrn", "param": np.array([[3.0, 2.0, 0.1, 0.5]])},
            {"type": "normalize"},
            {"type": "dropout"},
            {"type": "softmax"},
            {"type": "loss", "class": np.arange(4.0).reshape(1, 4)},
        ),
        "x",
    )
    kinds = [layer.kind for layer in network]
    assert kinds[0] == Conv(4, (3, 2), (2, 1), (1, 2, 0, 1), (1, 2), 1, True)
    assert isinstance(kinds[1], BatchNorm)
    assert (kinds[1].epsilon, kinds[1].stored, kinds[1].momentum) == (1e-3, "deviation", pytest.approx(0.95))
    assert network.params["layer2.gamma"].rate_multiplier == 2
    assert network.params["layer2.mean"].rate_multiplier == 0.05
    assert not network.params["layer2.deviation"].trainable
    assert network.params["layer2.deviation"].source == "layers{2}.weights{3}"
    assert kinds[2].describe() == {"function": "relu", "slope": 0.1, "limit": None, "threshold": 0.0}
    assert kinds[4] == Pool("avg", (3, 3), (1, 1), (1, 1, 1, 1))
    assert list(kinds[5].describe().values()) == [3, 2, 0.1, 0.5]
    assert list(kinds[6].describe().values()) == [5, 1, 0.0001 / 5, 0.75]
    assert kinds[7] == Dropout(0.5)
    assert kinds[9] == Loss("softmaxlog")
    assert network.outputs == ("layer9",)


def test_fields_of_the_rarer_types() -> None:
    rng = np.random.default_rng(2)
    up = [rng.normal(size=(4, 4, 2, 4)).astype(np.float32), np.zeros((1, 4), np.float32)]
    crop = {
        "upsample": np.array([[2.0, 1.0]]),
        "crop": np.array([[1.0, 1.0, 2.0, 1.0]]),
        "numGroups": np.array([[2.0]]),
    }
    network, _ = lift_data(
        net(
            conv(3, 3, 3, 4),
            {"type": "convt", "weights": up, **crop},
            {"type": "noffset", "param": np.array([[0.5, 0.25]])},
            {"type": "spnorm", "param": np.array([[3.0, 3.0, 2.0, 0.5]])},
            {"type": "pdist", "p": np.array([[1.0]]), "noRoot": np.array([[True]])},
        ),
        "x",
    )
    convt = network["layer2"]
    assert convt.kind.describe()["upsample"] == (2, 1)
    assert convt.kind.describe()["crop"] == (1, 1, 2, 1)
    assert convt.kind.describe()["groups"] == 2
    assert convt.shape == (12, 6, 4)
    assert network.params["layer2.kernel"].axes == "h w o i"
    assert [network[name].shape for name in ("layer3", "layer4")] == [(12, 6, 4), (12, 6, 4)]
    loss = network["layer5"].kind
    assert isinstance(loss, DistanceLoss)
    assert (loss.p, loss.root, loss.epsilon) == (1, False, 1e-3)
    assert network.losses == (network["layer5"],)
    assert any("approximates" in remark for remark in network_of_lrn().remarks)
    with pytest.raises(BadFile, match="param"):
        lift_data(net({"type": "noffset"}), "x")


def network_of_lrn() -> Layer:
    return lift_data(net({"type": "lrn"}), "x")[0]["layer1"]


def test_deployed_nets_have_no_loss() -> None:
    """A classifier that ends in a softmax, or in nothing, is run forward only."""
    for ending in ([{"type": "softmax"}], []):
        network, recipe = lift_data(net(conv(8, 8, 3, 5), *ending), "x")
        assert (network.labels, network.losses, recipe.loss, recipe.metrics) == ((), (), None, ())
        runner = MatConvNetRunner(network, recipe)
        found = runner.run({"input": np.ones((2, 8, 8, 3), np.float32)}, np.array([0, 1]))
        assert found.loss is None
        assert not found.param_grads
        assert found.outputs[network.outputs[0]].shape == (2, 1, 1, 5)


def test_what_old_files_do_not_hold() -> None:
    """The releases without moments, and with multipliers of their own, are read as MatConvNet now reads them."""
    old = {"type": "bnorm", "filters": np.ones((3, 1), np.float32), "biases": np.zeros((3, 1), np.float32)}
    network, _ = lift_data(net(old, conv(8, 8, 3, 5), LOSS), "x")
    norm = network["layer1"]
    assert norm.kind.describe()["epsilon"] == 1e-5
    assert not network.params["layer1.deviation"].value.any()
    assert any("no moments" in remark for remark in norm.remarks)
    assert any("1e-3" in remark for remark in norm.remarks)
    assert not lift_data(net(bnorm(3), LOSS), "x")[0]["layer1"].remarks


def test_labels_that_weigh() -> None:
    """softmaxloss takes labels with a second channel, the weight of each pixel (vl_nnsoftmaxloss.m:56-60)."""
    runner = MatConvNetRunner(*lift_data(net(conv(1, 1, 3, 4), LOSS, size=(3, 3, 3)), "x"))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 3, 3)).astype(np.float32), rng.integers(0, 4, (2, 3, 3))
    plain, weights = runner.run({"input": x}, y), rng.uniform(0, 2, (2, 3, 3)).astype(np.float32)
    found = runner.run({"input": x}, Targets({"labels": y}, {"labels": weights}))
    expected = plain.output_grads["layer1"] * weights[..., None]
    np.testing.assert_allclose(found.output_grads["layer1"], expected, rtol=1e-5, atol=1e-8)
    z = found.outputs["layer1"].astype(np.float64)
    each = np.log(np.exp(z).sum(-1)) - np.take_along_axis(z, y[..., None], -1)[..., 0]
    assert found.loss == pytest.approx((each * weights).sum() / 2, rel=1e-5)


def test_precious_and_memory_change_nothing() -> None:
    layer = conv(3, 3, 3, 2)
    first, second = (lift_data(net(layer | fields, LOSS), "x")[0] for fields in ({}, {"precious": np.array([[True]])}))
    assert first["layer1"].kind == second["layer1"].kind


def test_bnorm_without_its_own_rates_averages_nothing() -> None:
    """cnn_train fills in ones: r = 1, so the moments are the last batch's."""
    network, _ = lift_data(net(bnorm(3), LOSS), "x")
    assert network["layer1"].kind.describe()["momentum"] == 0
    assert network.params["layer1.mean"].rate_multiplier == 1
    assert not network["layer1"].remarks
    decays = bnorm(3, weightDecay=np.array([[0.0, 0.0]]), learningRate=np.array([[1.0, 1.0, 0.1]]))
    assert not lift_data(net(decays, LOSS), "x")[0]["layer1"].remarks


def test_remarks() -> None:
    nan = conv(3, 3, 3, 2)
    nan["weights"][0][0, 0, 0, 0] = np.nan
    old = {"type": "conv", "filters": nan["weights"][0] * 0, "biases": nan["weights"][1], "filtersLearningRate": 1}
    old["filters"][...] = 1
    short = conv(1, 1, 2, 2, learningRate=np.array([[1.0]]))
    network, _ = lift_data(net(nan | {"name": "a"}, short | {"name": "a"}, LOSS | {"name": "input"}), "x")
    assert "NaN" in network["a"].remarks[0]
    assert "1 of 2 entries" in network["a_2"].remarks[0]
    assert [layer.name for layer in network] == ["a", "a_2", "input_2"]
    assert len(network.remarks) == 2
    assert "no longer reads" in lift_data(net(old, LOSS), "x")[0]["layer1"].remarks[0]


def test_empty_filters_are_the_identity() -> None:
    identity = {"type": "conv", "weights": [np.zeros((0, 0)), np.ones((1, 3), np.float32)], "stride": np.array([[2.0]])}
    runner = MatConvNetRunner(*lift_data(net(identity, size=(4, 4, 3)), "x"))
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
    found = runner.run({"input": x}, None, backward=False)
    np.testing.assert_array_equal(found.outputs["layer1"], x[:, ::2, ::2] + 1)


def test_custom_layers_are_listed_and_not_run() -> None:
    custom = {"type": "custom", "name": "mine", "forward": Unreadable("a function handle")}
    network, _ = lift_data(net(conv(3, 3, 3, 4), custom, conv(1, 1, 2, 4), LOSS), "x")
    kind = network["mine"].kind
    assert isinstance(kind, Opaque)
    assert kind.runs_code
    assert network["mine"].shape is None
    assert network["layer3"].shape is None


def test_what_holds_no_network() -> None:
    refused({}, "holds no network (it has nothing)")
    refused({"a": 1, "b": 2}, "holds no network (it has a, b)")
    refused({"images": {}}, "--batch")
    refused({"net": Unreadable("an object")}, "`net` is an object")
    refused({"net": np.ones((3, 3))}, "holds no network")
    refused({"net": {"meta": {}}}, "holds no network")
    refused({"layers": np.ones((2, 2))}, "not a cell array")
    refused({"layers": []}, "no layers")
    refused({"layers": ["conv"]}, "layers{1} is not a struct")
    refused({"layers": [{"name": "x"}]}, "layers{1} has no `type`")
    refused({"layers": [{"type": "dagnn.Conv"}]}, "layers(1) has no `name`")
    refused({"dag": Unreadable("an object")}, "`dag` is an object", "net.saveobj()")


def test_layers_that_are_not_understood() -> None:
    text = refused(net(conv(3, 3, 3, 2), {"type": "flux", "name": "z"}), "layers{2} (z, flux)", "not supported", "conv")
    assert "dagnn" not in text
    refused(net(LOSS, POOL), "follows the loss")


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ({"type": "conv"}, "has no `weights`"),
        ({"type": "bnorm"}, "has no `weights`"),
        ({"type": "conv", "weights": "none"}, "not a cell array"),
        ({"type": "conv", "weights": ["a"]}, "weights{1}"),
        ({"type": "conv", "weights": [Unreadable("a sparse array")]}, "a sparse array"),
        ({"type": "conv", "weights": [np.ones((2, 2), np.int8)]}, "single or double"),
        (conv(3, 3, 2, 4), "2 deep on 3 channels"),
        (conv(3, 3, 1, 4), "4 filters cannot be split into 3 groups"),
        (conv(9, 9, 3, 4), "does not fit"),
        (conv(3, 3, 3, 4, pad=np.array([[1.0, 2.0]])), "one or four numbers"),
        (conv(3, 3, 3, 4, stride=np.array([[0.0]])), "out of range"),
        (conv(3, 3, 3, 4, stride=np.array([[1.5]])), "whole numbers"),
        (conv(3, 3, 3, 4, stride="two"), "expected numbers"),
        (conv(3, 3, 3, 4, dilate=Unreadable("an object")), "expected numbers"),
        ({"type": "conv", "weights": [np.ones((3, 3, 3, 4)), np.ones((1, 3))]}, "4 filters but 3 biases"),
        ({"type": "conv", "weights": [np.ones((3, 3, 3, 4, 2)), np.ones((1, 3))]}, "5 axes"),
        (bnorm(4), "normalises 4 channels, but its input has 3"),
        ({"type": "bnorm", "weights": [np.ones((3, 1)), np.ones((2, 1))]}, "differ in length"),
        ({"type": "bnorm", "weights": [np.ones((3, 1))]}, "1 weights"),
        ({"type": "bnorm", "weights": [np.ones((3, 1)), np.ones((3, 1)), np.ones((3, 3))]}, "not C×2"),
        ({"type": "pool", "pool": np.array([[2.0]])}, "method is missing"),
        ({"type": "pool", "method": "max"}, "window"),
        (POOL | {"method": "median"}, "'median'"),
        (POOL | {"pad": np.array([[2.0]])}, "not smaller than its window"),
        (POOL | {"pool": np.array([[20.0]])}, "does not fit"),
        ({"type": "dropout", "rate": np.array([[1.5]])}, "rate"),
        ({"type": "relu", "leak": np.array([[0.1, 0.2]])}, "one number"),
        ({"type": "lrn", "param": np.array([[5.0, 1.0]])}, "param"),
    ],
)
def test_a_layer_that_does_not_fit(layer: dict[str, Any], says: str) -> None:
    refused(net(layer, LOSS), says, "layer")


def test_from_a_real_file(tmp_path: Path) -> None:
    """Cells and structs as scipy writes them, a single filter, whose trailing axes are dropped."""
    layers = np.empty((1, 2), dtype=object)
    weights = np.empty((1, 2), dtype=object)
    weights[0, 0], weights[0, 1] = np.ones((3, 3), np.float32), np.zeros((1, 1), np.float32)
    layers[0, 0] = {"type": "conv", "name": "only", "weights": weights}
    layers[0, 1] = {"type": "softmaxloss", "name": "loss"}
    path = tmp_path / "net.mat"
    scipy.io.savemat(path, {"net": {"layers": layers, "meta": {"inputSize": np.array([5.0, 5.0, 1.0])}}})
    network, _ = lift(path)
    assert network["only"].kind == Conv(1, (3, 3))
    assert network["only"].shape == (3, 3, 1)


def test_reading_loads_no_framework() -> None:
    code = (
        "import sys; from parity.frameworks.matconvnet.lift import lift; import parity.frameworks.matconvnet.runner;"
        f"lift({str(TRACES / 'seed_slim_f01_net_v7.mat')!r});"
        "print([m for m in ('torch', 'tensorflow', 'keras', 'tf_keras', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


JUNK = (
    Unreadable("an object"),
    "text",
    "",
    [],
    {},
    ["a", {}],
    np.zeros((0, 0)),
    np.zeros((0, 3), np.float32),
    np.array([[np.nan]]),
    np.array([[np.inf, -1.0]]),
    np.array([[1e300]]),
    np.array([[-3.0]]),
    np.array([[True]]),
    np.ones((2, 3, 4, 5, 6)),
    np.ones((1, 7), np.float32),
    np.ones((4, 4), np.uint8),
    ["x", "y"],
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything in nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in [(*path, key), *places(inner, (*path, key))]]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with one place changed."""
    if not path:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("seed", range(6))
def test_junk_anywhere_gives_an_error_or_a_network(seed: int) -> None:
    """A checkpoint with every layer type: whatever one or two of its values become, only ParityError may rise."""
    rng = random.Random(seed)
    rates, zero = np.array([[1.0, 2.0, 0.1]]), np.zeros((1, 1))
    options = {"learningRate": rates, "momentum": rates[:, :1], "solver": "adam", "solverOpts": {"eps": rates[:, :1]}}
    layers = [
        conv(3, 3, 3, 4, name="c", pad=np.ones((1, 4)), stride=np.ones((1, 1)), learningRate=rates, weightDecay=rates),
        bnorm(4, learningRate=rates, epsilon=rates[:, :1], name="n"),
        {"type": "relu", "leak": rates[:, 2:], "name": "r"},
        POOL | {"pad": np.ones((1, 1)), "stride": np.ones((1, 1)), "name": "p"},
        {"type": "lrn", "param": np.array([[5.0, 1.0, 0.1, 0.75]]), "name": "l"},
        {"type": "dropout", "rate": rates[:, 2:], "name": "d"},
        LOSS | {"class": np.ones((1, 4)), "name": "loss"},
    ]
    state = {
        "solverState": [[{"m": np.ones((3, 3, 3, 4)), "v": np.ones((3, 3, 3, 4)), "t": rates[:, :1]}, zero], [], [], []]
    }
    normalization = {"imageSize": np.array([[8.0, 8.0, 3.0]]), "border": np.ones((1, 2))}
    whole = {
        "net": net(*layers, trainOpts=options, normalization=normalization),
        "state": state,
        "stats": {"train": [{}], "val": [{}]},
    }
    lift_data(whole, "x")
    spots = places(whole)
    outcomes = {True: 0, False: 0}
    for _ in range(100):
        data: Any = whole
        for _ in range(rng.choice((1, 1, 2))):
            spot = rng.choice(spots)
            try:
                data = replaced(data, spot, rng.choice(JUNK))
            except (KeyError, IndexError, TypeError, ValueError):
                continue  # the first change took the second one's place away
        try:
            network, recipe = lift_data(data, "x")
            runner = MatConvNetRunner(network, recipe)
            runner.reset(recipe.slots)
            shape = [n or 9 for n in network.inputs["input"]]
            if np.prod(shape) < 1e5:
                found = runner.run({"input": np.ones((2, *shape), np.float32)}, np.array([0, 1]))
                runner.update(found.param_grads, found.statistics)
            outcomes[True] += 1
        except ParityError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 10
