"""Every law of the learning rate as both Kerases compute it."""

import pytest

from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.recipes import schedule_of
from parity.optimizers.schedules import LAWS, rate_at
from parity.recipe import Schedule

CASES = [
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5}),
    ("ExponentialDecay", {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 5, "decay_rate": 0.3}),
    ("InverseTimeDecay", {"initial_learning_rate": 0.1, "decay_steps": 5, "decay_rate": 0.3, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [3, 9], "values": [0.1, 0.01, 0.001]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 8, "end_learning_rate": 0.01, "power": 2.0}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 8, "power": 0.5, "cycle": True}),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 11, "alpha": 0.1}),
    ("CosineDecay", {"initial_learning_rate": 0.01, "decay_steps": 11, "warmup_target": 0.3, "warmup_steps": 4}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 3, "m_mul": 0.5, "alpha": 0.1}),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 3, "t_mul": 1.0}),
]


@pytest.mark.parametrize("engine", ["keras", "tf_keras"])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_as_keras_computes_it(engine, name, settings):
    law = getattr(engine_of(engine).keras.optimizers.schedules, name)(**settings)
    schedule = schedule_of({"learning_rate": {"class_name": name, "config": law.get_config()}})
    for t in range(30):
        assert rate_at(schedule, t) == pytest.approx(float(law(t)), rel=1e-6, abs=1e-7)  # Keras' cosine is float32


def test_all_are_tried():
    assert {name for name, _ in CASES} == set(LAWS)


def test_a_law_without_its_settings_stays_at_its_first_rate():
    assert rate_at(Schedule("CosineDecay", (0.2,)), 5) == 0.2
    assert rate_at(Schedule("Fancy", (0.3,)), 5) == 0.3
    assert rate_at(Schedule("inverse-time", (0.2,), 0.5), 2) == pytest.approx(0.1)
    assert str(schedule_of({"learning_rate": {"class_name": CASES[0][0], "config": CASES[0][1]}})) == (
        "ExponentialDecay from 0.1 (decay_steps 7, decay_rate 0.5)"
    )
