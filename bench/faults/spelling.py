"""How a port is written and how it is compiled, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.faults.nets import Net, Node


@dataclass(frozen=True)
class Spelling:
    """How a port is written; the defaults are the plainest way.

    Attributes:
        module: `keras` or `tf_keras`.
        container: functional, sequential (chains only), nested, or subclassed.
        activation: layer, function (`Activation("relu")`), or fused into the convolution before.
        dense: convolutions that cover the map as Flatten and Dense.
        softmax: layer, activation, fused, or logits.
        same: `padding="same"` where it means the same; else ZeroPadding2D.
        split: grouped convolutions as slices, convolutions and a concatenation.
        pooled: averages over the whole map as GlobalAveragePooling2D.
        named: whether layers keep the reference's names.
        zero_pool: max pools whose pads `same` cannot say are padded with zeros first: right behind a ReLU only.
        penalty: `L2`, `L1L2` or `string`: how weight decay is written.
        onehot: CategoricalCrossentropy on one-hot labels.
        policy: dtype policy of every layer.
    """

    module: str = "keras"
    container: str = "functional"
    activation: str = "layer"
    dense: bool = True
    softmax: str = "layer"
    same: bool = False
    split: bool = False
    pooled: bool = True
    named: bool = True
    penalty: str = "L2"
    onehot: bool = False
    policy: str = ""


@dataclass(frozen=True, eq=False)
class Training:
    """How the port is compiled.

    Attributes:
        optimizer: class under `optimizers`, e.g. `SGD` or `legacy.SGD`.
        options: of the optimizer.
        decay: weight decay as the reference has it, wd: L2(wd/2) on every parameter, times its multiplier.
        undecayed: node.parameter of those that get no penalty (`conv1.bias`).
        rates: node.parameter → factor on its gradient, by an optimizer of the user's own.
        loss: options of the cross-entropy; `kind` names another loss class.
        weights: of several losses.
        frozen: layers with trainable=False.
        metrics: what is counted.
    """

    optimizer: str = "SGD"
    options: Mapping[str, Any] = field(default_factory=dict)
    decay: float = 0.0
    undecayed: frozenset[str] = frozenset()
    rates: Mapping[str, float] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    metrics: tuple[str, ...] = ()


def training_of(net: Net) -> Training:
    """The right one for a net's recipe: SGD with momentum and coupled decay."""
    recipe = net.recipe
    rates = {f"{n.name}.{part}": rate for n in net.nodes for part, rate in multipliers(n, "learningRate") if rate != 1}
    nesterov = bool(recipe.options.get("nesterovUpdate", False))
    rate = np.ravel(recipe.rate)[0]
    options = {"learning_rate": float(rate), "momentum": recipe.momentum, "nesterov": nesterov}
    return Training(options=options, decay=recipe.decay, rates=rates)


def multipliers(node: Node, key: str) -> list[tuple[str, float]]:
    """(part, value) of each multiplier that the reference gives a node."""
    given = node.fields.get(key)
    return [] if given is None else list(zip(parts(node), given, strict=False))


def parts(node: Node) -> tuple[str, ...]:
    """Names of what a node learns."""
    if node.kind == "conv":
        return ("kernel", "bias") if node.fields["bias"] else ("kernel",)
    return {"bnorm": ("gamma", "beta"), "scale": ("kernel", "bias")}.get(node.kind, ())
