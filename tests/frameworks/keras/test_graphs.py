"""Every kind of graph: seen whole, each layer run alone, rebuilt in float64, and stepped as Keras steps it."""

import numpy as np
import pytest

from parity.errors import BadUsage
from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.runner import KerasRunner
from parity.runner import Targets

from .graphs import GRAPHS


@pytest.fixture(
    scope="module", params=[f"{engine}-{name}" for engine in ("keras", "tf_keras") for name in sorted(GRAPHS)]
)
def built(request):
    """An engine, a model of it and its runner, made once for all that is asked of them."""
    name, _, graph = request.param.partition("-")
    engine = engine_of(name)
    engine.keras.utils.set_random_seed(7)
    example = GRAPHS[graph](engine.keras)
    return engine, example, KerasRunner(example.model, example.inputs)


@pytest.fixture
def example(built):
    return built[1]


@pytest.fixture
def runner(built):
    """The runner; whatever a test moves in the model is put back behind it."""
    engine, example, runner = built
    with engine.backend.untouched(engine.state(example.model)):
        yield runner


def _targets(example, runner):
    """Labels by label tensor: those of an output go to the loss that reads it."""
    names = runner.network.labels
    given = example.labels
    if isinstance(given, dict):
        by_output = {f"labels:{name}": value for name, value in given.items()}
        values = {name: by_output[name.removesuffix(":activation")] for name in names}
    else:
        values = dict(zip(names, given if isinstance(given, list) else [given], strict=True))
    weights = {} if example.weights is None else dict.fromkeys(names, example.weights)
    return Targets(values, weights)


def _own_loss(example, method):
    """What Keras' own `test_on_batch` or `train_on_batch` says of the batch."""
    model, given = example.model, list(example.inputs.values())
    model.run_eagerly = True  # the same numbers, without the time that a graph takes to be traced
    x = example.inputs if len(given) > 1 and isinstance(model.input, dict) else given if len(given) > 1 else given[0]
    result = getattr(model, method)(x, example.labels, sample_weight=example.weights)
    return float(np.ravel(result)[0])


def _groups(network, seen):
    """Layers that are run alone, each by itself, but a loss with the softmax whose logits it takes."""
    behind = {}
    for loss in network.losses:
        maker = network.producers.get(loss.inputs[0])
        if maker is not None and loss.inputs[0] not in seen.output_grads:
            behind[maker.name] = loss.name
    alone = [[layer.name] for layer in network if layer.name not in {*behind, *behind.values()}]
    return alone + [[maker, loss] for maker, loss in behind.items()]


def test_seen_and_run_alone(example, runner):
    network, targets = runner.network, _targets(example, runner)
    assert [name for name in example.names if name in network] == list(example.names)
    before = runner.params()
    seen = runner.run(example.inputs, targets)
    for pid, value in runner.params().items():
        np.testing.assert_array_equal(value, before[pid], err_msg=pid)
    missing = [name for layer in network for name in layer.outputs if name not in seen.outputs]
    assert not missing
    tensors = dict(seen.outputs) | dict(example.inputs)
    rtol, near = (2e-2, 5e-3) if example.rough else (2e-4, 2e-5)
    derivative, by_param = {}, {}
    regularized = {layer.output for layer in network if "adds an activity regularizer to the loss" in layer.remarks}
    for names in _groups(network, seen):
        layers = [network[name] for name in names]
        if layers[0].kind.name == "operations outside of layers":
            continue
        made = {name for layer in layers for name in layer.outputs}
        read = [name for layer in layers for name in network.data(layer.inputs) if name not in made]
        feeds = {name: tensors[name] for name in read}
        upstream = {name: seen.output_grads[name] for name in made if name in seen.output_grads}
        alone = runner.isolate(names, feeds, labels=targets, upstream=upstream, masks=seen.masks)
        drawn = any("random, without a mask" in layer.remarks for layer in layers)
        for name in () if drawn else made:
            np.testing.assert_allclose(alone.outputs[name], seen.outputs[name], rtol=1e-6, atol=1e-6, err_msg=name)
        for name, value in alone.input_grads.items():
            derivative[name] = derivative.get(name, 0) + value
        for pid, value in alone.param_grads.items():
            by_param[pid] = by_param.get(pid, 0) + value
        if drawn:
            continue
        if set(names) & set(example.single):
            with pytest.raises(NotImplementedError):
                runner.isolate(names, feeds, labels=targets, upstream=upstream, masks=seen.masks, precision=64)
            continue
        exact = runner.isolate(names, feeds, labels=targets, upstream=upstream, masks=seen.masks, precision=64)
        for name in made:
            scale = np.abs(seen.outputs[name]).max(initial=0)
            np.testing.assert_allclose(
                exact.outputs[name], seen.outputs[name], rtol=rtol, atol=near * scale, err_msg=name
            )
    for name, value in derivative.items():
        if name in regularized or name not in seen.output_grads:
            continue
        wanted = seen.output_grads[name]
        np.testing.assert_allclose(
            value, wanted, rtol=rtol, atol=near * np.abs(wanted).max(initial=0) + 1e-9, err_msg=f"d {name}"
        )
    if not any("outside" in remark for remark in network.remarks):
        assert set(by_param) == set(seen.param_grads)
    for pid, value in by_param.items():
        wanted = seen.param_grads[pid]
        np.testing.assert_allclose(
            value, wanted, rtol=rtol, atol=near * np.abs(wanted).max(initial=0) + 1e-9, err_msg=f"d {pid}"
        )
    floats = {n for layer in network for n in layer.outputs} - set(runner._graph.whole) - set(network.objectives)
    unreached = [name for name in floats if name not in seen.output_grads]
    behind_softmax = {loss.inputs[0] for loss in network.losses}
    assert set(unreached) <= behind_softmax
    for pid, value in runner.params().items():
        np.testing.assert_array_equal(value, before[pid], err_msg=pid)


def test_run_alone_in_eval_mode(example, runner):
    """Each call gets the `training` that the model gives it, which may be fixed."""
    network = runner.network
    seen = runner.run(example.inputs, None, mode="eval")
    assert not seen.output_grads
    assert not seen.param_grads
    tensors = dict(seen.outputs) | dict(example.inputs)
    for layer in network:
        if layer in network.losses or layer.kind.name == "operations outside of layers":
            continue
        feeds = {name: tensors[name] for name in layer.inputs}
        alone = runner.isolate([layer.name], feeds, mode="eval", masks=seen.masks)
        for name in layer.outputs:
            np.testing.assert_allclose(alone.outputs[name], seen.outputs[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_loss_and_the_step_are_keras(example, runner):
    targets = _targets(example, runner)
    start = runner.params()
    if not example.drawn:
        seen = runner.run(example.inputs, targets, mode="eval", backward=False)
        rel = 1e-2 if example.rough else 1e-5
        assert seen.loss + seen.penalty == pytest.approx(_own_loss(example, "test_on_batch"), rel=rel)
        seen = runner.run(example.inputs, targets)
        assert seen.loss + seen.penalty == pytest.approx(_own_loss(example, "train_on_batch"), rel=rel)
        wanted = runner.params()
        runner.load(start)
        runner.reset()
        runner.update(seen.param_grads, seen.statistics)
        for pid, value in runner.params().items():
            step = np.abs(wanted[pid] - start[pid]).max()
            tolerance = (5e-2 if example.rough else 2e-4) * step + 2e-7
            np.testing.assert_allclose(value, wanted[pid], rtol=0, atol=tolerance, err_msg=pid)


def test_whole_in_double(example, runner):
    if example.single:
        pytest.skip("a layer has no float64 twin")
    if any("outside" in remark for remark in runner.network.remarks):
        pytest.skip("operations outside of layers cannot be repeated")
    if any("random, without a mask" in layer.remarks for layer in runner.network):
        pytest.skip("noise cannot be repeated")
    targets = _targets(example, runner)
    seen = runner.run(example.inputs, targets)
    exact = runner.run(example.inputs, targets, masks=seen.masks, precision=64)
    assert set(exact.outputs) == set(seen.outputs)
    tolerance = 5e-2 if example.rough else 1e-3
    for name, value in exact.outputs.items():
        scale = np.abs(value).max(initial=0)
        np.testing.assert_allclose(seen.outputs[name], value, rtol=tolerance, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("fixed", [True, False])
def test_training_that_is_fixed_at_build(keras, fixed):
    """Keras 2 keeps to it in either mode; Keras 3 does in the mode that Keras 3 does: what it does is asked for."""
    layers = keras.layers
    x = keras.Input((40,), name="x")
    model = keras.Model(x, layers.Dropout(0.5, name="drop")(x, training=fixed))
    array = np.ones((4, 40), np.float32)
    runner = KerasRunner(model, array)
    for mode in ("train", "eval"):
        seen = runner.run({"x": array}, None, mode=mode)
        dropped = bool((np.asarray(model(array, training=mode == "train")) == 0).any())
        assert dropped == bool((seen.outputs["drop"] == 0).any()), mode
        assert dropped == ("drop" in seen.masks)
        alone = runner.isolate(["drop"], {"x": array}, mode=mode, masks=seen.masks)
        np.testing.assert_allclose(alone.outputs["drop"], seen.outputs["drop"], rtol=1e-6)


def test_inputs_by_name_or_in_order(keras):
    """Whole numbers are fed as such, and have no derivative."""
    layers = keras.layers
    words, size = keras.Input((3,), dtype="int32", name="words"), keras.Input((2,), name="size")
    t = layers.Flatten(name="flat")(layers.Embedding(5, 2, name="table")(words))
    model = keras.Model([words, size], layers.Dense(3, name="fc")(layers.Concatenate(name="cat")([t, size])))
    model.compile("sgd", "mse")
    a, b = np.array([[0, 1, 2], [4, 3, 2]]), np.ones((2, 2), np.float32)
    runner = KerasRunner(model, {"words": a, "size": b})
    y = np.zeros((2, 3), np.float32)
    named = runner.run({"size": b, "words": a}, y)
    ordered = runner.run({"first": a, "second": b}, y)
    for name, value in named.outputs.items():
        np.testing.assert_array_equal(value, ordered.outputs[name])
    assert "words" not in named.output_grads
    assert {"size", "table"} <= set(named.output_grads)
    np.testing.assert_array_equal(named.param_grads["table.embeddings"][1:2] != 0, True)
    with pytest.raises(BadUsage, match="no array for the Keras model's input words"):
        runner.run({"size": b, "other": a}, y)


def test_class_weights_are_sample_weights(keras):
    """Keras gives each sample the weight of its class; so do targets with weights."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax", name="fc")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 2, 1, 0, 2])
    of_class = np.array([1.0, 3.0, 0.5], np.float32)
    runner = KerasRunner(model, x)
    seen = runner.run({"x": x}, Targets({"labels": y}, {"labels": of_class[y]}))
    wanted = model.train_on_batch(x, y, class_weight=dict(enumerate(of_class.tolist())))
    assert seen.loss == pytest.approx(float(np.ravel(wanted)[0]), rel=1e-5)
