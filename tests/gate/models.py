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


def slightly_wrong() -> Any:
    """An epsilon whose effect lies far below what tolerances usually allow."""
    return recorded(epsilon=6e-5)


def wrong_pad() -> Any:
    """All of the padding on one side."""
    return recorded(padding="valid")


def residual(epsilon: float = 1e-5) -> Any:
    """The twin of `traces/matconvnet/dag_resnet_netfile.mat`, whose top MatConvNet's layers on torch compute."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)

    def conv(x: Any, name: str, filters: int, size: int = 3, stride: int = 1) -> Any:
        if size > 1:
            x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        x = layers.Conv2D(filters, size, strides=stride, use_bias=False, name=name)(x)
        return layers.BatchNormalization(epsilon=epsilon, momentum=0.9, name=f"{name}_bn")(x)

    x = inputs = keras.Input((16, 16, 3), name="input")
    x = layers.ReLU(name="conv1_relu")(conv(x, "conv1", 8))
    y = layers.ReLU(name="b1a_relu")(conv(x, "b1a", 8))
    x = layers.ReLU(name="relu_s1")(layers.Add(name="sum1")([x, conv(y, "b1b", 8)]))
    y = layers.ReLU(name="b2a_relu")(conv(x, "b2a", 16, stride=2))
    x = layers.Add(name="sum2")([conv(x, "b2p", 16, 1, 2), conv(y, "b2b", 16)])
    x = layers.ReLU(negative_slope=0.1, name="relu_s2")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    return keras.Model(inputs, layers.Dense(5, name="fc")(x))


def slim(groups: int = 2, stride: int = 1) -> Any:
    """The twin of the network in `traces/gate/seed_slim.mat`, but for its biases' doubled rate."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)

    def conv(filters: int, size: int, name: str, groups: int = 1) -> Any:
        decay = {f"{role}_regularizer": keras.regularizers.L2(0.00025) for role in ("kernel", "bias")}
        return layers.Conv2D(filters, size, groups=groups, name=name, **decay)

    made = [
        keras.Input((28, 28, 1)),
        conv(8, 3, "conv1"),
        layers.MaxPooling2D(3, stride, name="pool1"),
        conv(16, 5, "conv2"),
        layers.MaxPooling2D(2, 2, name="pool2"),
        conv(32, 3, "conv3"),
        layers.MaxPooling2D(3, 1, name="pool3"),
        conv(64, 5, "conv4"),
        layers.MaxPooling2D(2, 1, name="pool4"),
        conv(32, 1, "ip1", groups),
        layers.ReLU(name="relu"),
        conv(2, 1, "classifier"),
        layers.Flatten(),
    ]
    model = keras.Sequential(made)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss=loss)
    return model
