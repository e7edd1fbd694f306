"""Layers that Keras lacks, as classes of the Keras at hand. It imports nothing of parity."""

from __future__ import annotations

from typing import Any

__all__ = ["OWN", "own_layer"]

OWN = ("LocalResponse",)
"""Their names."""

_MADE: dict[str, Any] = {}


def own_layer(keras: Any, name: str) -> Any:
    """The class of this name, made once for each Keras; None for a name that is not among them.

    Args:
        keras: the module `keras` or `tf_keras`.
        name: as in `OWN`.
    """
    if name not in OWN:
        return None
    home = keras.__name__.split(".")[0]
    if home not in _MADE:
        _MADE[home] = _local_response(keras)
    return _MADE[home]


def _local_response(keras: Any) -> Any:
    if hasattr(keras, "ops"):
        square, pad, power = keras.ops.square, keras.ops.pad, keras.ops.power
    else:
        import tensorflow as tf

        square, pad, power = tf.square, tf.pad, tf.pow

    @keras.saving.register_keras_serializable("parity")
    class LocalResponse(keras.layers.Layer):
        """x·(kappa + alpha·Σ x²)^-beta over a window of channels (n … c); alpha is not divided by the window.

        The window of channel k starts at k - floor((size - 1)/2), as MatConvNet's does (nnnormalize.cu:159-160).
        """

        def __init__(
            self, size: int = 5, kappa: float = 1.0, alpha: float = 2e-5, beta: float = 0.75, **options: Any
        ) -> None:
            super().__init__(**options)
            self.size, self.kappa, self.alpha, self.beta = size, kappa, alpha, beta

        def call(self, inputs: Any) -> Any:
            """The response of each channel, in the shape of the inputs."""
            before, channels = (self.size - 1) // 2, inputs.shape[-1]
            around = [[0, 0]] * (len(inputs.shape) - 1) + [[before, self.size - 1 - before]]
            squares: Any = pad(square(inputs), around)
            total = sum(squares[..., i : i + channels] for i in range(self.size))
            return inputs * power(self.kappa + self.alpha * total, -self.beta)

        def get_config(self) -> dict[str, Any]:
            """The constructor's arguments."""
            own = {"size": self.size, "kappa": self.kappa, "alpha": self.alpha, "beta": self.beta}
            return {**super().get_config(), **own}

    return LocalResponse
