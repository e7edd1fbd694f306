"""Looking through tensors in blocks gives what looking at the whole gives; and what is not finite is never hidden."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from parity.debugger import measures, pictures


@pytest.fixture(params=[1 << 21, 7])
def pair(request, monkeypatch):
    """Two tensors, looked at in one block and in many."""
    monkeypatch.setattr(measures, "_BLOCK", request.param)
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((3, 4, 5, 2)).astype(np.float32)
    return expected, expected + rng.standard_normal(expected.shape).astype(np.float32) * 0.1


def test_the_worst_elements(pair):
    expected, actual = pair
    gap = np.abs(actual.astype(float) - expected)
    found = measures.extremes(expected, actual, 5)
    assert [abs(item.difference) for item in found] == pytest.approx(sorted(gap.ravel())[::-1][:5])
    assert all(gap[item.index] == pytest.approx(abs(item.difference)) for item in found)


def test_a_nan_is_the_worst(pair):
    expected, actual = pair
    actual[2, 1, 3, 0] = np.nan
    assert measures.extremes(expected, actual, 3)[0].index == (2, 1, 3, 0)


def test_channels_and_places(pair):
    expected, actual = pair
    gap = actual.astype(float) - expected
    assert measures.by_channel(expected, actual) == pytest.approx(np.sqrt((gap**2).mean(axis=(0, 1, 2))))
    assert measures.by_place(expected, actual, kernel=False) == pytest.approx(np.sqrt((gap**2).mean(axis=(0, 3))))
    assert measures.by_place(expected, actual, kernel=True) == pytest.approx(np.sqrt((gap**2).mean(axis=(2, 3))))


def test_a_histogram_counts_what_is_finite(pair):
    expected, actual = pair
    actual[0, 0, 0, 0] = np.inf
    found = measures.histogram(expected, actual, 9)
    assert (found.ref.sum(), found.keras.sum()) == (expected.size, actual.size - 1)
    assert found.ref.tolist() == np.histogram(expected, found.edges)[0].tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (37, 50), (99, 116)])
def test_what_is_not_finite_is_seen_in_a_reduced_picture(bad, place):
    """One element of many behind a cell, beside larger ones."""
    value = np.full((100, 117), 5.0, np.float32)
    value[place] = bad
    small = measures.reduced(value, 10, 10)
    assert small.shape == (10, 10)
    assert np.count_nonzero(~np.isfinite(small)) == 1
    console = Console(width=80, no_color=True)
    with console.capture() as shown:
        console.print(pictures.heatmap(value, 20, 10))
    assert shown.get().count("!!") == 1


def test_signs_can_be_read_on_every_colour_and_its_grey():
    for share in np.linspace(-1, 1, 81):
        if abs(share) > 0.01:
            ink, colour = pictures._cell(float(share), 1.0)[1].split(" on rgb")
            red, green, blue = map(int, colour.strip("()").split(","))
            grey = 0.299 * red + 0.587 * green + 0.114 * blue
            assert abs(grey - (0 if ink == "black" else 255)) > 120, (share, ink, colour)


def test_a_reduced_picture_keeps_the_sign_of_the_greatest():
    value = np.zeros((6, 6))
    value[1, 1], value[4, 5] = -3.0, 2.0
    assert measures.reduced(value, 2, 2).tolist() == [[-3.0, 0.0], [0.0, 2.0]]


def test_a_large_array_goes_to_tensorflow_as_it_is_however_it_lies():
    """Beside it keys are heard: `tf.constant` would stop every thread."""
    from parity.frameworks.keras.backends.tensorflow import TensorFlow

    backend, rng = TensorFlow(), np.random.default_rng(0)
    whole = rng.standard_normal((65, 40, 8)).astype(np.float32)
    fixed = whole.copy()
    fixed.flags.writeable = False
    for value in (whole, whole[1:], whole[:, ::2], whole.transpose(2, 0, 1), fixed, whole.astype(np.float64)):
        for dtype in (None, "float32", "float64"):
            made = backend.lent(value, dtype)
            np.testing.assert_array_equal(made.numpy(), value.astype(dtype or value.dtype))
    assert backend.lent(whole[:0]).shape == (0, 40, 8)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros((4, 4)), "4×4, zero everywhere"),
        (np.full((4, 4), np.nan), "4×4, no finite value"),
        (np.where(np.eye(4) > 0, np.inf, 0), "4×4, no finite value but zeros"),
        (np.eye(4) / 2, "4×4, strongest 0.5"),
    ],
)
def test_a_picture_says_what_its_colours_cannot(value, said):
    console = Console(width=60, no_color=True)
    with console.capture() as shown:
        console.print(pictures.heatmap(value, 40, 4))
    assert shown.get().splitlines()[-1].strip() == said
