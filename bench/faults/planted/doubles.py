"""Two faults at once: in two layers, or in one. Each must get its own finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.faults.nets import Array, Node
from bench.faults.planted import layers, norms, training, weights, windows
from bench.faults.planted.base import Plant, Rng, fault
from bench.faults.scene import NotHere, Scene, pick


def double(variant: str, nets: str, *plants: Plant, **options: Any) -> None:
    """Add a case with several faults, which must not fall on one layer."""

    def plant(scene: Scene, rng: Rng) -> None:
        for one in plants:
            one(scene, rng)
        places = [p.layers for p in scene.planted if p.phase != "update"]
        if len(set(places)) < len(places):
            raise NotHere

    fault("double", variant, nets, plant, kind="double", **options)


slope = layers.slope(lambda a: 2 * a)
small = layers.slope(lambda a: 1.001 * a)
epsilon = norms.epsilon(1e-3)
decay = training.trained(training.MISSING, lambda s: s.train(decay=0.0))
rate = training.trained(training.RATE, training.sgd(learning_rate=0.011))
momentum = training.trained(training.MOMENTUM, training.sgd(momentum=0.8))

double("slope and epsilon", "normalised residual", slope, epsilon)
double("small slope and average with pads", "alex inception", small, windows.pool_counts)
double("pads and slope", "alex inception", windows.shifted, small)
double("epsilon and no decay", "normalised residual", epsilon, decay)
double("rate and momentum", "lenet", rate, momentum)
double("no decay and momentum", "residual", decay, momentum)
double("summed loss and slope", "normalised", training.lost("loss-reduction", reduction="sum"), slope)
double("dense for groups and slope", "alex", windows.dense_for_groups, slope)
double("missing ReLU and epsilon", "residual", layers.missing("activation-missing", "relu"), epsilon)
double("missing ReLU and decay", "lenet", layers.missing("activation-missing", "relu"), decay)
double("flip and scale", "lenet residual", weights.flip, weights.scaled(1.01), weights="own")
double("flip and slope", "alex", weights.flip, slope, weights="own")
double("transposition and one bias", "inception", weights.transpose, weights.bias, weights="own")


def _epsilon_and_momentum(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("bnorm"), rng)
    scene.edit(node.name, epsilon=1e-3, stored=node.fields["epsilon"], momentum=0.99)
    scene.plant("bn-epsilon", "forward", node.name)
    scene.plant("bn-momentum", "update", node.name)


def _method_and_stride(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("pool", lambda n: n.fields["stride"][0] > 1 and not any(n.fields["pad"])), rng)
    scene.edit(node.name, method="avg" if node.fields["method"] == "max" else "max", stride=(1, 1))
    scene.plant("pool-stride", "structure", node.name)
    scene.plant("pool-method", "structure forward", node.name)


def _flip_and_bias(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("conv", lambda n: n.weights[0].shape[0] > 1 and not n.fields.get("full")), rng)
    scene.held[node.name] = lambda a: [a[0][::-1, ::-1], a[1] + 0.1]
    scene.plant("kernel-flip", "weights", node.name)
    scene.plant("bias-value", "weights", node.name)


def _flip_and_scale(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("conv", lambda n: n.weights[0].shape[0] > 1 and not n.fields.get("full")), rng)
    scene.held[node.name] = lambda a: [a[0][::-1, ::-1] * 1.5, *a[1:]]
    scene.plant("kernel-flip", "weights", node.name)
    scene.plant("weights-scaled", "weights", node.name)


def _square(scene: Scene, rng: Rng) -> Node:
    return pick(scene.ref.of("conv", lambda n: n.weights[0].shape[0] > 1 and not n.fields.get("full")), rng)


def _held_two(causes: tuple[str, str], change: Callable[[list[Array], Rng], list[Array]]) -> Plant:
    """Two mistakes in the arrays of one convolution."""

    def plant(scene: Scene, rng: Rng) -> None:
        node, seed = _square(scene, rng), int(rng.integers(2**31))
        scene.held[node.name] = lambda a: change([np.array(v) for v in a], np.random.default_rng(seed))
        for cause in causes:
            scene.plant(cause, "weights", node.name)

    return plant


def _order(count: int, rng: Rng) -> Array:
    return np.roll(np.arange(count), 1 + int(rng.integers(count - 1)))


def _permuted_and_scaled(arrays: list[Array], rng: Rng) -> list[Array]:
    order = _order(arrays[0].shape[-1], rng)
    return [arrays[0][..., order] * np.float32(1.01), *(a[order] for a in arrays[1:])]


def _flipped_and_permuted(arrays: list[Array], rng: Rng) -> list[Array]:
    order = _order(arrays[0].shape[-1], rng)
    return [arrays[0][::-1, ::-1][..., order], *(a[order] for a in arrays[1:])]


def _flipped_and_stale(arrays: list[Array], rng: Rng) -> list[Array]:
    noise = rng.standard_normal(arrays[0].shape) * 1e-3 * arrays[0].std()
    return [(arrays[0][::-1, ::-1] + noise).astype(np.float32), *arrays[1:]]


def _padding_and_no_bias(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("conv", lambda n: all(n.fields["pad"]) and n.fields["bias"]), rng)
    scene.edit(node.name, pad=tuple(p - 1 for p in node.fields["pad"]), bias=False)
    scene.port = scene.port.edited(node.name, weights=node.weights[:1])
    if scene.port.shapes()[node.name] != scene.ref.shapes()[node.name]:
        raise NotHere
    scene.plant("bias-missing", "structure", node.name)
    scene.plant("padding-size", "structure forward", node.name)


def _epsilon_and_mode(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("bnorm"), rng)
    scene.edit(node.name, epsilon=1e-3, stored=node.fields["epsilon"])
    scene.train(frozen=frozenset({node.name}))
    scene.plant("bn-epsilon", "forward", node.name)
    scene.plant("bn-mode", "forward", node.name)
    scene.true.add("layer-frozen")


def _two_numbers(causes: tuple[str, str], **numbers: float) -> Plant:
    """Two numbers of a local response normalisation."""

    def plant(scene: Scene, rng: Rng) -> None:
        node = pick(scene.ref.of("lrn"), rng)
        held = dict(zip(("size", "kappa", "alpha", "beta"), node.fields["param"], strict=True))
        scene.edit(node.name, param=tuple({**held, **numbers}.values()))
        for cause in causes:
            scene.plant(cause, "forward", node.name)

    return plant


def _one_layer(variant: str, nets: str, plant: Plant, **options: Any) -> None:
    fault("double", f"{variant}, one layer", nets, plant, kind="double", **options)


_one_layer("epsilon and momentum", "normalised residual", _epsilon_and_momentum)
_one_layer("method and stride", "lenet", _method_and_stride)
_one_layer("flip and bias", "lenet", _flip_and_bias, weights="own")
_one_layer("flip and factor", "alex", _flip_and_scale, weights="own")
_one_layer(
    "permuted and scaled",
    "residual",
    _held_two(("channel-order", "weights-scaled"), _permuted_and_scaled),
    mode="eval",
    weights="own",
)
_one_layer(
    "flip and order", "inception", _held_two(("kernel-flip", "channel-order"), _flipped_and_permuted), weights="own"
)
_one_layer("flip and stale", "lenet", _held_two(("kernel-flip", "weights-differ"), _flipped_and_stale), weights="own")
_one_layer("padding and no bias", "strided", _padding_and_no_bias)
_one_layer("epsilon and mode", "residual", _epsilon_and_mode)
_one_layer("alpha and kappa", "alex", _two_numbers(("lrn-alpha", "lrn-kappa"), kappa=2.0, alpha=0.004))
_one_layer("size and beta", "alex", _two_numbers(("lrn-size", "lrn-beta"), size=3, beta=0.5))
