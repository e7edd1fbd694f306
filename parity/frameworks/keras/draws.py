"""What Keras' own layers drop inside themselves, such as an LSTM of its inputs, drawn alike in every run.

A dropout layer of its own leaves a mask, which the other side is given. What a recurrent layer or an attention drops
shows nowhere: so that two runs, two models and two precisions can be compared, its draws are made of their shape and
their order within a call alone. The law of the draw (its rate, its shape, what is shared) stays Keras' own.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from parity.frameworks.keras.engine import Engine

__all__ = ["alike"]


@contextlib.contextmanager
def alike(engine: Engine) -> Iterator[None]:
    """Inside, Keras' dropout function keeps the same elements at the n-th call for the same shape.

    To be entered for one call of one layer.
    """
    if engine.modern:
        holder: Any = importlib.import_module("keras.src.backend").random
    else:
        holder = importlib.import_module("tf_keras.src.backend").RandomGenerator
    original: Callable[..., Any] = holder.dropout
    drawn = 0

    def dropped(inputs: Any, rate: Any, noise_shape: Any = None) -> Any:
        nonlocal drawn
        drawn += 1
        shape = [*inputs.shape] if noise_shape is None else [*noise_shape]
        shape = [own if n is None else n for n, own in zip(shape, inputs.shape, strict=True)]
        kept = np.random.default_rng(drawn).random([int(n) for n in shape]) >= rate
        backend = engine.backend
        return inputs * backend.constant(kept / (1.0 - rate), backend.dtype(inputs))

    def of_module(inputs: Any, rate: Any, noise_shape: Any = None, seed: Any = None) -> Any:
        del seed
        return dropped(inputs, rate, noise_shape)

    def of_generator(generator: Any, inputs: Any, rate: Any, noise_shape: Any = None) -> Any:
        del generator
        return dropped(inputs, rate, noise_shape)

    holder.dropout = of_module if engine.modern else of_generator
    try:
        yield
    finally:
        holder.dropout = original
