"""An affine map with constants from the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from parity.layers.base import Kind


@dataclass(frozen=True)
class Rescale(Kind):
    """y = x·scale + offset (Keras Rescaling)."""

    keras: ClassVar = ("Rescaling",)

    scale: float = 1.0
    offset: float = 0.0
