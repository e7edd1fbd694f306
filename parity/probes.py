"""Generated batches: inputs and targets on which faults show that real images would hide."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from parity.batch import Batch
from parity.feeds import CATEGORICAL
from parity.layers import Kind, Loss
from parity.network import Network, Shape

__all__ = ["images", "open_extents", "probe_inputs", "targets", "with_targets"]

_SEQUENCE = 12
"""Steps of a sequence where the files leave its length open."""


def probe_inputs(
    network: Network | None,
    shapes: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
    vocabularies: Mapping[str, int] | None = None,
) -> Batch:
    """Generated inputs.

    Args:
        network: whose inputs the arrays are named after; None where it is not known yet.
        shapes: input → its shape without batch axis.
        rng: the generator.
        vocabularies: input → how many tokens it tells apart, where the network is not known yet.
    """
    n = count(shapes.values())
    arrays: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        limit = _vocabulary(network, name) if network is not None else (vocabularies or {}).get(name)
        made = images(shape, n, rng) if limit is None else tokens(shape, limit, n, rng)
        arrays["x" if len(shapes) == 1 else f"x_{name}"] = made
    return Batch(arrays, "a probe batch", counted_from_zero=True)


def with_targets(
    batch: Batch, network: Network, rng: np.random.Generator, partners: Mapping[str, Kind] | None = None
) -> Batch:
    """The batch with generated targets for every loss of a network.

    Args:
        batch: the batch.
        network: whose losses.
        rng: the generator.
        partners: loss → the other side's loss. One that takes classes decides: every loss takes those.
    """
    labelled = {network.label_of(layer): layer for layer in network if network.label_of(layer)}
    made: dict[str, np.ndarray] = {}
    for label, layer in labelled.items():
        name = "y" if len(labelled) == 1 else f"y_{label.split(':', 1)[-1]}"
        partner = (partners or {}).get(layer.name)
        kind = partner if isinstance(partner, Loss) and partner.function in CATEGORICAL else layer.kind
        made[name] = targets(kind, network.shape_of(layer.inputs[0]), len(batch), rng)
    return replace(batch, arrays={**batch.arrays, **made})


def count(shapes: Iterable[tuple[int, ...]]) -> int:
    """Images of a generated batch: 16, and 8 where an image has more than 16 384 values."""
    return 16 if all(math.prod(shape) <= 16_384 for shape in shapes) else 8


def open_extents(shape: Shape | None) -> tuple[int, ...] | None:
    """A shape in which the open length of a sequence is filled in; None where another extent is open."""
    if shape is None:
        return None
    if len(shape) in (1, 2) and shape[0] is None and None not in shape[1:]:
        shape = (_SEQUENCE, *shape[1:])
    return None if None in shape else tuple(int(d) for d in shape if d is not None)


def _vocabulary(network: Network, name: str) -> int | None:
    """How many tokens an input tells apart, where an embedding reads it; None for numbers."""
    for layer in network.consumers.get(name, ()):
        config = getattr(layer.kind, "config", {})
        if layer.source_type == "Embedding" and isinstance(config.get("input_dim"), int):
            return int(config["input_dim"])
    return None


def tokens(shape: tuple[int, ...], limit: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Ids below `limit`, (n, *shape), as float32 like every input."""
    return rng.integers(0, max(limit, 1), (n, *shape)).astype(np.float32)


def targets(kind: Kind, prediction: Shape | None, n: int, rng: np.random.Generator) -> np.ndarray:
    """What a loss may be held against: class ids (n,), attributes of 0 and 1, or values in the prediction's shape."""
    shape = open_extents(prediction)
    classes = shape[-1] if shape else 1
    function = kind.function if isinstance(kind, Loss) else ""
    if function in CATEGORICAL or shape is None or not function:
        return _ids(max(classes, 2), n, rng)
    if function == "circle":
        return _ids(max(n // 4, 2), n, rng)
    if function == "ctc":  # as many steps as leave room for the blanks between equal neighbours
        return rng.integers(1, max(classes, 2), (n, max(shape[0] // 4, 1)))
    if function in ("hinge", "logistic", "binarylog", "binaryerror", "squared_hinge", "binary_crossentropy"):
        flat = math.prod(shape) == 1
        return _ids(2, n, rng) if flat else rng.integers(0, 2, (n, *shape))
    if function in ("pdist", "distance") or math.prod(shape[:-1]) > 1:
        return images(shape, n, rng)
    return _ids(max(classes, 2), n, rng)


def _ids(told: int, n: int, rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([rng.permutation(told) for _ in range(-(-n // told))])[:n].astype(np.int64)


def images(shape: tuple[int, ...], n: int, rng: np.random.Generator) -> np.ndarray:
    """Inputs (n, *shape), float32, on which faults show that real images would hide.

    Values have both signs and a root mean square of 1. No channel, border or direction looks like another: there is a
    slope along each axis, an offset at each border, and a mean and a spread of its own for each channel. Within a
    channel of an image no two values are equal, so no pooling window has a tie, and none is exactly zero.

    Args:
        shape: (h w c), (c), (steps c) or (d h w c).
        n: images.
        rng: the generator.
    """
    *spatial, c = shape
    h, w = (math.prod(spatial[:-1]), spatial[-1]) if spatial else (1, 1)
    rows, columns = np.linspace(-1, 1, h)[:, None, None], np.linspace(-1, 1, w)[None, :, None]
    x = rng.standard_normal((n, h, w, c))
    x += rng.uniform(0.3, 0.9, c) * rows - rng.uniform(0.2, 0.7, c) * columns
    for border, (axis, end) in enumerate(((1, 0), (1, -1), (2, 0), (2, -1))):
        if x.shape[axis] > 2:
            where = [slice(None)] * 4
            where[axis] = slice(0, 1) if end == 0 else slice(-1, None)
            x[tuple(where)] += 0.35 * (border + 1) * (-1) ** border
    # Spreads over a decade: a wrong epsilon of a normalisation shows where the variance is small.
    if c > 1:
        x = x * np.geomspace(0.3, 3.0, c)[rng.permutation(c)] + np.linspace(-0.6, 0.7, c)[rng.permutation(c)]
    x += rng.uniform(-0.2, 0.2, (n, 1, 1, 1))
    x = (x / np.sqrt(np.mean(x**2))).astype(np.float32)
    _untie(x, rng)
    return x.reshape((n, *shape))


def _untie(x: np.ndarray, rng: np.random.Generator) -> None:
    """Redraw, in place, what is zero or equals another value of its channel and image (n h w c, float32)."""
    planes = np.moveaxis(x, 3, 1).reshape(x.shape[0] * x.shape[3], -1)
    open_ones = np.arange(len(planes))
    while True:
        some = planes[open_ones]
        ranked = np.sort(some, axis=1)  # several times as fast as the order of all of them
        tied = (ranked[:, 1:] == ranked[:, :-1]).any(axis=1) | (some == 0).any(axis=1)
        if not tied.any():
            break
        open_ones, some = open_ones[tied], some[tied]
        order = np.argsort(some, axis=1)
        ranked = np.take_along_axis(some, order, axis=1)
        again = np.zeros(some.shape, bool)
        np.put_along_axis(again, order, np.pad(ranked[:, 1:] == ranked[:, :-1], ((0, 0), (1, 0))), axis=1)
        again |= some == 0
        some[again] += rng.uniform(-0.1, 0.1, int(again.sum())).astype(np.float32)
        planes[open_ones] = some
    x[...] = np.moveaxis(planes.reshape(x.shape[0], x.shape[3], *x.shape[1:3]), 1, 3)
