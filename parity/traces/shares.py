"""The gradient of an input that several layers read: in a recorded run its tensor holds what all of them add.

Where the other side reads the same values as another tensor (behind a Flatten of each head, say), that one holds what
fewer layers add, and the two are no more alike than a sum is like its terms. What each layer adds was recorded too.
"""

from __future__ import annotations

from parity.align import Alignment, Pair, readers
from parity.traces.format import escaped
from parity.traces.held import Held
from parity.traces.reader import Trace

__all__ = ["share"]


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
    if len(readers(network, units, tensor)) == 1:
        return trace.held("step1/output_grads", tensor)
    inside = [layer.name for layer in network.consumers.get(tensor, ()) if layer.name in unit.layers]
    return trace.held(f"isolated/{escaped(inside[0])}/input_grads", tensor) if len(inside) == 1 else None
