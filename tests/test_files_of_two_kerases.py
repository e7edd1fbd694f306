"""Files of Keras against files of Keras: what a format loses or an era says otherwise must accuse nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity


def compiled(optimizer: Any, penalty: float = 0.0, frozen: bool = False) -> Any:
    """A small network, its equal numbers each time, compiled with this optimizer; None leaves it uncompiled."""
    import keras

    keras.utils.set_random_seed(3)
    k = keras.layers
    held = keras.regularizers.L2(penalty) if penalty else None
    conv = k.Conv2D(4, 3, activation="relu", kernel_regularizer=held, trainable=not frozen, name="conv")
    made = keras.Sequential([keras.Input((6, 6, 2)), conv, k.Flatten(), k.Dense(3, "softmax", name="dense")])
    if optimizer is not None:
        made.compile(optimizer, "categorical_crossentropy")
    return made


def saved(model: Any, path: Path) -> str:
    model.save(path)
    return str(path)


def named(report: parity.Report) -> list[tuple[str, str, bool, bool]]:
    """(cause, layer, confirmed, whether its fix was run) of every divergence."""
    found = [f for f in report.findings if f.severity == "divergence"]
    return [(f.cause, f.keras_layer or f.layer, f.confirmed, f.fix_verified) for f in found]


# ----------------------------------------------------------------------------------- a file without its own optimizer


def without_optimizer(model: Any, folder: Path) -> str:
    """Keras 3 forgets the optimizer's configuration where `.h5` is saved before `.keras`; the loss stays."""
    saved(model, folder / "first.h5")
    return saved(model, folder / "lost.keras")


def rules() -> dict[str, Callable[[], Any]]:
    import keras

    o = keras.optimizers
    return {
        "momentum": lambda: o.SGD(0.05, momentum=0.9),
        "a rule that parity does not know": lambda: o.Muon(),
        "an average taken over": lambda: o.SGD(0.05, use_ema=True, ema_overwrite_frequency=2),
        "gradients gathered": lambda: o.SGD(0.05, gradient_accumulation_steps=2),
    }


@pytest.mark.parametrize(
    "rule", ["momentum", "a rule that parity does not know", "an average taken over", "gradients gathered"]
)
def test_a_reference_that_does_not_say_its_optimizer_accuses_nobody_of_another(rule: str, tmp_path: Path) -> None:
    model = compiled(rules()[rule]())
    lost, whole = without_optimizer(model, tmp_path), tmp_path / "first.h5"
    report = parity.compare(lost, whole)
    assert (report.verdict, named(report)) == ("match", [])
    assert any("does not say which optimizer" in note for note in report.notes)
    assert parity.compare(whole, lost).verdict == "match"
    assert parity.compare(whole, saved(compiled(None), tmp_path / "plain.keras")).verdict == "match"


def test_what_else_moves_the_weights_is_compared_without_an_optimizer(tmp_path: Path) -> None:
    momentum = rules()["momentum"]
    lost = without_optimizer(compiled(momentum()), tmp_path)
    decayed, frozen = compiled(momentum(), penalty=0.01), compiled(momentum(), frozen=True)
    assert named(parity.compare(lost, decayed)) == [("optimizer-weight-decay-missing", "conv", True, True)]
    assert named(parity.compare(lost, frozen)) == [("layer-frozen", "conv", True, True)]


# ----------------------------------------------------------------------------------- what layers drop inside themselves


def recurrent(k: Any, seed: int, **settings: Any) -> Any:
    """A network whose weights and draws begin at this seed."""
    k.utils.set_random_seed(seed)
    layers = [k.layers.LSTM(4, name="lstm", **settings), k.layers.Dense(3, activation="softmax", name="dense")]
    made = k.Sequential([k.layers.Input((4, 3)), *layers])
    made.compile(k.optimizers.SGD(0.05), "categorical_crossentropy")
    return made


@pytest.mark.parametrize(("old", "word"), [(False, "dropout"), (True, "recurrent_dropout")])
def test_what_a_recurrent_layer_drops_is_the_same_on_both_sides(old: bool, word: str, tmp_path: Path) -> None:
    import keras
    import tf_keras

    k: Any = tf_keras if old else keras
    pair = [saved(recurrent(k, seed, **{word: 0.4}), tmp_path / f"{seed}.h5") for seed in (1, 2)]
    report = parity.compare(*pair)
    assert (report.verdict, [f.cause for f in report.findings]) == ("match", [])
    other = saved(recurrent(k, 2, **{word: 0.6}), tmp_path / "other.h5")
    report = parity.compare(pair[0], other)
    assert named(report) == [("dropout-rate", "lstm", True, True)]
    assert report.first_divergence is not None
    assert (report.first_divergence.phase, report.first_divergence.layer) == ("forward", "lstm")


def test_two_kerases_that_share_what_they_drop_otherwise_accuse_nobody() -> None:
    import keras
    import tf_keras

    report = parity.compare(recurrent(tf_keras, 1, dropout=0.4), recurrent(keras, 2, dropout=0.4))
    assert (report.verdict, named(report)) == ("unverified", [])
    assert {p.layer for p in report.probes if p.phase == "forward" and p.status == "unverified"} >= {"lstm"}
    calm = parity.compare(recurrent(tf_keras, 1, dropout=0.4), recurrent(keras, 2, dropout=0.4), mode="eval")
    assert calm.verdict == "match"


# --------------------------------------------------------------------------------------------------- layers of few nets


def queries(k: Any) -> Any:
    """An attention that files call by another name than Keras does, and a kernel that a call changes."""
    k.utils.set_random_seed(3)
    read = k.Input((3, 4), name="read")
    seen = k.layers.GroupQueryAttention(2, 2, 1, name="attention")(read, read)
    made = k.layers.SpectralNormalization(k.layers.Dense(3), name="spectral")(k.layers.Flatten()(seen))
    model = k.Model(read, made)
    model.compile("sgd", "mse")
    return model


def test_layers_with_a_name_or_a_kernel_of_their_own_match_themselves(tmp_path: Path) -> None:
    import keras

    pair = [saved(queries(keras), tmp_path / name) for name in ("one.keras", "two.h5")]
    report = parity.compare(*pair)
    assert (report.verdict, named(report)) == ("match", [])


# ------------------------------------------------------------------------------------------------- weights of the file


def twice(exchanged: bool = False) -> Any:
    """Two convolutions whose kernels fit in each other's place."""
    import keras

    keras.utils.set_random_seed(3)
    k = keras.layers
    convs = [k.Conv2D(4, 3, padding="same", name=name) for name in ("first", "second")]
    made = keras.Sequential([keras.Input((6, 6, 4)), *convs, k.Flatten(), k.Dense(3, "softmax", name="dense")])
    made.compile("sgd", "categorical_crossentropy")
    if exchanged:
        first, second = (conv.get_weights()[0] for conv in convs)
        for conv, kernel in zip(convs, (second, first), strict=True):
            conv.set_weights([kernel, conv.get_weights()[1]])
    return made


def test_exchanged_kernels_are_told_plainly() -> None:
    report = parity.compare(twice(), twice(exchanged=True), weights="own")
    found = [f for f in report.findings if f.severity == "divergence"]
    assert [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in found] == [
        ("weights-differ", "first", True, True),
        ("weights-differ", "second", True, True),
    ]
    assert found[0].evidence == "first.kernel holds the values of the reference's second.kernel; the two are exchanged."
    assert parity.compare(twice(), twice(), weights="own").verdict == "match"


# -------------------------------------------------------------------------------------------------- losses that ignore


def segmented(loss: Any, old: bool = False) -> Any:
    """Four classes for each pixel."""
    import keras
    import tf_keras

    k: Any = tf_keras if old else keras
    k.utils.set_random_seed(3)
    made = k.Sequential([k.layers.Input((4, 4, 2)), k.layers.Conv2D(4, 3, padding="same", activation="softmax")])
    made.compile(k.optimizers.SGD(0.05), loss)
    return made


def pixels(ignored: int | None) -> dict[str, Any]:
    """Images, and a class for each of their pixels; a part of them has another label."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, (3, 4, 4))
    if ignored is not None:
        y[0, :2] = ignored
    return {"x": rng.standard_normal((3, 4, 4, 2)).astype(np.float32), "y": y}


@pytest.mark.parametrize("ignored", [255, -1])
def test_a_label_that_the_loss_ignores_need_be_no_class(ignored: int) -> None:
    import keras
    import tf_keras

    law, old = keras.losses.SparseCategoricalCrossentropy, tf_keras.losses.SparseCategoricalCrossentropy
    batch = pixels(ignored)
    assert (
        parity.compare(segmented(law(ignore_class=ignored)), segmented(law(ignore_class=ignored)), batch).verdict
        == "match"
    )
    assert (
        parity.compare(
            segmented(old(ignore_class=ignored), old=True), segmented(law(ignore_class=ignored)), batch
        ).verdict
        == "match"
    )


def test_a_mean_that_leaves_out_what_it_ignores_divides_by_another_number() -> None:
    """The fix says what is left out: a weight would hold for these labels alone."""
    import keras

    law = keras.losses.SparseCategoricalCrossentropy
    for ignored, other in ((-1, None), (None, -1)):
        report = parity.compare(segmented(law(ignore_class=ignored)), segmented(law(ignore_class=other)), pixels(-1))
        assert named(report) == [("loss-reduction", "loss", True, True)]
        assert f"ignore_class={ignored}" in report.findings[0].fix
    assert parity.compare(segmented(law(ignore_class=-1)), segmented(law()), pixels(None)).verdict == "match"
    assert parity.compare(segmented(law()), segmented(law()), pixels(-1)).verdict == "match"


@pytest.mark.parametrize("other", ["mse", "binary_crossentropy"])
def test_what_only_one_of_two_losses_has_is_no_cause_of_its_own(other: str) -> None:
    import keras

    smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    ref, model = compiled("sgd"), compiled("sgd")
    ref.compile("sgd", smooth)
    model.compile("sgd", other)
    for pair in ((ref, model), (model, ref)):
        assert named(parity.compare(*pair)) == [("loss-kind", "loss", True, True)]


# ----------------------------------------------------------------------------------------------------- models in memory


def words(k: Any) -> Any:
    k.utils.set_random_seed(3)
    layers = [k.layers.Embedding(5, 3, name="words"), k.layers.Flatten(), k.layers.Dense(2, activation="softmax")]
    made = k.Sequential([k.layers.Input((4,)), *layers])
    made.compile(k.optimizers.SGD(0.05), "categorical_crossentropy")
    return made


def test_an_embedding_of_a_model_in_memory_is_fed_its_own_words() -> None:
    import keras
    import tf_keras

    assert parity.compare(words(tf_keras), words(tf_keras)).verdict == "match"
    assert parity.compare(words(tf_keras), words(keras)).verdict == "match"
    assert parity.compare(words(keras), words(tf_keras)).verdict == "match"


# ------------------------------------------------------------------------------------------------------------- paddings


def dilated(word: str, rate: int) -> Any:
    import keras

    keras.utils.set_random_seed(3)
    k = keras.layers
    conv = k.Conv1D(3, 3, padding=word, dilation_rate=rate, name="conv")
    made = keras.Sequential([keras.Input((9, 2)), conv, k.Flatten(), k.Dense(3, "softmax", name="dense")])
    made.compile("sgd", "categorical_crossentropy")
    return made


@pytest.mark.parametrize("word", ["same", "causal"])
def test_a_padding_that_follows_the_window_is_no_second_cause_of_a_dilation(word: str) -> None:
    assert named(parity.compare(dilated(word, 1), dilated(word, 2))) == [("conv-dilation", "conv", True, True)]
    assert parity.compare(dilated(word, 2), dilated(word, 2)).verdict == "match"


def test_a_padding_of_another_word_is_named() -> None:
    assert [cause for cause, *_ in named(parity.compare(dilated("causal", 1), dilated("same", 1)))] == [
        "padding-asymmetric"
    ]
