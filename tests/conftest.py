"""What holds for every test."""

import pytest


@pytest.fixture(autouse=True)
def as_a_user(monkeypatch):
    """No switch of the developer's own environment may change what a user is told."""
    for name in ("PARITY_DEBUG", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
