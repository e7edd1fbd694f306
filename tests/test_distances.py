"""Distances of tensors: per channel, whatever their shapes, and of what is not finite."""

from __future__ import annotations

import numpy as np
import pytest

from parity.distances import channel_rms, channel_sum, distance
from parity.tolerance import CLEAN, ROUNDOFF, response_floor


@pytest.mark.parametrize(
    "shape", [(), (5,), (1, 1), (70, 3), (8, 33, 31, 16), (2, 700), (3, 2, 1100), (0, 4), (1025, 1)]
)
def test_a_distance_is_that_of_each_channel(shape):
    """Also where rows of few channels are taken together, and some are left over."""
    rng = np.random.default_rng(0)
    expected = rng.standard_normal(shape).astype(np.float32)
    actual = np.asarray(expected + 0.1 * rng.standard_normal(shape), np.float32)
    gap = (actual.astype(np.float64) - expected).reshape(-1, shape[-1] if shape else 1)
    found = distance(actual, expected)
    np.testing.assert_allclose(found.channel_max, np.abs(gap).max(axis=0, initial=0), rtol=1e-5)
    np.testing.assert_allclose(found.channel_rms, np.sqrt((gap**2).sum(axis=0) / max(1, len(gap))), rtol=1e-5)
    assert found.max_abs == pytest.approx(np.abs(gap).max(initial=0), rel=1e-5)
    rows = expected.reshape(gap.shape).astype(np.float64)
    if expected.size:
        np.testing.assert_allclose(channel_rms(expected), np.sqrt((rows**2).mean(axis=0)), rtol=1e-5)


def test_a_large_tensor_is_measured_in_parts_as_a_small_one_is():
    """In blocks and on several threads; an infinity on both sides is no difference, and neither are sizes past 1e19."""
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((301, 70, 60)).astype(np.float32)
    actual = expected.copy()
    actual[[3, 150, 300], 5, 7] += np.asarray([0.5, 3, -1], np.float32)
    expected[200, 0, 1] = actual[200, 0, 1] = np.inf
    for size in (1, 1e25):
        found = distance(actual * np.float32(size), expected * np.float32(size))
        assert found.finite
        assert found.max_abs == pytest.approx(3 * size, rel=1e-5)
        assert list(np.flatnonzero(found.channel_max)) == list(np.flatnonzero(found.channel_rms)) == [7]
        assert found.channel_rms[7] == pytest.approx(size * np.sqrt((0.25 + 9 + 1) / (301 * 70)), rel=1e-5)
    actual[200, 0, 1] = 1
    assert not distance(actual, expected).finite


@pytest.mark.parametrize("place", [0, 4095, 4099])
def test_one_value_that_is_no_number_is_seen_wherever_it_is(place):
    expected = np.ones((1025, 4), np.float32)
    actual = expected + np.float32(0.5)
    actual.reshape(-1)[place] = np.nan
    assert not distance(actual, expected).finite
    expected.reshape(-1)[place] = np.nan
    assert distance(actual, expected).max_abs == 0.5


@pytest.mark.parametrize("shape", [(5, 7), (3, 1000, 3), (6, 49, 40), (9, 31, 33, 3), (0, 4), (4, 300, 1100)])
def test_a_distance_by_image_is_that_of_each(shape):
    """In whatever blocks the images are looked at; the rest of the distance is the same as without."""
    rng = np.random.default_rng(1)
    expected = rng.standard_normal(shape).astype(np.float32)
    actual = np.asarray(expected + 0.1 * rng.standard_normal(shape), np.float32)
    found, plain = distance(actual, expected, by_image=True), distance(actual, expected)
    np.testing.assert_allclose(found.channel_rms, plain.channel_rms, rtol=1e-6)
    np.testing.assert_array_equal(found.channel_max, plain.channel_max)
    assert plain.images is None
    if not expected.size:
        assert found.images is None  # nothing is apart
        return
    gap = np.abs(actual.astype(np.float64) - expected).reshape(shape[0], -1)
    assert found.images is not None
    np.testing.assert_allclose(found.images, [gap.max(axis=1), np.sqrt((gap**2).mean(axis=1))], rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (17,), (5, 7), (100, 50, 11), (8, 57, 31, 3), (0, 4), (2, 3, 1100)])
def test_a_sum_of_channels_is_that_of_float64(shape):
    value = np.asarray(np.random.default_rng(2).standard_normal(shape) + 1, np.float32)
    wide = value.astype(np.float64).reshape(-1, shape[-1] if shape else 1)
    found = channel_sum(value)
    size = np.sqrt(max(1, len(wide))) * 2.0**-24
    np.testing.assert_allclose(found, wide.sum(axis=0), rtol=2.0**-24, atol=20 * size)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_a_response_normalisation_whose_terms_cancel_are_rounding(seed):
    import torch

    from parity.layers import LRN
    from parity.layers.lrn import local_response

    rng = np.random.default_rng(seed)
    x = 1e4 * (1 + rng.random((8, 6, 6, 8))) * np.array([1.0, 1e2, 1, 1, 1, 1, 1, 1e2])  # two channels outweigh all
    dy = rng.standard_t(2, x.shape)

    def gradient(alpha: float, precision: torch.dtype) -> np.ndarray:
        own, upstream = (torch.tensor(v, dtype=precision).movedim(-1, 1) for v in (x, dy))
        own.requires_grad_()
        (made,) = torch.autograd.grad(local_response(own, 5, 1.0, alpha, 0.5), own, upstream)
        return made.movedim(1, -1).numpy()

    value, upstream = x.astype(np.float32), dy.astype(np.float32)
    truth = gradient(0.02, torch.float64).astype(np.float32)
    floor = response_floor(LRN(5, 1.0, 0.02, 0.5), value, upstream)
    assert distance(gradient(0.02, torch.float32), truth).x_floor(floor) <= CLEAN
    assert distance(gradient(0.02, torch.float32), truth).x_floor(4 * ROUNDOFF * channel_rms(truth)) > CLEAN
    assert distance(gradient(0.0201, torch.float32), truth).x_floor(floor) > 10 * CLEAN
