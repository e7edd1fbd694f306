"""Hidden channels in another order: the same function if every reader follows, a fault if one does not."""

from __future__ import annotations

import numpy as np
import pytest

import parity
from parity.orders import matched
from tests import twins


@pytest.fixture(scope="module")
def mats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    return {name: twins.save(folder / f"{name}.mat", NETS[name]()) for name in NETS}


NETS = {"plain": twins.plain, "normalised": twins.normalised}


def outputs(model, name, order):
    layer = model.get_layer(name)
    layer.set_weights([w[..., order] for w in layer.get_weights()])


def inputs(model, name, order):
    """The filters of a convolution, or the rows of a dense layer behind a flattened map, by what they read."""
    layer = model.get_layer(name)
    kernel, *rest = layer.get_weights()
    places = kernel.shape[-2] // len(order)
    rows = (np.arange(places)[:, None] * len(order) + order).ravel()
    layer.set_weights([np.take(kernel, rows, axis=-2), *rest])


def order_of(count, seed=1):
    order = np.random.default_rng(seed).permutation(count)
    assert not np.array_equal(order, np.arange(count))
    return order


def permuted(net, follow=True):
    """A port whose hidden channels are permuted; `follow=False` leaves what reads the last ones as it was."""
    model = twins.twin(NETS[net](), weights=True)
    if net == "plain":
        # conv2 has two groups, which change places; each also has an order of its own.
        first, last = np.array([4, 3, 5, 1, 2, 0]), np.array([5, 7, 4, 6, 0, 3, 2, 1])
        outputs(model, "conv1", first)
        outputs(model, "conv2", last)
        kernel, bias = model.get_layer("conv2").get_weights()
        halves = np.split(kernel, 2, axis=-1)
        parts = [half[:, :, rows % 3] for half, rows in zip(halves, np.split(first, 2), strict=True)]
        model.get_layer("conv2").set_weights([np.concatenate(parts, axis=-1), bias])
        inputs(model, "fc", last)
        hidden = order_of(12)
        outputs(model, "fc", hidden)
        if follow:
            inputs(model, "classifier", hidden)
    else:
        first, last = order_of(6), order_of(8)
        for name, order in (("conv1", first), ("bn1", first), ("conv2", last), ("bn2", last)):
            outputs(model, name, order)
        inputs(model, "conv2", first)
        if follow:
            inputs(model, "fc", last)
    return model


def compare(mats, net, model, **options):
    return parity.compare(ref=mats[net], keras=model, batch=twins.batch(), weights="own", steps=2, **options)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_an_order_that_every_reader_follows_is_the_same_function(mats, net, mode):
    report = compare(mats, net, permuted(net), mode=mode)
    assert report.verdict == "match", str(report)
    told = next(note for note in report.notes if "another order" in note)
    assert f"that {'conv1, conv2, fc' if net == 'plain' else 'conv1, conv2'} make" in told
    assert not [f for f in report.findings if f.severity == "divergence"]


@pytest.mark.parametrize("net", NETS)
def test_an_order_that_a_reader_does_not_follow_is_named_at_the_layer_that_makes_it(mats, net):
    report = compare(mats, net, permuted(net, follow=False))
    assert report.first_divergence.phase == "weights"
    where = {"plain": ["fc"], "normalised": ["conv2", "bn2"]}[net]
    assert report.first_divergence.layer == where[0]
    named = [f for f in report.findings if f.severity == "divergence"]
    assert [(f.cause, f.layer, f.confirmed) for f in named] == [("channel-order", name, True) for name in where]
    assert "another order" in " ".join(report.notes)  # that of the layers before, which is followed


def test_a_fault_beside_a_harmless_order_is_found_alone(mats):
    model = permuted("plain")
    layer = model.get_layer("fc")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * 1.01, bias])
    report = compare(mats, "plain", model)
    named = [f for f in report.findings if f.severity == "divergence"]
    assert [(f.cause, f.layer, f.fix_verified) for f in named] == [("weights-scaled", "fc", True)]


def test_rows_are_matched_exactly_or_by_the_least_distance():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 9))
    order = rng.permutation(30)
    assert np.array_equal(matched(rows, rows[order]), order)
    noisy = rows[order] + 0.01 * rng.standard_normal(rows.shape)
    assert np.array_equal(matched(rows, noisy), order)
    assert matched(rows, rows) is None
    assert matched(rows, rows + 0.05 * rng.standard_normal(rows.shape)) is None
    assert matched(rows, rng.standard_normal(rows.shape)) is None
    twice = np.vstack([rows, rows])
    assert matched(twice, twice) is None
