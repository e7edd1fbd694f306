"""`parity inspect`: what it lists, for both frameworks, at every width, without running anything."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import parity
from parity.inspection import Inspection
from parity.layers import Activation, Conv, Opaque
from parity.layers.loss import Loss
from parity.network import Layer, Network, Param
from parity.optimizers import SGD
from parity.recipe import Recipe

SEED = Path(__file__).parents[2] / "traces" / "seed"


def draw(inspection: Inspection, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(inspection)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def by_hand() -> Inspection:
    kernel = Param("c.kernel", "kernel", "h w i o", (3, 3, 1, 8), np.zeros((3, 3, 1, 8)), l2=0.01)
    bias = Param("c.bias", "bias", "o", (8,), rate_multiplier=2.0, decay_multiplier=0.0)
    conv, both = Conv(8, (3, 3)), {"kernel": "c.kernel", "bias": "c.bias"}
    layers = (
        Layer("c", conv, ("x",), ("c",), both, (26, 26, 8), source_type="conv"),
        Layer("shout", Opaque("Lambda", runs_code=True), ("c",), ("shout",), {}, None, source_type="Lambda"),
        Layer("again", conv, ("shout",), ("again",), {"kernel": "c.kernel"}, (24, 24, 8), source_type="conv"),
        Layer("relu", Activation("relu"), ("again",), ("relu",), {}, (24, 24, 8), source_type="relu"),
        Layer("loss", Loss(), ("relu", "labels"), ("loss",), {}, (), source_type="softmaxloss"),
    )  # fmt: skip
    network = Network(
        "tiny", "matconvnet", {"x": (28, 28, 1), "labels": ()}, ("relu",), layers, {"c.kernel": kernel, "c.bias": bias},
        labels=("labels",), remarks=("the file says \x1b[2J so",),
    )  # fmt: skip
    recipe = Recipe(Loss(), SGD(0.9), batch_size=256, defaults=frozenset({"batch_size"}), origin="meta.trainOpts")
    return Inspection(Path("tiny.mat"), network, recipe)


@pytest.mark.parametrize("width", [60, 80, 109, 110, 160])
def test_everything_is_listed_at_every_width(width):
    text = draw(by_hand(), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    flat = " ".join(text.split())
    assert "tiny.mat MatConvNet, tiny" in flat
    assert "input x 28×28×1" in flat
    for words in ("26×26×8", "80", "rate ×1 ×2", "Lambda", "softmaxlog loss", "runs code"):
        assert words in flat
    assert "labels" not in flat
    assert "5 layers, 80 parameters" in flat
    assert "Recipe (meta.trainOpts)" in flat
    assert "256 (default)" in flat
    assert "SGD, momentum 0.9" in flat
    assert "\x1b" not in text


def test_shared_parameters_count_once():
    assert by_hand().count == 80
    assert by_hand().trainable_count == 80


def test_a_file_without_a_recipe_says_so():
    inspection = Inspection(Path("m.h5"), by_hand().network, Recipe())
    assert "the model was not compiled" in draw(inspection, 80)


def test_the_reference_of_the_example():
    text = " ".join(draw(parity.inspect(SEED / "net.mat"), 160).split())
    assert "12 layers, 60322 parameters" in text
    assert "conv 1×1, 32 filters, 2 groups" in text
    assert "0.01 ×10, 0.001 ×10, 0.0001 ×10" in text
    assert "rate ×1 ×2" in text


def test_the_keras_side_of_the_example():
    inspection = parity.inspect(SEED / "model.h5")
    text = " ".join(draw(inspection, 160).split())
    assert inspection.network.framework == "keras"
    assert "conv 1×1, 32 filters" in text
    assert "RMSprop" in text
    assert "0.0001 / (1 + 0.0005·t)" in text


def test_it_shows_itself_in_a_notebook():
    assert "tiny.mat" in by_hand()._repr_html_()
    assert repr(by_hand()) == "<Inspection tiny.mat: 5 layers, 80 parameters>"
    assert str(by_hand()).startswith("tiny.mat  MatConvNet, tiny")


def test_what_each_layer_sees_and_takes():
    inspection = parity.inspect(SEED / "net.mat")
    text = " ".join(draw(inspection, 120).split())
    assert "Receptive fields on input, and memory for one image" in text
    assert "pool2 10×10 2 5.5 6.2 KiB" in text
    assert "conv4 26×26 2 13.5 1.0 KiB 200 KiB" in text
    assert "236 KiB of parameters, 84.4 KiB of outputs for each image" in text
    assert inspection.parameter_bytes() == 4 * 60322
    narrow = " ".join(draw(inspection, 60).split())
    assert "pool2 10×10 2 6.2 KiB" in narrow


def test_another_input_size():
    larger = parity.inspect(SEED / "net.mat", input_size=(32, 40))
    assert larger.network.inputs["input"] == (32, 40, 1)
    assert larger.network["conv1"].shape == (30, 38, 8)
    assert parity.inspect(SEED / "net.mat", input_size=(32, 40, 1)).network["conv1"].shape == (30, 38, 8)


@pytest.mark.parametrize(
    ("file", "size", "error", "says"),
    [
        ("net.mat", (8, 8), parity.CannotCompare, "layer conv2"),
        ("net.mat", (28, 28, 2, 1), parity.BadUsage, "H,W or H,W,C"),
        ("net.mat", (28,), parity.BadUsage, "H,W or H,W,C"),
        ("net.mat", (0, 28), parity.BadUsage, "whole numbers"),
        ("net.mat", (28.5, 28), parity.BadUsage, "whole numbers"),
        ("model.h5", (32, 32), parity.CannotCompare, "28×28×1"),
    ],
)
def test_an_input_size_that_does_not_fit(file, size, error, says):
    with pytest.raises(error, match=says):
        parity.inspect(SEED / file, input_size=size)


def test_an_open_keras_input_gets_its_size():
    conv = Layer("c", Conv(8, (3, 3), (2, 2)), ("x",), ("c",), {}, (None, None, 8))
    network = Network("open", "keras", {"x": (None, None, 1)}, ("c",), (conv,), {})
    from parity.inspection import _sized

    assert _sized(network, (9, 11))["c"].shape == (4, 5, 8)


def test_a_graph_says_what_its_layers_read():
    traces = Path(__file__).parents[2] / "traces" / "matconvnet"
    inspection = parity.inspect(traces / "dag_resnet_netfile.mat")
    wide, narrow = (" ".join(draw(inspection, width).split()) for width in (140, 70))
    assert "objective objective ×1" in wide
    assert "sum1 dagnn.Sum add 16×16×8 conv1_relu, b1b_bn" in wide
    assert "reads conv1_relu, b1b_bn" in narrow
    assert "decay" not in wide.split("Recipe")[0]
    assert "b2b_bn 13×13 2 1 4.0 KiB 256 B sum2 13×13 2 1 4.0 KiB" in wide


def test_slots_are_counted_by_name() -> None:
    """Slots of the file are listed without being read."""

    class Unread(dict):
        def __getitem__(self, key):
            raise AssertionError("was read")

    held = {"mean": 1, "square": 2, "step": 3}
    slots = {"a.kernel": Unread(held), "a.bias": Unread(held), "b": Unread(step=1)}
    inspection = by_hand()
    recipe = Recipe(optimizer=SGD(), slots=slots, origin="compile()")
    drawn = draw(Inspection(inspection.path, inspection.network, recipe), 100)
    assert "mean, square of 2 parameters" in drawn
    assert drawn.count("slots") == 1
