"""Batches: what is read, what is refused and with which line, and what a generated one promises."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from parity.batch import IMDB_IMAGES, Batch, class_ids, load, mean_note
from parity.errors import BadFile, BadUsage
from parity.feeds import Side, inputs_for, matched_inputs, targets_for
from parity.layers import Loss
from parity.network import Layer, Network
from parity.probes import images, probe_inputs, with_targets

rng = np.random.default_rng(7)
X = rng.standard_normal((6, 5, 4, 3)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def refusal(path) -> str:
    with pytest.raises(BadFile) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line
    return line


REF, KERAS = Side("ref", "the reference"), Side("keras", "the Keras model")


def classifier(classes: int | None = 3, function: str = "softmaxlog", *, names=("loss",)) -> Network:
    """A network whose inputs are its predictions, with a loss on each."""
    shape = (classes,)
    labels = ["labels" if len(names) == 1 else f"labels:{name}" for name in names]
    layers = tuple(
        Layer(f"loss:{name}", Loss(function), (name, label), (f"loss:{name}",), shape=())
        for name, label in zip(names, labels, strict=True)
    )
    inputs = {**dict.fromkeys(names, shape), **dict.fromkeys(labels, ())}
    return Network("net", "matconvnet", inputs, tuple(names), layers, {}, labels=tuple(labels))


def fed(arrays, shape, classes=None, side=REF):
    """The input and the labels as a network of one input and one loss takes them."""
    batch = load(arrays)
    network = classifier(classes)
    x = inputs_for(batch, side, {"input": shape}, {})["input"]
    targets, notes = targets_for(batch, side, network, network)
    return x, None if targets is None else targets.values["labels"], notes


def probe(shape, classes, seed) -> Batch:
    """A generated batch of one input, and of labels for a classifier."""
    generator = np.random.default_rng(seed)
    batch = probe_inputs(None, {"input": shape}, generator)
    return batch if classes is None else with_targets(batch, classifier(classes), generator)


def test_an_archive_of_images_and_ids(tmp_path):
    batch = load(save(tmp_path / "b.npz", x=X, y=Y))
    assert np.array_equal(batch.x_ref, X)
    assert batch.x_ref.dtype == np.float32
    assert batch.x_ref is batch.x_keras
    assert batch.arrays["y"].tolist() == Y.tolist()
    assert len(batch) == 6
    assert batch.notes == ()


def test_the_name_of_the_file_does_not_matter(tmp_path):
    path = save(tmp_path / "b.npz", x=X, y=Y).rename(tmp_path / "b.mat")
    assert len(load(path)) == 6


def test_compressed_archives_and_fortran_order(tmp_path):
    path = tmp_path / "b.npz"
    np.savez_compressed(path, x=np.asfortranarray(X), y=Y)
    assert np.array_equal(load(path).x_ref, X)


def test_one_hot_labels_become_ids_and_tell_the_number_of_classes(tmp_path):
    batch = load(save(tmp_path / "b.npz", x=X, y=np.eye(4, dtype=np.float32)[Y]))
    ids, classes = class_ids(batch.arrays["y"], "y", batch.source)
    assert ids.tolist() == Y.tolist()
    assert classes == 4


def test_a_column_of_ids_and_whole_floats_are_ids(tmp_path):
    batch = load(save(tmp_path / "b.npz", x=X, y=Y.astype(np.float64)[:, None]))
    ids, classes = class_ids(batch.arrays["y"], "y", batch.source)
    assert ids.tolist() == Y.tolist()
    assert ids.dtype == np.int64
    assert classes is None


def test_each_side_may_bring_its_own_input(tmp_path):
    batch = load(save(tmp_path / "b.npz", x_ref=X, x_keras=X / 255, y=Y))
    assert batch.x_keras is not None
    assert np.array_equal(batch.x_keras, (X / 255).astype(np.float32))
    batch = load(save(tmp_path / "c.npz", x=X, y_ref=Y, y_keras=Y[::-1].copy()))
    for side, expected in ((REF, Y), (KERAS, Y[::-1])):
        targets, _ = targets_for(batch, side, classifier(), classifier())
        assert targets is not None
        assert targets.values["labels"].tolist() == expected.tolist()


def test_labels_are_optional_and_other_types_are_cast(tmp_path):
    batch = load(save(tmp_path / "b.npz", x=np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)))
    assert set(batch.arrays) == {"x"}
    assert batch.x_ref is not None
    assert batch.x_ref.dtype == np.float32
    assert batch.x_ref.max() == 23
    assert targets_for(batch, REF, classifier(), classifier()) == (None, ())


def test_a_missing_channel_axis_is_added_where_a_network_takes_maps():
    assert fed({"x": X[..., 0]}, (5, 4, 1))[0].shape == (6, 5, 4, 1)
    assert fed({"x": X[..., 0]}, (None, None, 1))[0].shape == (6, 5, 4, 1)
    assert fed({"x": X[..., 0]}, (5, 4))[0].shape == (6, 5, 4)  # a sequence of vectors stays one


def test_labels_that_may_count_from_one_are_noted():
    assert any("count from 0" in note for note in fed({"x": X, "y": Y + 1}, (5, 4, 3), 4)[2])
    assert not fed({"x": X, "y": Y}, (5, 4, 3), 4)[2]


def test_ignored_labels_become_weights_of_zero_where_keras_is_given_them():
    batch = load({"x": X, "y": Y - 1, "w": np.arange(6.0)})
    network = replace(classifier(), framework="keras")
    ref, _ = targets_for(batch, REF, replace(network, framework="matconvnet"), network)
    keras, notes = targets_for(batch, KERAS, network, network)
    other, _ = targets_for(batch, REF, network, network)
    assert other is not None
    assert other.weights["labels"].tolist() == [0, 1, 2, 0, 4, 5]
    assert ref is not None
    assert keras is not None
    assert ref.values["labels"].tolist() == (Y - 1).tolist()
    assert ref.weights["labels"].tolist() == [0, 1, 2, 3, 4, 5]
    assert keras.values["labels"].tolist() == [0, 0, 1, 0, 0, 1]
    assert keras.weights["labels"].tolist() == [0, 1, 2, 0, 4, 5]
    assert "ignored" in notes[0]


def test_several_inputs_are_found_by_the_names_of_either_side():
    batch = load({"x_left": X, "x_keras_right": X[..., :1], "x_ref_right": X[..., :2], "y": Y})
    shapes = {"left": (5, 4, 3), "right": (5, 4, 2)}
    found = inputs_for(batch, REF, shapes, {})
    assert [found[name].shape[3] for name in shapes] == [3, 2]
    keras = {"input_1": (5, 4, 3), "right": (5, 4, 1)}
    found = inputs_for(batch, KERAS, keras, {"input_1": "left", "right": "right"})
    assert [found[name].shape[3] for name in keras] == [3, 1]
    with pytest.raises(BadFile, match=r"no array for the input a of the reference .* name the arrays x_a, x_b"):
        inputs_for(batch, REF, {"a": (5, 4, 3), "b": (5, 4, 3)}, {})


def test_inputs_are_matched_by_name_then_by_shape_then_in_order():
    ref = {"data": (8, 8, 3), "mask": (8, 8, 1), "aux": (4,)}
    assert matched_inputs(ref, {"in_1": (4,), "in_2": (1, 8, 8), "Data:0": (8, 8, 3)}) == {
        "in_1": "aux",
        "in_2": "mask",
        "Data:0": "data",
    }
    assert matched_inputs({"a": (4,), "b": (4,)}, {"x": (4,), "y": (4,)}) == {"x": "a", "y": "b"}


def test_several_losses_take_labels_of_their_own_or_the_same():
    ref, keras = classifier(names=("fine", "coarse")), classifier(names=("out_1", "out_2"))
    batch = load({"x": X, "y_fine": Y, "y_out_2": Y[::-1].copy()})
    for side, network, other in ((REF, ref, keras), (KERAS, keras, ref)):
        targets, _ = targets_for(batch, side, network, other)
        assert targets is not None
        assert [v.tolist() for v in targets.values.values()] == [Y.tolist(), Y[::-1].tolist()]
    both, _ = targets_for(load({"x": X, "y": Y}), REF, ref, keras)
    assert both is not None
    assert len(both.values) == 2
    with pytest.raises(BadFile, match="no labels for the loss on coarse"):
        targets_for(load({"x": X, "y_fine": Y}), REF, ref, keras)
    with pytest.raises(BadFile, match=r"no labels for the loss on fine of the reference \(it has y_a, y_b\)"):
        targets_for(load({"x": X, "y_a": Y, "y_b": Y}), REF, ref, keras)  # not: a batch without labels
    assert targets_for(load({"x": X}), REF, ref, keras) == (None, ())


def test_a_loss_of_values_takes_them_as_they_are():
    values = rng.standard_normal((6, 3)).astype(np.float32)
    network = classifier(3, "mean_squared_error")
    targets, _ = targets_for(load({"x": X, "y": values}), KERAS, network, network)
    assert targets is not None
    assert np.array_equal(targets.values["labels"], values)
    one = classifier(1, "mean_squared_error")
    targets, _ = targets_for(load({"x": X, "y": np.arange(6) * 10}), KERAS, one, one)
    assert targets is not None
    assert targets.values["labels"].tolist() == [0, 10, 20, 30, 40, 50]


def test_arrays_in_memory_and_batches_pass():
    batch = load({"x": X, "y": Y})
    assert load(batch) is batch
    with pytest.raises(BadUsage, match="not int"):
        load(3)  # pyright: ignore[reportArgumentType]


BAD = {
    "no x": ({"images": X}, "no array x (it has images)"),
    "half a pair": ({"x_ref": X, "y": Y}, "x_ref but not the other side's"),
    "sides of two sizes": ({"x_ref": X, "x_keras": X[:3]}, "6 images and x_keras 3"),
    "NaN": ({"x": np.where(np.isclose(X, X[1, 2, 3, 0], 0, 0), np.nan, X)}, "the first at [1, 2, 3, 0]"),
    "Inf": ({"x": np.full((2, 2, 2, 1), np.inf)}, "8 values that are NaN or Inf"),
    "too large for float32": ({"x": np.full((2, 2, 2, 1), 1e300)}, "NaN or Inf"),
    "rank": ({"x": X[0, 0, 0]}, "x has the shape 3"),
    "rank six": ({"x": X[None, None]}, "1×1×6×5×4×3"),
    "empty": ({"x": X[:0]}, "0×5×4×3"),
    "complex": ({"x": X * 1j}, "complex"),
    "text": ({"x": np.array([["a"]])}, "<U1"),
    "fewer labels": ({"x": X, "y": Y[:5]}, "5 labels for 6 images"),
    "objects": ({"x": np.array([{}], dtype=object)}, "Python objects"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_archives_are_one_clear_line(tmp_path, case):
    arrays, words = BAD[case]
    line = refusal(save(tmp_path / "b.npz", **arrays))
    assert words in line
    assert line.startswith(str(tmp_path / "b.npz"))


BAD_LABELS = {
    "negative label": (Y - 2, "the label -2"),
    "half a label": (Y / 2, "not whole numbers"),
    "NaN label": (np.full(6, np.nan), "not whole numbers"),
    "giant label": (np.full(6, 1e12), "1000000000000"),
    "two hot": (np.ones((6, 3)), "row 0 of y is not one-hot"),
    "soft": (np.full((6, 2), 0.5), "not one-hot"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_are_no_classes_are_one_clear_line(case):
    labels, words = BAD_LABELS[case]
    with pytest.raises(BadFile, match=words):
        fed({"x": X, "y": labels}, (5, 4, 3), 3)


def test_what_is_no_batch(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.npz")
    assert "cannot be read" in refusal(tmp_path)
    (tmp_path / "text").write_text("x,y\n1,2\n")
    assert "neither an .npz nor" in refusal(tmp_path / "text")
    (tmp_path / "empty").write_bytes(b"")
    assert "neither" in refusal(tmp_path / "empty")
    np.save(tmp_path / "one.npy", X)
    assert ".npy" in refusal(tmp_path / "one.npy")
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert "without arrays" in refusal(tmp_path / "model.keras")


def test_truncated_archives(tmp_path):
    whole = save(tmp_path / "b.npz", x=X, y=Y).read_bytes()
    for share in range(1, 10):
        path = tmp_path / f"cut{share}.npz"
        path.write_bytes(whole[: len(whole) * share // 10])
        assert "damaged" in refusal(path)


def test_flipped_bytes_give_a_line_or_a_batch(tmp_path):
    whole = bytearray(save(tmp_path / "b.npz", x=X, y=Y).read_bytes())
    flips = np.random.default_rng(0)
    for trial in range(200):
        damaged = bytearray(whole)
        for position in flips.integers(0, len(whole), 3):
            damaged[position] ^= 1 << int(flips.integers(8))
        path = tmp_path / f"{trial}.npz"
        path.write_bytes(damaged)
        try:
            load(path)
        except BadFile as error:
            assert "\n" not in str(error)


def test_a_declared_size_beyond_the_file_is_refused_before_it_is_allocated(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"\0" * 64)
    assert "declares" in refusal(tmp_path / "bomb.npz")


def test_a_directory_that_lies_about_sizes_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "b.npz", x=np.zeros((1, 8, 8, 1), np.float32))
    damaged = bytearray((tmp_path / "b.npz").read_bytes())
    entry = damaged.find(b"PK\x01\x02")
    damaged[entry + 24 : entry + 28] = (0xF0000000).to_bytes(4, "little")
    (tmp_path / "lie.npz").write_bytes(damaged)
    assert "more bytes than its compressed ones can unfold to" in refusal(tmp_path / "lie.npz")


def test_arrays_may_be_written_to(tmp_path):
    assert load(save(tmp_path / "b.npz", x=X, y=Y)).arrays["x"].flags.writeable


def fake_imdb(monkeypatch, tmp_path, **images):
    """An imdb as the MAT reader gives it: plain dicts and Fortran-shaped arrays."""
    from parity.frameworks.matconvnet import matfile

    path = tmp_path / "imdb.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM")
    monkeypatch.setattr(matfile, "read", lambda _: {"images": images})
    return path


def test_an_imdb_is_turned_and_its_labels_counted_from_zero(monkeypatch, tmp_path):
    data = np.asfortranarray(np.moveaxis(X, 0, 3))
    path = fake_imdb(monkeypatch, tmp_path, data=data, labels=(Y + 1.0)[None, :], set=np.array([[1, 1, 3, 1, 1, 3]]))
    batch = load(path)
    assert np.array_equal(batch.x_ref, X[[0, 1, 3, 4]])
    assert batch.arrays["y"].tolist() == [0, 1, 0, 1]
    assert batch.counted_from_zero
    assert any("the first 4 training images of 6" in note for note in batch.notes)


def test_an_imdb_gives_its_first_images_only(monkeypatch, tmp_path):
    many = rng.standard_normal((2, 2, 3, 300)).astype(np.float32)
    assert len(load(fake_imdb(monkeypatch, tmp_path, data=many, labels=np.ones((1, 300))))) == IMDB_IMAGES


def test_an_imdb_without_channels_or_with_a_single_image(monkeypatch, tmp_path):
    grey = load(fake_imdb(monkeypatch, tmp_path, data=np.moveaxis(X[..., 0], 0, 2), labels=(Y + 1)[None, :]))
    assert grey.arrays["x"].shape == (6, 5, 4, 1)
    one = load(fake_imdb(monkeypatch, tmp_path, data=X[0], labels=np.array([[1]])))
    assert one.arrays["x"].shape == (1, 5, 4, 3)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ({}, "no images.data"),
        ({"data": np.moveaxis(X, 0, 3), "labels": np.ones((1, 5))}, "5 labels for 6"),
        ({"data": np.moveaxis(X, 0, 3), "labels": np.full((1, 6), -1)}, "count from 1"),
        ({"data": X[None], "labels": np.ones((1, 6))}, "1×6×5×4×3"),
    ],
)
def test_bad_imdbs(monkeypatch, tmp_path, images, words):
    assert words in refusal(fake_imdb(monkeypatch, tmp_path, **images))


def test_an_imdb_whose_mean_is_still_in_it_says_so(monkeypatch, tmp_path):
    mean = np.full((5, 4, 3), 120.0)
    data = np.moveaxis(X, 0, 3)
    raw = load(fake_imdb(monkeypatch, tmp_path, data=data + mean[..., None], labels=np.ones((1, 6)), data_mean=mean))
    assert any("data_mean does not look subtracted" in note for note in raw.notes)
    done = load(fake_imdb(monkeypatch, tmp_path, data=data, labels=np.ones((1, 6)), data_mean=mean))
    assert not any("data_mean" in note for note in done.notes)


def test_means_per_channel_per_pixel_and_of_another_size():
    raw = X + np.array([100.0, 110, 120])
    shaped = [np.full(shape, 110.0) for shape in ((5, 4, 3), (9, 9, 3), (5, 4))]
    for mean in (np.array([100.0, 110, 120]), *shaped):
        assert "averageImage" in mean_note(raw, mean, "averageImage")
        assert mean_note(X, mean, "averageImage") == ""


def test_vectors_are_given_their_map_and_back():
    vectors = {"x": X.reshape(6, 60), "y": Y}
    assert fed(vectors, (1, 1, 60))[0].shape == (6, 1, 1, 60)
    assert fed(vectors, (60,))[0].shape == (6, 60)
    assert fed({"x": X.reshape(6, 1, 1, 60), "y": Y}, (60,))[0].shape == (6, 60)
    assert fed({"x": X, "y": Y}, (60,))[0].shape == (6, 60)
    assert fed({"x": X, "y": Y}, (None, None, 3))[0].shape == X.shape


@pytest.mark.parametrize(
    ("arrays", "shape", "classes", "words"),
    [
        ({"x": X}, (5, 4, 1), None, "images of 5×4×3, but the reference takes 5×4×1"),
        ({"x": np.moveaxis(X, 3, 1)}, (5, 4, 3), None, "look like (n, c, h, w)"),
        ({"x": np.moveaxis(X, 0, 3)}, (5, 4, 3), None, "look like MatConvNet's (h, w, c, n)"),
        ({"x": X, "y": Y}, (5, 4, 3), 2, "the label 2, but the network has 2 classes; labels in a batch count from 0"),
        ({"x": X, "y": Y + 1}, (5, 4, 3), 3, "seem to count from 1"),
        ({"x": X, "y": np.eye(4)[Y]}, (5, 4, 3), 3, "one-hot labels of 4 classes, but the network has 3"),
        ({"x": X}, (61,), None, "takes 61"),
    ],
)
def test_what_does_not_fit_is_one_line(arrays, shape, classes, words):
    with pytest.raises(BadFile) as caught:
        fed(arrays, shape, classes)
    assert words in str(caught.value)


def test_each_side_is_judged_alone():
    arrays = {"x_ref": X, "x_keras": X[..., :1], "y": Y}
    assert fed(arrays, (5, 4, 1), 3, KERAS)[0].shape == (6, 5, 4, 1)
    with pytest.raises(BadFile, match="the Keras model takes 5×4×3"):
        fed(arrays, (5, 4, 3), 3, KERAS)


def test_one_logit_tells_two_classes_apart():
    assert fed({"x": X, "y": Y % 2}, (5, 4, 3), 1)[1].tolist() == (Y % 2).tolist()
    with pytest.raises(BadFile):
        fed({"x": X, "y": Y}, (5, 4, 3), 1)


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 7, 5), (1, 1, 64), (40,), (64, 48, 3), (30, 6), (6, 7, 8, 2)])
def test_a_probe_batch_hides_nothing(shape):
    batch = probe(shape, 10, seed=3)
    x = batch.arrays["x"]
    assert x.shape == (16, *shape)
    assert x.dtype == np.float32
    assert np.sqrt(np.mean(x**2)) == pytest.approx(1, abs=0.01)
    assert 0.2 < np.mean(x > 0) < 0.8
    assert not np.any(x == 0)
    planes = np.moveaxis(x.reshape(16, -1, shape[-1]), 2, 1).reshape(16 * shape[-1], -1)
    assert all(len(np.unique(plane)) == plane.size for plane in planes)
    assert set(batch.arrays["y"].tolist()) == set(range(10))
    assert np.array_equal(x, probe(shape, 10, seed=3).arrays["x"])
    assert not np.array_equal(x, probe(shape, 10, seed=4).arrays["x"])


def test_a_probe_batch_tells_channels_borders_and_directions_apart():
    x = images((32, 24, 4), 64, np.random.default_rng(0)).astype(np.float64)
    channels = x.mean(axis=(0, 1, 2))
    spreads = x.std(axis=(0, 1, 2))
    assert np.diff(np.sort(channels)).min() > 0.02
    assert spreads.max() / spreads.min() > 3
    borders = [x[:, 0].mean(), x[:, -1].mean(), x[:, :, 0].mean(), x[:, :, -1].mean()]
    assert np.diff(np.sort(borders)).min() > 0.02
    mean = x.mean(axis=0)
    for mirrored in (mean[::-1], mean[:, ::-1], mean[::-1, ::-1]):
        assert np.abs(mean - mirrored).mean() > 0.1


def test_a_probe_batch_of_a_binary_network_has_both_labels_and_may_have_none():
    assert set(probe((4, 4, 1), 1, 0).arrays["y"].tolist()) == {0, 1}
    assert "y" not in probe((4, 4, 1), None, 0).arrays


def test_batches_are_values():
    with pytest.raises(AttributeError):
        Batch({"x": X}).source = "other"  # pyright: ignore[reportAttributeAccessIssue]
