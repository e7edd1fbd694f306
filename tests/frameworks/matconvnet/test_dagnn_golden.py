"""A residual DagNN network against MatConvNet's own run of it: order, outputs, derivatives, three updates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from parity.frameworks.matconvnet.lift import lift, lift_data
from parity.frameworks.matconvnet.recipe import Overrides
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.network import STATISTICS
from tests.frameworks.matconvnet.golden import TRACES, golden, nhwc, param, record, relative

VERSIONS = ("head", "beta25")

FLOOR = {"x": 1.3e-6, "dzdx": 1.5e-6, "dzdw": 1.2e-5, "weights": 1e-6}
"""Relative RMS of MatConvNet's own float32 run from its run in double, for nets with batch normalisation."""

NEAR = {name: 8 * floor for name, floor in FLOOR.items()}


def opened(version: str) -> tuple[Any, Any, MatConvNetRunner, np.ndarray, np.ndarray]:
    """The whole trace, this version's own part of it, a runner, images, labels from 0."""
    whole, own = golden("dag_resnet_head")["trace"], golden(f"dag_resnet_{version}")["trace"]
    train = own["trainParams"]
    options = {
        "learningRate": [train["learningRate"].item()],
        "momentum": train["momentum"].item(),
        "weightDecay": train["weightDecay"].item(),
        "batchSize": 4,
    }
    runner = MatConvNetRunner(
        *lift_data({"net": whole["net"]}, "resnet", recipe=Overrides("r", options, None, version))
    )
    inputs = dict(zip(whole["inputs"][::2], whole["inputs"][1::2], strict=True))
    return whole, own, runner, nhwc(inputs["input"]), inputs["label"].reshape(-1).astype(int) - 1


def values(runner: MatConvNetRunner, name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Param id → value of one of MatConvNet's parameters: itself, or the two columns of moments."""
    params = runner.network.params
    if name in params:
        yield name, param(params[name].role, array)
    else:
        for role in ("mean", "deviation"):
            yield f"{name}.{role}", param(role, array)


def hold(family: str, actual: np.ndarray, expected: np.ndarray, near: float, what: str) -> None:
    error = relative(actual, expected)
    record(family, error)
    assert error < near, f"{what}: {error:.2g}"


def test_the_order_of_evaluation() -> None:
    trace = golden("dag_resnet_head")["trace"]
    network, _ = lift_data({"net": trace["net"]}, "resnet")
    order = trace["executionOrder"].reshape(-1).astype(int) - 1
    assert [layer.name for layer in network] == [trace["net"]["layers"][at]["name"] for at in order]
    assert [layer.name for layer in network] != [layer["name"] for layer in trace["net"]["layers"]]


def test_what_the_struct_says() -> None:
    network, recipe = lift(TRACES / "dag_resnet_netfile.mat")
    assert (network.labels, dict(network.objectives), network.outputs) == (
        ("label",),
        {"objective": 1.0},
        ("prediction",),
    )
    assert dict(network.inputs) == {"input": (16, 16, 3), "label": ()}
    assert [layer.name for layer in network.losses] == ["loss"]
    assert recipe.metrics == ("top-1 error", "top-2 error")
    assert recipe.loss == network["loss"].kind
    assert network["top2err"].kind.describe()["top"] == 2
    assert network["relu_s2"].kind.describe()["slope"] == 0.1
    assert network["conv1_bn"].kind.describe()["momentum"] == pytest.approx(0.9)
    moments = network.params["conv1_bn_x.deviation"]
    assert (moments.trainable, moments.rate_multiplier, moments.source) == (False, 0.1, "params(4) (conv1_bn_x)")


def test_three_versions_of_the_file_are_twins() -> None:
    first, recipe = lift(TRACES / "dag_resnet_netfile.mat")
    others = [lift(TRACES / f"dag_resnet_netfile_{v}.mat") for v in ("v6", "v73")]
    others.append(lift_data({"net": golden("dag_resnet_netfile"), "stats": {}}, "x"))
    others.append(lift_data({"net": golden("dag_resnet_head")["trace"]["net"]}, "x"))
    for other, its_recipe in others:
        assert its_recipe == recipe
        assert (other.inputs, other.labels, other.objectives) == (first.inputs, first.labels, first.objectives)
        assert [(a.name, a.kind, a.inputs, a.outputs, a.shape) for a in first] == [
            (b.name, b.kind, b.inputs, b.outputs, b.shape) for b in other
        ]
        assert set(first.params) == set(other.params)
        for id_, p in first.params.items():
            np.testing.assert_array_equal(p.value, other.params[id_].value)
        record("v6/v7/v7.3 twins", 0)  # they are the same or they are not


def test_test_mode() -> None:
    trace, _, runner, x, y = opened("head")
    found = runner.run({"input": x}, y, mode="eval", backward=False)
    compared = 0
    for variable in trace["test_vars"]:
        if variable["name"] != "label":
            seen = found.outputs[variable["name"]]
            expected = variable["value"].reshape(()) if not seen.ndim else nhwc(variable["value"])
            hold("dag_resnet forward", seen, expected, NEAR["x"], variable["name"])
            compared += 1
    assert compared == len(runner.network.layers) + 1


@pytest.mark.parametrize("precision", [32, 64])
def test_values_and_derivatives_of_every_variable(precision: int) -> None:
    trace, _, runner, x, y = opened("head")
    found = runner.run({"input": x}, y, precision=precision)
    derived = 0
    for variable in trace["vars"]:
        name = variable["name"]
        assert (name in found.output_grads) == bool(variable["der"].size)
        if name == "label":
            continue
        if found.outputs[name].ndim:
            hold("dag_resnet forward", found.outputs[name], nhwc(variable["value"]), NEAR["x"], name)
        if variable["der"].size > 1:
            hold("dag_resnet dzdx", found.output_grads[name], nhwc(variable["der"]), NEAR["dzdx"], name)
            derived += 1
    assert derived > 20
    assert "top1err" not in found.output_grads


@pytest.mark.parametrize("version", VERSIONS)
def test_derivatives_of_every_parameter(version: str) -> None:
    """Up to beta25 MatConvNet's are sums over the images, and its trainer divides; they enter the update as means."""
    _, own, runner, x, y = opened(version)
    found = runner.run({"input": x}, y)
    divisor = len(y) if version == "beta25" else 1
    compared = 0
    for entry in own["params"]:
        id_ = entry["name"]
        if entry["trainMethod"] != "gradient":
            assert id_ not in runner.network.params
            continue
        p = runner.network.params[id_]
        assert (p.rate_multiplier, p.decay_multiplier) == (entry["learningRate"].item(), entry["weightDecay"].item())
        hold("dag_resnet dzdw", found.param_grads[id_], param(p.role, entry["der"]) / divisor, NEAR["dzdw"], id_)
        compared += 1
    assert compared == len(found.param_grads)


@pytest.mark.parametrize("version", VERSIONS)
def test_three_updates(version: str) -> None:
    _, own, runner, x, y = opened(version)
    runner.reset()
    shown: list[float] = []
    for step in range(3):
        found = runner.run({"input": x}, y, observe=False)
        shown.append(runner.raw_loss(found, len(y))["loss"])
        assert shown[-1] == pytest.approx(own["objective"].flat[step], rel=1e-6)
        runner.update(found.param_grads, found.statistics)
        reached = runner.params()
        for entry in own["params_after"][step]:
            for id_, expected in values(runner, entry["name"], entry["value"]):
                hold("dag_resnet weights", reached[id_], expected, NEAR["weights"], id_)
        for entry, momentum in zip(own["params"], own["momentum_after"][step], strict=True):
            id_ = entry["name"]
            if id_ in runner.network.params:
                slot = runner._updater.slots[id_]["momentum"]
                expected = param(runner.network.params[id_].role, momentum)
                hold("dag_resnet momentum", slot, expected, NEAR["dzdw"], id_)
            else:
                assert not momentum.any()
    divisor = len(y) if version == "beta25" else 1
    assert np.mean(shown) / divisor == pytest.approx(own["loss_average"]["objective"].item(), rel=1e-6)


def test_a_checkpoint_goes_on_where_the_trainer_stopped() -> None:
    """Weights and state after the first update, in a checkpoint, give the second and third."""
    trace, own, _, x, y = opened("head")
    after = {entry["name"]: entry["value"] for entry in own["params_after"][0]}
    net = dict(trace["net"])
    net["params"] = [{**entry, "value": after[entry["name"]]} for entry in net["params"]]
    state = {"solverState": [m if m.any() else np.zeros((1, 1)) for m in own["momentum_after"][0]]}
    data = {"net": net, "state": state, "stats": {"train": [{"num": 1}], "val": [{"num": 1}]}}
    rates = [0.5, own["trainParams"]["learningRate"].item(), 0.5]
    network, recipe = lift_data(data, "resnet", recipe=Overrides("r", {"learningRate": rates}))
    assert recipe.learning_rate.first == rates[1]
    assert "the file is a checkpoint after epoch 1" in recipe.notes
    assert set(recipe.slots) == {id_ for id_, p in network.params.items() if p.role not in STATISTICS}
    runner = MatConvNetRunner(network, recipe)
    runner.reset(recipe.slots)
    for step in (1, 2):
        found = runner.run({"input": x}, y, observe=False)
        runner.update(found.param_grads, found.statistics)
        reached = runner.params()
        for entry in own["params_after"][step]:
            for id_, expected in values(runner, entry["name"], entry["value"]):
                hold("dag_resnet weights", reached[id_], expected, NEAR["weights"], id_)


@pytest.mark.parametrize("precision", [32, 64])
def test_each_layer_alone_repeats_the_whole(precision: int) -> None:
    _, _, runner, x, y = opened("head")
    whole = runner.run({"input": x}, y, precision=precision)
    network = runner.network
    for layer in network.layers:
        feeds = {name: whole.outputs[name] for name in network.data(layer.inputs)}
        above = {layer.output: whole.output_grads[layer.output]} if layer.output in whole.output_grads else {}
        alone = runner.isolate([layer.name], feeds, labels=y, upstream=above, precision=precision)
        np.testing.assert_array_equal(alone.outputs[layer.output], whole.outputs[layer.output], layer.name)
        if not above:
            continue
        for name in network.data(layer.inputs):
            if len(network.consumers[name]) == 1:  # elsewhere the others' shares are added
                np.testing.assert_allclose(alone.input_grads[name], whole.output_grads[name], rtol=1e-4, atol=1e-9)
        for id_ in layer.params.values():
            if network.params[id_].trainable:
                np.testing.assert_allclose(alone.param_grads[id_], whole.param_grads[id_], rtol=1e-3, atol=1e-6)
