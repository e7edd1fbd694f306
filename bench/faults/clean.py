"""Right ports in other spellings: each must match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.faults.port import Spelling
from bench.faults.scene import Scene, new_scene
from bench.faults.zoo import NETS

Rng = np.random.Generator
CLEAN: list[tuple[str, str, Callable[[Rng], Scene]]] = []
"""(name, net, maker)"""


def clean(name: str, nets: str, change: Callable[[Scene, Rng], None] | None = None, **options: Any) -> None:
    """Add a clean twin for each net."""
    for net in nets.split():
        CLEAN.append((name, net, _maker(net, change, options)))


def _maker(net: str, change: Callable[[Scene, Rng], None] | None, options: dict[str, Any]) -> Callable[[Rng], Scene]:
    def make(rng: Rng) -> Scene:
        scene = new_scene(NETS[net](rng), rng, **options)
        if change is not None:
            change(scene, rng)
        return scene

    return make


def spelled(**words: Any) -> Callable[[Scene, Rng], None]:
    """A change of spelling."""
    return lambda scene, rng: scene.spell(**words)


CHAINS = "lenet alex normalised"
GRAPHS = "residual inception two_heads"
ALL = f"{CHAINS} {GRAPHS} square"

clean("plain", ALL)
clean("eval", ALL, mode="eval")
clean("own weights", ALL, weights="own")


def random_spelling(scene: Scene, rng: Rng) -> None:
    """Any mixture that goes together."""
    chain = all(len(n.inputs) == 1 for n in scene.ref.nodes) and len(scene.ref.of("loss")) == 1

    def pick(*words: Any) -> Any:
        return words[int(rng.integers(len(words)))]

    container = pick("functional", "nested", *(["sequential"] if chain else []))
    scene.spelling = Spelling(
        container=container,
        activation=pick("layer", "function", "fused"),
        dense=pick(True, False),
        softmax=pick("layer", "activation", "fused", "logits"),
        same=pick(True, False),
        split=pick(True, False) and container != "sequential",
        pooled=pick(True, False),
        named=pick(True, False),
        penalty=pick("L2", "L1L2"),
        onehot=pick(True, False),
    )
    scene.options["mode"] = pick("train", "train", "eval")


for _at in range(8):
    clean(f"random {_at}", "chain graph", random_spelling)
clean("random", "alex deep residual inception", random_spelling)
