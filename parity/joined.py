"""Parallel activations that are concatenated, read as one activation of the concatenated map.

Grouped convolutions are often written as convolutions of slices, each with its activation inside, and a concatenation
of those. An activation works on every element alone, so it may as well come behind the concatenation: then the
convolutions and the concatenation are one grouped convolution, which is what the other side has. This runner shows a
model so; the model itself is run as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from parity.layers import Activation, Concat, Conv, ConvTranspose, Slice, Split
from parity.network import Layer, Network
from parity.runner import Labels, Local, Pass, Runner
from parity.wrapping import Wrapping

__all__ = ["joined"]

Array = np.ndarray


def joined(runner: Runner) -> Runner:
    """The runner itself, or one that shows parallel activations behind their concatenation."""
    return cast(Runner, _Joined(runner)) if _joins(runner.network) else runner


@dataclass(frozen=True)
class _Join:
    """One concatenation of activations.

    Attributes:
        tensor: the name that the joined map before the activation is given.
        pieces: the tensors that it is joined of, in order.
        widths: their channels.
        layers: the layers that apply the activations and join them.
        name: of the concatenation, which stands for the one activation from now on.
    """

    tensor: str
    pieces: tuple[str, ...]
    widths: tuple[int, ...]
    layers: tuple[str, ...]
    name: str


def _joins(network: Network) -> tuple[_Join, ...]:
    found: list[_Join] = []
    for layer in network:
        if not isinstance(layer.kind, Concat) or layer.kind.axis != -1 or len(layer.inputs) < 2:
            continue
        makers = [network.producers.get(tensor) for tensor in layer.inputs]
        acts = [m for m in makers if m is not None and isinstance(m.kind, Activation)]
        alone = all(len(network.consumers[m.output]) == 1 for m in acts)
        if len(acts) != len(layer.inputs) or len({m.kind for m in acts}) != 1 or not alone:
            continue
        pieces = tuple(m.inputs[0] for m in acts)
        convs = [network.producers.get(piece) for piece in pieces]
        widths = [network.shape_of(piece) for piece in pieces]
        if len(set(pieces)) < len(pieces) or any(shape is None or shape[-1] is None for shape in widths):
            continue
        if all(
            c is not None and len(network.consumers[p]) == 1 and _of_slice(network, c)
            for c, p in zip(convs, pieces, strict=True)
        ):
            channels = tuple(int((shape or (0,))[-1] or 0) for shape in widths)
            members = (*(m.name for m in acts), layer.name)
            found.append(_Join(f"{layer.name}:joined", pieces, channels, members, layer.name))
    return tuple(found)


def _of_slice(network: Network, layer: Layer) -> bool:
    """Whether it is a convolution of a part of the channels: otherwise it is a branch of its own."""
    before = network.producers.get(layer.inputs[0])
    return (
        isinstance(layer.kind, Conv | ConvTranspose) and before is not None and isinstance(before.kind, Slice | Split)
    )


def _rewritten(network: Network, joins: Sequence[_Join]) -> Network:
    by_name = {join.name: join for join in joins}
    gone = {name for join in joins for name in join.layers if name != join.name}
    layers: list[Layer] = []
    for layer in network:
        join = by_name.get(layer.name)
        if join is None:
            if layer.name not in gone:
                layers.append(layer)
            continue
        act = network[join.layers[0]]
        before = replace(layer, name=join.tensor, inputs=join.pieces, outputs=(join.tensor,))
        layers += [
            before,
            replace(act, name=layer.name, inputs=(join.tensor,), outputs=layer.outputs, shape=layer.shape),
        ]
    return replace(network, layers=tuple(layers))


class _Joined(Wrapping):
    """A runner whose network has the activations behind their concatenations (see `parity.runner.Runner`)."""

    joins: tuple[_Join, ...] = ()
    """What is joined."""

    def __init__(self, inner: Runner) -> None:
        super().__init__(inner)
        self.joins = _joins(inner.network)

    def rewritten(self, network: Network) -> Network:
        """The graph with the activations behind the concatenations."""
        self.joins = _joins(network)
        return _rewritten(network, self.joins)

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
        """The whole model; the joined maps are among its tensors."""
        wanted = keep
        if keep is not None:
            wanted = keep | {piece for join in self.joins if join.tensor in keep for piece in join.pieces}
        seen = self.inner.run(
            inputs, labels, mode=mode, backward=backward, observe=observe, masks=masks, ties=ties,
            precision=precision, keep=wanted,
        )  # fmt: skip
        for join in self.joins:
            for tensors in (seen.outputs, seen.output_grads):
                self._join(join, tensors)
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
        """Only these layers, a joined map fed and taken in its pieces."""
        real: list[str] = []
        for name in layers:
            join = next((j for j in self.joins if name in (j.tensor, j.name)), None)
            real += [name] if join is None else list(join.layers) if name == join.name else []
        local = self.inner.isolate(
            real, self._parted(feeds), labels=labels, upstream=None if upstream is None else self._parted(upstream),
            mode=mode, masks=masks, params=params, ties=ties, precision=precision,
            wanted=None if wanted is None else self._in_pieces(wanted), outputs=outputs,
        )  # fmt: skip
        for join in self.joins:
            for tensors in (local.outputs, local.input_grads):
                self._join(join, tensors)
        return local

    def _join(self, join: _Join, tensors: dict[str, Array]) -> None:
        if all(piece in tensors for piece in join.pieces):
            tensors[join.tensor] = np.concatenate([tensors[piece] for piece in join.pieces], axis=-1)

    def _in_pieces(self, names: Collection[str]) -> set[str]:
        return {*names, *(piece for join in self.joins if join.tensor in names for piece in join.pieces)}

    def _parted(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        made = dict(tensors)
        for join in self.joins:
            if join.tensor in made:
                parts = np.split(made.pop(join.tensor), np.cumsum(join.widths)[:-1], axis=-1)
                made |= dict(zip(join.pieces, map(np.ascontiguousarray, parts), strict=True))
        return made
