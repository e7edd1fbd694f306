"""What a batch leaves untried: faults that another batch would show and this one cannot.

Judged by the reference's own pass. Only what could be otherwise is told of: a rectifier behind a rectifier never sees a
negative value whatever the batch, and then no fault hides behind that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from parity.case import Comparison
from parity.layers import LRN, Activation, BatchNorm, Concat, Dropout, Flatten, Identity, Loss, Merge, Pool, Softmax
from parity.layers.geometry import pads_of
from parity.network import Layer, Network
from parity.tolerance import ROUNDOFF

__all__ = ["coverage", "gaps"]

Array = np.ndarray

_MOST = 6
"""Gaps that one note lists."""

_POSITIVE = ("sigmoid", "softplus", "exponential", "hard_sigmoid", "hard_sigmoid_legacy", "softmax")
"""Functions that make no negative value."""

_MANY = 100
"""Values of a channel among which a positive one is to be expected; of a few, none may be by chance."""

_TOLD = 1e3
"""How far off a constant of a normalisation may be without a trace before a reader is told."""


def coverage(run: Comparison) -> str:
    """One sentence on what this batch cannot show, or nothing."""
    found = list(gaps(run))
    if not found:
        return ""
    rest = f"; and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return f"This batch leaves untried: {'; '.join(found[:_MOST])}{rest}."


def gaps(run: Comparison) -> Iterator[str]:
    """Each gap in a few words: first of the batch, then layer by layer."""
    yield from _of_images(run.data.ref)
    seen = run.course.passes[0] if run.course.passes else None
    if seen is None:
        return
    network = run.ref.network
    values: Mapping[str, Array] | None = None
    for layer in network:
        read = [seen.outputs[t] for t in network.data(layer.inputs) if t in seen.outputs]
        kind = layer.kind
        if isinstance(kind, Loss):
            yield from _of_labels(run, layer, kind)
        elif isinstance(kind, BatchNorm):
            values = run.ref.params() if values is None and run.mode == "eval" else values
            yield from _of_normalisation(layer, kind, seen.statistics.get(layer.name), values)
        elif len(read) != 1 or not read[0].size:
            continue
        elif isinstance(kind, Activation):
            yield from _of_activation(network, layer, kind, read[0])
        elif isinstance(kind, Pool):
            yield from _of_border(network, layer, kind, read[0])
        elif isinstance(kind, LRN):
            yield from _of_response(layer, kind, read[0])
        elif isinstance(kind, Dropout) and kind.rate > 0 and run.mode == "train":
            yield from _of_dropout(layer, seen.outputs.get(layer.output), read[0])


# Inputs and labels ----------------------------------------------------------------------------------------------------


def _of_images(inputs: Mapping[str, Array]) -> Iterator[str]:
    """Images that are alike: each other, turned, or from channel to channel."""
    for name, x in inputs.items():
        which = f" of {name}" if len(inputs) > 1 else ""
        if x.shape[0] > 1 and all(np.array_equal(x[0], other, equal_nan=True) for other in x[1:]):
            yield f"the images{which} are all the same"
        if x.ndim != 4:
            continue
        _, h, w, c = x.shape
        if c > 1 and all(np.array_equal(x[..., 0], x[..., k]) for k in range(1, c)):
            yield f"the channels{which} are equal, so their order does not show"
        for axis, extent, words in ((1, h, "upside down"), (2, w, "mirrored")):
            if extent > 1 and np.array_equal(x, np.flip(x, axis)):
                yield f"the images{which} are the same {words}"


def _of_labels(run: Comparison, layer: Layer, kind: Loss) -> Iterator[str]:
    """Classes that a batch of this size could hold and does not."""
    targets, network = run.data.labels_ref, run.ref.network
    label = network.label_of(layer)
    ids = targets.values.get(label) if targets else None
    shape = network.shape_of(layer.inputs[0])
    classes = shape[-1] if shape else None
    if ids is None or classes is None or ids.dtype.kind not in "iu" or ids.ndim != 1 or not 2 <= classes <= len(ids):
        return
    if kind.function not in ("softmaxlog", "log", "mhinge", "mshinge", "classerror"):
        return
    absent = np.setdiff1d(np.arange(classes), ids)
    if len(absent):
        what = f"class{'es' if len(absent) > 1 else ''} {', '.join(map(str, absent[:4]))}"
        yield f"{what}{' …' if len(absent) > 4 else ''} never occur{'s' if len(absent) == 1 else ''}"


# Layers ---------------------------------------------------------------------------------------------------------------


def _nonnegative(network: Network, tensor: str) -> bool:
    """Whether a tensor has no negative values whatever the batch."""
    layer = network.producers.get(tensor)
    if layer is None:
        return False
    kind = layer.kind
    if isinstance(kind, Softmax):
        return True
    if isinstance(kind, Activation):
        if (kind.function == "relu" and not kind.slope) or kind.function in _POSITIVE:
            return True
        return kind.function in ("linear", "relu") and _nonnegative(network, layer.inputs[0])
    if isinstance(kind, Merge) and kind.operation == "subtract":
        return False
    if isinstance(kind, Pool | Dropout | Identity | Flatten | Concat | Merge | LRN):
        return all(_nonnegative(network, t) for t in network.data(layer.inputs))
    return False


def _of_activation(network: Network, layer: Layer, kind: Activation, x: Array) -> Iterator[str]:
    """Signs that never reach a rectifier, channels that it never lets through, a limit that nothing reaches."""
    if kind.function != "relu":
        return
    if not _nonnegative(network, layer.inputs[0]) and float(x.min()) >= 0:
        yield f"no negative value reaches {layer.name}"
    rows = x.reshape(-1, x.shape[-1])
    top = rows.max(axis=0)
    if kind.limit is not None and float(top.max()) < kind.limit:
        yield f"no value reaches the limit {kind.limit:g} of {layer.name}"
    silent = np.flatnonzero(top <= 0) if not kind.slope else np.empty(0, int)
    if len(silent) == len(top):
        yield f"{layer.name} is never active"
    elif len(silent) and len(rows) >= _MANY:
        which = f"channel {silent[0]}" if len(silent) == 1 else f"{len(silent)} of {len(top)} channels"
        yield f"{layer.name} is never active in {which}"


def _of_border(network: Network, layer: Layer, kind: Pool, x: Array) -> Iterator[str]:
    """A padded maximum over borders where zeros would never win."""
    if kind.method != "max" or kind.size is None or len(kind.size) != 2 or x.ndim != 4:
        return
    pad = pads_of(kind.pad, x.shape[1:3], kind.size, kind.stride, (1, 1))
    if not any(pad) or _nonnegative(network, layer.inputs[0]):
        return
    if not any(_below_zero(x, kind, pad, axis) for axis in (0, 1)):
        yield f"no window at the border of {layer.name} has negative values alone"


def _below_zero(x: Array, kind: Pool, pad: tuple[int, ...], axis: int) -> bool:
    """Whether a window that reaches over a border along an axis (0: above or below, 1: beside) sees no value ≥ 0."""
    assert kind.size is not None
    lines = x if axis == 0 else x.swapaxes(1, 2)
    size, step = kind.size if axis == 0 else kind.size[::-1], kind.stride if axis == 0 else kind.stride[::-1]
    before, after = pad[2 * axis], pad[2 * axis + 1]
    ends = [lines[:, : size[0] - before]] if before else []
    if after:
        last = (lines.shape[1] + before + after - size[0]) // step[0] * step[0] - before
        ends.append(lines[:, max(last, 0) :])
    across = pad[2 - 2 * axis]
    for band in ends:
        tops = band.max(axis=1)
        for start in range(-across, tops.shape[1] - size[1] + 1, step[1]):
            if (tops[:, max(start, 0) : start + size[1]].max(axis=1) < 0).any():
                return True
    return False


def _of_normalisation(
    layer: Layer, kind: BatchNorm, moments: Mapping[str, Array] | None, values: Mapping[str, Array] | None
) -> Iterator[str]:
    """An epsilon that vanishes beside every variance."""
    variance: Any = None if moments is None else moments.get("variance")
    if variance is None and values is not None:
        if "variance" in layer.params:
            variance = values[layer.params["variance"]]
        elif "deviation" in layer.params:
            variance = values[layer.params["deviation"]].astype(np.float64) ** 2
    if variance is None or not np.size(variance) or kind.epsilon <= 0:
        return
    least = float(np.min(variance))
    # An epsilon that is off by its own size moves the output by epsilon / (2 variance).
    if math.isfinite(least) and least > 0 and _TOLD * kind.epsilon / (2 * least) < ROUNDOFF:
        yield f"no channel of {layer.name} varies so little that its epsilon shows"


def _of_response(layer: Layer, kind: LRN, x: Array) -> Iterator[str]:
    """Responses so small that the normalisation divides by its constant alone."""
    top = float(np.abs(x).max())
    if _TOLD * kind.alpha * kind.size * top**2 < ROUNDOFF * abs(kind.kappa):
        yield f"{layer.name} is fed so little that it only scales"


def _of_dropout(layer: Layer, made: Array | None, x: Array) -> Iterator[str]:
    """A mask that drops nothing, or everything."""
    if made is not None and made.shape == x.shape:
        kept = np.count_nonzero((made != 0) & (x != 0))
        if kept == np.count_nonzero(x):
            yield f"{layer.name} drops nothing"
