"""What both sides are fed, by its values."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from parity.batch import load
from parity.fixes import prepared
from parity.report import Probe
from parity.rules.arrangements import renumbered
from parity.rules.inputs import _images, _otherwise

PROBE = Probe("input", "input", "input", "x", status="born")


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_images_of_one_value_are_no_multiple_of_others(constant):
    images = np.random.default_rng(0).standard_normal((4, 3, 3, 2)).astype(np.float32)
    empty = np.full_like(images, constant)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not list(_images(images, empty, PROBE))
        assert not list(_images(empty, images, PROBE))
        assert [f.cause for f in _images(images, images * 2, PROBE)] == ["input-scale"]


IMAGES = np.random.default_rng(0).standard_normal((6, 5, 5, 3)).astype(np.float32)
ORDER = [3, 0, 5, 1, 2, 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.transpose(0, 2, 1, 3), "transposed: height and width"),
        (lambda x: x[:, :, ::-1], "mirrored left to right"),
        (lambda x: x[:, ::-1], "upside down"),
        (lambda x: np.rot90(x, -1, (1, 2)), "turned by 90° to the right"),
        (lambda x: np.rot90(x, 1, (1, 2)), "turned by 90° to the left"),
        (lambda x: np.rot90(x, 2, (1, 2)), "turned by 180°"),
        (lambda x: np.rot90(x, 2, (1, 2)).transpose(0, 2, 1, 3), "the other diagonal"),
        (lambda x: x[ORDER], "another order: the reference's first is Keras' number 2"),
    ],
)
@pytest.mark.parametrize("more", [(), ("input-channel-order", "input-mean", "input-scale")])
def test_images_that_are_turned_or_in_another_order_are_told_and_put_right(change, words, more):
    given = change(IMAGES)
    if more:
        given = ((given[..., ::-1] + np.float32([1, 2, 3])) / 255).astype(np.float32)
    found = list(_images(IMAGES, given, PROBE))
    assert [f.cause for f in found] == ["unknown", *more]
    assert words in found[0].evidence
    fixed = prepared(load({"x_ref": IMAGES, "x_keras": given}), [c for f in found for c in f.changes])
    np.testing.assert_allclose(fixed.arrays["x_keras"], IMAGES, atol=2e-5)


def test_images_that_are_standardised_one_by_one_are_told_and_put_right():
    axes = (1, 2, 3)
    given = (IMAGES - IMAGES.mean(axes, keepdims=True)) / IMAGES.std(axes, keepdims=True)
    (found,) = _images(IMAGES, given, PROBE)
    assert found.cause == "input-scale"
    assert "one by one" in found.evidence
    fixed = prepared(load({"x_ref": IMAGES, "x_keras": given}), found.changes)
    np.testing.assert_allclose(fixed.arrays["x_keras"], IMAGES, atol=1e-5)


def test_other_images_are_in_no_order():
    other = np.random.default_rng(1).standard_normal(IMAGES.shape).astype(np.float32)
    assert not list(_images(IMAGES, other, PROBE))
    assert not list(_images(IMAGES, np.repeat(IMAGES[:1], 6, axis=0), PROBE))


def test_labels_that_are_numbered_otherwise_or_in_another_order_are_told():
    labels = np.array([0, 1, 2, 3, 2, 1])
    (found,) = _otherwise(PROBE, labels, np.array([2, 0, 3, 1])[labels], None)
    fixed = prepared(load({"x": IMAGES, "y_ref": labels, "y_keras": np.array([2, 0, 3, 1])[labels]}), found.changes)
    np.testing.assert_array_equal(fixed.arrays["y_keras"], labels)
    inverse = np.argsort(ORDER).tolist()
    (found,) = _otherwise(PROBE, labels, labels[ORDER], inverse)
    assert "in the order of its images" in found.evidence
    (found,) = _otherwise(PROBE, labels, labels[ORDER], None)
    assert "do not belong to these images" in found.evidence
    assert not list(_otherwise(PROBE, labels, np.array([1, 1, 0, 0, 0, 0]), None))
    assert renumbered(np.array([0, 1, 2]), np.array([2, 0, 1])) is None  # as many classes as labels say nothing
