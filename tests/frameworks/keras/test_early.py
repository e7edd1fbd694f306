"""Files of Keras 1 and early Keras 2: every spelling, every layout, Theano's kernels; held against plain numpy."""

import marshal

import numpy as np
import pytest

import parity
from parity.errors import BadFile, ParityError, Refused
from parity.frameworks.keras.lift import lift
from parity.frameworks.keras.load import open_keras
from parity.frameworks.keras.runner import KerasRunner
from parity.layers import BatchNorm, Conv, Dense, Opaque
from tests.frameworks.keras.early import (
    conv,
    correlate,
    dense,
    gru,
    hard_sigmoid,
    layer,
    lstm,
    named,
    pooled,
    recurrent,
    softmax,
    write,
)


@pytest.fixture
def draw():
    rng = np.random.default_rng(5)
    return lambda *shape: rng.normal(size=shape).astype(np.float32) * 0.4


def predict(path, *inputs, **options):
    opened = open_keras(path, **options)
    opened.model.run_eagerly = True  # tracing it would take most of the time
    return np.asarray(opened.model.predict(inputs[0] if len(inputs) == 1 else list(inputs), verbose=0)), opened


def close(seen, wanted):
    assert seen.shape == wanted.shape
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=2e-6 * max(1.0, float(np.abs(wanted).max())))


def image_net(path, draw, ordering, theano):
    """conv (same) → relu → pool → batch norm → dropout → flatten → dense, and what it predicts of n h w c images."""
    W, b, D, d = draw(3, 3, 2, 4), draw(4), draw(4 * 4 * 5, 3), draw(3)
    gamma, beta, mean, variance = draw(4), draw(4), draw(4), draw(4) ** 2 + 0.5
    first = ordering == "th"
    shape = [None, 2, 8, 10] if first else [None, 8, 10, 2]
    layers = [
        conv("convolution2d_1", 4, (3, 3), ordering=ordering, border_mode="same", batch_input_shape=shape,
             input_dtype="float32", W_regularizer={"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01}),
        layer("Activation", "activation_1", activation="relu"),
        layer("MaxPooling2D", "maxpooling2d_1", pool_size=[2, 2], strides=[2, 2], border_mode="valid",
              dim_ordering=ordering),
        layer("BatchNormalization", "batchnormalization_1", epsilon=0.001, mode=0, axis=1 if first else -1,
              gamma_regularizer=None, beta_regularizer=None, momentum=0.99),
        layer("Dropout", "dropout_1", p=0.25),
        layer("Flatten", "flatten_1"),
        dense("dense_1", 3, activation="softmax"),
    ]  # fmt: skip
    stored = W.transpose(3, 2, 0, 1) if first else W
    weights = {
        "convolution2d_1": named("convolution2d_1", stored, b, words="W b", theano=theano),
        "activation_1": {},
        "maxpooling2d_1": {},
        "batchnormalization_1": named(
            "batchnormalization_1", gamma, beta, mean, variance, words="gamma beta running_mean running_std",
            theano=theano,
        ),
        "dropout_1": {},
        "flatten_1": {},
        "dense_1": named("dense_1", D, d, words="W b", theano=theano),
    }  # fmt: skip
    training = {
        "optimizer_config": {
            "class_name": "SGD",
            "config": {"lr": 0.01, "momentum": 0.9, "decay": 1e-4, "nesterov": True},
        },
        "loss": "categorical_crossentropy",
        "metrics": ["accuracy"],
        "sample_weight_mode": None,
        "loss_weights": None,
    }
    write(path, {"class_name": "Sequential", "config": layers}, weights, training=training)
    x = draw(5, 8, 10, 2)
    kernel = W[::-1, ::-1] if theano else W
    y = pooled(np.maximum(correlate(x, kernel, b, pads=((1, 1), (1, 1))), 0))
    y = (y - mean) / np.sqrt(variance + 0.001) * gamma + beta
    flat = (y.transpose(0, 3, 1, 2) if first else y).reshape(len(y), -1)
    return x, softmax(flat @ D + d)


@pytest.mark.parametrize("engine", ["auto", "keras3"])
@pytest.mark.parametrize("theano", [False, True], ids=["tensorflow", "theano"])
@pytest.mark.parametrize("ordering", ["tf", "th"])
def test_an_image_net(tmp_path, draw, ordering, theano, engine):
    path = tmp_path / "net.h5"
    x, wanted = image_net(path, draw, ordering, theano)
    seen, opened = predict(path, x, engine=engine)
    close(seen, wanted)
    flips = [remark for remark in opened.remarks if remark.startswith("kernel-flip")]
    assert len(flips) == theano
    assert any("channels first" in remark for remark in opened.remarks) == (ordering == "th")
    assert type(opened.model).__module__.split(".")[0] == ("tf_keras" if engine == "auto" else "keras")


@pytest.mark.parametrize("ordering", ["tf", "th"])
def test_the_lift_is_the_executed_graph(tmp_path, draw, ordering):
    path = tmp_path / "net.h5"
    x, _ = image_net(path, draw, ordering, theano=True)
    network, recipe = lift(path)
    kinds = {node.name: node.kind for node in network}
    assert kinds["convolution2d_1"] == Conv(4, (3, 3), (1, 1), (1, 1, 1, 1))
    assert isinstance(kinds["batchnormalization_1"], BatchNorm)
    assert isinstance(kinds["dense_1"], Dense)
    assert network.params["convolution2d_1.kernel"].l2 == pytest.approx(0.01)
    assert recipe.learning_rate.decay == pytest.approx(1e-4)
    executed = KerasRunner.open(path, x).network
    assert [(n.name, n.kind, n.inputs, n.shape) for n in network] == [
        (n.name, n.kind, n.inputs, n.shape) for n in executed
    ]
    rows = {(p.id, p.axes, p.shape, p.trainable, round(p.l2, 7)) for p in network.params.values()}
    assert rows == {(p.id, p.axes, p.shape, p.trainable, round(p.l2, 7)) for p in executed.params.values()}


def gates(draw, letters, inputs, units):
    return {g: (draw(inputs, units), draw(units, units), draw(units)) for g in letters}


def listed(name, found, order):
    arrays = {}
    for g in order:
        arrays |= {f"{name}_{word}_{g}:0": value for word, value in zip("WUb", found[g], strict=True)}
    return arrays


def test_recurrent_layers_of_keras_1(tmp_path, draw):
    """Gates kept apart, in an order of their own (i c f o), and joined ones; a Dense at every step."""
    first, second, third = gates(draw, "icfo", 3, 4), gates(draw, "zrh", 4, 3), gates(draw, "icfo", 3, 2)
    both = gates(draw, "icfo", 3, 2)
    D, d = draw(4, 5), draw(5)
    layers = [
        recurrent("LSTM", "lstm_1", 4, return_sequences=True, batch_input_shape=[None, 6, 3], input_dtype="float32"),
        layer("TimeDistributedDense", "timedistributeddense_1", output_dim=5, init="glorot_uniform", activation="tanh",
              W_regularizer=None, b_regularizer=None, activity_regularizer=None, W_constraint=None, b_constraint=None,
              bias=True, input_dim=None, input_length=None),
    ]  # fmt: skip
    weights = {
        "lstm_1": listed("lstm_1", first, "icfo"),
        "timedistributeddense_1": named("timedistributeddense_1", D, d, words="W b"),
    }
    path = write(tmp_path / "a.h5", {"class_name": "Sequential", "config": layers}, weights)
    x = draw(5, 6, 3)
    seen, _ = predict(path, x)
    close(seen, np.tanh(lstm(x, first, sequences=True) @ D + d))

    path = write(
        tmp_path / "b.h5",
        {"class_name": "Sequential", "config": [recurrent("GRU", "gru_1", 3, batch_input_shape=[None, 6, 4])]},
        {"gru_1": listed("gru_1", second, "zrh")},
    )
    x = draw(5, 6, 4)
    close(predict(path, x)[0], gru(x, second))

    # Saved with consume_less="gpu": joined already, in the order i f c o.
    joined = [np.concatenate([third[g][i] for g in "ifco"], axis=-1) for i in range(3)]
    path = write(
        tmp_path / "c.h5",
        {"class_name": "Sequential",
         "config": [recurrent("LSTM", "lstm_3", 2, consume_less="gpu", batch_input_shape=[None, 6, 3])]},
        {"lstm_3": named("lstm_3", *joined, words="W U b")},
    )  # fmt: skip
    x = draw(5, 6, 3)
    close(predict(path, x)[0], lstm(x, third))

    wrapper = {
        "name": "bidirectional_1", "trainable": True, "merge_mode": "concat", "batch_input_shape": [None, 6, 3],
        "layer": recurrent("LSTM", "lstm_4", 2),
    }  # fmt: skip
    path = write(
        tmp_path / "d.h5",
        {"class_name": "Sequential", "config": [{"class_name": "Bidirectional", "config": wrapper}]},
        {"bidirectional_1": {
            **listed("forward_lstm_4", third, "icfo"), **listed("backward_lstm_4", both, "icfo"),
        }},
    )  # fmt: skip
    close(predict(path, x)[0], np.concatenate([lstm(x, third), lstm(x[:, ::-1], both)], axis=-1))
    network, _ = lift(path)
    assert network["bidirectional_1"].shape == (4,)
    assert len(network.params) == 6


def test_merges(tmp_path, draw):
    """A functional model with every mode of Merge, and a Sequential that begins by merging two others."""

    def merge(name, mode, sources, **config):
        settings = {
            "mode": mode, "mode_type": "raw", "concat_axis": -1, "dot_axes": -1, "output_shape": None,
            "output_shape_type": "raw", "output_mask": None, "output_mask_type": "raw", "arguments": {},
        }  # fmt: skip
        nodes = [[[source, 0, 0] for source in sources]]
        return {
            "class_name": "Merge",
            "name": name,
            "config": {"name": name, **settings, **config},
            "inbound_nodes": nodes,
        }

    def called(entry, *sources):
        return {**entry, "name": entry["config"]["name"], "inbound_nodes": [[[source, 0, 0]] for source in sources]}

    start = {
        "class_name": "InputLayer", "name": "in", "inbound_nodes": [],
        "config": {"name": "in", "batch_input_shape": [None, 4], "input_dtype": "float32", "sparse": False},
    }  # fmt: skip
    A, a, B, b = draw(4, 3), draw(3), draw(4, 3), draw(3)
    modes = {"sum": "add", "mul": "mul", "ave": "ave", "max": "max", "concat": "cat", "dot": "dot"}
    layers = [start, called(dense("a", 3), "in"), called(dense("b", 3), "in")]
    layers += [merge(word, mode, ["a", "b"]) for mode, word in modes.items()]
    layers.append(merge("all", "concat", list(modes.values())))
    config = {"name": "model_1", "layers": layers, "input_layers": [["in", 0, 0]], "output_layers": [["all", 0, 0]]}
    weights = {"in": {}, "a": named("a", A, a, words="W b"), "b": named("b", B, b, words="W b")}
    weights |= {word: {} for word in (*modes.values(), "all")}
    path = write(tmp_path / "a.h5", {"class_name": "Model", "config": config}, weights)
    x = draw(5, 4)
    u, v = x @ A + a, x @ B + b
    parts = [u + v, u * v, (u + v) / 2, np.maximum(u, v), np.concatenate([u, v], -1), (u * v).sum(-1, keepdims=True)]
    close(predict(path, x)[0], np.concatenate(parts, axis=-1))

    branches = [
        {"class_name": "Sequential", "config": [dense("left", 3, batch_input_shape=[None, 4])]},
        {"class_name": "Sequential", "config": [dense("right", 2, batch_input_shape=[None, 3]),
                                                layer("Activation", "bend", activation="tanh")]},
    ]  # fmt: skip
    head = merge("merge_1", "concat", [])
    first = {"class_name": "Merge", "config": {**head["config"], "layers": branches}}
    R, r, H, h = draw(3, 2), draw(2), draw(5, 2), draw(2)
    weights = {
        "left": named("left", A, a, words="W b"),
        "right": named("right", R, r, words="W b"),
        "bend": {},
        "merge_1": {},
        "head": named("head", H, h, words="W b"),
    }
    path = write(tmp_path / "b.h5", {"class_name": "Sequential", "config": [first, dense("head", 2)]}, weights)
    x2 = draw(5, 3)
    close(predict(path, x, x2)[0], np.concatenate([x @ A + a, np.tanh(x2 @ R + r)], -1) @ H + h)
    assert list(lift(path)[0].inputs) == ["left_input", "right_input"]


def test_other_convolutions(tmp_path, draw):
    """1-D, dilated, transposed, padded, cropped and repeated maps, and a submodel, in Keras 1's words."""
    W, b = draw(2, 1, 3, 4), draw(4)
    K, k = draw(3, 3, 2, 3), draw(3)
    row = layer("Convolution1D", "convolution1d_1", nb_filter=4, filter_length=2, init="uniform", activation="relu",
                border_mode="valid", subsample_length=1, W_regularizer=None, b_regularizer=None,
                activity_regularizer=None, W_constraint=None, b_constraint=None, bias=True, input_dim=None,
                input_length=None, batch_input_shape=[None, 7, 3])  # fmt: skip
    pool = layer("GlobalMaxPooling1D", "globalmaxpooling1d_1")
    weights = {"convolution1d_1": named("convolution1d_1", W, b, words="W b"), "globalmaxpooling1d_1": {}}
    path = write(tmp_path / "a.h5", {"class_name": "Sequential", "config": [row, pool]}, weights)
    x = draw(5, 7, 3)
    y = np.maximum(sum(x[:, i : i + 6] @ W[i, 0] for i in range(2)) + b, 0)
    close(predict(path, x)[0], y.max(axis=1))

    inner = [
        layer("ZeroPadding2D", "zeropadding2d_1", padding=[1, 2], batch_input_shape=[None, 7, 8, 2]),
        conv("atrousconvolution2d_1", 3, (3, 3), class_name="AtrousConvolution2D", atrous_rate=[2, 2]),
        layer("Cropping2D", "cropping2d_1", cropping=[[1, 0], [0, 1]], dim_ordering="tf"),
        layer("UpSampling2D", "upsampling2d_1", size=[2, 2]),
    ]
    outer = [{"class_name": "Sequential", "config": inner}, layer("GlobalAveragePooling2D", "gap", dim_ordering="tf")]
    arrays = named("atrousconvolution2d_1", K, k, words="W b")
    path = write(tmp_path / "b.h5", {"class_name": "Sequential", "config": outer}, {"sequential_1": arrays, "gap": {}})
    x = draw(5, 7, 8, 2)
    y = correlate(x, K, k, pads=((1, 1), (2, 2)), dilate=(2, 2))[:, 1:, :-1]
    close(predict(path, x)[0], y.mean(axis=(1, 2)))

    T, t = draw(3, 3, 2, 3), draw(3)
    up = conv("deconvolution2d_1", 3, (3, 3), class_name="Deconvolution2D", subsample=[2, 2],
              output_shape=[None, 9, 11, 3], batch_input_shape=[None, 4, 5, 2])  # fmt: skip
    arrays = named("deconvolution2d_1", T, t, words="W b")
    path = write(tmp_path / "c.h5", {"class_name": "Sequential", "config": [up]}, {"deconvolution2d_1": arrays})
    x = draw(5, 4, 5, 2)
    y = np.zeros((5, 9, 11, 3)) + t
    for i in range(3):
        for j in range(3):
            y[:, i : i + 8 : 2, j : j + 10 : 2][:, :4, :5] += x @ T[i, j]
    close(predict(path, x)[0], y)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (layer("MaxoutDense", "m", output_dim=3, nb_feature=4, batch_input_shape=[None, 4]),
         "layer m is a MaxoutDense"),
        (layer("Highway", "h", activation="relu", batch_input_shape=[None, 4]), "layer h is a Highway"),
        (layer("BatchNormalization", "n", mode=2, batch_input_shape=[None, 4]),
         r"layer n normalises the batch.*mode=2"),
        (dense("e", 3, W_regularizer={"name": "EigenvalueRegularizer", "k": 1.0}, batch_input_shape=[None, 4]),
         "layer e has an EigenvalueRegularizer"),
        (layer("Embedding", "v", input_dim=5, output_dim=3, input_length=4, dropout=0.2, init="uniform",
               W_regularizer=None, W_constraint=None, mask_zero=False, batch_input_shape=[None, 4]),
         r"layer v drops words of its vocabulary in training \(dropout=0\.2\)"),
    ],
)  # fmt: skip
def test_what_ended_with_keras_1_is_one_line(tmp_path, entry, words):
    path = write(tmp_path / "old.h5", {"class_name": "Sequential", "config": [entry]}, {entry["config"]["name"]: {}})
    with pytest.raises(BadFile, match=words) as caught:
        open_keras(path)
    assert "\n" not in str(caught.value)
    assert len(lift(path)[0].layers) == 1


@pytest.mark.parametrize("version", ["1.2.2", "2.0.5"])
def test_a_cosine_merge_is_one_line(tmp_path, version):
    """Its output is (n, 1, 1) where a Dot's is (n, 1): a model of today that merely loads would be another one."""
    path = one_merge(tmp_path / "m.h5", version, mode="cos", mode_type="raw", dot_axes=-1)
    with pytest.raises(BadFile, match="layer m is a Merge of mode cos") as caught:
        open_keras(path)
    assert "\n" not in str(caught.value)
    assert isinstance(lift(path)[0]["m"].kind, Opaque)


def test_a_trusted_lambda_of_keras_1(tmp_path, draw):
    """Its byte code runs under Keras 2 if this Python wrote it; else, and under Keras 3, it ends in one line."""
    D, d, x = draw(4, 3), draw(3), draw(2, 4)

    def saved(function, kind):
        config = {"function": function, "function_type": kind, "output_shape": None, "output_shape_type": "raw"}
        layers = [dense("d", 3, batch_input_shape=[None, 4]), layer("Lambda", "twice", **config, arguments={})]
        weights = {"d": named("d", D, d, words="W b"), "twice": {}}
        return write(tmp_path / "twice.h5", {"class_name": "Sequential", "config": layers}, weights)

    code = marshal.dumps((lambda v: 2 * v).__code__).decode("raw_unicode_escape")
    path = saved([code, None, None], "lambda")
    close(predict(path, x, trust=True)[0], 2 * (x @ D + d))
    source = tmp_path / "own.py"
    source.write_text("def thrice(v):\n    return 3 * v\n")
    close(predict(saved("thrice", "function"), x, trust=True, custom_objects=str(source))[0], 3 * (x @ D + d))
    for function, kind, engine, words in (
        ("thrice", "function", "auto", "cannot rebuild its model.*--custom-objects"),
        ([code[: len(code) // 2], None, None], "lambda", "auto", "cannot rebuild its model"),
        (
            [code, None, None],
            "lambda",
            "keras3",
            "layer twice is a Lambda with code of Keras 2, which Keras 3 does not",
        ),
    ):
        with pytest.raises(ParityError, match=words) as caught:
            open_keras(saved(function, kind), engine=engine, trust=True)
        assert "\n" not in str(caught.value)


def test_an_embedding_that_drops_nothing_loads(tmp_path, draw):
    entry = layer("Embedding", "v", input_dim=5, output_dim=3, input_length=4, dropout=0.0, init="uniform",
                  W_regularizer=None, W_constraint=None, mask_zero=False, batch_input_shape=[None, 4])  # fmt: skip
    table = draw(5, 3)
    weights = {"v": named("v", table, words="W")}
    path = write(tmp_path / "v.h5", {"class_name": "Sequential", "config": [entry]}, weights)
    x = np.arange(8).reshape(2, 4) % 5
    close(predict(path, x)[0], table[x])


def test_a_class_of_the_users_own_may_have_a_lost_name(tmp_path, draw):
    source = tmp_path / "own.py"
    source.write_text(
        "import tf_keras\nclass Highway(tf_keras.layers.Layer):\n    def call(self, x):\n        return 3 * x\n"
    )
    entry = {"class_name": "Highway", "config": {"name": "h", "trainable": True, "batch_input_shape": [None, 4]}}
    path = write(
        tmp_path / "h.h5", {"class_name": "Sequential", "config": {"name": "s", "layers": [entry]}}, {"h": {}},
        version="2.4.0", backend="tensorflow",
    )  # fmt: skip
    x = draw(2, 4)
    close(predict(path, x, custom_objects=str(source))[0], 3 * x)
    with pytest.raises(ParityError, match="layer h is a Highway"):
        open_keras(path)


def one_merge(path, version="1.2.2", **config):
    """A model that merges its input with itself."""
    start = {"class_name": "InputLayer", "name": "in", "inbound_nodes": [],
             "config": {"name": "in", "batch_input_shape": [None, 4]}}  # fmt: skip
    config = {"name": "m", "concat_axis": -1, **config}
    node = {"class_name": "Merge", "name": "m", "config": config, "inbound_nodes": [[["in", 0, 0], ["in", 0, 0]]]}
    model = {"name": "x", "layers": [start, node], "input_layers": [["in", 0, 0]], "output_layers": [["m", 0, 0]]}
    return write(path, {"class_name": "Model", "config": model}, {"in": {}, "m": {}}, version=version)


def test_a_merge_by_a_function_is_code(tmp_path):
    path = one_merge(tmp_path / "m.h5", mode=["4wE=", None, None], mode_type="lambda")
    with pytest.raises(Refused, match="layer m is a Lambda"):
        open_keras(path)
    kind = lift(path)[0]["m"].kind
    assert isinstance(kind, Opaque)
    assert kind.runs_code


def test_early_keras_2(tmp_path, draw):
    """Keras 2.0.x: `Merge` outlived Keras 1, a GRU says nothing of `reset_after`, Theano's kernels are turned."""
    W, b, D, d = draw(3, 3, 2, 4), draw(4), draw(4, 3), draw(3)
    settings = {
        "filters": 4, "kernel_size": [3, 3], "strides": [1, 1], "padding": "valid", "dilation_rate": [1, 1],
        "data_format": "channels_first", "activation": "linear", "use_bias": True, "trainable": True,
    }  # fmt: skip
    layers = [
        {"class_name": "Conv2D", "config": {"name": "conv2d_1", "batch_input_shape": [None, 2, 8, 10], **settings}},
        {"class_name": "GlobalAveragePooling2D", "config": {"name": "gap", "data_format": "channels_first"}},
        {"class_name": "Dense", "config": {"name": "dense_1", "units": 3, "activation": "linear", "use_bias": True}},
    ]
    weights = {
        "conv2d_1": {"conv2d_1/kernel": W, "conv2d_1/bias": b},
        "gap": {},
        "dense_1": {"dense_1/kernel": D, "dense_1/bias": d},
    }
    path = write(
        tmp_path / "a.h5", {"class_name": "Sequential", "config": layers}, weights, version="2.0.5", backend="theano"
    )
    x = draw(5, 8, 10, 2)
    seen, opened = predict(path, x)
    close(seen, correlate(x, W[::-1, ::-1], b).mean(axis=(1, 2)) @ D + d)
    assert any(remark.startswith("kernel-flip") for remark in opened.remarks)

    found = gates(draw, "zrh", 3, 4)
    config = {
        "name": "gru_1", "units": 4, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True,
        "implementation": 0, "return_sequences": False, "go_backwards": False, "batch_input_shape": [None, 6, 3],
    }  # fmt: skip
    arrays = [np.concatenate([found[g][i] for g in "zrh"], axis=-1) for i in range(3)]
    weights = {"gru_1": dict(zip(("gru_1/kernel:0", "gru_1/recurrent_kernel:0", "gru_1/bias:0"), arrays, strict=True))}
    entry = {"class_name": "Sequential", "config": [{"class_name": "GRU", "config": config}]}
    path = write(tmp_path / "b.h5", entry, weights, version="2.0.5", backend="tensorflow")
    x = draw(5, 6, 3)
    close(predict(path, x)[0], gru(x, found))


def test_a_wrong_array_is_one_line(tmp_path, draw):
    path = tmp_path / "net.h5"
    entry = dense("dense_1", 3, batch_input_shape=[None, 4])
    write(
        path,
        {"class_name": "Sequential", "config": [entry]},
        {"dense_1": named("dense_1", draw(4, 5), draw(5), words="W b")},
    )
    with pytest.raises(ParityError, match=r"dense_1.*shape \(4, 5\)") as caught:
        open_keras(path)
    assert "\n" not in str(caught.value)


def test_hard_sigmoid_is_keras_2s():
    assert hard_sigmoid(np.float64(1.0)) == pytest.approx(0.7)


def test_turned_kernels_are_reported(tmp_path, draw):
    """A file of Theano against the same net saved on tensorflow: equal, with a note; nothing where none was turned."""
    W, b, D, d = draw(3, 3, 2, 4), draw(4), draw(4, 3), draw(3)

    def saved(name, kernel, theano):
        layers = [
            conv("c", 4, (3, 3), activation="relu", batch_input_shape=[None, 8, 10, 2]),
            layer("GlobalAveragePooling2D", "g", dim_ordering="tf"),
            dense("d", 3, activation="softmax"),
        ]
        weights = {
            "c": named("c", kernel, b, words="W b", theano=theano),
            "g": {},
            "d": named("d", D, d, words="W b", theano=theano),
        }
        return str(write(tmp_path / name, {"class_name": "Sequential", "config": layers}, weights))

    ours, theirs = saved("theano.h5", W, True), saved("tensorflow.h5", W[::-1, ::-1], False)
    batch = {"x": draw(4, 8, 10, 2)}
    report = parity.compare(ref=theirs, keras=ours, batch=batch, weights="own", mode="eval")
    assert report.verdict == "match"
    assert [(f.cause, f.severity) for f in report.findings] == [("kernel-flip", "note")]
    assert not parity.compare(ref=theirs, keras=theirs, batch=batch, weights="own", mode="eval").findings
