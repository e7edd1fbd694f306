"""The executed graph, and that observing neither changes nor disturbs what Keras does."""

import numpy as np
import pytest

from parity.errors import BadUsage, CannotCompare
from parity.frameworks.keras.lift import lift
from parity.frameworks.keras.runner import KerasRunner
from parity.layers import (
    Activation,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Dropout,
    Loss,
    Merge,
    Opaque,
    Slice,
    Softmax,
    Split,
)


def _net(keras, *, dropout=0.0, regularizer=None, noise=False, loss="sparse_categorical_crossentropy", optimizer=None):
    layers = keras.layers
    stack = [
        keras.Input((8, 8, 4)),
        layers.Conv2D(6, 3, activation="relu", name="conv", kernel_regularizer=regularizer),
        layers.BatchNormalization(name="bn"),
        layers.LeakyReLU(name="leaky"),
        *([layers.Dropout(dropout, name="drop")] if dropout else []),
        *([layers.GaussianNoise(0.1, name="noise")] if noise else []),
        layers.MaxPooling2D(2, name="pool"),
        layers.Flatten(name="flat"),
        layers.Dense(3, activation="softmax", name="fc"),
    ]
    model = keras.Sequential(stack)
    if loss:
        model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), loss=loss, metrics=["accuracy"])
    return model


def _copy_weights(model):
    return [np.array(w) for w in model.get_weights()]


def _feeds_of(runner, x):
    return {next(iter(runner.network.inputs)): x}


def test_the_graph(keras, batch):
    runner = KerasRunner(_net(keras, dropout=0.5, noise=True), batch[0])
    net = runner.network
    names = ["conv", "conv:activation", "bn", "leaky", "drop", "noise", "pool", "flat", "fc", "fc:activation", "loss"]
    assert [layer.name for layer in net] == names
    assert net["conv"].kind == Conv(6, (3, 3))
    assert net["conv:activation"].kind == Activation("relu")
    assert isinstance(net["bn"].kind, BatchNorm)
    assert net["leaky"].kind == Activation("relu", pytest.approx(0.3))
    assert net["drop"].kind == Dropout(0.5)
    assert net["noise"].remarks == ("random, without a mask",)
    assert net["fc"].kind == Dense(3)
    assert isinstance(net["fc:activation"].kind, Softmax)
    assert net["loss"].kind == Loss("log", sparse=True)
    assert net["loss"].inputs == ("fc:activation", "labels")
    assert net["conv"].shape == (6, 6, 6)
    assert net.params["conv.kernel"].axes == "h w i o"
    assert net.params["fc.kernel"].axes == "i o"
    assert net.params["bn.mean"].axes == "c"
    assert not net.params["bn.variance"].trainable
    assert net.params["conv.kernel"].initializer == "GlorotUniform"


def test_nested_shared_and_residual(keras, batch):
    layers = keras.layers
    inner_in = keras.Input((8, 8, 4))
    inner = keras.Model(
        inner_in, layers.Conv2D(4, 3, padding="same", activation="relu", name="c")(inner_in), name="sub"
    )
    x = keras.Input((8, 8, 4), name="image")
    a = inner(x)
    b = inner(a)
    y = layers.Add(name="sum")([x, b])
    both = layers.Concatenate(name="cat")([y, a])
    stack = keras.Sequential([layers.GlobalAveragePooling2D(name="gap"), layers.Dense(3, name="fc")], name="head")
    model = keras.Model(x, stack(both))
    net = KerasRunner(model, batch[0]).network
    assert [layer.name for layer in net] == [
        "sub/c", "sub/c:activation", "sub/c@2", "sub/c@2:activation", "sum", "cat", "head/gap", "head/fc",
    ]  # fmt: skip
    assert net["sub/c@2"].inputs == ("sub/c:activation",)
    assert net["sub/c@2"].params == net["sub/c"].params
    assert net["sum"].inputs == ("image", "sub/c@2:activation")
    assert net["cat"].kind == Concat(-1)
    assert net["sub/c"].kind.pad == (1, 1, 1, 1)
    assert net.outputs == ("head/fc",)
    assert "loss" not in net


def test_operations_between_layers(batch, tmp_path):
    from parity.frameworks.keras.engine import engine_of

    keras = engine_of("keras").keras
    x = keras.Input((8, 8, 4), name="image")
    first, second = x[..., :2], x[..., 2:]
    parts = keras.ops.split(x, 2, axis=-1)
    y = keras.layers.Concatenate(name="cat")([first, second, parts[0]]) + 1.5
    z = keras.ops.relu(y) * y
    model = keras.Model(x, keras.layers.GlobalMaxPooling2D(name="out")(z))
    runner = KerasRunner(model, batch[0])
    kinds = {layer.name: layer.kind for layer in runner.network}
    slices = [k for k in kinds.values() if isinstance(k, Slice)]
    assert slices == [Slice(-1, 0, 2), Slice(-1, 2, 4)]
    assert [k for k in kinds.values() if isinstance(k, Split)] == [Split(-1, (2,))]
    assert Merge("multiply") in kinds.values()
    assert Activation("relu") in kinds.values()
    assert any(isinstance(k, Opaque) and k.type == "operation Add" for k in kinds.values())
    seen = runner.run({"image": batch[0]}, None)
    np.testing.assert_allclose(seen.outputs["out"], model(batch[0]))
    alone = runner.isolate([layer.name for layer in runner.network], {"image": batch[0]})
    for name, value in alone.outputs.items():
        np.testing.assert_array_equal(value, seen.outputs[name])
    model.save(tmp_path / "ops.keras")
    network, _ = lift(tmp_path / "ops.keras")
    assert [layer.name for layer in network] == [layer.name for layer in runner.network]
    for layer in network:
        twin = runner.network[layer.name]
        assert (layer.inputs, layer.outputs) == (twin.inputs, twin.outputs)
        assert layer.kind == twin.kind or isinstance(twin.kind, Opaque)


def test_operations_in_keras_2(batch, tmp_path):
    from parity.frameworks.keras.engine import engine_of

    keras = engine_of("tf_keras").keras
    import tensorflow as tf

    x = keras.Input((8, 8, 4), name="image")
    y = keras.layers.Concatenate(name="cat")([x[..., :2], tf.split(x, 2, axis=-1)[1]]) + x
    model = keras.Model(x, keras.layers.GlobalMaxPooling2D(name="out")(tf.nn.relu(y) * 2.0))
    runner = KerasRunner(model, batch[0])
    kinds = [layer.kind for layer in runner.network]
    assert Slice(-1, 0, 2) in kinds
    assert Split(-1, (2,)) in kinds
    assert Merge("add") in kinds
    assert Activation("relu") in kinds
    seen = runner.run({"image": batch[0]}, None)
    alone = runner.isolate([layer.name for layer in runner.network], {"image": batch[0]})
    for name, value in alone.outputs.items():
        np.testing.assert_array_equal(value, seen.outputs[name])
    model.save(tmp_path / "ops.h5")
    network, _ = lift(tmp_path / "ops.h5")
    assert len(network.layers) == len(runner.network.layers)
    for layer in network:
        twin = runner.network[layer.name]
        assert (layer.inputs, layer.outputs) == (twin.inputs, twin.outputs)
        assert layer.kind == twin.kind or isinstance(twin.kind, Opaque)


@pytest.mark.parametrize("eager", [False, True])
def test_operations_outside_of_layers(batch, eager):
    from parity.frameworks.keras.engine import engine_of

    keras = engine_of("keras").keras

    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(2, 3, name="conv")
            self.fc = keras.layers.Dense(2, name="fc")

        def call(self, x, training=False):
            if eager:
                x = x * float(np.abs(x).max() > 0)  # a symbolic tensor has no values
            return self.fc(keras.ops.mean(self.conv(x), axis=(1, 2)))

    runner = KerasRunner(Mine(), batch[0])
    if not eager:
        assert [layer.source_type for layer in runner.network] == ["Conv2D", "Mean", "Dense"]
        assert isinstance(runner.network["fc"].kind, Dense)
        return
    assert [layer.name for layer in runner.network] == ["conv:input", "conv", "fc:input", "fc"]
    assert isinstance(runner.network["fc:input"].kind, Opaque)
    assert "fc:input" in runner.run({"x": batch[0]}, None).outputs
    with pytest.raises(NotImplementedError, match="cannot run alone"):
        runner.isolate(["fc:input"], {})


def test_one_step_is_train_on_batch(keras, batch):
    x, y = batch
    model = _net(keras, regularizer=keras.regularizers.L2(0.01))
    start = _copy_weights(model)
    loss = model.train_on_batch(x, y)
    wanted = _copy_weights(model)
    model.set_weights(start)
    runner = KerasRunner(model, x)
    runner.reset()
    seen = runner.run({"x": x}, y)
    for value, weight in zip(model.get_weights(), start, strict=True):
        np.testing.assert_array_equal(value, weight)  # running moves nothing
    assert seen.penalty == pytest.approx(0.01 * float(np.sum(np.square(start[0]))), rel=1e-6)
    np.testing.assert_allclose(seen.penalty_grads["conv.kernel"], 0.02 * start[0], rtol=1e-6)
    assert set(seen.penalty_grads) == {"conv.kernel"}
    assert seen.loss + seen.penalty == pytest.approx(float(np.ravel(loss)[0]), rel=1e-6)
    runner.update(seen.param_grads, seen.statistics)
    for value, weight in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(value, weight, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("rule", ["RMSprop", "Adam", "Adagrad"])
def test_three_steps_of_other_optimizers(keras, batch, rule):
    x, y = batch
    make = lambda: getattr(keras.optimizers, rule)(0.01, clipnorm=0.5)  # noqa: E731
    model = _net(keras, optimizer=make())
    start = _copy_weights(model)
    for _ in range(3):
        model.train_on_batch(x, y)
    wanted = _copy_weights(model)
    model.set_weights(start)
    runner = KerasRunner(model, x)
    runner.reset()
    for _ in range(3):
        seen = runner.run({"x": x}, y)
        runner.update(seen.param_grads, seen.statistics)
    for value, weight in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(value, weight, rtol=1e-3, atol=2e-4)


def test_the_model_is_left_as_it_was(keras, batch):
    model = _net(keras, dropout=0.5)
    runner = KerasRunner(model, batch[0])
    before = [set(layer.__dict__) for layer in model.layers]
    values = [np.array(v.numpy()) for v in runner._engine.state(model)]
    activation = model.get_layer("conv").activation
    runner.run({"x": batch[0]}, batch[1])
    with pytest.raises(CannotCompare):
        runner.run({"x": batch[0]}, batch[1] + 7)
    assert [set(layer.__dict__) for layer in model.layers] == before
    assert model.get_layer("conv").activation is activation
    assert "call" not in model.get_layer("conv").__dict__
    for variable, value in zip(runner._engine.state(model), values, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_dropout_is_drawn_by_keras(keras, batch):
    runner = KerasRunner(_net(keras, dropout=0.25), batch[0])
    seen = runner.run({"x": batch[0]}, batch[1])
    mask, before, after = seen.masks["drop"], seen.outputs["leaky"], seen.outputs["drop"]
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert 0.6 < mask.mean() < 0.9
    np.testing.assert_array_equal(after, before * (mask * np.float32(1 / 0.75)))
    assert "drop" not in runner.run({"x": batch[0]}, batch[1], mode="eval").masks


def test_batch_statistics(keras, batch):
    runner = KerasRunner(_net(keras), batch[0])
    seen = runner.run({"x": batch[0]}, batch[1])
    flat = seen.outputs["conv:activation"].astype(np.float64).reshape(-1, 6)
    np.testing.assert_allclose(seen.statistics["bn"]["mean"], flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(seen.statistics["bn"]["variance"], flat.var(0), rtol=1e-5)
    runner.update(seen.param_grads, seen.statistics)
    unbiased = runner._stepper.bessel(runner.model.get_layer("bn"))
    assert unbiased is (keras.__name__ != "keras")
    variance = flat.var(0, ddof=1) if unbiased else flat.var(0)
    np.testing.assert_allclose(runner.params()["bn.variance"], 0.99 + 0.01 * variance, rtol=1e-6)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_isolated_layers_repeat_the_run(keras, batch, mode):
    x, y = batch
    runner = KerasRunner(_net(keras, dropout=0.5), x)
    seen = runner.run({"x": x}, y, mode=mode)
    tensors = seen.outputs | _feeds_of(runner, x)
    for layer in runner.network:
        if isinstance(layer.kind, Loss | Softmax):
            continue
        feeds = {name: tensors[name] for name in layer.inputs}
        upstream = {layer.output: seen.output_grads[layer.output]}
        alone = runner.isolate([layer.name], feeds, upstream=upstream, mode=mode, masks=seen.masks)
        np.testing.assert_array_equal(alone.outputs[layer.output], seen.outputs[layer.output], err_msg=layer.name)
        for pid, value in alone.param_grads.items():
            np.testing.assert_allclose(value, seen.param_grads[pid], rtol=1e-5, atol=1e-7, err_msg=pid)
        for name in layer.inputs:
            np.testing.assert_allclose(alone.input_grads[name], seen.output_grads[name], rtol=1e-5, atol=1e-8)
        for role, value in alone.statistics.get(layer.name, {}).items():
            np.testing.assert_array_equal(value, seen.statistics[layer.name][role])
    end = runner.isolate(["fc:activation", "loss"], {"fc": tensors["fc"]}, labels=y, mode=mode)
    np.testing.assert_array_equal(end.input_grads["fc"], seen.output_grads["fc"])
    assert end.loss == seen.loss
    assert "fc:activation" not in seen.output_grads  # the loss takes the logits behind it


def test_extreme_logits_keep_their_loss(keras, batch):
    runner = KerasRunner(_net(keras), batch[0])
    logits = np.array([[40.0, -40.0, 0.0]] * 6, np.float32)
    alone = runner.isolate(["fc:activation", "loss"], {"fc": logits}, labels=np.ones(6, int))
    assert alone.loss == pytest.approx(80.0, rel=1e-6)


def test_other_weights_for_one_run(keras, batch):
    runner = KerasRunner(_net(keras), batch[0])
    before = runner.params()
    feeds = _feeds_of(runner, batch[0])
    for precision in (32, 64):
        changed = {"conv.kernel": before["conv.kernel"] * 2, "conv.bias": before["conv.bias"]}
        plain = runner.isolate(["conv"], feeds, precision=precision).outputs["conv"]
        twice = runner.isolate(["conv"], feeds, params=changed, precision=precision).outputs["conv"]
        np.testing.assert_allclose(twice, 2 * plain, rtol=1e-6)
    for pid, value in runner.params().items():
        np.testing.assert_array_equal(value, before[pid])


def test_double_precision(keras, batch):
    x, y = batch
    runner = KerasRunner(_net(keras, dropout=0.5), x)
    seen = runner.run({"x": x}, y)
    exact = runner.run({"x": x}, y, masks=seen.masks, precision=64)
    for name, value in exact.outputs.items():
        assert name in ("loss", *runner.network.inputs) or value.dtype == np.float64, name
        np.testing.assert_allclose(seen.outputs[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    for pid, value in exact.param_grads.items():
        np.testing.assert_allclose(seen.param_grads[pid], value, rtol=1e-3, atol=1e-5, err_msg=pid)
    assert exact.loss == pytest.approx(seen.loss, rel=1e-5)
    assert exact.loss != seen.loss
    flat = exact.outputs["conv:activation"].reshape(-1, 6)
    np.testing.assert_allclose(exact.statistics["bn"]["mean"], flat.mean(0), rtol=1e-12)


def test_several_outputs(keras, batch):
    x = keras.Input((8, 8, 4), name="image")
    y = keras.layers.Flatten(name="flat")(x)
    a = keras.layers.Dense(3, activation="softmax", name="a")(y)
    b = keras.layers.Dense(3, name="b")(y)
    model = keras.Model(x, [a, b])
    losses = keras.losses
    both = [losses.SparseCategoricalCrossentropy(), losses.SparseCategoricalCrossentropy(from_logits=True)]
    model.compile("sgd", both, loss_weights=[1.0, 0.5])
    runner = KerasRunner(model, batch[0])
    assert [n.name for n in runner.network if isinstance(n.kind, Loss)] == ["loss:a:activation", "loss:b"]
    assert runner.network["loss:b"].kind.function == "softmaxlog"
    seen = runner.run({"image": batch[0]}, batch[1])
    assert seen.loss == pytest.approx(float(seen.outputs["loss:a:activation"] + seen.outputs["loss:b"]), rel=1e-6)
    wanted = model.evaluate(batch[0], batch[1] if keras.__name__ != "keras" else [batch[1], batch[1]], verbose=0)
    assert seen.loss == pytest.approx(wanted[0], rel=1e-5)


def test_labels_as_the_loss_wants_them(keras, batch):
    x, y = batch
    hot = np.eye(3, dtype=np.float32)[y]
    values = []
    for loss in ("sparse_categorical_crossentropy", "categorical_crossentropy"):
        keras.utils.set_random_seed(1)
        runner = KerasRunner(_net(keras, loss=loss), x)
        values += [runner.run({"x": x}, labels, backward=False).loss for labels in (y, hot, y.reshape(-1, 1))]
    assert max(values) - min(values) < 1e-6
    unit = keras.layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Flatten(), unit])
    model.compile("sgd", "binary_crossentropy")
    runner = KerasRunner(model, x)
    loss = runner.run({"x": x}, y % 2, backward=False).loss
    assert loss == pytest.approx(float(np.ravel(model.evaluate(x, (y % 2)[:, None], verbose=0))[0]), rel=1e-5)


def test_batches_that_do_not_fit(keras, batch):
    x, y = batch
    runner = KerasRunner(_net(keras), x)
    with pytest.raises(CannotCompare, match=r"images of shape 8×8×3.*takes 8×8×4"):
        runner.run({"x": x[..., :3]}, y)
    with pytest.raises(CannotCompare, match="labels run from 0 to 9, and the Keras model tells 3 classes apart"):
        runner.run({"x": x}, np.array([0, 1, 2, 0, 1, 9]))
    with pytest.raises(CannotCompare, match="5 labels for 6 images"):
        runner.run({"x": x}, y[:5])
    with pytest.raises(CannotCompare, match="tell 4 classes apart"):
        runner.run({"x": x}, np.eye(4)[y])
    with pytest.raises(BadUsage, match="no array for"):
        runner.run({"a": x, "b": x}, y)
    with pytest.raises(CannotCompare, match="shape"):
        KerasRunner(_net(keras), x[:, :4])
    with pytest.raises(CannotCompare, match="not a Keras model"):
        KerasRunner(object(), x)


def test_loading_weights(keras, batch):
    runner = KerasRunner(_net(keras), batch[0])
    value = np.full((6,), 0.5, np.float32)
    runner.load({"conv.bias": value, "bn.variance": -value})
    np.testing.assert_array_equal(runner.params()["conv.bias"], value)
    np.testing.assert_array_equal(runner.params()["bn.variance"], -value)
    with pytest.raises(CannotCompare, match=r"conv\.bias has shape \(6,\)"):
        runner.load({"conv.bias": value[:3]})
    with pytest.raises(CannotCompare, match="no parameter"):
        runner.load({"nothing.bias": value})


def test_frozen_layers(keras, batch):
    model = _net(keras)
    model.get_layer("bn").trainable = False
    model.get_layer("conv").trainable = False
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    runner = KerasRunner(model, batch[0])
    assert runner.network["bn"].kind.frozen
    assert not runner.network.params["conv.kernel"].trainable
    seen = runner.run({"x": batch[0]}, batch[1])
    assert not seen.statistics
    assert np.abs(seen.param_grads["conv.kernel"]).max() > 0
    before = runner.params()
    runner.update(seen.param_grads, seen.statistics)
    moved = {pid for pid, value in runner.params().items() if not np.array_equal(value, before[pid])}
    assert moved == {"fc.kernel", "fc.bias"}


def test_mixed_precision(keras, batch):
    x, y = batch
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(4, 3, activation="relu", name="conv", dtype="mixed_float16"),
            layers.Flatten(name="flat", dtype="mixed_float16"),
            layers.Dense(3, name="fc"),
            layers.Activation("softmax", name="soft"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    runner = KerasRunner(model, x)
    assert [layer.inputs[0] for layer in runner.network][1:] == ["conv", "conv:activation", "flat", "fc", "soft"]
    seen = runner.run({"x": x}, y)
    names = [layer.name for layer in runner.network]
    alone = runner.isolate(names, _feeds_of(runner, x), labels=y)
    exact = runner.isolate(names, _feeds_of(runner, x), labels=y, precision=64)
    for name, value in alone.outputs.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, seen.outputs[name], err_msg=name)
    assert 1e-5 < np.abs(exact.outputs["conv"] - seen.outputs["conv"]).max() < 1e-2


def test_layers_that_the_vocabulary_does_not_know(keras, batch):
    x, y = batch
    layers = keras.layers
    start = keras.Input((8, 8, 4))
    t = layers.Reshape((8, 32), name="rows")(start)
    t = layers.LSTM(5, return_sequences=True, name="lstm")(t)
    t = layers.TimeDistributed(layers.Dense(3, activation="relu"), name="each")(t)
    t = layers.LayerNormalization(name="ln")(t)
    t = layers.Dense(4, activation=layers.LeakyReLU(), name="mid")(t)
    t = layers.GlobalAveragePooling1D(name="gap")(t)
    model = keras.Model(start, layers.Dense(3, activity_regularizer="l2", name="fc")(t))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    runner = KerasRunner(model, x)
    opaque = [layer.name for layer in runner.network if isinstance(layer.kind, Opaque)]
    assert opaque == ["lstm", "each", "ln"]
    assert runner.network["mid:activation"].kind == Activation("relu", pytest.approx(0.3))
    seen = runner.run({"x": x}, y)
    assert seen.penalty == 0  # an activity regularizer belongs to the data loss
    assert seen.loss == pytest.approx(float(np.ravel(model.evaluate(x, y, verbose=0))[0]), rel=1e-5)
    assert seen.loss > float(seen.outputs["loss"])
    for layer in runner.network:
        feeds = {name: seen.outputs[name] for name in layer.inputs if name != "labels"}
        alone = runner.isolate([layer.name], feeds, labels=y)
        np.testing.assert_array_equal(alone.outputs[layer.output], seen.outputs[layer.output], err_msg=layer.name)
        exact = runner.isolate([layer.name], feeds, labels=y, precision=64)
        np.testing.assert_allclose(alone.outputs[layer.output], exact.outputs[layer.output], rtol=1e-4, atol=1e-6)


def test_another_backend_is_one_line(monkeypatch):
    from parity.frameworks.keras.engine import Engine, engine_of

    keras = engine_of("keras").keras
    monkeypatch.setattr(keras.config, "backend", lambda: "openvino")
    with pytest.raises(CannotCompare, match=r"Keras runs on openvino here.*tensorflow, torch or jax.*KERAS_BACKEND"):
        Engine("keras")


def test_a_grouped_convolution_is_compiled_once_and_computes_what_keras_does():
    """Keras 3 compiles it anew at each call; the same operation is called again here, bit for bit."""
    import keras
    import tensorflow as tf

    from parity.frameworks.keras.backends.tensorflow import _compiled

    conv = keras.layers.Conv2D(6, 3, strides=2, padding="same", groups=2, activation="tanh", name="conv")
    model = keras.Sequential(
        [keras.Input((9, 9, 4), name="x"), conv, keras.layers.Flatten(), keras.layers.Dense(3, name="fc")]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 9, 9, 4)).astype(np.float32), np.asarray([0, 2, 1, 0])
    runner = KerasRunner(model, x)
    seen = runner.run({"x": x}, y)
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x))
    kernel, bias = tape.gradient(loss, [v.value for v in conv.trainable_variables])
    np.testing.assert_array_equal(seen.outputs["conv:activation"], conv(x))
    np.testing.assert_allclose(seen.param_grads[runner.network["conv"].params["kernel"]], kernel, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(seen.param_grads[runner.network["conv"].params["bias"]], bias, rtol=1e-6, atol=1e-8)
    compiled = _compiled.cache_info().misses
    copy = keras.models.clone_model(model)
    copy.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    KerasRunner(copy, x).run({"x": x}, y)
    assert _compiled.cache_info().misses == compiled > 0
    assert "convolution_op" not in vars(conv)
