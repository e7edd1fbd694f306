"""How much each side runs: a stop its own layer and no other, a side with little memory a few times as much."""

from __future__ import annotations

import pytest

from parity.debugger.scene import Scene
from parity.debugger.stepper import Stepper
from tests import twins, twins_dag


def seeded(build):
    """A model with the same weights each time, which the report shows beside the reference's."""
    import keras

    keras.utils.set_random_seed(0)
    return build()


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """A net with shortcuts, one of them with layers of its own."""
    dag = twins_dag.resnet(3)
    path = twins_dag.save(tmp_path_factory.mktemp("lane") / "dag.mat", dag)
    return lambda: (path, seeded(lambda: twins_dag.twin(dag)), twins_dag.batch(dag))


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    """A net with a dropout."""
    layers = twins.normalised()
    path = twins.save(tmp_path_factory.mktemp("lane") / "net.mat", layers)
    return lambda: (path, seeded(lambda: twins.twin(layers)), twins.batch())


def lanes(stepper):
    """Both sides in the first step."""
    scene = stepper.training.scene(1)
    return scene.ref, scene.keras


def walked(pair, **options):
    """A stepper at its end, and how much each side had run before the first update."""
    stepper = Stepper.open(*pair(), steps=1, **options)
    stepper.goto(next(stop.index for stop in stepper.stops if stop.phase == "update") - 1)
    runs = [lane.runs for lane in lanes(stepper)]
    stepper.goto(len(stepper.stops) - 1)
    return stepper, runs


def test_a_stop_runs_its_own_layer_and_none_of_another_branch(residual):
    stepper = Stepper.open(*residual(), steps=1)
    backward = {stop.layer for stop in stepper.stops if stop.phase == "backward"}
    assert {"conv3p", "bn3p", "conv3a", "bn2b", "relu2"} <= backward
    for stop in stepper.stops:
        if stop.phase == "update":
            break
        before = [lane.runs for lane in lanes(stepper)]
        stepper.goto(stop.index)
        runs = [lane.runs - was for lane, was in zip(lanes(stepper), before, strict=True)]
        glue = stop.layer in ("fc", "gap")  # what is between them in Keras has no partner
        assert runs[0] <= 1, stop.words
        assert runs[1] <= 1 + glue, stop.words
    assert {p.status for p in stepper.probes} == {"match"}


def test_with_little_memory_a_net_with_shortcuts_says_the_same_and_runs_not_much_more(residual):
    free, once = walked(residual)
    tight, runs = walked(residual, memory=1 << 19)
    assert max(lane.held for lane in lanes(tight)) < max(lane.held for lane in lanes(free)) / 2
    assert tight.probes == free.probes
    for several, one in zip(runs, once, strict=True):
        assert one < several < 3 * one


@pytest.mark.parametrize("net", ["residual", "dropping"])
def test_both_sides_at_the_same_time_say_what_they_say_one_after_the_other(net, request, monkeypatch):
    pair, beside = request.getfixturevalue(net), []
    independent = Scene._independent

    def asked(self, *args):
        beside.append(independent(self, *args))
        return beside[-1]

    with monkeypatch.context() as patch:
        patch.setattr(Scene, "_independent", asked)
        together, _ = walked(pair)
    assert sum(beside) > len(beside) / 2, "they never ran at the same time: the test shows nothing"
    monkeypatch.setattr(Scene, "_independent", lambda *_: False)
    apart, _ = walked(pair)
    assert together.probes == apart.probes
