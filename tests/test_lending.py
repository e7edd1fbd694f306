"""A model in memory is lent: comparing, stepping and recording leave it as it was."""

from __future__ import annotations

import numpy as np
import pytest

import parity
from parity.errors import ParityError
from tests import twins


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A net with batch normalisation and dropout, and a model in the middle of its training."""
    layers = twins.normalised()
    path = twins.save(tmp_path_factory.mktemp("lent") / "net.mat", layers)
    model, batch = twins.twin(layers, edits={"bn2": {"epsilon": 1e-2}}), twins.batch()
    model.fit(batch["x"], batch["y"], epochs=1, verbose=0)
    return path, model, batch


def state(model):
    """Everything that a user's training goes on from."""
    held = [*model.variables, *model.optimizer.variables]
    assert any("momentum" in v.path for v in held)
    assert any("seed" in v.path for v in held)
    return [np.array(v) for v in held], model.optimizer


def same(before, model):
    now = state(model)
    assert now[1] is before[1]
    for mine, theirs in zip(before[0], now[0], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_comparison_gives_the_model_back(pair):
    path, model, batch = pair
    before = state(model)
    report = parity.compare(path, model, batch, steps=2)
    assert (report.first_divergence.phase, report.first_divergence.layer) == ("forward", "bn2")
    same(before, model)
    with pytest.raises(ParityError):
        parity.compare(path, model, {"x": batch["x"][:, :3]}, steps=1)
    same(before, model)


def test_a_stepper_gives_the_model_back_and_can_go_on(pair):
    path, model, batch = pair
    before = state(model)
    with parity.debug(path, model, batch, steps=2, screen=False) as stepper:
        assert stepper.resume().stop.layer == "bn2"
        stepper.run_to("conv1 update")
    same(before, model)
    while stepper.resume().reason != "end":
        pass
    probes = {(p.layer, p.phase, p.tensor, p.step): p.status for p in stepper.probes}
    stepper.close()
    same(before, model)
    whole = parity.Stepper.open(path, model, batch, steps=2)
    while whole.resume().reason != "end":
        pass
    assert probes == {(p.layer, p.phase, p.tensor, p.step): p.status for p in whole.probes}
    whole.close()
    same(before, model)


def test_what_its_owner_did_since_stays(pair):
    path, model, batch = pair
    stepper = parity.Stepper.open(path, model, batch, steps=1)
    stepper.resume()
    stepper.close()
    model.fit(batch["x"], batch["y"], epochs=1, verbose=0)
    trained = state(model)
    stepper.close()
    same(trained, model)
    stepper.run_to("conv1 update")  # borrows it again
    with pytest.raises(AssertionError):
        same(trained, model)
    stepper.close()
    same(trained, model)


def test_a_recording_gives_the_model_back(pair, tmp_path):
    path, model, batch = pair
    before = state(model)
    parity.record(tmp_path / "trace.h5", ref=path, keras=model, batch=batch, steps=1)
    same(before, model)
