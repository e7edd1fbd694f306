"""What each tensor of a network sees of an input, and how much memory it takes: what MatConvNet's displays print.

Sources: vl_simplenn_display.m for a chain; dagnn/DagNN.m, `getVarReceptiveFields`, for a graph, where the field of a
layer with several inputs is the union over its branches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from parity.layers.base import Reach
from parity.network import Layer, Network

__all__ = ["FLOAT", "activation_bytes", "parameter_bytes", "receptive_fields"]

FLOAT = 4
"""Bytes of a number in a running network: both frameworks compute in single precision."""


def receptive_fields(network: Network, source: str = "") -> dict[str, Reach]:
    """Tensor → its receptive field on one input; absent where it sees none of it, all of it, or nobody can say.

    Args:
        network: either framework's.
        source: a data input; empty for the first one.

    Raises:
        KeyError: the network has no such input.
    """
    names = network.data(network.inputs)
    if source and source not in names:
        raise KeyError(source)
    source = source or next(iter(names), "")
    shape = network.inputs.get(source) or ()
    rank = max(len(shape) - 1, 0)
    if not rank:
        return {}
    found = {source: Reach((1.0,) * rank, (1.0,) * rank, (1.0,) * rank)}
    blind = {source}  # tensors that depend on the source, whether or not their field is known
    for layer in network:
        read = [tensor for tensor in _seen(network, layer) if tensor in blind]
        if not read:
            continue
        blind.update(layer.outputs)
        own = layer.kind.reach()
        if own is None or any(tensor not in found for tensor in read):
            continue
        joined = _union([_behind(found[tensor], own) for tensor in read])
        if joined is not None:
            found.update(dict.fromkeys(layer.outputs, joined))
    return found


def _seen(network: Network, layer: Layer) -> list[str]:
    """The tensors whose values a layer passes on: a crop's second input only says how large."""
    data = network.data(layer.inputs)
    return data[:1] if getattr(layer.kind, "offset", None) is not None and layer.kind.name == "Crop" else data


def _behind(field: Reach, own: Reach) -> Reach:
    """The field of a layer that sees `own` of a tensor whose field is `field`."""
    rank = len(field.size)

    def spread(values: Sequence[float]) -> Sequence[float]:
        return tuple(values) * rank if len(values) == 1 or len(set(values)) == 1 else values

    size, stride, offset = spread(own.size), spread(own.stride), spread(own.offset)
    return Reach(
        tuple((size[a] - 1) * field.stride[a] + field.size[a] for a in range(rank)),
        tuple(stride[a] * field.stride[a] for a in range(rank)),
        tuple((offset[a] - 1) * field.stride[a] + field.offset[a] for a in range(rank)),
    )


def _union(fields: Sequence[Reach]) -> Reach | None:
    """The smallest field that covers all; None where branches come with different strides."""
    first = fields[0]
    if len(fields) == 1:
        return first
    if any(not all(map(math.isclose, field.stride, first.stride)) for field in fields):
        return None
    starts = [[o - (s - 1) / 2 for s, o in zip(f.size, f.offset, strict=True)] for f in fields]
    ends = [[o + (s - 1) / 2 for s, o in zip(f.size, f.offset, strict=True)] for f in fields]
    low, high = [min(axis) for axis in zip(*starts, strict=True)], [max(axis) for axis in zip(*ends, strict=True)]
    pairs = list(zip(low, high, strict=True))
    return Reach(tuple(b - a + 1 for a, b in pairs), first.stride, tuple((a + b) / 2 for a, b in pairs))


def parameter_bytes(network: Network, layer: Layer) -> int:
    """Bytes of a layer's parameters in single precision."""
    held = (network.params[id_] for id_ in layer.params.values() if id_ in network.params)
    return sum(FLOAT * math.prod(param.shape) for param in held)


def activation_bytes(layer: Layer) -> int | None:
    """Bytes of a layer's output for one image, in single precision; None where its shape is open."""
    if layer.shape is None or any(extent is None for extent in layer.shape):
        return None
    return FLOAT * math.prod(int(extent or 0) for extent in layer.shape)
