"""The tensors of one pair that are compared, by the names that reports give them, on either side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from parity.align import Alignment, Pair
from parity.network import Shape
from parity.runner import Local, Pass
from parity.transfer import Link

__all__ = ["Named", "fitted", "named", "shaped"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Named:
    """What can be compared of one pair.

    Attributes:
        pair: whose tensors.
        wiring: Keras input tensor → the reference's tensor to put there.
        gradients: name of a parameter's gradient (`dkernel`; `dkernel2` for the second of several) → its link; only
            of those that can be compared.
        unlike: names of gradients of inputs that are sums of other terms on the two sides: more layers read that tensor
            on one side (each head has a Flatten of its own, say), so whole passes cannot be compared there.
    """

    pair: Pair
    wiring: Mapping[str, str]
    gradients: Mapping[str, Link]
    unlike: frozenset[str] = frozenset()

    @cached_property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """Name of an input's gradient (`dx`, `dx2` …) → the reference's tensor, then the Keras tensors that hold it."""
        made: dict[str, list[str]] = {}
        for tensor, source in self.wiring.items():
            made.setdefault(source, [source]).append(tensor)
        return {f"dx{n}" if n > 1 else "dx": tuple(tensors) for n, tensors in enumerate(made.values(), start=1)}

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, in the order of the phases."""
        return ("output", "loss", *self.sources, *self.gradients)

    def of(self, seen: Pass | Local, side: str, name: str) -> Array | None:
        """An output, a loss, or a parameter's gradient in the Keras layout; None where it was not seen.

        Gradients of inputs are not among them: a whole pass and an isolated run hold different ones.
        """
        if name == "output":
            return seen.outputs.get(self.pair.ref.output if side == "ref" else self.pair.keras.output)
        if name == "loss":
            unit = self.pair.ref if side == "ref" else self.pair.keras
            share = seen.losses.get(unit.layers[-1])
            return None if share is None else np.asarray([share])
        link = self.gradients.get(name)
        if link is None:
            return None
        if side == "keras":
            return seen.param_grads.get(link.keras)
        known = link.to_keras is not None and all(key in seen.param_grads for key in link.ref)
        return link.to_keras(seen.param_grads) if known and link.to_keras is not None else None


def named(alignment: Alignment, links: tuple[Link, ...]) -> dict[str, Named]:
    """Reference name → the tensors of each pair."""
    by_pair: dict[str, dict[str, Link]] = {pair.ref.name: {} for pair in alignment.pairs}
    for link in links:
        if not (link.linear and link.to_keras is not None and link.keras and link.ref):
            continue
        made = by_pair[link.pair.ref.name]
        name, count = f"d{link.role}", 1
        while name in made:
            count += 1
            name = f"d{link.role}{count}"
        made[name] = link
    found: dict[str, Named] = {}
    for pair in alignment.pairs:
        plain = Named(pair, alignment.feeds(pair)[0], by_pair[pair.ref.name])
        unlike = [n for n, (source, *others) in plain.sources.items() if not alignment.summed_alike(source, others[0])]
        found[pair.ref.name] = replace(plain, unlike=frozenset(unlike))
    return found


def shaped(value: Array, like: tuple[int, ...]) -> Array | None:
    """`value` with the shape `like` if it has as many elements and as many images; row-major, so a flat map fits."""
    if value.shape == like:
        return value
    if value.size == int(np.prod(like)) and (not value.ndim or not like or value.shape[0] == like[0]):
        return value.reshape(like)
    return None


def fitted(value: Array, shape: Shape | None) -> Array | None:
    """`value` in a declared shape (without batch axis; open extents are its own), or None if it does not fit.

    Where nothing is declared it stays as it is.
    """
    return value if shape is None else shaped(value, (value.shape[0], *_filled(shape, value)))


def _filled(shape: tuple[int | None, ...], value: Array) -> tuple[int, ...]:
    """A shape without batch axis whose open extents are taken from `value`'s."""
    if None not in shape:
        return tuple(int(d) for d in shape if d is not None)
    own = value.shape[1:]
    if len(own) == len(shape):
        return tuple(int(b if a is None else a) for a, b in zip(shape, own, strict=True))
    return own
