"""Assertions on arrays and on reports."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import parity
from parity.errors import BadUsage
from parity.testing import NotInParity, assert_parity, failure_of
from tests.reports import examples

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4, 8)).astype(np.float32)


def fails(expected, actual, **options) -> str:
    with pytest.raises(NotInParity) as caught:
        assert_parity(expected, actual, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (X, X.copy()),
        (X, X * np.float32(1 + 2e-7)),
        ({"a": X, "b": 1}, {"a": X, "b": 1}),
        ([X, (X, 2.5)], [X, (X, 2.5)]),
        (X.astype(np.float16), X),
        (np.array([np.nan, np.inf, 1.0]), np.array([np.nan, np.inf, 1.0])),
        (np.arange(5), np.arange(5)),
        ([1.0, 2.0], np.array([1.0, 2.0])),
        (X + 1j, X + 1j),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (1.0, 1.0 + 1e-15),
    ],
)
def test_equal_up_to_rounding(expected, actual):
    assert assert_parity(expected, actual) is None


def test_the_worst_element_is_named_with_both_values():
    wrong = X.copy()
    wrong[1, 2, 3] += 0.5
    message = fails({"conv1": X, "fc": X}, {"conv1": wrong, "fc": X})
    assert message.startswith(
        "1 of 2 arrays differ\n['conv1']: 1 of 96 elements differ; the worst at (1, 2, 3): expected "
    )
    assert f"expected {X[1, 2, 3]}, actual {wrong[1, 2, 3]}, off by 0.5" in message


def test_a_channel_of_small_values_does_not_hide_behind_large_ones():
    wide = np.ones((50, 2), np.float32) * np.array([1e4, 1e-4], np.float32)
    wrong = wide.copy()
    wrong[:, 1] *= np.float32(1.01)
    assert "the worst at (" in fails(wide, wrong)


def test_a_small_shift_of_every_element_is_seen():
    assert fails(X, X * np.float32(1 + 4e-5))
    assert fails(X, -X)  # what compares only means would pass


@pytest.mark.parametrize(
    ("expected", "actual", "words"),
    [
        (X, X[:2], "its shape is (2, 4, 8), not (3, 4, 8)"),
        ({"a": X}, {"b": X}, "['a']: is missing"),
        ({"a": X}, {"a": X, "b": X}, "['b']: is not expected"),
        (np.arange(5), np.array([0, 1, 2, 3, 5]), "1 of 5 elements differ; the worst at 4: expected 4, actual 5"),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), "actual nan"),
        (np.array([np.inf]), np.array([-np.inf]), "expected inf, actual -inf"),
        (np.array([True, False]), np.array([True, True]), "1 of 2 elements differ"),
        (X + 1j, X + 1.1j, "differ"),
        (1.0, 1.1, "the array: 1 of 1 elements differ; the worst: expected 1.0, actual 1.1"),
        (np.zeros(3), np.array([0, 1e-30, 0]), "the worst at 1"),
        (np.array(["a"]), np.array(["b"]), "<U1 against <U1: not the same"),
    ],
)
def test_what_differs_is_said(expected, actual, words):
    assert words in fails(expected, actual)


def test_tolerances_take_the_place_of_rounding():
    assert_parity(X, X + np.float32(0.01), rtol=0, atol=0.02)
    assert "(allowed 0.02)" in fails(X, X + np.float32(0.03), rtol=0, atol=0.02)
    assert_parity(np.arange(5), np.arange(5) + 1, rtol=0, atol=1)
    with pytest.raises(BadUsage, match="rtol without atol"):
        assert_parity(X, X, rtol=0.1)


def test_many_arrays_are_not_all_listed():
    message = fails([X] * 20, [-X] * 20)
    assert message.startswith("20 of 20 arrays differ")
    assert message.endswith("and 12 more")


@pytest.mark.parametrize("nothing", [{}, (), {"a": ()}])
def test_nothing_agrees_with_nothing_is_no_assertion(nothing):
    with pytest.raises(BadUsage, match="nothing was compared"):
        assert_parity(nothing, nothing)


def test_options_of_models_are_none_of_arrays():
    with pytest.raises(BadUsage, match="arrays take rtol and atol alone, not batch, mode"):
        assert_parity(X, X, {"x": X}, mode="eval")


def test_tensors_of_torch_are_arrays():
    import torch

    tensor = torch.tensor(X, requires_grad=True)
    assert_parity(X, tensor)
    assert_parity({"w": tensor}, {"w": tensor.to(torch.float64)})


def test_files_and_models_are_compared_as_such(monkeypatch):
    asked = []
    module = types.ModuleType("parity.session")
    report = examples.matching()
    module.check = lambda **options: asked.append(options) or report  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "parity.session", module)
    assert parity.assert_parity("net.mat", "model.h5", "batch.npz", mode="eval") is report
    assert asked == [
        {"ref": "net.mat", "keras": "model.h5", "batch": "batch.npz", "rtol": None, "atol": None, "mode": "eval"}
    ]
    report = examples.divergent()
    with pytest.raises(NotInParity) as caught:
        assert_parity("net.mat", "model.h5")
    assert caught.value.report is report
    report = examples.unverified()
    with pytest.raises(NotInParity, match="random, without a mask"):
        assert_parity("net.mat", "model.h5")


def test_a_failure_says_where_and_why():
    lines = failure_of(examples.divergent()).splitlines()
    assert lines[0] == "diverged: first in structure at ip1; 4 causes found"
    assert "first divergence: structure at ip1 (Keras conv2d_5), kernel" in lines
    assert "1. conv-groups at ip1, confirmed" in lines
    assert "   fix in Keras: keras.layers.Conv2D(32, 1, groups=2)  (tried: the divergence is gone)" in lines
