"""The arrays that a file holds, and how they are laid out anew without reading them first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Stored", "flipped", "joined", "permuted", "relaid", "reshaped"]


@dataclass(frozen=True)
class Stored:
    """One stored array, as it is given to a model.

    Attributes:
        name: its name in the file.
        shape: its shape, laid out as the model has it.
        place: where it lies: a path inside the HDF5 file, a key of the checkpoint.
        parts: the arrays that it is made of; empty for one that is given as it lies.
        change: makes the array of its parts.
    """

    name: str
    shape: tuple[int, ...]
    place: str
    parts: tuple[Stored, ...] = ()
    change: Callable[[Sequence[np.ndarray]], np.ndarray] | None = None

    def value(self, read: Callable[[str], np.ndarray]) -> np.ndarray:
        """The array, with `read` fetching what lies at a place."""
        if self.change is None:
            return read(self.place)
        return self.change([part.value(read) for part in self.parts])


def _changed(stored: Stored, shape: Sequence[int], change: Callable[[np.ndarray], np.ndarray]) -> Stored:
    return replace(stored, shape=tuple(shape), parts=(stored,), change=lambda arrays: change(arrays[0]))


def relaid(stored: Stored, axes: str) -> Stored:
    """With its axes in another order, as words: `"o i h w -> h w i o"`. Raises ValueError for another rank."""
    old, new = (side.split() for side in axes.split("->"))
    if len(old) != len(stored.shape):
        raise ValueError(f"has a {stored.name} of {len(stored.shape)} axes, not {len(old)}")
    order = [old.index(word) for word in new]
    return _changed(stored, [stored.shape[i] for i in order], lambda array: array.transpose(order))


def flipped(stored: Stored, count: int) -> Stored:
    """With its first `count` axes reversed: a true convolution's kernel as a cross-correlation's."""
    index = (slice(None, None, -1),) * count
    return _changed(stored, stored.shape, lambda array: array[index])


def permuted(stored: Stored, order: Sequence[int]) -> Stored:
    """With the entries of its first axis in this order. Raises ValueError for another extent."""
    if not stored.shape or stored.shape[0] != len(order):
        raise ValueError(f"has a {stored.name} of shape {stored.shape} behind {len(order)} flattened values")
    index = np.asarray(order)
    return _changed(stored, stored.shape, lambda array: array[index])


def reshaped(stored: Stored, shape: Sequence[int]) -> Stored:
    """With another shape of as many values; raises ValueError where they are not."""
    if math.prod(shape) != math.prod(stored.shape):
        raise ValueError(f"has a {stored.name} of shape {stored.shape}, not {tuple(shape)}")
    return _changed(stored, shape, lambda array: array.reshape(shape))


def joined(name: str, parts: Sequence[Stored]) -> Stored:
    """Several side by side along their last axis; raises ValueError where they do not fit."""
    first = parts[0].shape
    if not first or any(part.shape[:-1] != first[:-1] for part in parts):
        raise ValueError(f"has gates of different shapes ({', '.join(str(p.shape) for p in parts)})")
    shape = (*first[:-1], sum(part.shape[-1] for part in parts))
    return Stored(name, shape, parts[0].place, tuple(parts), lambda arrays: np.concatenate(arrays, axis=-1))
