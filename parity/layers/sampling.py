"""Sampling a map at the points of a grid, and layers that make grids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, by, setting, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class BilinearSampler(Kind):
    """A map (h, w, c) at the points of grids (2, h', w'), bilinearly; (-1, -1) is its first cell, (1, 1) its last.

    The grid's first row is y, its second x (vl_nnbilinearsampler.m). As MatConvNet's CPU build computes it
    (nnbilinearsampler.cu:79-115): a point just before the first row or column is 0 in value and derivatives, one just
    behind the last row or column is interpolated with 0. k grids per image follow each other.

    Attributes:
        points_last: grids are maps (h', w', 2), as a grid generator of this vocabulary makes them for samplers alone;
            MatConvNet's own tensors are (2, h', w').
    """

    matconvnet: ClassVar = ("dagnn.BilinearSampler",)

    points_last: bool = False

    def words(self) -> list[str]:
        """It has no fields."""
        return ["bilinear sampler"]

    def reach(self) -> Reach | None:
        """It depends on the grid."""
        return None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """The grid's extents and the map's channels."""
        x, grid = inputs
        return (*(grid[:2] if self.points_last else grid[1:]), x[-1])

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> BilinearSampler:
        """The same, if the second input is a grid."""
        at, words = (-1, "h×w×2") if self.points_last else (0, "2×h×w")
        if len(inputs) > 1 and (len(inputs[1]) != 3 or inputs[1][at] not in (None, 2)):
            raise ValueError(f"its second input is no grid of {words}")
        return self

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Four cells around each point, weighted; x (n, c, h, w), result (k·n, c, h', w').

        The grid is (k·n, w', 2, h'), or with `points_last` (k·n, 2, h', w').
        """
        import torch

        x, grid = inputs
        images, channels, height, width = x.shape
        if grid.shape[0] % images:
            raise ValueError(f"{grid.shape[0]} grids cannot be shared by {images} images")
        grid = grid if self.points_last else grid.permute(0, 2, 3, 1)
        y = (grid[:, 0] + 1) * (0.5 * (height - 1))
        across = (grid[:, 1] + 1) * (0.5 * (width - 1))
        flat = x.flatten(2).repeat_interleave(grid.shape[0] // images, 0)
        top, left = y.detach().floor(), across.detach().floor()
        down, right = y - top, across - left
        inside = (top >= 0) & (left >= 0)
        total = x.new_zeros(())
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            row, column = top + dy, left + dx
            seen = inside & (row < height) & (column < width)
            weight = (down if dy else 1 - down) * (right if dx else 1 - right)
            at = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).nan_to_num(0).to(torch.int64)
            index = at.flatten(1).unsqueeze(1).expand(-1, channels, -1)
            cell = flat.gather(2, index).reshape(grid.shape[0], channels, *y.shape[1:])
            total = total + cell * torch.where(seen, weight, torch.zeros_like(weight)).unsqueeze(1)
        return total

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> BilinearSampler:
        """A `dagnn.BilinearSampler` block has no fields."""
        return cls()


@dataclass(frozen=True)
class _Grid(Kind):
    height: int = 0
    width: int = 0
    points_last: bool = False

    numbers_needed: ClassVar[int] = 0
    called: ClassVar[str] = "grid"

    def words(self) -> list[str]:
        """With its extents."""
        return [f"{self.called} {by((self.height, self.width))}"]

    def reach(self) -> Reach | None:
        """The whole input."""
        return None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """(2, height, width), or with `points_last` a map of two channels."""
        return (self.height, self.width, 2) if self.points_last else (2, self.height, self.width)

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> Kind:
        """The same, if its input holds as many numbers per image as the transformation has."""
        extents = inputs[0] if inputs else (None,)
        if None not in extents and tuple(extents) not in ((1, 1, self.numbers_needed), (self.numbers_needed,)):
            raise ValueError(f"it takes 1×1×{self.numbers_needed}")
        return self

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Kind:
        """A grid generator with its extents Ho and Wo."""
        height, width = setting(layer, "Ho", whole), setting(layer, "Wo", whole)
        if not (1 <= height <= _MOST and 1 <= width <= _MOST):
            raise ValueError(f"its grid is {height}×{width}, which is out of range")
        return cls(height, width)

    def grid(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Both coordinates (n, width, height) as one tensor (n, width, 2, height), or (n, 2, height, width)."""
        import torch

        return torch.stack([y, x], 1).transpose(2, 3) if self.points_last else torch.stack([y, x], 2)

    def points(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Y (1, 1, height) and x (1, width, 1) from -1 to 1, as they broadcast to (n, width, height)."""
        import torch

        y = torch.linspace(-1, 1, self.height, dtype=torch.float64).to(like.dtype)
        x = torch.linspace(-1, 1, self.width, dtype=torch.float64).to(like.dtype)
        return y.reshape(1, 1, -1), x.reshape(1, -1, 1)


@dataclass(frozen=True)
class AffineGridGenerator(_Grid):
    """Grids (2, height, width) by six numbers per image: y' = a1·y + a2·x + a5, x' = a3·y + a4·x + a6.

    Source: dagnn/AffineGridGenerator.m.

    Attributes:
        height: rows.
        width: columns.
        points_last: see `BilinearSampler`.
    """

    matconvnet: ClassVar = ("dagnn.AffineGridGenerator",)
    numbers_needed: ClassVar[int] = 6
    called: ClassVar[str] = "affine grid"

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """(n, 6, 1, 1) → the grids."""
        a = inputs[0].reshape(inputs[0].shape[0], 6, 1, 1).unbind(1)
        y, x = self.points(inputs[0])
        return self.grid(a[0] * y + a[1] * x + a[4], a[2] * y + a[3] * x + a[5])


@dataclass(frozen=True)
class UniformScalingGridGenerator(_Grid):
    """Grids (2, height, width) by three numbers per image: s·(y, x) + (ty, tx) (dagnn/UniformScalingGridGenerator.m).

    Attributes:
        height: rows.
        width: columns.
        points_last: see `BilinearSampler`.
    """

    matconvnet: ClassVar = ("dagnn.UniformScalingGridGenerator",)
    numbers_needed: ClassVar[int] = 3
    called: ClassVar[str] = "scaling grid"

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """(n, 3, 1, 1) → the grids."""
        import torch

        scale, down, right = inputs[0].reshape(inputs[0].shape[0], 3, 1, 1).unbind(1)
        y, x = self.points(inputs[0])
        zero = torch.zeros_like(y + x)
        return self.grid(scale * (y + zero) + down, scale * (x + zero) + right)


_MOST = 100_000
