"""What a weight is made to meet after every update: Keras' constraints in numpy, by class.

A new one is a function here and a line in `BOUNDS`. Source: keras/src/constraints/constraints.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["BOUNDS", "bounded"]

Array = np.ndarray

_EPSILON = 1e-7
"""`keras.config.epsilon()`, which keeps a norm off zero."""


def bounded(value: Array, constraint: Mapping[str, Any]) -> Array:
    """A weight as its constraint leaves it, in its own class.

    Args:
        value: the whole weight in Keras' axes.
        constraint: `class_name` and `config`; a class that is not known, or none, leaves the weight as it is.
    """
    law = BOUNDS.get(str(constraint.get("class_name", "")))
    return value if law is None else law(value, constraint.get("config") or {}).astype(value.dtype)


def _norms(value: Array, of: Mapping[str, Any]) -> Array:
    axis = of.get("axis", 0)
    axes = tuple(axis) if isinstance(axis, list | tuple) else axis
    return np.sqrt(np.sum(np.square(value), axis=axes, keepdims=True))


def _max_norm(value: Array, of: Mapping[str, Any]) -> Array:
    norms = _norms(value, of)
    return value * (np.clip(norms, 0, of.get("max_value", 2.0)) / (_EPSILON + norms))


def _min_max_norm(value: Array, of: Mapping[str, Any]) -> Array:
    norms, rate = _norms(value, of), of.get("rate", 1.0)
    wanted = rate * np.clip(norms, of.get("min_value", 0.0), of.get("max_value", 1.0)) + (1 - rate) * norms
    return value * (wanted / (_EPSILON + norms))


def _unit_norm(value: Array, of: Mapping[str, Any]) -> Array:
    return value / (_EPSILON + _norms(value, of))


def _non_negative(value: Array, of: Mapping[str, Any]) -> Array:
    return value * (value >= 0)


BOUNDS: Mapping[str, Callable[[Array, Mapping[str, Any]], Array]] = {
    "MaxNorm": _max_norm,
    "MinMaxNorm": _min_max_norm,
    "NonNeg": _non_negative,
    "UnitNorm": _unit_norm,
}
"""Keras' class → (a weight, its settings) → the weight within its bounds."""
