"""What both sides are fed, by its values."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from parity.report import Probe
from parity.rules.inputs import _images

PROBE = Probe("input", "input", "input", "x", status="born")


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_images_of_one_value_are_no_multiple_of_others(constant):
    images = np.random.default_rng(0).standard_normal((4, 3, 3, 2)).astype(np.float32)
    empty = np.full_like(images, constant)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not list(_images(images, empty, PROBE))
        assert not list(_images(empty, images, PROBE))
        assert [f.cause for f in _images(images, images * 2, PROBE)] == ["input-scale"]
