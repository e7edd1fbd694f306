"""The plugin as its users have it: tests in a folder of their own, run by a pytest of their own.

That is a process where its start or several of them matter; elsewhere it runs in this one, which has all it imports.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import parity.testing

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
TRACE = ROOT / "traces" / "gate" / "matconvnet.h5"

# Two traces are compared without any framework: what these tests are about is the plugin.
LOCKED = f"""
TRACE = {str(TRACE)!r}

def test_locked(parity):
    parity.assert_locked(TRACE, TRACE)

def test_twice(parity):
    parity.assert_locked(TRACE, TRACE, name="all")
    parity.assert_locked(TRACE, TRACE, name="one", only="c1", steps=3)
"""


OPTIONS = "addopts = --import-mode=importlib -p no:cacheprovider -p no:hypothesispytest"


@pytest.fixture(scope="module")
def loaded():
    """What a run imports is forgotten at its end, and would be read anew in the next."""
    parity.testing.compared(ref=TRACE, keras=TRACE)
    for name in ("baseline", "judgement", "lock"):
        importlib.import_module(f"parity.gate.{name}")


@pytest.fixture
def folder(loaded, pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini(f"[pytest]\n{OPTIONS}")
    return pytester


def test_arrays_fail_in_pytests_own_words(folder):
    folder.makepyfile("""
        import numpy as np

        def test_right(parity):
            parity.assert_parity({"a": np.ones(3)}, {"a": np.ones(3)})
            parity(1.0, 1.0)

        def test_wrong(parity):
            parity.assert_parity({"a": np.ones(3)}, {"a": np.array([1, 2, 1.0])})
    """)
    result = folder.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([
        ">*parity.assert_parity({*", "E*NotInParity: 1 of 1 arrays differ",
        "E*'a'*: 1 of 3 elements differ; the worst at 1: expected 1.0, actual 2.0, off by 1*",
    ])  # fmt: skip
    # The traceback ends in the user's own line.
    assert "parity/testing.py" not in result.stdout.str()


def test_a_divergence_is_told_with_its_cause(folder):
    keras = ROOT / "traces" / "gate" / "keras.h5"
    folder.makepyfile(f"""
        def test_port(parity):
            parity.assert_parity({str(TRACE)!r}, {str(keras)!r})
    """)
    result = folder.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E*NotInParity: diverged: first in update at c2; 1 cause found", "E*first divergence: update at c2*",
        "E*1. optimizer-lr-multiplier at c2*", "E*fix in Keras:*",
    ])  # fmt: skip


def test_a_missing_baseline_is_an_error_with_the_command_that_makes_it(folder):
    folder.makepyfile(test_port=LOCKED)
    result = folder.runpytest_inprocess("-k", "test_locked")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([
        "E*stale: *parity-tests.lock has no baseline for it",
        "E*make one: pytest --parity-update 'test_port.py::test_locked'",
    ])  # fmt: skip
    assert not (folder.path / "parity-tests.lock").exists()
    folder.runpytest_inprocess("--parity-update", "test_port.py::test_locked").assert_outcomes(passed=1)
    folder.runpytest_inprocess("-k", "test_locked").assert_outcomes(passed=1)


def test_processes_of_xdist_lose_nobodys_baseline(folder):
    tests = "\n".join(f"def test_{i}(parity):\n    parity.assert_locked(TRACE, TRACE)\n" for i in range(6))
    folder.makepyfile(test_port=LOCKED + tests)
    folder.makeini(f"[pytest]\nparity_lock = base/lines.lock\n{OPTIONS}")
    (folder.path / "base").mkdir()
    folder.runpytest_subprocess("--parity-update", "-n", "2").assert_outcomes(passed=8)
    from parity.gate.lock import read_lock

    held = read_lock(folder.path / "base" / "lines.lock")
    assert set(held) == {
        "test_port.py::test_locked", "test_port.py::test_twice[all]", "test_port.py::test_twice[one]",
        *(f"test_port.py::test_{i}" for i in range(6)),
    }  # fmt: skip
    assert [path.name for path in (folder.path / "base").iterdir()] == ["lines.lock"]
    text = (folder.path / "base" / "lines.lock").read_text()
    folder.runpytest_inprocess("-p", "no:xdist").assert_outcomes(passed=8)
    assert (folder.path / "base" / "lines.lock").read_text() == text


def test_what_got_worse_than_its_baseline_fails(folder):
    folder.makepyfile(test_port=LOCKED)
    folder.runpytest_inprocess("--parity-update", "-k", "test_locked").assert_outcomes(passed=1)
    lock = folder.path / "parity-tests.lock"
    lock.write_text(
        lock.read_text().replace('["forward", "c1", "output", "match"', '["forward", "c9", "output", "match"')
    )
    result = folder.runpytest_inprocess("-k", "test_locked")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*unverified: output of c9 in forward was compared for the baseline, and not now"])


def test_a_file_that_cannot_be_read_is_one_line_and_a_lost_baseline_is_not_written_over(folder):
    (folder.path / "parity-tests.lock").write_text("{")
    folder.makepyfile(test_port=f"{LOCKED}\ndef test_lost(parity):\n    parity.assert_parity('no.mat', TRACE)\n")
    result = folder.runpytest_inprocess("--parity-update", "-k", "test_locked or test_lost")
    result.assert_outcomes(failed=2)
    remedy = "delete it, and make it anew: pytest --parity-update 'test_port.py::test_locked'"
    result.stdout.fnmatch_lines([f"E*cannot be read as a baseline (it is not JSON); {remedy}"])
    result.stdout.fnmatch_lines(["E*no.mat: there is no such file; check the path"])
    result.stdout.no_fnmatch_line("*opening.py*")
    assert (folder.path / "parity-tests.lock").read_text() == "{"


def test_a_diverged_pair_makes_no_baseline(folder):
    keras = ROOT / "traces" / "gate" / "keras.h5"
    folder.makepyfile(test_port=f"def test_port(parity):\n    parity.assert_locked({str(TRACE)!r}, {str(keras)!r})\n")
    result = folder.runpytest_inprocess("--parity-update")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E*divergence: optimizer-lr-multiplier at c2 in update:*"])
    assert not (folder.path / "parity-tests.lock").exists()


def test_the_plugin_alone_loads_nothing(folder):
    folder.makepyfile("""
        import sys

        def test_nothing_is_loaded():
            assert not {"torch", "tensorflow", "keras", "h5py", "scipy", "numpy", "typer"} & set(sys.modules)
    """)
    folder.runpytest_subprocess("-p", "no:xdist").assert_outcomes(passed=1)
