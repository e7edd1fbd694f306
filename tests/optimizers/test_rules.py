"""Update rules against MatConvNet's own solvers, its trainer, and Keras' formulas."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from parity.digits import shortest
from parity.network import Param
from parity.optimizers import SGD, Adadelta, Adagrad, Adam, OpaqueRule, RMSprop, UpdateRule, lookup
from parity.optimizers.updater import Updater
from parity.recipe import Recipe, Schedule
from tests.frameworks.matconvnet.golden import golden, record, relative

RULES: dict[str, UpdateRule] = {
    "adagrad": Adagrad(),
    "adagrad_rho09": Adagrad(rho=0.9),
    "adam": Adam(),
    "rmsprop": RMSprop(),
    "adadelta": Adadelta(),
}
STATES = {"m": "mean", "v": "square", "t": "step", "g_sqr": "square", "delta_sqr": "delta"}


def recorded(name: str) -> Any:
    return golden("solvers_head")["solvers"][name]


@pytest.mark.parametrize("kind", ["double", "single"])
@pytest.mark.parametrize("name", RULES)
def test_solvers(name: str, kind: str) -> None:
    """Five steps of each function of examples/+solver, in double and single: weights and state."""
    every = golden("solvers_head")["solvers"]
    recorded_ = recorded(name)
    if f"w_{kind}" not in recorded_:
        assert name == "adagrad_rho09", "only this one is recorded in double alone"
        assert kind == "single"
        return
    rule = RULES[name]
    dtype = np.float64 if kind == "double" else np.float32
    near = 1e-9 if kind == "double" else 8 * 1e-7
    weight = every["w0"].astype(dtype)
    slots = rule.start(weight)
    for step in range(5):
        weight, slots = rule.step(weight, every["grads"][step].astype(dtype), slots, every["lr"].item())
        assert weight.dtype == dtype
        held(f"solvers {name.split('_')[0]} {kind}", weight, recorded_[f"w_{kind}"][step], near)
        for slot, value in slots_of(name, recorded_[f"state_{kind}"][step]):
            held(f"solvers {name.split('_')[0]} {kind}", slots[slot], value, near)
    options = {k: v.item() for k, v in recorded_.get("opts", {}).items()}
    fields = {"eps": "epsilon"}
    assert all(rule.describe()[fields.get(k, k)] == pytest.approx(v) for k, v in options.items())


PATHS: dict[str, UpdateRule] = {
    "sgd": SGD(0.9),
    "nesterov": SGD(0.9, nesterov=True),
    **{name: rule for name, rule in RULES.items() if "_" not in name},
}


@pytest.mark.parametrize("version", ["head", "beta25"])
@pytest.mark.parametrize("name", PATHS)
def test_through_the_trainer(name: str, version: str) -> None:
    """accumulateGradients with weight decay .01 (weights only), rate .05 (twice for the biases): weights and state.

    The release divides by its batch of 5 what the last commit's loss has divided already.
    """
    every = golden(f"solvers_{version}")["solvers"]
    path = every["path"]
    weights = {"f.kernel": every["w0"], "f.bias": path["b0"].reshape(-1)}
    params = {
        "f.kernel": Param("f.kernel", "kernel", "i o", every["w0"].shape),
        "f.bias": Param("f.bias", "bias", "o", (3,), rate_multiplier=2.0, decay_multiplier=0.0),
    }
    recipe = Recipe(optimizer=PATHS[name], learning_rate=Schedule("constant", (0.05,)), weight_decay=0.01)
    updater = Updater(recipe, params)
    divisor = 5 if version == "beta25" else 1
    for step, gradients in enumerate(zip(every["grads"], path["gradsb"], strict=True)):
        means = {id: np.reshape(g, params[id].shape) / divisor for id, g in zip(params, gradients, strict=True)}
        weights |= updater.step(weights, means)
        for id, values in (("f.kernel", path[name]["w"]), ("f.bias", path[name]["b"])):
            held(f"solvers {name} weights", weights[id], values[step], 1e-9)
        for id, state in zip(params, path[name]["state"][step], strict=True):
            for slot, value in slots_of(name, state):
                held(f"solvers {name} state", updater.slots[id][slot], value, 1e-9)
    assert updater.steps == 5


def slots_of(name: str, state: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Slot → value of a recorded state: an array, or a struct of several."""
    if isinstance(state, dict):
        yield from ((STATES[field], value) for field, value in state.items())
    else:
        yield ("momentum" if name in ("sgd", "nesterov") else "square"), state


def held(family: str, actual: np.ndarray, expected: np.ndarray, near: float) -> None:
    error = relative(np.reshape(actual, np.shape(expected)), expected)
    record(family, error)
    assert error < near


def quadratic(rule: UpdateRule, rates: list[float], start: float = 1.0) -> list[float]:
    """The weights after each update on w\u00b2/2, in double."""
    weight = np.array([start])
    slots = rule.start(weight)
    seen = []
    for rate in rates:
        weight, slots = rule.step(weight, weight.copy(), slots, rate)
        seen.append(float(weight[0]))
    return seen


def test_the_rate_inside_the_velocity_shows_only_when_it_changes() -> None:
    same = [0.1] * 4
    for nesterov in (False, True):
        outside, inside = SGD(0.9, nesterov), SGD(0.9, nesterov, True)
        assert quadratic(outside, same) == pytest.approx(quadratic(inside, same), rel=1e-12)
        assert quadratic(outside, [0.1, 0.01, 0.01])[1] != pytest.approx(
            quadratic(inside, [0.1, 0.01, 0.01])[1], rel=1e-3
        )


def test_keras_formulas_by_hand() -> None:
    """keras/src/optimizers: one step of g = 0.5 from w = 1 with rate 0.1."""
    w, g = np.array([1.0]), np.array([0.5])

    def step(rule: UpdateRule) -> float:
        return float(rule.step(w, g, rule.start(w), 0.1)[0][0])

    assert step(RMSprop(0.9, 0.01, False)) == pytest.approx(1 - 0.1 * 0.5 / (np.sqrt(0.025) + 0.01))
    assert step(RMSprop(0.9, 0.01, True)) == pytest.approx(1 - 0.1 * 0.5 / np.sqrt(0.025 + 0.01))
    assert step(RMSprop(0.9, 0.01, True, centered=True)) == pytest.approx(1 - 0.05 / np.sqrt(0.025 - 0.0025 + 0.01))
    assert step(Adam(epsilon=1e-7)) == pytest.approx(1 - 0.1, abs=1e-6)
    assert step(Adagrad(0.01, epsilon_inside=True, initial=0.1)) == pytest.approx(1 - 0.05 / np.sqrt(0.35 + 0.01))
    assert step(Adadelta(0.9, 1e-6, True)) == pytest.approx(1 - 0.1 * np.sqrt(1e-6 / (0.025 + 1e-6)) * 0.5)
    assert step(SGD(0.9, True, True)) == pytest.approx(1 - 0.1 * 0.5 * 1.9)


def test_momentum_and_amsgrad_from_the_second_step_on() -> None:
    w, slots = np.array([1.0]), RMSprop(0.9, 0.0, True, 0.5).start(np.array([1.0]))
    rule = RMSprop(0.9, 0.0, True, 0.5)
    w, slots = rule.step(w, np.array([1.0]), slots, 0.1)
    first = 0.1 / np.sqrt(0.1)
    assert w[0] == pytest.approx(1 - first)
    w, slots = rule.step(w, np.array([0.0]), slots, 0.1)
    assert w[0] == pytest.approx(1 - first - 0.5 * first)
    plain, largest = Adam(0.0, 0.5), Adam(0.0, 0.5, amsgrad=True)
    after = {}
    for rule in (plain, largest):
        w, slots = np.array([0.0]), rule.start(np.array([0.0]))
        for gradient in (4.0, 0.1):
            w, slots = rule.step(w, np.array([gradient]), slots, 0.1)
        after[rule.amsgrad] = float(w[0])
    assert after[True] > after[False]


@pytest.mark.parametrize(
    ("name", "config", "era", "expected"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True}, 1, SGD(0.9, True, True)),
        ("Custom>SGD", {}, 3, SGD(0.0, False, True)),
        ("RMSprop", {"rho": 0.9, "epsilon": 1e-7}, 2, RMSprop(0.9, 1e-7, False)),
        ("RMSprop", {"rho": 0.9, "epsilon": None}, 1, RMSprop(0.9, 1e-7, False)),
        ("RMSprop", {"momentum": 0.5}, 2, RMSprop(0.9, 1e-7, True, 0.5)),
        ("RMSprop", {}, 3, RMSprop(0.9, 1e-7, True)),
        ("Adam", {"amsgrad": True}, 3, Adam(0.9, 0.999, 1e-7, True)),
        ("AdamW", {"beta_1": 0.8}, 3, Adam(0.8, 0.999, 1e-7)),
        ("Adagrad", {}, 1, Adagrad(1e-8, 1.0, False, 0.0)),
        ("Adagrad", {"initial_accumulator_value": 0.1}, 2, Adagrad(1e-7, 1.0, False, 0.1)),
        ("Adagrad", {}, 3, Adagrad(1e-7, 1.0, True, 0.1)),
        ("Adadelta", {"rho": 0.95}, 3, Adadelta(0.95, 1e-7, True)),
    ],
)
def test_from_keras(name: str, config: dict[str, Any], era: int, expected: UpdateRule) -> None:
    assert lookup(name).from_keras(name, config, era) == expected


def test_an_unknown_optimizer() -> None:
    rule = lookup("Muon").from_keras("Muon", {"momentum": 0.9}, 3)
    assert isinstance(rule, OpaqueRule)
    assert rule.name == "Muon"


def test_keras_lines() -> None:
    inside = (RMSprop(epsilon_inside=True), Adagrad(epsilon_inside=True))
    for rule in (SGD(0.9), SGD(0.9, True), Adam(), Adadelta(), *inside):
        call = ast.parse(rule.keras_line("0.01"), mode="eval").body
        assert call.func.attr == rule.name
    for rule in (RMSprop(), Adagrad()):  # with epsilon beside the root, as Keras has none
        assert rule.keras_line("0.01").startswith(f"Outside{rule.name}(0.01, ")
    assert SGD(0.9).keras_line("0.01") == "keras.optimizers.SGD(0.01, momentum=0.9)"
    assert Adadelta().keras_line("0.01").startswith("keras.optimizers.Adadelta(1.0,")


def one(recipe: Recipe, gradient: float, **fields: Any) -> float:
    param = Param("w", "kernel", "i o", (1,), **fields)
    updater = Updater(recipe, {"w": param})
    weight = np.array([2.0])
    return float(updater.step({"w": weight}, {"w": np.array([gradient])}).get("w", weight)[0])


def test_what_a_recipe_adds_to_the_gradient() -> None:
    plain = Recipe(optimizer=SGD(), learning_rate=Schedule("constant", (0.1,)))
    assert one(plain, 1.0) == pytest.approx(1.9)
    assert one(plain, 1.0, rate_multiplier=2.0) == pytest.approx(1.8)
    assert one(plain, 1.0, l2=0.5) == pytest.approx(2 - 0.1 * (1 + 2))
    assert one(plain, 1.0, l1=0.5) == pytest.approx(2 - 0.1 * 1.5)
    assert one(plain, 1.0, trainable=False) == 2.0
    assert one(plain, 1.0, constraint={"class_name": "UnitNorm", "config": {}}) == pytest.approx(1.0)
    assert one(plain, 1.0, rate_multiplier=0.0) == 2.0
    decay = Recipe(optimizer=SGD(), learning_rate=Schedule("constant", (0.1,)), weight_decay=0.5)
    assert one(decay, 1.0) == pytest.approx(2 - 0.1 * 2)
    assert one(decay, 1.0, decay_multiplier=0.0) == pytest.approx(1.9)
    decoupled = Recipe(optimizer=SGD(), learning_rate=Schedule("constant", (0.1,)), decoupled_decay=0.5)
    assert one(decoupled, 1.0) == pytest.approx(2 - 0.1 * 0.5 * 2 - 0.1)
    for clip, moved in (("clipvalue", 3.0), ("clipnorm", 3.0), ("global_clipnorm", 3.0)):
        clipped = Recipe(optimizer=SGD(), learning_rate=Schedule("constant", (0.1,)), clip={clip: moved})
        assert one(clipped, 30.0) == pytest.approx(2 - 0.3)
        assert one(clipped, 1.0) == pytest.approx(1.9)


def test_keras_legacy_decay_lowers_the_rate_with_every_update() -> None:
    recipe = Recipe(optimizer=SGD(), learning_rate=Schedule("inverse-time", (0.1,), decay=1.0))
    updater = Updater(recipe, {"w": Param("w", "kernel", "i o", (1,))})
    weights = {"w": np.array([0.0])}
    for _ in range(3):
        weights |= updater.step(weights, {"w": np.array([1.0])})
    assert weights["w"][0] == pytest.approx(-0.1 - 0.05 - 0.1 / 3)
    updater.reset()
    assert updater.rate == 0.1


def test_a_line_of_keras_has_no_digits_that_single_precision_added():
    assert SGD(momentum=float(np.float32(0.9))).keras_line("0.01") == "keras.optimizers.SGD(0.01, momentum=0.9)"
    assert shortest(float(np.float32(1e-7))) == 1e-7
    assert shortest(0.123456789012) == 0.123456789012
