"""Numbers as one writes them."""

from __future__ import annotations

import numpy as np

__all__ = ["shortest"]


def shortest(number: float) -> float:
    """A number without the digits that single precision added to it: 0.8999999761581421 is 0.9.

    One that single precision tells from the shorter one stays as it is.
    """
    short = float(f"{number:.7g}")
    return short if np.float32(number) == np.float32(short) else number
