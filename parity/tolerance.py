"""How far rounding alone may put two tensors apart, per channel (the last axis)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from parity.distances import PEAK, SQUARABLE, Distance, channel_rms
from parity.layers import LRN, BatchNorm, Conv, Dense, Kind

__all__ = [
    "CLEAN",
    "ROUNDOFF",
    "carried",
    "forward_floor",
    "gradient_floor",
    "parameter_floor",
    "response_floor",
]

Array = np.ndarray
Size = Callable[[Array], Array]
"""What gives a tensor's root mean square per channel: where it is known, no look at the tensor is needed."""

ROUNDOFF = 2.0**-24
"""Unit roundoff of float32 (half the distance from 1 to the next number)."""

CLEAN = 4.0
"""A probe up to this many floors from its expected value is noise without further proof; above it is examined."""


def _sum_of(terms: float) -> float:
    """Rounding of a sum of n terms, in units of u·‖terms‖: grows slowly, as every library adds in blocks."""
    return 2.0 + math.log2(max(2.0, terms))


def _whole(channels: Array) -> float:
    """The root mean square of a tensor whose channels' are known."""
    return float(np.sqrt(np.mean(np.square(channels))))


def _of_moments(value: Array) -> float:
    """Rounding of what is normalised by the moments of all images and places, in units of u·‖value‖."""
    return max(16.0, 10.0 + _sum_of(value.size / max(1, value.shape[-1])))


def forward_floor(
    kind: Kind,
    inputs: Sequence[Array],
    params: Mapping[str, Array],
    expected: Array,
    own: Array | None = None,
    *,
    size: Size = channel_rms,
) -> Array:
    """What rounding alone may do to a layer's output, as a root mean square per channel.

    Args:
        kind: what the layer computes.
        inputs: its inputs, n … c.
        params: role → value in the reference's axes.
        expected: the output.
        own: its root mean square per channel, where that is known.
        size: gives that of the other tensors.
    """
    own = channel_rms(expected) if own is None else own
    if isinstance(kind, Conv | Dense) and "kernel" in params and inputs:
        terms = math.prod(params["kernel"].shape[:-1])
        norm = channel_rms(params["kernel"]) * math.sqrt(terms)
        if norm.shape == own.shape:
            return ROUNDOFF * (_sum_of(terms) * _whole(size(inputs[0])) * norm + 2 * own)
    floor = ROUNDOFF * 4 * own
    if len(inputs) > 1:
        floor = floor + ROUNDOFF * sum(_whole(size(x)) for x in inputs)
    return floor * _of_moments(expected) / 4 if isinstance(kind, BatchNorm) else floor


def gradient_floor(
    kind: Kind,
    upstream: Array | None,
    params: Mapping[str, Array],
    expected: Array,
    own: Array | None = None,
    *,
    size: Size = channel_rms,
) -> Array:
    """What rounding alone may do to the gradient with respect to a layer's input, per channel of that input.

    Args:
        kind: what the layer computes.
        upstream: the derivative of the loss with respect to its output, n … c.
        params: role → value in the reference's axes.
        expected: the gradient, n … c.
        own: its root mean square per channel, where that is known.
        size: gives that of the other tensors.
    """
    own = channel_rms(expected) if own is None else own
    if isinstance(kind, Conv | Dense) and "kernel" in params and upstream is not None:
        kernel = params["kernel"]
        # `h w c m` of a depthwise convolution: every input channel has outputs of its own.
        depthwise = kernel.shape[-2] == own.size
        groups = 1 if depthwise else getattr(kind, "groups", 1)
        depth, outputs = kernel.shape[-2:]
        if outputs % groups:
            return ROUNDOFF * 4 * own
        terms = math.prod(kernel.shape[:-2]) * outputs / groups
        if not SQUARABLE[0] < max(kernel.max(initial=0.0), -kernel.min(initial=0.0)) < SQUARABLE[1]:
            kernel = kernel.astype(np.float64)
        parts = kernel.reshape(-1, depth, groups, outputs // groups)
        norm = np.sqrt(np.einsum("sdgo,sdgo->gd", parts, parts)).reshape(-1)
        if norm.shape == own.shape:
            return ROUNDOFF * (_sum_of(terms) * _whole(size(upstream)) * norm + 2 * own)
    return ROUNDOFF * (_of_moments(expected) if isinstance(kind, BatchNorm) else 4) * own


def response_floor(kind: LRN, value: Array, upstream: Array) -> Array:
    """What rounding may do to the gradient of a local response normalisation, per channel of its input.

    Where the squares outweigh kappa its two terms, dy·L^-beta and 2·alpha·beta·x·Σ(dy·x·L^(-beta-1)), cancel, so that
    what is left is smaller than what is rounded; and both may be much larger at one place than at others.

    Args:
        kind: the layer.
        value: its input, n … c.
        upstream: the derivative of the loss with respect to its output, n … c.
    """
    before = (kind.size - 1) // 2
    after = kind.size - 1 - before
    x, dy = np.abs(value, dtype=np.float64), np.abs(upstream, dtype=np.float64)
    scale = kind.kappa + kind.alpha * _window_sum(x * x, before, after)
    power = scale**-kind.beta
    terms = dy * power + 2 * kind.alpha * kind.beta * x * _window_sum(dy * x * power / scale, after, before)
    peak = terms.reshape(-1, terms.shape[-1]).max(axis=0, initial=0.0)
    return ROUNDOFF * 4 * np.maximum(channel_rms(terms), peak / PEAK)


def _window_sum(value: Array, before: int, after: int) -> Array:
    """The sum over the channels k - before … k + after of each channel k; outside counts nothing."""
    padded = np.pad(value, [(0, 0)] * (value.ndim - 1) + [(before, after)])
    return np.sum([padded[..., k : k + value.shape[-1]] for k in range(before + after + 1)], axis=0)


def parameter_floor(
    role: str,
    inputs: Sequence[Array],
    upstream: Array | None,
    expected: Array,
    own: Array | None = None,
    *,
    size: Size = channel_rms,
) -> Array:
    """What rounding alone may do to a parameter's gradient: a sum over every image and place.

    Args:
        role: kernel, bias, gamma, beta.
        inputs: the layer's inputs.
        upstream: the derivative of the loss with respect to its output, n … c.
        expected: the gradient, channels last.
        own: its root mean square per channel, where that is known.
        size: gives that of the other tensors.
    """
    own = channel_rms(expected) if own is None else own
    if upstream is None or upstream.size == 0:
        return ROUNDOFF * 16 * own
    terms = max(1, upstream.size // upstream.shape[-1])
    each = size(upstream)
    if role == "kernel" and inputs:
        each = each * _whole(size(inputs[0]))
    if each.shape != own.shape:
        each = np.full_like(own, float(np.max(each, initial=0.0)))
    # Short vectors are added up plainly by some libraries: clean ratios reach 18 there.
    plain = 1.0 if role == "kernel" else 4.0
    return ROUNDOFF * (plain * _sum_of(terms) * math.sqrt(terms) * each + 4 * own)


def carried(
    role: str,
    inputs: Sequence[Array],
    upstream: Array,
    read: Distance,
    pulled: Distance,
    expected: Array,
    *,
    size: Size = channel_rms,
) -> Array:
    """What such differences between what a layer is given on two sides make of a parameter's gradient, if by chance.

    A root mean square per channel: a sum over every image and place of differences that have nothing to do with one
    another.

    Args:
        role: kernel, bias, gamma, beta.
        inputs: the layer's inputs.
        upstream: the derivative of the loss with respect to its output, n … c.
        read: how far apart the two sides' inputs are.
        pulled: how far apart their upstream gradients are.
        expected: the gradient, channels last.
        size: gives a tensor's root mean square per channel.
    """
    terms = max(1, upstream.size // upstream.shape[-1])
    each = pulled.channel_rms
    if role == "kernel" and inputs:
        each = np.sqrt(np.square(each * _whole(size(inputs[0]))) + np.square(size(upstream) * read.rms))
    if each.shape != expected.shape[-1:]:
        each = np.full(expected.shape[-1:], float(np.min(each, initial=np.inf)))
    return math.sqrt(terms) * each
