"""Which Keras layer a change is carried out on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parity.case import Comparison
from parity.changes import Change
from parity.layers import Conv, ConvTranspose, Opaque, SeparableConv
from parity.network import Layer
from parity.transfer import Link
from parity.units import Unit

__all__ = ["core", "everywhere", "keeper", "own_role", "path"]


def path(run: Comparison, unit: Unit) -> str:
    """The Keras path of the layer that does a unit's work; `"conv:activation"` for one that is fused into another."""
    layer = core(run, unit)
    origin = layer.origin or layer.name
    fused = layer.name.endswith(":activation") and not origin.endswith(":activation")
    return f"{origin}:activation" if fused else origin


def core(run: Comparison, unit: Unit) -> Layer:
    """The layer of a Keras unit that is of the unit's own kind, else its last; of a separable one in two the first."""
    layers = [run.keras.network[name] for name in unit.layers]
    if isinstance(unit.kind, Opaque):
        return layers[-1]  # a formula's parts are no layer of its kind
    found = next((layer for layer in layers if type(layer.kind) is type(unit.kind)), None)
    if found is None and isinstance(unit.kind, SeparableConv):
        found = next((layer for layer in layers if isinstance(layer.kind, Conv)), None)
    return layers[-1] if found is None else found


def keeper(run: Comparison, link: Link) -> str:
    """The Keras path of the layer that holds a parameter: one unit may have several, each with a part of it."""
    layers = [run.keras.network[name] for name in link.pair.keras.layers]
    own = next((layer for layer in layers if link.keras in layer.params.values()), None)
    return path(run, link.pair.keras) if own is None else (own.origin or own.name)


def own_role(run: Comparison, link: Link) -> str:
    """The role that a parameter has in its own Keras layer, of which its unit may have several."""
    return run.keras.network.params[link.keras].role if len(link.pair.keras.layers) > 1 else link.role


def everywhere(run: Comparison, unit: Unit, changes: Sequence[Change]) -> tuple[Change, ...]:
    """Changes of the arguments of a convolution, in each of the layers that it is written out in for its groups."""
    if not isinstance(unit.kind, Conv | ConvTranspose) or isinstance(unit.kind, SeparableConv):
        return tuple(changes)
    layers = [run.keras.network[name] for name in unit.layers]
    alike = dict.fromkeys(layer.origin or layer.name for layer in layers if type(layer.kind) is type(unit.kind))
    own = path(run, unit)
    made: list[Change] = []
    for change in changes:
        several = change.action == "argument" and change.layer == own
        made += [replace(change, layer=name) for name in alike] if several else [change]
    return tuple(made)
