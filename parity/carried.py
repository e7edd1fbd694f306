"""What works on every element of a map that was turned, read as what works on the map before it is turned.

A port that keeps MATLAB's order of rows turns its map before it flattens it, and may have a rectifier or a dropout
between those two, or behind both. They do not care in which order the elements lie, so they may as well come first:
then the other side has the same layers, and the turned and flattened map is an order of the dense layer's rows. This
runner shows a model so; the model itself is run as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from parity.grouping import order_of
from parity.layers import Activation, Dense, Dropout, Flatten, Identity, Reshape
from parity.network import Layer, Network
from parity.runner import Labels, Local, Pass, Runner
from parity.wrapping import Wrapping

__all__ = ["carried"]

Array = np.ndarray


def carried(runner: Runner) -> Runner:
    """The runner itself, or one that shows elementwise layers before the map is turned."""
    return cast(Runner, _Carried(runner)) if _ways(runner.network) else runner


@dataclass(frozen=True)
class _Way:
    """A map on its way from where it is turned to the dense layer that reads it.

    Attributes:
        source: the tensor that is turned.
        order: its axes h w c in the order in which they lie behind that.
        extents: h, w, c.
        layers: what it goes through, by name, from the one that turns it on.
        tensors: what each of them makes.
        flat: whether that is flat.
        moved: those of `layers` that work on every element.
    """

    source: str
    order: tuple[int, ...]
    extents: tuple[int, ...]
    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    flat: tuple[bool, ...]
    moved: tuple[str, ...]

    @property
    def shown(self) -> dict[str, int]:
        """What an elementwise layer makes of the map that is not turned → the layer's place in `layers`."""
        return {f"{name}:carried": self.layers.index(name) for name in self.moved}

    def forth(self, value: Array, at: int) -> Array:
        """A plain map as the layer at this place makes it."""
        turned = value.reshape(len(value), *self.extents).transpose(0, *(axis + 1 for axis in self.order))
        return np.ascontiguousarray(turned.reshape(len(value), -1) if self.flat[at] else turned)

    def back(self, value: Array) -> Array:
        """The plain map of one that lies behind the turning, flat or not."""
        cube = value.reshape(len(value), *(self.extents[axis] for axis in self.order))
        return np.ascontiguousarray(cube.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.order))))


def _ways(network: Network) -> tuple[_Way, ...]:
    found: list[_Way] = []
    for layer in network:
        order = order_of(layer, flat=False) or order_of(layer, flat=True)
        extents = network.shape_of(layer.inputs[0]) if order else None
        if extents is None or len(extents) != 3 or None in extents:
            continue
        chain = _behind(network, layer)
        moved = tuple(one.name for one in chain[1:] if _elementwise(one))
        if moved and len(chain[-1].shape or ()) == 1:
            sizes = tuple(int(n or 0) for n in extents)
            flat = tuple(len(one.shape or ()) == 1 for one in chain)
            names, tensors = zip(*((one.name, one.output) for one in chain), strict=True)
            found.append(_Way(layer.inputs[0], order, sizes, names, tensors, flat, moved))
    return tuple(found)


def _behind(network: Network, layer: Layer) -> tuple[Layer, ...]:
    """A layer and what only a dense layer reads behind it: elementwise layers, and what flattens."""
    chain = [layer]
    while True:
        readers = network.consumers.get(chain[-1].output, ())
        if len(readers) != 1 or chain[-1].output in network.outputs:
            return (layer,)
        following = readers[0]
        if isinstance(following.kind, Dense):
            return tuple(chain)
        flattens = isinstance(following.kind, Flatten | Reshape) and len(following.shape or ()) == 1
        if not (flattens or _elementwise(following) or isinstance(following.kind, Identity)):
            return (layer,)
        chain.append(following)


def _elementwise(layer: Layer) -> bool:
    kind = layer.kind
    return not layer.params and (isinstance(kind, Activation) or (isinstance(kind, Dropout) and not kind.spatial))


def _rewritten(network: Network, ways: Sequence[_Way]) -> Network:
    first, gone = {way.layers[0]: way for way in ways}, {name for way in ways for name in way.layers}
    layers: list[Layer] = []
    for layer in network:
        if layer.name in first:
            layers += _instead(network, first[layer.name])
        elif layer.name not in gone:
            layers.append(layer)
    return replace(network, layers=tuple(layers))


def _instead(network: Network, way: _Way) -> list[Layer]:
    """The layers of a way, those that work on every element first."""
    made: list[Layer] = []
    tensor = way.source
    for name in way.moved:
        made.append(replace(network[name], inputs=(tensor,), outputs=(f"{name}:carried",), shape=way.extents))
        tensor = made[-1].output
    rest = [name for name in way.layers if name not in way.moved]
    turned = tuple(way.extents[axis] for axis in way.order)
    for name in rest:
        layer = network[name]
        output = way.tensors[-1] if name == rest[-1] else f"{name}:turned"
        shape = layer.shape if len(layer.shape or ()) == 1 else turned
        made.append(replace(layer, inputs=(tensor,), outputs=(output,), shape=shape))
        tensor = output
    return made


class _Carried(Wrapping):
    """A runner whose network has elementwise layers before the map is turned (see `parity.runner.Runner`)."""

    ways: tuple[_Way, ...] = ()
    """Where a map is turned."""

    def __init__(self, inner: Runner) -> None:
        super().__init__(inner)
        self.ways = _ways(inner.network)

    def rewritten(self, network: Network) -> Network:
        """The graph with the elementwise layers first."""
        self.ways = _ways(network)
        return _rewritten(network, self.ways)

    def run(
        self,
        inputs: Mapping[str, Array],
        labels: Labels,
        *,
        mode: str = "train",
        backward: bool = True,
        observe: bool = True,
        masks: Mapping[str, Array] | None = None,
        ties: str = "column",
        precision: int = 32,
        keep: frozenset[str] | None = None,
    ) -> Pass:
        """The whole model; the maps that are not turned are among its tensors."""
        seen = self.inner.run(
            inputs, labels, mode=mode, backward=backward, observe=observe, masks=self._masks(masks), ties=ties,
            precision=precision, keep=None if keep is None else keep | self._sources(keep),
        )  # fmt: skip
        for way in self.ways:
            for tensors in (seen.outputs, seen.output_grads):
                self._show(way, tensors)
                self._show_rest(way, tensors)
            seen.masks.update({name: way.back(seen.masks[name]) for name in way.moved if name in seen.masks})
        return seen

    def isolate(
        self,
        layers: Sequence[str],
        feeds: Mapping[str, Array],
        *,
        labels: Labels = None,
        upstream: Mapping[str, Array] | None = None,
        mode: str = "train",
        masks: Mapping[str, Array] | None = None,
        params: Mapping[str, Array] | None = None,
        ties: str = "column",
        precision: int = 32,
        wanted: Collection[str] | None = None,
        outputs: bool = True,
    ) -> Local:
        """Only these layers, in the order in which the model has them, a plain map turned for them."""
        real, fed, pulled = [*layers], dict(feeds), None if upstream is None else dict(upstream)
        asked = None if wanted is None else {*wanted, *self._sources(wanted)}
        named: dict[str, tuple[_Way, str]] = {}
        for way in self.ways:
            if not any(name in way.layers for name in layers):
                continue
            start, given = self._entered(way, layers, feeds)
            real = _placed(real, way, start)
            if start and given:
                tensor = way.tensors[start - 1]
                fed[tensor] = way.forth(fed.pop(given), start - 1)
                named[tensor] = (way, given)
                if asked is not None and given in asked:
                    asked.add(tensor)
            for shown, at in way.shown.items():
                if pulled is not None and shown in pulled:
                    pulled[way.tensors[at]] = way.forth(pulled.pop(shown), at)
        local = self.inner.isolate(
            real, fed, labels=labels, upstream=pulled, mode=mode, masks=self._masks(masks), params=params, ties=ties,
            precision=precision, wanted=asked, outputs=outputs,
        )  # fmt: skip
        for way in self.ways:
            self._show(way, local.outputs)
        for tensor, (way, given) in named.items():
            if tensor in local.input_grads:
                local.input_grads[given] = way.back(local.input_grads.pop(tensor))
        return local

    @staticmethod
    def _entered(way: _Way, layers: Sequence[str], feeds: Mapping[str, Array]) -> tuple[int, str]:
        """The place in a way of the first layer that runs, and the tensor that is fed there, if one is."""
        given = [(at + 1, shown) for shown, at in way.shown.items() if shown in feeds]
        if given:
            return max(given)
        whole = way.layers[0] in layers or way.source not in feeds
        return (0 if whole else 1), way.source if way.source in feeds else ""

    def _masks(self, masks: Mapping[str, Array] | None) -> Mapping[str, Array] | None:
        if masks is None:
            return None
        made = dict(masks)
        for way in self.ways:
            made |= {name: way.forth(made[name], way.layers.index(name)) for name in way.moved if name in made}
        return made

    def _sources(self, names: Collection[str]) -> frozenset[str]:
        """The tensors of the model that these are made of."""
        return frozenset(way.tensors[at] for way in self.ways for shown, at in way.shown.items() if shown in names)

    @staticmethod
    def _show(way: _Way, tensors: dict[str, Array]) -> None:
        for shown, at in way.shown.items():
            if way.tensors[at] in tensors:
                tensors[shown] = way.back(tensors[way.tensors[at]])

    @staticmethod
    def _show_rest(way: _Way, tensors: dict[str, Array]) -> None:
        """What stands between turning and flattening, which in the model itself other layers may follow."""
        last = tensors.get(way.tensors[-1])
        if last is not None:
            plain = way.back(last)
            rest = [(at, name) for at, name in enumerate(way.layers) if name not in way.moved]
            tensors.update({f"{name}:turned": way.forth(plain, at) for at, name in rest})


def _placed(layers: Sequence[str], way: _Way, start: int) -> list[str]:
    """The layers that run, those of a way in the model's own order, from a place on to the last that is asked for."""
    asked = [name for name in layers if name in way.layers]
    stop = len(way.layers) if way.layers[0] in asked else max(way.layers.index(name) for name in asked) + 1
    at = layers.index(asked[0])
    rest = [name for name in layers[at:] if name not in way.layers]
    return [*layers[:at], *way.layers[start:stop], *rest]
