"""Every action on small models of both Kerases: what the copy computes, and that the model stays as it was."""

from __future__ import annotations

import numpy as np
import pytest

from parity.changes import Change
from parity.frameworks.keras.edit import EditedRunner, apply


@pytest.fixture
def x(batch):
    return batch[0]


def functional(k):
    start = k.Input((8, 8, 4), name="image")
    x = k.layers.Conv2D(6, 3, activation="relu", name="conv")(start)
    x = k.layers.BatchNormalization(name="bn")(x)
    a = k.layers.Conv2D(3, 1, name="left")(x)
    b = k.layers.Conv2D(3, 1, name="right")(x)
    x = k.layers.Concatenate(name="join")([a, b])
    x = k.layers.MaxPooling2D(2, name="pool")(x)
    x = k.layers.Flatten(name="flat")(x)
    model = k.Model(start, k.layers.Dense(3, name="out")(x))
    return compiled(k, model)


def sequential(k):
    layers = [
        k.Input((8, 8, 4)),
        k.layers.Conv2D(6, 3, name="conv"),
        k.layers.ReLU(name="relu"),
        k.layers.Flatten(name="flat"),
        k.layers.Dense(3, name="out"),
    ]
    return compiled(k, k.Sequential(layers))


def nested(k):
    """A submodel and, twice, one layer."""
    inner = k.Input((8, 8, 4))
    block = k.Model(
        inner,
        k.layers.LeakyReLU(0.3, name="leaky")(k.layers.Conv2D(4, 3, padding="same", name="conv")(inner)),
        name="block",
    )
    start = k.Input((8, 8, 4))
    shared = k.layers.Conv2D(4, 3, padding="same", name="shared")
    x = shared(shared(block(start)))
    x = k.layers.Flatten(name="flat")(x)
    return compiled(k, k.Model(start, k.layers.Dense(3, name="out")(x)))


def compiled(k, model):
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(k.optimizers.SGD(0.01, momentum=0.9), loss=loss, metrics=["accuracy"])
    return model


MODELS = {"functional": functional, "sequential": sequential, "nested": nested}


def edited(model, *changes):
    """The copy with all of these changes; none may be left."""
    result = apply(model, changes)
    assert not result.left, result.left
    return result.model


def layer(model, path):
    found = model
    for name in path.split("/"):
        found = found.get_layer(name)
    return found


def run(model, x):
    return np.asarray(model(x, training=False))


@pytest.mark.parametrize("name", MODELS)
def test_without_changes_it_is_a_copy_of_its_own(keras, x, name):
    model = MODELS[name](keras)
    before = [np.array(w) for w in model.get_weights()]
    copy = edited(model)
    assert type(copy).__name__ == type(model).__name__
    np.testing.assert_array_equal(run(copy, x), run(model, x))
    copy.set_weights([w + 1 for w in copy.get_weights()])
    for held, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(held, was)
    assert copy.optimizer is not model.optimizer
    assert copy.optimizer.get_config() == model.optimizer.get_config()


def test_a_copy_trains_on_where_its_model_stopped(keras, batch):
    model = functional(keras)
    images, labels = batch
    model.fit(images, labels, epochs=2, verbose=0, shuffle=False)
    copy = edited(model)
    for each in (model, copy):
        each.fit(images, labels, epochs=1, verbose=0, shuffle=False)
    for ours, theirs in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_an_argument(keras, x):
    model = functional(keras)
    copy = edited(model, Change("argument", "bn", {"epsilon": 0.1}))
    assert copy.get_layer("bn").epsilon == pytest.approx(0.1)
    assert model.get_layer("bn").epsilon == pytest.approx(0.001)
    half = np.sqrt((1 + 0.001) / (1 + 0.1))
    deep = keras.Model(model.input, model.get_layer("bn").output)
    ours = keras.Model(copy.input, copy.get_layer("bn").output)
    np.testing.assert_allclose(run(ours, x), run(deep, x) * half, rtol=1e-5)


def test_an_argument_inside_a_submodel_by_either_name(keras, x):
    model = nested(keras)
    copy = edited(model, Change("argument", "block/leaky", {"negative_slope": 0.0}))
    inside = keras.Model(copy.input, copy.get_layer("block")(copy.input))
    assert run(inside, x).min() == 0


def test_a_slope_and_a_kind_of_a_fused_activation(keras, x):
    model = functional(keras)
    leaky = edited(model, Change("argument", "conv:activation", {"negative_slope": 0.5}))
    core = run(keras.Model(leaky.input, leaky.get_layer("conv").output), x)
    assert core.min() < 0
    read = run(keras.Model(leaky.input, leaky.get_layer("bn").input), x)
    np.testing.assert_allclose(read, np.where(core < 0, core / 2, core), rtol=1e-6)
    tanh = edited(model, Change("argument", "conv:activation", {"activation": "tanh"}))
    np.testing.assert_allclose(run(keras.Model(tanh.input, tanh.get_layer("conv").output), x), np.tanh(core), atol=1e-6)
    without = edited(model, Change("remove", "conv:activation"))
    np.testing.assert_allclose(run(keras.Model(without.input, without.get_layer("bn").input), x), core, atol=1e-6)


def test_groups_keep_what_fits(keras, x):
    model = functional(keras)
    result = apply(model, [Change("argument", "conv", {"groups": 2})])
    assert [(path, word, tuple(v.shape)) for path, word, v in result.fresh] == [("conv", "kernel", (3, 3, 2, 6))]
    np.testing.assert_array_equal(result.model.get_layer("right").kernel, model.get_layer("right").kernel)
    assert run(result.model, x).shape == (6, 3)


@pytest.mark.parametrize("name", ["functional", "sequential"])
def test_padding_by_cells(keras, x, name):
    model = MODELS[name](keras)
    copy = edited(
        model,
        Change("argument", "conv", {"padding": [1, 0, 2, 0], "strides": [2, 2]}),
        Change("remove", "out"),
        Change("remove", "flat"),
    )
    ours = run(keras.Model(copy.inputs[0], copy.get_layer("conv").output), x)
    padded = np.pad(x, ((0, 0), (1, 0), (2, 0), (0, 0)))
    plain = keras.Sequential(
        [keras.Input(padded.shape[1:]), keras.layers.Conv2D(6, 3, 2, activation=model.get_layer("conv").activation)]
    )
    plain.set_weights(model.get_layer("conv").get_weights())
    np.testing.assert_allclose(ours, run(plain, padded), rtol=1e-5, atol=1e-6)
    again = edited(copy, Change("argument", "conv", {"padding": [0, 0, 1, 1]}))
    names = [each.name for each in again.layers if "pad" in each.name]
    assert names == ["conv_pad"]
    assert again.get_layer("conv_pad").padding == ((0, 0), (1, 1))
    gone = edited(again, Change("argument", "conv", {"padding": [0, 0, 0, 0]}))
    assert not [each.name for each in gone.layers if "pad" in each.name]


def test_padding_of_a_pooling_is_same_where_that_is_equal(keras):
    model = functional(keras)
    copy = edited(model, Change("argument", "pool", {"padding": [0, 0, 0, 0], "pool_size": [3, 3]}))
    assert copy.get_layer("pool").padding == "valid"
    copy = edited(
        model, Change("argument", "pool", {"pool_size": [3, 3]}), Change("argument", "pool", {"padding": [0, 1, 0, 1]})
    )
    assert copy.get_layer("pool").padding == "same"
    average = edited(model, Change("replace", "pool", {"class_name": "AveragePooling2D", "config": {"pool_size": 3}}))
    result = apply(average, [Change("argument", "pool", {"padding": [2, 2, 2, 2]})])
    assert "count" in result.left[0][1]


@pytest.mark.parametrize("name", ["functional", "sequential"])
def test_a_layer_behind_and_before_another(keras, x, name):
    model = MODELS[name](keras)
    first = Change("insert", "flat", {"class_name": "Rescaling", "config": {"scale": 2.0}})
    second = Change("insert", "flat", {"class_name": "Rescaling", "config": {"scale": 1.0, "offset": 1.0}})
    third = Change("insert", "flat", {"class_name": "Rescaling", "config": {"scale": -1.0}, "before": True})
    copy = edited(model, first, second, third)
    flat = run(keras.Model(model.inputs[0], model.get_layer("flat").output), x)
    kernel, bias = model.get_layer("out").get_weights()
    np.testing.assert_allclose(run(copy, x), (flat * -2 + 1) @ kernel + bias, rtol=1e-4, atol=1e-5)
    assert type(copy).__name__ == type(model).__name__


@pytest.mark.parametrize("name", MODELS)
def test_a_layer_behind_the_input(keras, x, name):
    model = MODELS[name](keras)
    copy = edited(model, Change("insert", "input", {"class_name": "Rescaling", "config": {"scale": 0.5}}))
    np.testing.assert_allclose(run(copy, x), run(model, x / 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["functional", "sequential"])
def test_new_layers_beside_a_layer_and_what_joins_them(keras, x, name):
    model = MODELS[name](keras)
    behind, flat = ("pool", "flat") if name == "functional" else ("relu", "flat")
    copy = edited(
        model,
        Change("insert", behind, {"class_name": "Rescaling", "config": {"scale": 2.0, "name": "a"}, "aside": True}),
        Change("insert", "a", {"class_name": "Rescaling", "config": {"scale": 3.0, "name": "b"}}),
        Change("insert", behind, {"class_name": "Add", "config": {"name": "sum"}, "inputs": ["b", behind]}),
    )
    before = run(keras.Model(model.inputs[0], model.get_layer(flat).output), x)
    after = run(keras.Model(copy.inputs[0], copy.get_layer(flat).output), x)
    np.testing.assert_allclose(after, 7 * before, rtol=1e-5, atol=1e-6)
    assert len({each.name for each in copy.layers} & {"a", "b", "sum"}) == 3


def test_a_new_layer_that_reads_what_is_made_later_than_what_it_stands_behind(keras, x):
    model = functional(keras)
    copy = edited(
        model,
        Change("insert", "left", {"class_name": "Add", "config": {"name": "sum"}, "inputs": ["left", "right"]}),
    )
    left, right = (run(keras.Model(model.input, model.get_layer(n).output), x) for n in ("left", "right"))
    joined = run(keras.Model(copy.input, copy.get_layer("join").output), x)
    np.testing.assert_allclose(joined, np.concatenate([left + right, right], axis=-1), rtol=1e-5, atol=1e-6)
    circle = Change("insert", "bn", {"class_name": "Add", "config": {"name": "sum"}, "inputs": ["bn", "left"]})
    assert "its own output" in apply(model, [circle]).left[0][1]


def test_a_fused_activation_moved_behind_another_layer(keras, x):
    model = functional(keras)
    copy = edited(model, Change("rewire", "conv:activation", {"behind": "bn"}))
    core = edited(model, Change("remove", "conv:activation"))
    expected = np.maximum(run(keras.Model(core.input, core.get_layer("bn").output), x), 0)
    np.testing.assert_allclose(run(keras.Model(copy.input, copy.get_layer("left").input), x), expected, atol=1e-6)


def test_a_new_layer_inside_a_submodel_has_parameters_that_are_trained_otherwise(keras, x):
    model = nested(keras)
    new = Change("insert", "block/conv", {"class_name": "BatchNormalization", "config": {"name": "norm"}})
    for path in ("norm", "block/norm"):
        copy = edited(model, new, Change("regularize", path, {"role": "gamma", "l2": 0.1}))
        assert layer(copy, "block/norm").gamma_regularizer.l2 == pytest.approx(0.1)


def test_a_layer_between_a_convolution_and_its_activation(keras, x):
    model = functional(keras)
    change = Change("insert", "conv:activation", {"class_name": "Rescaling", "config": {"scale": -1.0}, "before": True})
    copy = edited(model, change)
    core = edited(model, Change("remove", "conv:activation"))
    core = run(keras.Model(core.input, core.get_layer("conv").output), x)
    np.testing.assert_allclose(
        run(keras.Model(copy.input, copy.get_layer("bn").input), x), np.maximum(-core, 0), atol=1e-6
    )


@pytest.mark.parametrize("name", ["functional", "sequential"])
def test_a_layer_in_anothers_place(keras, x, name):
    model = MODELS[name](keras)
    copy = edited(
        model, Change("replace", "out", {"class_name": "Dense", "config": {"units": 3, "activation": "softmax"}})
    )
    raw = np.exp(run(model, x))
    np.testing.assert_allclose(run(copy, x), raw / raw.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["functional", "sequential"])
def test_a_layer_taken_out(keras, x, name):
    model = MODELS[name](keras)
    gone = "bn" if name == "functional" else "relu"
    copy = edited(model, Change("remove", gone))
    assert gone not in [each.name for each in copy.layers]
    if name == "functional":
        np.testing.assert_allclose(run(copy, x), run(model, x), rtol=2e-2, atol=2e-2)
    else:
        assert run(keras.Model(copy.inputs[0], copy.get_layer("flat").output), x).min() < 0


def test_other_tensors_and_another_order(keras, x):
    model = functional(keras)
    left, right = (run(keras.Model(model.input, model.get_layer(n).output), x) for n in ("left", "right"))

    def joined(copy):
        return run(keras.Model(copy.input, copy.get_layer("join").output), x)

    turned = edited(model, Change("rewire", "join", {"order": [1, 0]}))
    np.testing.assert_array_equal(joined(turned), np.concatenate([right, left], axis=-1))
    more = edited(model, Change("rewire", "join", {"inputs": ["right", "left", "right"]}), Change("remove", "out"))
    np.testing.assert_array_equal(joined(more), np.concatenate([right, left, right], axis=-1))
    chain = edited(model, Change("rewire", "left", {"inputs": ["right"]}))
    assert joined(chain).shape == (6, 6, 6, 6)
    result = apply(model, [Change("rewire", "conv", {"inputs": ["left"]})])
    assert "its own output" in result.left[0][1]


@pytest.mark.parametrize("name", ["functional", "sequential"])
def test_a_layer_moved_behind_another(keras, x, name):
    model = MODELS[name](keras)
    moved, behind = ("bn", "join") if name == "functional" else ("relu", "flat")
    copy = edited(model, Change("rewire", moved, {"behind": behind}))
    names = [each.name for each in copy.layers]
    assert names.index(moved) == names.index(behind) + 1


def test_a_shared_layer_changes_wherever_it_is_called(keras, x):
    model = nested(keras)
    copy = edited(
        model,
        Change("regularize", "shared", {"role": "kernel", "l2": 0.5}),
        Change("insert", "shared", {"class_name": "Rescaling", "config": {"scale": 0.0}}),
    )
    np.testing.assert_allclose(run(copy, x), np.broadcast_to(model.get_layer("out").get_weights()[1], (6, 3)))
    kernel = np.array(model.get_layer("shared").get_weights()[0], np.float64)
    assert float(sum(np.asarray(loss) for loss in copy.losses)) == pytest.approx(
        0.5 * float((kernel**2).sum()), rel=1e-4
    )


def test_weights_penalties_and_freezing(keras):
    model = functional(keras)
    values = np.full((3, 3, 4, 6), 0.25, np.float32)
    copy = edited(
        model,
        Change("weights", "conv", {"role": "kernel", "value": values}),
        Change("weights", "bn", {"role": "variance", "value": np.full(6, 2.0)}),
        Change("regularize", "bn", {"role": "gamma", "l2": 0.25}),
        Change("trainable", "left", {"trainable": False}),
    )
    np.testing.assert_array_equal(copy.get_layer("conv").get_weights()[0], values)
    np.testing.assert_array_equal(copy.get_layer("bn").get_weights()[3], np.full(6, 2.0))
    assert sum(float(np.asarray(loss)) for loss in copy.losses) == pytest.approx(0.25 * 6)
    assert len(copy.trainable_weights) == len(model.trainable_weights) - 2
    off = edited(
        copy, Change("regularize", "bn", {"role": "gamma", "l2": 0}), Change("trainable", "left", {"trainable": True})
    )
    assert not off.losses
    assert len(off.trainable_weights) == len(model.trainable_weights)


def test_the_optimizer(keras):
    model = sequential(keras)
    copy = edited(model, Change("optimizer", values={"learning_rate": 0.5}))
    config = copy.optimizer.get_config()
    assert (type(copy.optimizer).__name__, float(config["learning_rate"]), config["momentum"]) == ("SGD", 0.5, 0.9)
    copy = edited(model, Change("optimizer", values={"class_name": "Adam", "config": {"learning_rate": 0.02}}))
    assert type(copy.optimizer).__name__ == "Adam"
    assert float(copy.optimizer.get_config()["learning_rate"]) == pytest.approx(0.02)
    copy = edited(model, Change("optimizer", values={"class_name": "SGD", "config": {"learning_rate": 0.1}}))
    assert not copy.optimizer.get_config()["momentum"]
    result = apply(model, [Change("optimizer", values={"beta_1": 0.5})])
    assert "beta_1" in result.left[0][1]


def test_a_legacy_optimizer_stays_one():
    import tf_keras as k

    model = sequential(k)
    model.compile(k.optimizers.legacy.RMSprop(0.01, decay=1e-4), "sparse_categorical_crossentropy")
    copy = edited(
        model,
        Change(
            "optimizer",
            values={"class_name": "SGD", "config": {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": None}},
        ),
    )
    assert isinstance(copy.optimizer, k.optimizers.legacy.SGD)
    assert not copy.optimizer.get_config()["decay"]


@pytest.mark.parametrize("given", ["sparse_categorical_crossentropy", "function", "object"])
def test_the_loss(keras, given, batch):
    model = sequential(keras)
    made = {
        "function": keras.losses.sparse_categorical_crossentropy,
        "object": keras.losses.SparseCategoricalCrossentropy(),
    }
    model.compile("sgd", loss=made.get(given, given))
    images, labels = batch
    copy = edited(model, Change("loss", values={"config": {"from_logits": True, "reduction": "sum"}}))
    scores = run(model, images).astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    expected = -(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))[np.arange(6), labels].sum()
    assert float(np.asarray(copy.loss(labels[:, None], run(copy, images)))) == pytest.approx(expected, rel=1e-4)
    twice = edited(copy, Change("loss", values={"weight": 2.0}), Change("loss", values={"weight": 1.5}))
    runner = EditedRunner(apply(twice, []), {"input": images})
    assert [term.weight for term in runner._graph.terms] == [3.0]


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_factor_on_a_learning_rate(keras, batch, optimizer):
    model = functional(keras)
    model.compile(getattr(keras.optimizers, optimizer)(0.01), model.loss)
    images, _ = batch
    moves = []
    for changes in (
        [],
        [
            Change("rate", "conv", {"role": "bias", "factor": 20.0}),
            Change("rate", "bn", {"role": "gamma", "factor": 0.5}),
        ],
    ):
        runner = EditedRunner(apply(model, changes), {"image": images})
        before = runner.params()
        runner.reset()
        for _ in range(3):
            grads = {
                pid: np.full_like(value, 0.1) for pid, value in before.items() if runner._graph.differentiable(pid)
            }
            runner.update(grads, {})
        moves.append({pid: value.astype(np.float64) - before[pid] for pid, value in runner.params().items()})
        assert runner.network.params["conv.bias"].rate_multiplier == (20.0 if changes else 1.0)
    plain, scaled = moves
    np.testing.assert_allclose(scaled["conv.bias"], 20 * plain["conv.bias"], rtol=2e-4)
    np.testing.assert_allclose(scaled["bn.gamma"], 0.5 * plain["bn.gamma"], rtol=2e-4)
    np.testing.assert_array_equal(scaled["out.kernel"], plain["out.kernel"])


def test_bare_operations_and_functions_of_the_users_own_come_along(keras, x):
    def twice(value):
        return value * 2

    start = keras.Input((8, 8, 4))
    value = keras.layers.Conv2D(4, 3, activation=twice, name="conv")(start)
    value = value[:, 1:, ::-1] * 3.0 + value[:, :-1]
    value = keras.layers.Lambda(twice, name="lambda")(value)
    value = keras.layers.Flatten(name="flat")(value)
    model = keras.Model(start, [value, keras.layers.Dense(2, name="out")(value)])
    copy = edited(model, Change("insert", "conv", {"class_name": "Rescaling", "config": {"scale": 0.5}}))
    for ours, theirs in zip(copy(x), model(x), strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs) / 2, rtol=1e-4, atol=1e-5)
    assert copy.get_layer("conv").kernel is not model.get_layer("conv").kernel


def test_inputs_and_outputs_keep_their_names(keras, x):
    starts = {"b": keras.Input((8, 8, 4), name="b"), "a": keras.Input((8, 8, 4), name="a")}
    out = keras.layers.Subtract(name="minus")([starts["a"], starts["b"]])
    model = keras.Model(starts, {"z": out, "y": keras.layers.ReLU(name="relu")(out)})
    copy = edited(model, Change("insert", "a", {"class_name": "Rescaling", "config": {"scale": 2.0}}))
    made = copy({"a": x, "b": x * 0})
    np.testing.assert_allclose(made["z"], 2 * x, rtol=1e-6)
    np.testing.assert_allclose(made["y"], np.maximum(2 * x, 0), rtol=1e-6)
    turned = edited(model, Change("rewire", "minus", {"inputs": ["b", "a"]}))
    np.testing.assert_allclose(turned({"a": x, "b": x * 0})["z"], -x, rtol=1e-6)


def test_what_cannot_be_carried_out_is_left_with_the_reason(keras, x):
    model = functional(keras)
    changes = [
        Change("argument", "nowhere", {"strides": 2}),
        Change("argument", "conv", {"epsilon": 1.0}),
        Change("argument", "bn", {"epsilon": 0.01}),
        Change("insert", "join", {"class_name": "Rescaling", "config": {"scale": 1.0}, "before": True}),
        Change("insert", "bn", {"class_name": "LocalResponseNormalization", "config": {}}),
        Change("replace", "out", {"class_name": "Dense", "config": {"units": "many"}}),
        Change("weights", "bn", {"role": "gamma", "value": np.ones(5)}),
        Change("rate", "bn", {"role": "kernel", "factor": 2.0}),
        Change("dance", "bn"),
    ]
    result = apply(model, changes)
    assert result.done == (changes[2],)
    assert [change for change, _ in result.left] == [c for c in changes if c is not changes[2]]
    reasons = " ".join(reason for _, reason in result.left)
    for words in (
        "no layer nowhere",
        "no argument epsilon",
        "several tensors",
        "no layer LocalResponse",
        "shape (6,)",
        "no kernel",
    ):
        assert words in reasons
    assert result.model.get_layer("bn").epsilon == pytest.approx(0.01)


def test_a_model_that_is_written_in_code_is_refused(keras, x):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    model(x)
    with pytest.raises(ValueError, match="written in code"):
        apply(model, [])


def test_the_runner_puts_the_copys_own_weights_back(keras, batch):
    model = functional(keras)
    images, _ = batch
    result = apply(model, [Change("argument", "conv", {"groups": 2})])
    runner = EditedRunner(result, {"image": images})
    own = runner.params()
    loaded = {pid: np.full_like(value, 0.5) for pid, value in own.items()}
    runner.load(loaded)
    runner.load({pid: value * 3 for pid, value in loaded.items()})
    runner.restore()
    after = runner.params()
    np.testing.assert_array_equal(after["conv.kernel"], loaded["conv.kernel"])
    np.testing.assert_array_equal(after["out.kernel"], own["out.kernel"])
