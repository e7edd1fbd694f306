"""Layers that are missing, too many, or elsewhere; connections."""

from __future__ import annotations

from dataclasses import replace

from tests.rules.planting import LARGE, SMALL, Row, behind, given, together, without


def _moved(name, to):
    def plant(scene):
        node = scene.port[name]
        scene.port = scene.port.without(name).after(to, node)

    return plant


def _reads(name, *inputs):
    def plant(scene):
        scene.port = scene.port.replaced(name, inputs=inputs)

    return plant


def _no_sum(scene):
    """The sum is left out, and the branch alone goes on."""
    kept = [n for n in scene.port.nodes if n.name != "sum"]
    scene.port = replace(
        scene.port, nodes=tuple(replace(n, inputs=("conv_c",)) if n.name == "scale" else n for n in kept)
    )


def _as_it_was(weights):
    """A gain of nearly 1 and hardly an offset."""
    return [weights[0] * 1e-5 + 1, weights[1] * 1e-5]


def _hardly(scene):
    for side in ("ref", "port"):
        setattr(scene, side, getattr(scene, side).edited("lrn1", param=(5, 1.0, 1e-5, 0.75)))


ROWS = (
    Row("layer-missing", LARGE, "normal", without("bn1"), "structure bn1", "large layer-order", "train"),
    Row(
        "layer-missing",
        SMALL,
        "branches",
        together(given("scale", _as_it_was), without("scale")),
        "structure scale",
        "small layer-extra",
        "train",
    ),
    Row(
        "layer-missing",
        LARGE,
        "responses",
        without("lrn1"),
        "structure lrn1",
        "large layer-order",
        name="lrn",
    ),
    Row(
        "layer-missing",
        SMALL,
        "responses",
        together(_hardly, without("lrn1")),
        "structure lrn1",
        "small lrn-alpha",
        "train",
        name="lrn",
    ),
    Row(
        "layer-missing",
        LARGE,
        "branches",
        _no_sum,
        "structure sum",
        "large channel-order of branches",
        "train",
        name="sum",
    ),
    Row(
        "layer-extra",
        LARGE,
        "active",
        behind("relu3", "dropout", rate=0.3),
        "structure extra_dropout",
        "large dropout-rate",
        "train",
    ),
    Row(
        "layer-extra",
        SMALL,
        "active",
        behind("conv2", "rescale", scale=1.00007, offset=0.0),
        "structure extra_rescale",
        "small activation-extra",
    ),
    Row("layer-order", LARGE, "normal", _moved("bn1", "relu1"), "structure relu1", "large layer-missing", "train"),
    Row("layer-order", SMALL, "active", _moved("relu1", "conv2"), "structure relu1", "small activation-missing"),
    Row(
        "channel-order",
        LARGE,
        "branches",
        _reads("concat", "conv_b", "relu_a"),
        "structure concat",
        "large layer-missing sum",
        "train",
        name="of branches",
    ),
)
