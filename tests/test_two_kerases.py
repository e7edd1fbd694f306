"""A Keras model against another: what only two Kerases bring, such as dropout on both sides and losses of any kind."""

from __future__ import annotations

from typing import Any

import pytest

import parity


def model(
    loss: Any = "categorical_crossentropy", end: str = "softmax", rate: float | None = 0.4, added: float = 0.0
) -> Any:
    import keras

    keras.utils.set_random_seed(3)
    held = {"activity_regularizer": keras.regularizers.L2(added)} if added else {}
    conv = keras.layers.Conv2D(5, 3, activation="relu", name="conv", **held)
    made = keras.Sequential([keras.Input((6, 6, 2)), conv])
    made.add(keras.layers.Flatten(name="flat"))
    if rate is not None:
        made.add(keras.layers.Dropout(rate, name="drop"))
    made.add(keras.layers.Dense(3, activation=end, name="dense"))
    made.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss=loss)
    return made


def causes(report: parity.Report) -> list[tuple[str, str, bool, bool]]:
    found = [f for f in report.findings if f.severity == "divergence"]
    return [(f.cause, f.keras_layer or f.layer, f.confirmed, f.fix_verified) for f in found]


def test_dropout_without_a_seed_is_the_same_on_both_sides() -> None:
    report = parity.compare(model(), model())
    assert report.verdict == "match"
    assert {p.status for p in report.probes if p.phase in ("forward", "backward", "update")} == {"match"}


@pytest.mark.parametrize("rate", [0.4004, 0.6])
def test_another_rate_is_found_at_the_dropout(rate: float) -> None:
    report = parity.compare(model(), model(rate=rate))
    assert causes(report) == [("dropout-rate", "drop", True, True)]
    assert report.first_divergence is not None
    assert report.first_divergence.phase == "forward"


def test_a_dropout_of_one_side_is_found() -> None:
    assert causes(parity.compare(model(), model(rate=None))) == [("dropout-missing", "drop", True, True)]
    assert causes(parity.compare(model(rate=None), model())) == [("layer-extra", "drop", True, True)]


@pytest.mark.parametrize("other", ["mean_squared_error", "poisson"])
def test_another_loss_behind_the_same_softmax_is_the_only_cause(other: str) -> None:
    for ref, keras in ((model(), model(other)), (model(other), model())):
        report = parity.compare(ref, keras)
        assert causes(report) == [("loss-kind", "loss", True, True)]
        assert report.first_divergence is not None
        assert report.first_divergence.phase == "loss"
        assert all(p.status == "match" for p in report.probes if p.phase == "forward")


@pytest.mark.parametrize(("mine", "theirs"), [(0.0, 1e-2), (1e-2, 0.0), (1e-2, 2e-2)])
def test_what_a_convolution_adds_to_the_loss_is_no_fault_of_what_it_makes(mine: float, theirs: float) -> None:
    report = parity.compare(model(added=mine), model(added=theirs))
    (found,) = [f for f in report.findings if f.severity == "divergence"]
    assert (found.cause, found.phase, found.confirmed, found.fix_verified) == ("loss-kind", "loss", True, True)
    assert found.keras_layer.startswith("conv")
    assert parity.compare(model(added=mine), model(added=mine)).verdict == "match"


def test_a_sigmoid_in_the_softmax_place_is_another_activation() -> None:
    for ref, keras in ((model(), model(end="sigmoid")), (model(end="sigmoid"), model())):
        report = parity.compare(ref, keras)
        assert causes(report) == [("activation-kind", "dense", True, True)]
        assert report.first_divergence is not None
        assert report.first_divergence.phase == "forward"


def test_generated_labels_suit_both_losses() -> None:
    """Attributes of 0 and 1 are nothing for a loss that wants classes."""
    report = parity.compare(model("binary_crossentropy"), model())
    assert causes(report) == [("loss-kind", "loss", True, True)]


def old_model(frozen: bool = False, epsilon: float = 1e-3) -> Any:
    """As a file of Keras 2.1.6 is rebuilt: its frozen layer normalises by the batch in training (see `standalone`)."""
    import tf_keras

    tf_keras.utils.set_random_seed(3)
    layers = tf_keras.layers
    norm = layers.BatchNormalization(epsilon=epsilon, name="norm", trainable=not frozen)
    if frozen:
        norm._USE_V2_BEHAVIOR, norm.fused = False, False
    stack = [tf_keras.Input((4, 4, 2)), layers.Conv2D(5, 3, name="conv"), layers.Flatten(), layers.Dense(6, name="fc")]
    made = tf_keras.Sequential([*stack, norm, layers.Dense(3, activation="softmax", name="dense")])
    made.compile(optimizer=tf_keras.optimizers.SGD(0.05), loss="categorical_crossentropy")
    return made


def test_a_frozen_normalisation_of_an_old_keras_is_frozen_and_no_more() -> None:
    report = parity.compare(old_model(), old_model(frozen=True))
    assert causes(report) == [("layer-frozen", "norm", True, True)]
    assert not [f for f in report.findings if f.cause == "bn-mode"]
    assert parity.compare(old_model(frozen=True), old_model(frozen=True)).verdict == "match"


def test_a_copy_of_one_can_be_made() -> None:
    report = parity.compare(old_model(frozen=True), old_model(frozen=True, epsilon=2e-3))
    assert causes(report) == [("bn-epsilon", "norm", True, True)]


@pytest.mark.parametrize(("mine", "theirs", "cause"), [("relu", "linear", "missing"), ("linear", "relu", "extra")])
def test_an_activation_layer_that_is_linear_is_none(mine: str, theirs: str, cause: str) -> None:
    import keras

    def with_layer(word: str) -> Any:
        keras.utils.set_random_seed(3)
        layers = keras.layers
        stack = [keras.Input((6, 6, 2)), layers.Conv2D(5, 3, name="conv"), layers.Activation(word, name="act")]
        return keras.Sequential([*stack, layers.GlobalAveragePooling2D(), layers.Dense(3, name="dense")])

    assert causes(parity.compare(with_layer(mine), with_layer(theirs))) == [(f"activation-{cause}", "act", True, True)]
