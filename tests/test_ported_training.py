"""How a porter trains: optimizers of his own that multiply rates, layers frozen by halves, images prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from tests import twins_dag
from tests.test_ported_by_hand import compared, first, images, keras, penalty, told
from tests.twins_dag import MOMENTUM, RATE, Dag

# ---------------------------------------------------------------------------------- optimizers that multiply the rates


def slowed() -> Dag:
    """As MatConvNet's CIFAR net: filters learn at a tenth of the rate, biases at twice the rate."""
    dag = Dag(21, {"data": (6, 6, 3)})
    x = dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 4)))
    dag.loss("loss", dag.conv("fc", x, (4, 4, 4, 5)), "objective")
    for name, param in dag.params.items():
        param["learningRate"] = 0.1 if name.endswith("f") else 2.0
    return dag


def multiplying(*, asked: bool, rates: dict[str, float], **settings: Any) -> Any:
    """A model whose optimizer multiplies; `asked`: its constructor needs the factors, which no config holds."""
    k = keras()

    class Rated(k.optimizers.SGD):
        def __init__(self, learning_rate: float, rates: dict[str, float], **options: Any) -> None:
            super().__init__(learning_rate, **options)
            self.rates = rates

        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            held = self._trainable_variables if trainable_variables is None else trainable_variables
            factors = [self.rates["/".join(v.path.split("/")[-2:])] for v in held]
            return super().apply([g * f for g, f in zip(grads, factors, strict=True)], trainable_variables)

    class Defaulting(Rated):
        def __init__(self, learning_rate: float = 0.01, rates: Any = None, **options: Any) -> None:
            super().__init__(learning_rate, rates or dict.fromkeys(usual, 1.0), **options)

    usual = {"conv/kernel": 0.1, "conv/bias": 2.0, "fc/kernel": 0.1, "fc/bias": 2.0}
    made = (Rated if asked else Defaulting)(settings.pop("rate", RATE), usual | rates, momentum=MOMENTUM, **settings)
    image = k.Input((6, 6, 3))
    x = k.layers.Conv2D(4, 3, activation="relu", name="conv", **penalty())(image)
    model = k.Model(image, k.layers.Dense(5, name="fc", **penalty())(k.layers.Flatten()(x)))
    model.compile(made, k.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.parametrize("asked", [True, False])
def test_an_optimizer_that_multiplies_rates_is_run_as_it_is(asked: bool, tmp_path: Path) -> None:
    """Its factors are in no config; what it does beside them is told alone."""
    dag, batch = slowed(), {"x": images(), "y": np.arange(6) % 5}

    def report(**options: Any) -> parity.Report:
        return compared(tmp_path, dag, multiplying(asked=asked, rates=options.pop("rates", {}), **options), batch)

    right = report()
    assert (right.verdict, right.findings) == ("match", ())
    assert not any(probe.status == "masked" for probe in right.probes)
    wrong = report(rates={"fc/bias": 1.0})
    assert first(wrong) == ("update", "fc")
    assert [row[:3] for row in told(wrong)] == [("optimizer-lr-multiplier", "fc", True)]
    assert told(report(nesterov=True)) == [("optimizer-nesterov", "", True, True)]
    assert [row[:3] for row in told(report(rate=0.1 * RATE))] == [("optimizer-learning-rate", "", True)]


# ------------------------------------------------------------------------------------------------------- frozen layers


@pytest.mark.parametrize("frozen", [(), ("low",), ("high",), ("low", "high")])
def test_the_part_of_a_group_that_is_frozen_is_named(frozen: tuple[str, ...], tmp_path: Path) -> None:
    """Groups written as two convolutions and a concatenation, as porters of AlexNet do."""
    dag = Dag(22, {"data": (6, 6, 4)})
    x = dag.relu("relu", dag.conv("conv", "data", (3, 3, 2, 6)))
    dag.loss("loss", dag.conv("fc", x, (4, 4, 6, 5)), "objective")
    k = keras()
    image = k.Input((6, 6, 4))
    halves = [image[..., :2], image[..., 2:]]
    parts = [k.layers.Conv2D(3, 3, name=n, **penalty())(x) for n, x in zip(("low", "high"), halves, strict=True)]
    x = k.layers.Flatten()(k.layers.ReLU()(k.layers.Concatenate()(parts)))
    model = k.Model(image, k.layers.Dense(5, name="fc", **penalty())(x))
    for name in frozen:
        model.get_layer(name).trainable = False
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.SGD(RATE, momentum=MOMENTUM), loss)
    report = compared(tmp_path, dag, model, twins_dag.batch(dag))
    assert told(report) == ([("layer-frozen", "conv", True, True)] if frozen else [])
    if frozen:
        found = next(f for f in report.findings if f.cause == "layer-frozen")
        assert found.fix == "; ".join(f"{name}.trainable = True" for name in frozen)
        assert (" of " in found.evidence) == (len(frozen) == 1)


# ------------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_an_average_image_is_told_beside_a_scale(scale: float, turned: bool, tmp_path: Path) -> None:
    """MatConvNet subtracts the average image of 0 to 255, and the port feeds 0 to 1 as they are, maybe from OpenCV."""
    dag = Dag(23, {"data": (6, 6, 3)})
    x = dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 4)))
    dag.loss("loss", dag.conv("fc", x, (4, 4, 4, 5)), "objective")
    raw = np.random.default_rng(1).uniform(0, 255, (8, 6, 6, 3)).astype(np.float32)
    fed = raw / np.float32(scale)
    batch = {"x_ref": raw - raw.mean(0), "x_keras": fed[..., ::-1] if turned else fed, "y": np.arange(8) % 5}
    report = compared(tmp_path, dag, twins_dag.twin(dag), batch)
    assert first(report) == ("input", "input")
    causes = ["input-channel-order"] * turned + ["input-mean"] + ["input-scale"] * (scale != 1)
    assert told(report) == [(cause, "input", True, True) for cause in causes]
    other = np.random.default_rng(2).uniform(0, 255, raw.shape).astype(np.float32)
    assert told(compared(tmp_path, dag, twins_dag.twin(dag), batch | {"x_keras": other}))[0][0] == "unknown"


@pytest.mark.parametrize("right", [True, False])
def test_a_model_may_prepare_its_images_itself(right: bool, tmp_path: Path) -> None:
    """The reference's images come with the mean subtracted, and the port's first layers do that."""
    dag = Dag(24, {"data": (6, 6, 3)})
    x = dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 4)))
    dag.loss("loss", dag.conv("fc", x, (4, 4, 4, 5)), "objective")
    raw = np.random.default_rng(1).uniform(0, 1, (8, 6, 6, 3)).astype(np.float32)
    mean = [120.5, 115.25, 100.75 if right else 100.25]
    batch = {"x_ref": raw * 255 - np.array([120.5, 115.25, 100.75], np.float32), "x_keras": raw, "y": np.arange(8) % 5}
    k = keras()
    image = k.Input((6, 6, 3))
    x = k.layers.Normalization(mean=mean, variance=[1.0] * 3, name="mean")(k.layers.Rescaling(255.0)(image))
    x = k.layers.Flatten()(k.layers.Conv2D(4, 3, activation="relu", name="conv", **penalty())(x))
    model = k.Model(image, k.layers.Dense(5, name="fc", **penalty())(x))
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.SGD(RATE, momentum=MOMENTUM), loss)
    for mode in ("train", "eval"):
        report = compared(tmp_path, dag, model, batch, mode=mode)
        assert report.verdict == ("match" if right else "diverged")
        assert any("prepares its images itself" in note for note in report.notes) == right
    assert right or first(report) == ("input", "input")
    if right:  # the same images for both sides: then the layers are extra
        assert {row[0] for row in told(compared(tmp_path, dag, model, {"x": raw, "y": batch["y"]}))} == {"layer-extra"}


# ---------------------------------------------------------------------------------------------------- shared parameters


@pytest.mark.parametrize("held", ["one", "two"])
@pytest.mark.parametrize("shared", ["one", "two"])
def test_twin_branches_that_share_their_parameters(shared: str, held: str, tmp_path: Path) -> None:
    """A siamese network: with two towers in place of one nothing differs but what trains them."""
    dag = Dag(25, {"a": (6, 6, 2), "b": (6, 6, 2)})
    of = {"a": "", "b": "conv_a" if shared == "one" else ""}
    ends = [dag.relu(f"relu_{x}", dag.conv(f"conv_{x}", x, (3, 3, 2, 4), share=of[x])) for x in "ab"]
    dag.loss("loss", dag.conv("fc", dag.concat("cat", ends), (4, 4, 8, 5)), "objective")
    k = keras()
    inputs = [k.Input((6, 6, 2), name=name) for name in "ab"]
    towers = [k.layers.Conv2D(4, 3, activation="relu", name=name, **penalty()) for name in ("one", "two")]
    made = [(towers[0] if held == "one" else tower)(x) for tower, x in zip(towers, inputs, strict=True)]
    x = k.layers.Flatten()(k.layers.Concatenate(name="cat")(made))
    model = k.Model(inputs, k.layers.Dense(5, name="fc", **penalty())(x))
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.SGD(RATE, momentum=MOMENTUM), loss)
    report = compared(tmp_path, dag, model, None)
    assert report.verdict == ("match" if shared == held else "diverged")
    still = compared(tmp_path, dag, model, None, mode="eval")
    assert still.verdict == ("diverged" if (shared, held) == ("two", "one") else "match")
    if shared != held:
        assert first(report) == ("structure" if held == "two" else "forward", "conv_b")
        assert [row[:2] for row in told(report)] == [("unknown", "conv_b")]
        words = "call one a second time in place of two" if held == "two" else "give conv_b a layer of its own"
        assert words in report.findings[0].fix


# -------------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("weight", [1 / 6, 1.0])
def test_a_sum_that_leaves_out_pixels_is_weighed_and_made_no_mean(weight: float, tmp_path: Path) -> None:
    """Of six images: Keras' mean would divide by the pixels that count, MatConvNet divides by the images."""
    dag = Dag(26, {"data": (5, 5, 3)})
    dag.loss("loss", dag.conv("score", "data", (3, 3, 3, 4), pad=(1, 1, 1, 1)), "objective")
    k = keras()
    image = k.Input((5, 5, 3))
    model = k.Model(image, k.layers.Conv2D(4, 3, padding="same", name="score", **penalty())(image))
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, reduction="sum")
    model.compile(k.optimizers.SGD(RATE, momentum=MOMENTUM), loss, loss_weights=[weight])
    rng = np.random.default_rng(4)
    batch = {"x": rng.standard_normal((6, 5, 5, 3)).astype(np.float32), "y": rng.integers(-1, 4, (6, 5, 5))}
    report = compared(tmp_path, dag, model, batch)
    assert told(report) == ([("loss-reduction", "loss", True, True)] if weight == 1 else [])
    assert report.verdict == ("match" if weight < 1 else "diverged")


def test_a_mean_over_what_counts_is_one_finding_with_a_fix_for_any_labels(tmp_path: Path) -> None:
    """Keras divides by the pixels that it does not ignore: another factor for every batch, and no loss of another kind.

    Where all labels count, that is the mean over the pixels, which a weight can stand for.
    """
    dag = Dag(27, {"data": (5, 5, 3)})
    dag.loss("loss", dag.conv("score", "data", (3, 3, 3, 4), pad=(1, 1, 1, 1)), "objective")
    k = keras()
    rng = np.random.default_rng(5)
    images = rng.standard_normal((6, 5, 5, 3)).astype(np.float32)

    def report(lowest: int, weight: float | None, ref: Any = None) -> parity.Report:
        image = k.Input((5, 5, 3))
        model = k.Model(image, k.layers.Conv2D(4, 3, padding="same", name="score", **penalty())(image))
        loss = k.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
        weights = None if weight is None else [weight]
        model.compile(k.optimizers.SGD(RATE, momentum=MOMENTUM), loss, loss_weights=weights)
        batch = {"x": images, "y": rng.integers(lowest, 4, (6, 5, 5))}
        return parity.compare(model, model, batch) if ref else compared(tmp_path, dag, model, batch)

    wrong = report(-1, None)
    assert first(wrong) == ("loss", "loss")
    assert told(wrong) == [("loss-reduction", "loss", True, True)]
    assert 'reduction="sum"' in wrong.findings[0].fix
    assert "0.166667" in wrong.findings[0].fix
    assert report(0, 25.0).verdict == "match"
    itself = report(-1, None, ref=True)
    assert (itself.verdict, [f.cause for f in itself.findings]) == ("match", [])


@pytest.mark.parametrize(
    ("wrong", "phase", "cause"),
    [
        ({}, "", ""),
        ({"dilation_rate": 2}, "forward", "conv-dilation"),
        ({"use_bias": False}, "structure", "bias-missing"),
    ],
)
def test_a_layer_that_is_called_twice_has_one_mistake(
    wrong: dict[str, Any], phase: str, cause: str, tmp_path: Path
) -> None:
    dag = Dag(28, {"data": (6, 6, 3)})
    same = (1, 1, 1, 1)
    x = dag.relu("relu0", dag.conv("conv0", "data", (3, 3, 3, 4), pad=same))
    x = dag.relu("relu1", dag.conv("conv1", x, (3, 3, 4, 4), pad=same))
    x = dag.relu("relu2", dag.conv("conv2", x, (3, 3, 4, 4), pad=same, share="conv1"))
    dag.loss("loss", dag.conv("fc", x, (6, 6, 4, 5)), "objective")
    k = keras()
    given = k.Input((6, 6, 3))
    x = k.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv0", **penalty())(given)
    own = penalty() | wrong
    own = {name: value for name, value in own.items() if wrong.get("use_bias", True) or name != "bias_regularizer"}
    again = k.layers.Conv2D(4, 3, padding="same", name="conv1", **own)
    for _ in range(2):
        x = k.layers.ReLU()(again(x))
    model = k.Model(given, k.layers.Dense(5, name="fc", **penalty())(k.layers.Flatten()(x)))
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.SGD(RATE, momentum=MOMENTUM), loss)
    report = compared(tmp_path, dag, model, twins_dag.batch(dag))
    assert told(report) == ([(cause, "conv1", True, True)] if wrong else [])
    assert (report.verdict == "match") == (not wrong)
    if wrong:
        assert first(report) == (phase, "conv1")
        assert "at conv2 too" in report.findings[0].evidence
