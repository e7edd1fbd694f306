"""Options that the command line and the Python API share, checked in one place."""

from __future__ import annotations

import math

from parity.errors import BadUsage
from parity.report import STATUSES

__all__ = ["allowance", "tolerances"]


def tolerances(rtol: float | None, atol: float | None, *, dashes: str = "") -> tuple[float, float] | None:
    """Both tolerances, or None where neither is given.

    Args:
        rtol: relative to the reference.
        atol: absolute.
        dashes: what stands before an option's name where the user wrote it (`"--"`).

    Raises:
        BadUsage: one without the other, or not a number from 0 on.
    """
    if rtol is None or atol is None:
        if rtol is None and atol is None:
            return None
        given, missing = ("rtol", "atol") if atol is None else ("atol", "rtol")
        raise BadUsage(f"{dashes}{given} without {dashes}{missing}: give both or neither")
    for name, value in (("rtol", rtol), ("atol", atol)):
        if not (math.isfinite(value) and value >= 0):
            raise BadUsage(f"{dashes}{name} {value}: a tolerance is a number from 0 on")
    return float(rtol), float(atol)


def allowance(text: str, *, dashes: str = "") -> tuple[str, str]:
    """`STATUS:GLOB` as its two parts.

    Raises:
        BadUsage: it is not of that form, or the status is none that could be permitted.
    """
    status, _, pattern = text.partition(":")
    allowable = [word for word in STATUSES if word != "match"]
    if not pattern:
        raise BadUsage(f"{dashes}allow {text}: write STATUS:GLOB, e.g. {dashes}allow 'unpaired:aug_*'")
    if status not in allowable:
        raise BadUsage(f"{dashes}allow {text}: the status is one of {', '.join(allowable)}")
    return status, pattern
