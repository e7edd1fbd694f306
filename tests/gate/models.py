"""The Keras models of the project's own gate, built as their users build theirs."""

from __future__ import annotations

from typing import Any


def recorded(epsilon: float = 1e-5, padding: str = "same") -> Any:
    """The twin of the SimpleNN in `traces/octave/simple_*.mat`, but for its biases' doubled rate."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    decay = {"kernel_regularizer": keras.regularizers.L2(0.00025), "bias_regularizer": keras.regularizers.L2(0.00025)}
    x = inputs = keras.Input((6, 6, 2))
    if padding == "valid":
        x = layers.ZeroPadding2D(((2, 0), (2, 0)), name="shifted")(x)
    x = layers.Conv2D(4, 3, padding=padding, name="c1", **decay)(x)
    x = layers.BatchNormalization(epsilon=epsilon, momentum=0.9, name="b1")(x)
    x = layers.ReLU(name="r1")(x)
    x = layers.Rescaling(0.5, name="half")(x)
    x = layers.Conv2D(3, 6, name="c2", **decay)(x)
    model = keras.Model(inputs, layers.Flatten(name="flat")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss=loss)
    return model


def wrong_epsilon() -> Any:
    """Keras' own default."""
    return recorded(epsilon=1e-3)


def wrong_pad() -> Any:
    """All of the padding on one side."""
    return recorded(padding="valid")
