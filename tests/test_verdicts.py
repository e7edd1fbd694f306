"""Right ports match, in every spelling; planted faults are found at their layer, in their phase, with their cause."""

from __future__ import annotations

import numpy as np
import pytest

import parity
from tests import twins


@pytest.fixture(scope="module")
def mats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    return {
        "plain": twins.save(folder / "plain.mat", twins.plain()),
        "normalised": twins.save(folder / "normalised.mat", twins.normalised()),
    }


NETS = {"plain": twins.plain, "normalised": twins.normalised}


def compare(mats, net, model, **options):
    options.setdefault("batch", twins.batch())
    return parity.compare(ref=mats[net], keras=model, **options)


def explain(report):
    """What went wrong, for a failing test's message."""
    lines = [
        f"{p.phase} {p.layer} {p.tensor} {p.step} {p.status} x{p.isolated_x_floor} {p.note}" for p in report.probes
    ]
    bad = [line for line in lines if " match " not in line]
    return "\n".join([report.verdict, *bad, *(f"{f.cause} {f.layer} {f.phase} {f.evidence}" for f in report.findings)])


SPELLINGS = {
    "as layers": {},
    "fused activations": {"fused": True},
    "convolutions for dense": {"dense": False},
    "nested": {"nested": True},
    "sequential": {"functional": False},
    "logits": {"logits": True},
    "fused, nested, logits": {"fused": True, "nested": True, "logits": True},
}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_right_port_matches(mats, net, spelling):
    report = compare(mats, net, twins.twin(NETS[net](), **SPELLINGS[spelling]))
    assert report.verdict == "match", explain(report)
    assert report.exit_code == 0
    assert {p.phase for p in report.probes} == set(parity.report.PHASES)
    assert max(p.step for p in report.probes) == 3
    assert not [f for f in report.findings if f.severity == "divergence"], explain(report)


@pytest.mark.parametrize("net", NETS)
def test_a_right_port_matches_in_eval_mode(mats, net):
    report = compare(mats, net, twins.twin(NETS[net]()), mode="eval")
    assert report.verdict == "match", explain(report)
    assert {p.phase for p in report.probes} == {"input", "structure", "weights", "forward", "loss"}


@pytest.mark.parametrize("net", NETS)
def test_a_right_port_with_its_own_weights_matches(mats, net):
    report = compare(mats, net, twins.twin(NETS[net](), weights=True), weights="own")
    assert report.verdict == "match", explain(report)


@pytest.mark.parametrize("net", NETS)
def test_the_reference_is_itself_bit_for_bit(mats, net):
    report = parity.compare(ref=mats[net], keras=mats[net], batch=twins.batch())
    assert report.verdict == "match", explain(report)
    assert all(not p.max_abs for p in report.probes)


def test_keras_is_itself_bit_for_bit(mats):
    model, same = (twins.twin(twins.plain()) for _ in range(2))
    report = parity.compare(ref=model, keras=same, batch=twins.batch())
    assert report.verdict == "match", explain(report)
    assert all(not p.max_abs for p in report.probes if p.phase not in ("weights",)), explain(report)


def reversed_gradient(scale):
    import tensorflow as tf

    @tf.custom_gradient
    def function(x):
        return tf.identity(x), lambda dy: dy * scale

    return function


def conv_with_wrong_gradient(scale):
    import keras

    class Conv2D(keras.layers.Conv2D):
        def call(self, inputs):
            return super().call(reversed_gradient(scale)(inputs))

    return Conv2D


def scaled_conv():
    return conv_with_wrong_gradient(1.001)


def reversed_conv():
    return conv_with_wrong_gradient(-1.0)


def dense_with_stopped_bias():
    import keras
    import tensorflow as tf

    class Dense(keras.layers.Dense):
        def call(self, inputs):
            return self.activation(tf.matmul(inputs, self.kernel) + tf.stop_gradient(self.bias))

    return Dense


def guided_relu():
    import keras
    import tensorflow as tf

    class ReLU(keras.layers.ReLU):
        def call(self, inputs):
            @tf.custom_gradient
            def function(x):
                y = tf.nn.relu(x)
                return y, lambda dy: dy * tf.cast((x > 0) & (dy > 0), x.dtype)

            return function(inputs)

    return ReLU


def frozen_statistics():
    import keras
    import tensorflow as tf

    class BatchNormalization(keras.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            mean, variance = tf.nn.moments(inputs, [0, 1, 2])
            mean, variance = tf.stop_gradient(mean), tf.stop_gradient(variance)
            return (inputs - mean) / tf.sqrt(variance + self.epsilon) * self.gamma + self.beta

    return BatchNormalization


def edited_weights(name, change, net="plain"):
    def make():
        model = twins.twin(NETS[net](), weights=True)
        target = next(found for found in twins._leaves(model) if found.name == name)
        target.set_weights(change([np.array(w) for w in target.get_weights()]))
        return model

    return make


def tanh(x):
    import keras

    return keras.layers.Activation("tanh", name="activation")(x)


def flipped(weights):
    return [weights[0][::-1, ::-1], weights[1]]


def scaled(weights):
    return [weights[0] * 1.01, weights[1]]


def transposed(weights):
    return [weights[0].swapaxes(0, 1), weights[1]]


def column_major(weights):
    return [weights[0].reshape(4, 4, 8, -1).transpose(1, 0, 2, 3).reshape(weights[0].shape), weights[1]]


def element(weights):
    weights[0][tuple(s // 2 for s in weights[0].shape)] += 1e-3
    return weights


def optimizer(name, **options):
    import keras

    return getattr(keras.optimizers, name)(**options)


def frozen(name):
    model = twins.twin(twins.plain())
    next(found for found in model.layers if found.name == name).trainable = False
    model.compile(optimizer=optimizer("SGD", learning_rate=0.01, momentum=0.9), loss=model.loss)
    return model


def summed():
    import keras

    return keras.losses.SparseCategoricalCrossentropy(reduction="sum")


def adam():
    return optimizer("Adam", learning_rate=0.01)


def sgd(learning_rate=0.01, momentum=0.9, **options):
    return optimizer("SGD", learning_rate=learning_rate, momentum=momentum, **options)


def plain(**options):
    """A maker of a twin of the plain net, for what only a live Keras can make."""
    return lambda: twins.twin(twins.plain(), **{k: v() if callable(v) else v for k, v in options.items()})


def spatial_dropout():
    import keras

    return keras.layers.SpatialDropout2D


def swapped(net, name, maker):
    return lambda: twins.twin(NETS[net](), swap={name: maker()})


def own(name, change, net="plain"):
    return edited_weights(name, change, net)


OWN, EVAL = {"weights": "own"}, {"mode": "eval"}

# net, model, options of compare, then what must be found: phase, layer, cause
FAULTS = {
    # structure
    "dense where grouped": ("plain", dict(edits={"conv2": {"groups": 1}}), {}, "structure", "conv2", "conv-groups"),
    "missing relu": ("plain", dict(drop=["relu2"]), {}, "structure", "relu2", "activation-missing"),
    "extra tanh": ("plain", dict(after={"pool2": tanh}), {}, "structure", "", "activation-extra"),
    "pool stride": ("plain", dict(edits={"pool2": {"stride": 1}}), {}, "structure", "pool2", "pool-stride"),
    "missing bias": ("plain", dict(edits={"conv1": {"bias": False}}), {}, "structure", "conv1", "bias-missing"),
    "missing batch norm": ("normalised", dict(drop=["bn2"]), {}, "structure", "bn2", "layer-missing"),
    "missing dropout": ("normalised", dict(drop=["drop"]), {}, "structure", "drop", "dropout-missing"),
    # weights
    "flipped kernel": ("plain", own("conv1", flipped), OWN, "weights", "conv1", "kernel-flip"),
    "scaled kernel": ("plain", own("conv2", scaled), OWN, "weights", "conv2", "weights-scaled"),
    "one element": ("plain", own("fc", element), OWN, "weights", "fc", "weights-differ"),
    "another bias": ("plain", own("conv1", lambda w: [w[0], w[1] + 0.1]), OWN, "weights", "conv1", "bias-value"),
    "transposed kernel": ("plain", own("conv2", transposed), OWN, "weights", "conv2", "kernel-hw-transpose"),
    "column-major flatten": ("plain", own("fc", column_major), OWN, "weights", "fc", "flatten-order"),
    "deviation as variance": (
        "normalised",
        own("bn1", lambda w: [*w[:3], np.sqrt(w[3] + 1e-5)], "normalised"),
        OWN,
        "weights",
        "bn1",
        "bn-sigma-as-variance",
    ),
    "gamma and beta swapped": (
        "normalised",
        own("bn2", lambda w: [w[1], w[0], *w[2:]], "normalised"),
        OWN,
        "weights",
        "bn2",
        "bn-gamma-beta-swapped",
    ),
    "no bias": (
        "plain",
        dict(edits={"conv2": {"bias": False}}, weights=True),
        OWN,
        "structure",
        "conv2",
        "bias-missing",
    ),
    # forward
    "leaky slope": ("plain", dict(edits={"relu1": {"leak": 0.2}}), {}, "forward", "relu1", "activation-slope"),
    "small slope": ("plain", dict(edits={"relu1": {"leak": 0.1001}}), {}, "forward", "relu1", "activation-slope"),
    "epsilon": ("normalised", dict(edits={"bn1": {"epsilon": 1e-3}}), {}, "forward", "bn1", "bn-epsilon"),
    "epsilon in eval": ("normalised", dict(edits={"bn2": {"epsilon": 1e-3}}), EVAL, "forward", "bn2", "bn-epsilon"),
    "shifted pad": ("plain", dict(edits={"conv2": {"pad": [1] * 4}}), {}, "forward", "conv2", "padding-asymmetric"),
    "average for max": ("plain", dict(edits={"pool1": {"method": "avg"}}), {}, "forward", "pool1", "pool-method"),
    "whole channels dropped": (
        "normalised",
        swapped("normalised", "drop", spatial_dropout),
        {},
        "forward",
        "drop",
        "dropout-missing",
    ),
    "dropout rate": ("normalised", dict(edits={"drop": {"rate": 0.4}}), {}, "forward", "drop", "dropout-rate"),
    # loss and backward
    "summed loss": ("plain", plain(loss=summed), {}, "loss", "loss", "loss-reduction"),
    "scaled gradient": ("plain", swapped("plain", "conv2", scaled_conv), {}, "backward", "conv2", "unknown"),
    "reversed gradient": (
        "normalised",
        swapped("normalised", "conv2", reversed_conv),
        {},
        "backward",
        "conv2",
        "unknown",
    ),
    "bias without gradient": (
        "plain",
        swapped("plain", "fc", dense_with_stopped_bias),
        {},
        "backward",
        "fc",
        "unknown",
    ),
    "guided relu": ("plain", swapped("plain", "relu2", guided_relu), {}, "backward", "relu2", "unknown"),
    "stopped statistics": (
        "normalised",
        swapped("normalised", "bn2", frozen_statistics),
        {},
        "backward",
        "bn2",
        "unknown",
    ),
    # update
    "learning rate": ("plain", plain(optimizer=lambda: sgd(0.011)), {}, "update", "conv1", "optimizer-learning-rate"),
    "momentum": ("plain", plain(optimizer=lambda: sgd(momentum=0.8)), {}, "update", "conv1", "optimizer-momentum"),
    "nesterov": ("plain", plain(optimizer=lambda: sgd(nesterov=True)), {}, "update", "conv1", "optimizer-nesterov"),
    "adam": ("plain", plain(optimizer=adam), {}, "update", "conv1", "optimizer-kind"),
    "no weight decay": ("plain", dict(decay=None), {}, "update", "conv1", "optimizer-weight-decay-missing"),
    "doubled weight decay": ("plain", dict(decay=0.001), {}, "update", "conv1", "optimizer-weight-decay-missing"),
    "decoupled weight decay": (
        "plain",
        plain(decay=None, optimizer=lambda: sgd(weight_decay=0.0005)),
        {},
        "update",
        "conv1",
        "optimizer-weight-decay-decoupled",
    ),
    "frozen layer": ("plain", lambda: frozen("conv2"), {}, "update", "conv2", "layer-frozen"),
    "bn momentum": ("normalised", dict(edits={"bn1": {"momentum": 0.99}}), {}, "update", "bn1", "bn-momentum"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_where_it_was_born(mats, fault):
    net, spec, options, phase, name, cause = FAULTS[fault]
    model = spec() if callable(spec) else twins.twin(NETS[net](), **spec)
    report = compare(mats, net, model, verify=False, **options)  # the fixes are tried in `test_fixes`
    assert report.verdict == "diverged", explain(report)
    first = report.first_divergence
    assert (first.phase, first.layer) == (phase, name), explain(report)
    assert report.findings[0].cause == cause, explain(report)
    # Keras' `same` with another stride also pads otherwise: that is a second, true cause.
    named = {f.cause for f in report.findings if f.severity == "divergence"} - (
        {"padding-size"} if "pool" in cause else set()
    )
    assert named == {cause}, explain(report)


def test_a_fault_is_confirmed_although_maxima_tie(mats):
    # Behind a rectifier most windows hold several zeros, whose gradient MatConvNet gives to another one.
    model = twins.twin(twins.normalised(), edits={"pool2": {"method": "avg"}})
    report = compare(mats, "normalised", model, verify=False)
    named = [(f.cause, f.layer, f.confirmed) for f in report.findings if f.severity == "divergence"]
    assert named == [("pool-method", "pool2", True)], explain(report)


@pytest.mark.parametrize("pad", [[0, 1, 0, 1], [1, 0, 1, 0]])
def test_same_instead_of_symmetric_pads_on_other_sides(tmp_path, pad):
    # At stride 2 no window reaches the last row of [1 1 1 1]: `same` pads as many cells as one does.
    rng = np.random.default_rng(1)
    layers = [
        twins.conv("conv1", rng, (3, 3, 2, 4), pad=np.ones(4), stride=np.array([2.0, 2])),
        twins.relu("relu1"),
        twins.conv("classifier", rng, (3, 3, 4, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]
    mat = twins.save(tmp_path / "net.mat", layers, (6, 6, 2))
    model = twins.twin(layers, size=(6, 6, 2), edits={"conv1": {"pad": pad}})
    report = parity.compare(ref=mat, keras=model, batch=twins.batch(0, (6, 6, 2)), mode="eval", verify=False)
    if pad == [1, 0, 1, 0]:
        assert report.verdict == "match", explain(report)
        return
    assert (report.first_divergence.phase, report.first_divergence.layer) == ("forward", "conv1"), explain(report)
    assert [(f.cause, f.confirmed) for f in report.findings] == [("padding-asymmetric", True)], explain(report)


def test_one_number_is_not_explained_by_a_factor(mats):
    # A mean over images of one class is the same in any order of the images: the second trial must be another one.
    data = twins.batch()
    loss = "sparse_categorical_crossentropy"  # of logits, which it takes for probabilities
    model = twins.twin(twins.plain(), logits=True, loss=loss)
    batch = {"x": data["x"][:2], "y": np.ones(2, int)}
    report = compare(mats, "plain", model, batch=batch, mode="eval", verify=False)
    assert [f.cause for f in report.findings if f.severity == "divergence"] == ["softmax-missing"], explain(report)


def test_without_labels_the_forward_pass_is_compared(mats):
    report = compare(mats, "plain", twins.twin(twins.plain()), batch={"x": twins.batch()["x"]})
    assert report.verdict == "match", explain(report)
    assert {p.phase for p in report.probes} == {"input", "structure", "weights", "forward"}
    assert any("no labels" in note for note in report.notes)


def test_a_batch_norm_without_a_rate_for_its_moments_is_never_a_pass(tmp_path):
    layers = twins.normalised()
    for found in layers:
        if found["type"] == "bnorm":
            found["learningRate"] = np.array([1.0, 1.0])
    mat = twins.save(tmp_path / "net.mat", layers)
    full = twins.normalised()
    report = parity.compare(ref=mat, keras=twins.twin(full), batch=twins.batch())
    assert report.verdict == "unverified", explain(report)
    assert {p.layer for p in report.probes if p.status == "unverified"} == {"bn1", "bn2"}
    allowed = parity.compare(ref=mat, keras=twins.twin(full), batch=twins.batch(), allow=["unverified:bn*"])
    assert allowed.verdict == "match", explain(allowed)


def test_the_loss_that_matconvnet_itself_shows_is_told_by_version(mats):
    model, start = twins.twin(NETS["plain"]()), "MatConvNet itself shows the loss of loss as "

    def told(**options):
        notes = [n for n in compare(mats, "plain", model, mode="eval", **options).notes if n.startswith(start)]
        assert len(notes) == 1
        return notes[0].removeprefix(start)

    old, new = told(ref_version="beta25"), told(ref_version="head")
    assert old.endswith(" up to beta25 (a sum over 8 images).")
    assert new.endswith(" since 2018.")
    assert float(old.split()[0]) == pytest.approx(8 * float(new.split()[0]), rel=1e-4)
    assert told() == f"{old[:-1]}, and as {new}"


def test_a_live_model_that_was_saved_as_hdf5_is_still_itself(tmp_path):
    """Keras 3 takes the optimizer out of what it tells of the compilation, once it has saved a model as HDF5."""
    model = twins.twin(NETS["plain"]())
    model.save(tmp_path / "model.h5")
    report = parity.compare(ref=model, keras=model, batch=twins.batch())
    assert report.verdict == "match", explain(report)
