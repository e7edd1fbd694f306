"""The list of cases of a seed: every fault on its nets, doubles, masked faults, and clean twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from bench.faults.clean import CLEAN
from bench.faults.nets import same_pad
from bench.faults.planted import FAULTS, Fault
from bench.faults.scene import NotHere, Scene, new_scene
from bench.faults.zoo import NETS

TRIES = 30
SPELLED = 0.4
"""Share of the faults that are planted in ports of another spelling."""
FILED, UNFED = 0.25, 0.2
"""Shares of the ports that come as files, and of the comparisons for which parity makes the batch."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        id: `cause/variant@net`.
        kind: fault, double, masked or clean.
        cause: the row of the table.
        scene: makes it.
    """

    id: str
    kind: str
    cause: str
    scene: Callable[[np.random.Generator], Scene]


@lru_cache(maxsize=4)
def cases(seed: int) -> tuple[Case, ...]:
    """All cases; which nets and numbers they have depends on the seed, the list does not."""
    made = [Case(f"{f.cause}/{f.variant}@{net}", f.kind, f.cause, _planted(f, net)) for f in FAULTS for net in f.nets]
    made += [Case(f"clean/{name}@{net}", "clean", "clean", make) for name, net, make in CLEAN]
    names = [case.id for case in made]
    assert len(set(names)) == len(names), [n for n in names if names.count(n) > 1]
    return tuple(made)


def _spelled(scene: Scene, rng: np.random.Generator) -> None:
    """Another spelling, of the kind that hides no fault."""

    def one(*words: Any) -> Any:
        return words[int(rng.integers(len(words)))]

    scene.spell(
        container=one("functional", "nested"),
        activation=one("layer", "function", "fused"),
        softmax=one("layer", "activation", "fused", "logits"),
        same=one(True, False),
        named=one(True, False),
    )


def _delivered(scene: Scene, rng: np.random.Generator) -> None:
    """Now and then as a file, and now and then without a batch, where nothing that was planted forbids it."""
    as_file, alone = rng.random(2) < (FILED, UNFED)
    own = {"lrn", "guided", "steeper", "noisy"} & {node.kind for node in scene.port.nodes}
    classes = own or scene.training.rates or scene.training.optimizer.startswith("own:")  # no file holds them
    if as_file and not classes and scene.model is None:
        scene.storage = "keras" if scene.spelling.module == "keras" else "h5"
    fed = any(p.phase == "input" or p.masked for p in scene.planted) or scene.spelling.onehot
    if alone and not fed:
        scene.batch = None


def _latent(scene: Scene) -> set[str]:
    """What is true of average poolings behind a fault that changes their map: there the port pads them with zeros.

    What was `same` on the reference's map is cells on another one, and Keras counts those.
    """
    shapes = scene.port.shapes()
    for node in scene.port.of("pool", lambda n: n.fields["method"] == "avg" and any(n.fields["pad"])):
        window = node.fields["size"], node.fields["stride"]
        if node.fields["pad"] != same_pad(shapes[node.inputs[0]], *window):
            return {"pool-avg-count-pad"}
    return set()


def _planted(fault: Fault, net: str) -> Callable[[np.random.Generator], Scene]:
    def make(rng: np.random.Generator) -> Scene:
        for _ in range(TRIES):
            scene = new_scene(NETS[net](rng), rng, images=fault.images, **dict(fault.options))
            if rng.random() < SPELLED:
                _spelled(scene, rng)
            try:
                fault.plant(scene, rng)
            except NotHere:
                continue
            _delivered(scene, rng)
            scene.true |= _latent(scene)
            return scene
        raise AssertionError(f"{net} has no place for {fault.cause}/{fault.variant}")

    return make
