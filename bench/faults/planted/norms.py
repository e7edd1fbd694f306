"""Batch normalisation and local response normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.faults.nets import Node
from bench.faults.planted.base import Plant, Rng, fault, field_edit
from bench.faults.scene import Scene, pick

# -------------------------------------------------------------------------------------------------------- normalisation


def epsilon(to: float) -> Plant:
    """Another epsilon."""
    return field_edit("bn-epsilon", "bnorm", lambda n, s, r: {"epsilon": to, "stored": n.fields["epsilon"]})


for _value in (1e-3, 1e-4, 1.3e-5):
    fault("bn-epsilon", f"{_value:g}", "normalised residual", epsilon(_value))
    fault("bn-epsilon", f"{_value:g} in eval", "normalised residual", epsilon(_value), mode="eval")
fault("bn-epsilon", "1e-3, own weights", "normalised", epsilon(1e-3), weights="own")


def _bn_momentum(to: Callable[[float], float]) -> Plant:
    return field_edit("bn-momentum", "bnorm", lambda n, s, r: {"momentum": to(1 - n.fields["rate"])}, "update")


fault("bn-momentum", "0.99", "normalised residual", _bn_momentum(lambda m: 0.99))
fault("bn-momentum", "off by 1e-4", "normalised", _bn_momentum(lambda m: m - 1e-4))
fault("bn-momentum", "swapped for its complement", "residual", _bn_momentum(lambda m: 1 - m))


def _frozen_bnorm(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("bnorm"), rng)
    scene.train(frozen=frozenset({node.name}))
    scene.plant("bn-mode", "forward", node.name)
    scene.true.add("layer-frozen")


fault("bn-mode", "trainable=False", "normalised residual", _frozen_bnorm)


def _lrn_edit(cause: str, at: int, to: Callable[[float], float]) -> Plant:
    def change(node: Node, scene: Scene, rng: Rng) -> dict[str, Any]:
        param = list(node.fields["param"])
        param[at] = to(param[at])
        return {"param": tuple(param)}

    return field_edit(cause, "lrn", change)


fault("lrn-alpha", "divided by the window", "alex", _lrn_edit("lrn-alpha", 2, lambda a: a / 5))
fault("lrn-alpha", "times 1.01", "alex", _lrn_edit("lrn-alpha", 2, lambda a: a * 1.01))
fault("lrn-size", "3 for 5", "alex", _lrn_edit("lrn-size", 0, lambda n: 3))
fault("lrn-kappa", "2 for 1", "alex", _lrn_edit("lrn-kappa", 1, lambda k: 2.0))
fault("lrn-beta", "0.7502 for 0.75", "alex", _lrn_edit("lrn-beta", 3, lambda b: 0.7502))
fault("bn-epsilon", "0.001, random net", "deep graph", epsilon(1e-3))
fault("bn-epsilon", "0.001, real widths", "broad", epsilon(1e-3), mode="eval")
fault("lrn-beta", "0.5 for 0.75", "alex", _lrn_edit("lrn-beta", 3, lambda b: 0.5))
