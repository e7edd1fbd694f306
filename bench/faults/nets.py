"""A net as its author has it in mind: nodes with MatConvNet's fields and weights, the source of files and ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Array = np.ndarray
Size = tuple[int, int, int]

WEIGHTED = ("conv", "bnorm", "scale")


@dataclass(frozen=True, eq=False)
class Node:
    """One layer.

    Attributes:
        name: unique.
        kind: conv, bnorm, relu, sigmoid, pool, lrn, dropout, sum, concat, scale, loss; and tanh, noise, softmax, which
            only faults use.
        inputs: nodes, or `"data"`.
        fields: MatConvNet's fields of that layer.
        weights: in MatConvNet's layout: filters (h, w, depth, outputs) and bias (1, outputs); gain (c, 1), offset
            (c, 1) and moments (c, 2), the deviation with epsilon.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[Array, ...] = ()


@dataclass(frozen=True, eq=False)
class Recipe:
    """How the reference is trained, in the words of `cnn_train`."""

    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 0.0005
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Net:
    """A net: nodes in topological order, the input's size (h, w, c), and how it is trained and written."""

    name: str
    nodes: tuple[Node, ...]
    size: Size
    style: str = "simple"
    recipe: Recipe = field(default_factory=Recipe)

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def of(self, kind: str, test: Callable[[Node], bool] = lambda _: True) -> list[Node]:
        """The nodes of a kind that pass a test."""
        return [node for node in self.nodes if node.kind == kind and test(node)]

    def classes(self, loss: str = "loss") -> int:
        """How many outputs the prediction that a loss reads has."""
        return self.shapes()[self[loss].inputs[0]][2]

    def edited(self, name: str, *, weights: Sequence[Array] | None = None, **fields: Any) -> Net:
        """With other fields or weights of one node."""
        old = self[name]
        new = replace(old, fields={**old.fields, **fields}, weights=old.weights if weights is None else tuple(weights))
        return replace(self, nodes=tuple(new if node is old else node for node in self.nodes))

    def replaced(self, name: str, **changes: Any) -> Net:
        """With another kind, name or inputs of one node."""
        old = self[name]
        return replace(self, nodes=tuple(replace(node, **changes) if node is old else node for node in self.nodes))

    def without(self, name: str) -> Net:
        """With one node taken out; who read it reads its first input."""
        gone = self[name]
        kept = [n for n in self.nodes if n is not gone]
        return replace(self, nodes=tuple(_rewired(n, name, gone.inputs[0]) for n in kept))

    def after(self, name: str, new: Node) -> Net:
        """With a node put behind another; who read that one reads the new one."""
        at = -1 if name == "data" else [n.name for n in self.nodes].index(name)
        before, behind = self.nodes[: at + 1], self.nodes[at + 1 :]
        placed = replace(new, inputs=(name,))
        return replace(self, nodes=(*before, placed, *(_rewired(n, name, new.name) for n in behind)))

    def shapes(self) -> dict[str, Size]:
        """Node → (h, w, c) of its output."""
        made: dict[str, Size] = {"data": self.size}
        for node in self.nodes:
            made[node.name] = _shape(node, [made[name] for name in node.inputs])
        return made

    def source(self, name: str) -> Size:
        """(h, w, c) of what a node reads first."""
        return self.shapes()[self[name].inputs[0]]


def _rewired(node: Node, old: str, new: str) -> Node:
    return replace(node, inputs=tuple(new if name == old else name for name in node.inputs))


def _shape(node: Node, read: list[Size]) -> Size:
    h, w, c = read[0]
    if node.fields.get("full"):
        return 1, 1, node.weights[0].shape[3]
    if node.kind in ("conv", "pool"):
        window = node.weights[0].shape[:2] if node.kind == "conv" else node.fields["size"]
        stride, pad, dilate = node.fields["stride"], node.fields["pad"], node.fields.get("dilate", (1, 1))
        reach = [(int(k) - 1) * d + 1 for k, d in zip(window, dilate, strict=True)]
        extent = [(e + pad[2 * a] + pad[2 * a + 1] - reach[a]) // stride[a] + 1 for a, e in enumerate((h, w))]
        return extent[0], extent[1], node.weights[0].shape[3] if node.kind == "conv" else c
    if node.kind == "concat":
        return h, w, sum(size[2] for size in read)
    return h, w, c


def same_pad(
    size: Size, window: Sequence[int], stride: Sequence[int], dilate: Sequence[int] = (1, 1)
) -> tuple[int, ...]:
    """[top bottom left right] of what Keras calls `same`: the odd cell at the end."""
    pad: list[int] = []
    for extent, k, s, d in zip(size[:2], window, stride, dilate, strict=True):
        total = max((-(-extent // s) - 1) * s + (k - 1) * d + 1 - extent, 0)
        pad += [total // 2, total - total // 2]
    return tuple(pad)


class Maker:
    """A net under construction; every method adds one node behind the last (or behind `x`) and gives its name."""

    def __init__(self, name: str, rng: np.random.Generator, size: Size, style: str = "simple") -> None:
        self.name, self.rng, self.size, self.style = name, rng, size, style
        self.nodes: list[Node] = []
        self.last = "data"

    def net(self, **recipe: Any) -> Net:
        """What was made."""
        return Net(self.name, tuple(self.nodes), self.size, self.style, Recipe(**recipe))

    def shape(self, name: str | None = None) -> Size:
        """(h, w, c) at a node, or at the last one."""
        return Net("", tuple(self.nodes), self.size).shapes()[name or self.last]

    def add(self, name: str, kind: str, x: Any = None, weights: Sequence[Array] = (), **fields: Any) -> str:
        """Any node."""
        inputs = (self.last,) if x is None else (x,) if isinstance(x, str) else tuple(x)
        single = tuple(np.asarray(w, np.float32) for w in weights)
        self.nodes.append(Node(name, kind, inputs, fields, single))
        self.last = name
        return name

    def conv(
        self,
        name: str,
        window: Any,
        outputs: int,
        x: str | None = None,
        *,
        groups: int = 1,
        pad: Any = 0,
        stride: Any = 1,
        dilate: int = 1,
        bias: bool = True,
    ) -> str:
        """A convolution with He-scaled filters and biases that are not zero."""
        window = (window, window) if isinstance(window, int) else tuple(window)
        depth = self.shape(x)[2] // groups
        filters = self.rng.standard_normal((*window, depth, outputs)) * np.sqrt(2 / (np.prod(window) * depth))
        weights = [filters, 0.1 * self.rng.standard_normal((1, outputs))] if bias else [filters]
        stride = (stride, stride) if isinstance(stride, int) else tuple(stride)
        pad = (pad,) * 4 if isinstance(pad, int) else tuple(pad)
        return self.add(name, "conv", x, weights, pad=pad, stride=stride, dilate=(dilate, dilate), bias=bias)

    def fc(self, name: str, outputs: int, x: str | None = None) -> str:
        """A convolution that covers the map."""
        self.conv(name, self.shape(x)[:2], outputs, x)
        self.nodes[-1] = replace(self.nodes[-1], fields={**self.nodes[-1].fields, "full": True})
        return name

    def bnorm(self, name: str, x: str | None = None, *, rate: float = 0.1, epsilon: float = 1e-5) -> str:
        """A batch normalisation with moments as training leaves them; some channels have little variance."""
        rng, c = self.rng, self.shape(x)[2]
        small = np.where(np.arange(c) % 3 == 2, 0.02, 1.0)
        variance = rng.uniform(0.5, 1.5, c) * small
        before = self.nodes[-1]
        if before.kind == "conv" and before.name == (x or self.last):
            filters = before.weights[0] * np.sqrt(0.5 * small).astype(np.float32)
            self.nodes[-1] = replace(before, weights=(filters, *before.weights[1:]))
        moments = np.stack([0.3 * rng.standard_normal(c), np.sqrt(variance + epsilon)], axis=1)
        gain, offset = 1 + 0.2 * rng.standard_normal((c, 1)), 0.2 * rng.standard_normal((c, 1))
        return self.add(name, "bnorm", x, [gain, offset, moments], rate=rate, epsilon=epsilon)

    def relu(self, name: str, x: str | None = None, leak: float = 0.0) -> str:
        """A rectifier, leaky or not."""
        return self.add(name, "relu", x, leak=leak)

    def pool(self, name: str, method: str, size: int, stride: int, x: str | None = None, pad: Any = 0) -> str:
        """A pooling; `pad` may be `"same"`."""
        window, step = (size, size), (stride, stride)
        if pad == "same":
            pad = same_pad(self.shape(x), window, step)
        pad = (pad,) * 4 if isinstance(pad, int) else tuple(pad)
        return self.add(name, "pool", x, method=method, size=window, stride=step, pad=pad)

    def lrn(self, name: str, param: Sequence[float], x: str | None = None) -> str:
        """A local response normalisation with [size kappa alpha beta]."""
        return self.add(name, "lrn", x, param=tuple(param))

    def scale(self, name: str, x: str | None = None) -> str:
        """A gain and an offset for each channel."""
        c = self.shape(x)[2]
        gain, offset = 1 + 0.3 * self.rng.standard_normal((1, c)), 0.3 * self.rng.standard_normal((1, c))
        return self.add(name, "scale", x, [gain, offset])

    def loss(self, x: str | None = None, name: str = "loss") -> str:
        """Softmax and log loss."""
        return self.add(name, "loss", x)
