"""What a Keras layer's config lifts to, run on torch, is what Keras computes."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import torch

from parity.layers import Context, ConvTranspose, Crop, Kind, Rescale, lookup

RNG = np.random.default_rng(11)


def lifted(layer: Any, *arrays: np.ndarray, **params: np.ndarray) -> np.ndarray:
    """The layer's kind on the same arrays n … c, in double; the shape it announces must be the one it makes."""
    shapes = [a.shape[1:] for a in arrays]
    kind_class = lookup("keras", type(layer).__name__)
    assert kind_class is not None
    kind = kind_class.from_keras(type(layer).__name__, layer.get_config(), shapes)
    return run(kind, *arrays, **params)


def run(kind: Kind, *arrays: np.ndarray, **params: np.ndarray) -> np.ndarray:
    tensors = [torch.from_numpy(np.moveaxis(a, -1, 1).astype(np.float64)) for a in arrays]
    values = {role: torch.from_numpy(value.astype(np.float64)) for role, value in params.items()}
    y = kind.forward(tensors, values, Context())
    found = np.moveaxis(y.numpy(), 1, -1)
    assert kind.output_shape([a.shape[1:] for a in arrays]) == found.shape[1:]
    return found


CONFIGS = [
    dict(kernel_size=k, strides=s, padding=p, output_padding=o)
    for k, s, p, o in itertools.product(((3, 2), (2, 5), (1, 1)), ((1, 1), (2, 3)), ("valid", "same"), (None, (0, 1)))
    # With `same` the stride must lead from the output back to as many cells as there were.
    if o is None or all(e < t and (p == "valid" or 1 <= n % 2 + e <= t) for n, t, e in zip(k, s, o, strict=True))
]
CONFIGS += [dict(kernel_size=(3, 3), dilation_rate=2), dict(kernel_size=(3, 2), dilation_rate=(2, 3), padding="same")]
CONFIGS += [dict(kernel_size=4, strides=2, padding="same"), dict(kernel_size=2, strides=4, use_bias=False)]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_transposed_convolutions(config: dict[str, Any]) -> None:
    layer = keras.layers.Conv2DTranspose(4, **config, bias_initializer="random_normal")
    x = RNG.normal(size=(2, 5, 4, 3)).astype(np.float32)
    expected = np.asarray(layer(x))
    params = dict(zip(("kernel", "bias"), layer.get_weights(), strict=False))
    np.testing.assert_allclose(lifted(layer, x, **params), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("rank", [1, 3])
def test_transposed_convolutions_of_other_ranks(rank: int, padding: str) -> None:
    maker = keras.layers.Conv1DTranspose if rank == 1 else keras.layers.Conv3DTranspose
    layer = maker(4, 3, strides=2, padding=padding, bias_initializer="random_normal")
    x = RNG.normal(size=(2, *(4, 3, 5)[:rank], 3)).astype(np.float32)
    expected = np.asarray(layer(x))
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(lifted(layer, x, kernel=kernel, bias=bias), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_line_that_gives_a_crop_gives_it(config: dict[str, Any]) -> None:
    """`keras_line` of a crop, put into a Keras layer without output padding, makes a map of the same size."""
    if config.get("output_padding"):
        return
    layer = keras.layers.Conv2DTranspose(4, **config)
    kind = ConvTranspose.from_keras("Conv2DTranspose", layer.get_config(), [(5, 4, 3)])
    line = kind.keras_line("crop")
    spelled = keras.layers.Conv2DTranspose(4, **{**config, "padding": line.split('"')[1]})
    assert spelled.compute_output_shape((None, 5, 4, 3)) == layer.compute_output_shape((None, 5, 4, 3))


def test_a_crop_without_a_word_is_a_layer_behind() -> None:
    kind = ConvTranspose(2, (4, 4), (2, 2), (1, 0, 0, 2))
    assert kind.keras_line("crop") == 'padding="valid", with Cropping2D(((1, 0), (0, 2))) behind it'
    x, kernel = RNG.normal(size=(1, 3, 4, 2)), RNG.normal(size=(4, 4, 2, 2))
    whole = keras.layers.Conv2DTranspose(2, 4, strides=2, use_bias=False)
    whole.build(x.shape)
    whole.set_weights([kernel])
    expected = np.asarray(keras.layers.Cropping2D(((1, 0), (0, 2)))(whole(x)))
    found = run(ConvTranspose(2, (4, 4), (2, 2), (1, 0, 0, 2), bias=False), x, kernel=kernel)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_deconvolution_of_keras_1() -> None:
    config = {"nb_filter": 5, "nb_row": 3, "nb_col": 2, "subsample": [2, 2], "border_mode": "same", "bias": False}
    kind = ConvTranspose.from_keras("Deconvolution2D", config, [(4, 4, 3)])
    assert kind == ConvTranspose.from_keras(
        "Conv2DTranspose",
        {"filters": 5, "kernel_size": [3, 2], "strides": [2, 2], "padding": "same", "use_bias": False},
        [(4, 4, 3)],
    )


def test_rescaling_by_channel() -> None:
    layer = keras.layers.Rescaling(scale=[1.0, 2.0, 3.0], offset=[0.5, 0.0, -1.0])
    x = RNG.normal(size=(2, 4, 4, 3))
    np.testing.assert_allclose(lifted(layer, x), np.asarray(layer(x)), rtol=0, atol=1e-6)
    assert Rescale(2.0, (1.0, 2.0)).keras_line("offset") == "offset=[1.0, 2.0]"


def test_cropping() -> None:
    layer = keras.layers.Cropping2D(((1, 0), (2, 1)))
    x = RNG.normal(size=(2, 4, 5, 3))
    np.testing.assert_allclose(lifted(layer, x), np.asarray(layer(x)), rtol=0, atol=1e-6)
    assert Crop((1, 0, 2, 1)).keras_line("crop") == "cropping=((1, 0), (2, 1))"


@pytest.mark.parametrize(
    "config",
    [
        {"mean": [1.0, 2.0, 3.0], "variance": [4.0, 0.0, 9.0]},
        {"mean": 2.0, "variance": 4.0, "invert": True},
    ],
)
def test_normalization_by_given_moments(config: dict[str, Any]) -> None:
    layer = keras.layers.Normalization(**config)
    x = RNG.normal(size=(2, 4, 4, 3)).astype(np.float32)
    expected = np.asarray(layer(x))
    np.testing.assert_allclose(lifted(layer, x), expected, rtol=1e-5, atol=1e-6)


def test_normalization_by_learned_moments_stays_opaque() -> None:
    with pytest.raises(NotImplementedError, match="weights"):
        Rescale.from_keras("Normalization", keras.layers.Normalization().get_config(), [(4, 4, 3)])
