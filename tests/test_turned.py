"""A map that is turned before it is flattened: the rows of the dense layer follow it, or they do not.

So it is where what works on every element, a relu or a dropout, comes between or behind.
"""

from __future__ import annotations

import numpy as np
import pytest

from parity import compare
from tests import twins

pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = (5, 4, 3)
ORDERS = [(2, 1, 3), (3, 2, 1), (3, 1, 2)]


def layers():
    rng = np.random.default_rng(5)
    return [
        twins.conv("conv", rng, (3, 3, 3, 6), pad=np.ones(4)),
        twins.relu("relu"),
        twins.conv("fc", rng, (5, 4, 6, 7)),
        twins.relu("relu2"),
        twins.conv("classifier", rng, (1, 1, 7, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return twins.save(tmp_path_factory.mktemp("turned") / "net.mat", layers(), SIZE)


def trained_as_the_reference(model, held, rows):
    """The model with the reference's weights, the rows of `fc` in this order of the map's axes, and its training."""
    import keras

    for name, (kernel, bias) in held.items():
        if name == "fc" and rows is not None:
            kernel = kernel.transpose(*(axis - 1 for axis in rows), 3)
        model.get_layer(name).set_weights([kernel.reshape(model.get_layer(name).kernel.shape), bias.ravel()])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return model


def port(dims=None, rows=None, *, how: str = "Permute"):
    """A Keras model that turns its map by `dims`, with rows in the order that `rows` says (1-based, of h w c).

    Args:
        dims: of a Permute, or None.
        rows: of the dense kernel; None leaves them as the map is.
        how: it is turned and flattened: `Permute`, `transpose`, `Reshape` (behind a Permute), or `Flatten` alone.
    """
    import keras

    held = {layer["name"]: layer["weights"] for layer in layers() if "weights" in layer}
    penalty = keras.regularizers.L2(0.00025)
    own = {"kernel_regularizer": penalty, "bias_regularizer": penalty}
    given = x = keras.Input(SIZE)
    x = keras.layers.Conv2D(6, 3, padding="same", name="conv", **own)(x)
    x = keras.layers.ReLU()(x)
    if how == "transpose":
        x = keras.ops.transpose(x, (0, *dims))
    elif dims is not None:
        x = keras.layers.Permute(dims, name="turn")(x)
    last = keras.layers.Reshape((-1,)) if how == "Reshape" else keras.layers.Flatten()
    x = (keras.layers.Flatten(data_format="channels_first") if how == "Flatten" else last)(x)
    x = keras.layers.Dense(7, activation="relu", name="fc", **own)(x)
    x = keras.layers.Dense(4, name="classifier", **own)(x)
    model = keras.Model(given, x)
    return trained_as_the_reference(model, held, rows)


@pytest.mark.parametrize("weights", ["ref", "own"])
@pytest.mark.parametrize("dims", ORDERS)
def test_rows_that_follow_the_map_match(path, dims, weights):
    report = compare(path, port(dims, dims), twins.batch(size=SIZE), weights=weights, steps=2)
    assert report.verdict == "match", report.first_divergence
    assert [
        (p.status, p.note) for p in report.probes if (p.layer, p.phase, p.tensor) == ("fc", "weights", "kernel")
    ] == [("match", "equal bit for bit")]


def test_matlabs_own_order_of_a_map_matches_behind_a_reshape_too(path):
    kernel = layers()[2]["weights"][0]
    model = port((3, 2, 1), (3, 2, 1), how="Reshape")
    assert np.array_equal(model.get_layer("fc").get_weights()[0], kernel.reshape(-1, 7, order="F"))
    assert compare(path, model, twins.batch(size=SIZE), steps=1).verdict == "match"


@pytest.mark.parametrize(("how", "dims", "rows"), [("transpose", (3, 2, 1), (3, 2, 1)), ("Flatten", None, (2, 3, 1))])
def test_operations_and_channels_first_turn_a_map_as_well(path, how, dims, rows):
    batch = twins.batch(size=SIZE)
    assert compare(path, port(dims, rows, how=how), batch, weights="own", steps=1).verdict == "match"
    found = compare(path, port(dims, how=how), batch, steps=1).findings
    assert [(f.cause, f.layer) for f in found if f.severity == "divergence"] == [("flatten-order", "fc")]


@pytest.mark.parametrize("weights", ["ref", "own"])
@pytest.mark.parametrize("dims", ORDERS)
def test_rows_of_a_map_that_nothing_turns_are_a_flatten_order(path, dims, weights):
    report = compare(path, port(dims), twins.batch(size=SIZE), weights=weights, steps=1)
    first = report.first_divergence
    assert first is not None
    assert (first.phase, first.layer, first.tensor) == ("weights", "fc", "kernel")
    found = [f for f in report.findings if f.severity == "divergence"]
    assert [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in found] == [("flatten-order", "fc", True, True)]
    assert "row-major" in found[0].evidence


def test_other_rows_are_loaded_in_the_order_of_the_turned_map(path):
    model, rng = port((2, 1, 3)), np.random.default_rng(1)
    dense = model.get_layer("fc")
    dense.set_weights([rng.standard_normal(dense.kernel.shape).astype(np.float32), dense.get_weights()[1]])
    assert compare(path, model, twins.batch(size=SIZE), steps=1).verdict == "match"


@pytest.mark.parametrize(("mine", "theirs"), [((2, 1, 3), (3, 2, 1)), ((3, 1, 2), None), (None, (2, 1, 3))])
def test_two_keras_models_that_turn_their_maps_otherwise_match(mine, theirs):
    batch = twins.batch(size=SIZE)
    assert compare(port(mine, mine), port(theirs, theirs), batch, steps=1, weights="own").verdict == "match"


def test_rows_in_a_third_order_are_named_so(path):
    report = compare(path, port((2, 1, 3), (1, 3, 2)), twins.batch(size=SIZE), weights="own", steps=1)
    found = [f for f in report.findings if f.severity == "divergence"]
    assert [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in found] == [("flatten-order", "fc", True, True)]
    assert "rows, channels, columns" in found[0].evidence


# ----------------------------------------------------------------------------------- with elementwise layers in between


def dropping():
    made = layers()
    return [*made[:2], {"type": "dropout", "name": "drop", "rate": 0.4}, *made[2:]]


def between(way, rows=(3, 1, 2), *, slope=0.0, rate=0.4):
    """A port whose layers behind the convolution stand as `way` says.

    Args:
        way: letters of P (the map is turned), R (relu), D (dropout), F (flattened), C (turned and flattened).
        rows: as in `port`; None leaves them as the map is.
        slope: of the relu.
        rate: of the dropout.
    """
    import keras

    held = {layer["name"]: layer["weights"] for layer in layers() if "weights" in layer}
    penalty = keras.regularizers.L2(0.00025)
    own = {"kernel_regularizer": penalty, "bias_regularizer": penalty}
    makers = {
        "P": lambda: keras.layers.Permute((3, 1, 2)),
        "R": lambda: keras.layers.ReLU(negative_slope=slope, name="relu"),
        "D": lambda: keras.layers.Dropout(rate, name="drop"),
        "F": keras.layers.Flatten,
        "C": lambda: keras.layers.Flatten(data_format="channels_first"),
    }
    given = keras.Input(SIZE)
    x = keras.layers.Conv2D(6, 3, padding="same", name="conv", **own)(given)
    for letter in way:
        x = makers[letter]()(x)
    x = keras.layers.Dense(7, activation="relu", name="fc", **own)(x)
    model = keras.Model(given, keras.layers.Dense(4, name="classifier", **own)(x))
    return trained_as_the_reference(model, held, rows)


def saved(tmp_path, way):
    return twins.save(tmp_path / "net.mat", dropping() if "D" in way else layers(), SIZE)


def named(report):
    return [(f.cause, f.layer, f.confirmed, f.fix_verified) for f in report.findings if f.severity == "divergence"]


@pytest.mark.parametrize("weights", ["ref", "own"])
@pytest.mark.parametrize("way", ["PRF", "PFR", "RPFD", "RPDF", "PRFD", "PRDF"])
def test_what_works_on_every_element_may_come_behind_the_turning(tmp_path, way, weights):
    report = compare(saved(tmp_path, way), between(way), twins.batch(size=SIZE), weights=weights, steps=2)
    assert report.verdict == "match", report.first_divergence
    shown = {(p.layer, p.phase) for p in report.probes if p.status == "match"}
    assert {(name, phase) for name in ("relu", "fc") for phase in ("forward", "backward")} <= shown


def test_a_map_that_is_turned_and_flattened_at_once_may_be_rectified_behind_that(tmp_path):
    path, batch = saved(tmp_path, "CR"), twins.batch(size=SIZE)
    assert compare(path, between("CR", (2, 3, 1)), batch, weights="own", steps=1).verdict == "match"
    assert named(compare(path, between("CR", None), batch, weights="own", steps=1)) == [
        ("flatten-order", "fc", True, True)
    ]


@pytest.mark.parametrize(
    ("way", "wrong", "where", "cause"),
    [
        ("PRF", {"rows": None}, ("weights", "fc"), "flatten-order"),
        ("RPDF", {"rows": None}, ("weights", "fc"), "flatten-order"),
        ("PRF", {"slope": 0.2}, ("forward", "relu"), "activation-slope"),
        ("PFR", {"slope": 0.2}, ("forward", "relu"), "activation-slope"),
        ("RPFD", {"rate": 0.5}, ("forward", "drop"), "dropout-rate"),
        ("PF", {}, ("structure", "relu"), "activation-missing"),
    ],
)
def test_faults_beside_a_turned_map_are_found_in_their_place(tmp_path, way, wrong, where, cause):
    report = compare(saved(tmp_path, way), between(way, **wrong), twins.batch(size=SIZE), weights="own", steps=1)
    first = report.first_divergence
    assert first is not None
    assert (first.phase, first.layer) == where
    assert named(report) == [(cause, where[1], True, True)]


def test_two_kerases_may_rectify_a_turned_map_at_other_places():
    batch = twins.batch(size=SIZE)
    assert compare(between("RPF"), between("PFR"), batch, weights="own", steps=1).verdict == "match"
    assert compare(between("PRDF"), between("PFRD"), batch, weights="own", mode="eval").verdict == "match"
