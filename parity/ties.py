"""Points at which a function has no derivative, and any of several is right: equal maxima, a rectifier at its kink."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from parity.layers import Activation, Context, Kind, Pool
from parity.layers.geometry import pads_of

__all__ = ["over_zeros", "past_kinks"]

Array = np.ndarray


def over_zeros(kind: Pool, fed: Array, made: Array, pulled: Array, mode: str) -> Array | None:
    """The gradient of a maximum's input if its padding were zeros that take part in it, ties given by rows.

    Where no value is below zero, zeros around the map may be as large as what is in it: then the gradient goes to one
    of them, though all outputs are the same.

    Args:
        kind: of the pooling.
        fed: what it reads, n h w c.
        made: what it makes with padding that never wins.
        pulled: the derivative with respect to what it makes.
        mode: `"train"` or `"eval"`.

    Returns:
        n h w c; None where it is no maximum over a padded map, or where zeros change an output.
    """
    if kind.method != "max" or kind.size is None or len(kind.size) != 2 or fed.ndim != 4:
        return None
    top, bottom, left, right = pads_of(kind.pad, fed.shape[1:3], kind.size, kind.stride, (1, 1))
    if not any((top, bottom, left, right)):
        return None
    from parity.frameworks.matconvnet.tensors import derivatives, from_torch, to_torch

    wide = np.pad(fed, ((0, 0), (top, bottom), (left, right), (0, 0)))
    read = to_torch(wide, 32, grad=True)
    over = replace(kind, pad=(0, 0, 0, 0)).forward([read], {}, Context(mode=mode, ties="row"))
    if not np.array_equal(from_torch(over), made):
        return None
    (gradient,) = derivatives([over], [read], [to_torch(pulled, 32)])
    assert gradient is not None
    return from_torch(gradient)[:, top : wide.shape[1] - bottom, left : wide.shape[2] - right]


def past_kinks(kind: Kind, fed: Array, pulled: Array, actual: Array, expected: Array) -> tuple[Array, int]:
    """A derivative as it would be with the reference's own choice where a rectifier stands exactly at its kink.

    There any share of what comes from above, from none to all of it, is as right: `maximum(x, 0.1 * x)` takes 1 or
    1/2, a relu 0.

    Args:
        kind: of the layer.
        fed: what it reads.
        pulled: the derivative with respect to what it makes.
        actual: that with respect to what it reads, on the Keras side.
        expected: the same in the reference.

    Returns:
        The derivative, and how many elements were changed.
    """
    if not isinstance(kind, Activation) or not kind.function.startswith("relu"):
        return actual, 0
    if not fed.shape == actual.shape == expected.shape or pulled.size != fed.size:
        return actual, 0
    pulled = pulled.reshape(fed.shape)
    low, high = np.minimum(pulled, 0), np.maximum(pulled, 0)
    free = (fed == kind.threshold) & (actual >= low) & (actual <= high)
    return np.where(free, expected, actual), int(np.count_nonzero(free & (actual != expected)))
