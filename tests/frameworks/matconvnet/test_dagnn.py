"""Lifting and running DagNN structs: graphs, shared parameters, objectives, and one line for what does not fit."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.errors import BadFile, CannotCompare, ParityError
from parity.frameworks.matconvnet.blocks import BLOCKS, block_fields
from parity.frameworks.matconvnet.lift import lift, lift_data
from parity.frameworks.matconvnet.matfile import read
from parity.frameworks.matconvnet.order import CycleError, evaluation_order
from parity.frameworks.matconvnet.recipe import Overrides
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.frameworks.matconvnet.values import Unreadable
from parity.layers import BatchNorm, DistanceLoss, Kind, Loss, Opaque, PDist
from parity.layers import lookup as kind_of
from parity.runner import Targets
from tests import twins_dag
from tests.frameworks.matconvnet.test_lift import JUNK, places, replaced
from tests.twins_dag import Dag

Struct = dict[str, Any]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dagnn")


def struct(dag: Dag, where: Path, **options: Any) -> Struct:
    """A net as it is read from its file."""
    return read(twins_dag.save(where / "net.mat", dag, **options))


def opened(dag: Dag, where: Path, recipe: Overrides | None = None, **options: Any) -> MatConvNetRunner:
    return MatConvNetRunner(*lift_data(struct(dag, where, **options), "net.mat", recipe=recipe))


def refused(net: Any, *words: str, recipe: Overrides | None = None) -> None:
    with pytest.raises(BadFile) as caught:
        lift_data(net, "bad.mat", recipe=recipe)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def layer(net: Struct, name: str) -> Struct:
    return next(entry for entry in net["layers"] if entry["name"] == name)


# ------------------------------------------------------------------------------------------------------------ the graph


def test_the_longest_way_to_a_sink_goes_first() -> None:
    inputs = [["in"], ["in"], ["b"], ["c", "a"], ["a"]]
    outputs = [["a"], ["b"], ["c"], ["d"], ["e"]]
    assert evaluation_order(inputs, outputs) == [1, 0, 2, 3, 4]
    with pytest.raises(CycleError) as circle:
        evaluation_order([["z"], ["x"], ["y"]], [["x"], ["y"], ["z"]])
    assert circle.value.layers == (0, 1, 2, 0)
    long = 5000
    chain = evaluation_order([[str(n)] for n in range(long)], [[str(n + 1)] for n in range(long)])
    assert chain == list(range(long))


def test_layers_in_any_order_of_the_file(where: Path) -> None:
    net = struct(twins_dag.inception(), where)
    turned = net | {"layers": net["layers"][::-1]}
    first, second = (MatConvNetRunner(*lift_data(n, "x")) for n in (net, turned))
    assert {a.name for a in first.network} == {b.name for b in second.network}
    batch = twins_dag.batch(twins_dag.inception())
    runs = [runner.run({"data": batch["x"]}, batch["y"]) for runner in (first, second)]
    assert runs[0].loss == runs[1].loss
    for name, value in runs[0].outputs.items():
        np.testing.assert_array_equal(value, runs[1].outputs[name])


def test_a_variable_and_a_field_hold_the_same_net(where: Path) -> None:
    dag = twins_dag.resnet()
    own, _ = lift(twins_dag.save(where / "a.mat", dag))
    variable, _ = lift(twins_dag.save(where / "b.mat", dag, variable=True))
    assert [a.kind for a in own] == [b.kind for b in variable]


def test_shared_parameters_are_one(where: Path) -> None:
    """Two layers' gradients add up in the parameter that they share; it is stepped once."""
    dag = twins_dag.two_heads()
    runner = opened(dag, where)
    network = runner.network
    assert network["twin_a"].params == network["twin_b"].params == {"kernel": "twinf", "bias": "twinb"}
    batch = twins_dag.batch(dag)
    labels = {"label": batch["y_head1"], "attribute": batch["y_head2"]}
    found = runner.run({"data": batch["x"]}, Targets(labels))
    parts = []
    for name in ("twin_a", "twin_b"):
        item = network[name]
        above = {item.output: found.output_grads[item.output]}
        parts.append(runner.isolate([name], {item.inputs[0]: found.outputs[item.inputs[0]]}, upstream=above))
    total = parts[0].param_grads["twinf"] + parts[1].param_grads["twinf"]
    np.testing.assert_allclose(found.param_grads["twinf"], total, rtol=1e-4, atol=1e-6)
    assert np.abs(parts[1].param_grads["twinf"]).max() > 1e-3


def test_moments_that_two_layers_share_take_their_mean(where: Path) -> None:
    """value ← (1 - r)·value + (r/fanout)·Σ moments (cnn_train_dag.m)."""
    dag = Dag(3, {"data": (6, 6, 4)})
    dag.bnorm("norm", "data", 4, rate=0.2)
    y = dag.relu("relu", "norm_")
    dag.rows.append({**dag.rows[0], "name": "again", "inputs": [y], "outputs": ["again_"]})
    dag.loss("loss", dag.conv("fc", "again_", (6, 6, 4, 3)), "objective")
    runner = opened(dag, where)
    assert isinstance(runner.network["again"].kind, BatchNorm)
    before = runner.params()
    x = np.random.default_rng(1).normal(size=(5, 6, 6, 4)).astype(np.float32)
    found = runner.run({"data": x}, np.array([0, 1, 2, 0, 1]))
    runner.update(found.param_grads, found.statistics)
    both = [found.statistics[name] for name in ("norm", "again")]
    sigma = np.mean([np.sqrt(s["variance"] + 1e-5) for s in both], axis=0)
    after = runner.params()
    np.testing.assert_allclose(after["normx.deviation"], 0.8 * before["normx.deviation"] + 0.2 * sigma, rtol=1e-5)
    mean = np.mean([s["mean"] for s in both], axis=0)
    np.testing.assert_allclose(after["normx.mean"], 0.8 * before["normx.mean"] + 0.2 * mean, rtol=1e-5, atol=1e-7)


def test_a_rate_of_moments_that_is_not_said(where: Path) -> None:
    net = struct(twins_dag.resnet(), where)
    for entry in net["params"]:
        del entry["learningRate"], entry["weightDecay"]
    network, _ = lift_data(net, "x")
    assert network.params["bn1x.mean"].rate_multiplier == pytest.approx(0.1)
    assert network.params["bn1m"].rate_multiplier == network.params["bn1m"].decay_multiplier == 1


# ------------------------------------------------------------------------------------------------ inputs and objectives


def two_inputs() -> Dag:
    dag = Dag(1, {"left": (8, 8, 3), "right": (8, 8, 2)})
    a = dag.relu("relu_a", dag.conv("conv_a", "left", (3, 3, 3, 4)))
    b = dag.relu("relu_b", dag.conv("conv_b", "right", (3, 3, 2, 4)))
    dag.loss("loss", dag.conv("fc", dag.sum("sum", (a, b)), (6, 6, 4, 3)), "objective")
    return dag


def test_several_inputs(where: Path) -> None:
    runner = opened(two_inputs(), where)
    assert runner.network.data(runner.network.inputs) == ["left", "right"]
    rng = np.random.default_rng(0)
    feeds = {n: rng.normal(size=(3, *s)).astype(np.float32) for n, s in two_inputs().inputs.items()}
    found = runner.run(feeds, np.array([0, 1, 2]))
    assert found.output_grads["right"].shape == (3, 8, 8, 2)
    with pytest.raises(CannotCompare, match="its input right is 8×8×2, but the batch is 8×8×3"):
        runner.run({**feeds, "right": feeds["left"]}, None)
    with pytest.raises(CannotCompare, match="it has no input 'up'"):
        runner.run({**feeds, "up": feeds["left"]}, None)


def test_layers_with_an_unset_input_are_passed_over(where: Path) -> None:
    runner = opened(two_inputs(), where)
    x = np.zeros((2, 8, 8, 3), np.float32)
    found = runner.run({"left": x}, np.array([0, 1]))
    assert set(found.outputs) == {"left", "conv_a_", "relu_a_"}
    assert found.loss is None


def test_inputs_of_unknown_size(where: Path) -> None:
    net = struct(two_inputs(), where)
    net["meta"] = {}
    network, _ = lift_data(net, "x")
    assert dict(network.inputs) == {"left": (None, None, 3), "right": (None, None, 2), "label": ()}
    assert sum("does not say the size of its input" in remark for remark in network.remarks) == 2
    known, _ = lift_data(net, "x", {"left": (8, 8, 3), "right": (8, 8, 2)})
    assert known["fc"].shape == (1, 1, 3)
    net["meta"] = {"normalization": {"imageSize": np.array([[8.0, 8.0, 3.0]])}}
    assert lift_data(net, "x")[0].inputs["left"] == (8, 8, 3)


def test_objectives_and_their_weights(where: Path) -> None:
    dag = twins_dag.two_heads()
    batch = twins_dag.batch(dag)
    targets = Targets({"label": batch["y_head1"], "attribute": batch["y_head2"]})
    both = opened(dag, where)
    assert dict(both.network.objectives) == {"objective1": 1, "objective2": 1}
    assert any("no variable `objective`" in remark for remark in both.network.remarks)
    alone = [
        opened(dag, where, Overrides("r.toml", {"derOutputs": {name: 1.0}})) for name in ("objective1", "objective2")
    ]
    weighted = opened(dag, where, derOutputs=twins_dag.cell(["objective1", 1.0, "objective2", 0.25]))
    assert dict(weighted.network.objectives) == {"objective1": 1, "objective2": 0.25}
    runs = [runner.run({"data": batch["x"]}, targets) for runner in (*alone, weighted)]
    first, second, mixed = runs
    assert mixed.loss == pytest.approx(first.loss + 0.25 * second.loss, rel=1e-6)
    assert mixed.losses == pytest.approx({"loss1": first.loss, "loss2": 0.25 * second.loss}, rel=1e-6)
    assert weighted.raw_loss(mixed, 8) == pytest.approx({"loss1": first.loss, "loss2": second.loss}, rel=1e-6)
    expected = first.param_grads["twinf"] + 0.25 * second.param_grads["twinf"]
    np.testing.assert_allclose(mixed.param_grads["twinf"], expected, rtol=1e-4, atol=1e-6)
    assert "head2_" not in first.output_grads
    assert alone[0].recipe.metrics == ("loss2",)


def test_a_second_loss_that_is_not_differentiated(where: Path) -> None:
    dag = twins_dag.resnet()
    dag.loss("second", "prediction", "objective2", "mshinge")
    network = opened(dag, where).network
    assert dict(network.objectives) == {"objective": 1}
    assert any("and not objective2" in remark for remark in network.remarks)


def test_an_objective_that_is_missing(where: Path) -> None:
    net = struct(twins_dag.resnet(), where)
    recipe = Overrides("r.toml", {"derOutputs": {"objektive": 1.0}})
    refused(net, "'objektive'", "objective, top1err", recipe=recipe)
    net["meta"]["trainOpts"]["derOutputs"] = ["objective", 1.0, "more"]
    refused(net, "derOutputs is not a cell of names and numbers")


def test_a_distance_to_a_target_is_a_loss_and_one_to_a_layer_is_not(where: Path) -> None:
    fields = {"p": 2.0, "aggregate": True, "noRoot": True}
    dag = Dag(2, {"data": (4, 4, 3)}, ())
    x = dag.conv("conv", "data", (1, 1, 3, 2))
    dag.add("near", "PDist", (x, "target"), out="objective", **fields)
    runner = opened(dag, where)
    assert isinstance(runner.network["near"].kind, DistanceLoss)
    assert runner.network.labels == ("target",)
    rng = np.random.default_rng(0)
    images, target = rng.normal(size=(3, 4, 4, 3)).astype(np.float32), rng.normal(size=(3, 4, 4, 2)).astype(np.float32)
    found = runner.run({"data": images}, target)
    y = found.outputs["conv_"]
    assert found.loss == pytest.approx(np.sum((y - target) ** 2), rel=1e-5)
    np.testing.assert_allclose(found.output_grads["conv_"], 2 * (y - target), rtol=1e-5, atol=1e-6)
    assert opened(dag, where, Overrides("r", version="beta25")).run({"data": images}, target).loss == pytest.approx(
        np.sum((y - target) ** 2) / 3, rel=1e-5
    )
    siamese = Dag(2, {"data": (4, 4, 3)}, ())
    x = siamese.conv("conv", "data", (1, 1, 3, 2))
    siamese.add("near", "PDist", (x, siamese.conv("other", "data", (1, 1, 3, 2))), out="objective", **fields)
    runner = opened(siamese, where)
    assert isinstance(runner.network["near"].kind, PDist)
    assert [item.name for item in runner.network.losses] == ["near"]
    found = runner.run({"data": images}, None)
    difference = found.outputs["conv_"] - found.outputs["other_"]
    assert found.loss == pytest.approx(np.sum(difference**2), rel=1e-5)
    np.testing.assert_allclose(found.output_grads["other_"], -2 * difference, rtol=1e-5, atol=1e-6)
    assert runner.raw_loss(found, 3)["near"] == pytest.approx(found.loss)


@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_last_release_divides_a_distance_of_branches_by_the_batch(aggregate: bool, parts: int, where: Path) -> None:
    """`accumulateGradients` of beta25 divides every gradient by the batch, that of an undivided distance too."""
    dag = Dag(2, {"data": (4, 4, 3)}, ())
    x = dag.conv("conv", "data", (1, 1, 3, 2))
    other = dag.conv("other", "data", (1, 1, 3, 2))
    dag.add("near", "PDist", (x, other), out="objective", p=2.0, aggregate=aggregate, noRoot=True)
    images = np.random.default_rng(0).normal(size=(6, 4, 4, 3)).astype(np.float32)
    options = {"numSubBatches": parts}
    head, beta = (opened(dag, where, Overrides("r", options, version=v)) for v in ("head", "beta25"))
    new, old = (runner.run({"data": images}, None) for runner in (head, beta))
    assert new.loss is not None
    assert old.loss is not None
    assert old.loss * 6 == pytest.approx(new.loss * parts, rel=1e-5)
    for name, value in new.param_grads.items():
        np.testing.assert_allclose(6 * old.param_grads[name], parts * value, rtol=1e-4, atol=1e-4)
    if aggregate:
        alone = beta.isolate(["near"], {n: old.outputs[n] for n in ("conv_", "other_")}, upstream={})
        assert alone.loss == pytest.approx(old.loss, rel=1e-5)
        assert beta.raw_loss(old, 6)["near"] == pytest.approx(head.raw_loss(new, 6)["near"] * parts, rel=1e-5)


def test_a_class_of_the_author_is_passed_over(where: Path) -> None:
    """What does not need it is run, its siblings too; the comparison is told what is absent."""
    net = struct(twins_dag.inception(), where)
    layer(net, "branch_b2")["type"] = "dagnn.Mine"
    runner = MatConvNetRunner(*lift_data(net, "x"))
    kind = runner.network["branch_b2"].kind
    assert isinstance(kind, Opaque)
    assert kind.runs_code
    batch = twins_dag.batch(twins_dag.inception())
    found = runner.run({"data": batch["x"]}, batch["y"])
    assert {"relu_b1_", "branch_c_", "relu_d_"} <= set(found.outputs)
    assert not {"branch_b2_", "concat_", "objective"} & set(found.outputs)
    assert found.loss is None
    assert "branch_b2" in runner.remarks[0]


def test_losses_of_attributes_take_signs(where: Path) -> None:
    """One label of -1 or +1 for each output; 0 is ignored; 0 and 1 stand for -1 and +1 where no -1 is there."""
    dag = Dag(4, {"data": (3, 3, 2)})
    dag.loss("loss", dag.conv("fc", "data", (3, 3, 2, 4), out="prediction"), "objective", "logistic")
    runner = opened(dag, where)
    rng = np.random.default_rng(0)
    x, signs = rng.normal(size=(5, 3, 3, 2)).astype(np.float32), rng.choice([-1.0, 0.0, 1.0], (5, 4))
    signs[0, 0] = -1
    found = runner.run({"data": x}, signs)
    z = found.outputs["prediction"].reshape(5, 4)
    assert found.loss == pytest.approx((np.abs(signs) * np.log1p(np.exp(-signs * z))).sum() / 5, rel=1e-5)
    same = runner.run({"data": x}, signs.reshape(5, 1, 1, 4))
    assert same.loss == found.loss
    truths = (rng.random((5, 4)) < 0.5).astype(float)
    both = [runner.run({"data": x}, labels).loss for labels in (truths, 2 * truths - 1)]
    assert both[0] == both[1]


def test_an_edited_layer_and_what_follows(where: Path) -> None:
    dag = twins_dag.inception()
    runner = opened(dag, where)
    batch = twins_dag.batch(dag)
    before = runner.run({"data": batch["x"]}, batch["y"])
    kind = runner.network["branch_b2"].kind
    other = runner.edited("branch_b2", replace(kind, dilate=(1, 1), pad=(1, 1, 1, 1)))
    after = other.run({"data": batch["x"]}, batch["y"])
    assert after.loss != before.loss
    np.testing.assert_array_equal(after.outputs["relu_d_"], before.outputs["relu_d_"])
    assert not np.array_equal(after.outputs["concat_"], before.outputs["concat_"])
    assert runner.run({"data": batch["x"]}, batch["y"]).loss == before.loss
    wider = opened(dag, where).edited("up", replace(runner.network["up"].kind, crop=(0, 0, 0, 0)))
    assert wider.network["up"].shape == (14, 14, 5)
    narrow = runner.edited("branch_b2", replace(kind, pad=(0, 0, 0, 0)))
    with pytest.raises(CannotCompare, match="layer concat cannot run on 6×6×6, 2×2×8"):
        narrow.run({"data": batch["x"]}, batch["y"])
    with pytest.raises(KeyError):
        runner.edited("nothing", kind)


def every_block() -> Dag:
    """A net with all of DagNN's blocks on the way to its objective."""
    dag = Dag(9, {"data": (9, 9, 4), "rois": (5, 2, 1)})
    x = dag.bnorm("bn", dag.conv("conv", "data", (3, 3, 2, 4), pad=(1, 1, 1, 1), dilate=1), 4)
    x = dag.relu("relu", x, 0.1)
    x = dag.add("lrn", "LRN", x, param=np.array([3.0, 1.0, 0.1, 0.75]))
    x = dag.add("offset", "NormOffset", x, param=np.array([0.5, 0.5]))
    x = dag.add("spatial", "SpatialNorm", x, param=np.array([3.0, 3.0, 0.1, 0.5]))
    x = dag.add("drop", "DropOut", x, rate=0.25)
    y = dag.convt("up", dag.pool("pool", x, "max", 3, 2), (3, 3, 4, 4), upsample=2, crop=(0, 0, 0, 0))
    x = dag.add("crop", "Crop", (x, y), crop=np.array([0.0, 0.0]))
    x = dag.scale("scale", dag.sum("sum", (x, y)), 4)
    theta = dag.conv("theta", x, (9, 9, 4, 6))
    grid = dag.add("affine", "AffineGridGenerator", theta, Ho=6.0, Wo=5.0)
    a = dag.add("sample", "BilinearSampler", (x, grid))
    uniform = dag.add("uniform", "UniformScalingGridGenerator", dag.conv("theta2", x, (9, 9, 4, 3)), Ho=6.0, Wo=5.0)
    b = dag.add("sample2", "BilinearSampler", (x, uniform))
    x = dag.concat("concat", (a, dag.add("sigmoid", "Sigmoid", b)))
    roi = dag.add("roi", "ROIPooling", ("crop_", "rois"), subdivisions=np.array([2.0, 2.0]), method="max")
    x = dag.add("softmax", "SoftMax", dag.conv("fc", x, (6, 5, 8, 3)))
    dag.loss("loss", x, "objective", "log")
    dag.add("near", "PDist", (dag.conv("fc2", roi, (2, 2, 4, 2)), "target"), out="distance", aggregate=True, p=2.0)
    return dag


def test_every_block_runs_forward_and_backward_in_both_precisions(where: Path) -> None:
    """In double, the objectives move along a random direction of the parameters as the gradients say."""
    dag = every_block()
    assert {row["type"] for row in dag.rows} == set(BLOCKS)
    own = Overrides("r", {"derOutputs": {"objective": 1.0, "distance": 0.1}})
    runner = opened(dag, where, own)
    rng = np.random.default_rng(4)
    rois = np.array([[1, 2, 1, 6, 7], [2, 1, 3, 8, 9]], float).T.reshape(1, 5, 2, 1)
    feeds = {"data": rng.normal(size=(2, 9, 9, 4)).astype(np.float32), "rois": rois.astype(np.float32)}
    targets = Targets({"label": np.array([0, 2]), "target": rng.normal(size=(2, 1, 1, 2)).astype(np.float32)})
    wide, single = (runner.run(feeds, targets, precision=bits) for bits in (64, 32))
    assert set(single.outputs) == {*feeds, *(name for row in dag.rows for name in row["outputs"])}
    for name, value in wide.outputs.items():
        np.testing.assert_allclose(single.outputs[name], value, rtol=1e-4, atol=1e-4 * np.abs(value).max())
    trained = {id_ for id_, p in runner.network.params.items() if p.trainable}
    assert set(wide.param_grads) == trained
    values = {id_: v.astype(np.float64) for id_, v in runner.params().items()}
    ways = {id_: rng.normal(size=values[id_].shape) * 1e-2 for id_ in trained}
    slope = sum(float(np.sum(wide.param_grads[id_] * way)) for id_, way in ways.items())

    def loss(t: float) -> float:
        moved = {id_: v + t * ways[id_] if id_ in ways else v for id_, v in values.items()}
        names = [item.name for item in runner.network]
        found = runner.isolate(names, feeds, labels=targets, params=moved, precision=64)
        assert found.loss is not None
        return found.loss

    assert (loss(1e-6) - loss(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-4)


# ----------------------------------------------------------------------------------------------------------- the fields


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_read(name: str) -> None:
    """Each block has a kind, and an empty struct stands for its defaults."""
    assert kind_of("matconvnet", name) is not None
    fields = block_fields(name, {}) | {"Ho": 2.0, "Wo": 3.0}  # a grid of 0×0 is the default, and none
    kind = kind_of("matconvnet", name)
    assert kind is not None
    if not BLOCKS[name].params[0]:
        assert isinstance(kind.from_matconvnet(fields, {}), Kind)
    with pytest.raises(ValueError, match="has no property 'colour'"):
        block_fields(name, {"colour": 1.0})


def test_what_the_setters_of_matlab_do() -> None:
    fields = block_fields("dagnn.Conv", {"pad": np.array([[1.0, 2.0]])})
    assert np.ravel(fields["pad"]).tolist() == [1, 1, 2, 2]
    assert np.ravel(block_fields("dagnn.ConvTranspose", {"crop": np.array([[3.0, 4.0]])})["crop"]).tolist() == [
        3,
        3,
        4,
        4,
    ]
    assert block_fields("dagnn.Crop", {"crop": np.array([[3.0, 4.0]])})["crop"].size == 2
    assert block_fields("dagnn.Pooling", {"poolSize": np.array([[3.0, 4.0]])})["pool"].size == 2
    assert "numInputs" not in block_fields("dagnn.Concat", {"numInputs": np.array([[2.0]])})


def test_the_options_of_a_loss() -> None:
    opts = ["TOPK", np.array([[3.0]])]
    kind = Loss.from_matconvnet(block_fields("dagnn.Loss", {"loss": "topkerror", "opts": opts}), {})
    assert (kind.function, kind.describe()["top"]) == ("topkerror", 3)
    with pytest.raises(ValueError, match="'speed'"):
        block_fields("dagnn.Loss", {"opts": ["speed", np.array([[3.0]])]})


def broken(net: Struct) -> list[tuple[str, Struct, tuple[str, ...]]]:
    """What is done to a net, the net, and what must be said of it."""
    made: list[tuple[str, Struct, tuple[str, ...]]] = []

    def case(title: str, *words: str) -> Struct:
        other = copy.deepcopy(net)
        made.append((title, other, words))
        return other

    layer(case("a circle", "circle", "conv2a", "relu2a"), "conv2a")["inputs"] = ["relu2a_"]
    layer(case("two of a name", "name of another layer", "conv2a"), "conv2b")["name"] = "conv2a"
    layer(case("two writers", "writes the variable 'bn1_'", "conv1"), "conv1")["outputs"] = ["bn1_"]
    layer(case("no such parameter", "'missing'", "conv2a"), "conv2a")["params"] = ["missing"]
    layer(case("no such variable", "reads the variable 'nowhere'"), "conv2a")["inputs"] = ["nowhere"]
    layer(case("no inputs", "conv2a", "no input"), "conv2a")["inputs"] = []
    layer(case("no outputs", "conv2a", "no output"), "conv2a")["outputs"] = []
    layer(case("too few parameters", "fc", "one parameter only"), "fc")["params"] = ["fcf"]
    layer(case("too many inputs", "bn1", "reads 2 variables"), "bn1")["inputs"] = ["conv1_", "data"]
    layer(case("an unknown property", "conv2a", "no property 'speed'"), "conv2a")["block"]["speed"] = 1.0
    layer(case("numbers for names", "conv2a", "not a cell of names"), "conv2a")["inputs"] = [np.ones((1, 1))]
    layer(case("an object for a block", "net.saveobj()"), "conv2a")["block"] = Unreadable("an object")
    layer(case("no type", "has no `type`"), "conv2a")["type"] = ""
    layer(case("a shape that does not fit", "sum3", "differ in size"), "sum3")["inputs"] = ["bn3p_", "relu1_"]
    case("two parameters of a name", "params(2)", "like one before it")["params"][1]["name"] = net["params"][0]["name"]
    case("a parameter of text", "params(1)", "single or double")["params"][0]["value"] = "text"
    case("a rate of text", "params(1)", "learningRate is not a number")["params"][0]["learningRate"] = "fast"
    case("layers of text", "not a struct array")["layers"] = ["a", {"type": "dagnn.Conv"}]
    case("parameters of text", "not a struct array")["params"] = "none"
    case("a network without layers", "no layers")["layers"] = np.zeros((1, 0))
    fewer = case("too few biases", "fc", "5 filters but 4 biases")
    next(p for p in fewer["params"] if p["name"] == "fcb")["value"] = np.ones((4, 1), np.float32)
    deeper = case("filters that are too deep", "conv2a", "deep")
    next(p for p in deeper["params"] if p["name"] == "conv2af")["value"] = np.ones((3, 3, 9, 8), np.float32)
    return made


def test_what_does_not_fit_gives_one_line(where: Path) -> None:
    net = struct(twins_dag.resnet(), where)
    lift_data(net, "good.mat")
    for title, bad, words in broken(net):
        try:
            refused(bad, *words)
        except pytest.fail.Exception:
            pytest.fail(f"{title}: nothing was said")


def test_remarks(where: Path) -> None:
    net = struct(twins_dag.resnet(), where)
    net["params"].append({"name": "stray", "value": np.ones((1, 1)), "learningRate": np.ones((1, 1))})
    layer(net, "conv2a")["block"]["size"] = np.array([[5.0, 5.0, 8.0, 8.0]])
    network, _ = lift_data(net, "x")
    assert any("stray" in remark for remark in network.remarks)
    assert any("5×5×8×8" in remark and "3×3×8×8" in remark for remark in network["conv2a"].remarks)


@pytest.mark.parametrize("seed", range(4))
def test_junk_anywhere_gives_an_error_or_a_network(seed: int, where: Path) -> None:
    """Whatever one or two of the values of a struct become, only ParityError may rise."""
    rng = random.Random(seed)
    dag = (twins_dag.resnet, twins_dag.inception, twins_dag.two_heads, two_inputs)[seed]()
    net = struct(dag, where)
    first = np.ones(net["params"][0]["value"].shape)
    whole = {"net": net, "state": {"solverState": [first, np.zeros((1, 1))]}, "stats": {"train": [{}]}}
    batch = {name: np.ones((2, *size), np.float32) for name, size in dag.inputs.items()}
    spots = places(whole)
    outcomes = {True: 0, False: 0}
    for _ in range(100):
        data: Any = whole
        for _ in range(rng.choice((1, 1, 2))):
            try:
                data = replaced(data, rng.choice(spots), rng.choice(JUNK))
            except (KeyError, IndexError, TypeError, ValueError):
                continue
        try:
            runner = MatConvNetRunner(*lift_data(data, "x"))
            runner.reset(runner.recipe.slots)
            if outcomes[True] < 25 and all(None not in s for s in runner.network.inputs.values()):
                found = runner.run(batch, np.array([0, 1]))
                runner.update(found.param_grads, found.statistics)
            outcomes[True] += 1
        except ParityError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 10
