"""Where and how two tensors differ, in little: a picture of a fixed size, whatever the tensor's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from parity.tensors import shaped

__all__ = ["ALONE", "END_TO_END", "Album", "Detail", "Element", "Sample", "detail_of"]

Array = np.ndarray

END_TO_END, ALONE = "end to end", "alone"
"""How both sides ran: the whole network, or the layer on the reference's inputs."""

_AXES = {"h": "height", "w": "width", "i": "input channel", "o": "output channel", "c": "channel", "n": "image"}
_SIDE = 64
_SMALL_SIDE = 32
_MANY = 600
_CHANNELS = 256
_BINS = 48
_ERROR_BINS = 32
_WORST = 8
_SAMPLE = 2_000_000
"""Elements that histograms count at most; from larger tensors every k-th is taken."""


@dataclass(frozen=True)
class Element:
    """One element: its index, and its value on both sides."""

    index: tuple[int, ...]
    expected: float
    actual: float


@dataclass(frozen=True, eq=False)
class Detail:
    """Two tensors side by side, summed up.

    Attributes:
        layer, keras_layer, phase, tensor, step: whose, as in `Probe`.
        how: `END_TO_END` or `ALONE`.
        shape: of the tensor.
        axes: what the heat map's rows and columns are.
        extents: how many rows and columns of the tensor they stand for.
        heatmap: (≤64, ≤64) float32, the largest absolute difference in each cell.
        profile: (≤256,) float32, the root mean square of the difference per channel (last axis), neighbours pooled.
        edges: (bins + 1,) of the histogram of values.
        expected, actual: (bins,) counts of both sides.
        error_edges: (bins + 1,) of the histogram of differences, as powers of ten.
        errors: (bins,) counts of the absolute difference, where it is not 0.
        equal: share of elements without any difference.
        max_abs: the largest absolute difference; infinite where one side alone is not finite.
        floor: the noise floor, absolute, root mean square; None where it is not known.
        worst: the elements that differ most, the worst first.
        part: (rows that were looked at, rows of the tensor), where only a sample of it was kept; a row is all axes but
            the last. What is said of elements is then said of the sample.
    """

    layer: str
    keras_layer: str
    phase: str
    tensor: str
    step: int
    how: str
    shape: tuple[int, ...]
    axes: tuple[str, str]
    extents: tuple[int, int]
    heatmap: Array
    profile: Array
    edges: Array
    expected: Array
    actual: Array
    error_edges: Array
    errors: Array
    equal: float
    max_abs: float
    floor: float | None
    worst: tuple[Element, ...]
    part: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """Where sampled rows stood in their tensor.

    Attributes:
        shape: of the whole tensor.
        rows: (k,) int, the rows (all axes but the last, row-major) that were kept, ascending.
    """

    shape: tuple[int, ...]
    rows: Array


@dataclass(eq=False)
class Album:
    """The details of one comparison, as it meets its tensors; bounded by their number, not by their size.

    Attributes:
        details: what was looked at so far.
        expected: about how many there will be; from many on, their pictures are smaller.
    """

    details: list[Detail] = field(default_factory=list)
    expected: int = 0

    def look(
        self,
        names: tuple[str, str],
        phase: str,
        tensor: str,
        pair: tuple[Array, Array],
        *,
        step: int = 1,
        how: str = END_TO_END,
        floor: float | None = None,
        axes: str = "",
        sample: Sample | None = None,
    ) -> None:
        """Keep what two tensors show; nothing where their shapes do not fit.

        Args:
            names: the reference's layer and the Keras layer.
            phase: as in `Probe`.
            tensor: as in `Probe`.
            pair: (actual, expected).
            step: update step from 1.
            how: `END_TO_END` or `ALONE`.
            floor: the noise floor, absolute.
            axes: names of the tensor's axes, e.g. `"h w i o"`; by default those of an activation.
            sample: where the pair, (k, c) each, stood in their tensors, if they are but rows of them.
        """
        if sample is not None and len(sample.rows) == np.prod(sample.shape[:-1], dtype=np.int64):
            pair, sample = (pair[0].reshape(sample.shape), pair[1].reshape(sample.shape)), None
        actual = shaped(np.asarray(pair[0]), np.shape(pair[1]))
        if actual is None or not actual.size or not actual.ndim or actual.size == 1:
            return
        side = _SMALL_SIDE if self.expected > _MANY else _SIDE
        key = (*names, phase, tensor, step, how)
        made = detail_of(actual, np.asarray(pair[1]), key=key, axes=axes, floor=floor, side=side)
        self.details.append(made if sample is None else _of_sample(made, sample))

    def sorted(self, order: Sequence[str]) -> tuple[Detail, ...]:
        """The details by phase in this order, then as they were met."""
        return tuple(sorted(self.details, key=lambda d: order.index(d.phase)))


def detail_of(
    actual: Array,
    expected: Array,
    *,
    key: tuple[str, str, str, str, int, str] = ("", "", "forward", "output", 1, END_TO_END),
    axes: str = "",
    floor: float | None = None,
    side: int = _SIDE,
) -> Detail:
    """What two tensors of one shape, not empty, show side by side.

    Args:
        actual: the Keras tensor, at least one axis.
        expected: the reference's.
        key: layer, Keras layer, phase, tensor, step, how.
        axes: names of the axes, e.g. `"h w i o"`; by default `n … c`.
        floor: the noise floor, absolute.
        side: the heat map's cells at most, in each direction.
    """
    gap = _gap(actual, expected)
    rows, columns = _main_axes(gap.shape, axes)
    plane = gap.max(axis=tuple(i for i in range(gap.ndim) if i not in (rows, columns)))
    plane = plane.reshape(1, -1) if rows == columns else plane if rows < columns else plane.T
    names = _axis_names(gap.ndim, axes)
    across = "" if rows == columns else names[rows], names[columns]
    if plane.shape[1] == 1:  # one column is a line, which lies better than it stands
        plane, across = plane.T, ("", across[0] or across[1])
    top = float(gap.max())
    edges, counts_expected, counts_actual = _histogram(actual, expected)
    error_edges, errors, equal = _error_histogram(gap)
    layer, keras_layer, phase, tensor, step, how = key
    return Detail(
        layer=layer,
        keras_layer=keras_layer,
        phase=phase,
        tensor=tensor,
        step=step,
        how=how,
        shape=tuple(int(n) for n in expected.shape),
        axes=across,
        extents=(int(plane.shape[0]), int(plane.shape[1])),
        heatmap=_pooled(plane, side),
        profile=_profile(gap),
        edges=edges,
        expected=counts_expected,
        actual=counts_actual,
        error_edges=error_edges,
        errors=errors,
        equal=equal,
        max_abs=top,
        floor=floor,
        worst=_worst(gap, actual, expected),
    )


def _of_sample(found: Detail, sample: Sample) -> Detail:
    """What sampled rows show, said of the tensor that they were taken from."""

    def placed(index: tuple[int, ...]) -> tuple[int, ...]:
        row = np.unravel_index(int(sample.rows[index[0]]), sample.shape[:-1])
        return (*(int(n) for n in row), index[1])

    worst = tuple(replace(element, index=placed(element.index)) for element in found.worst)
    part = (len(sample.rows), int(np.prod(sample.shape[:-1], dtype=np.int64)))
    axes = ("sampled row", found.axes[1]) if found.axes[0] else ("", "sampled row")
    return replace(found, shape=sample.shape, axes=axes, worst=worst, part=part)


def _gap(actual: Array, expected: Array) -> Array:
    """The absolute difference; infinite where one side alone is NaN or infinite, 0 where both are alike."""
    with np.errstate(all="ignore"):
        gap = np.abs(np.subtract(actual, expected, dtype=np.result_type(actual, expected, np.float32)))
    if not np.isfinite(gap).all():
        same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
        gap = np.where(same, 0, np.where(np.isnan(gap), np.inf, gap))
    return gap


def _axis_names(rank: int, axes: str) -> list[str]:
    given = axes.split()
    if len(given) != rank:
        given = {1: ["c"], 2: ["n", "c"], 3: ["n", "h", "c"], 4: ["n", "h", "w", "c"]}.get(rank, [])
    return [_AXES.get(a, a) for a in given] or [f"axis {i + 1}" for i in range(rank)]


def _main_axes(shape: tuple[int, ...], axes: str) -> tuple[int, int]:
    """The two axes of the picture: height and width of a map, channels of a kernel, else image and channel."""
    rank, given = len(shape), axes.split()
    if rank == 1:
        return 0, 0
    if len(given) == rank and "i" in given and "o" in given:
        return given.index("i"), given.index("o")
    if rank >= 4 and shape[1] * shape[2] > 1:
        return 1, 2
    return 0, rank - 1


def _pooled(plane: Array, side: int) -> Array:
    """The plane with at most `side` cells each way; each holds the largest value of its part."""
    for axis in (0, 1):
        count = plane.shape[axis]
        if count > side:
            starts = np.linspace(0, count, side, endpoint=False).astype(int)
            plane = np.maximum.reduceat(plane, starts, axis=axis)
    return plane.astype(np.float32)


def _profile(gap: Array) -> Array:
    """Root mean square of the difference per channel, neighbouring channels pooled where they are many."""
    flat = gap.reshape(-1, gap.shape[-1]).astype(np.float64)
    with np.errstate(all="ignore"):
        profile = np.sqrt(np.mean(np.square(flat), axis=0))
    if profile.size > _CHANNELS:
        starts = np.linspace(0, profile.size, _CHANNELS, endpoint=False).astype(int)
        profile = np.maximum.reduceat(profile, starts)
    return profile.astype(np.float32)


def _histogram(actual: Array, expected: Array) -> tuple[Array, Array, Array]:
    """Edges and counts of both sides' finite values, in the same bins."""
    every = max(1, -(-expected.size // _SAMPLE))
    theirs, mine = (value.reshape(-1)[::every].astype(np.float64) for value in (actual, expected))
    theirs, mine = theirs[np.isfinite(theirs)], mine[np.isfinite(mine)]
    both = np.concatenate([theirs, mine])
    low, high = (float(both.min()), float(both.max())) if both.size else (0.0, 1.0)
    if not high - low > 1e-12 * max(abs(low), abs(high)):
        room = abs(low) * 1e-3 or 1.0
        low, high = low - room, high + room
    edges = np.linspace(low, high, _BINS + 1)
    return edges, np.histogram(mine, edges)[0], np.histogram(theirs, edges)[0]


def _error_histogram(gap: Array) -> tuple[Array, Array, float]:
    """Edges (powers of ten), counts of the differences that are not 0, and the share of those that are."""
    every = max(1, -(-gap.size // _SAMPLE))
    flat = gap.reshape(-1)[::every].astype(np.float64)
    real = flat[(flat > 0) & np.isfinite(flat)]
    equal = float(np.count_nonzero(flat == 0)) / flat.size
    if not real.size:
        return np.zeros(0), np.zeros(0, int), equal
    logs = np.log10(real)
    low, high = float(np.floor(logs.min())), float(np.ceil(logs.max()))
    edges = np.linspace(low, max(high, low + 1), _ERROR_BINS + 1)
    return edges, np.histogram(logs, edges)[0], equal


def _worst(gap: Array, actual: Array, expected: Array) -> tuple[Element, ...]:
    flat = gap.reshape(-1)
    count = min(_WORST, flat.size)
    found = np.argpartition(flat, flat.size - count)[flat.size - count :]
    # Equal differences stand in the tensor's order, so that the same tensors always show the same elements.
    ordered = sorted((int(i) for i in found if flat[i] > 0), key=lambda i: (-float(flat[i]), i))
    return tuple(
        Element(
            tuple(int(n) for n in np.unravel_index(i, gap.shape)),
            float(expected.reshape(-1)[i]),
            float(actual.reshape(-1)[i]),
        )
        for i in ordered
    )
