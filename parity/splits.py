"""Separable convolutions that one side has in one layer, and the other in two with something between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from parity.align import Alignment
from parity.layers import SeparableConv
from parity.separating import depthwise_behind
from parity.units import Unit

__all__ = ["Split", "splits"]


@dataclass(frozen=True, eq=False)
class Split:
    """One of them; none of its units has a partner, for no tensor of one side is one of the other but what it makes.

    Attributes:
        one: the separable convolution.
        deep, wide: the depthwise and the pointwise convolution of the other side.
        between: what stands between the two and changes values.
        in_keras: whether the one layer is Keras'.
    """

    one: Unit
    deep: Unit
    wide: Unit
    between: tuple[Unit, ...]
    in_keras: bool

    @property
    def parts(self) -> tuple[Unit, ...]:
        """The two convolutions with all that is between them, in order."""
        return (self.deep, *self.between, self.wide)


def splits(alignment: Alignment) -> tuple[Split, ...]:
    """Those whose two forms read the same and make as many channels, each unit in one of them."""
    found: list[Split] = []
    for in_keras in (True, False):
        ones = alignment.keras_only if in_keras else alignment.ref_only
        parted = [*_parted(alignment, in_keras=not in_keras)]
        for one in ones:
            if not isinstance(one.kind, SeparableConv):
                continue
            units = next((units for units in parted if _are(alignment, one, units, in_keras=in_keras)), None)
            if units is not None:
                parted.remove(units)
                between = tuple(unit for unit in units[1:-1] if not unit.optional)
                found.append(Split(one, units[0], units[-1], between, in_keras))
    return tuple(found)


def _parted(alignment: Alignment, *, in_keras: bool) -> Iterator[tuple[Unit, ...]]:
    """A side's pairs of convolutions without partners, with what is between them; nothing of it stands elsewhere."""
    network = alignment.keras if in_keras else alignment.ref
    makers = alignment.keras_makers if in_keras else alignment.ref_makers
    lonely = alignment.keras_only if in_keras else alignment.ref_only
    elsewhere = [pair[in_keras] for pair in alignment.moved]
    for wide in lonely:
        layers = depthwise_behind(network, network[wide.layers[-1]])
        units = [makers[layer.output] for layer in layers if layer.output in makers]
        if not layers or len(units) < len(layers):
            continue
        alone = all(any(unit is other for other in lonely) or unit.optional for unit in units)
        stays = not any(unit is other for unit in (*units, wide) for other in elsewhere)
        if alone and stays and not all(unit.optional for unit in units[1:]):
            yield (*units, wide)


def _are(alignment: Alignment, one: Unit, units: Sequence[Unit], *, in_keras: bool) -> bool:
    """Whether a separable convolution stands where the other side has these units, and makes as many channels."""
    theirs, mine = (one, units[0]) if in_keras else (units[0], one)
    alike = alignment.counterpart(theirs.inputs[0]) == alignment.source(mine.inputs[0], "ref")
    if not alike or one.shape is None or units[-1].shape is None:
        return False
    return one.shape[-1:] == units[-1].shape[-1:]
