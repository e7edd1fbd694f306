"""Sub-batches: parts of a batch that MatConvNet's trainers run one after the other before an update."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from parity.runner import Local, Pass, Targets

__all__ = ["Piece", "joined", "pieces"]

Seen = TypeVar("Seen", Pass, Local)


@dataclass(frozen=True)
class Piece:
    """One sub-batch.

    Attributes:
        images: which images of the batch.
        factor: of its loss and of its moments in what enters the update.
    """

    images: slice
    factor: float

    def of(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """These arrays, for its images only; numbers stay."""
        return {name: array[self.images] if np.ndim(array) else array for name, array in arrays.items()}

    def targets(self, targets: Targets | None) -> Targets | None:
        """Its labels and their weights."""
        return None if targets is None else Targets(self.of(targets.values), self.of(targets.weights))


def pieces(images: int, count: int, version: str) -> list[Piece]:
    """The sub-batches of a batch, without the empty ones.

    Sub-batch s takes every `count`-th image from s on (cnn_train.m, `processEpoch`). Since 2018 each one's mean counts
    1/count, whatever its size; up to beta25 sums are added and divided by the batch, so that each image counts alike.

    Args:
        images: in the batch.
        count: numSubBatches.
        version: `"head"` or `"beta25"`.
    """
    if count <= 1:
        return [Piece(slice(None), 1.0)]
    sizes = [len(range(start, images, count)) for start in range(count)]
    factors = [size / images if version == "beta25" else 1 / count for size in sizes]
    return [Piece(slice(start, None, count), factors[start]) for start in range(count) if sizes[start]]


def joined(parts: Sequence[Seen], of: Sequence[Piece], images: int, epsilons: Mapping[str, float]) -> Seen:
    """One pass made of those of the sub-batches: tensors put together, gradients and losses added up.

    Batch moments, the mean and the deviation including epsilon, are averaged as MatConvNet accumulates them.

    Args:
        parts: what each sub-batch showed, its losses and gradients times its factor.
        of: the sub-batches.
        images: in the batch.
        epsilons: layer → epsilon of its deviation.
    """
    if len(parts) == 1:
        return parts[0]
    made = type(parts[0])()
    factors = [piece.factor for piece in of]
    made.outputs = _together([p.outputs for p in parts], of, images, factors)
    if isinstance(made, Pass):
        passes = [p for p in parts if isinstance(p, Pass)]
        made.output_grads = _together([p.output_grads for p in passes], of, images)
        made.masks = _together([p.masks for p in passes], of, images)
    else:
        made.input_grads = _together([p.input_grads for p in parts if isinstance(p, Local)], of, images)
    made.param_grads = {id_: _total([p.param_grads[id_] for p in parts]) for id_ in parts[0].param_grads}
    made.statistics = {
        layer: _moments([p.statistics[layer] for p in parts], factors, epsilons.get(layer, 0.0))
        for layer in parts[0].statistics
    }
    made.losses = {name: sum(p.losses[name] for p in parts) for name in parts[0].losses}
    made.loss = sum(made.losses.values()) if made.losses else None
    return made


def _together(
    parts: Sequence[Mapping[str, np.ndarray]], of: Sequence[Piece], images: int, factors: Sequence[float] = ()
) -> dict[str, np.ndarray]:
    """Arrays with their images back in their places; numbers are added up, times `factors`."""
    made: dict[str, np.ndarray] = {}
    for name, first in parts[0].items():
        arrays = [part[name] for part in parts]
        if not np.ndim(first):
            made[name] = _total([a * f for a, f in zip(arrays, factors or [1.0] * len(arrays), strict=True)])
            continue
        whole = made[name] = np.empty((images, *first.shape[1:]), first.dtype)
        for piece, array in zip(of, arrays, strict=True):
            whole[piece.images] = array
    return made


def _total(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return functools.reduce(np.add, arrays)


def _moments(
    parts: Sequence[Mapping[str, np.ndarray]], factors: Sequence[float], epsilon: float
) -> dict[str, np.ndarray]:
    mean = _total([part["mean"] * np.asarray(f, part["mean"].dtype) for part, f in zip(parts, factors, strict=True)])
    deviation = _total([np.sqrt(part["variance"] + epsilon) * f for part, f in zip(parts, factors, strict=True)])
    return {"mean": mean, "variance": (deviation**2 - epsilon).astype(mean.dtype)}
