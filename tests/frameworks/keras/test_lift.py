"""The static lift says what the executed graph is."""

import importlib

import numpy as np
import pytest

from parity.frameworks.keras.lift import lift
from parity.frameworks.keras.runner import KerasRunner
from parity.layers import Opaque
from parity.optimizers import OpaqueRule
from tests.frameworks.keras.real import TRACES, files, oracle


def _row(layer):
    kind = layer.kind.type if isinstance(layer.kind, Opaque) else layer.kind
    return (
        layer.name,
        kind,
        layer.inputs,
        layer.outputs,
        dict(layer.params),
        layer.shape,
        layer.origin,
        layer.source_type,
    )


def _param(param):
    return (param.id, param.role, param.axes, param.shape, param.trainable, round(param.l2, 9), param.initializer)


@pytest.mark.parametrize(
    "path", [p for p in files() if "lambda" not in p.name], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_agrees_with_the_executed_graph(path):
    network, recipe = lift(path)
    runner = KerasRunner.open(path, oracle(path)["x"])
    executed = runner.network
    assert [_row(a) for a in network] == [_row(executed[a.name]) for a in network]
    assert len(network.layers) == len(executed.layers)
    assert dict(network.inputs) == dict(executed.inputs)
    assert network.outputs == executed.outputs
    assert {_param(p) for p in network.params.values()} == {_param(p) for p in executed.params.values()}
    for name in ("loss", "optimizer", "decoupled_decay", "clip", "metrics", "steps_done"):
        said, live = getattr(recipe, name), getattr(runner.recipe, name)
        if isinstance(said, OpaqueRule):  # each Keras has its own words for such a rule's settings
            said, live = said.type, live.type
        assert said == live, name
    assert recipe.learning_rate.kind == runner.recipe.learning_rate.kind
    assert recipe.learning_rate.first == pytest.approx(runner.recipe.learning_rate.first, rel=1e-6)


def test_a_lambda_is_marked():
    for path in files("*/*lambda*"):
        layer = lift(path)[0]["scale"]
        assert isinstance(layer.kind, Opaque)
        assert layer.kind.runs_code
        assert layer.remarks == ("runs code from the file",)


def test_legacy_decay_is_a_schedule():
    recipe = lift(TRACES / "k2.15.0_tf2.15/slim_adam_decay.h5")[1]
    assert recipe.learning_rate.kind == "inverse-time"
    assert recipe.learning_rate.decay == pytest.approx(0.01)
    assert recipe.weight_decay == recipe.decoupled_decay == 0


def test_regularizers_and_nesting():
    network, _ = lift(TRACES / "k2.1.6_tf1.8/reg_l2.h5")
    assert {p.id: p.l2 for p in network.params.values() if p.l2}
    network, _ = lift(TRACES / "k3.15.1_tf2.21/arch_shared_submodel.h5")
    assert network["tower/conv2d@2"].params == network["tower/conv2d"].params
    assert network["tower/conv2d@2:activation"].inputs == ("tower/conv2d@2",)


@pytest.mark.parametrize(("engine", "ending"), [("keras", "keras"), ("keras", "h5"), ("tf_keras", "h5")])
def test_arguments_that_leave_the_word_kernel_out(engine, ending, tmp_path):
    """`depthwise_regularizer` is that of `depthwise_kernel`."""
    k = importlib.import_module(engine)

    def said(word):
        return {
            f"{word}_regularizer": k.regularizers.L2(0.25),
            f"{word}_constraint": "non_neg",
            f"{word}_initializer": "zeros",
        }

    made = [
        k.layers.SeparableConv2D(4, 3, name="one", **said("depthwise"), **said("pointwise")),
        k.layers.DepthwiseConv2D(3, name="two", **said("depthwise")),
    ]
    path = tmp_path / f"model.{ending}"
    model = k.Sequential([k.layers.InputLayer((8, 8, 3)), *made])
    model.compile(k.optimizers.SGD(0.1), "mse")
    model.save(path)
    for network in (lift(path)[0], KerasRunner.open(path, np.zeros((2, 8, 8, 3), np.float32)).network):
        kernels = [param for param in network.params.values() if param.role != "bias"]
        found = {p.id: (p.l2, bool(p.constraint), str(p.initializer).lower()) for p in kernels}
        assert set(found) == {"one.depthwise_kernel", "one.pointwise_kernel", "two.kernel"}
        assert set(found.values()) == {(0.25, True, "zeros")}
