"""Every kind of graph, saved and opened again: what the file says is what is executed, and it predicts the same."""

import numpy as np
import pytest

from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.lift import lift
from parity.frameworks.keras.load import open_keras
from parity.frameworks.keras.runner import KerasRunner
from parity.layers import Opaque
from tests.frameworks.keras.graphs import GRAPHS

OWN_CODE = ("custom", "subclassed")
"""Models whose classes come with the user's code, which no file holds."""

LOOKING = ("operations",)
"""Keras 2 cannot write an Ellipsis into its archive."""


def arrays(output):
    items = output.values() if isinstance(output, dict) else output if isinstance(output, list | tuple) else [output]
    return [np.asarray(item) for item in items]


def row(layer):
    """What both ways of lifting must say of a layer; the masks that travel beside tensors are seen only in a run."""
    kind = layer.kind.type if isinstance(layer.kind, Opaque) else layer.kind
    inputs = tuple(name for name in layer.inputs if not name.endswith(":mask"))
    return layer.name, kind, inputs, layer.outputs, dict(layer.params), layer.shape, layer.source_type


def facts(param):
    laws = round(param.l1, 7), round(param.l2, 7), param.initializer
    return param.id, param.role, param.axes, param.shape, param.trainable, *laws


NAMES = sorted(set(GRAPHS) - set(OWN_CODE))


@pytest.fixture(scope="module", params=[f"{engine}-{name}" for engine in ("keras", "tf_keras") for name in NAMES])
def built(request):
    """The name of an engine, of a graph, and its example, made once for both formats."""
    engine, _, name = request.param.partition("-")
    keras = engine_of(engine).keras
    keras.utils.set_random_seed(7)
    return engine, name, GRAPHS[name](keras)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_saved_and_opened(tmp_path, built, extension):
    engine, name, example = built
    if name in LOOKING and extension == "keras" and engine == "tf_keras":
        pytest.skip("Keras 2 cannot save it so")
    path = tmp_path / f"model.{extension}"
    example.model.save(path)
    network, _ = lift(path)
    opened = open_keras(path)
    executed = KerasRunner(opened.model, example.inputs).network
    seen = [layer for layer in executed if not layer.name.endswith(":mask")]
    assert sorted(layer.name for layer in network) == sorted(layer.name for layer in seen)
    assert [row(layer) for layer in network] == [row(executed[layer.name]) for layer in network]
    assert {facts(p) for p in network.params.values()} == {facts(p) for p in executed.params.values()}
    assert network.outputs == executed.outputs
    assert dict(network.inputs) == dict(executed.inputs)
    if name == "training-at-build":  # it draws at inference too
        return
    given = list(example.inputs.values())
    x = given[0] if len(given) == 1 else example.inputs if isinstance(example.model.input, dict) else given
    for one, two in zip(arrays(example.model(x)), arrays(opened.model(x)), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6 * max(1, float(np.abs(one).max())))
