"""What Keras has no layer or loss for, as a porter writes it: right ports match, faults are found in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import parity
from parity.errors import BadFile
from parity.frameworks.matconvnet.lift import lift_data
from tests import twins_dag
from tests.twins_dag import DECAY, MOMENTUM, RATE, Dag

SAME = (1, 1, 1, 1)


def keras() -> Any:
    import keras

    return keras


def compared(tmp_path: Path, dag: Dag, model: Any, batch: Any, **options: Any) -> parity.Report:
    path = twins_dag.save(tmp_path / "net.mat", dag, **options.pop("recipe", {}))
    return parity.compare(ref=path, keras=model, batch=batch, **options)


def told(report: parity.Report) -> list[tuple[str, str, bool, bool]]:
    found = [f for f in report.findings if f.severity == "divergence"]
    return [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in found]


def first(report: parity.Report) -> tuple[str, str]:
    found = report.first_divergence
    assert found is not None
    return found.phase, found.layer


def penalty() -> dict[str, Any]:
    return {name: keras().regularizers.L2(DECAY / 2) for name in ("kernel_regularizer", "bias_regularizer")}


def trained(inputs: Any, outputs: Any, loss: Any = None, weights: Any = None) -> Any:
    k = keras()
    model = k.Model(inputs, outputs)
    loss = loss or k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.SGD(RATE, momentum=MOMENTUM), loss, loss_weights=weights)
    return model


# ---------------------------------------------------------------------------------------------------------------- grids


def transformer() -> Dag:
    """A spatial transformer: six numbers per image, a grid of points, the image sampled there."""
    dag = Dag(1, {"data": (8, 9, 2)})
    numbers = dag.conv("locate", "data", (8, 9, 2, 6))
    dag.params["locatef"]["value"] *= np.float32(0.03)
    dag.params["locateb"]["value"] = np.array([[0.7], [0.05], [-0.06], [0.6], [0.02], [0.03]], np.float32)
    grid = dag.add("grid", "AffineGridGenerator", numbers, Ho=5.0, Wo=6.0)
    x = dag.add("sample", "BilinearSampler", ("data", grid))
    dag.loss("loss", dag.conv("fc", x, (5, 6, 2, 5)), "objective")
    return dag


def transformed(*, x_first: bool = False) -> Any:
    k = keras()
    ops = k.ops

    class Grid(k.layers.Layer):
        def call(self, numbers: Any) -> Any:
            a = [numbers[..., at : at + 1] for at in range(6)]
            y, x = ops.linspace(-1.0, 1.0, 5)[:, None, None], ops.linspace(-1.0, 1.0, 6)[None, :, None]
            down, right = a[0] * y + a[1] * x + a[4], a[2] * y + a[3] * x + a[5]
            return ops.concatenate([right, down] if x_first else [down, right], -1)

    class Sample(k.layers.Layer):
        def call(self, image: Any, grid: Any) -> Any:
            y, x = (grid[..., 0] + 1) * 3.5, (grid[..., 1] + 1) * 4.0
            rows, columns = ops.arange(8, dtype="float32"), ops.arange(9, dtype="float32")
            near_y = ops.relu(1 - ops.abs(y[..., None] - rows))
            near_x = ops.relu(1 - ops.abs(x[..., None] - columns))
            return ops.einsum("nijh,nijw,nhwc->nijc", near_y, near_x, image)

    image = k.Input((8, 9, 2))
    numbers = k.layers.Conv2D(6, (8, 9), name="locate", **penalty())(image)
    grid = Grid(name="grid")(numbers)
    x = k.layers.Flatten()(Sample(name="sample")(image, grid))
    return trained(image, k.layers.Dense(5, name="fc", **penalty())(x))


def test_a_grid_is_a_map_of_points(tmp_path: Path) -> None:
    dag = transformer()
    batch = twins_dag.batch(dag)
    assert compared(tmp_path, dag, transformed(), batch).verdict == "match"
    wrong = compared(tmp_path, dag, transformed(x_first=True), batch)
    assert first(wrong) == ("forward", "grid")
    assert {layer for _, layer, *_ in told(wrong)} == {"grid"}


# ---------------------------------------------------------------------------------------------------------------- crops


def skip() -> Dag:
    """A map that is upsampled too far, and cut to the size of what it is added to."""
    dag = Dag(2, {"data": (7, 7, 3)})
    x = dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 4), pad=SAME))
    up = dag.convt("up", dag.pool("pool", x, "max", 3, 2), (4, 4, 4, 4), upsample=2, crop=(0, 0, 0, 0))
    cut = dag.add("cut", "Crop", (up, x), crop=np.array([[0.0, 1.0]]))
    dag.loss("loss", dag.conv("fc", dag.sum("sum", (cut, x)), (7, 7, 4, 5)), "objective")
    return dag


def skipping(cropping: Sequence[Sequence[int]]) -> Any:
    k = keras()
    image = k.Input((7, 7, 3))
    x = k.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv", **penalty())(image)
    up = k.layers.Conv2DTranspose(4, 4, strides=2, name="up", **penalty())(k.layers.MaxPooling2D(3, 2)(x))
    x = k.layers.Add(name="sum")([k.layers.Cropping2D(cropping, name="cut")(up), x])
    return trained(image, k.layers.Dense(5, name="fc", **penalty())(k.layers.Flatten()(x)))


def test_a_crop_behind_a_transposed_convolution_is_told_at_the_crop(tmp_path: Path) -> None:
    dag = skip()
    batch = twins_dag.batch(dag)
    assert compared(tmp_path, dag, skipping(((0, 1), (1, 0))), batch).verdict == "match"
    wrong = compared(tmp_path, dag, skipping(((1, 0), (1, 0))), batch)
    assert first(wrong) == ("forward", "cut")
    assert told(wrong) == [("padding-size", "cut", True, True)]


@pytest.mark.parametrize(("padding", "right"), [("same", False), ("valid", False), ("cut", True), ("other", False)])
def test_the_crop_of_a_transposed_convolution_is_put_right(padding: str, right: bool, tmp_path: Path) -> None:
    """Keras has two words for it; other cells are those of a layer behind it."""
    dag = Dag(3, {"data": (4, 4, 2)})
    up = dag.convt("up", "data", (4, 4, 3, 2), upsample=2, crop=(0, 2, 2, 0))
    pooled = dag.pool("gap", dag.relu("relu", up), "max", 8, 1)
    dag.loss("loss", dag.conv("fc", pooled, (1, 1, 3, 5)), "objective")
    k = keras()
    image = k.Input((4, 4, 2))
    word = padding if padding in ("same", "valid") else "valid"
    x = k.layers.Conv2DTranspose(3, 4, strides=2, padding=word, name="up", **penalty())(image)
    if word != padding:
        x = k.layers.Cropping2D(((0, 2), (2, 0)) if right else ((2, 0), (2, 0)))(x)
    x = k.layers.GlobalMaxPooling2D()(k.layers.ReLU()(x))
    report = compared(tmp_path, dag, trained(image, k.layers.Dense(5, name="fc", **penalty())(x)), twins_dag.batch(dag))
    if right:
        assert report.verdict == "match"
        return
    assert report.first_divergence is not None
    assert report.first_divergence.layer == "up"
    assert [(cause, layer) for cause, layer, *_ in told(report)] in (
        [("padding-size", "up")],
        [("padding-asymmetric", "up")],
    )
    assert all(confirmed or first(report)[0] == "structure" for _, _, confirmed, _ in told(report))
    assert all(fixed for *_, fixed in told(report))


# --------------------------------------------------------------------------------------------- layers of the user's own


def scaled(*, relu: bool = True) -> Any:
    image = keras().Input((6, 6, 3))
    k = keras()

    class Scale(k.layers.Layer):
        def build(self, shape: Any) -> None:
            decay = k.regularizers.L2(DECAY / 2)
            self.g = self.add_weight(name="g", shape=(shape[-1],), initializer="ones", regularizer=decay)
            self.o = self.add_weight(name="o", shape=(shape[-1],), initializer="zeros", regularizer=decay)

        def call(self, x: Any) -> Any:
            return x * self.g + self.o

    x = k.layers.Conv2D(4, 3, name="conv", **penalty())(image)
    x = Scale(name="scale")(k.layers.ReLU(name="relu")(x) if relu else x)
    return trained(image, k.layers.Dense(5, name="fc", **penalty())(k.layers.Flatten()(x)))


def test_what_learns_is_not_taken_for_the_activation_that_is_missing_before_it(tmp_path: Path) -> None:
    dag = Dag(4, {"data": (6, 6, 3)})
    x = dag.scale("scale", dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 4))), 4)
    dag.loss("loss", dag.conv("fc", x, (4, 4, 4, 5)), "objective")
    batch = twins_dag.batch(dag)
    assert compared(tmp_path, dag, scaled(), batch).verdict == "match"
    wrong = compared(tmp_path, dag, scaled(relu=False), batch)
    assert first(wrong) == ("structure", "relu")
    assert told(wrong) == [("activation-missing", "relu", True, True)]


# --------------------------------------------------------------------------------------------------------------- losses


def ending(loss: str, outputs: int, **options: Any) -> Dag:
    dag = Dag(5, {"data": (6, 6, 3)})
    x = dag.conv("fc", dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 4))), (4, 4, 4, outputs))
    if loss == "distance":
        dag.add("loss", "PDist", (x, "label"), out="objective", p=2.0, noRoot=True)
    else:
        dag.loss("loss", x, "objective", loss, **options)
    return dag


def ended(outputs: int, loss: Any, weights: Any = None) -> Any:
    k = keras()
    image = k.Input((6, 6, 3))
    x = k.layers.Conv2D(4, 3, activation="relu", name="conv", **penalty())(image)
    return trained(image, k.layers.Dense(outputs, name="fc", **penalty())(k.layers.Flatten()(x)), loss, weights)


def images(n: int = 6) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((n, 6, 6, 3)).astype(np.float32)


def test_labels_of_attributes_may_be_signs_on_one_side_and_0_and_1_on_the_other(tmp_path: Path) -> None:
    k = keras()
    y = np.random.default_rng(1).integers(0, 2, (6, 1)).astype(np.float32)
    dag, model = ending("logistic", 1), ended(1, k.losses.BinaryCrossentropy(from_logits=True))
    batch = {"x": images(), "y_ref": 2 * y - 1, "y_keras": y}
    assert compared(tmp_path, dag, model, batch).verdict == "match"
    batch["y_keras"] = 1 - y
    wrong = compared(tmp_path, dag, model, batch)
    assert first(wrong) == ("input", "input")


def test_costs_of_attributes_are_added_up_by_matconvnet_and_averaged_by_keras(tmp_path: Path) -> None:
    k = keras()
    batch = {"x": images(), "y": np.random.default_rng(1).integers(0, 2, (6, 4)).astype(np.float32)}
    dag, loss = ending("logistic", 4), k.losses.BinaryCrossentropy(from_logits=True)
    right = compared(tmp_path, dag, ended(4, loss, [4.0]), batch)
    assert (right.verdict, told(right)) == ("match", [])
    assert not any(f.cause.startswith("loss") for f in right.findings)
    wrong = compared(tmp_path, dag, ended(4, loss), batch)
    assert first(wrong) == ("loss", "loss")
    assert told(wrong) == [("loss-reduction", "loss", True, True)]


def test_a_distance_to_targets_is_a_loss(tmp_path: Path) -> None:
    k = keras()
    batch = {"x": images(), "y": np.random.default_rng(2).standard_normal((6, 4)).astype(np.float32)}
    dag = ending("distance", 4)

    def summed(y: Any, p: Any) -> Any:
        return k.ops.sum((y - p) ** 2, -1)

    def report(loss: Any) -> parity.Report:
        return compared(tmp_path, dag, ended(4, loss), batch, ref_version="beta25")

    assert report(summed).verdict == "match"
    assert told(report("mse")) == [("loss-reduction", "loss", True, True)]
    assert [row[:3] for row in told(report("mae"))] == [("loss-kind", "loss", True)]


def test_a_loss_of_ones_own_that_leaves_out_pixels_itself(tmp_path: Path) -> None:
    """It gives one number per image, which pixels cannot be weighed in."""
    k = keras()
    dag = Dag(6, {"data": (5, 5, 3)})
    dag.loss("loss", dag.conv("score", "data", (3, 3, 3, 4), pad=SAME), "objective")
    image = k.Input((5, 5, 3))
    score = k.layers.Conv2D(4, 3, padding="same", name="score", **penalty())(image)
    rng = np.random.default_rng(4)
    batch = {"x": rng.standard_normal((6, 5, 5, 3)).astype(np.float32), "y": rng.integers(-1, 4, (6, 5, 5))}

    def masked(ignored: int) -> Callable[[Any, Any], Any]:
        def loss(y: Any, p: Any) -> Any:
            y = k.ops.squeeze(y, -1)
            cost = k.ops.sparse_categorical_crossentropy(k.ops.maximum(y, 0), p, from_logits=True)
            return k.ops.sum(k.ops.where(y > ignored, cost, 0.0), (1, 2))

        return loss

    assert compared(tmp_path, dag, trained(image, score, masked(-1)), batch).verdict == "match"
    wrong = compared(tmp_path, dag, trained(image, score, masked(0)), batch)
    assert first(wrong) == ("loss", "loss")


def test_an_objective_that_counts_nothing_needs_no_labels(tmp_path: Path) -> None:
    """The second head is not differentiated: derOutputs leaves it out, Keras weighs it by zero."""
    dag = Dag(7, {"data": (6, 6, 3)}, ("label", "attribute"))
    x = dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 4)))
    dag.loss("loss1", dag.conv("head1", x, (4, 4, 4, 5)), "objective1")
    dag.loss("loss2", dag.conv("head2", x, (4, 4, 4, 3)), "objective2", label="attribute")
    for name in ("head2f", "head2b"):
        dag.params[name].update(learningRate=0.0, weightDecay=0.0)
    model = twins_dag.twin(dag, loss_weights=[1.0, 0.0])
    model.get_layer("head2").trainable = False
    model.compile(model.optimizer.from_config(model.optimizer.get_config()), model.loss, loss_weights=[1.0, 0.0])
    recipe = {"derOutputs": twins_dag.cell(["objective1", 1.0])}
    batch = {"x": images(8), "y": np.arange(8) % 5}
    report = compared(tmp_path, dag, model, {"x": batch["x"], "y_head1": batch["y"]}, recipe=recipe)
    assert (report.verdict, told(report)) == ("match", [])


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_network_inside_other_structs_is_found() -> None:
    struct = {"layers": [{"type": "relu"}], "meta": {}}
    for held in (
        {"model": {"net": struct}},
        {"all": {"best": {"net": struct}}},
        {"nets": [struct]},
        {"net": {"a": struct}},
    ):
        network, _ = lift_data({**held, "layers_used": np.ones((1, 1))}, "file.mat")
        assert [layer.source_type for layer in network] == ["relu"]
    for held in ({"a": {"net": struct}, "b": {"net": struct}}, {"a": {"layers": np.ones((1, 3))}}):
        with pytest.raises(BadFile, match="holds no network"):
            lift_data(held, "file.mat")


def test_moments_that_nothing_trained_cannot_be_compared(tmp_path: Path) -> None:
    """A fresh network's deviations are 0, and test mode divides by them: neither a match nor a fault of the port."""
    dag = Dag(8, {"data": (6, 6, 3)})
    x = dag.bnorm("norm", dag.conv("conv", "data", (3, 3, 3, 4)), 4)
    dag.loss("loss", dag.conv("fc", x, (4, 4, 4, 5)), "objective")
    batch = twins_dag.batch(dag)
    assert compared(tmp_path, dag, twins_dag.twin(dag), batch, mode="eval").verdict == "match"
    dag.params["normx"]["value"] = np.zeros((4, 2), np.float32)
    report = compared(tmp_path, dag, twins_dag.twin(dag), batch, mode="eval")
    assert (report.verdict, told(report)) == ("unverified", [])
    assert any("untrained" in probe.note for probe in report.probes if probe.layer == "norm")
    assert compared(tmp_path, dag, twins_dag.twin(dag), batch).verdict == "match"


def test_a_batch_normalisation_may_be_folded_into_the_filters_before_it(tmp_path: Path) -> None:
    """As cnn_imagenet_deploy.m does it: with the file's own weights, the function is the same where nothing trains."""
    dag = Dag(9, {"data": (6, 6, 3)})
    x = dag.bnorm("norm", dag.conv("conv", "data", (3, 3, 3, 4), bias=False), 4)
    dag.loss("loss", dag.conv("fc", dag.relu("relu", x), (4, 4, 4, 5)), "objective")
    values = {name: param["value"] for name, param in dag.params.items()}
    gain = values["normm"].ravel() / values["normx"][:, 1]
    shift = values["normb"].ravel() - values["normx"][:, 0] * gain

    def folded(wrong: float = 1.0, elsewhere: float = 0.0) -> Any:
        k = keras()
        image = k.Input((6, 6, 3))
        x = k.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
        model = trained(image, k.layers.Dense(5, name="fc")(k.layers.Flatten()(x)))
        model.get_layer("conv").set_weights([values["convf"] * gain, shift * wrong])
        model.get_layer("fc").set_weights([values["fcf"].reshape(-1, 5) + elsewhere, values["fcb"].ravel()])
        return model

    def report(model: Any, mode: str = "eval") -> parity.Report:
        return compared(tmp_path, dag, model, twins_dag.batch(dag), mode=mode, weights="own")

    assert report(folded()).verdict == "match"
    assert first(report(folded(wrong=1.01))) == ("structure", "norm")
    assert first(report(folded(elsewhere=0.01))) == ("weights", "fc")
    assert first(report(folded(), "train")) == ("structure", "norm")


# -------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("written", ["same", "cells"])
def test_same_follows_the_window_that_it_is_worked_out_for(written: str, tmp_path: Path) -> None:
    """A dilation that is wrong is one mistake where the padding is `same`; where cells were written it is two."""
    dag = Dag(10, {"data": (8, 8, 3)})
    x = dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 4), pad=SAME))
    dag.loss("loss", dag.conv("fc", x, (8, 8, 4, 5)), "objective")
    k = keras()

    def model(dilation: int) -> Any:
        image = k.Input((8, 8, 3))
        x = image if written == "same" else k.layers.ZeroPadding2D(dilation)(image)
        word = "same" if written == "same" else "valid"
        x = k.layers.Conv2D(4, 3, padding=word, dilation_rate=dilation, name="conv", **penalty())(x)
        x = k.layers.Flatten()(k.layers.ReLU()(x))
        return trained(image, k.layers.Dense(5, name="fc", **penalty())(x))

    batch = twins_dag.batch(dag)
    assert compared(tmp_path, dag, model(1), batch).verdict == "match"
    wrong = told(compared(tmp_path, dag, model(2), batch))
    more = [] if written == "same" else [("padding-size", "conv", True, True)]
    assert wrong == [("conv-dilation", "conv", True, True), *more]
