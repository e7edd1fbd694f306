"""A PReLU in the place of a rectifier: one finding, by the value of its slope or by the fact that it learns it."""

from __future__ import annotations

from typing import Any

import pytest

import parity
from tests import twins_dag
from tests.twins_dag import DECAY, MOMENTUM, RATE, Dag


def reference(leak: float) -> Dag:
    dag = Dag(4, {"data": (6, 6, 3)})
    x = dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 4), pad=(1, 1, 1, 1)), leak)
    dag.loss("loss", dag.conv("fc", x, (6, 6, 4, 5)), "objective")
    return dag


def port(slope: float, *, learned: bool, shared: bool = True) -> Any:
    import keras

    k = keras.layers
    law = keras.regularizers.L2(DECAY / 2)
    own = {"kernel_regularizer": law, "bias_regularizer": law}
    given = keras.Input((6, 6, 3))
    x = k.Conv2D(4, 3, padding="same", name="conv", **own)(given)
    if learned:
        first = keras.initializers.Constant(slope)
        x = k.PReLU(alpha_initializer=first, shared_axes=[1, 2] if shared else None, name="relu")(x)
    else:
        x = k.ReLU(negative_slope=slope, name="relu")(x)
    model = keras.Model(given, k.Dense(5, name="fc", **own)(k.Flatten()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), loss)
    return model


@pytest.mark.parametrize(
    ("leak", "slope", "shared", "cause"),
    [
        (0.0, 0.0, True, "activation-kind"),
        (0.0, 0.0, False, "activation-kind"),
        (0.2, 0.2, True, "activation-kind"),
        (0.2, 0.0, True, "activation-slope"),
        (0.2, 0.25, True, "activation-slope"),
    ],
)
def test_a_learned_slope_is_one_finding(tmp_path: Any, leak: float, slope: float, shared: bool, cause: str) -> None:
    dag = reference(leak)
    path, batch = twins_dag.save(tmp_path / "net.mat", dag), twins_dag.batch(dag)
    assert parity.compare(path, port(leak, learned=False), batch, steps=2).verdict == "match"
    report = parity.compare(path, port(slope, learned=True, shared=shared), batch, steps=2)
    found = [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in report.findings if f.severity == "divergence"]
    assert found == [(cause, "relu", True, True)]
    first = report.first_divergence
    assert first is not None
    assert (first.phase, first.layer) == ("structure", "relu")


def test_a_slope_that_nothing_trains_is_no_divergence(tmp_path: Any) -> None:
    dag = reference(0.0)
    path, batch = twins_dag.save(tmp_path / "net.mat", dag), twins_dag.batch(dag)
    report = parity.compare(path, port(0.0, learned=True), batch, mode="eval")
    assert (report.verdict, [f.cause for f in report.findings]) == ("match", ["activation-kind"])
    assert parity.compare(path, port(0.1, learned=True), batch, mode="eval").verdict == "diverged"
