"""A default of a layer's code that changes makes the gate fail, by the layer and the cause."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import parity.layers
from parity.frameworks.matconvnet import lift
from parity.gate.config import read_config
from parity.gate.run import run_gate
from tests import twins
from tests.gate import every

PHASES = {"eval": ["structure", "forward"], "train": ["structure", "forward", "loss", "backward", "update"]}


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """A gate with a baseline, of a net that has every one of these layers."""
    folder = tmp_path_factory.mktemp("gated")
    twins.save(folder / "net.mat", every.layers(), size=(8, 8, 3))
    np.savez(folder / "batch.npz", **twins.batch(size=(8, 8, 3), n=6))
    pairs = (
        f'[[pair]]\nname = "{mode}"\nref = "net.mat"\nkeras = "{Path(every.__file__)}:build"\nbatch = "batch.npz"\n'
        f'mode = "{mode}"\nsteps = 1\nphases = {phases}\n'
        for mode, phases in PHASES.items()
    )
    (folder / "parity.toml").write_text("".join(pairs))
    asked = read_config(folder / "parity.toml")
    assert run_gate(asked, jobs=0, update=True).updated == ("eval", "train")
    assert run_gate(asked.select(["eval"]), jobs=0).exit_code == 0
    return asked


def turned(pad):
    return (pad[1], pad[0], pad[3], pad[2])


CHANGES = {
    ("Conv", "pad", "c1"): (lambda pad: (pad[0] - 1, pad[1] + 1, *pad[2:]) if pad[0] else pad, "padding-asymmetric"),
    ("BatchNorm", "epsilon", "b1"): (lambda epsilon: 100 * epsilon, "bn-epsilon"),
    ("Activation", "slope", "r1"): (lambda slope: 2 * slope, "activation-slope"),
    ("Pool", "pad", "p1"): (turned, "padding-asymmetric"),
    ("LRN", "size", "n1"): (lambda size: size - 2, "lrn-size"),
    ("LRN", "kappa", "n1"): (lambda kappa: 2 * kappa, "lrn-kappa"),
    ("LRN", "alpha", "n1"): (lambda alpha: 5 * alpha, "lrn-alpha"),
    ("LRN", "beta", "n1"): (lambda beta: beta - 0.25, "lrn-beta"),
    ("Dropout", "rate", "d1"): (lambda rate: rate / 2, "dropout-rate"),
}


@pytest.mark.parametrize("place", CHANGES, ids=" ".join)
def test_a_changed_default_fails_by_layer_and_cause(gated, monkeypatch, place):
    (kind, field, layer), (change, cause), original = place, CHANGES[place], lift.lift_data

    def changed(*arguments, **options):
        network, recipe = original(*arguments, **options)
        layers = [
            dataclasses.replace(each, kind=dataclasses.replace(each.kind, **{field: change(getattr(each.kind, field))}))
            if type(each.kind).__name__ == kind
            else each
            for each in network.layers
        ]
        return dataclasses.replace(network, layers=tuple(layers)), recipe

    monkeypatch.setattr(lift, "lift_data", changed)
    result = run_gate(gated.select(["train" if kind == "Dropout" else "eval"]), jobs=0)
    assert result.exit_code == 1
    problem = result.results[0].judgement.problems[0]
    assert (problem.kind, problem.layer) == ("divergence", layer)
    assert problem.sentence.startswith(cause)


COMPUTED = [place for place in CHANGES if place[0] in ("Conv", "Activation", "Pool", "LRN")]
"""Nothing of a batch normalisation but its moments, and nothing of a dropout, is used in eval mode."""


@pytest.mark.parametrize("place", COMPUTED, ids=" ".join)
def test_a_change_in_what_a_layer_computes_fails_by_layer(gated, monkeypatch, place):
    (name, field, layer), (change, _) = place, CHANGES[place]
    kind = getattr(parity.layers, name)
    forward = kind.forward

    def changed(self, *arguments, **options):
        return forward(dataclasses.replace(self, **{field: change(getattr(self, field))}), *arguments, **options)

    monkeypatch.setattr(kind, "forward", changed)
    result = run_gate(gated.select(["eval"]), jobs=0)
    assert result.exit_code == 1
    assert {p.layer for p in result.results[0].judgement.problems if p.kind == "divergence"} >= {layer}
