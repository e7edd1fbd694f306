"""Every cause of layers, weights, inputs, structure and loss: planted at two sizes, beside what looks like it.

A row holds only if phase, layer and cause are right, the cause is confirmed, its fix is verified and nothing else is
named; so the row of a similar fault says that the rule does not claim it. What a row plants in matches without it.
"""

from __future__ import annotations

import pytest

from parity.causes import CAUSES, FAMILIES
from tests.rules import compounds, functions, graphs, incode, inputs, norms, weights, windows
from tests.rules.planting import LARGE, NETS, SMALL, clean, disguised, found, of_port

TABLES = (inputs, graphs, weights, windows, norms, functions, incode)
ROWS = {row.id: row for table in TABLES for row in table.ROWS}
COMPOUNDS = {row.name: row for row in compounds.ROWS}
TWINS = sorted({row.twin for row in (*ROWS.values(), *COMPOUNDS.values())})

TRAINED = {
    *FAMILIES["Optimizer"],
    *FAMILIES["Training"],
    "bn-momentum",  # an update of the running statistics
    "nondeterminism",
}
"""Causes of how a net is trained, which have rows of their own, and of a side that is another one each time."""


@pytest.fixture(scope="module", autouse=True)
def _light():
    """Nets this small are no work for two threads."""
    import keras
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    keras.backend.clear_session()
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ROWS)
def test_a_fault_is_said_to_be_what_it_is_and_nothing_else(name):
    assert found(ROWS[name]) == ROWS[name].expected


@pytest.mark.parametrize("name", COMPOUNDS)
def test_of_several_faults_each_is_named(name):
    assert found(COMPOUNDS[name]) == COMPOUNDS[name].expected


@pytest.mark.parametrize(
    "twin", TWINS, ids=["{} in {}{}".format(net, mode, ", own weights" * own) for net, mode, own in TWINS]
)
def test_without_a_fault_they_match(twin):
    assert clean(twin) == "match"


@pytest.mark.parametrize("layer", ["conv1", "relu1", "sig", "drop"])
def test_classes_of_the_users_own_that_do_what_keras_does_match(layer):
    """But for a dropout, which the reference cannot repeat: that is unverified, and no fault."""
    said = of_port(("active", "train", False), disguised(layer, incode.plain))
    assert said == ("unverified" if layer == "drop" else "match")


@pytest.mark.parametrize("cause", [cause for cause in CAUSES if cause not in TRAINED])
def test_every_cause_is_planted_at_two_sizes_beside_another_that_looks_like_it(cause):
    mine = [row for row in ROWS.values() if row.cause == cause]
    assert {row.size for row in mine} == {LARGE, SMALL}
    for row in mine:
        assert ROWS[row.like].cause != cause


def test_no_name_stands_for_two_rows_and_every_net_is_used():
    assert len(ROWS) == sum(len(table.ROWS) for table in TABLES)
    assert {row.net for row in ROWS.values()} == set(NETS)
