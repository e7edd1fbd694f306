"""Every suite by its name; a family's command runs all that begin with its word."""

from __future__ import annotations

from tests.fuzz import keras, mat, trace
from tests.fuzz.suite import Suite

__all__ = ["SUITES", "family"]

SUITES: dict[str, Suite] = {suite.name: suite for module in (mat, keras, trace) for suite in module.SUITES}


def family(word: str) -> list[Suite]:
    """The suites called `word` or `word-…`; all for `all`."""
    return [suite for name, suite in SUITES.items() if word == "all" or name == word or name.startswith(f"{word}-")]
