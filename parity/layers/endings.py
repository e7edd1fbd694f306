"""How a network ends: the softmax behind a prediction, and what stands in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.layers.activation import Activation
from parity.layers.loss import Loss
from parity.layers.pool import Pool
from parity.layers.shape import Flatten, Identity, Reshape
from parity.layers.softmax import Softmax

if TYPE_CHECKING:
    from parity.network import Layer, Network, Shape

__all__ = ["activation_behind", "apart_on_both", "is_softmax_loss", "looked_through", "softmax_behind"]

_LOOKING = (
    "log", "binary_crossentropy", "binary_focal_crossentropy", "categorical_focal_crossentropy",
)  # fmt: skip
"""The losses that take the logits behind an activation, where Keras on tensorflow finds them."""


def softmax_behind(network: Network, tensor: str) -> tuple[Layer, ...]:
    """The softmax that made a prediction, and the layers that it passed through since; nothing where there is none.

    A map of one cell is often flattened, reshaped or pooled only after its softmax; pixels may be put in a row. Every
    value goes through, and the classes stay along the last axis.

    Args:
        network: either side's.
        tensor: the prediction.
    """
    passed = activation_behind(network, tensor)
    return passed if passed and isinstance(passed[0].kind, Softmax) else ()


def is_softmax_loss(network: Network, layer: Layer) -> bool:
    """Whether a loss is the cross-entropy of a softmax: of one inside it, or of one that made its prediction."""
    function = layer.kind.function if isinstance(layer.kind, Loss) else ""
    return function == "softmaxlog" or (
        function == "log" and bool(softmax_behind(network, _prediction(network, layer)))
    )


def apart_on_both(ref: Network, keras: Network) -> tuple[frozenset[str], frozenset[str]]:
    """The losses of each side whose softmax is compared as a layer of its own, by name.

    Softmax and cross-entropy are one loss. But where the other side has another activation in front of a loss that
    applies no softmax (sigmoid and cross-entropy), that is the softmax's partner. Losses are partners by their order.
    """
    mine, theirs = ref.losses, keras.losses
    found: tuple[set[str], set[str]] = (set(), set())
    for pair in zip(mine, theirs, strict=False) if len(mine) == len(theirs) else ():
        ends = [
            activation_behind(network, _prediction(network, loss))
            for network, loss in zip((ref, keras), pair, strict=True)
        ]
        softmax = [bool(end) and isinstance(end[0].kind, Softmax) for end in ends]
        inside = [isinstance(loss.kind, Loss) and loss.kind.function == "softmaxlog" for loss in pair]
        for side, other in ((0, 1), (1, 0)):
            if softmax[side] and not inside[side] and ends[other] and not softmax[other] and not inside[other]:
                found[side].add(pair[side].name)
    return frozenset(found[0]), frozenset(found[1])


def looked_through(ref: Network, keras: Network) -> tuple[frozenset[str], frozenset[str]]:
    """The losses of each side that are one with the activation in front of them, by name.

    Keras' cross-entropies take the logits behind a softmax or a sigmoid, whichever it is: a binary one behind a softmax
    is not what it would be of the probabilities (keras/src/backend/tensorflow/nn.py, `_get_logits`). So neither can be
    told from the other's output alone, and where both sides are Kerases that end with the same activation, it and the
    loss are compared as one. Losses are partners by their order.
    """
    pairs = zip(ref.losses, keras.losses, strict=False) if len(ref.losses) == len(keras.losses) else ()
    found: tuple[set[str], set[str]] = (set(), set())
    for mine, theirs in pairs if ref.framework == keras.framework == "keras" else ():
        ends = [activation_behind(net, _prediction(net, loss)) for net, loss in ((ref, mine), (keras, theirs))]
        looks = [isinstance(loss.kind, Loss) and loss.kind.function in _LOOKING for loss in (mine, theirs)]
        if all(ends) and all(looks) and ends[0][0].kind == ends[1][0].kind and _holds_logits(ends[0][0]):
            found[0].add(mine.name)
            found[1].add(theirs.name)
    return frozenset(found[0]), frozenset(found[1])


def _holds_logits(layer: Layer) -> bool:
    """Whether Keras finds the logits behind this activation."""
    return isinstance(layer.kind, Softmax) or (isinstance(layer.kind, Activation) and layer.kind.function == "sigmoid")


def _prediction(network: Network, loss: Layer) -> str:
    return next(iter(network.data(loss.inputs)), "")


def activation_behind(network: Network, tensor: str) -> tuple[Layer, ...]:
    """The activation that made a prediction, and the layers that it passed through since; nothing if there is none.

    Args:
        network: either side's.
        tensor: the prediction.
    """
    passed: list[Layer] = []
    while (layer := network.producers.get(tensor)) is not None:
        passed.insert(0, layer)
        if isinstance(layer.kind, Softmax) or (isinstance(layer.kind, Activation) and layer.kind.function != "linear"):
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
