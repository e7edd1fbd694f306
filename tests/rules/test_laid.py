"""How values that should be equal are laid out: a factor, an order, or none of these."""

from __future__ import annotations

import numpy as np
import pytest

from parity.rules.laid import read


@pytest.mark.parametrize("place", [0, 1, 2, 699])
@pytest.mark.parametrize("change", [1e-3, 0.5, -3.0])
def test_one_other_element_is_no_factor(place: int, change: float) -> None:
    """Wherever it is: a factor is fitted on some of the elements, and must hold on all."""
    wanted = np.random.default_rng(0).standard_normal((70, 10)).astype(np.float32)
    held = wanted.copy()
    held.flat[place] += np.float32(change)
    assert read(wanted, held, []) is None


@pytest.mark.parametrize("factor", [0.5, 1.0001, -2.0, 255.0])
def test_a_factor_is_read(factor: float) -> None:
    wanted = np.random.default_rng(0).standard_normal((70, 10)).astype(np.float32)
    found = read(wanted, wanted * np.float32(factor), [])
    assert found is not None
    assert found.causes == ("weights-scaled",)
    assert found.factor == pytest.approx(factor, rel=1e-6)
