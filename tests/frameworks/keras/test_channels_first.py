"""Models that keep their channels first run with channels last: the same values, the same kinds, slots included."""

import numpy as np
import pytest

import parity
from parity.errors import CannotCompare
from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.lift import lift
from parity.frameworks.keras.load import open_keras
from parity.frameworks.keras.runner import KerasRunner
from parity.layers import Conv, Opaque

FIRST = {"data_format": "channels_first"}


def flattened(keras):
    """Maps flattened as they lie: a Dense, and what stands between, must have its rows in another order."""
    L = keras.layers
    return [
        L.Conv2D(4, 3, padding="same", activation="relu", **FIRST), L.MaxPooling2D(2, **FIRST),
        L.BatchNormalization(axis=1), L.Flatten(data_format="channels_last"), L.Dropout(0.3), L.BatchNormalization(),
        L.Dense(6, activation="relu"), L.Dense(5, activation="softmax"),
    ]  # fmt: skip


def told(keras):
    """A Flatten that was itself told where the channels are: it flattens channels last."""
    L = keras.layers
    return [
        L.ZeroPadding2D(((1, 0), (0, 2)), **FIRST), L.SeparableConv2D(4, 3, **FIRST), L.AveragePooling2D(2, **FIRST),
        L.Cropping2D(((0, 1), (0, 0)), **FIRST), L.UpSampling2D(2, **FIRST), L.Flatten(**FIRST),
        L.Dense(5, activation="softmax"),
    ]  # fmt: skip


def branches(keras):
    """Axes by name: concatenation, shared slopes, softmax over channels; a Reshape sees the order of the axes."""
    L = keras.layers
    x = L.Input((3, 8, 9))
    a, b = (
        L.Conv2D(4, 3, padding="same", **FIRST)(x),
        L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, **FIRST)(x),
    )
    c = L.LeakyReLU()(L.PReLU(shared_axes=[2, 3])(L.Concatenate(axis=1)([a, b])))
    e = L.Add()([c, L.Conv2D(10, 1, **FIRST)(c)])
    r = L.GlobalAveragePooling1D()(L.Reshape((10, 72))(L.Softmax(axis=1)(e)))
    tails = [L.GlobalAveragePooling2D(**FIRST)(e), L.Dense(4)(L.Flatten(data_format="channels_last")(e)), r]
    return keras.Model(x, L.Dense(5, activation="softmax")(L.Concatenate()(tails)))


def both_ways(keras):
    """One flattened map goes to a Dense and to a layer that sees the order of its values."""
    L = keras.layers
    x = L.Input((3, 8, 9))
    f = L.Flatten(data_format="channels_last")(L.Conv2D(4, 3, **FIRST)(x))
    return keras.Model(x, L.Softmax()(L.Add()([L.LSTM(5)(L.Reshape((2, -1))(f)), L.Dense(5)(f)])))


def nested(keras):
    """A shared submodel with slopes of its own for every place of the map, and a transposed convolution."""
    L = keras.layers
    inner = L.Input((3, 8, 9))
    base = keras.Model(inner, L.PReLU()(L.Conv2D(4, 3, **FIRST)(inner)), name="base")
    x = L.Input((3, 8, 9))
    w = base(L.Conv2D(3, 3, padding="same", **FIRST)(x))
    y = L.GlobalMaxPooling2D(**FIRST)(L.Conv2DTranspose(5, 3, strides=2, **FIRST)(base(x)))
    return keras.Model(x, L.Softmax()(L.Add()([y, L.Dense(5)(L.Flatten(**FIRST)(w))])))


def row(keras):
    """One spatial axis."""
    L = keras.layers
    maps = [L.Conv1D(4, 3, **FIRST), L.MaxPooling1D(2, **FIRST), L.Flatten(data_format="channels_last")]
    return keras.Sequential([L.Input((3, 8)), *maps, L.Dense(5, activation="softmax")])


def sequential(make):
    return lambda keras: keras.Sequential([keras.layers.Input((3, 8, 9)), *make(keras)])


NETS = {
    "flattened": sequential(flattened),
    "told": sequential(told),
    "branches": branches,
    "both-ways": both_ways,
    "nested": nested,
    "row": row,
}


def drawn(model, seed=0):
    """The model with weights that no layer could mistake for others, and one step behind it."""
    rng = np.random.default_rng(seed)
    model.set_weights([np.abs(rng.normal(size=w.shape)).astype(np.float32) * 0.3 for w in model.get_weights()])
    return model


def first(x):
    return np.moveaxis(x, -1, 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("extension", ["h5", "keras"])
@pytest.mark.parametrize("name", NETS)
def test_the_same_values(tmp_path, keras, name, extension):
    model = drawn(NETS[name](keras))
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer, "categorical_crossentropy")
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 8, 3) if name == "row" else (6, 8, 9, 3)).astype(np.float32)
    y = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 6)]
    before = np.asarray(model(first(x), training=False))
    path = tmp_path / f"net.{extension}"
    model.save(path)
    network, _ = lift(path)
    assert network.meta["channels_first"] == list(network.inputs)
    runner = KerasRunner.open(path, x)
    seen = runner.run(dict.fromkeys(runner.network.inputs, x), y, mode="eval")
    np.testing.assert_allclose(seen.outputs[runner.network.outputs[0]], before, rtol=0, atol=2e-6)
    assert [(n.name, n.shape) for n in network if n.shape] == [
        (n.name, runner.network[n.name].shape) for n in network if n.shape
    ]
    assert not any(isinstance(n.kind, Opaque) and "Conv" in n.kind.type for n in network if n.source_type == "Conv2D")
    assert not [n for n in network if n.source_type == "Permute"] or name in ("branches", "both-ways")


@pytest.mark.filterwarnings("ignore")
def test_slots_are_turned_with_their_weights(tmp_path, keras):
    """Momentum of a Dense behind a Flatten has its rows in the new order: the next step is the model's own."""
    model = drawn(NETS["row"](keras))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "categorical_crossentropy")
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, 8, 3)).astype(np.float32), np.eye(5, dtype=np.float32)[rng.integers(0, 5, 6)]
    model.train_on_batch(first(x), y)
    path = tmp_path / "net.h5"
    model.save(path)
    opened = open_keras(path)
    model.train_on_batch(first(x), y)
    opened.model.train_on_batch(x, y)
    np.testing.assert_allclose(opened.model.predict(x, verbose=0), model.predict(first(x), verbose=0), atol=2e-6)


@pytest.mark.filterwarnings("ignore")
def test_clean_against_channels_last_and_a_fault_is_found(tmp_path, keras):
    """Compared with the same net built channels last; a stride that differs is found in its layer."""
    L = keras.layers

    def net(stride=1, **format):
        shape, axis = ((2, 9, 9), 1) if format else ((9, 9, 2), -1)
        model = keras.Sequential([
            L.Input(shape), L.Conv2D(4, 3, padding="same", activation="relu", name="one", **format),
            L.BatchNormalization(axis=axis, name="bn"), L.MaxPooling2D(2, name="pool", **format),
            L.Conv2D(5, 3, padding="same", strides=stride, name="two", **format),
            L.GlobalAveragePooling2D(name="gap", **format), L.Dense(3, activation="softmax", name="fc"),
        ])  # fmt: skip
        drawn(model).compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
        path = tmp_path / f"{'first' if format else 'last'}{stride}.h5"
        model.save(path)
        return str(path)

    rng = np.random.default_rng(3)
    batch = {"x": rng.normal(size=(8, 9, 9, 2)).astype(np.float32), "y": rng.integers(0, 3, 8)}
    clean = parity.compare(ref=net(), keras=net(**FIRST), batch=batch)
    assert clean.verdict == "match"
    faulty = parity.compare(ref=net(), keras=net(stride=2, **FIRST), batch=batch)
    assert faulty.verdict == "diverged"
    assert faulty.first_divergence is not None
    assert faulty.first_divergence.layer == "two"
    assert "conv-stride" in [finding.cause for finding in faulty.findings if finding.layer == "two"]


def test_the_lift_speaks_n_h_w_c(tmp_path):
    keras = engine_of("keras").keras
    path = tmp_path / "net.keras"
    NETS["flattened"](keras).save(path)
    network, _ = lift(path)
    conv = next(layer for layer in network if isinstance(layer.kind, Conv))
    assert conv.shape == (8, 9, 4)
    assert network.shape_of(network.outputs[0]) == (5,)
    assert any("keeps its channels first" in remark for remark in network.remarks)
    with pytest.raises(CannotCompare, match="images of shape"):
        KerasRunner.open(path, np.zeros((2, 5, 5, 3), np.float32))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETS)
def test_a_live_model(keras, name):
    """A model in memory runs as its own copy with channels last; the user's model stays as it is."""
    model = drawn(NETS[name](keras))
    model.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy")
    x = np.random.default_rng(3).normal(size=(6, 8, 3) if name == "row" else (6, 8, 9, 3)).astype(np.float32)
    before = [np.array(w) for w in model.get_weights()]
    runner = KerasRunner(model, x)
    assert runner.model is not model
    y = np.eye(5, dtype=np.float32)[[0, 1, 2, 3, 4, 0]]
    seen = runner.run(dict.fromkeys(runner.network.inputs, x), y)
    runner.update(seen.param_grads, seen.statistics)
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("live", [False, True], ids=["file", "in memory"])
def test_a_batch_may_have_its_channels_first_too(tmp_path, keras, live):
    """Where it fits only so; a shape that fits both ways is n h w c, as it says everywhere else."""
    L = keras.layers

    def net(height, **format):
        shape = (2, height, 9) if format else (height, 9, 2)
        model = keras.Sequential([
            L.Input(shape), L.Conv2D(4, 3, name="one", **format), L.GlobalAveragePooling2D(name="gap", **format),
            L.Dense(3, activation="softmax", name="fc"),
        ])  # fmt: skip
        drawn(model).compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
        path = tmp_path / f"{'first' if format else 'last'}{height}.h5"
        model.save(path)
        return model if live and format else str(path)

    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(8, 5, 9, 2)).astype(np.float32), rng.integers(0, 3, 8)
    ref, model, told = net(5), net(5, **FIRST), "x_keras has its channels first"
    for own, turned in ((x, False), (first(x), True)):
        report = parity.compare(ref=ref, keras=model, batch={"x_ref": x, "x_keras": own, "y": y})
        assert report.verdict == "match", [(f.cause, f.evidence) for f in report.findings]
        assert any(note.startswith(told) for note in report.notes) == turned
    other = parity.compare(ref=ref, keras=model, batch={"x_ref": x, "x_keras": first(x[:, ::-1]), "y": y})
    assert other.first_divergence is not None
    assert other.first_divergence.phase == "input"
    with pytest.raises(parity.ParityError, match="these look like"):
        parity.compare(ref=ref, keras=model, batch={"x": first(x), "y": y})
