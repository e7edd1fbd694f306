"""Pooling over regions of interest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, by, flag, numbers, pair, setting, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class ROIPooling(Kind):
    """The maximum or mean of each cell of a region of a map, one output per region (nnroipooling.cu:118-170).

    The second input has a column [image u1 v1 u2 v2] for each region, all counted from 1, u to the right. A corner is
    transformed, u' = T(u - 1) + 1, and rounded; what no cell of the map reaches is 0.

    Attributes:
        method: `"max"` or `"avg"`.
        subdivisions: (h, w), into how many cells a region is divided.
        transform: the 2×3 matrix that takes (u, v, 1) to the map's, column by column.
        flatten: whether a region's result is 1×1×(h·w·c), column-major.
    """

    matconvnet: ClassVar = ("dagnn.ROIPooling",)

    method: str = "max"
    subdivisions: tuple[int, int] = (6, 6)
    transform: tuple[float, ...] = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    flatten: bool = False

    def words(self) -> list[str]:
        """With its subdivisions, and its transform where it has one."""
        parts = [f"{self.method} pool of regions {by(self.subdivisions)}"]
        if self.transform != (1, 0, 0, 1, 0, 0):
            parts.append("transform " + " ".join(f"{t:g}" for t in self.transform))
        return [*parts, *(["flat"] if self.flatten else [])]

    def reach(self) -> Reach | None:
        """It depends on the regions."""
        return None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """(h, w, c) of the subdivisions, or flat."""
        channels = inputs[0][-1]
        h, w = self.subdivisions
        return (1, 1, None if channels is None else h * w * channels) if self.flatten else (h, w, channels)

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """X (n, c, h, w) and regions (5 numbers each, column-major) → (regions, c, h', w')."""
        import torch

        x, regions = inputs
        flat = regions.detach().permute(0, 1, 3, 2).reshape(-1)
        if flat.numel() % 5:
            raise ValueError(f"its regions are {flat.numel()} numbers, not five each")
        bins = [self._bins(x, region) for region in flat.reshape(-1, 5).cpu().numpy()]
        cells = [[_pooled(x[image], self.method, context.ties, *cell) for cell in places] for image, places in bins]
        y = torch.stack([torch.stack(row, -1) for row in cells]) if cells else x.new_zeros(0, x.shape[1], 1)
        h, w = self.subdivisions
        if self.flatten:  # y lists a region's cells row by row
            return y.reshape(-1, x.shape[1], h, w).transpose(2, 3).reshape(y.shape[0], -1, 1, 1)
        return y.reshape(-1, x.shape[1], h, w)

    def _bins(self, x: torch.Tensor, region: np.ndarray) -> tuple[int, list[tuple[int, int, int, int]]]:
        """The image of a region, and (top, bottom, left, right) of each of its cells, row by row."""
        t = self.transform
        kind = region.dtype.type  # the kernel computes in the data's own precision

        def moved(u: Any, v: Any) -> tuple[int, int]:
            return (
                _rounded(kind(t[0]) * u + kind(t[2]) * v + kind(t[4])) - 1,
                _rounded(kind(t[1]) * u + kind(t[3]) * v + kind(t[5])) - 1,
            )

        image, u1, v1, u2, v2 = region
        left, top = moved(u1, v1)
        right, bottom = moved(u2, v2)
        extents = x.shape[2:]
        spans: list[list[tuple[int, int]]] = []
        for start, end, parts, extent in zip((top, left), (bottom, right), self.subdivisions, extents, strict=True):
            size = kind(max(end - start + 1, 1) / parts)
            spans.append(
                [
                    (
                        _clip(math.floor(kind(i) * size) + start, extent),
                        _clip(math.ceil(kind(i + 1) * size) + start, extent),
                    )
                    for i in range(parts)
                ]
            )
        chosen = min(max(int(image) - 1, 0), x.shape[0] - 1)
        return chosen, [(*rows, *columns) for rows in spans[0] for columns in spans[1]]

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> ROIPooling:
        """A `dagnn.ROIPooling` block; its transform is one factor, one for each axis, or a 2×3 matrix."""
        method, subdivisions = setting(layer, "method", text), setting(layer, "subdivisions", pair)
        if method not in ("max", "avg"):
            raise ValueError(f"its method is {method!r}, not 'max' or 'avg'")
        if not (min(subdivisions) >= 1 and max(subdivisions) <= _MOST):
            raise ValueError(f"its subdivisions {subdivisions} are out of range")
        given = setting(layer, "transform", numbers)
        if len(given) in (1, 2):  # about the corner of the map, which is at 1
            a, b = given[0], given[-1]
            given = [a, 0.0, 0.0, b, 1 - a, 1 - b]
        if len(given) != 6 or not all(map(math.isfinite, given)):
            raise ValueError(f"its transform has {len(given)} numbers, not 1, 2 or 6")
        return cls(method, subdivisions, tuple(given), setting(layer, "flatten", flag))


_MOST = 1000


def _rounded(value: Any) -> int:
    """C's round: halves go away from zero. What is not finite, or beyond any map, is at its edge."""
    value = float(value)
    if not abs(value) < 1e9:
        return 0 if value != value else int(math.copysign(10**9, value))
    whole = math.trunc(value)
    return whole + (int(math.copysign(1, value)) if abs(value - whole) >= 0.5 else 0)


def _clip(value: int, extent: int) -> int:
    return min(max(value, 0), extent)


def _pooled(x: torch.Tensor, method: str, ties: str, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    """The maximum (`ties` as `Context` has it) or mean of a part of x (c, h, w), for each c."""
    if bottom <= top or right <= left:
        return x.new_zeros(x.shape[0])
    part = x[:, top:bottom, left:right]
    part = (part if ties == "row" else part.transpose(1, 2)).flatten(1)
    if method == "max":
        return part.amax(1) if ties == "shared" else part.max(1).values
    return part.mean(1)
