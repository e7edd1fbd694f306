"""What a batch cannot show is said, and the batch that parity makes leaves nothing untried that could be tried."""

from __future__ import annotations

import numpy as np
import pytest

import parity
from bench.faults.matlab import save
from bench.faults.port import port
from bench.faults.scene import new_scene
from bench.faults.zoo import NETS
from tests import twins


def untried(report):
    notes = [note for note in report.notes if note.startswith("This batch leaves untried: ")]
    assert len(notes) <= 1
    return notes[0].removeprefix("This batch leaves untried: ").removesuffix(".").split("; ") if notes else []


@pytest.fixture
def compared(tmp_path):
    def run(layers, batch, mode="train", size=(16, 16, 3)):
        path = twins.save(tmp_path / "net.mat", layers, size)
        model = twins.twin(layers, size=size, dense=False)
        return parity.compare(ref=path, keras=model, batch=batch, mode=mode, steps=1)

    return run


def bright(batch):
    return batch | {"x": np.abs(batch["x"]) + 0.1}


def lifted(layers):
    """The first convolution makes positive values alone of positive images."""
    first = layers[0]
    return [first | {"weights": [np.abs(first["weights"][0]), np.abs(first["weights"][1]) + 0.1]}, *layers[1:]]


def test_a_batch_of_noise_leaves_nothing_untried(compared):
    batch = twins.batch()
    batch["y"] = np.arange(8) % 4
    assert untried(compared(twins.plain(), batch)) == []


def test_what_a_batch_cannot_show_is_said(compared):
    batch = bright(twins.batch())
    batch["y"] = np.zeros(8, np.int64)
    batch["x"][:] = batch["x"][:1]
    report = compared(lifted(twins.plain()), batch)
    said = untried(report)
    assert "the images are all the same" in said
    assert "no negative value reaches relu1" in said
    assert "classes 1, 2, 3 never occur" in said
    assert report.verdict == "match"


def test_images_that_are_alike_are_said_to_be(compared):
    batch = twins.batch()
    batch["y"] = np.arange(8) % 4
    grey = batch | {"x": np.repeat(batch["x"][..., :1], 3, axis=-1)}
    assert untried(compared(twins.plain(), grey)) == ["the channels are equal, so their order does not show"]
    turned = batch | {"x": batch["x"] + batch["x"][:, :, ::-1]}
    assert untried(compared(twins.plain(), turned)) == ["the images are the same mirrored"]


def test_silent_channels_and_borders_are_said(compared):
    rng = np.random.default_rng(0)
    conv = twins.conv("conv1", rng, (3, 3, 3, 6))
    conv["weights"][1][0, 2] = -100.0
    conv["weights"][1][0, [0, 1, 3, 4, 5]] = 100.0
    layers = [
        conv,
        twins.pool("pool1", "max", 3, 2, (1, 1, 1, 1)),
        twins.relu("relu1"),
        twins.conv("classifier", rng, (7, 7, 6, 4)),
        {"type": "softmaxloss", "name": "loss"},
    ]
    batch = twins.batch()
    batch["y"] = np.arange(8) % 4
    assert untried(compared(layers, batch)) == ["relu1 is never active in channel 2"]
    conv["weights"][1][0, 2] = 100.0
    said = untried(compared(layers, batch))
    assert said == ["no window at the border of pool1 has negative values alone", "no negative value reaches relu1"]


def test_an_epsilon_that_vanishes_is_said(compared):
    layers = twins.normalised()
    batch = twins.batch()
    batch["y"] = np.arange(8) % 4
    assert not [gap for gap in untried(compared(layers, batch)) if "epsilon" in gap]
    layers[1] = layers[1] | {"epsilon": 1e-12}
    layers[1]["weights"][2][:, 1] = 1.0
    assert "no channel of bn1 varies so little that its epsilon shows" in untried(compared(layers, batch, mode="eval"))


@pytest.mark.parametrize("name", ["alex", "normalised", "residual", "inception", "square"])
def test_the_generated_batch_leaves_nothing_untried(tmp_path, name):
    rng = np.random.default_rng(5)
    scene = new_scene(NETS[name](rng), rng)
    path = save(tmp_path / "net.mat", scene.ref)
    model = port(scene.port, scene.spelling, scene.training)
    report = parity.compare(ref=path, keras=model, steps=1)
    assert report.verdict == "match"
    assert [gap for gap in untried(report) if "never active" not in gap] == []
