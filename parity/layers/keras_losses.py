"""Keras' losses by name: every spelling that a file may have, their settings, and which are one and the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["DEFAULTS", "IN_CODE", "KERAS_WORDS", "class_of", "settings_of", "word_of"]

_ALIASES = {
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "kldivergence": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "cosine_proximity": "cosine_similarity",
    "cosine_loss": "cosine_similarity",
    "cosine": "cosine_similarity",
    "logcosh": "log_cosh",
    "log_cosh_error": "log_cosh",
    "huber_loss": "huber",
    "categorical_generalized_crossentropy": "categorical_generalized_cross_entropy",
}

_CLASSES = {
    "kl_divergence": "KLDivergence",
    "ctc": "CTC",
}

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "mean_squared_error": {},
    "mean_absolute_error": {},
    "mean_absolute_percentage_error": {},
    "mean_squared_logarithmic_error": {},
    "hinge": {},
    "squared_hinge": {},
    "categorical_hinge": {},
    "huber": {"delta": 1.0},
    "log_cosh": {},
    "kl_divergence": {},
    "poisson": {},
    "cosine_similarity": {"axis": -1},
    "categorical_crossentropy": {"axis": -1},
    "sparse_categorical_crossentropy": {"axis": -1, "ignore_class": None},
    "binary_crossentropy": {"from_logits": False, "axis": -1},
    "binary_focal_crossentropy": {
        "from_logits": False,
        "axis": -1,
        "apply_class_balancing": False,
        "alpha": 0.25,
        "gamma": 2.0,
    },
    "categorical_focal_crossentropy": {"from_logits": False, "axis": -1, "alpha": 0.25, "gamma": 2.0},
    "categorical_generalized_cross_entropy": {"q": 0.5},
    "dice": {"axis": None},
    "tversky": {"alpha": 0.5, "beta": 0.5, "axis": None},
    "circle": {"gamma": 80.0, "margin": 0.4, "remove_diagonal": True},
    "ctc": {},
}
"""Loss → the settings that change what it computes (reduction and label smoothing apart), with Keras' defaults.

Source: keras/src/losses/losses.py. What `from_logits` says of the categorical cross-entropies is a word of its own:
`softmaxlog` or `log`.
"""

KERAS_WORDS: Mapping[str, tuple[str, tuple[tuple[str, Any], ...]]] = {
    "mean_hinge": ("hinge", ()),
    "hinge": ("hinge", ()),
    "logistic": ("binary_crossentropy", (("from_logits", True),)),
    "binarylog": ("binary_crossentropy", ()),
}
"""The vocabulary's word → Keras' own and its settings. Of several attributes vl_nnloss adds up the costs, and Keras
takes their mean."""

IN_CODE: Mapping[str, str] = {
    "mhinge": "lambda y, p: ops.relu(1 - ops.sum(ops.one_hot(y[..., 0], p.shape[-1]) * p, -1))",
    "mshinge": (
        "lambda y, p: ops.relu(1 - ops.sum(ops.one_hot(y[..., 0], p.shape[-1]) * p, -1)"
        " + ops.max(p - 1e30 * ops.one_hot(y[..., 0], p.shape[-1]), -1))"
    ),
}
"""Losses of vl_nnloss.m that Keras does not have → the code of one, with `from keras import ops`."""


def word_of(name: str) -> str:
    """A loss' function name: `MeanSquaredError`, `MSE` and `mse` are `mean_squared_error`."""
    name = name.split(">")[-1].split(".")[-1]
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return _ALIASES.get(snake, snake)


def class_of(name: str) -> str:
    """A loss' class in Keras, or an empty string for one that Keras does not have."""
    word = word_of(name)
    if word not in DEFAULTS:
        return ""
    return _CLASSES.get(word, "".join(part.capitalize() for part in word.split("_")))


def settings_of(name: str, config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The settings of a loss that are not Keras' defaults, sorted by name."""
    known = DEFAULTS.get(word_of(name), {})
    found: list[tuple[str, Any]] = []
    for key, default in known.items():
        value = config.get(key, default)
        value = tuple(value) if isinstance(value, list) else value
        if value != default:
            found.append((key, value))
    return tuple(sorted(found))
