"""Two tensors in little: where they differ, how, and by how much."""

from __future__ import annotations

import numpy as np

from parity.detail import Album, Sample, detail_of


def planted(shape, index, by=1.0):
    rng = np.random.default_rng(3)
    expected = rng.normal(size=shape).astype(np.float32)
    actual = expected.copy()
    actual[index] += np.float32(by)
    return actual, expected


def test_the_worst_element_and_its_cell_are_named():
    actual, expected = planted((4, 200, 130, 3), (2, 150, 65, 1))
    found = detail_of(actual, expected)
    assert found.heatmap.shape == (64, 64)
    assert found.axes == ("height", "width")
    assert found.worst[0].index == (2, 150, 65, 1)
    assert np.isclose(found.worst[0].actual - found.worst[0].expected, found.max_abs)
    assert len(found.worst) == 1
    assert np.argwhere(found.heatmap > 0).tolist() == [[48, 32]]
    assert np.flatnonzero(found.profile).tolist() == [1]


def test_equal_tensors_show_nothing():
    value = np.ones((2, 5), np.float32)
    found = detail_of(value.copy(), value)
    assert found.max_abs == 0
    assert found.equal == 1
    assert found.worst == ()
    assert not found.heatmap.any()
    assert found.errors.size == 0


def test_a_kernel_is_shown_by_its_channels():
    actual, expected = planted((3, 3, 5, 7), (0, 2, 4, 6))
    found = detail_of(actual, expected, axes="h w i o")
    assert found.axes == ("input channel", "output channel")
    assert np.argwhere(found.heatmap > 0).tolist() == [[4, 6]]


def test_not_a_number_on_one_side_is_the_worst_of_all():
    actual, expected = planted((4, 6), (1, 2), by=5)
    actual[3, 4] = np.nan
    actual[0, 0] = expected[0, 0] = np.nan
    found = detail_of(actual, expected)
    assert [e.index for e in found.worst] == [(3, 4), (1, 2)]
    assert found.max_abs == np.inf


def test_every_element_is_counted_on_both_sides():
    actual, expected = planted((10, 30), (1, 2), by=4)
    found = detail_of(actual, expected)
    assert found.expected.sum() == found.actual.sum() == 300
    assert found.errors.sum() == 1
    assert found.equal == 299 / 300


def test_an_album_is_bounded_and_leaves_out_what_does_not_fit():
    album = Album(expected=5000)
    actual, expected = planted((2, 300, 300, 1), (0, 0, 0, 0))
    album.look(("a", "b"), "forward", "output", (actual, expected))
    album.look(("a", "b"), "forward", "output", (actual[:, :-1], expected))
    assert [d.heatmap.shape for d in album.details] == [(32, 32)]


def test_a_sample_is_said_of_the_tensor_that_it_was_taken_from():
    """A third of the rows; of small tensors all rows are a sample, and that is the tensor."""
    actual, expected = planted((2, 6, 5, 3), (1, 2, 4, 1))
    rows = np.arange(0, 60, 3) + 2
    few, other = (value.reshape(60, 3)[rows] for value in (actual, expected))
    assert rows[14] == (1 * 6 + 2) * 5 + 4
    album = Album()
    album.look(("a", "b"), "forward", "output", (few, other), sample=Sample((2, 6, 5, 3), rows))
    album.look(
        ("a", "b"), "forward", "output", (actual.reshape(60, 3), expected.reshape(60, 3)),
        sample=Sample((2, 6, 5, 3), np.arange(60)),
    )  # fmt: skip
    part, whole = album.details
    assert (part.shape, part.part, part.axes, part.extents) == (
        (2, 6, 5, 3),
        (20, 60),
        ("sampled row", "channel"),
        (20, 3),
    )
    assert part.worst[0].index == whole.worst[0].index == (1, 2, 4, 1)
    assert np.flatnonzero(part.heatmap.max(axis=1)).tolist() == [14]
    assert (whole.part, whole.axes) == (None, ("height", "width"))


def test_a_map_of_one_column_lies_down():
    actual, expected = planted((40, 1), (3, 0))
    found = detail_of(actual, expected)
    assert (found.axes, found.extents, found.heatmap.shape) == (("", "image"), (1, 40), (1, 40))
