"""Weights of the port's own, and how filters are applied."""

from __future__ import annotations

import numpy as np

from tests.rules.planting import LARGE, SMALL, Row, disguised, edit, faint, given, held, symmetric, together


def _own(cause, size, net, layer, plant, like, **more):
    return Row(cause, size, net, plant, f"weights {layer}", like, own=True, **more)


def _flip(kernel):
    return kernel[::-1, ::-1]


def _transpose(kernel):
    return kernel.swapaxes(0, 1)


def _exchange(kernel):
    return kernel.swapaxes(2, 3)


def _kernel(name, turn):
    return held(name, lambda a: [turn(a[0]), *a[1:]])


def _laid(cause, layer, turn, like, net="filters", name=""):
    """A layout at two sizes: of any filters, and of filters that it nearly leaves as they are."""
    yield _own(cause, LARGE, net, layer, _kernel(layer, turn), like, name=name)
    yield _own(cause, SMALL, net, layer, together(symmetric(layer, turn), _kernel(layer, turn)), like, name=name)


def _column_major(kernel):
    return kernel.reshape(2, 2, 4, -1).swapaxes(0, 1).reshape(kernel.shape)


def _halves(array):
    return np.roll(array, array.shape[-1] // 2, -1)


def _groups(arrays):
    return [_halves(a) for a in arrays]


def noise(size):
    def change(arrays):
        rng = np.random.default_rng(3)
        return [arrays[0] + rng.standard_normal(arrays[0].shape) * size * arrays[0].std(), *arrays[1:]]

    return change


def _element(arrays):
    arrays[0][1, 1, 1, 0] += np.float32(7e-5) * arrays[0].std()
    return arrays


def _scaled(factor):
    return lambda a: [a[0] * np.float32(factor), *a[1:]]


def _bias(change):
    return lambda a: [a[0], change(a[1])]


def _bias_element(arrays):
    arrays[1][0] *= np.float32(1.00007)
    return arrays


def no_bias(name):
    def plant(scene):
        scene.port = scene.port.edited(name, weights=scene.port[name].weights[:1])
        scene.edit(name, bias=False)

    return plant


def convolves(turn):
    """A Conv2D that turns its filters before it uses them."""

    def behave(base):
        class Turned(base):
            def convolution_op(self, inputs, kernel):
                return super().convolution_op(inputs, turn(kernel))

        return Turned

    return behave


def turned(kernel):
    import keras

    return keras.ops.flip(kernel, (0, 1))


def _sideways(kernel):
    import keras

    return keras.ops.swapaxes(kernel, 0, 1)


def biased(amount):
    """A Conv2D that adds something to its bias."""

    def behave(base):
        class Biased(base):
            def call(self, inputs):
                return super().call(inputs) + amount

        return Biased

    return behave


def _unbiased(base):
    class Unbiased(base):
        def call(self, inputs):
            return super().call(inputs) - self.bias

    return Unbiased


ROWS = (
    *_laid("kernel-flip", "conv1", _flip, "large kernel-hw-transpose"),
    *_laid("kernel-hw-transpose", "conv1", _transpose, "large kernel-flip"),
    *_laid("kernel-io-transpose", "conv1", _exchange, "large channel-order of inputs"),
    *_laid("kernel-io-transpose", "fc2", lambda k: k.swapaxes(-1, -2), "large weights-differ", "dense", "dense"),
    *_laid("flatten-order", "fc", _column_major, "large channel-order behind a flattening"),
    _own("channel-order", LARGE, "filters", "conv2", held("conv2", _groups), "large weights-differ", name="of groups"),
    _own(
        "channel-order",
        SMALL,
        "filters",
        "conv2",
        together(
            given("conv2", lambda w: [(a + _halves(a)) / 2 + 1e-4 * (a - _halves(a)) / 2 for a in w]),
            held("conv2", _groups),
        ),
        "small weights-differ",
        name="of groups",
    ),
    _own(
        "channel-order",
        LARGE,
        "filters",
        "conv1",
        _kernel("conv1", lambda k: k[:, :, ::-1]),
        "large kernel-io-transpose",
        name="of inputs",
    ),
    _own(
        "channel-order",
        LARGE,
        "filters",
        "fc",
        _kernel("fc", lambda k: k.reshape(4, 4, -1)[:, [2, 0, 3, 1]].reshape(k.shape)),
        "large flatten-order",
        name="behind a flattening",
    ),
    _own("weights-scaled", LARGE, "filters", "conv1", held("conv1", _scaled(-1.5)), "large weights-differ"),
    _own("weights-scaled", SMALL, "filters", "conv2", held("conv2", _scaled(1.00007)), "small weights-differ"),
    _own("weights-differ", LARGE, "filters", "conv1", held("conv1", noise(0.1)), "large weights-scaled"),
    _own("weights-differ", SMALL, "filters", "conv2", held("conv2", _element), "small weights-scaled"),
    _own("bias-value", LARGE, "filters", "conv1", held("conv1", _bias(lambda b: b * 0)), "large bias-missing"),
    _own("bias-value", SMALL, "filters", "conv2", held("conv2", _bias_element), "small bias-missing"),
    Row("bias-missing", LARGE, "filters", no_bias("conv1"), "structure conv1", "large bias-value", "train"),
    Row(
        "bias-missing",
        SMALL,
        "filters",
        together(given("conv2", lambda w: [w[0], w[1] * 1e-3]), no_bias("conv2")),
        "structure conv2",
        "small bias-value",
        own=True,
    ),
    # How filters are applied, which no file says.
    Row(
        "kernel-flip",
        LARGE,
        "filters",
        disguised("conv1", convolves(turned)),
        "forward conv1",
        "large kernel-hw-transpose in code",
        "train",
        marks="confirmed",
        name="in code",
    ),
    Row(
        "kernel-flip",
        SMALL,
        "filters",
        together(symmetric("conv1", _flip), disguised("conv1", convolves(turned))),
        "forward conv1",
        "large kernel-hw-transpose in code",
        marks="confirmed",
        name="in code",
    ),
    Row(
        "kernel-hw-transpose",
        LARGE,
        "filters",
        disguised("conv1", convolves(_sideways)),
        "forward conv1",
        "large kernel-flip in code",
        marks="confirmed",
        name="in code",
    ),
    Row(
        "bias-value",
        SMALL,
        "filters",
        disguised("conv1", biased(7e-5)),
        "forward conv1",
        "small bias-missing in code",
        "train",
        marks="confirmed",
        name="in code",
    ),
    Row(
        "bias-missing",
        SMALL,
        "filters",
        together(given("conv1", lambda w: [w[0], w[1] * 1e-3]), disguised("conv1", _unbiased)),
        "forward conv1",
        "small bias-value in code",
        marks="confirmed",
        name="in code",
    ),
    # Convolutions.
    Row(
        "padding-asymmetric",
        LARGE,
        "filters",
        edit("conv2", pad=(1, 1, 1, 1)),
        "forward conv2",
        "large padding-size hidden",
        "train",
    ),
    Row(
        "padding-asymmetric",
        SMALL,
        "filters",
        together(faint("conv1"), edit("conv1", pad=(2, 0, 1, 1))),
        "forward conv1",
        "small padding-size",
    ),
    Row("padding-size", LARGE, "filters", edit("conv1", pad=(0,) * 4), "structure conv1", "large conv-stride"),
    Row(
        "padding-size",
        LARGE,
        "filters",
        edit("conv3", pad=(0,) * 4),
        "forward conv3",
        "large padding-asymmetric",
        "train",
        name="hidden",
    ),
    Row(
        "padding-size",
        SMALL,
        "filters",
        together(faint("conv3"), edit("conv3", pad=(0,) * 4)),
        "forward conv3",
        "small padding-asymmetric",
    ),
    Row("conv-stride", LARGE, "filters", edit("conv3", stride=(3, 3)), "structure conv3", "large padding-size"),
    Row(
        "conv-stride",
        SMALL,
        "dilated",
        together(faint("conv2"), edit("conv2", stride=(4, 4))),
        "forward conv2",
        "small padding-size",
    ),
    Row("conv-dilation", LARGE, "dilated", edit("conv1", dilate=(1, 1)), "structure conv1", "large padding-size"),
    Row(
        "conv-dilation",
        SMALL,
        "dilated",
        together(faint("conv1"), edit("conv1", dilate=(1, 1), pad=(1, 1, 1, 1))),
        "forward conv1",
        "small padding-size",
        also=", padding-size at conv1 (confirmed, fixed)",
    ),
    Row("conv-groups", LARGE, "filters", edit("conv2", groups=1), "structure conv2", "large channel-order of groups"),
    Row(
        "conv-groups",
        SMALL,
        "filters",
        together(faint("conv2"), edit("conv2", groups=1)),
        "structure conv2",
        "small channel-order of groups",
        "train",
    ),
)
