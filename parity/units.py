"""A network as a graph of *units*: what one side does in one layer and the other in several, read as one operation.

Zero padding and a valid convolution are one convolution, a transposed one and a cropping behind it likewise; slices,
convolutions and a concatenation are a grouped one; filters and a bias added behind them are one layer; softmax and
cross-entropy are one loss; a dense layer is the convolution that covers its map; a depthwise convolution of one cell is
a multiplier for each channel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from parity.grouping import Grouping
from parity.layers import (
    Activation,
    Concat,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    Dropout,
    Flatten,
    Identity,
    Kind,
    Loss,
    Merge,
    Opaque,
    Pad,
    Pool,
    Rescale,
    Reshape,
    Scale,
    SeparableConv,
    Softmax,
)
from parity.network import Layer, Network, Shape

__all__ = ["Unit", "family", "same_shape", "units"]


@dataclass(frozen=True, eq=False)
class Unit:
    """One or a few layers of one network that are compared as one operation.

    Attributes:
        name: of the layer that it is known by.
        kind: what the layers do together.
        layers: names, in an order in which they run.
        inputs: the tensors it reads from outside, in order.
        output: the tensor it makes for others.
        shape: of that tensor, without batch axis.
        fed: shape of its first input, without batch axis.
        params: role → ids, in order (several where it joins parallel layers).
        optional: True where it may stay without a partner: it changes no value in this mode.
        origin: the framework's name of the layer, for the report.
        weight: of a loss: how often it counts in the objective.
        settings: of its only layer, in the framework's own words (`Layer.settings`); of a separable convolution in two
            layers those of the first.
        rows: of a dense layer behind a map that is turned and then flattened: the map's axes in the order in which the
            rows of its kernel go through them; empty where that is h, w, c.
    """

    name: str
    kind: Kind
    layers: tuple[str, ...]
    inputs: tuple[str, ...]
    output: str
    shape: Shape | None
    params: Mapping[str, tuple[str, ...]]
    fed: Shape | None = None
    optional: bool = False
    origin: str = ""
    weight: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[int, ...] = ()

    @cached_property
    def core(self) -> str:
        """What family of operations it belongs to: only units of one family are paired."""
        return family(self.kind)

    @property
    def between(self) -> bool:
        """Whether it stands for operations between the layers of a model in code: what they read is not known."""
        return isinstance(self.kind, Opaque) and not self.inputs

    @property
    def unseen(self) -> bool:
        """Whether it runs code that is not in the file, so that nobody knows which of the file's arrays it reads."""
        return isinstance(self.kind, Opaque) and self.kind.runs_code and not self.params


def units(
    network: Network,
    mode: str,
    *,
    join_loss: bool = True,
    with_loss: bool = True,
    with_softmax: bool = False,
    apart: Collection[str] = (),
    through: Collection[str] = (),
    separable: Collection[str] = (),
) -> tuple[Unit, ...]:
    """The network as units, in topological order.

    Args:
        network: either side's.
        mode: `"train"` or `"eval"`, which decides what changes nothing.
        join_loss: whether softmax followed by a logarithmic loss is one unit (both sides have a loss).
        with_loss: False leaves losses out (only one side has one).
        with_softmax: whether a softmax belongs to any loss behind it (the other side's losses hold theirs).
        apart: losses that are not joined with their softmax, and crops that are not joined with their transposed
            convolution: these have partners of their own.
        through: losses that are joined with whatever activation stands in front of them (see `looked_through`).
        separable: convolutions that are one with the depthwise one before them (see `in_one_on_the_other`).
    """
    grouped = Grouping(
        network, mode, join_loss=join_loss, with_softmax=with_softmax, apart=apart, through=through, separable=separable
    )
    made: list[Unit] = []
    for layer in network:
        if layer.name in grouped.absorbed:
            continue
        if isinstance(layer.kind, Loss) and not (with_loss and layer in network.losses):
            continue  # what is counted and not differentiated, such as a top-1 error, is the recipe's metric
        made.append(_unit(network, grouped, layer, mode))
    return tuple(made)


def _unit(network: Network, grouped: Grouping, layer: Layer, mode: str) -> Unit:
    members = grouped.members.get(layer.name, (layer.name,))
    kind = grouped.kinds.get(layer.name, layer.kind)
    inside = {t for m in members for t in network[m].outputs}
    inputs = tuple(dict.fromkeys(t for m in members for t in network[m].inputs if t not in inside))
    if isinstance(layer.kind, Merge | Concat) and len(members) == 1:
        inputs = layer.inputs
    if isinstance(network[members[-1]].kind, Crop):
        inputs = inputs[:1]  # a second one says how large the map is to be, and no value of it counts
    params: dict[str, tuple[str, ...]] = {}
    for member in members:
        for role, key in network[member].params.items():
            role = _role(role, network[member].kind, kind)
            params[role] = (*params.get(role, ()), key)
    known_by = layer
    if isinstance(layer.kind, Concat | Crop | Opaque) and len(members) > 1:
        filters = (network[m] for m in members if isinstance(network[m].kind, Conv | ConvTranspose | Dense))
        known_by = next(filters, layer)
    rows = next((grouped.rows[member] for member in members if member in grouped.rows), ())
    if isinstance(kind, Dense):
        kind = _covering(network, known_by, kind, network.shape_of(inputs[0]) if rows else None)
    elif isinstance(kind, Pool) and kind.size is None:
        kind = _whole_map(network, inputs[0], kind)
    elif isinstance(kind, Crop) and kind.crop is not None:
        kind = replace(kind, offset=None)
    elif isinstance(kind, Scale) and len(inputs) == 2 and not kind.bias and not params:
        kind = Merge("multiply")
    elif isinstance(kind, Conv) and _per_channel(network, inputs[0], kind, params):
        kind = Scale(kind.bias)
        params = {{"kernel": "gamma", "bias": "beta"}.get(role, role): keys for role, keys in params.items()}
    return Unit(
        name=known_by.name,
        kind=kind,
        layers=members,
        inputs=inputs,
        output=layer.output,
        shape=layer.shape,
        params=params,
        fed=network.shape_of(inputs[0]) if inputs else None,
        optional=_changes_nothing(kind, mode, layer),
        origin=known_by.origin or known_by.name,
        weight=network.weight(layer),
        settings=_settings(network, layer, members, kind),
        rows=rows,
    )


def _settings(network: Network, layer: Layer, members: Sequence[str], kind: Kind) -> Mapping[str, Any]:
    """In the framework's words what its only layer says, or of a separable convolution the one with the window."""
    if len(members) == 1:
        return layer.settings
    deep = (network[member] for member in members if isinstance(network[member].kind, Conv))
    return next((one.settings for one in deep), {}) if isinstance(kind, SeparableConv) else {}


def _role(role: str, own: Kind, kind: Kind) -> str:
    """The role that a layer's parameter has in a unit: which of the two convolutions it belongs to where it has two."""
    if not isinstance(kind, SeparableConv) or not isinstance(own, Conv) or isinstance(own, SeparableConv):
        return role
    if own.groups > 1:
        return f"depthwise_{role}"
    return "pointwise_kernel" if role == "kernel" else role


def _per_channel(network: Network, tensor: str, kind: Conv, params: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a convolution multiplies each channel by a number of its own: one cell, one group per channel."""
    shape = network.shape_of(tensor)
    one = all(n == 1 for n in (*kind.size, *kind.stride)) and not any(kind.pad or ())
    return bool(one and "kernel" in params and shape and kind.groups == kind.filters == shape[-1] and kind.groups > 1)


def _covering(network: Network, layer: Layer, kind: Dense, turned: Shape | None) -> Conv:
    """A dense layer as the convolution it is: 1×1, or covering the map that was (turned and) flattened just before."""
    tensor, size = layer.inputs[0], (1, 1)
    if turned is not None:
        return Conv(filters=kind.units, size=tuple(int(d or 1) for d in turned[:2]), bias=kind.bias)
    while True:
        maker = network.producers.get(tensor)
        if maker is None or not (isinstance(maker.kind, Flatten | Reshape | Dropout | Identity)):
            break
        shape = network.shape_of(maker.inputs[0])
        if isinstance(maker.kind, Flatten) and shape is not None and len(shape) == 3:
            size = tuple(int(d or 1) for d in shape[:2])
            break
        tensor = maker.inputs[0]
    return Conv(filters=kind.units, size=size, bias=kind.bias)


def _whole_map(network: Network, tensor: str, kind: Pool) -> Pool:
    shape = network.shape_of(tensor)
    if shape is None or len(shape) < 2 or any(d is None for d in shape[:-1]):
        return kind
    size = tuple(int(d or 1) for d in shape[:-1])
    return replace(kind, size=size, stride=(1,) * len(size), pad=(0,) * (2 * len(size)), squeeze=False)


def _changes_nothing(kind: Kind, mode: str, layer: Layer) -> bool:
    if isinstance(kind, Flatten | Reshape | Identity):
        return True
    if isinstance(kind, Dropout):
        return mode == "eval" or kind.rate == 0
    if isinstance(kind, Activation):
        return kind.function == "linear"
    if isinstance(kind, Rescale):
        return kind.scale == 1 and kind.offset == 0
    if isinstance(kind, Pad):
        return not any(kind.pad)
    if isinstance(kind, Pool):
        return kind.size is not None and all(s == 1 for s in (*kind.size, *kind.stride)) and not any(kind.pad or ())
    return mode == "eval" and any(r.startswith("random") for r in layer.remarks)


def family(kind: Kind) -> str:
    """What a kind is aligned as: a dense layer is a convolution, softmax an activation, a distance to labels a loss."""
    if isinstance(kind, Conv | Dense) and not isinstance(kind, SeparableConv):
        return "Conv"
    if isinstance(kind, Activation | Softmax):
        return "Activation"
    if isinstance(kind, Flatten | Reshape | Identity):
        return "Layout"
    if isinstance(kind, Scale | Rescale):
        return "Scale"
    return "Loss" if isinstance(kind, Loss) else kind.name


def same_shape(a: Shape | None, b: Shape | None) -> bool:
    """Whether two shapes (without batch axis) hold the same values in the same order: extents of one do not count.

    A flat shape equals any that has as many elements: flattening is row-major on every side.
    """
    if a is None or b is None:
        return False
    left, right = [d for d in a if d != 1], [d for d in b if d != 1]
    if left == right:
        return True
    if None in left or None in right:
        return len(left) == len(right) and all(
            x is None or y is None or x == y for x, y in zip(left, right, strict=True)
        )
    if len(a) == 1 or len(b) == 1:
        return math.prod(d for d in left if d) == math.prod(d for d in right if d)
    return False
