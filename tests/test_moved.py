"""A layer at another place is one finding; one that is missing here and one that is too many far away are two."""

from __future__ import annotations

import numpy as np
import pytest

from parity import compare
from tests import twins

pytestmark = pytest.mark.filterwarnings("ignore")


def blocks() -> list[twins.Layer]:
    """Five blocks of a convolution, a normalisation and a relu."""
    rng, layers, depth = np.random.default_rng(3), [], 3
    for n in range(1, 6):
        layers += [twins.conv(f"conv{n}", rng, (3, 3, depth, 8), pad=np.ones(4))]
        layers += [twins.bnorm(f"bn{n}", rng, 8), twins.relu(f"relu{n}")]
        depth = 8
    end = [twins.pool("pool", "max", 2, 2), twins.conv("classifier", rng, (8, 8, 8, 4))]
    return [*layers, *end, {"type": "softmaxloss", "name": "loss"}]


@pytest.mark.parametrize(
    ("behind", "expected"),
    [
        ("conv1", [("layer-order", "relu1", "another")]),
        ("conv4", [("activation-missing", "relu1", ""), ("activation-extra", "", "another")]),
    ],
)
def test_a_relu_that_stands_near_its_place_was_moved_and_one_far_away_is_another(tmp_path, behind, expected):
    layers = blocks()
    path = twins.save(tmp_path / "net.mat", layers)
    port = [layer for layer in layers if layer["name"] != "relu1"]
    place = next(i for i, layer in enumerate(port) if layer["name"] == behind) + 1
    port.insert(place, twins.relu("another"))
    report = compare(path, twins.twin(port), twins.batch(), steps=1)
    found = [f for f in report.findings if f.severity == "divergence"]
    assert sorted((f.cause, f.layer, f.keras_layer) for f in found) == sorted(expected)
    assert all(f.confirmed and f.fix_verified for f in found)
    assert report.first_divergence is not None
    assert (report.first_divergence.phase, report.first_divergence.layer) == ("structure", "relu1")
