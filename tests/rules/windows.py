"""Poolings: windows, strides, cells around the map and what they count for."""

from __future__ import annotations

import numpy as np

from tests.rules.planting import LARGE, SMALL, Row, edit, images, together


def _even(x):
    """Images of nearly one value."""
    return 1 + 1e-4 * x


def _dark_border(x):
    """Images whose border is small, and whose values are positive."""
    made = np.abs(x) + 0.1
    for cut in (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1]):
        made[cut] *= 1e-4
    return made


def _negative_corner(x):
    """Images of positive values but for a corner, which is hardly negative."""
    made = np.abs(x) + 0.1
    made[0, :2, :2] = -1e-4
    return made


ROWS = (
    Row("pool-method", LARGE, "pooled", edit("max2", method="avg"), "forward max2", "large pool-ceil", "train"),
    Row(
        "pool-method",
        SMALL,
        "windows",
        together(images(_even), edit("max1", method="avg")),
        "forward max1",
        "small pool-size",
    ),
    Row("pool-size", LARGE, "pooled", edit("max2", size=(4, 4)), "structure max2", "large pool-stride"),
    Row(
        "pool-size",
        SMALL,
        "windows",
        together(images(_even), edit("max1", size=(3, 3))),
        "forward max1",
        "small pool-stride",
        "train",
    ),
    Row("pool-stride", LARGE, "windows", edit("max1", stride=(2, 2)), "structure max1", "large pool-size", "train"),
    Row(
        "pool-stride",
        SMALL,
        "windows",
        together(images(_even), edit("max1", stride=(4, 4))),
        "forward max1",
        "small pool-method",
    ),
    Row("pool-ceil", LARGE, "pooled", edit("max2", pad=(0,) * 4), "structure max2", "large pool-stride", "train"),
    Row(
        "pool-ceil",
        SMALL,
        "averaged",
        together(images(_even), edit("avg2", pad=(0,) * 4)),
        "structure avg2",
        "large padding-size of a pooling",
    ),
    Row(
        "padding-size",
        LARGE,
        "averaged",
        edit("avg1", pad=(0,) * 4),
        "structure avg1",
        "small pool-ceil",
        name="of a pooling",
    ),
    Row(
        "pool-pad-value", LARGE, "pooled", edit("max1", zeros=True), "forward max1", "large pool-avg-count-pad", "train"
    ),
    Row(
        "pool-pad-value",
        SMALL,
        "pooled",
        together(images(_negative_corner), edit("max1", zeros=True)),
        "forward max1",
        "small pool-avg-count-pad",
    ),
    Row(
        "pool-avg-count-pad",
        LARGE,
        "averaged",
        edit("avg1", zeros=True),
        "forward avg1",
        "large padding-size of a pooling",
        "train",
    ),
    Row(
        "pool-avg-count-pad",
        SMALL,
        "averaged",
        together(images(_dark_border), edit("avg1", zeros=True)),
        "forward avg1",
        "small pool-pad-value",
    ),
)
