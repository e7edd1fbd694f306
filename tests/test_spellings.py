"""Ports that say the same in other words, and what a user does where parity cannot see or errs."""

from __future__ import annotations

import json

import numpy as np
import pytest

import parity
from parity.cli import main
from tests import twins
from tests.test_verdicts import explain


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return twins.save(tmp_path_factory.mktemp("nets") / "plain.mat", twins.plain())


def split_convolution(order):
    """The grouped conv2 as slices, two convolutions and a concatenation, as ports of before `groups=` do it."""
    import keras

    def build(x, penalty):
        x = keras.layers.ZeroPadding2D(((2, 0), (2, 0)))(x)
        parts = [x[..., :3], x[..., 3:]]
        made = [
            keras.layers.Conv2D(4, 3, kernel_regularizer=penalty(), bias_regularizer=penalty(), name=f"conv2_{i}")(part)
            for i, part in enumerate(parts)
        ]
        return keras.layers.Concatenate()([made[i] for i in order])

    layers = twins.plain()
    start = keras.Input((16, 16, 3))
    stack = twins._Stack(keras, layers, (16, 16, 3), {}, (), {}, True, False, False, twins.DECAY)
    x = start
    for name, built in stack.made:
        if name == "conv2":
            x = build(x, stack.penalty)
            continue
        for layer in built:
            x = layer(x)
    model = keras.Model(start, x)
    model.compile(keras.optimizers.SGD(twins.RATE, momentum=0.9), loss=keras.losses.SparseCategoricalCrossentropy())
    return model


def test_split_and_concatenated_is_grouped(plain):
    report = parity.compare(ref=plain, keras=split_convolution((0, 1)), batch=twins.batch())
    assert report.verdict == "match", explain(report)


def test_groups_that_are_put_together_the_wrong_way_round_are_told(plain):
    """The gradient of each branch's bias is held against its own part of the reference's."""
    report = parity.compare(ref=plain, keras=split_convolution((1, 0)), batch=twins.batch(), steps=1, verify=False)
    assert report.verdict == "diverged", explain(report)
    assert report.findings[0].cause == "channel-order", explain(report)


def ending(layers, *, compiled):
    """A small model whose classes come out of a map of one cell, put through `layers`."""
    import keras

    x = start = keras.Input((6, 6, 2))
    for layer in [keras.layers.Conv2D(4, 6, name="classifier"), *layers]:
        x = layer(x)
    model = keras.Model(start, x)
    if compiled:
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("last", ["Flatten", "Reshape", "GlobalAveragePooling2D"])
def test_a_softmax_on_the_map_is_part_of_the_loss(tmp_path, last, compiled):
    import keras

    rng = np.random.default_rng(0)
    layers = [twins.conv("classifier", rng, (6, 6, 2, 4)), {"type": "softmaxloss", "name": "loss"}]
    mat = twins.save(tmp_path / "net.mat", layers, (6, 6, 2))
    batch = twins.batch(0, (6, 6, 2))

    def layout():
        return keras.layers.Reshape((4,)) if last == "Reshape" else getattr(keras.layers, last)()

    def compared(*made):
        return parity.compare(ref=mat, keras=ending(made, compiled=compiled), batch=batch, mode="eval")

    softmax = keras.layers.Softmax
    report = compared(softmax(), layout())
    assert report.verdict == "match", explain(report)
    twice = compared(softmax(), layout(), softmax(name="again"))
    assert twice.first_divergence.phase == "structure", explain(twice)
    assert [f.cause for f in twice.findings if f.severity == "divergence"] == ["softmax-double"], explain(twice)


def small(tmp_path):
    """A net with two branches, padded on unlike sides, and the batch for it."""
    rng = np.random.default_rng(5)
    layers = [
        twins.conv("conv1", rng, (3, 3, 2, 6), pad=np.array([2.0, 0, 0, 2])),
        twins.relu("relu1", 0.1),
        twins.pool("pool1", "max", 2, 2),
        twins.conv("classifier", rng, (1, 1, 6, 4)),
        twins.pool("gap", "avg", 3, 1),
        {"type": "softmaxloss", "name": "loss"},
    ]
    return twins.save(tmp_path / "net.mat", layers, (6, 6, 2), weightDecay=0.0), twins.batch(0, (6, 6, 2))


def compiled(model, keras):
    """The model, trained as the nets of `twins` are, but for their weight decay."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(twins.RATE, momentum=twins.MOMENTUM), loss)
    return model


@pytest.mark.parametrize("slope", [0.1, 0.1001])
def test_bare_operations_are_the_layers_that_they_stand_for(tmp_path, slope):
    import keras
    from keras import layers, ops

    mat, batch = small(tmp_path)
    start = keras.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, name="conv1")(ops.pad(start, [[0, 0], [2, 0], [0, 2], [0, 0]]))
    x = ops.max_pool(ops.leaky_relu(x, slope), 2, 2)
    x = ops.mean(layers.Conv2D(4, 1, name="classifier")(x), axis=(1, 2))
    x = ops.squeeze(ops.expand_dims(x, 1), 1)
    path = tmp_path / "model.keras"
    compiled(keras.Model(start, x), keras).save(path)
    report = parity.compare(ref=mat, keras=path, batch=batch, mode="eval")
    if slope == 0.1:
        assert report.verdict == "match", explain(report)
        assert not [p for p in report.probes if p.status != "match"], explain(report)
    else:
        assert (report.first_divergence.phase, report.first_divergence.layer) == ("forward", "relu1"), explain(report)
        assert [(f.cause, f.confirmed) for f in report.findings] == [("activation-slope", True)], explain(report)


@pytest.mark.parametrize("by", [1.0, 1.001])
def test_a_bias_that_is_a_layer_of_its_own_belongs_to_the_filters_before_it(tmp_path, by):
    import keras
    from keras import layers

    class SeparateBias(layers.Layer):
        def build(self, shape):
            self.bias = self.add_weight(shape=(shape[-1],), initializer="zeros", name="bias")

        def call(self, x):
            return x + by * self.bias

    mat, batch = small(tmp_path)
    start = keras.Input((6, 6, 2))
    x = layers.ZeroPadding2D(((2, 0), (0, 2)))(start)
    x = layers.MaxPooling2D()(layers.LeakyReLU(0.1)(SeparateBias()(layers.Conv2D(6, 3, use_bias=False)(x))))
    x = SeparateBias(name="last")(layers.Dense(4, use_bias=False)(x))
    model = compiled(keras.Model(start, layers.GlobalAveragePooling2D()(x)), keras)
    report = parity.compare(ref=mat, keras=model, batch=batch)
    if by == 1:
        assert report.verdict == "match", explain(report)
        assert not [p for p in report.probes if p.status != "match"], explain(report)
    else:
        assert (report.first_divergence.phase, report.first_divergence.layer) == ("forward", "conv1"), explain(report)


@pytest.mark.parametrize("seed", [*range(8), 107])  # 107: a near tie of a pooling window is decided by rounding
def test_random_nets_match_their_twins(tmp_path, seed):
    layers, size = twins.random_net(seed)
    mat = twins.save(tmp_path / "net.mat", layers, size)
    batch = twins.batch(seed, size)
    batch["x"] *= [1, 1e-2, 100, 1][seed % 4]
    model = twins.twin(layers, size=size, fused=seed % 2 == 0, nested=seed % 3 == 0, logits=seed % 4 == 0)
    for mode in ("train", "eval"):
        report = parity.compare(ref=mat, keras=model, batch=batch, mode=mode)
        assert report.verdict == "match", explain(report)
        assert all(p.status == "match" for p in report.probes), explain(report)
        assert not [f for f in report.findings if f.severity == "divergence"], explain(report)


def test_a_map_that_is_all_but_constant_is_normalised_to_rounding(tmp_path):
    # Behind a bias of 0.4 the images are a few units in the last place: a normalisation blows up how they are summed.
    rng = np.random.default_rng(0)
    first = twins.conv("conv1", rng, (3, 3, 2, 12), pad=np.ones(4))
    first["weights"][1] = 4 * first["weights"][1]
    layers = [
        first,
        twins.bnorm("bn1", rng, 12),
        twins.relu("relu1"),
        twins.pool("pool1", "avg", 3, 2),
        twins.conv("classifier", rng, (1, 1, 12, 4)),
        twins.pool("gap", "avg", 6, 1),
        {"type": "softmaxloss", "name": "loss"},
    ]
    mat = twins.save(tmp_path / "net.mat", layers, (14, 14, 2))
    batch = twins.batch(0, (14, 14, 2), n=16)
    batch["x"] *= 2e-5
    report = parity.compare(ref=mat, keras=twins.twin(layers, size=(14, 14, 2), dense=False), batch=batch, steps=1)
    assert report.verdict == "match", explain(report)


def test_a_deep_net_matches(tmp_path):
    layers, size = twins.random_net(3, depth=14)
    mat = twins.save(tmp_path / "net.mat", layers, size)
    report = parity.compare(ref=mat, keras=twins.twin(layers, size=size), batch=twins.batch(3, size))
    assert report.verdict == "match", explain(report)


def test_an_uncompiled_model_takes_the_references_recipe_and_says_so(plain):
    report = parity.compare(ref=plain, keras=twins.twin(twins.plain(), loss=None), batch=twins.batch())
    assert report.verdict == "match", explain(report)
    assert any("not compiled" in note for note in report.notes)
    assert "update" in report.phases


def test_noise_is_never_a_pass(plain):
    import keras

    noisy = [twins.twin(twins.plain(), after={"pool1": keras.layers.GaussianNoise(0.1)}) for _ in range(2)]
    report = parity.compare(ref=noisy[0], keras=noisy[1], batch=twins.batch())
    assert report.verdict == "unverified", explain(report)
    assert {p.layer for p in report.probes if p.status == "unverified"} == {"gaussian_noise"} or any(
        "gaussian_noise" in p.layer for p in report.probes if p.status == "unverified"
    )
    calm = parity.compare(ref=noisy[0], keras=noisy[1], batch=twins.batch(), mode="eval")
    assert calm.verdict == "match", explain(calm)


def test_a_layer_without_a_partner_fails_unless_allowed_by_name(plain):
    import keras

    model = twins.twin(twins.plain(), after={"pool1": keras.layers.GaussianNoise(0.1, name="aug_noise")})
    report = parity.compare(ref=plain, keras=model, batch=twins.batch())
    assert (report.verdict, report.first_divergence.keras_layer) == ("diverged", "aug_noise"), explain(report)


def test_a_map_pairs_what_the_names_do_not(plain, tmp_path):
    model = twins.twin(twins.plain())
    path = tmp_path / "map.toml"
    path.write_text('[layers]\nrelu1 = "relu1"\nconv2 = "conv2"\n')
    assert parity.compare(ref=plain, keras=model, batch=twins.batch(), map=path).verdict == "match"
    with pytest.raises(parity.BadUsage, match="convolution9"):
        parity.compare(ref=plain, keras=model, batch=twins.batch(), map={"relu1": "convolution9"})
    wrong = parity.compare(ref=plain, keras=model, batch=twins.batch(), map={"relu2": "relu1"}, verify=False)
    assert wrong.verdict == "diverged"


def test_different_inputs_are_born_in_the_input(plain):
    data = twins.batch()
    sides = {"x_ref": data["x"], "x_keras": data["x"] / 255, "y": data["y"]}
    report = parity.compare(ref=plain, keras=twins.twin(twins.plain()), batch=sides)
    assert report.first_divergence.phase == "input", explain(report)
    assert not [p for p in report.probes if p.status == "born" and p.phase != "input"], explain(report)


def test_only_narrows_what_is_judged_and_says_so(plain):
    model = twins.twin(twins.plain(), edits={"relu1": {"leak": 0.3}})
    whole = parity.compare(ref=plain, keras=model, batch=twins.batch())
    part = parity.compare(ref=plain, keras=model, batch=twins.batch(), only="fc*")
    assert whole.verdict == "diverged"
    assert part.verdict == "match", explain(part)
    assert any("fc*" in note for note in part.notes)
    assert {row.layer for row in part.layers} == {"fc"}


def test_tolerances_replace_the_measured_floor(plain):
    model = twins.twin(twins.plain(), edits={"relu1": {"leak": 0.1001}})
    strict = parity.compare(ref=plain, keras=model, batch=twins.batch())
    loose = parity.compare(ref=plain, keras=model, batch=twins.batch(), rtol=0.5, atol=0.5)
    assert strict.verdict == "diverged"
    assert not [p for p in loose.probes if p.phase == "forward" and p.status == "born"], explain(loose)


def test_two_files_from_the_command_line(plain, tmp_path, capsys):
    files = {}
    for name, options in {"right": {}, "wrong": {"drop": ["relu2"]}}.items():
        for ending in ("keras", "h5"):
            files[name, ending] = tmp_path / f"{name}.{ending}"
            twins.twin(twins.plain(), **options).save(files[name, ending])
    data = tmp_path / "batch.npz"
    np.savez(data, **twins.batch())
    for (name, _), file in files.items():
        target = tmp_path / "report.json"
        command = ["compare", "--ref", str(plain), "--keras", str(file), "--batch", str(data), "--json", str(target)]
        assert main(command) == (0 if name == "right" else 1), capsys.readouterr()
        held = json.loads(target.read_text())
        assert held["schema"] == "parity-report/1"
        assert held["verdict"] == ("match" if name == "right" else "diverged")
        if name == "wrong":
            assert held["first_divergence"]["layer"] == "relu2"
            assert held["findings"][0]["cause"] == "activation-missing"


def test_a_deployed_net_is_compared_forward_only(tmp_path):
    layers = [*twins.plain()[:-1], {"type": "softmax", "name": "prob"}]
    mat = twins.save(tmp_path / "deployed.mat", layers)
    model = twins.twin(twins.plain())
    report = parity.compare(ref=mat, keras=model, batch=twins.batch())
    assert report.verdict == "match", explain(report)
    assert set(report.phases) == {"input", "structure", "weights", "forward"}
    assert any("do not apply" in note for note in report.notes)


def test_without_a_batch_a_seeded_one_is_made(plain):
    report = parity.compare(ref=plain, keras=twins.twin(twins.plain()))
    again = parity.compare(ref=plain, keras=twins.twin(twins.plain()))
    assert report.verdict == "match", explain(report)
    assert [p.propagated_x_floor for p in report.probes if p.phase == "forward"] == [
        p.propagated_x_floor for p in again.probes if p.phase == "forward"
    ]


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_convolution_is_one_group_per_channel(tmp_path, multiplier):
    import keras

    rng = np.random.default_rng(5)
    layers = [
        twins.conv("dw", rng, (3, 3, 1, 3 * multiplier), pad=np.ones(4)),
        twins.relu("relu1"),
        twins.conv("fc", rng, (8, 8, 3 * multiplier, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]
    mat = twins.save(tmp_path / "net.mat", layers, (8, 8, 3))
    penalty = keras.regularizers.L2(twins.DECAY / 2)
    options = {"bias_regularizer": penalty}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.DepthwiseConv2D(
                3, padding="same", depth_multiplier=multiplier, depthwise_regularizer=penalty, name="dw", **options
            ),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="softmax", kernel_regularizer=penalty, name="fc", **options),
        ]
    )
    model.compile(keras.optimizers.SGD(twins.RATE, momentum=0.9), loss="sparse_categorical_crossentropy")
    data = twins.batch(0, (8, 8, 3))
    report = parity.compare(ref=mat, keras=model, batch=data)
    assert report.verdict == "match", explain(report)
    again = parity.compare(ref=model, keras=model, batch=data)
    assert again.verdict == "match", explain(again)


def _halves(held, *, decayed=True, dilation=1):
    """A grouped convolution as two of slices, and a reference of which `held` gives the arrays."""
    import keras

    law = keras.regularizers.L2(twins.DECAY / 2)
    given = keras.Input((6, 6, 4))
    own = {"kernel_regularizer": law, **({"bias_regularizer": law} if decayed else {})}
    halves = [
        keras.layers.Conv2D(3, 3, padding="same", dilation_rate=dilation, name=f"half{at}", **own)(
            given[..., 2 * at : 2 * at + 2]
        )
        for at in (0, 1)
    ]
    x = keras.layers.Flatten()(keras.layers.ReLU()(keras.layers.Concatenate()(halves)))
    x = keras.layers.Dense(5, name="fc", kernel_regularizer=law, bias_regularizer=law)(x)
    model = keras.Model(given, x)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(twins.RATE, momentum=twins.MOMENTUM), loss)
    kernel, bias = held[0]["weights"]
    for at in (0, 1):
        columns = slice(3 * at, 3 * at + 3)
        model.get_layer(f"half{at}").set_weights([kernel[..., columns], bias.ravel()[columns]])
    model.get_layer("fc").set_weights([held[2]["weights"][0].reshape(-1, 5), held[2]["weights"][1].ravel()])
    return model


@pytest.mark.parametrize(
    ("wrong", "phase", "cause"),
    [
        ("", "", ""),
        ("decay", "update", "optimizer-weight-decay-missing"),
        ("rate", "update", "optimizer-lr-multiplier"),
        ("values", "weights", "weights-differ"),
        ("dilation", "forward", "conv-dilation"),
    ],
)
def test_what_is_wrong_in_a_half_of_a_grouped_convolution_is_put_right_there(tmp_path, wrong, phase, cause):
    rng = np.random.default_rng(3)
    held = [
        twins.conv("conv", rng, (3, 3, 2, 6), pad=np.ones(4)),
        twins.relu("relu"),
        twins.conv("fc", rng, (6, 6, 6, 5)),
        {"type": "softmaxloss", "name": "loss"},
    ]
    model = _halves(held, decayed=wrong != "decay", dilation=2 if wrong == "dilation" else 1)
    if wrong == "rate":
        held[0] = held[0] | {"learningRate": np.array([1.0, 2.0])}
    if wrong == "values":
        second = model.get_layer("half1")
        kernel, bias = second.get_weights()
        second.set_weights([kernel + 0.01 * rng.standard_normal(kernel.shape).astype(np.float32), bias])
    path = twins.save(tmp_path / "net.mat", held, (6, 6, 4))
    batch = {"x": rng.standard_normal((6, 6, 6, 4)).astype(np.float32), "y": np.arange(6) % 5}
    report = parity.compare(path, model, batch, weights="own", steps=2)
    found = [(f.phase, f.cause, f.layer, f.confirmed, f.fix_verified) for f in report.findings if f.severity != "note"]
    more = [(phase, "padding-size", "conv", True, True)] if wrong == "dilation" else []  # its `same` is more cells
    assert found == ([(phase, cause, "conv", True, True), *more] if wrong else [])
    assert (report.verdict == "match") == (not wrong)
