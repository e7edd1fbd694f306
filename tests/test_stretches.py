"""Tensors that are read stretch by stretch are compared as those in memory are."""

from __future__ import annotations

import numpy as np
import pytest

from parity import stretches as module
from parity.distances import distance
from parity.relation import related
from parity.stretches import joined, measure, same, stretches


class Parts:
    """A tensor that says how much of it was read at once."""

    def __init__(self, value, chunks=None):
        self.value, self.chunks, self.shape, self.most = value, chunks, value.shape, 0

    def span(self, start, stop):
        self.most = max(self.most, stop - start)
        return self.value.reshape(-1)[start:stop]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "LENGTH", 100)
    monkeypatch.setattr(module, "WIDE", 50)


SHAPES = [((7, 5, 6, 4), (1, 2, 6, 4)), ((3, 200), (1, 40)), ((3, 200), None), ((400,), (30,)), ((), None)]
SHAPES += [((2, 90, 2), (1, 33, 2)), ((0, 3), None), ((30, 1), (9, 1)), ((6, 8, 8), (2, 3, 3))]


@pytest.mark.parametrize(("shape", "chunks"), SHAPES)
def test_a_distance_is_that_of_the_arrays(shape, chunks):
    rng = np.random.default_rng(0)
    expected = rng.standard_normal(shape, dtype=np.float32)
    actual = (expected + rng.standard_normal(shape) * 1e-3).astype(np.float32)
    a, b = Parts(actual, chunks), Parts(expected, chunks)
    found, whole = list(measure(a, b)), distance(actual, expected)
    assert b.most <= 100
    assert found[-1][0].stop == (shape[-1] if shape else 1)
    columns = np.concatenate([apart.channel_rms for _, apart in found])
    assert columns == pytest.approx(whole.channel_rms, rel=1e-5)
    assert np.concatenate([apart.channel_max for _, apart in found]) == pytest.approx(whole.channel_max)
    one = joined(found)
    assert (one.rms, one.max_abs, one.relative) == pytest.approx((whole.rms, whole.max_abs, whole.relative), rel=1e-5)
    assert same(a, expected) == bool(not actual.size)
    assert same(b, expected)


def test_channels_are_those_of_the_first():
    value = np.arange(48.0).reshape(2, 3, 8)
    flat = Parts(value.reshape(2, 24))
    assert [columns for columns, _ in stretches(value, flat)] == [slice(0, 8)]
    assert all(np.array_equal(a, b) for _, (a, b) in stretches(value, flat))


def test_what_is_not_finite_is_found_in_any_stretch():
    value = np.ones((40, 10), np.float32)
    hurt = value.copy()
    hurt[33, 3] = np.nan
    assert not joined(measure(Parts(hurt), Parts(value))).finite
    assert joined(measure(Parts(hurt), Parts(hurt))).finite
    assert related(Parts(value), Parts(hurt)).word == "independent"
    assert related(Parts(hurt), Parts(hurt)).word == "equal"


MADE = {
    "equal": lambda v, rng: v.copy(),
    "scaled": lambda v, rng: v * np.float32(3),
    "perturbed": lambda v, rng: v + np.float32(0.01) * rng.standard_normal(v.shape, dtype=np.float32),
    "independent": lambda v, rng: rng.standard_normal(v.shape, dtype=np.float32),
}


@pytest.mark.parametrize("word", MADE)
@pytest.mark.parametrize("shape", [(25, 12), (333,)])
def test_a_relation_is_that_of_the_arrays(word, shape):
    rng = np.random.default_rng(1)
    value = rng.standard_normal(shape, dtype=np.float32)
    other = MADE[word](value, rng)
    parts, whole = related(Parts(value), Parts(other)), related(value, other)
    assert (parts.word, parts.more) == (whole.word, whole.more)
    assert parts.word == word
    assert related(value, Parts(other.ravel()[:-1])).word == "misfit"
