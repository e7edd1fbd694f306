"""Files of Keras against files of Keras: what a format loses or an era says otherwise must accuse nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
