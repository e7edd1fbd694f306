"""What each side is fed: channels, scale, mean, labels."""

from __future__ import annotations

import numpy as np

from tests.rules.planting import LARGE, SMALL, Row


def _images(change, both=lambda x: x):
    def plant(scene):
        x = both(scene.batch.pop("x"))
        rng = np.random.default_rng(2)
        scene.batch |= {"x_ref": x.astype(np.float32), "x_keras": change(x, rng).astype(np.float32)}

    return plant


def _labels(change):
    def plant(scene):
        y = scene.batch.pop("y")
        scene.batch |= {"y_ref": y, "y_keras": change(y)}

    return plant


def _grey(x):
    """Images whose channels are nearly alike."""
    mean = x.mean(axis=-1, keepdims=True)
    return mean + 1e-4 * (x - mean)


def _fed(cause, size, plant, like, mode="eval", layer="input", **more):
    return Row(cause, size, "normal", plant, f"input {layer}", like, mode, **more)


ROWS = (
    _fed("input-channel-order", LARGE, _images(lambda x, r: x[..., ::-1]), "large input-mean", "train"),
    _fed("input-channel-order", SMALL, _images(lambda x, r: x[..., ::-1], _grey), "small input-mean"),
    _fed("input-scale", LARGE, _images(lambda x, r: x * 255), "large input-mean"),
    _fed("input-scale", SMALL, _images(lambda x, r: x * 1.00007), "small input-mean", "train"),
    _fed("input-mean", LARGE, _images(lambda x, r: x + r.uniform(0.1, 1, 3)), "large input-scale", "train"),
    _fed("input-mean", SMALL, _images(lambda x, r: x + 7e-5 * r.uniform(0.5, 1, 3)), "small input-scale"),
    _fed(
        "input-mean",
        LARGE,
        _images(lambda x, r: x + r.standard_normal(x.shape[1:])),
        "large unknown of the input",
        name="an image",
    ),
    _fed(
        "input-mean",
        SMALL,
        _images(lambda x, r: x + 1e-4 * r.standard_normal(x.shape[1:])),
        "small unknown of the input",
        name="an image",
    ),
    _fed("label-offset", LARGE, _labels(lambda y: (y + 1) % 4), "large unknown of the labels", "train"),
    _fed("label-offset", SMALL, _labels(lambda y: (y - 1) % 4), "large unknown of the labels"),
    _fed(
        "unknown",
        LARGE,
        _labels(lambda y: np.array([2, 0, 3, 1])[y]),
        "large label-offset",
        marks="open",
        name="of the labels",
    ),
    _fed(
        "unknown",
        LARGE,
        _images(lambda x, r: x + r.standard_normal(x.shape)),
        "large input-mean an image",
        marks="open",
        name="of the input",
    ),
    _fed(
        "unknown",
        SMALL,
        _images(lambda x, r: x + 1e-4 * r.standard_normal(x.shape)),
        "small input-mean an image",
        marks="open",
        name="of the input",
    ),
)
