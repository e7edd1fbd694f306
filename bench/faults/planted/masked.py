"""Faults that the batch or the mode cannot show: the verdict is `match`, and where it matters a note tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from bench.faults.nets import Node
from bench.faults.planted.base import Plant, Rng, fault
from bench.faults.scene import Scene, learners, pick


def masked(cause: str, variant: str, nets: str, plant: Plant, **options: Any) -> None:
    """Add a masked fault."""
    fault(cause, f"masked, {variant}", nets, plant, kind="masked", **options)


def unseen_slope(kind: str) -> Plant:
    """A leaky rectifier behind a layer of a kind that gives no negatives."""

    def plant(scene: Scene, rng: Rng) -> None:
        node = pick(scene.ref.of(kind, lambda n: not n.fields.get("leak")), rng)
        new = Node("again", "relu", (), {"leak": 0.1})
        scene.ref, scene.port = scene.ref.after(node.name, new), scene.port.after(node.name, new)
        scene.edit("again", leak=0.3)
        scene.plant("activation-slope", "forward", "again", masked=True)

    return plant


def _shifted_up(scene: Scene, rng: Rng) -> None:
    """Images so bright that the first rectifier sees no negative."""
    first = scene.ref.nodes[0]
    bright = [np.abs(first.weights[0]), *(np.abs(w) for w in first.weights[1:])]
    scene.ref, scene.port = (net.edited(first.name, weights=bright) for net in (scene.ref, scene.port))
    node = next(n for n in scene.ref.nodes if n.kind == "relu" and n.inputs == (first.name,))
    assert scene.batch is not None
    scene.batch["x"] = np.abs(scene.batch["x"]) + np.float32(0.1)
    scene.edit(node.name, leak=0.2)
    scene.plant("activation-slope", "forward", node.name, masked=True)


masked("activation-slope", "behind another, eval", "lenet residual", unseen_slope("relu"), mode="eval")
masked("activation-slope", "behind a sigmoid", "normalised square", unseen_slope("sigmoid"))
masked("activation-slope", "bright images", "alex inception", _shifted_up)


def edited(cause: str, kind: str, noted: bool = True, **fields: Any) -> Plant:
    """Another field, which shows in no phase that runs."""

    def plant(scene: Scene, rng: Rng) -> None:
        node = pick(scene.ref.of(kind), rng)
        scene.edit(node.name, **fields)
        scene.plant(cause, "forward", node.name, masked=True, noted=noted)

    return plant


masked("dropout-rate", "eval", "alex", edited("dropout-rate", "dropout", rate=0.2), mode="eval")
masked("bn-momentum", "eval", "normalised", edited("bn-momentum", "bnorm", momentum=0.99), mode="eval")


def _zeros_behind_relu(scene: Scene, rng: Rng) -> None:
    """What ports of residual nets do: zeros around a map that has no negatives."""
    node = pick(scene.ref.of("pool", lambda n: n.fields["method"] == "max" and any(n.fields["pad"])), rng)
    scene.edit(node.name, zeros=True)
    scene.plant("pool-pad-value", "forward", node.name, masked=True, noted=False)


masked("pool-pad-value", "behind a ReLU", "inception alex", _zeros_behind_relu)


def _unused_pad(scene: Scene, rng: Rng) -> None:
    """The cells at the end that a stride never reaches."""
    node = pick(scene.ref.of("conv", lambda n: n.fields["stride"] == (2, 2) and any(n.fields["pad"])), rng)
    top, _, left, _ = node.fields["pad"]
    scene.edit(node.name, pad=(top, top - 1, left, left - 1))
    scene.plant("padding-size", "forward", node.name, masked=True, noted=False)


masked("padding-size", "never reached", "residual", _unused_pad)


def recipe(cause: str, noted: bool = True, schedule: Any = None, **options: Any) -> Plant:
    """An option of the optimizer that makes no difference in the steps that run."""

    def plant(scene: Scene, rng: Rng) -> None:
        scene.optimize(**options)
        if schedule is not None:
            scene.ref = replace(scene.ref, recipe=replace(scene.ref.recipe, rate=schedule))
        scene.plant(cause, "update", learners(scene.ref)[0], masked=True, noted=noted)

    return plant


masked("optimizer-clipping", "never bites", "lenet", recipe("optimizer-clipping", clipnorm=1e4))
masked("optimizer-clipping", "a limit above every gradient", "alex", recipe("optimizer-clipping", clipvalue=30.0))
masked(
    "optimizer-learning-rate",
    "the reference's rate falls in later epochs",
    "lenet residual",
    recipe("optimizer-learning-rate", schedule=[0.01, 0.01, 0.001]),
)


def _softmax_and_from_logits(scene: Scene, rng: Rng) -> None:
    """Keras takes the logits from behind a softmax layer by itself: the numbers are the same."""
    scene.spell(softmax="layer")
    scene.train(loss={"from_logits": True})
    scene.plant("softmax-double", "loss", "loss", masked=True, noted=False)


masked("softmax-double", "from_logits behind a softmax", "lenet residual", _softmax_and_from_logits)


def _initializer(scene: Scene, rng: Rng) -> None:
    """A reference as its initialization left it: small normal filters, zero biases."""
    for node in scene.ref.of("conv"):
        filters = rng.standard_normal(node.weights[0].shape).astype(np.float32) * np.float32(0.05)
        weights = [filters, *(np.zeros_like(w) for w in node.weights[1:])]
        scene.ref, scene.port = (net.edited(node.name, weights=weights) for net in (scene.ref, scene.port))
    scene.plant("initializer", "weights", None, masked=True)


def _metric(scene: Scene, rng: Rng) -> None:
    scene.train(metrics=("binary_accuracy",))
    scene.plant("metric", "loss", None, masked=True)


masked("initializer", "normal, Keras draws Glorot", "lenet", _initializer)
masked("metric", "binary accuracy", "lenet normalised", _metric)
