"""Golden recordings of MatConvNet, and its arrays (h w c n) in the layout that parity speaks (n h w c)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from parity.frameworks.matconvnet.matfile import read
from tests import recording

TRACES = Path(__file__).parents[3] / "traces" / "matconvnet"


@functools.cache
def golden(name: str) -> dict[str, Any]:
    return read(TRACES / f"{name}.mat")


def four(array: np.ndarray) -> np.ndarray:
    """With the trailing axes of extent 1 that MATLAB drops."""
    return array.reshape(array.shape + (1,) * (4 - array.ndim))


def nhwc(array: np.ndarray) -> np.ndarray:
    """An activation h w c n as n h w c."""
    return four(array).transpose(3, 0, 1, 2)


def param(role: str, array: np.ndarray) -> np.ndarray:
    """One cell of `weights` (or a derivative of it) in the role's axes."""
    if role == "kernel":
        return four(array)
    if role in ("mean", "deviation"):
        return array[:, ("mean", "deviation").index(role)]
    return array.reshape(-1, order="F")


CELL = {"kernel": 0, "bias": 1, "gamma": 0, "beta": 1, "mean": 2, "deviation": 2}
"""Role → index in `weights`."""


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference, relative to that of what is expected; shapes must agree."""
    assert actual.shape == expected.shape, f"{actual.shape} is not {expected.shape}"
    difference = np.asarray(actual, np.float64) - np.asarray(expected, np.float64)
    size = np.sqrt(np.mean(np.square(expected, dtype=np.float64))) if expected.size else 0.0
    return float(np.sqrt(np.mean(difference**2)) / size) if size else float(np.abs(difference).max(initial=0))


def record(family: str, error: float) -> None:
    """Note one case held against MatConvNet; the end of a test run shows how many there are and the worst error."""
    recording.record("held against MatConvNet's own runs", family, error)
