"""Layers that only move values about: flatten, reshape, pad, crop, slice, identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class Identity(Kind):
    """y = x."""

    keras: ClassVar = ("Identity", "ActivityRegularization", "InputLayer")


@dataclass(frozen=True)
class Flatten(Kind):
    """(h, w, c) → (h·w·c,) in row-major order of h, w, c."""

    keras: ClassVar = ("Flatten",)


@dataclass(frozen=True)
class Reshape(Kind):
    """Another shape for the same values, row-major.

    Attributes:
        target: the shape without the batch axis; -1 once for the rest.
    """

    keras: ClassVar = ("Reshape",)

    target: tuple[int, ...] = ()


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


@dataclass(frozen=True)
class Crop(Kind):
    """Cells taken off the map.

    Attributes:
        crop: (top, bottom, left, right).
    """

    keras: ClassVar = ("Cropping2D", "Cropping1D", "Cropping3D")

    crop: tuple[int, ...] = (0, 0, 0, 0)


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
