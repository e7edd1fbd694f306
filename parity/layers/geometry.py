"""Extents of windows that slide over a map: what convolution, pooling and padding have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parity.layers.base import Reach

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["grown_extent", "out_extent", "pads_of", "same_pads", "window_reach", "window_shape"]


def out_extent(extent: int | None, size: int, stride: int, before: int, after: int, dilate: int = 1) -> int | None:
    """Positions of a window along one axis: floor((n + before + after - reach) / stride) + 1 (vl_nnconv.cu:325-331).

    Args:
        extent: cells of the map; None where unknown.
        size: cells of the window.
        stride: cells between two positions.
        before: cells of padding before the map.
        after: cells of padding after it.
        dilate: distance between two cells of the window.

    Raises:
        ValueError: the window is larger than the padded map.
    """
    if extent is None:
        return None
    reach = (size - 1) * dilate + 1
    padded = extent + before + after
    if padded < reach:
        raise ValueError(f"a window of {reach} cells does not fit into {padded}")
    return (padded - reach) // stride + 1


def same_pads(extent: int, size: int, stride: int, dilate: int = 1) -> tuple[int, int]:
    """Cells before and after that Keras' `same` adds: the odd one goes after (tensorflow's SAME)."""
    total = max((-(-extent // stride) - 1) * stride + (size - 1) * dilate + 1 - extent, 0)
    return total // 2, total - total // 2


def pads_of(
    pad: Sequence[int] | None, extents: Sequence[int], size: Sequence[int], stride: Sequence[int], dilate: Sequence[int]
) -> tuple[int, ...]:
    """(before, after) of each axis in turn: `pad`, or what `same` (None) comes to on these extents.

    Cells after the map that no window reaches are left out, unless the pads are symmetric as they are: padding by hand
    copies the map, and MatConvNet files often pad [0 1 0 1] where nothing needs it.
    """
    if pad is None:
        return tuple(p for axis in zip(extents, size, stride, dilate, strict=True) for p in same_pads(*axis))
    if all(pad[2 * a] == pad[2 * a + 1] for a in range(len(extents))):
        return tuple(pad)
    trimmed: list[int] = []
    for a, extent in enumerate(extents):
        before, after = pad[2 * a], pad[2 * a + 1]
        reach = (size[a] - 1) * dilate[a] + 1
        last = (extent + before + after - reach) // stride[a] * stride[a] + reach
        trimmed += [before, min(after, max(last - extent - before, 0))]
    return tuple(trimmed)


def window_shape(
    extents: Sequence[int | None],
    size: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int] | None,
    dilate: Sequence[int] | None = None,
) -> tuple[int | None, ...]:
    """The map's extents after a window has slid over it; raises ValueError where it does not fit.

    Args:
        extents: (h, w), or as many axes as there are.
        size: window per axis.
        stride: per axis.
        pad: (before, after) of each axis in turn; None for Keras' `same`.
        dilate: per axis; None for ones.
    """
    rank = len(extents)
    if not len(size) == len(stride) == rank or (pad is not None and len(pad) != 2 * rank):
        raise ValueError(f"a window over {len(size)} axes on a map of {rank}")
    if pad is None:
        return tuple(None if n is None else -(-n // s) for n, s in zip(extents, stride, strict=True))
    dilate = dilate or (1,) * rank
    return tuple(out_extent(extents[a], size[a], stride[a], pad[2 * a], pad[2 * a + 1], dilate[a]) for a in range(rank))


def grown_extent(extent: int | None, size: int, upsample: int, before: int, after: int, dilate: int = 1) -> int | None:
    """Cells along one axis behind a transposed convolution: (n - 1)·upsample + reach - before - after.

    Source: vl_nnconvt.cu:291-294.

    Args:
        extent: cells of the map; None where unknown.
        size: cells of the filter.
        upsample: cells between the places of two input cells.
        before: cells cropped before; negative ones are added.
        after: cells cropped after.
        dilate: distance between two cells of the filter.

    Raises:
        ValueError: nothing is left.
    """
    if extent is None:
        return None
    whole = (extent - 1) * upsample + (size - 1) * dilate + 1
    if whole - before - after < 1:
        raise ValueError(f"a crop of {before + after} cells leaves nothing of {whole}")
    return whole - before - after


def window_reach(
    size: Sequence[int], stride: Sequence[int], pad: Sequence[int] | None, dilate: Sequence[int] | None = None
) -> Reach:
    """The receptive field of a window (dagnn/Filter.m, `getReceptiveFields`); `same` (None) counts as centred."""
    rank = len(size)
    spans = [(k - 1) * d + 1 for k, d in zip(size, dilate or (1,) * rank, strict=True)]
    befores = [(span - 1) // 2 for span in spans] if pad is None else [pad[2 * a] for a in range(rank)]
    offsets = tuple(1 - before + (span - 1) / 2 for span, before in zip(spans, befores, strict=True))
    return Reach(tuple(map(float, spans)), tuple(map(float, stride)), offsets)
