"""One comparison in the making: the reference, the port, what is fed, and what was planted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench.faults.nets import Array, Net, Node
from bench.faults.spelling import Spelling, Training, parts, training_of

PHASES = ("input", "structure", "weights", "forward", "loss", "backward", "update")


class NotHere(Exception):
    """The net has no place for that fault."""


@dataclass(frozen=True)
class Planted:
    """A fault and what a careful reader of both files would say of it.

    Attributes:
        cause: the slugs that name it, the best first (several where the vocabulary has two words for one thing).
        phase: where it is born; two words where the design leaves it open.
        layers: the reference's layer, or those that would do; `""` for a layer that only Keras has, or the recipe as a
            whole; None for anything.
        fix: whether a change of the Keras side mends it.
        confirm: whether an experiment can confirm it.
        masked: whether this batch, or this run, cannot show it: it must be a note.
        noted: with `masked`, whether a reader must be told (else it is only the verdict that counts).
        unverified: whether `unverified` is a right verdict too: what does not repeat itself cannot be judged.
    """

    cause: tuple[str, ...]
    phase: str
    layers: tuple[str, ...] | None
    fix: bool = True
    confirm: bool = True
    masked: bool = False
    noted: bool = True
    unverified: bool = False


@dataclass
class Scene:
    """What is compared.

    Attributes:
        ref: the reference.
        port: the net that the author of the port had in mind.
        spelling, training: how the port is written and compiled.
        batch: as `parity.compare` takes it; None leaves it to parity.
        options: of `parity.compare`.
        held: node → function on its Keras arrays (with `weights="own"`).
        storage: live, keras or h5.
        compiled: False leaves the port uncompiled.
        model: function on the built model.
        planted: the faults.
        true: causes that are true as well, as a consequence: no harm if they are named, none if not.
    """

    ref: Net
    port: Net
    spelling: Spelling
    training: Training
    batch: dict[str, Array] | None
    options: dict[str, Any] = field(default_factory=dict)
    held: dict[str, Callable[[list[Array]], list[Array]]] = field(default_factory=dict)
    storage: str = "live"
    compiled: bool = True
    model: Callable[[Any], Any] | None = None
    planted: list[Planted] = field(default_factory=list)
    true: set[str] = field(default_factory=set)

    @property
    def own(self) -> bool:
        """Whether the port keeps weights of its own."""
        return self.options.get("weights") == "own"

    @property
    def mode(self) -> str:
        """`train` or `eval`."""
        return self.options.get("mode", "train")

    def edit(self, name: str, **fields: Any) -> None:
        """Other fields of a node, in the port."""
        self.port = self.port.edited(name, **fields)

    def train(self, **changes: Any) -> None:
        """Other training of the port."""
        self.training = replace(self.training, **changes)

    def optimize(self, **options: Any) -> None:
        """Other options of the port's optimizer."""
        self.train(options={**self.training.options, **options})

    def spell(self, **changes: Any) -> None:
        """Another spelling."""
        self.spelling = replace(self.spelling, **changes)

    def plant(self, cause: str, phase: str, layers: Any = None, **words: Any) -> None:
        """Remember a fault; causes are separated by spaces."""
        named = (layers,) if isinstance(layers, str) else layers
        self.planted.append(Planted(tuple(cause.split()), phase, named, **words))


def new_scene(ref: Net, rng: np.random.Generator, *, images: int = 8, **options: Any) -> Scene:
    """A right port of a net, plainly spelled, with a batch of noise."""
    x = rng.standard_normal((images, *ref.size)).astype(np.float32)
    batch: dict[str, Array] = {"x": x}
    losses = ref.of("loss")
    for node in losses:
        name = "y" if len(losses) == 1 else f"y_{node.inputs[0]}"
        batch[name] = rng.integers(0, ref.classes(node.name), images)
    scene = Scene(ref, ref, Spelling(), training_of(ref), batch, dict(options))
    if ref.recipe.options.get("derOutputs") is not None:
        scene.train(weights={"loss": 1.0, "loss2": 0.5})
    return scene


def pick(nodes: list[Node], rng: np.random.Generator) -> Node:
    """One of them."""
    if not nodes:
        raise NotHere
    return nodes[int(rng.integers(len(nodes)))]


def learners(net: Net) -> list[str]:
    """Layers with parameters, in forward order."""
    return [node.name for node in net.nodes if parts(node)]


def values_at(scene: Scene, name: str) -> Mapping[str, Any]:
    """Fields of a node in the port."""
    return scene.port[name].fields
