"""A sample of every suite, and that the driver notices what it is there to notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from parity.errors import BadFile
from tests.fuzz.driver import run
from tests.fuzz.suite import Suite

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("family", "count"), [("mat", 30), ("keras", 20), ("kerasload", 200), ("trace", 60)])
def test_a_sample_of_damaged_files(family, count):
    """In a process of its own: a worker is forked, and this one may have threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", family, "--count", str(count), "--seed", "7"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused" in done.stdout


def misbehave(path: Path) -> object:
    """As the byte in the file says."""
    match path.read_bytes()[0] % 8:
        case 0:
            raise BadFile(path, "is damaged")
        case 1:
            raise ValueError("of numpy's own")
        case 2:
            raise BadFile(path, "")
        case 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 4:
            time.sleep(60)
        case 5:
            return bytearray(8 << 30)
        case 6:
            warnings.warn("the user would see this", stacklevel=1)
    return None


def test_the_driver_tells_right_endings_from_wrong_ones():
    numbers = iter(range(8))
    files = [bytes([n]) for n in numbers]
    # A suite's files follow from their number; here they are given one by one.
    endings = {}
    for n, content in enumerate(files):
        suite = Suite("bad", lambda rng, content=content: content, misbehave, seconds=3.0, memory=1 << 30)
        outcome = run(suite, 1)
        endings[n] = outcome.failures[0].what if outcome.failures else "refused" if outcome.refused else "opened"
    assert endings[0] == "refused"
    assert "ValueError: of numpy's own (test_fuzz.py:" in endings[1]
    assert endings[3] == "killed by SIGSEGV"
    assert endings[4] == "takes more than 3 s"
    assert "MemoryError" in endings[5]
    assert "UserWarning" in endings[6]
    assert endings[7] == "opened"


def test_it_goes_on_behind_a_crash():
    suite = Suite("mixed", lambda rng: bytes([rng.choice((0, 3, 7))]), misbehave, seconds=5.0)
    outcome = run(suite, 30, seed=2)
    assert outcome.opened + outcome.refused + len(outcome.failures) == 30
    assert {f.what for f in outcome.failures} == {"killed by SIGSEGV"}
    assert outcome.opened
    assert outcome.refused


def test_a_case_is_the_same_every_time():
    from tests.fuzz.mat import SUITES

    for suite in SUITES:
        assert suite.case(3, 5) == suite.case(3, 5)
        assert suite.case(3, 5) != suite.case(3, 6)
