"""Layers whose code does something else than their settings say, which no file shows."""

from __future__ import annotations

from tests.rules.planting import LARGE, SMALL, Row, disguised


def _called(change):
    """A layer whose call is another function: `change(layer, call, inputs)`."""

    def behave(base):
        class Other(base):
            def call(self, inputs, *args, **kwargs):
                return change(self, lambda x: super(Other, self).call(x, *args, **kwargs), inputs)

        return Other

    return behave


def _with(**fields):
    """A layer that works with other settings than it has."""

    def change(layer, call, inputs):
        held = {name: getattr(layer, name) for name in fields}
        for name, value in fields.items():
            object.__setattr__(layer, name, value)
        try:
            return call(inputs)
        finally:
            for name, value in held.items():
                object.__setattr__(layer, name, value)

    return _called(change)


def _swapped(layer, call, inputs):
    import keras

    mean, variance = layer.moving_mean, layer.moving_variance
    return (inputs - mean) / keras.ops.sqrt(variance + layer.epsilon) * layer.beta + layer.gamma


def _joined(layer, call, inputs):
    return call(inputs[::-1])


def _maximum(layer, call, inputs):
    import keras

    return keras.ops.maximum(*inputs)


def _of_zeros(layer, call, inputs):
    import keras

    return keras.ops.max_pool(keras.ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 1)


def _counted(layer, call, inputs):
    import keras

    return keras.ops.average_pool(keras.ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 1)


def _shifted(layer, call, inputs):
    import keras

    return call(keras.ops.roll(inputs, 1, axis=1))  # which are padded by a cell


def _steep(layer, call, inputs):
    import keras

    return keras.ops.leaky_relu(inputs, 0.1001)


def _gelu(layer, call, inputs):
    import keras

    return keras.ops.gelu(inputs, approximate=True)


def _same(layer, call, inputs):
    return inputs


def _reversed(layer, call, inputs):
    return call(inputs[..., ::-1])


def _row(cause, size, net, layer, behave, like, marks="confirmed", name="in code"):
    return Row(cause, size, net, disguised(layer, behave), f"forward {layer}", like, marks=marks, name=name)


def _smoothed(share):
    """A loss of the user's own that smooths the labels, and is written for float32 alone."""

    def plant(scene):
        def change(model):
            import keras

            class Own(keras.losses.Loss):
                def call(self, y_true, y_pred):
                    classes = y_pred.shape[-1]
                    ids = keras.ops.reshape(keras.ops.cast(y_true, "int32"), (-1,))
                    target = keras.ops.one_hot(ids, classes, dtype="float32") * (1 - share) + share / classes
                    return -keras.ops.sum(target * keras.ops.log(y_pred), -1)

            Own.__name__ = "SparseCategoricalCrossentropy"
            model.compile(optimizer=model.optimizer, loss=Own())
            return model

        scene.model = change

    return plant


def plain(base):
    """A class of the user's own that does what Keras' does."""

    class Plain(base):
        pass

    return Plain


ROWS = (
    _row("bn-epsilon", SMALL, "normal", "bn1", _with(epsilon=1.3e-5), "small bn-sigma-as-variance"),
    _row("bn-gamma-beta-swapped", LARGE, "normal", "bn1", _called(_swapped), "large bn-mean-var-swapped"),
    _row("channel-order", LARGE, "branches", "concat", _called(_joined), "large layer-missing"),
    _row("layer-missing", LARGE, "branches", "sum", _called(_maximum), "large channel-order of branches"),
    _row("pool-pad-value", LARGE, "pooled", "max1", _called(_of_zeros), "large pool-method"),
    _row("pool-avg-count-pad", LARGE, "averaged", "avg1", _called(_counted), "large pool-method"),
    _row("padding-asymmetric", LARGE, "filters", "conv1", _called(_shifted), "large padding-size"),
    _row("activation-slope", SMALL, "active", "relu1", _called(_steep), "small activation-kind", "confirmed, fixed"),
    _row("activation-kind", LARGE, "active", "relu1", _called(_gelu), "large activation-slope", "confirmed, fixed"),
    _row("activation-missing", LARGE, "active", "sig", _called(_same), "large activation-kind"),
    _row(
        "channel-order",
        LARGE,
        "filters",
        "conv1",
        _called(_reversed),
        "large kernel-flip in code",
        name="of inputs in code",
    ),
    Row(
        "loss-kind",
        SMALL,
        "normal",
        _smoothed(7e-4),
        "loss loss",
        "small loss-reduction",
        marks="confirmed",
        name="in code",
    ),
)
