"""Recipe files: what they may say, one line that names the key for what they may not, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity.errors import BadFile
from parity.frameworks.matconvnet.lift import lift_data
from parity.frameworks.matconvnet.recipe import Overrides, read_recipe
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.frameworks.matconvnet.subbatches import pieces
from parity.optimizers import SGD, Adam, RMSprop
from tests import twins
from tests.frameworks.matconvnet.test_lift import LOSS, bnorm, conv, net


def parsed(tmp_path: Path, text: str) -> Overrides:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


WHOLE = """
solver = "adam"
learning_rate = [0.01, 0.001]
momentum = 0.8
weight_decay = 0
batch_size = 32
nesterov = true
sub_batches = 4
epochs = 20
epoch = 2
version = "beta25"
[solver_options]
beta1 = 0.95
eps = 1e-6
[der_outputs]
objective = 1
aux = 0.3
"""


def test_every_key(tmp_path: Path) -> None:
    found = parsed(tmp_path, WHOLE)
    assert dict(found.options) == {
        "solver": "adam",
        "learningRate": [0.01, 0.001],
        "momentum": 0.8,
        "weightDecay": 0.0,
        "batchSize": 32,
        "nesterovUpdate": True,
        "numSubBatches": 4,
        "numEpochs": 20,
        "solverOpts": {"beta1": 0.95, "eps": 1e-6},
        "derOutputs": {"objective": 1.0, "aux": 0.3},
    }
    assert (found.epoch, found.version) == (2, "beta25")


def test_the_spelling_of_matconvnet(tmp_path: Path) -> None:
    text = """
learningRate = 0.5
weightDecay = 0.1
batchSize = 2
numSubBatches = 2
numEpochs = 3
nesterovUpdate = false
solver = "@solver.rmsprop"
solverOpts = {rho = 0.5}
derOutputs = ["objective", 1]
"""
    other = """
learning_rate = 0.5
weight_decay = 0.1
batch_size = 2
sub_batches = 2
epochs = 3
nesterov = false
solver = "rmsprop"
solver_options = {rho = 0.5}
der_outputs = {objective = 1}
"""
    assert parsed(tmp_path, text).options == parsed(tmp_path, other).options


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("speed = 3", "no key 'speed'"),
        ("learning_rat = 3", "did you mean 'learning_rate'"),
        ("learning_rate = 'fast'", "learning_rate must be a number, not 'fast'"),
        ("learning_rate = -1", "learning_rate must be at least 0"),
        ("learning_rate = nan", "learning_rate must be at least 0 and finite"),
        ("learning_rate = []", "learning_rate is an empty list"),
        ("learning_rate = [0.1, true]", "learning_rate must be a number, not True"),
        ("learning_rate = 0.1\nlearningRate = 0.2", "'learningRate' is given twice"),
        ("momentum = inf", "momentum must be"),
        ("weight_decay = 'none'", "weight_decay must be a number"),
        ("batch_size = 2.5", "batch_size must be a whole number from 1, not 2.5"),
        ("sub_batches = 0", "sub_batches must be a whole number from 1, not 0"),
        ("epoch = 0", "epoch must be a whole number"),
        ("nesterov = 1", "nesterov must be true or false, not 1"),
        ("solver = 'adamw'", "solver must be one of sgd, momentum, adagrad, rmsprop, adadelta, adam, not 'adamw'"),
        ("solver = 3", "solver must be one of"),
        ("solver = 'adam'\nsolver_options = {rho = 1}", "solver_options.rho is not an option of adam (it has beta1"),
        ("solver = 'sgd'\nsolver_options = {rho = 1}", "solver_options.rho is not an option of sgd"),
        ("solver = 'adam'\nsolver_options = {beta1 = 'x'}", "solver_options must hold numbers; beta1"),
        ("solver_options = {beta1 = 0.9}", "but no solver"),
        ("solver = 'adam'\nsolver_options = 3", "solver_options must be a table"),
        ("der_outputs = {}", "der_outputs names nothing"),
        ("der_outputs = {a = 'b'}", "der_outputs must hold numbers; a"),
        ("der_outputs = [1, 2]", "der_outputs must be a table"),
        ("version = 'beta24'", "version must be one of beta25, head, not 'beta24'"),
        ("learning_rate =", "is not TOML"),
        ("a = " + "[" * 3000, "is not TOML"),
    ],
)
def test_what_is_wrong_has_its_key_in_the_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadFile) as caught:
        parsed(tmp_path, text)
    line = str(caught.value)
    assert says in line
    assert line.startswith(str(tmp_path / "recipe.toml"))
    assert "\n" not in line


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="no such file"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(BadFile, match="cannot be read"):
        read_recipe(tmp_path)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadFile, match="it is not text"):
        read_recipe(tmp_path / "x.toml")


def test_it_takes_precedence_over_the_network(tmp_path: Path) -> None:
    options = {"learningRate": np.array([[0.3]]), "momentum": np.array([[0.7]]), "batchSize": np.array([[16.0]])}
    data = net(conv(3, 3, 3, 2), LOSS, trainOpts=options)
    own = parsed(tmp_path, "learning_rate = [0.1, 0.2, 0.4]\nepoch = 3\nweight_decay = 0.25\nnesterov = true")
    _, recipe = lift_data(data, "x", recipe=own)
    assert recipe.optimizer == SGD(0.7, nesterov=True)
    assert (recipe.learning_rate.values, recipe.learning_rate.first) == ((0.1, 0.2, 0.4), 0.4)
    assert (recipe.weight_decay, recipe.batch_size, recipe.defaults) == (0.25, 16, {"epochs"})
    assert recipe.origin == f"{own.path}, then meta.trainOpts"
    _, recipe = lift_data(data, "x", recipe=parsed(tmp_path, "solver = 'adam'\nsolver_options = {eps = 0.5}"))
    assert recipe.optimizer == Adam(epsilon=0.5)
    _, recipe = lift_data(data, "x", recipe=parsed(tmp_path, "solver = 'rmsprop'"))
    assert recipe.optimizer == RMSprop()
    _, recipe = lift_data(data, "x", recipe=parsed(tmp_path, "epoch = 9"))
    assert recipe.learning_rate.first == 0.3
    with pytest.raises(BadFile, match="one loss only"):
        lift_data(data, "x", recipe=parsed(tmp_path, "der_outputs = {objective = 1}"))


def test_the_epoch_of_a_checkpoint_chooses_the_rate(tmp_path: Path) -> None:
    options = {"learningRate": np.array([[0.3, 0.2, 0.1]])}
    data: dict[str, Any] = {"net": net(conv(3, 3, 3, 2), LOSS, trainOpts=options)}
    rates = []
    for done in range(5):
        data["stats"] = {"train": [{}] * done}
        rates.append(lift_data(data, "x")[1].learning_rate.first)
    assert rates == [0.3, 0.2, 0.1, 0.1, 0.1]
    assert lift_data(data, "x", recipe=parsed(tmp_path, "epoch = 2"))[1].learning_rate.first == 0.2


def test_a_state_of_another_solver_is_not_taken(tmp_path: Path) -> None:
    momenta = [[np.ones((3, 3, 3, 2)), np.ones((1, 2))], []]
    data = {"net": net(conv(3, 3, 3, 2), LOSS), "state": {"solverState": momenta}}
    assert set(lift_data(data, "x")[1].slots) == {"layer1.kernel", "layer1.bias"}
    _, recipe = lift_data(data, "x", recipe=parsed(tmp_path, "solver = 'adam'"))
    assert not recipe.slots
    assert any("not of Adam" in note for note in recipe.notes)


# -------------------------------------------------------------------------------------------------------- sub-batches


def test_the_images_of_sub_batches() -> None:
    assert [(p.images, p.factor) for p in pieces(5, 1, "head")] == [(slice(None), 1.0)]
    head, beta = pieces(5, 2, "head"), pieces(5, 2, "beta25")
    assert [list(range(5))[p.images] for p in head] == [[0, 2, 4], [1, 3]]
    assert [p.factor for p in head] == [0.5, 0.5]
    assert [p.factor for p in beta] == [0.6, 0.4]
    assert [list(range(2))[p.images] for p in pieces(2, 3, "head")] == [[0], [1]]


def runner_of(layers: list[Any], options: dict[str, Any], version: str = "") -> MatConvNetRunner:
    data = net(*layers, size=(6, 6, 3))
    return MatConvNetRunner(*lift_data(data, "x", recipe=Overrides("r", options, None, version)))


@pytest.mark.parametrize("version", ["head", "beta25"])
@pytest.mark.parametrize("images", [6, 7])
def test_sub_batches_add_up(images: int, version: str) -> None:
    """Of equal size they come to the whole batch; of unequal size only up to beta25 (no batch normalisation here)."""
    layers = [conv(6, 6, 3, 4), LOSS]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(images, 6, 6, 3)).astype(np.float32), rng.integers(0, 4, images)
    whole = runner_of(layers, {}, version).run({"input": x}, y)
    parts = runner_of(layers, {"numSubBatches": 2}, version).run({"input": x}, y)
    np.testing.assert_allclose(parts.outputs["layer1"], whole.outputs["layer1"], rtol=1e-6)
    alike = images == 6 or version == "beta25"
    for id_, gradient in whole.param_grads.items():
        assert np.allclose(parts.param_grads[id_], gradient, rtol=1e-4, atol=1e-6) == alike
    assert np.isclose(parts.loss, whole.loss, rtol=1e-5) == alike
    each = [runner_of(layers, {}).run({"input": x[s::2]}, y[s::2]) for s in (0, 1)]
    if version == "head":
        assert parts.loss == pytest.approx((each[0].loss + each[1].loss) / 2, rel=1e-6)


def test_sub_batches_have_their_own_moments() -> None:
    """Each is normalised by itself, forward and backward; the running moments take the mean of theirs."""
    layers = [bnorm(3, learningRate=np.array([[1.0, 1.0, 0.25]])), conv(6, 6, 3, 4), LOSS]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 6, 6, 3)).astype(np.float32), rng.integers(0, 4, 6)
    runner = runner_of(layers, {"numSubBatches": 3})
    found = runner.run({"input": x}, y)
    each = [runner_of(layers, {}).run({"input": x[s::3]}, y[s::3]) for s in range(3)]
    for s, one in enumerate(each):
        np.testing.assert_array_equal(found.outputs["layer1"][s::3], one.outputs["layer1"])
        np.testing.assert_allclose(found.output_grads["layer1"][s::3], one.output_grads["layer1"] / 3, rtol=1e-5)
    mean = np.mean([one.param_grads["layer1.gamma"] for one in each], axis=0)
    np.testing.assert_allclose(found.param_grads["layer1.gamma"], mean, rtol=1e-4, atol=1e-7)
    alone = runner.isolate(["layer1"], {"input": x}, upstream={"layer1": found.output_grads["layer1"]})
    np.testing.assert_array_equal(alone.outputs["layer1"], found.outputs["layer1"])
    np.testing.assert_allclose(alone.param_grads["layer1.gamma"], found.param_grads["layer1.gamma"], rtol=1e-5)
    runner.update(found.param_grads, found.statistics)
    sigma = np.mean([np.sqrt(one.statistics["layer1"]["variance"] + 1e-5) for one in each], axis=0)
    np.testing.assert_allclose(runner.params()["layer1.deviation"], 0.25 * sigma, rtol=1e-5)
    assert any("3 parts" in note for note in runner.recipe.notes)
    held = runner.run({"input": x}, y, mode="eval", backward=False)
    assert held.outputs["layer1"].shape == x.shape


def test_what_matconvnet_shows_by_version() -> None:
    layers = [conv(6, 6, 3, 4), LOSS]
    x, y = np.ones((5, 6, 6, 3), np.float32), np.array([0, 1, 2, 3, 0])
    means = {v: runner_of(layers, {}, v) for v in ("", "head", "beta25")}
    shown = {v: runner.raw_loss(runner.run({"input": x}, y), 5)["layer2"] for v, runner in means.items()}
    assert shown["head"] == shown[""]
    assert shown["beta25"] == pytest.approx(5 * shown["head"])
    assert means[""].version == "head"
    beta = means["beta25"]
    seen = beta.run({"input": x}, y)
    old, new = f"{shown['beta25']:.6g} up to beta25 (a sum over 5 images)", f"{shown['head']:.6g} since 2018"
    what = "MatConvNet itself shows the loss of layer2 as"
    assert beta.raw_remark(seen, 5) == f"{what} {old}."
    assert means["head"].raw_remark(seen, 5) == f"{what} {new}."
    assert means[""].raw_remark(seen, 5) == f"{what} {old}, and as {new}."
    assert beta.raw_remark(beta.run({"input": x}, None), 5) == ""


def test_a_rate_and_a_decay_of_nothing_leave_a_weight_where_it_is() -> None:
    """With a decay but no rate its momentum moves (cnn_train.m: `thisLR>0 || thisDecay>0`)."""
    still = conv(6, 6, 3, 4, learningRate=np.array([[0.0, 0.0]]), weightDecay=np.array([[1.0, 0.0]]))
    runner = runner_of([still, LOSS], {})
    runner.reset()
    before = runner.params()
    found = runner.run({"input": np.ones((2, 6, 6, 3), np.float32)}, np.array([0, 1]))
    runner.update(found.param_grads, {})
    for id_, value in runner.params().items():
        np.testing.assert_array_equal(value, before[id_])
    assert set(runner._updater.slots) == {"layer1.kernel"}


def test_a_recipe_file_on_a_whole_file(tmp_path: Path) -> None:
    path = twins.save(tmp_path / "net.mat", twins.plain())
    runner = MatConvNetRunner.open(path, recipe=parsed(tmp_path, WHOLE.split("[der_outputs]")[0]))
    assert runner.recipe.optimizer == Adam(0.95, 0.999, 1e-6)
    assert (runner.recipe.sub_batches, runner.version) == (4, "beta25")


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1, 5), (1, 1, 1, 5), (2, 2)])
def test_weights_of_single_images_in_the_file_are_refused(shape: tuple[int, ...]) -> None:
    """MatConvNet stops on all of them but the fourth, which fits one batch only."""
    weighed = {**LOSS, "type": "pdist", "p": 2.0, "instanceWeights": np.arange(1.0, 1 + np.prod(shape)).reshape(shape)}
    with pytest.raises(BadFile, match=r"instanceWeights are .* give weights with the labels"):
        runner_of([conv(6, 6, 3, 4), weighed], {})
