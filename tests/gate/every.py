"""One small net with a layer of each kind that has a default to get wrong, and its right twin in Keras."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests import twins

LEAK, RATE = 0.1, 0.4
NORM = (5.0, 1.0, 0.02, 0.75)


def layers() -> list[dict[str, Any]]:
    """The reference's layers."""
    rng = np.random.default_rng(0)
    return [
        twins.conv("c1", rng, (3, 3, 3, 6), pad=np.array([1.0, 1, 1, 1])),
        twins.bnorm("b1", rng, 6),
        twins.relu("r1", LEAK),
        {"type": "normalize", "name": "n1", "param": np.array(NORM)},
        twins.pool("p1", "max", 3, 2, (0, 1, 0, 1)),
        {"type": "dropout", "name": "d1", "rate": RATE},
        twins.conv("fc", rng, (4, 4, 6, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]


def build() -> Any:
    """The twin."""
    import keras
    import tensorflow as tf

    def normalised(x: Any) -> Any:
        return tf.nn.local_response_normalization(x, 2, bias=NORM[1], alpha=NORM[2], beta=NORM[3])

    keras.utils.set_random_seed(0)
    norm = keras.layers.Lambda(normalised, output_shape=(8, 8, 6), name="n1")
    return twins.twin(layers(), size=(8, 8, 3), drop=("n1",), after={"r1": norm})
