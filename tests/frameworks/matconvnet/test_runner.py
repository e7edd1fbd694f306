"""Whole networks against MatConvNet's own runs: outputs, derivatives, updates, two epochs of its trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from parity.errors import CannotCompare, ParityError, Refused
from parity.frameworks.matconvnet.lift import lift, lift_data
from parity.frameworks.matconvnet.recipe import Overrides
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.layers import Activation, BatchNorm, Conv, Dropout, Loss, Opaque, Pool
from parity.network import Layer, Network
from parity.recipe import Recipe
from tests.frameworks.matconvnet.golden import CELL, TRACES, golden, nhwc, param, record, relative

PLAIN = ("seed_slim_f01_nobn_head", "seed_slim_f01_nobn_beta25")


def seed(name: str) -> tuple[Any, MatConvNetRunner, np.ndarray, np.ndarray, float]:
    """Trace, runner, images, labels from 0, and what the trace's loss is divided by to be a mean."""
    trace = golden(name)["trace"]
    runner = MatConvNetRunner(*lift_data({"net": trace["net_tidy"]}, name))
    labels = trace["labels"].reshape(-1).astype(int) - 1
    return trace, runner, nhwc(trace["images"]), labels, float(len(labels)) if name.endswith("beta25") else 1.0


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("name", [*PLAIN, "seed_slim_bn_head"])
def test_forward_and_backward(name: str, precision: int) -> None:
    trace, runner, x, y, scale = seed(name)
    near = 2e-6 if name in PLAIN else 5e-5
    found = runner.run({"input": x}, y, precision=precision)
    network = runner.network
    for at, layer in enumerate(network.layers[:-1]):
        assert relative(found.outputs[layer.output], nhwc(trace["x"][at + 1])) < near, layer.name
    for at, layer in enumerate(network.layers):
        assert relative(found.output_grads[layer.inputs[0]], nhwc(trace["dzdx"][at]) / scale) < near, layer.name
    assert found.loss == pytest.approx(float(trace["objective"].flat[0]) / scale, rel=1e-6)
    for layer, cell in zip(network.layers, trace["dzdw"], strict=True):
        for role, id_ in layer.params.items():
            if role in ("mean", "deviation"):
                continue
            expected = param(role, cell[CELL[role]]) / scale
            if np.abs(expected).max() < 2e-6 and name not in PLAIN:
                assert np.abs(found.param_grads[id_]).max() < 1e-5  # the true gradient is zero
            else:
                assert relative(found.param_grads[id_], expected) < near, id_
        if isinstance(layer.kind, BatchNorm):
            batch = found.statistics[layer.name]
            assert np.abs(batch["mean"] - cell[2][:, 0]).max() < 5e-5 * cell[2][:, 1].min()
            assert relative(np.sqrt(batch["variance"] + layer.kind.epsilon), cell[2][:, 1]) < 5e-6
    eight_bytes = precision == 64
    assert all((v.dtype == np.float64) == eight_bytes for v in found.outputs.values())
    assert all(v.flags.c_contiguous for v in found.outputs.values())


def _recorded(network: Any, cells: Any) -> dict[str, np.ndarray]:
    """Param id → value, of a recorded cell per layer of a cell per weight; untouched slots (0) are left out."""
    made: dict[str, np.ndarray] = {}
    for layer, cell in zip(network.layers, cells, strict=False):
        ids = list(layer.params.values())
        parts = [column for value in cell for column in _columns(np.asarray(value, np.float32), len(ids))]
        for id_, value in zip(ids, parts, strict=False):
            shape = network.params[id_].shape
            if value.size == np.prod(shape):
                made[id_] = value.reshape(shape, order="F")
    return made


def _columns(value: np.ndarray, count: int) -> list[np.ndarray]:
    """A weight as it is; moments (C x 2, the third of three weights) as mean and deviation."""
    two = count == 4 and value.ndim == 2 and value.shape[1] == 2
    return [value[:, 0], value[:, 1]] if two else [value]


@pytest.mark.parametrize("step", range(3))
def test_one_update_from_the_recorded_state_with_batch_norm(step: int) -> None:
    # Free runs part by rounding alone: half an ulp in the weights is 1e-5 of them after three steps here. From the
    # recorded weights and momenta each step must be MatConvNet's.
    trace, runner, x, y, _ = seed("seed_slim_bn_head")
    if step:
        runner.load(_recorded(runner.network, trace["weights_after"][step - 1]))
        momenta = _recorded(runner.network, trace["momentum_after"][step - 1])
        runner.reset({id_: {"momentum": m} for id_, m in momenta.items() if runner.network.params[id_].trainable})
    found = runner.run({"input": x}, y, observe=False)
    runner.update(found.param_grads, found.statistics)
    reached, expected = runner.params(), _recorded(runner.network, trace["weights_after"][step])
    compared = 0
    for id_, value in expected.items():
        size = np.linalg.norm(value)
        if size > 1e-4:  # a bias before batch normalisation has a true gradient of zero: noise of 1e-7 is recorded
            assert np.linalg.norm(reached[id_] - value) <= 3e-5 * size, id_
            compared += 1
    assert compared >= 15


@pytest.mark.parametrize("name", [*PLAIN, "seed_slim_bn_head"])
def test_three_updates(name: str) -> None:
    trace, runner, x, y, scale = seed(name)
    runner.reset()
    for step in range(3):
        found = runner.run({"input": x}, y, observe=False)
        assert found.loss == pytest.approx(
            float(trace["objective"].flat[step]) / scale, rel=1e-6 if name in PLAIN else 1e-5
        )
        assert not found.outputs
        runner.update(found.param_grads, found.statistics)
        _hold(runner, trace["weights_after"][step], 1e-6 if name in PLAIN else 2e-3)
        if name in PLAIN:
            for layer, cell in zip(runner.network.layers, trace["momentum_after"][step], strict=True):
                for role, id_ in layer.params.items():
                    slot = runner._updater.slots[id_]["momentum"]
                    assert relative(slot, param(role, cell[CELL[role]])) < 2e-6, id_
    last = runner.run({"input": x}, y, mode="eval", backward=False)
    prediction = last.outputs[runner.network.outputs[0]]
    assert relative(prediction, nhwc(trace["final_test_prediction"])) < (2e-6 if name in PLAIN else 1e-2)
    assert not last.param_grads
    assert not last.output_grads


def _errors(runner: MatConvNetRunner, values: Mapping[str, np.ndarray], weights: Any) -> Iterator[float]:
    """Relative errors of some values against a recorded cell per layer."""
    for layer, cell in zip(runner.network.layers, weights, strict=True):
        for role, id_ in layer.params.items():
            yield relative(values[id_], param(role, cell[CELL[role]]))


def _hold(runner: MatConvNetRunner, weights: Any, near: float) -> None:
    """Present weights against a recording; vectors whose true value is zero are left out."""
    values = runner.params()
    for layer, cell in zip(runner.network.layers, weights, strict=True):
        for role, id_ in layer.params.items():
            expected = param(role, cell[CELL[role]])
            if np.abs(expected).max() > 1e-5:
                assert relative(values[id_], expected) < near, id_


def test_an_update_with_the_recorded_gradients_is_exact() -> None:
    """Moments and all: one step from MatConvNet's own derivatives gives its own weights to a rounding or two."""
    trace, runner, _, _, _ = seed("seed_slim_bn_head")
    runner.reset()
    grads, statistics = {}, {}
    for layer, cell in zip(runner.network.layers, trace["dzdw"], strict=True):
        for role, id_ in layer.params.items():
            if role not in ("mean", "deviation"):
                grads[id_] = param(role, cell[CELL[role]])
        if isinstance(layer.kind, BatchNorm):
            mean, deviation = cell[2].astype(np.float64).T
            statistics[layer.name] = {"mean": mean, "variance": deviation**2 - layer.kind.epsilon}
    runner.update(grads, statistics)
    values = runner.params()
    for layer, cell in zip(runner.network.layers, trace["weights_after"][0], strict=True):
        for role, id_ in layer.params.items():
            assert relative(values[id_], param(role, cell[CELL[role]])) < 2e-7, id_


def replayed(name: str) -> tuple[MatConvNetRunner, Any]:
    """A runner after both recorded epochs of cnn_train.m, each batch as its trainer drew it; and the recording."""
    record_ = golden(name)
    images = nhwc(record_["imdb"]["images"]["data"])
    labels = record_["imdb"]["images"]["labels"].reshape(-1).astype(int) - 1
    batches = [batch.reshape(-1).astype(int) - 1 for batch in record_["batches"]]
    values, slots = None, None
    for epoch in (1, 2):
        options = {"learningRate": [0.01, 0.001], "batchSize": 4}
        own = Overrides("recipe.toml", options, epoch, name.rsplit("_", 1)[1])
        runner = MatConvNetRunner(*lift_data({"net": record_["net0"]}, name, recipe=own))
        assert runner.recipe.learning_rate.first == (0.01, 0.001)[epoch - 1]
        runner.load(values or {})
        runner.reset(slots)
        seen, cost = 0, 0.0
        for at in batches[3 * epoch - 3 : 3 * epoch - 1]:
            found = runner.run({"input": images[at]}, labels[at], observe=False)
            runner.update(found.param_grads, found.statistics)
            assert found.loss is not None
            seen, cost = seen + len(at), cost + found.loss * len(at)
        train, val = (record_["stats"][part][epoch - 1] for part in ("train", "val"))
        assert cost / seen == pytest.approx(train["objective"].item(), rel=2e-6)
        held = batches[3 * epoch - 1]
        checked = runner.run({"input": images[held]}, labels[held], mode="eval", backward=False)
        assert checked.loss == pytest.approx(val["objective"].item(), rel=2e-6)
        scores = checked.outputs[runner.network.outputs[0]].reshape(len(held), -1)
        assert np.mean(scores.argmax(1) != labels[held]) == pytest.approx(val["top1err"].item(), rel=1e-6)
        values, slots = runner.params(), runner._updater.slots
    return runner, record_


@pytest.mark.parametrize("name", ["cnn_train_nobn_head", "cnn_train_nobn_beta25"])
def test_two_epochs_of_its_trainer(name: str) -> None:
    runner, record_ = replayed(name)
    weights = [layer.get("weights", []) for layer in record_["net"]["layers"]]
    error = max(_errors(runner, runner.params(), weights))
    record("cnn_train weights", error)
    assert error < 1e-6


def test_the_state_of_two_epochs_is_the_checkpoints() -> None:
    """The replayed momenta and weights are those that the checkpoint of the same run holds."""
    runner, _ = replayed("cnn_train_nobn_head")
    network, recipe = lift(TRACES / "checkpoint_slim_nobn_epoch2.mat")
    assert "the file is a checkpoint after epoch 2" in recipe.notes
    assert set(recipe.slots) == set(runner._updater.slots)
    for id_, slots in recipe.slots.items():
        error = relative(runner._updater.slots[id_]["momentum"], slots["momentum"])
        record("checkpoint state", error)
        assert error < 8 * 1.3e-6, id_
        value = network.params[id_].value
        assert value is not None
        record("checkpoint weights", relative(runner.params()[id_], value))
        assert relative(runner.params()[id_], value) < 8 * 1.3e-7, id_


def test_a_checkpoint_goes_on_where_the_trainer_stopped() -> None:
    """Its slots are those that two epochs of training leave."""
    network, recipe = lift(TRACES / "checkpoint_slim_nobn_epoch2.mat")
    trainable = {id_ for id_, p in network.params.items() if p.trainable}
    assert set(recipe.slots) == trainable
    for id_, slots in recipe.slots.items():
        assert slots["momentum"].shape == network.params[id_].shape
    runner = MatConvNetRunner(network, recipe)
    runner.reset(recipe.slots)
    before = runner.params()
    zero = {id_: np.zeros_like(value) for id_, value in before.items()}
    runner.update(zero, {})
    for id_, value in runner.params().items():
        p = network.params[id_]
        momentum = 0.9 * recipe.slots[id_]["momentum"] - 0.0005 * before[id_]
        np.testing.assert_allclose(value - before[id_], 0.01 * p.rate_multiplier * momentum, atol=1e-7)


@pytest.mark.parametrize("precision", [32, 64])
@pytest.mark.parametrize("name", [PLAIN[0], "seed_slim_bn_head"])
def test_each_layer_alone_repeats_the_whole(name: str, precision: int) -> None:
    """Fed with the run's own tensors, layers give bit for bit what they gave in it, backward too."""
    _, runner, x, y, _ = seed(name)
    whole = runner.run({"input": x}, y, precision=precision)
    for layer in runner.network.layers:
        above = {layer.output: whole.output_grads[layer.output]}
        upstream = {} if isinstance(layer.kind, Loss) else above
        feeds = {name: whole.outputs[name] for name in layer.inputs if name != "labels"}
        alone = runner.isolate([layer.name], feeds, labels=y, upstream=upstream, precision=precision)
        np.testing.assert_array_equal(alone.outputs[layer.output], whole.outputs[layer.output], layer.name)
        at = layer.inputs[0]
        np.testing.assert_allclose(alone.input_grads[at], whole.output_grads[at], rtol=1e-5, atol=1e-12)
        for id_ in layer.params.values():
            if runner.network.params[id_].trainable:
                np.testing.assert_allclose(alone.param_grads[id_], whole.param_grads[id_], rtol=1e-4, atol=1e-7)
    assert alone.loss == whole.loss


def test_a_connected_set_with_its_loss() -> None:
    _, runner, x, y, _ = seed(PLAIN[0])
    whole = runner.run({"input": x}, y)
    names = [layer.name for layer in runner.network.layers][-3:]
    feed = {"ip1": whole.outputs["ip1"]}
    alone = runner.isolate(names, feed, labels=y, upstream={})
    assert alone.loss == whole.loss
    np.testing.assert_array_equal(alone.input_grads["ip1"], whole.output_grads["ip1"])
    forward = runner.isolate(names, feed, labels=y)
    assert forward.loss == whole.loss
    assert not forward.input_grads
    assert not forward.param_grads


def test_only_the_gradients_that_are_wanted_are_made() -> None:
    """Each of them alone is, to the last bit, what it is among all."""
    _, runner, x, y, _ = seed(PLAIN[0])
    whole = runner.run({"input": x}, y)
    given = {"feeds": {"pool1": whole.outputs["pool1"]}, "upstream": {"conv2": whole.output_grads["conv2"]}}
    every = runner.isolate(["conv2"], **given)
    for name, found in {**every.input_grads, **every.param_grads}.items():
        alone = runner.isolate(["conv2"], **given, wanted=[name])
        made = {**alone.input_grads, **alone.param_grads}
        assert list(made) == [name]
        np.testing.assert_array_equal(made[name], found)
    assert set(every.input_grads) | set(every.param_grads) == {"pool1", "conv2.kernel", "conv2.bias"}
    none = runner.isolate(["conv2"], **given, wanted=())
    assert not none.input_grads
    assert not none.param_grads
    np.testing.assert_array_equal(none.outputs["conv2"], every.outputs["conv2"])


def test_isolation_takes_other_parameters_and_changes_nothing() -> None:
    _, runner, x, _, _ = seed(PLAIN[0])
    before = runner.params()
    other = {"conv1.kernel": np.zeros((3, 3, 1, 8), np.float32), "conv1.bias": np.full(8, 2.0, np.float32)}
    local = runner.isolate(["conv1"], {"input": x}, params=other)
    assert (local.outputs["conv1"] == 2).all()
    for id_, value in runner.params().items():
        np.testing.assert_array_equal(value, before[id_])


def test_derivatives_of_the_whole_are_differences() -> None:
    """In double, the loss moves along a random direction as its gradients say."""
    _, runner, x, y, _ = seed("seed_slim_bn_head")
    rng = np.random.default_rng(5)
    whole = runner.run({"input": x.astype(np.float64)}, y, precision=64)
    names = [layer.name for layer in runner.network.layers]
    values = {id_: v.astype(np.float64) for id_, v in runner.params().items()}
    ways = {id_: rng.normal(size=v.shape) * 1e-2 for id_, v in values.items() if id_ in whole.param_grads}
    slope = sum(float(np.sum(whole.param_grads[id_] * way)) for id_, way in ways.items())

    def loss(t: float) -> float:
        moved = {id_: v + t * ways[id_] if id_ in ways else v for id_, v in values.items()}
        found = runner.isolate(names, {"input": x}, labels=y, params=moved, precision=64).loss
        assert found is not None
        return found

    assert (loss(1e-6) - loss(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-5)


def test_an_edited_layer_shares_the_weights() -> None:
    _, runner, x, y, _ = seed("seed_slim_bn_head")
    norm = next(layer for layer in runner.network.layers if isinstance(layer.kind, BatchNorm))
    other = runner.edited(norm.name, replace(norm.kind, epsilon=1e-3))
    assert other.network[norm.name].kind.describe()["epsilon"] == 1e-3
    assert runner.network[norm.name].kind.describe()["epsilon"] == 1e-5
    assert other.run({"input": x}, y).loss != runner.run({"input": x}, y).loss
    other.load({f"{norm.name}.beta": np.ones(8, np.float32)})
    assert (runner.params()[f"{norm.name}.beta"] == 1).all()
    dense = runner.edited("ip1", replace(runner.network["ip1"].kind, groups=1))
    kernel = np.zeros((1, 1, 64, 32), np.float32)
    kernel[:, :, :32, :16] = runner.params()["ip1.kernel"][..., :16]
    kernel[:, :, 32:, 16:] = runner.params()["ip1.kernel"][..., 16:]
    feed = {"pool4": runner.run({"input": x}, y).outputs["pool4"]}
    blocks = dense.isolate(["ip1"], feed, params={"ip1.kernel": kernel}).outputs["ip1"]
    assert relative(blocks, runner.isolate(["ip1"], feed).outputs["ip1"]) < 1e-6
    with pytest.raises(CannotCompare, match="ip1"):
        dense.isolate(["ip1"], feed)
    with pytest.raises(CannotCompare, match="conv2"):
        runner.edited("conv2", replace(runner.network["conv2"].kind, size=(50, 50)))


def tiny(kinds: list[tuple[str, Any, dict[str, np.ndarray]]], shape: tuple[int, ...]) -> MatConvNetRunner:
    """A chain of layers with a loss at its end."""
    from parity.network import Param

    layers, params, tensor = [], {}, "input"
    for name, kind, values in kinds:
        ids = {role: f"{name}.{role}" for role in values}
        for role, value in values.items():
            params[ids[role]] = Param(ids[role], role, kind.roles[role], value.shape, value.astype(np.float32))
        layers.append(Layer(name, kind, (tensor, "labels") if isinstance(kind, Loss) else (tensor,), (name,), ids))
        tensor = name
    network = Network(
        "tiny", "matconvnet", {"input": shape, "labels": ()}, (layers[-2].name,), tuple(layers), params, ("labels",)
    )
    return MatConvNetRunner(network, Recipe())


def test_a_given_mask_is_scaled_by_the_layers_own_rate() -> None:
    runner = tiny([("drop", Dropout(0.75), {}), ("loss", Loss(), {})], (1, 1, 4))
    x = np.ones((2, 1, 1, 4), np.float32)
    mask = np.array([[1, 0, 1, 0], [0, 0, 1, 1]], np.float32).reshape(2, 1, 1, 4)
    found = runner.run({"input": x}, np.array([0, 1]), masks={"drop": mask})
    np.testing.assert_array_equal(found.outputs["drop"], 4 * mask)
    np.testing.assert_array_equal(found.masks["drop"], mask)
    assert (found.output_grads["input"] == 4 * mask * found.output_grads["drop"]).all()
    np.testing.assert_array_equal(runner.run({"input": x}, np.array([0, 1]), mode="eval").outputs["drop"], x)


def test_ties_go_where_they_are_asked_to() -> None:
    runner = tiny([("pool", Pool("max", (2, 2)), {}), ("loss", Loss(), {})], (2, 2, 2))
    x = np.zeros((1, 2, 2, 2), np.float32)
    x[0, 1, 0], x[0, 0, 1] = 1, 1
    column, row = (
        runner.run({"input": x}, np.array([0]), ties=ties).output_grads["input"][0, :, :, 0]
        for ties in ("column", "row")
    )
    assert (column != 0).tolist() == [[False, False], [True, False]]
    assert (row != 0).tolist() == [[False, True], [False, False]]


def test_a_third_rate_that_is_missing() -> None:
    """MatConvNet's trainer stops with an index error; the moments stay, and the runner says so once."""
    trace = golden("seed_slim_bn_head")["trace"]
    network, recipe = lift_data({"net": trace["net_raw_as_seed"]}, "seed", (28, 28, 1))
    norms = [layer for layer in network.layers if isinstance(layer.kind, BatchNorm)]
    assert len(norms) == 5
    assert all(layer.kind.describe()["momentum"] is None for layer in norms)
    assert all("index error" in " ".join(layer.remarks) for layer in norms)
    runner = MatConvNetRunner(network, recipe)
    x, y = nhwc(trace["images"]), trace["labels"].reshape(-1).astype(int) - 1
    for _ in range(2):
        found = runner.run({"input": x}, y)
        runner.update(found.param_grads, found.statistics)
    assert all((value == 0).all() for id_, value in runner.params().items() if id_.endswith((".mean", ".deviation")))
    assert len(runner.remarks) == 5
    assert all("index error" in remark for remark in runner.remarks)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.array([0, 1, 2, 0]), "labels run from 0 to 2"),
        (np.array([0, -2, 0, 0]), "labels run from -2 to 0"),
        (np.array([0, 1, 0]), "4 images"),
        (np.array([0, 0.5, 0, 0]), "whole numbers"),
        (np.eye(3)[[0, 1, 2, 0]], "3 classes for 2 outputs"),
        (np.zeros((4, 2, 2), int), "per pixel"),
    ],
)
def test_labels_that_do_not_fit(labels: np.ndarray, says: str) -> None:
    _, runner, x, _, _ = seed(PLAIN[0])
    with pytest.raises(CannotCompare, match=says):
        runner.run({"input": x}, labels)


def test_forms_of_labels() -> None:
    _, runner, x, y, _ = seed(PLAIN[0])
    ids = runner.run({"input": x}, y)
    assert runner.run({"input": x}, np.eye(2)[y]).loss == ids.loss
    assert runner.run({"input": x}, y.reshape(4, 1, 1)).loss == ids.loss
    assert runner.run({"input": x}, y.reshape(4, 1)).loss == ids.loss
    ignored = runner.run({"input": x}, np.where(np.arange(4) == 0, -1, y))
    assert not ignored.output_grads["classifier"][0].any()
    assert ignored.output_grads["classifier"][1].any()
    none = runner.run({"input": x}, None)
    assert none.loss is None
    assert "loss" not in none.outputs
    assert "classifier" in none.outputs


@pytest.mark.parametrize("shape", [(4, 27, 28, 1), (4, 28, 28, 3), (4, 28, 28)])
def test_a_batch_that_does_not_fit(shape: tuple[int, ...]) -> None:
    _, runner, _, y, _ = seed(PLAIN[0])
    with pytest.raises(CannotCompare, match="28×28×1"):
        runner.run({"input": np.zeros(shape, np.float32)}, y)


def test_what_cannot_run_is_passed_over() -> None:
    """What stands before a custom layer is observed, what stands behind it is absent, and the runner says so."""
    runner = tiny(
        [
            ("before", Activation("sigmoid"), {}),
            ("mystery", Opaque("custom", runs_code=True), {}),
            ("after", Activation("relu"), {}),
            ("loss", Loss(), {}),
        ],
        (1, 1, 2),
    )
    found = runner.run({"input": np.zeros((1, 1, 1, 2), np.float32)}, np.array([0]))
    assert set(found.outputs) == {"input", "before"}
    assert found.loss is None
    assert not found.losses
    assert not found.output_grads
    (remark,) = runner.remarks
    assert "mystery" in remark
    assert "2 layers" in remark
    with pytest.raises(Refused, match="mystery"):
        runner.isolate(["mystery"], {"before": np.zeros((1, 1, 1, 2), np.float32)})


def test_what_cannot_be_done_says_so() -> None:
    runner = tiny([("relu", Activation("relu"), {}), ("loss", Loss(), {})], (1, 1, 2))
    with pytest.raises(CannotCompare, match="none of its inputs"):
        runner.run({}, np.array([0]))
    with pytest.raises(ParityError, match="update rule"):
        runner.update({}, {})
    with pytest.raises(CannotCompare, match="no parameter"):
        runner.load({"nothing": np.zeros(1)})
    with pytest.raises(CannotCompare, match="shape"):
        seed(PLAIN[0])[1].load({"conv1.bias": np.zeros(3)})


def test_params_are_copies() -> None:
    _, runner, _, _, _ = seed(PLAIN[0])
    runner.params()["conv1.bias"][:] = 7
    assert not (runner.params()["conv1.bias"] == 7).any()


def test_a_relu_with_a_leak_and_open_extents() -> None:
    kernel = np.ones((1, 1, 2, 3))
    runner = tiny(
        [
            ("a", Conv(3, (1, 1), bias=False), {"kernel": kernel}),
            ("b", Activation("relu", 0.5), {}),
            ("loss", Loss(), {}),
        ],
        (None, None, 2),
    )
    x = -np.ones((1, 2, 3, 2), np.float32)
    found = runner.run({"input": x}, np.array([1]))
    np.testing.assert_array_equal(found.outputs["b"], np.full((1, 2, 3, 3), -1.0))
    assert found.loss == pytest.approx(6 * np.log(3))  # summed over pixels, a mean over images only
