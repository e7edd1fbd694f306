"""What a fault is: it plants itself in a scene and says there what must be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.faults.nets import Node
from bench.faults.scene import Scene, pick

Rng = np.random.Generator
Plant = Callable[[Scene, Rng], None]


@dataclass(frozen=True)
class Fault:
    """A variant of a cause.

    Attributes:
        cause: the slug whose row of the table it belongs to.
        variant: a word for it.
        plant: puts it into a scene.
        nets: where it is planted.
        options: of the comparison.
        images: in the batch.
        kind: fault, double or masked.
    """

    cause: str
    variant: str
    plant: Plant
    nets: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()
    images: int = 8
    kind: str = "fault"


FAULTS: list[Fault] = []


def fault(
    cause: str, variant: str, nets: str, plant: Plant, *, images: int = 8, kind: str = "fault", **options: Any
) -> None:
    """Add a fault to the list; nets are separated by spaces."""
    FAULTS.append(Fault(cause, variant, plant, tuple(nets.split()), tuple(options.items()), images, kind))


def field_edit(
    cause: str, kind: str, change: Callable[[Node, Scene, Rng], dict[str, Any]], phase: str = "forward", **words: Any
) -> Plant:
    """A fault that is another value of a field of one node of a kind."""

    def plant(scene: Scene, rng: Rng) -> None:
        nodes = [n for n in scene.ref.of(kind) if n.name not in touched(scene) and fits(n)]
        node = pick(nodes, rng)
        scene.edit(node.name, **change(node, scene, rng))
        scene.plant(cause, phase, node.name, **words)

    fits: Callable[[Node], bool] = words.pop("fits", lambda _: True)
    return plant


def grouped(scene: Scene) -> list[Node]:
    """Convolutions of several groups."""
    return scene.ref.of("conv", lambda n: scene.ref.source(n.name)[2] != n.weights[0].shape[2])


def touched(scene: Scene) -> set[str]:
    """Layers that have a fault already."""
    return {name for planted in scene.planted for name in planted.layers or ()}
