"""Small models in both Kerases, on one batch."""

import numpy as np
import pytest


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request):
    """Each of the two Kerases in turn, seeded."""
    from parity.frameworks.keras.engine import engine_of

    module = engine_of(request.param).keras
    module.utils.set_random_seed(7)
    return module


@pytest.fixture
def batch():
    """Six images 8×8×4 of three classes."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(6, 8, 8, 4)).astype(np.float32), rng.integers(0, 3, size=6)
