"""Numbers and names in words."""

from __future__ import annotations

import math

import pytest

from parity.report import STATUSES
from parity.reports.words import clean, relative, shape_words, times_floor, worst


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ""), (0, "0×"), (0.004, "<0.1×"), (0.84, "0.8×"), (9.96, "10×"), (340.2, "340×"), (999.6, "1k×"),
        (41_000, "41k×"), (999_600, "1e6×"), (3.1e7, "3e7×"), (math.inf, "inf×"), (math.nan, "nan×"),
    ],
)  # fmt: skip
def test_distances(value, words):
    assert times_floor(value) == words
    assert len(words) <= 6


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, ""), (0, "0"), (2.1e-7, "2e-7"), (0.0094, "9e-3"), (0.01, "0.01"), (0.523, "0.52"), (0.98, "1.0"),
        (9.96, "10"), (340, "340"), (12_345, "1e4"), (math.nan, "nan"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_relative_errors(value, words):
    assert relative(value) == words
    assert len(words) <= 5


def test_the_worst_status_is_the_gravest():
    assert worst([]) == "match"
    assert worst(STATUSES) == "born"
    assert worst(["match", "unverified", "inherited"]) == "unverified", "what could not be seen outweighs what is known"


def test_names_lose_what_moves_a_cursor():
    assert clean("conv\x1b[1m\n\u202e1") == "conv\ufffd[1m\ufffd\ufffd1"
    assert clean("größe_é·×") == "größe_é·×"


def test_shapes():
    assert shape_words((26, None, 8)) == "26×?×8"
    assert shape_words(None) == shape_words(()) == ""
