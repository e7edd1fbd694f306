"""The gradient of an input that several layers read: in a recorded run its tensor holds what all of them add.

Where the other side reads the same values as another tensor (behind a Flatten of each head, say), that one holds what
fewer layers add, and the two are no more alike than a sum is like its terms. What each layer adds was recorded too.
"""

from __future__ import annotations

from parity.align import Alignment, Pair, Unit
from parity.layers import Loss
from parity.network import Network
from parity.traces.format import escaped
from parity.traces.held import Held
from parity.traces.reader import Trace

__all__ = ["alike", "share"]


def alike(alignment: Alignment, source: str, other: str) -> bool:
    """Whether as many units add to the gradient of a tensor of the reference as to that of a Keras tensor."""
    mine = _readers(alignment.ref, alignment.ref_units, source)
    return mine == _readers(alignment.keras, alignment.keras_units, other)


def share(trace: Trace, pair: Pair, alignment: Alignment, side: str, tensor: str) -> Held | None:
    """What a pair's unit alone adds to a tensor's gradient; None where that was not recorded.

    Args:
        trace: of the side.
        pair: whose unit reads the tensor.
        alignment: of the two networks.
        side: `"ref"` or `"keras"`.
        tensor: an input of the unit.
    """
    network, units, unit = (
        (alignment.ref, alignment.ref_units, pair.ref)
        if side == "ref"
        else (alignment.keras, alignment.keras_units, pair.keras)
    )
    if _readers(network, units, tensor) == 1:
        return trace.held("step1/output_grads", tensor)
    inside = [layer.name for layer in network.consumers.get(tensor, ()) if layer.name in unit.layers]
    return trace.held(f"isolated/{escaped(inside[0])}/input_grads", tensor) if len(inside) == 1 else None


def _readers(network: Network, units: tuple[Unit, ...], tensor: str) -> int:
    """How many units add to a tensor's gradient; what is a metric adds nothing."""
    losses = {layer.name for layer in network.losses}
    count = 0
    for unit in units:
        metric = isinstance(unit.kind, Loss) and losses.isdisjoint(unit.layers)
        count += tensor in unit.inputs and not metric
    return count
