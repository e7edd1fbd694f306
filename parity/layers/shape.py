"""Layers that only move values about: flatten, reshape, pad, crop, slice, identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Kind
from parity.layers.keras_fields import extents, require_channels_last

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from parity.network import Shape


@dataclass(frozen=True)
class Identity(Kind):
    """y = x."""

    keras: ClassVar = ("Identity", "ActivityRegularization", "InputLayer")

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Layers that hand their input on."""
        return cls()


@dataclass(frozen=True)
class Flatten(Kind):
    """(h, w, c) → (h·w·c,) in row-major order of h, w, c."""

    keras: ClassVar = ("Flatten",)

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The Flatten layer."""
        require_channels_last(config)
        return cls()


@dataclass(frozen=True)
class Reshape(Kind):
    """Another shape for the same values, row-major.

    Attributes:
        target: the shape without the batch axis; -1 once for the rest.
    """

    keras: ClassVar = ("Reshape",)

    target: tuple[int, ...] = ()

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The Reshape layer."""
        return cls(tuple(int(v) for v in config["target_shape"]))

    def keras_line(self, field_name: str) -> str:
        """`target_shape=...`."""
        return f"target_shape={self.target}" if field_name == "target" else ""


@dataclass(frozen=True)
class Pad(Kind):
    """Cells around the map.

    Attributes:
        pad: (top, bottom, left, right).
        value: what they hold.
    """

    causes: ClassVar = {"pad": "padding-size"}
    keras: ClassVar = ("ZeroPadding2D", "ZeroPadding1D", "ZeroPadding3D")

    pad: tuple[int, ...] = (0, 0, 0, 0)
    value: float = 0.0

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """ZeroPadding1D, 2D, 3D."""
        require_channels_last(config)
        rank = int(class_name[-2])
        raw = config.get("padding", 1)
        pairs = [raw] * rank if isinstance(raw, int) else ([raw] if rank == 1 else list(raw))
        return cls(tuple(cell for pair in pairs for cell in extents(pair, 2)))

    def keras_line(self, field_name: str) -> str:
        """The layer with these cells."""
        sides = ", ".join(f"({self.pad[i]}, {self.pad[i + 1]})" for i in range(0, len(self.pad), 2))
        return f"ZeroPadding2D(({sides}))" if field_name == "pad" else ""


@dataclass(frozen=True)
class Crop(Kind):
    """Cells taken off the map.

    Attributes:
        crop: (top, bottom, left, right).
    """

    keras: ClassVar = ("Cropping2D", "Cropping1D", "Cropping3D")

    crop: tuple[int, ...] = (0, 0, 0, 0)

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Cropping1D, 2D, 3D."""
        require_channels_last(config)
        rank = int(class_name[-2])
        raw = config.get("cropping", 1)
        pairs = [raw] * rank if isinstance(raw, int) else ([raw] if rank == 1 else list(raw))
        return cls(tuple(cell for pair in pairs for cell in extents(pair, 2)))

    def keras_line(self, field_name: str) -> str:
        """The layer with these cells."""
        sides = ", ".join(f"({self.crop[i]}, {self.crop[i + 1]})" for i in range(0, len(self.crop), 2))
        return f"Cropping2D(({sides}))" if field_name == "crop" else ""


@dataclass(frozen=True)
class Slice(Kind):
    """A range of one axis.

    Attributes:
        axis: counted from the end, -1 the channels.
        start: first index.
        stop: index past the last one.
    """

    axis: int = -1
    start: int = 0
    stop: int = 0


@dataclass(frozen=True)
class Split(Kind):
    """Several consecutive ranges of one axis, one output each.

    Attributes:
        axis: counted from the end, -1 the channels.
        bounds: indices at which the axis is cut.
    """

    axis: int = -1
    bounds: tuple[int, ...] = ()
