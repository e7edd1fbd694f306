"""Layers, rules and recipes in words."""

from __future__ import annotations

import pytest

from parity.layers import (
    KINDS,
    AffineGridGenerator,
    BatchNorm,
    BilinearSampler,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    DistanceLoss,
    Dropout,
    NormOffset,
    Opaque,
    PDist,
    Pool,
    Reshape,
    ROIPooling,
    Scale,
    SpatialNorm,
)
from parity.layers.activation import Activation
from parity.layers.loss import Loss
from parity.optimizers import RULES, SGD
from parity.recipe import Recipe, Schedule
from parity.wording import kind_words, recipe_words, rule_words


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Conv(64, (3, 3), (2, 2), (1, 1, 1, 1), groups=2), "conv 3×3, 64 filters, stride 2, pad 1, 2 groups"),
        (
            Conv(8, (1, 5), (1, 2), (0, 1, 0, 1), (2, 2), bias=False),
            "conv 1×5, 8 filters, stride 1 2, pad 0 1 0 1, dilate 2, no bias",
        ),
        (Conv(8, pad=None), "conv 1×1, 8 filters, pad same"),
        (Dense(10), "dense, 10 units"),
        (Pool("avg", (2, 2), (2, 2), count_pad=True), "avg pool 2×2, stride 2, padding counts"),
        (Pool("max", None), "max pool global"),
        (Activation("relu", slope=0.1), "relu, slope 0.1"),
        (BatchNorm(1e-4), "batch norm, epsilon 0.0001, no momentum"),
        (BatchNorm(1e-3, 0.99, scale=False, frozen=True), "batch norm, epsilon 0.001, momentum 0.99, no gamma, frozen"),
        (Dropout(0.25), "dropout 0.25"),
        (Loss("softmaxlog", label_smoothing=0.1), "softmaxlog loss, mean, label smoothing 0.1"),
        (Reshape((3, -1)), "reshape to 3×-1"),
        (Opaque("Lambda", runs_code=True), "Lambda"),
        (
            ConvTranspose(6, (4, 4), (2, 2), (1, 1, 1, 1), groups=3),
            "transposed conv 4×4, 6 filters, upsample 2, crop 1, 3 groups",
        ),
        (Crop(None, (1, 1)), "crop to the size of its second input"),
        (NormOffset(0.3, 0.7), "norm offset, alpha 0.3, beta 0.7"),
        (SpatialNorm((3, 2)), "spatial norm 3×2, alpha 10, beta 2"),
        (Scale(bias=False), "scale, no bias"),
        (PDist(1.0), "distance of power 1, summed"),
        (DistanceLoss(root=False), "distance loss of power 2, no root, sum"),
        (ROIPooling("avg", (3, 2), flatten=True), "avg pool of regions 3×2, flat"),
        (BilinearSampler(), "bilinear sampler"),
        (AffineGridGenerator(4, 5), "affine grid 4×5"),
    ],
)  # fmt: skip
def test_kinds(kind, words):
    assert kind_words(kind) == words


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_has_words(kind):
    words = kind_words(kind())
    assert words
    assert "\n" not in words


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_rule_has_words(rule):
    assert rule_words(rule()).startswith(rule.__name__)


def test_rules():
    assert rule_words(SGD(momentum=0.9, nesterov=True)) == "SGD, momentum 0.9, nesterov"
    assert rule_words(SGD()) == "SGD"
    assert rule_words(None) == ""


def test_a_recipe_marks_what_its_file_does_not_hold():
    recipe = Recipe(
        optimizer=SGD(0.9), learning_rate=Schedule("epochs", (0.01, 0.01, 0.001)), weight_decay=5e-4, batch_size=256,
        defaults=frozenset({"batch_size", "weight_decay"}), clip={"clipnorm": 1.0},
    )  # fmt: skip
    lines = {name: (value, default) for name, value, default in recipe_words(recipe)}
    assert lines["optimizer"] == ("SGD, momentum 0.9", False)
    assert lines["learning rate"] == ("0.01 ×2, 0.001", False)
    assert lines["weight decay"] == ("0.0005", True)
    assert lines["batch size"] == ("256", True)
    assert lines["gradient clipping"] == ("clipnorm 1", False)
    assert lines["epochs"] == ("", False)
