"""Two Kerases whose layers differ in a setting, and their clean twins: which layer and which cause must be named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import parity

Layers = Callable[[Any], list[Any]]


def model(layers: Layers, shape: tuple[int, ...] = (8, 8, 4), end: str = "softmax", loss: Any = None) -> Any:
    """A small network with these layers in its middle; equal numbers each time."""
    import keras

    keras.utils.set_random_seed(3)
    k = keras.layers
    made = keras.Sequential([keras.Input(shape), *layers(k), k.Flatten(name="flat"), k.Dense(5, end, name="dense")])
    made.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss or "categorical_crossentropy")
    return made


def plain(k: Any) -> list[Any]:
    """No layer more."""
    return []


def named(report: parity.Report) -> list[tuple[str, str, bool]]:
    """(cause, layer, whether its fix was run) of every divergence."""
    return [(f.cause, f.keras_layer or f.layer, f.fix_verified) for f in report.findings if f.severity == "divergence"]


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
@pytest.mark.parametrize("loss", ["BinaryCrossentropy", "BinaryFocalCrossentropy", "CategoricalCrossentropy"])
def test_a_cross_entropy_behind_any_activation_repeats_itself(loss: str, end: str) -> None:
    # On tensorflow Keras takes the logits behind the activation, whichever it is: of its output alone it makes others.
    import keras

    law = getattr(keras.losses, loss)
    report = parity.compare(model(plain, end=end, loss=law()), model(plain, end=end, loss=law()))
    assert (report.verdict, named(report)) == ("match", [])


def test_another_exponent_of_a_focal_loss_behind_a_softmax_is_named() -> None:
    import keras

    law = keras.losses.BinaryFocalCrossentropy
    report = parity.compare(model(plain, loss=law(gamma=2.0)), model(plain, loss=law(gamma=1.0)))
    assert named(report) == [("loss-kind", "loss", True)]


def scaled(*values: float) -> Layers:
    return lambda k: [k.Rescaling(list(values), offset=0.5, name="scale")]


def test_constants_of_each_channel_are_named_where_one_differs() -> None:
    ref = model(scaled(1.0, 2.0, 3.0, 4.0))
    assert named(parity.compare(ref, model(scaled(1.0, 2.0, 3.0, 5.0)))) == [("input-scale", "scale", True)]
    assert parity.compare(ref, model(scaled(1.0, 2.0, 3.0, 4.0))).verdict == "match"


def moments(k: Any) -> list[Any]:
    return [k.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 4.0, 9.0, 16.0], name="scale")]


def test_moments_in_a_configuration_are_the_constants_that_they_make() -> None:
    scale, offset = [1, 1 / 2, 1 / 3, 1 / 4], [-0.1, -0.1, -0.1, -0.1]
    written = model(lambda k: [k.Rescaling(scale, offset=offset, name="scale")])
    assert parity.compare(model(moments), written).verdict == "match"


def normalised(axis: int) -> Layers:
    return lambda k: [k.Conv2D(3, 3, name="conv"), k.BatchNormalization(axis=axis, name="norm")]


def test_a_batch_normalisation_of_rows_is_named_where_its_statistics_do_not_fit() -> None:
    report = parity.compare(model(normalised(-1)), model(normalised(1)))
    assert report.first_divergence is not None
    assert (report.first_divergence.layer, report.first_divergence.phase) == ("norm", "structure")
    assert named(report) == [("unknown", "norm", True)]


def dropping(shape: tuple[int | None, ...] | None) -> Layers:
    return lambda k: [k.Dropout(0.3, noise_shape=shape, name="drop")]


def test_a_noise_shape_of_whole_channels_is_a_spatial_dropout() -> None:
    channels = model(dropping((None, 1, 1, 4)))
    assert parity.compare(channels, model(lambda k: [k.SpatialDropout2D(0.3, name="drop")])).verdict == "match"
    assert named(parity.compare(channels, model(dropping(None)))) == [("dropout-missing", "drop", True)]


def test_a_dropout_that_draws_otherwise_is_unverified() -> None:
    report = parity.compare(model(dropping((None, 1, 8, 4))), model(dropping((None, 1, 8, 4))))
    assert report.verdict == "unverified"
    assert {p.layer for p in report.probes if p.status == "unverified"} == {"drop"}


def one(name: str, **settings: Any) -> Layers:
    """A convolution, and a layer of this class behind it."""
    return lambda k: [k.Conv2D(6, 3, name="conv"), getattr(k, name)(name="one", **settings)]


UP = {"filters": 3, "kernel_size": 3, "strides": 2}

OTHERWISE = [
    ("UpSampling2D", {"interpolation": "nearest"}, {"interpolation": "bilinear"}, "unknown"),
    ("GroupNormalization", {"groups": 3}, {"groups": 2}, "unknown"),
    ("LayerNormalization", {"epsilon": 1e-5}, {"epsilon": 1e-3}, "bn-epsilon"),
    ("SeparableConv2D", {"filters": 4, "kernel_size": 3, "use_bias": True}, {"use_bias": False}, "bias-missing"),
    ("PReLU", {"shared_axes": [1, 2]}, {"shared_axes": None}, "unknown"),
    ("Softmax", {"axis": -1}, {"axis": 1}, "unknown"),
    ("ReLU", {"threshold": 0.1}, {"threshold": 0.0}, "activation-kind"),
    ("ZeroPadding2D", {"padding": [[1, 0], [0, 1]]}, {"padding": [[0, 1], [1, 0]]}, "padding-size"),
    ("Conv2DTranspose", UP, {"output_padding": 1}, "padding-size"),
    ("Conv2DTranspose", {**UP, "output_padding": 1}, {"output_padding": None}, "padding-size"),
    ("GaussianNoise", {"stddev": 0.3}, {"stddev": 0.5}, "dropout-rate"),
]


@pytest.mark.parametrize(("name", "mine", "theirs", "cause"), OTHERWISE)
def test_an_argument_that_the_vocabulary_has_no_field_for_is_named(
    name: str, mine: dict[str, Any], theirs: dict[str, Any], cause: str
) -> None:
    report = parity.compare(model(one(name, **mine)), model(one(name, **{**mine, **theirs})))
    assert named(report) == [(cause, "one", True)]


@pytest.mark.parametrize(("name", "mine"), [row[:2] for row in OTHERWISE if row[0] != "GaussianNoise"])
def test_the_same_arguments_match(name: str, mine: dict[str, Any]) -> None:
    report = parity.compare(model(one(name, **mine)), model(one(name, **mine)))
    assert (report.verdict, [f.cause for f in report.findings]) == ("match", [])


def test_an_argument_inside_a_wrapper_is_named() -> None:
    over_time = lambda act: lambda k: [k.TimeDistributed(k.Dense(3, act), name="time")]  # noqa: E731
    report = parity.compare(model(over_time("relu"), (4, 5)), model(over_time("tanh"), (4, 5)))
    found = [f for f in report.findings if f.severity == "divergence"]
    assert [(f.cause, f.layer, f.fix) for f in found] == [
        ("activation-kind", "time", 'the layer inside time: activation="relu"')
    ]


def test_an_argument_that_this_batch_does_not_show_is_a_note() -> None:
    masked = lambda value: lambda k: [k.Masking(value, name="mask")]  # noqa: E731
    report = parity.compare(model(masked(7.0), (4, 5)), model(masked(8.0), (4, 5)))
    assert [(f.cause, f.severity, f.layer) for f in report.findings] == [("unknown", "note", "mask")]
    assert report.verdict == "match"


@pytest.mark.parametrize("early", ["reference", "Keras"])
def test_a_hard_sigmoid_is_that_of_its_own_keras(early: str) -> None:
    import keras
    import tf_keras

    def made(engine: Any) -> Any:
        engine.utils.set_random_seed(3)
        k = engine.layers
        layers = [k.Conv2D(3, 3, activation="hard_sigmoid", name="conv"), k.Flatten(), k.Dense(5, "softmax")]
        found = engine.Sequential([engine.Input((8, 8, 4)), *layers])
        found.compile("sgd", "categorical_crossentropy")
        return found

    both = (made(tf_keras), made(keras)) if early == "reference" else (made(keras), made(tf_keras))
    report = parity.compare(*both)
    assert named(report) == [("activation-kind", "conv", True)]
    assert "Rescaling" in report.findings[0].fix
    assert parity.compare(both[0], made(tf_keras if early == "reference" else keras)).verdict == "match"


def test_the_fix_of_a_schedule_is_a_line_of_keras() -> None:
    import keras

    def made(rate: Any) -> Any:
        found = model(plain)
        found.compile(keras.optimizers.SGD(rate, momentum=0.9), "categorical_crossentropy")
        return found

    law = keras.optimizers.schedules.InverseTimeDecay(0.1, 1, 0.25)
    report = parity.compare(made(law), made(0.1))
    assert named(report) == [("optimizer-learning-rate", "", True)]
    assert report.findings[0].fix == (
        "learning_rate=keras.optimizers.schedules.InverseTimeDecay(initial_learning_rate=0.1, decay_steps=1, "
        "decay_rate=0.25)"
    )
    assert parity.compare(made(law), made(law)).verdict == "match"


def adapted(mean: float) -> Any:
    """A network whose first layer was adapted to images of this mean."""
    import keras

    norm = keras.layers.Normalization(name="norm")
    norm.adapt(np.random.default_rng(0).normal(mean, 2, (20, 8, 8, 4)).astype(np.float32))
    return model(lambda k: [norm, k.Conv2D(3, 3, name="conv")])


def test_moments_that_are_weights_are_the_references_once_loaded() -> None:
    # Keras computes with constants that it made of them before.
    for ref, keras in ((0.0, 1.0), (1.0, 0.0)):
        assert parity.compare(adapted(ref), adapted(keras)).verdict == "match"
    report = parity.compare(adapted(0.0), adapted(1.0), weights="own")
    assert {cause for cause, _, _ in named(report)} == {"weights-differ"}
    assert {layer for _, layer, _ in named(report)} == {"norm"}


def test_a_layer_behind_one_of_few_bits_repeats_itself() -> None:
    # In the whole pass its gradient is rounded to bfloat16 on its way; alone it is not.
    few = "mixed_bfloat16"
    report = parity.compare(*(model(lambda k: [k.Conv2D(4, 3, name="conv", dtype=few)]) for _ in range(2)))
    assert (report.verdict, named(report)) == ("match", [])
