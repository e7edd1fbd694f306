"""Faults behind one that changes the maps' extents: each is found where it is, as if the maps were the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from tests import twins_dag
from tests.twins_dag import DECAY, MOMENTUM, RATE, Dag

pytestmark = pytest.mark.filterwarnings("ignore")

SAME = (1, 1, 1, 1)


def reference() -> Dag:
    """Convolutions that stride and pad, batch normalisation, a pooling, a global average, a classifier."""
    dag = Dag(1, {"data": (12, 12, 3)})
    x = dag.bnorm("norm1", dag.conv("conv1", "data", (3, 3, 3, 6), pad=SAME, stride=2), 6)
    x = dag.pool("pool1", dag.relu("relu1", x, 0.1), "max", 2, 2)
    x = dag.bnorm("norm2", dag.conv("conv2", x, (3, 3, 6, 8), pad=SAME), 8)
    x = dag.pool("gap", dag.relu("relu2", x), "avg", 3, 1)
    dag.loss("loss", dag.conv("fc", x, (1, 1, 8, 5)), "objective")
    return dag


def port(
    *,
    stride: int = 2,
    epsilon: float = 1e-5,
    slope: float = 0.1,
    method: str = "max",
    pooled: bool = True,
    stride2: int = 1,
    padding2: str = "same",
    epsilon2: float = 1e-5,
    relu2: bool = True,
    method2: str = "avg",
) -> Any:
    import keras

    k = keras.layers
    law = keras.regularizers.L2(DECAY / 2)
    own = {"kernel_regularizer": law, "bias_regularizer": law}
    normal = {"momentum": 0.9, "gamma_regularizer": law, "beta_regularizer": law}
    given = keras.Input((12, 12, 3))
    x = k.Conv2D(6, 3, strides=stride, name="conv1", **own)(k.ZeroPadding2D(1)(given))
    x = k.BatchNormalization(epsilon=epsilon, name="norm1", **normal)(x)
    x = k.LeakyReLU(slope, name="relu1")(x)
    if pooled:
        x = (k.MaxPooling2D if method == "max" else k.AveragePooling2D)(2, name="pool1")(x)
    x = k.Conv2D(8, 3, strides=stride2, padding=padding2, name="conv2", **own)(x)
    x = k.BatchNormalization(epsilon=epsilon2, name="norm2", **normal)(x)
    x = k.ReLU(name="relu2")(x) if relu2 else x
    x = (k.GlobalAveragePooling2D if method2 == "avg" else k.GlobalMaxPooling2D)(name="gap")(x)
    model = keras.Model(given, k.Dense(5, name="fc", **own)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), loss)
    return model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twins_dag.save(tmp_path_factory.mktemp("extents") / "net.mat", reference())


def told(report: parity.Report) -> list[tuple[str, str, bool, bool]]:
    found = [f for f in report.findings if f.severity == "divergence"]
    return [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in found]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_right_port_matches(path: Path, mode: str) -> None:
    assert parity.compare(path, port(), twins_dag.batch(reference()), mode=mode, steps=1).verdict == "match"


STRIDE = ("conv-stride", "conv1")


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"stride": 1}, [STRIDE]),
        ({"stride": 1, "epsilon": 1e-3}, [STRIDE, ("bn-epsilon", "norm1")]),
        (
            {"stride": 1, "slope": 0.3, "method": "avg"},
            [STRIDE, ("activation-slope", "relu1"), ("pool-method", "pool1")],
        ),
        ({"stride": 1, "padding2": "valid"}, [STRIDE, ("padding-size", "conv2")]),
        ({"stride": 1, "stride2": 2}, [STRIDE, ("conv-stride", "conv2")]),
        ({"stride": 1, "method2": "max"}, [STRIDE, ("pool-method", "gap")]),
        ({"pooled": False, "epsilon2": 1e-3}, [("layer-missing", "pool1"), ("bn-epsilon", "norm2")]),
        ({"padding2": "valid", "relu2": False}, [("padding-size", "conv2"), ("activation-missing", "relu2")]),
    ],
)
def test_a_fault_behind_another_shape_is_found(
    path: Path, wrong: dict[str, Any], found: list[tuple[str, str]], mode: str
) -> None:
    report = parity.compare(path, port(**wrong), twins_dag.batch(reference()), mode=mode, steps=1)
    assert told(report) == [(cause, layer, True, True) for cause, layer in found]
    first = report.first_divergence
    assert first is not None
    assert (first.phase, first.layer) == ("structure", found[0][1])
    assert not [f for f in report.findings if f.severity == "note" and f.cause.startswith(("pool", "pad", "conv"))]


def test_what_was_built_for_its_own_map_is_not_run_on_another(path: Path) -> None:
    """A layer of the user's own that has a weight for each cell cannot take the reference's map."""
    import keras

    class Cells(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.cells = self.add_weight(name="cells", shape=tuple(shape[1:]), initializer="ones")

        def call(self, x: Any) -> Any:
            return x * self.cells

    def model(stride: int) -> Any:
        given = keras.Input((12, 12, 3))
        x = keras.layers.Conv2D(6, 3, strides=stride, padding="same", name="conv1")(given)
        x = keras.layers.Flatten()(Cells(name="cells")(x))
        made = keras.Model(given, keras.layers.Dense(5, name="fc")(x))
        made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return made

    batch = twins_dag.batch(reference())
    report = parity.compare(model(2), model(1), batch, steps=1)
    assert told(report)[0][:2] == ("conv-stride", "conv1")
    assert not [p for p in report.probes if p.layer == "cells" and p.phase == "forward" and p.status == "born"]
    assert np.isfinite([p.max_abs for p in report.probes if p.max_abs is not None]).all()
