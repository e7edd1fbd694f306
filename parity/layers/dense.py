"""A fully connected layer on the last axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class Dense(Kind):
    """y = x·W + b over the last axis. MatConvNet has none: there it is a convolution that covers the map.

    Attributes:
        units: output channels.
        bias: whether it has one.
    """

    roles: ClassVar = {"kernel": "i o", "bias": "o"}
    causes: ClassVar = {"bias": "bias-missing"}
    keras: ClassVar = ("Dense",)

    units: int = 0
    bias: bool = True
