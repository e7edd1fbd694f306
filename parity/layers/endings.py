"""How a network ends: the softmax behind a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.layers.activation import Activation
from parity.layers.pool import Pool
from parity.layers.shape import Flatten, Identity, Reshape
from parity.layers.softmax import Softmax

if TYPE_CHECKING:
    from parity.network import Layer, Network, Shape

__all__ = ["softmax_behind"]


def softmax_behind(network: Network, tensor: str) -> tuple[Layer, ...]:
    """The softmax that made a prediction, and the layers that it passed through since; nothing where there is none.

    A map of one cell is often flattened, reshaped or pooled only after its softmax; pixels may be put in a row. Every
    value goes through, and the classes stay along the last axis.

    Args:
        network: either side's.
        tensor: the prediction.
    """
    passed: list[Layer] = []
    while (layer := network.producers.get(tensor)) is not None:
        passed.insert(0, layer)
        if isinstance(layer.kind, Softmax):
            return tuple(passed)
        if len(layer.inputs) != 1 or not _passes(layer, network.shape_of(layer.inputs[0])):
            break
        tensor = layer.inputs[0]
    return ()


def _passes(layer: Layer, given: Shape | None) -> bool:
    """Whether a layer hands on every value of a tensor of shape `given`, and the last axis stays the last."""
    kind, made = layer.kind, layer.shape
    if isinstance(kind, Activation):
        return kind.function == "linear"
    if isinstance(kind, Pool):
        cells = kind.size if kind.size is not None else (given or (None,))[:-1]
        return all(n == 1 for n in (*cells, *kind.stride)) and not any(kind.pad or ())
    if not isinstance(kind, Flatten | Reshape | Identity) or not given or not made:
        return False
    return given[-1] is not None and given[-1] == made[-1]
