"""The two sides are given different images or labels: turned channels, another scale or mean, labels that are off.

What the Keras side is given is fitted to what the reference is given on one half of the images, and must hold on the
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from parity.case import Comparison
from parity.changes import Change
from parity.report import Finding, Probe
from parity.rules.arrangements import Arrangement, arrangements, renumbered

__all__ = ["find"]

Array = np.ndarray

_SAME = 2e-6
"""Of the size of the images: how far a fitted map may miss them by rounding."""

_FEWEST = 3
"""Images from which a scale beside an average image can be told."""


def find(run: Comparison) -> Iterable[Finding]:
    """Findings of the `input` phase."""
    order: list[int] | None = None
    for probe in run.probes:
        if probe.phase != "input" or probe.status != "born":
            continue
        if probe.tensor == "y":
            yield from _labels(run, probe, order)
            continue
        for theirs, mine in run.alignment.inputs.items():
            if probe.layer in (mine, "input"):
                for found in _images(run.data.ref[mine], run.data.keras[theirs], probe):
                    order = next((c.values["order"] for c in found.changes if "order" in c.values), order)
                    yield found
                break


def _images(ref: Array, keras: Array, probe: Probe) -> Iterator[Finding]:
    if ref.size != keras.size or ref.shape[0] != keras.shape[0]:
        return
    a, b = ref.astype(np.float64), keras.reshape(ref.shape).astype(np.float64)
    turns = (False, True) if a.shape[-1] > 1 else (False,)
    for laid in chain((None,), arrangements(a, b)):  # made one after the other: mostly none is needed
        for turned in turns:
            fitted = _affine(a[..., ::-1] if turned else a, b if laid is None else laid.images)
            if fitted is None:
                continue
            if laid is not None:
                yield _arranged(probe, laid)
            yield from _mapped(probe, turned, *fitted, size=_size(b))
            return
    for turned in turns:
        averaged = _with_image(a[..., ::-1] if turned else a, b)
        if averaged is not None:
            yield from _mapped(probe, turned, *averaged, size=_size(b))
            return
    yield from _one_by_one(a, b, probe)


def _one_by_one(a: Array, b: Array, probe: Probe) -> Iterator[Finding]:
    """Images that one side scales and shifts each by numbers of its own."""
    axes = tuple(range(1, a.ndim))
    centred = a - a.mean(axis=axes, keepdims=True)
    power = (centred**2).sum(axis=axes, keepdims=True)
    if np.any(power == 0) or power.size * 3 > a.size:
        return
    scale = (centred * b).sum(axis=axes, keepdims=True) / power
    offset = b.mean(axis=axes, keepdims=True) - scale * a.mean(axis=axes, keepdims=True)
    if np.any(np.abs(scale) * np.sqrt(power / a[0].size) <= _SAME * np.sqrt(np.mean(b**2))):
        return  # as in `_affine`
    if np.max(np.abs(scale * a + offset - b)) > 8 * _SAME * max(_size(a) * np.max(np.abs(scale)), _size(b)):
        return
    words = (
        f"Each of the Keras side's images is a multiple of the reference's, {scale.min():.6g} to {scale.max():.6g} "
        f"times, plus a constant, {offset.min():.4g} to {offset.max():.4g}: one side standardises them one by one."
    )
    values = {
        "scale": (1 / scale).tolist(),
        "offset": (-offset / scale).tolist(),
        "code": "standardised as the reference",
    }
    yield _finding("input-scale", probe, words, "prepare each image as the reference does", values)


def _arranged(probe: Probe, laid: Arrangement, action: str = "input") -> Finding:
    """No cause has this name; what would put it right is told, and tried."""
    letter, what = ("x", "images") if action == "input" else ("y", "labels")
    evidence = f"The Keras side's {what} are {laid.words}."
    changes = (Change(action, "", {**laid.values, "code": laid.code}),)
    fix = f"{letter} = {laid.code}"
    return Finding("unknown", "divergence", probe.layer, probe.keras_layer, "input", evidence, fix, changes=changes)


def _mapped(probe: Probe, turned: bool, scale: Array, offset: Array, *, size: float) -> Iterator[Finding]:
    if turned:  # what follows acts on channels that are in the reference's order again
        scale, offset = scale[::-1], offset[..., ::-1]
        yield _finding(
            "input-channel-order",
            probe,
            "The Keras side's images have their channels in reverse order (RGB against BGR).",
            "x = x[..., ::-1]",
            {"reverse_channels": True, "code": "x[..., ::-1]"},
        )
    scaled = bool(np.max(np.abs(scale - 1)) > 0)
    if offset.ndim > 1:
        whose = "a multiple of the reference's" if scaled else "the reference's"
        fix = "x = x - average_image, " + (f"the reference's times {_words(scale)}" if scaled else "the reference's")
        yield _finding(
            "input-mean",
            probe,
            f"The Keras side's images lie one and the same image from {whose} (up to {np.abs(offset).max():.4g}): "
            "an average image that one side subtracts and the other does not.",
            fix,
            {"offset": (-offset).astype(np.float32), "code": "x - average_image"},
        )
    elif np.max(np.abs(offset)) > _SAME * size:
        yield _finding(
            "input-mean",
            probe,
            f"The Keras side's images lie {_words(offset)} from {'a multiple of ' if scaled else ''}the reference's: "
            "a mean that one side subtracts and the other does not.",
            f"x = x - {_words(offset)}",
            {"offset": (-offset).tolist(), "code": f"x - {_code(offset)}"},
        )
    if scaled:
        yield _finding(
            "input-scale",
            probe,
            f"The Keras side's images are {_words(scale)} times the reference's.",
            f"x = x * {_words(1 / scale)}",
            {"scale": (1 / scale).tolist(), "code": f"x * {_code(1 / scale)}"},
        )


def _affine(a: Array, b: Array) -> tuple[Array, Array] | None:
    """Scale and offset per channel with b = scale·a + offset, fitted on every other image; None where it fails."""
    first, rest = (slice(None, None, 2), slice(1, None, 2)) if len(a) > 1 else (slice(None), slice(None))
    rows_a, rows_b = (v[first].reshape(-1, v.shape[-1]) for v in (a, b))
    centred = rows_a - rows_a.mean(axis=0)
    power = (centred**2).sum(axis=0)
    if np.any(power == 0):
        return (np.ones(1), np.zeros(1)) if np.array_equal(a, b) else None
    scale = (centred * rows_b).sum(axis=0) / power
    if np.any(np.abs(scale) * np.sqrt(power / len(rows_a)) <= _SAME * np.sqrt(np.mean(rows_b**2))):
        return None  # images of one value are no multiple of others
    offset = rows_b.mean(axis=0) - scale * rows_a.mean(axis=0)
    if np.max(np.abs(a[rest] * scale + offset - b[rest]), initial=0) > 8 * _SAME * max(
        _size(a) * np.max(scale), _size(b)
    ):
        return None
    if np.ptp(scale) <= 1e-5 * np.max(np.abs(scale)):
        scale = np.array([scale.mean()])
    if np.ptp(offset) <= 1e-5 * _size(b):
        offset = np.array([offset.mean()])
    return np.where(np.abs(scale - 1) < 4e-6, 1.0, scale), offset


def _with_image(a: Array, b: Array) -> tuple[Array, Array] | None:
    """Scale per channel, and an image, with b = scale·a + image; fitted on every other image as in `_affine`."""
    if len(a) < 2:
        return None
    first, rest = slice(None, None, 2), slice(1, None, 2)
    means = a[first].mean(axis=0), b[first].mean(axis=0)
    moved_a, moved_b = ((v[first] - mean).reshape(-1, v.shape[-1]) for v, mean in zip((a, b), means, strict=True))
    power = (moved_a**2).sum(axis=0)
    scale = np.ones(1)
    if len(a) >= _FEWEST:
        if np.any(power == 0):
            return None
        scale = (moved_a * moved_b).sum(axis=0) / power
        if np.any(np.abs(scale) * np.sqrt(power / len(moved_a)) <= _SAME * np.sqrt(np.mean(moved_b**2))):
            return None  # as in `_affine`
    if np.ptp(scale) <= 1e-5 * np.max(np.abs(scale)):
        scale = np.array([scale.mean()])
    scale = np.where(np.abs(scale - 1) < 4e-6, 1.0, scale)
    image = means[1] - scale * means[0]
    allowed = 8 * _SAME * max(_size(a) * np.max(np.abs(scale)), _size(b))
    return (scale, image) if np.max(np.abs(a[rest] * scale + image - b[rest])) <= allowed else None


def _labels(run: Comparison, probe: Probe, order: list[int] | None) -> Iterator[Finding]:
    ref, keras = run.data.labels_ref, run.data.labels_keras
    if ref is None or keras is None:
        return
    network = run.ref.network
    for label, theirs in run.alignment.labels.items():
        if probe.layer not in (label, "input") or label not in ref.values or theirs not in keras.values:
            continue
        a, b = np.asarray(ref.values[label]), np.asarray(keras.values[theirs])
        if a.shape != b.shape or a.dtype.kind not in "iu" or b.dtype.kind not in "iu" or np.array_equal(a, b):
            continue
        loss = next((layer for layer in network.losses if network.label_of(layer) == label), None)
        shape = network.shape_of(loss.inputs[0]) if loss is not None else None
        classes = int(shape[-1] or 1) if shape else int(max(a.max(), b.max())) + 1
        for shift in (1, -1):
            plain, wrapped = np.array_equal(b, a + shift), np.array_equal(b, (a + shift) % classes)
            if not plain and not wrapped:
                continue
            words = "one higher" if shift > 0 else "one lower"
            more = "" if plain else f", modulo the {classes} classes"
            code = f"(y {'-' if shift > 0 else '+'} 1)" + ("" if plain else f" % {classes}")
            yield _finding(
                "label-offset",
                probe,
                f"The Keras side's labels are {words} than the reference's{more}: MatConvNet counts from 1, Keras from "
                "0.",
                f"y = {code}",
                {"shift": -shift, "classes": classes, "code": code},
                action="labels",
            )
            break
        else:
            yield from _otherwise(probe, a, b, order)


def _otherwise(probe: Probe, a: Array, b: Array, order: list[int] | None) -> Iterator[Finding]:
    """Labels that are in another order, or whose classes are numbered otherwise."""
    made = renumbered(a, b)
    if order is not None and np.array_equal(b[order], a):
        made = Arrangement("in the order of its images", "y[order]", {"order": order})
    elif made is None and np.array_equal(np.sort(a, axis=None), np.sort(b, axis=None)):
        words = "The Keras side's labels are the reference's in another order: they do not belong to these images."
        yield Finding("unknown", "divergence", probe.layer, probe.keras_layer, "input", words)
    if made is not None:
        yield _arranged(probe, made, "labels")


def _finding(
    cause: str, probe: Probe, evidence: str, fix: str, values: Mapping[str, Any], action: str = "input"
) -> Finding:
    changes = (Change(action, "", values),) if values else ()
    return Finding(cause, "divergence", probe.layer, probe.keras_layer, "input", evidence, fix, True, changes=changes)


def _size(value: Array) -> float:
    return float(np.sqrt(np.mean(np.square(value)))) or 1.0


def _words(values: Array) -> str:
    if values.size == 1:
        return f"{float(values[0]):.6g}"
    return "[" + ", ".join(f"{v:.6g}" for v in values[:8]) + (", …]" if values.size > 8 else "]")


def _code(values: Array) -> str:
    return repr(float(values[0])) if values.size == 1 else f"numpy.array({[float(v) for v in values]}, 'float32')"
