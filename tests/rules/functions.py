"""Activations, dropout, softmax and loss, precision."""

from __future__ import annotations

import numpy as np

from bench.faults.nets import Node
from tests.rules.planting import LARGE, SMALL, Row, behind, disguised, edit, given, together, without


def _replaced(name, kind):
    def plant(scene):
        scene.port = scene.port.replaced(name, kind=kind)

    return plant


def _hardly(name, **fields):
    """A field of a layer on both sides."""

    def plant(scene):
        scene.ref, scene.port = (net.edited(name, **fields) for net in (scene.ref, scene.port))

    return plant


def _positive(name):
    """What a layer makes is about 1, but for one channel that is about zero, on both sides."""
    return given(name, lambda w: [w[0] * 1e-4, np.where(np.arange(w[1].size) == 0, 0, 1)[None]])


def _compiled(**loss):
    return lambda scene: scene.train(loss={**scene.training.loss, **loss})


def _logits(scene):
    scene.spell(softmax="logits")
    scene.train(loss={"from_logits": False})


def _twice(scene):
    scene.port = scene.port.after("fc", Node("probabilities", "softmax", ()))


def _weighted(factor):
    def plant(scene):
        def change(model):
            model.compile(optimizer=model.optimizer, loss=model.loss, loss_weights=[factor])
            return model

        scene.model = change

    return plant


def _coarse(*names):
    """Some layers compute in few bits."""

    def plant(scene):
        def change(model):
            import keras

            for name in names:
                model.get_layer(name).dtype_policy = keras.DTypePolicy("mixed_bfloat16")
            return model

        scene.model = change

    return plant


def _policy(scene):
    scene.spell(policy="mixed_float16")


def _backwards(factor):
    """A ReLU with a gradient of its own."""

    def behave(base):
        import tensorflow as tf

        @tf.custom_gradient
        def scaled(x):
            return tf.identity(x), lambda dy: dy * factor

        class Scaled(base):
            def call(self, inputs):
                return scaled(super().call(inputs))

        return Scaled

    return behave


def _warped(size):
    """A ReLU that bends what it makes."""

    def behave(base):
        import keras

        class Warped(base):
            def call(self, inputs):
                return super().call(inputs) + size * keras.ops.sin(3 * inputs) * keras.ops.cos(inputs)

        return Warped

    return behave


ROWS = (
    Row(
        "activation-slope", LARGE, "active", edit("relu1", leak=0.2), "forward relu1", "large activation-kind", "train"
    ),
    Row("activation-slope", SMALL, "active", edit("relu1", leak=0.1001), "forward relu1", "small activation-missing"),
    Row("activation-kind", LARGE, "active", _replaced("relu3", "tanh"), "forward relu3", "large activation-slope"),
    Row(
        "activation-kind",
        LARGE,
        "active",
        _replaced("relu3", "elu"),
        "forward relu3",
        "large activation-slope",
        "train",
        name="elu",
    ),
    Row(
        "activation-kind",
        SMALL,
        "active",
        together(_positive("conv3"), _replaced("relu3", "elu")),
        "forward relu3",
        "small activation-slope",
    ),
    Row("activation-missing", LARGE, "active", without("sig"), "structure sig", "large activation-kind", "train"),
    Row(
        "activation-missing",
        SMALL,
        "active",
        together(_hardly("relu1", leak=0.9999), without("relu1")),
        "structure relu1",
        "small activation-slope",
    ),
    Row("activation-extra", LARGE, "active", behind("conv2", "tanh"), "structure extra_tanh", "large activation-kind"),
    Row(
        "activation-extra",
        SMALL,
        "active",
        behind("conv2", "relu", leak=0.9999),
        "structure extra_relu",
        "small activation-slope",
        "train",
    ),
    Row("dropout-rate", LARGE, "active", edit("drop", rate=0.4), "forward drop", "large dropout-missing", "train"),
    Row("dropout-rate", SMALL, "active", edit("drop", rate=0.50004), "forward drop", "small dropout-missing", "train"),
    Row("dropout-missing", LARGE, "active", without("drop"), "structure drop", "large dropout-rate", "train"),
    Row(
        "dropout-missing",
        SMALL,
        "active",
        together(_hardly("drop", rate=0.01), without("drop")),
        "structure drop",
        "small dropout-rate",
        "train",
    ),
    Row("softmax-missing", LARGE, "active", _logits, "loss loss", "large softmax-double", "train"),
    Row(
        "softmax-missing",
        SMALL,
        "active",
        together(given("fc", lambda w: [w[0] * 1e-4, np.log([[0.1, 0.2, 0.3, 0.4]])]), _logits),
        "loss loss",
        "small loss-reduction",
    ),
    Row("softmax-double", LARGE, "active", _twice, "structure probabilities", "large softmax-missing", "train"),
    Row(
        "softmax-double",
        SMALL,
        "active",
        together(given("fc", lambda w: [w[0] * 1e-4, w[1] * 1e-4]), _twice),
        "structure probabilities",
        "small loss-kind",
    ),
    Row("loss-reduction", LARGE, "active", _compiled(reduction="sum"), "loss loss", "large softmax-missing", "train"),
    Row("loss-reduction", SMALL, "active", _weighted(1.00007), "loss loss", "small loss-kind", "train"),
    Row("loss-kind", LARGE, "active", _compiled(kind="MeanSquaredError"), "loss loss", "large loss-reduction"),
    Row(
        "loss-kind",
        SMALL,
        "active",
        _compiled(kind="CategoricalCrossentropy", label_smoothing=1e-4),
        "loss loss",
        "small loss-reduction",
    ),
    Row("dtype-low-precision", LARGE, "active", _coarse("conv1"), "forward conv1", "small unknown"),
    Row("dtype-low-precision", SMALL, "normal", _policy, "forward conv1", "small bn-epsilon"),
    Row(
        "unknown",
        LARGE,
        "active",
        disguised("relu3", _backwards(-1.0)),
        "backward relu3",
        "large loss-reduction",
        "train",
        marks="open",
    ),
    Row(
        "unknown",
        SMALL,
        "active",
        disguised("relu3", _backwards(1.0001)),
        "backward relu3",
        "small loss-reduction",
        "train",
        marks="open",
    ),
    Row(
        "unknown",
        LARGE,
        "active",
        disguised("relu1", _warped(0.1)),
        "forward relu1",
        "large activation-kind",
        marks="open",
        name="forward",
    ),
    Row(
        "unknown",
        SMALL,
        "active",
        disguised("relu1", _warped(1e-4)),
        "forward relu1",
        "small activation-slope",
        marks="open",
        name="forward",
    ),
)
