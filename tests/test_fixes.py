"""Fixes are tried: planted faults whose changes undo them, changes that do not, and several faults at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import parity
from parity.batch import load
from parity.changes import Change
from parity.fixes import fixable, prepared, verified
from parity.frameworks.keras.runner import KerasRunner
from tests import twins, twins_dag
from tests.test_verdicts import NETS, edited_weights, explain, frozen, mats, optimizer, own, sgd, summed, tanh  # noqa: F401


def repaired(mat, model, fixes, batch=None, **options):
    """What `verified` makes of a comparison whose findings of these causes have these changes; None: their own."""
    batch = load(batch or twins.batch())
    key = "x_keras" if "x_keras" in batch.arrays else "x"
    runner = KerasRunner(model, {"input": batch.arrays[key][:2]})
    weights = runner.params()
    options = {**options, "verify": False}  # it is tried here
    report = parity.compare(ref=mat, keras=runner, batch=batch, **options)
    if fixes is not None:
        missing = set(fixes) - {f.cause for f in report.findings}
        assert not missing, (missing, explain(report))
        findings = tuple(replace(f, changes=tuple(fixes.get(f.cause, ()))) for f in report.findings)
        report = replace(report, findings=findings)

    def rerun(keras, batch):
        return parity.compare(ref=mat, keras=keras, batch=batch, **options)

    return verified(report, runner, weights, batch, rerun)


def argument(layer, **values):
    return Change("argument", layer, values)


def insert(layer, class_name, **config):
    return Change("insert", layer, {"class_name": class_name, "config": config})


def value_of(net, name, role):
    """The reference's value of a parameter, in the Keras layout."""
    model = twins.twin(NETS[net](), weights=True)
    found = next(layer for layer in twins._leaves(model) if layer.name == name)
    names = [v.path.rsplit("/", 1)[-1] for v in found.weights]
    return np.array(found.get_weights()[names.index(role)])


def trained(net):
    """(layer, role) of every parameter that the gradient moves."""
    for layer in NETS[net]():
        roles = {"conv": ("kernel", "bias"), "bnorm": ("gamma", "beta")}.get(layer["type"], ())
        for role in roles:
            yield layer["name"], role


def decays(net, penalty=twins.DECAY / 2):
    return [Change("regularize", name, {"role": role, "l2": penalty}) for name, role in trained(net)]


def conv2_in_place(swap):
    import keras

    return {"swap": {"conv2": swap(keras)}}


OWN, EVAL = {"weights": "own"}, {"mode": "eval"}

# net, model, options of compare, then cause → the changes that undo it
FAULTS = {
    "epsilon": (
        "normalised",
        dict(edits={"bn1": {"epsilon": 1e-3}}),
        {},
        {"bn-epsilon": [argument("bn1", epsilon=1e-5)]},
    ),
    "epsilon in eval": (
        "normalised",
        dict(edits={"bn2": {"epsilon": 1e-3}}),
        EVAL,
        {"bn-epsilon": [argument("bn2", epsilon=1e-5)]},
    ),
    "missing relu": ("plain", dict(drop=["relu2"]), {}, {"activation-missing": [insert("conv2", "ReLU")]}),
    "extra tanh": ("plain", dict(after={"pool2": tanh}), {}, {"activation-extra": [Change("remove", "activation")]}),
    "wrong pool pad": (
        "plain",
        dict(edits={"pool2": {"pad": np.zeros(4)}}),
        {},
        {"pool-ceil": [argument("pool2", padding=[0, 1, 0, 1])]},
    ),
    "shifted pad": (
        "plain",
        dict(edits={"conv2": {"pad": [1] * 4}}),
        {},
        {"padding-asymmetric": [argument("conv2", padding=[2, 0, 2, 0])]},
    ),
    "average for max": (
        "plain",
        dict(edits={"pool1": {"method": "avg"}}),
        {},
        {
            "pool-method": [
                Change("replace", "pool1", {"class_name": "MaxPooling2D", "config": {"pool_size": 2, "strides": 2}})
            ]
        },
    ),
    "groups": ("plain", dict(edits={"conv2": {"groups": 1}}), {}, {"conv-groups": [argument("conv2", groups=2)]}),
    "missing bias": (
        "plain",
        dict(edits={"conv1": {"bias": False}}),
        {},
        {
            "bias-missing": [
                argument("conv1", use_bias=True),
                Change("regularize", "conv1", {"role": "bias", "l2": twins.DECAY / 2}),
            ]
        },
    ),
    "missing batch norm": (
        "normalised",
        dict(drop=["bn2"]),
        {},
        {
            "layer-missing": [
                insert("conv2", "BatchNormalization", name="bn2", epsilon=1e-5, momentum=0.9),
                *(Change("regularize", "bn2", {"role": role, "l2": twins.DECAY / 2}) for role in ("gamma", "beta")),
            ]
        },
    ),
    "slope": (
        "plain",
        dict(edits={"relu1": {"leak": 0.2}}),
        {},
        {"activation-slope": [argument("relu1", negative_slope=0.1)]},
    ),
    "dropout rate": (
        "normalised",
        dict(edits={"drop": {"rate": 0.4}}),
        {},
        {"dropout-rate": [argument("drop", rate=0.3)]},
    ),
    "probabilities of logits": (
        "plain",
        lambda: logits_as_probabilities(),
        {},
        {"softmax-missing": [Change("loss", values={"config": {"from_logits": True}})]},
    ),
    "summed loss": (
        "plain",
        lambda: twins.twin(twins.plain(), loss=summed()),
        {},
        {"loss-reduction": [Change("loss", values={"config": {"reduction": "sum_over_batch_size"}})]},
    ),
    "flipped kernel": (
        "plain",
        own("conv1", lambda w: [w[0][::-1, ::-1], w[1]]),
        OWN,
        {
            "kernel-flip": lambda: [
                Change("weights", "conv1", {"role": "kernel", "value": value_of("plain", "conv1", "kernel")})
            ]
        },
    ),
    "learning rate": (
        "plain",
        lambda: twins.twin(twins.plain(), optimizer=sgd(0.011)),
        {},
        {"optimizer-learning-rate": [Change("optimizer", values={"learning_rate": 0.01})]},
    ),
    "adam": (
        "plain",
        lambda: twins.twin(twins.plain(), optimizer=optimizer("Adam", learning_rate=0.01)),
        {},
        {
            "optimizer-kind": [
                Change("optimizer", values={"class_name": "SGD", "config": {"learning_rate": 0.01, "momentum": 0.9}})
            ]
        },
    ),
    "no weight decay": ("plain", dict(decay=None), {}, {"optimizer-weight-decay-missing": decays("plain")}),
    "decay beside the momentum": (
        "plain",
        lambda: twins.twin(twins.plain(), decay=None, optimizer=sgd(weight_decay=twins.DECAY)),
        {},
        {"optimizer-weight-decay-decoupled": [Change("optimizer", values={"weight_decay": None}), *decays("plain")]},
    ),
    "frozen layer": (
        "plain",
        lambda: frozen("conv2"),
        {},
        {"layer-frozen": [Change("trainable", "conv2", {"trainable": True})]},
    ),
    "moments": (
        "normalised",
        dict(edits={"bn1": {"momentum": 0.99}}),
        {},
        {"bn-momentum": [argument("bn1", momentum=0.95)]},
    ),
}


def logits_as_probabilities():
    import keras

    return twins.twin(twins.plain(), logits=True, loss=keras.losses.SparseCategoricalCrossentropy())


RECIPE = [fault for fault in FAULTS if any(cause.startswith("optimizer") for cause in FAULTS[fault][3])]


@pytest.mark.parametrize("fault", [*RECIPE, "groups", "extra tanh", "moments"])
def test_a_fix_that_undoes_its_fault_is_verified(mats, fault):  # noqa: F811
    net, spec, options, fixes = FAULTS[fault]
    model = spec() if callable(spec) else twins.twin(NETS[net](), **spec)
    fixes = {cause: made() if callable(made) else made for cause, made in fixes.items()}
    found = repaired(mats[net], model, fixes, **options)
    assert found.after is not None, found.left
    assert not found.left
    assert found.after.verdict == "match", explain(found.after)
    assert {f.cause for f in found.before.findings if f.fix_verified} == set(fixes)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in RECIPE])
def test_what_a_report_proposes_undoes_the_fault_and_proves_its_cause(mats, fault):  # noqa: F811
    net, spec, options, fixes = FAULTS[fault]
    model = spec() if callable(spec) else twins.twin(NETS[net](), **spec)
    found = repaired(mats[net], model, None, **options)
    assert found.after is not None, found.left
    assert not found.left
    assert found.after.verdict == "match", explain(found.after)
    named = [f for f in found.before.findings if f.severity == "divergence"]
    assert {f.cause for f in named} == set(fixes)
    assert all(f.fix_verified and f.confirmed and f.fix for f in named)


def bench_case(name):
    """A case of the fault benchmark, compared, its fixes tried."""
    import zlib

    from bench.faults.cases import cases
    from bench.faults.run import compare

    case = next(case for case in cases(0) if case.id == name)
    return compare(case.scene(np.random.default_rng([0, zlib.crc32(name.encode())])))


@pytest.mark.parametrize(
    ("name", "layers", "line"),
    [
        ("layer-missing/skip connection@residual", {"conv3p", "bn3p", "sum3"}, 'Add(name="sum3") on [bn3p, bn3b]'),
        ("layer-missing/scale@inception", {"scale"}, "DepthwiseConv2D(kernel_size=1"),
        ("layer-missing/bnorm@normalised", {"bn1"}, "gamma_regularizer=keras.regularizers.L2(0.00025)"),
        ("layer-order/relu before bnorm@normalised", {"relu1"}, "behind front/bn1"),
        ("layer-order/pool before lrn@alex", {"norm1"}, "behind front/relu1"),
        ("layer-extra/dropout@lenet", {""}, "remove extra_dropout"),
        ("channel-order/groups@alex", {"conv2"}, "in the order 2 1"),
        (
            "pool-method/max and avg@alex",
            {"pool2"},
            'AveragePooling2D(pool_size=(3, 3), strides=(2, 2), padding="same")',
        ),
        ("input-mean/an image@inception", {"input"}, "average_image"),
    ],
)
def test_structure_that_differs_is_mended_on_a_copy(name, layers, line):
    report = bench_case(name)
    named = [f for f in report.findings if f.severity == "divergence"]
    assert {f.layer for f in named} == layers
    assert {f.cause for f in named} == {name.split("/")[0]}
    assert all(f.confirmed and f.fix_verified for f in named)
    assert line in "; ".join(f.fix for f in named)


@pytest.mark.parametrize(
    ("crop", "behind"), [((1, 1, 1, 1), 'padding="same"'), ((0, 2, 2, 0), "Cropping2D(cropping=((0, 2), (2, 0)))")]
)
def test_an_upsampling_in_place_of_a_transposed_convolution_is_told_at_it_and_mended(tmp_path, crop, behind):
    import keras

    dag = twins_dag.Dag(0, {"data": (12, 12, 3)})
    x = dag.pool("pool", dag.relu("relu", dag.conv("conv", "data", (3, 3, 3, 8), pad=(1, 1, 1, 1))), "max", 2, 2)
    x = dag.convt("up", dag.conv("score", x, (1, 1, 8, 5)), (4, 4, 5, 5), upsample=2, crop=crop)
    dag.labelled = (12, 12)
    dag.loss("loss", x, "objective")
    path = twins_dag.save(tmp_path / "net.mat", dag)
    model = twins_dag.twin(dag)
    assert parity.compare(path, model, twins_dag.batch(dag)).verdict == "match"
    score = model.get_layer("score").output
    wrong = keras.Model(model.inputs, keras.layers.UpSampling2D(2, interpolation="bilinear", name="enlarged")(score))
    wrong.compile(keras.optimizers.SGD(twins_dag.RATE, momentum=twins_dag.MOMENTUM), model.loss, loss_weights=[144.0])
    report = parity.compare(path, wrong, twins_dag.batch(dag))
    found = [finding for finding in report.findings if finding.severity == "divergence"]
    assert [(f.cause, f.layer, f.keras_layer) for f in found] == [
        ("layer-missing", "up", ""),
        ("layer-extra", "", "enlarged"),
    ]
    assert all(finding.confirmed and finding.fix_verified for finding in found)
    assert "add Conv2DTranspose(" in found[0].fix
    assert behind in found[0].fix
    assert "Keras has UpSampling2D enlarged behind score" in found[1].evidence
    assert report.first_divergence is not None
    assert report.first_divergence.layer == "up"


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        ([1, 1, 1, 1], 'conv1: Conv2D(…, padding="same") without conv1_pad before it'),
        (
            [2, 0, 2, 0],
            'conv1: Conv2D(…, padding="valid") behind ZeroPadding2D(((2, 0), (2, 0))) in place of conv1_pad',
        ),
        ([0, 0, 0, 0], 'conv1: Conv2D(…, padding="valid") without conv1_pad before it'),
    ],
)
def test_the_line_of_a_padding_says_what_becomes_of_the_one_that_is_there(tmp_path, cells, line):
    dag = twins_dag.Dag(0, {"data": (8, 8, 3)})
    x = dag.relu("relu", dag.conv("conv1", "data", (3, 3, 3, 6), pad=cells))
    dag.loss("loss", dag.conv("top", dag.pool("pool", x, "avg", 6 + sum(cells[:2]), 1), (1, 1, 6, 5)), "objective")
    model = twins_dag.twin(dag, edits={"conv1": {"pad": np.array([0.0, 2, 0, 2])}})
    report = parity.compare(twins_dag.save(tmp_path / "net.mat", dag), model, twins_dag.batch(dag))
    found = next(finding for finding in report.findings if finding.layer == "conv1")
    assert (found.fix, found.fix_verified) == (line, True)


def divergences(name):
    """The findings of a case of the fault benchmark that are no notes."""
    return [finding for finding in bench_case(name).findings if finding.severity == "divergence"]


def test_a_layer_that_keras_lacks_is_told_as_code_and_tried_as_a_layer_of_paritys_own():
    (found,) = divergences("layer-missing/lrn@alex")
    assert found.cause == "layer-missing"
    assert found.confirmed
    assert found.fix_verified
    assert "tf.nn.local_response_normalization(x, depth_radius=2" in found.fix


@pytest.mark.parametrize("name", ["mixed_float16@lenet", "mixed_bfloat16@residual"])
def test_one_policy_of_low_precision_is_one_finding(name):
    (found,) = divergences(f"dtype-low-precision/{name}")
    assert (found.cause, found.layer, found.confirmed, found.fix_verified) == (
        "dtype-low-precision",
        "conv1",
        True,
        True,
    )
    assert "and 2 more" in found.evidence or "and 15 more" in found.evidence
    assert 'every layer: dtype="float32"' in found.fix


def test_a_batch_that_the_reference_normalises_in_parts_is_named(tmp_path):
    recipe = tmp_path / "recipe.toml"
    mat = twins.save(tmp_path / "net.mat", twins.normalised())
    for parts, causes in ((2, {"bn-mode"}), (1, set())):
        recipe.write_text(f"sub_batches = {parts}\n")
        model = twins.twin(twins.normalised())
        report = parity.compare(ref=mat, keras=model, batch=twins.batch(), ref_recipe=recipe)
        assert {f.cause for f in report.findings if f.severity == "divergence"} == causes
        named = [f for f in report.findings if f.severity == "divergence"]
        assert all(f.confirmed and f"of the {parts} parts" in f.evidence for f in named)


def test_parts_do_not_hide_another_fault_of_a_batch_normalisation(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("sub_batches = 2\n")
    mat = twins.save(tmp_path / "net.mat", twins.normalised())
    model = twins.twin(twins.normalised(), edits={"bn1": {"epsilon": 1e-1}})
    report = parity.compare(ref=mat, keras=model, batch=twins.batch(), ref_recipe=recipe)
    at = {f.layer: f.cause for f in report.findings if f.severity == "divergence"}
    assert at == {"bn1": "bn-epsilon", "bn2": "bn-mode"}


def test_a_mean_that_repeats_the_border_is_named_and_one_that_counts_zeros_is_not_taken_for_it(mats):  # noqa: F811
    import keras

    class Repeating(keras.layers.AveragePooling2D):
        def call(self, inputs):
            edge = keras.ops.concatenate([inputs, inputs[:, -1:]], axis=1)
            edge = keras.ops.concatenate([edge, edge[:, :, -1:]], axis=2)
            return keras.ops.average_pool(edge, self.pool_size, self.strides, "valid")

    class Counting(keras.layers.AveragePooling2D):
        def call(self, inputs):
            padded = keras.ops.pad(inputs, [[0, 0], [0, 1], [0, 1], [0, 0]])
            return keras.ops.average_pool(padded, self.pool_size, self.strides, "valid")

    def found(own):
        model = twins.twin(twins.plain(), swap={"pool2": lambda *_, **__: own(3, strides=2, padding="same")})
        report = parity.compare(ref=mats["plain"], keras=model, batch=twins.batch())
        (one,) = [f for f in report.findings if f.severity == "divergence"]
        assert (one.cause, one.layer, one.confirmed) == ("pool-avg-count-pad", "pool2", True)
        return one.evidence

    assert "repeats the border" in found(Repeating)
    assert "repeats the border" not in found(Counting)


def test_multipliers_and_their_decay(tmp_path):
    layers = twins.plain()
    for layer in layers:
        if layer["type"] == "conv":
            layer |= {"learningRate": np.array([1.0, 2.0]), "weightDecay": np.array([1.0, 0.0])}
    mat = twins.save(tmp_path / "net.mat", layers)
    biases = [name for name, role in trained("plain") if role == "bias"]
    fixes = {
        "optimizer-lr-multiplier": [Change("rate", name, {"role": "bias", "factor": 2.0}) for name in biases],
        "optimizer-weight-decay-missing": [Change("regularize", name, {"role": "bias", "l2": 0}) for name in biases],
    }
    found = repaired(mat, twins.twin(twins.plain()), fixes)
    assert found.after is not None
    assert found.after.verdict == "match", explain(found.after)
    assert all(f.fix_verified for f in found.before.findings if f.severity == "divergence")


def test_a_fix_that_changes_nothing_is_not_verified(mats):  # noqa: F811
    model = twins.twin(twins.normalised(), edits={"bn1": {"epsilon": 1e-3}})
    found = repaired(mats["normalised"], model, {"bn-epsilon": [argument("bn1", epsilon=2e-3)]})
    assert not any(f.fix_verified for f in found.before.findings)
    assert found.after is not None
    assert found.after.verdict == "diverged"


def test_a_fix_that_breaks_something_else_is_not_verified(mats):  # noqa: F811
    model = twins.twin(twins.normalised(), edits={"bn1": {"epsilon": 1e-3}})
    changes = [argument("bn1", epsilon=1e-5), argument("bn2", epsilon=1e-3)]
    found = repaired(mats["normalised"], model, {"bn-epsilon": changes})
    assert not any(f.fix_verified for f in found.before.findings)


def test_of_two_fixes_the_good_one_is_told_from_the_bad_one(mats):  # noqa: F811
    model = twins.twin(twins.plain(), edits={"relu1": {"leak": 0.2}}, drop=["relu2"])
    good = {
        "activation-missing": [insert("conv2", "ReLU")],
        "activation-slope": [argument("relu1", negative_slope=0.3)],
    }
    found = repaired(mats["plain"], model, good)
    assert [f.cause for f in found.before.findings if f.fix_verified] == ["activation-missing"]
    assert [change.action for change, _ in found.done] == ["insert"]
    assert [change.layer for change, _ in found.left] == ["relu1"]


def test_independent_faults_are_all_fixed_in_one_copy(mats):  # noqa: F811
    model = twins.twin(
        twins.plain(), edits={"relu1": {"leak": 0.2}, "conv2": {"groups": 1}}, optimizer=sgd(0.02), decay=None
    )
    fixes = {
        "conv-groups": [argument("conv2", groups=2)],
        "activation-slope": [argument("relu1", negative_slope=0.1)],
        "optimizer-learning-rate": [Change("optimizer", values={"learning_rate": 0.01})],
        "optimizer-weight-decay-missing": decays("plain"),
    }
    found = repaired(mats["plain"], model, fixes)
    assert found.after is not None
    assert found.after.verdict == "match", explain(found.after)
    assert {f.cause for f in found.before.findings if f.fix_verified} == set(fixes)


def test_the_model_keeps_its_weights_and_the_copy_has_them_too(mats):  # noqa: F811
    model = twins.twin(twins.plain(), edits={"conv2": {"groups": 1}})
    before = model.get_weights()
    found = repaired(mats["plain"], model, {"conv-groups": [argument("conv2", groups=2)]})
    for was, held in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(held, was)
    copy = found.runner.model
    assert copy is not model
    np.testing.assert_array_equal(copy.get_layer("conv1").get_weights()[0], before[0])
    expected = next(layer for layer in twins.plain() if layer["name"] == "conv2")["weights"][0]
    np.testing.assert_array_equal(copy.get_layer("conv2").get_weights()[0], expected)


def test_inputs_and_labels_that_were_prepared_otherwise(mats):  # noqa: F811
    images = twins.batch()
    batch = {"x_ref": images["x"], "x_keras": images["x"][..., ::-1] / 2 + 1, "y": images["y"]}
    change = Change(
        "input", values={"code": "(x - 1)[..., ::-1] * 2", "reverse_channels": True, "scale": 2.0, "offset": -2.0}
    )
    found = prepared(load(batch), [change])
    np.testing.assert_allclose(found.arrays["x_keras"], images["x"], atol=1e-6)
    shifted = prepared(
        load({"x": images["x"], "y_ref": images["y"], "y_keras": images["y"] + 1}),
        [Change("labels", values={"shift": -1})],
    )
    np.testing.assert_array_equal(shifted.arrays["y_keras"], images["y"])
    plain = prepared(load(images), [Change("input", values={"scale": 2.0})])
    assert set(plain.arrays) == {"x_ref", "x_keras", "y"}
    np.testing.assert_array_equal(plain.arrays["x_keras"], plain.arrays["x_ref"] * 2)


@pytest.mark.parametrize(
    ("made", "causes"),
    [
        ({"x_keras": lambda x: x[..., ::-1]}, {"input-channel-order"}),
        ({"x_keras": lambda x: x * 255}, {"input-scale"}),
        ({"x_keras": lambda x: x * 64 + np.array([100, 110, 120])}, {"input-mean", "input-scale"}),
        ({"y_keras": lambda y: (y + 1) % 4}, {"label-offset"}),
    ],
)
def test_a_batch_that_one_side_prepared_otherwise_is_fixed_as_the_report_says(mats, made, causes):  # noqa: F811
    images = twins.batch()
    batch = {}
    for letter in "xy":
        change = made.get(f"{letter}_keras")
        given = {letter: images[letter]}
        if change:
            given = {
                f"{letter}_ref": images[letter],
                f"{letter}_keras": change(images[letter]).astype(images[letter].dtype),
            }
        batch |= given
    found = repaired(mats["plain"], twins.twin(twins.plain()), None, batch=batch)
    assert found.after is not None, found.left
    assert found.after.verdict == "match", explain(found.after)
    assert {f.cause for f in found.before.findings if f.fix_verified} == causes


def test_nothing_is_tried_where_nothing_can_be(mats):  # noqa: F811
    model = twins.twin(twins.plain(), edits={"relu1": {"leak": 0.2}})
    report = parity.compare(ref=mats["plain"], keras=model, batch=twins.batch())
    report = replace(report, findings=tuple(replace(f, changes=()) for f in report.findings))
    assert not fixable(report)
