"""CuDNNLSTM and CuDNNGRU (Keras 2.1–2.3), which need a GPU, as the plain layers that compute the same.

Source: keras 2.2.4, `engine/saving.py`, `_convert_rnn_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.frameworks.keras.stored import Stored

__all__ = ["plain_rnn", "plain_weights", "uses_cudnn"]

_GATES = {"CuDNNLSTM": 4, "CuDNNGRU": 3}


def uses_cudnn(item: Any) -> bool:
    """Whether a configuration has such a layer."""
    if isinstance(item, Mapping):
        return item.get("class_name") in _GATES or any(uses_cudnn(part) for part in item.values())
    return isinstance(item, list) and any(uses_cudnn(part) for part in item)


def plain_rnn(item: Any) -> Any:
    """The same configuration with plain layers."""
    if isinstance(item, list):
        return [plain_rnn(part) for part in item]
    if not isinstance(item, Mapping):
        return item
    made = {key: plain_rnn(part) for key, part in item.items()}
    name = made.get("class_name")
    if name in _GATES and isinstance(made.get("config"), Mapping):
        settings = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}
        if name == "CuDNNGRU":
            settings["reset_after"] = True
        made |= {"class_name": str(name).removeprefix("CuDNN"), "config": {**made["config"], **settings}}
    return made


def plain_weights(entry: Mapping[str, Any], arrays: Sequence[Stored]) -> tuple[Stored, ...]:
    """The arrays of such a leaf as the plain layer has them; others as they are.

    CuDNN keeps each gate's kernel transposed, and two biases: LSTM adds them, GRU with `reset_after` keeps both.
    """
    name, config = str(entry.get("class_name", "")), entry.get("config")
    inner = config.get("layer") if isinstance(config, Mapping) else None
    if name in ("Bidirectional", "TimeDistributed") and isinstance(inner, Mapping):
        half = len(arrays) // 2 if name == "Bidirectional" else len(arrays)
        parts = [arrays[:half], arrays[half:]] if name == "Bidirectional" else [arrays]
        return tuple(stored for part in parts for stored in plain_weights(inner, part))
    if name not in _GATES or len(arrays) != 3:
        return tuple(arrays)
    gates = _GATES[name]
    kernel, recurrent, bias = arrays
    made = [_transposed(kernel, gates, True), _transposed(recurrent, gates, False)]
    units = bias.shape[0] // 2
    if name == "CuDNNLSTM":
        made.append(_of(bias, (units,), lambda b: b.reshape(2, -1).sum(axis=0)))
    else:
        made.append(_of(bias, (2, units), lambda b: b.reshape(2, -1)))
    return tuple(made)


def _transposed(stored: Stored, gates: int, kernel: bool) -> Stored:
    def change(array: np.ndarray) -> np.ndarray:
        parts = np.split(array, gates, axis=1)
        return np.hstack([part.T.reshape(part.shape, order="F") if kernel else part.T for part in parts])

    return _of(stored, stored.shape, change)


def _of(stored: Stored, shape: tuple[int, ...], change: Any) -> Stored:
    return replace(stored, shape=shape, parts=(stored,), change=lambda arrays: change(arrays[0]))
