"""Batch normalisation as Keras 2.1 to 2.3 computed it, before Keras was part of tensorflow; tf_keras runs its files.

Three things were other then (keras 2.1.6, `layers/normalization.py` and `backend/tensorflow_backend.py`; third steps
that it recorded agree with them to 1e-5):

- a frozen layer still normalises by the batch in training; only its moving statistics stay (since 2.1.3);
- the moving statistics are tensorflow's with `zero_debias`: an average over the batches seen so far, which forgets
  where it started from. Its count is not in the file; the optimizer's stands in;
- the moving variance is that of the batch times n/(n - 1 - epsilon), on top of the n/(n - 1) of the fused kernel.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.frameworks.keras.engine import Engine

__all__ = ["as_standalone", "average_of", "normalises_when_frozen"]

_SEEN = "_batches_averaged"


def normalises_when_frozen(version: str) -> bool:
    """Whether a frozen batch normalisation of this Keras normalises by the batch in training, like any other."""
    return re.fullmatch(r"2\.([123])\.\d+", version) is not None


def as_standalone(engine: Engine, model: Any, version: str, backend: str, steps: int) -> None:
    """Gives a model's batch normalisations the arithmetic of the Keras that wrote its file, if that was one of these.

    Args:
        engine: what runs it.
        model: with its weights.
        version: of the Keras that wrote the file.
        backend: of that Keras; the moving averages of another one than tensorflow's are ordinary.
        steps: updates behind it.
    """
    if engine.modern or not normalises_when_frozen(version):
        return
    for layer in model._flatten_layers(include_self=False):
        if type(layer).__name__ != "BatchNormalization":
            continue
        if not layer.trainable:
            layer._USE_V2_BEHAVIOR = False  # which is what makes a frozen layer leave the batch alone
        if backend in ("", "tensorflow"):
            setattr(layer, _SEEN, steps)


def average_of(layer: Any, count: int, *, advance: bool) -> tuple[float, float] | None:
    """How such a layer averages its next batch: the batch's weight, and the factor on its variance.

    None for every other layer. It holds where a file's training goes on; a comparison that starts anew from given
    weights takes tf_keras' own law.

    Args:
        layer: a batch normalisation.
        count: elements per channel of the batch.
        advance: whether the batch counts as averaged now.
    """
    seen = getattr(layer, _SEEN, None)
    if seen is None:
        return None
    if advance:
        setattr(layer, _SEEN, seen + 1)
    share = (1 - layer.momentum) / (1 - layer.momentum ** (seen + 1))
    factor = count / (count - 1 - layer.epsilon) if count > 1 else 1.0
    fused = bool(getattr(layer, "fused", False))
    return share, factor * (count / (count - 1) if fused and count > 1 else 1.0)
