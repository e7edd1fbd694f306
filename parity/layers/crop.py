"""Cutting cells off a map, by number or to the size of another map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, pair, same, setting
from parity.layers.keras_fields import extents, require_channels_last

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Crop(Kind):
    """Cells taken off the map (vl_nncrop.m; Keras Cropping2D), or as many as make it as large as a second input.

    Attributes:
        crop: (top, bottom, left, right); where a second input decides, None until the extents are known.
        offset: (y, x), with a second input: cells taken off before, as far as there are too many (dagnn/Crop.m); None
            without.
    """

    causes: ClassVar = {"crop": "padding-size"}
    matconvnet: ClassVar = ("dagnn.Crop",)
    keras: ClassVar = ("Cropping2D", "Cropping1D", "Cropping3D")

    crop: tuple[int, ...] | None = (0, 0, 0, 0)
    offset: tuple[int, int] | None = None

    def words(self) -> list[str]:
        """With its cells, where they are known."""
        return ["crop to the size of its second input" if self.crop is None else f"crop {same(self.crop)}"]

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Cropping1D, 2D, 3D."""
        require_channels_last(config)
        rank = int(class_name[-2])
        raw = config.get("cropping", 1)
        pairs = [raw] * rank if isinstance(raw, int) else ([raw] if rank == 1 else list(raw))
        return cls(tuple(cell for pair in pairs for cell in extents(pair, 2)))

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Crop:
        """A `dagnn.Crop` block, of a map and of the one that it is to be as large as."""
        offset = setting(layer, "crop", pair)
        if min(offset) < 0:
            raise ValueError(f"its crop {offset} is out of range")
        return cls(None, offset)

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> Crop:
        """Where a second input decides, the cells that come off."""
        if self.offset is None or len(inputs) < 2 or any(n is None for shape in inputs for n in shape[:2]):
            return self
        return replace(self, crop=self._cells(*((int(s[0] or 0), int(s[1] or 0)) for s in inputs[:2])))

    def _cells(self, own: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
        assert self.offset is not None
        cells: list[int] = []
        for extent, wanted, first in zip(own, other, self.offset, strict=True):
            if extent < wanted:
                raise ValueError(f"it cannot cut {extent} cells to {wanted}")
            after = max(0, extent - wanted - first)
            cells += [extent - wanted - after, after]
        return tuple(cells)

    def keras_line(self, field_name: str) -> str:
        """The constructor argument."""
        crop = self.crop or ()
        sides = ", ".join(f"({crop[i]}, {crop[i + 1]})" for i in range(0, len(crop), 2))
        return f"cropping=({sides})" if field_name == "crop" and crop else ""

    def reach(self) -> Reach:
        """One cell, further on by what comes off before it (dagnn/Crop.m, `getReceptiveFields`)."""
        befores = self.offset if self.crop is None else self.crop[::2]
        ones = (1.0,) * len(befores or ())
        return Reach(ones, ones, tuple(1.0 + before for before in befores or ()))

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """Each spatial extent shrinks by its two crops, or to that of the second input."""
        *spatial, channels = inputs[0]
        if self.crop is None:
            return (*inputs[1][:2], channels) if len(inputs) > 1 else None
        crop = self.crop
        shrunk = tuple(n if n is None else n - crop[2 * a] - crop[2 * a + 1] for a, n in enumerate(spatial))
        if any(n is not None and n < 1 for n in shrunk):
            raise ValueError(f"a crop of {' '.join(map(str, crop))} leaves nothing")
        return (*shrunk, channels)

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The inside of the map."""
        x = inputs[0]
        crop = self.crop
        if self.offset is not None and len(inputs) > 1:
            crop = self._cells(tuple(x.shape[2:]), tuple(inputs[1].shape[2:]))
        if crop is None:
            raise ValueError("the map that it is cut to is missing")
        top, bottom, left, right = crop
        return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
