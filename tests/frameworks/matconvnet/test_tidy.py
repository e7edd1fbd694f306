"""Tidying against vl_simplenn_tidy's own results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity.frameworks.matconvnet.lift import lift_data
from parity.frameworks.matconvnet.runner import MatConvNetRunner
from parity.frameworks.matconvnet.tidy import tidy
from tests.frameworks.matconvnet.golden import golden, nhwc, record, relative


def loose(actual: Any, expected: Any, where: str = "") -> None:
    """Equal, where a plain number or flag stands for MATLAB's 1x1 array of it, and [] for every empty value."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected), where
        for name in expected:
            loose(actual[name], expected[name], f"{where}.{name}")
    elif isinstance(expected, list) and expected:
        assert len(actual) == len(expected), where
        for at, (a, e) in enumerate(zip(actual, expected, strict=True)):
            loose(a, e, f"{where}{{{at + 1}}}")
    elif isinstance(expected, str) and expected:
        assert actual == expected, where
    else:
        np.testing.assert_array_equal(np.ravel(np.asarray(actual, float)), np.ravel(np.asarray(expected, float)), where)


@pytest.mark.parametrize("at", range(2))
def test_as_matconvnet_tidies(at: int) -> None:
    case = golden("tidy_cases")["cases"][at]
    before = case["before"]
    loose(tidy(before), case["after"])
    record("tidy fields", 0)  # they are the same or they are not
    assert tidy(before)["layers"] is not before["layers"]


def test_what_matconvnet_reads_of_it_gives_its_output() -> None:
    """The oldest form is tidied by MatConvNet and by parity; both, run by parity, give what MatConvNet computed."""
    recorded = golden("tidy_eval")
    old = golden("tidy_cases")["cases"][0]["before"]
    for net in (recorded["t"], old):
        runner = MatConvNetRunner(*lift_data({"net": net}, "tidy", (12, 12, 2)))
        found = runner.run({"input": nhwc(recorded["x"])}, None, mode="train", backward=False)
        error = relative(found.outputs[runner.network.outputs[0]], nhwc(recorded["y"]))
        record("tidy forward", error)
        assert error < 1e-6


def test_tidying_twice_changes_nothing() -> None:
    once = tidy(golden("tidy_cases")["cases"][0]["before"])
    loose(tidy(once), once)
