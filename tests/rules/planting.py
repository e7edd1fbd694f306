"""Small nets, faults planted in their Keras ports, and the one line that must be said of each.

The ports are written by the fault benchmark's generator, which knows nothing of the rules. A row says everything: where
the fault must be found, which cause is named, that it is confirmed, that its fix is verified, and that nothing else is.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.faults.matlab import save
from bench.faults.nets import Maker, Net, Node
from bench.faults.port import port
from bench.faults.scene import Scene, new_scene

Plant = Callable[[Scene], None]
LARGE, SMALL = "large", "small"


class Planted:
    """What is planted into a port of a net, in a mode, with weights of its own or not."""

    net: str
    mode: str
    own: bool

    @property
    def twin(self) -> tuple[str, str, bool]:
        """What its clean twin differs in from others."""
        return self.net, self.mode, self.own


@dataclass(frozen=True)
class Row(Planted):
    """One fault.

    Attributes:
        cause: the slug that must be named, and no other.
        size: large or small.
        net: of `NETS`.
        plant: puts the fault into the port (and what brings it out into both sides).
        where: `phase layer`, of the first divergence and of the finding.
        like: `size cause`, a row whose fault looks like this one and has another cause.
        mode: of the comparison.
        own: whether the port keeps weights of its own.
        marks: what must hold of the finding: confirmed, and its fix verified.
        name: where a cause has several rows of a size.
        also: what is true as well and must be said, as `found` says it.
    """

    cause: str
    size: str
    net: str
    plant: Plant
    where: str
    like: str
    mode: str = "eval"
    own: bool = False
    marks: str = "confirmed, fixed"
    name: str = ""
    also: str = ""

    @property
    def id(self) -> str:
        """Its name in the tests."""
        return " ".join(word for word in (self.size, self.cause, self.name) if word)

    @property
    def expected(self) -> str:
        """The line that must be said."""
        phase, _, layer = self.where.partition(" ")
        return f"{phase} {layer}: {self.cause} at {layer} ({self.marks}){self.also}"


def found(row: Any) -> str:
    """What parity says of a row, as `Row.expected` has it."""
    return told(_compared(row.twin, row.plant))


def of_port(twin: tuple[str, str, bool], plant: Plant) -> str:
    """What parity says of a port to which something was done."""
    return told(_compared(twin, plant))


def clean(twin: tuple[str, str, bool]) -> str:
    """What parity says of the same port without a fault."""
    return told(_compared(twin, lambda scene: None))


def _compared(twin: tuple[str, str, bool], plant: Plant) -> Any:
    import keras

    import parity

    net, mode, own = twin
    scene = new_scene(NETS[net](), np.random.default_rng(1), images=4, mode=mode, weights="own" if own else "ref")
    if mode == "train":
        scene.options["steps"] = 1
    plant(scene)
    keras.utils.set_random_seed(0)
    model = port(scene.port, scene.spelling, scene.training, scene.own, scene.held)
    if scene.model is not None:
        model = scene.model(model)
    return parity.compare(ref=_saved(scene.ref), keras=model, batch=scene.batch, **scene.options)


_FOLDER = contextlib.ExitStack()


@lru_cache(maxsize=1)
def _folder() -> Path:
    return Path(_FOLDER.enter_context(tempfile.TemporaryDirectory()))


def _saved(net: Net) -> Path:
    return save(_folder() / f"{len(list(_folder().iterdir()))}.mat", net)


def told(report: Any) -> str:
    """`phase layer: cause at layer (marks), …`: the first divergence, and every finding that is one."""
    first = report.first_divergence
    if first is None:
        return report.verdict
    named = []
    for finding in report.findings:
        marks = [word for word, holds in (("confirmed", finding.confirmed), ("fixed", finding.fix_verified)) if holds]
        if finding.severity == "divergence":
            named.append(f"{finding.cause} at {finding.layer or finding.keras_layer} ({', '.join(marks) or 'open'})")
    return f"{first.phase} {first.layer or first.keras_layer}: {', '.join(named) or 'nothing'}"


# --------------------------------------------------------------------------------------------------------------- plants


def edit(name: str, **fields: Any) -> Plant:
    """Other fields of a layer of the port."""
    return lambda scene: scene.edit(name, **fields)


def without(*names: str) -> Plant:
    """Layers of the port are left out."""

    def plant(scene: Scene) -> None:
        for name in names:
            scene.port = scene.port.without(name)

    return plant


def behind(name: str, kind: str, **fields: Any) -> Plant:
    """The port has one more layer behind this one."""

    def plant(scene: Scene) -> None:
        scene.port = scene.port.after(name, Node(f"extra_{kind}", kind, (), fields))

    return plant


def held(name: str, change: Callable[[list[np.ndarray]], list[Any]]) -> Plant:
    """Other arrays in a layer of the port."""
    return lambda scene: scene.held.update({name: lambda arrays: change([np.array(a) for a in arrays])})


def given(name: str, change: Callable[[list[np.ndarray]], list[Any]]) -> Plant:
    """Other weights of a layer on both sides, in MatConvNet's layout."""

    def plant(scene: Scene) -> None:
        weights = [np.asarray(w, np.float32) for w in change([np.array(w) for w in scene.ref[name].weights])]
        scene.ref, scene.port = (net.edited(name, weights=weights) for net in (scene.ref, scene.port))

    return plant


def faint(name: str, size: float = 1e-4) -> Plant:
    """The filters of a layer are small beside its biases on both sides, so what they read shows little."""
    return given(name, lambda w: [w[0] * size, np.ones_like(w[1])])


def symmetric(name: str, turn: Callable[[np.ndarray], np.ndarray], rest: float = 1e-4) -> Plant:
    """The filters of a layer are nearly what a turn makes of them, on both sides."""
    return given(name, lambda w: [(w[0] + turn(w[0])) / 2 + rest * (w[0] - turn(w[0])) / 2, *w[1:]])


def images(change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Other images, for both sides."""

    def plant(scene: Scene) -> None:
        assert scene.batch is not None
        scene.batch["x"] = change(scene.batch["x"]).astype(np.float32)

    return plant


def disguised(name: str, behave: Callable[[type], type]) -> Plant:
    """A layer of the port is of a class of the user's own that looks like Keras' in everything but what it does."""

    def change(model: Any) -> Any:
        layer = model.get_layer(name)
        own = behave(type(layer))
        own.__name__ = own.__qualname__ = type(layer).__name__
        layer.__class__ = own
        return model

    def plant(scene: Scene) -> None:
        scene.model = change

    return plant


def together(*plants: Plant) -> Plant:
    """One after the other."""

    def plant(scene: Scene) -> None:
        for one in plants:
            one(scene)

    return plant


# ----------------------------------------------------------------------------------------------------------------- nets


def _maker(name: str, size: tuple[int, int, int] = (7, 7, 4), style: str = "simple") -> Maker:
    return Maker(name, np.random.default_rng(7), size, style)


def filters() -> Net:
    """Square filters with as many inputs as outputs, groups, a stride that hides cells, a covering end."""
    m = _maker("filters")
    m.conv("conv1", 3, 4, pad=1)
    m.relu("relu1", leak=0.1)
    m.conv("conv2", 3, 4, groups=2, pad=(2, 0, 2, 0))
    m.conv("conv3", 3, 4, pad=1, stride=4)
    m.fc("fc", 5)
    m.loss()
    return m.net()


def dilated() -> Net:
    """Dilation, and a stride that a small map hides."""
    m = _maker("dilated")
    m.conv("conv1", 3, 4, pad=2, dilate=2)
    m.conv("conv2", 2, 4, stride=3)
    m.fc("fc", 5)
    m.loss()
    return m.net()


def dense() -> Net:
    """Fully connected layers as wide as what they read."""
    m = _maker("dense", (2, 2, 3))
    m.fc("fc1", 12)
    m.relu("relu1")
    m.fc("fc2", 12)
    m.fc("classifier", 4)
    m.loss()
    return m.net()


def pooled() -> Net:
    """Poolings with cells on all sides, at the end only, and none."""
    return _pooling("pooled", "max", (8, 8, 3))


def averaged() -> Net:
    """An average with cells on all sides."""
    return _pooling("averaged", "avg", (6, 6, 3))


def _pooling(name: str, method: str, size: tuple[int, int, int]) -> Net:
    m = _maker(name, size)
    m.pool(f"{method}1", method, 3, 1, pad=1)
    m.pool(f"{method}2", method, 3, 2, pad=(0, 1, 0, 1))
    m.fc("fc", 4)
    m.loss()
    return m.net()


def windows() -> Net:
    """A pooling without cells, in a map that hides other windows."""
    m = _maker("windows", (7, 7, 3))
    m.pool("max1", "max", 2, 3)
    m.fc("fc", 4)
    m.loss()
    return m.net()


def normal() -> Net:
    """Batch normalisation."""
    m = _maker("normal", (6, 6, 3))
    m.conv("conv1", 1, 4)
    m.bnorm("bn1")
    m.relu("relu1", leak=0.1)
    m.fc("fc", 4)
    m.loss()
    return m.net()


def responses() -> Net:
    """Local response normalisation."""
    m = _maker("responses", (4, 4, 3))
    m.conv("conv1", 1, 8)
    m.lrn("lrn1", (5, 1.0, 0.2, 0.75))
    m.fc("fc", 4)
    m.loss()
    return m.net()


def active() -> Net:
    """Activations of every kind, and dropout."""
    m = _maker("active", (4, 4, 3))
    m.conv("conv1", 1, 6)
    m.relu("relu1", leak=0.1)
    m.conv("conv2", 1, 6)
    m.add("sig", "sigmoid")
    m.conv("conv3", 1, 6)
    m.relu("relu3")
    m.add("drop", "dropout", rate=0.5)
    m.fc("fc", 4)
    m.loss()
    return m.net()


def branches() -> Net:
    """Two branches joined by a concatenation, and a sum."""
    m = _maker("branches", (5, 5, 3), "dag")
    x = m.conv("stem", 1, 4)
    a = m.relu("relu_a", m.conv("conv_a", 1, 4, x), leak=0.1)
    b = m.conv("conv_b", 3, 4, x, pad=1)
    m.add("concat", "concat", (a, b))
    y = m.conv("conv_c", 1, 4)
    m.add("sum", "sum", (x, y))
    m.scale("scale")
    m.fc("fc", 4)
    m.loss()
    return m.net()


NETS: dict[str, Callable[[], Net]] = {
    make.__name__: make
    for make in (filters, dilated, dense, pooled, averaged, windows, normal, responses, active, branches)
}
