"""Dropout, inverted: what is kept is scaled up in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class Dropout(Kind):
    """x·mask/(1 - rate) in train mode, identity in eval mode (vl_nndropout.m; Keras Dropout).

    Attributes:
        rate: the share that is dropped.
        spatial: True where whole channels are dropped together.
    """

    causes: ClassVar = {"rate": "dropout-rate"}
    matconvnet: ClassVar = ("dropout", "dagnn.DropOut")
    keras: ClassVar = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")

    rate: float = 0.5
    spatial: bool = False
