"""What layers add to the loss for what they make (Keras' activity regularizers), compared on the reference's outputs.

It is part of the loss, and its gradient flows back with that of the data; no layer that is run alone shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.align import Pair
from parity.case import Comparison
from parity.network import Layer, Network
from parity.report import Probe

__all__ = ["TENSOR", "Added", "added", "added_gradient", "added_probes", "added_value"]

TENSOR = "activity"
"""The tensor of a probe of them."""

_NEAR = 1e-6
"""Relative difference of two values that are the same."""


_NOTE = "the two sides add different amounts to the loss for the same output"


@dataclass
class Added:
    """The layers of a pair, on each side, that add something to the loss for what they make."""

    pair: Pair
    ref: list[Layer] = field(default_factory=list)
    keras: list[Layer] = field(default_factory=list)


def added(run: Comparison) -> list[Added]:
    """The pairs that add something on a side, in the reference's order; layers that only pass on count to theirs."""
    found: dict[str, Added] = {}
    for side, network in (("ref", run.ref.network), ("keras", run.keras.network)):
        homes = {
            name: pair
            for pair in run.alignment.pairs
            for name in (pair.ref.layers if side == "ref" else pair.keras.layers)
        }
        for layer in network.layers:
            pair = _home(network, layer, homes) if layer.activity else None
            if pair is not None:
                held = found.setdefault(pair.ref.name, Added(pair))
                (held.ref if side == "ref" else held.keras).append(layer)
    return [found[pair.ref.name] for pair in run.alignment.pairs if pair.ref.name in found]


def _home(network: Network, layer: Layer, homes: Mapping[str, Pair]) -> Pair | None:
    """The pair whose output a layer passes on, or which it is of."""
    at: Layer | None = layer
    while at is not None and at.name not in homes:
        at = network.producers.get(at.inputs[0]) if at.inputs else None
    return homes[at.name] if at is not None else None


def added_value(layers: Sequence[Layer], made: np.ndarray) -> float | None:
    """What these layers add for an output with its batch axis; None where a law among them is none of L1 and L2."""
    total = 0.0
    for layer in layers:
        config = layer.activity.get("config") or {}
        if not set(config) <= {"l1", "l2"}:
            return None
        value = np.asarray(made, np.float64)
        here = float(config.get("l1") or 0) * float(np.abs(value).sum())
        here += float(config.get("l2") or 0) * float(np.square(value).sum())
        total += here / (len(value) if layer.activity.get("mean") else 1)
    return total


def added_gradient(layers: Sequence[Layer], made: np.ndarray) -> np.ndarray | None:
    """The derivative of `added_value` with respect to the output; None where that has no value."""
    total = np.zeros(made.shape, np.float64)
    for layer in layers:
        config = layer.activity.get("config") or {}
        if not set(config) <= {"l1", "l2"}:
            return None
        value = np.asarray(made, np.float64)
        here = float(config.get("l1") or 0) * np.sign(value) + 2 * float(config.get("l2") or 0) * value
        total += here / (len(value) if layer.activity.get("mean") else 1)
    return total.astype(made.dtype)


def added_probes(run: Comparison) -> list[Probe]:
    """A probe of the loss phase for each pair that adds something on a side."""
    if not run.alignment.has_loss or run.mode != "train":
        return []
    made: list[Probe] = []
    outputs = run.course.passes[0].outputs
    for each in added(run):
        output = outputs.get(each.pair.ref.output)
        values = [None if output is None else added_value(layers, output) for layers in (each.ref, each.keras)]
        laws = [sorted(_words(layer.activity) for layer in layers) for layers in (each.ref, each.keras)]
        mine, theirs = values
        if mine is None or theirs is None:
            status, apart = ("match" if laws[0] == laws[1] else "born"), None
        else:
            apart = abs(mine - theirs)
            status = "match" if math.isclose(mine, theirs, rel_tol=_NEAR) else "born"
        names = each.pair.ref.name, each.pair.keras.origin
        made.append(Probe(*names, "loss", TENSOR, status=status, max_abs=apart, note=_NOTE if status == "born" else ""))
    return made


def _words(law: Mapping[str, Any]) -> str:
    return f"{law.get('class_name')} {sorted((law.get('config') or {}).items())} {law.get('mean')}"
