"""What each side is fed: channels, scale, mean, labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.faults.nets import Array, Node
from bench.faults.planted.base import Plant, Rng, fault
from bench.faults.scene import Scene


def fed(cause: str, change: Callable[[Array, Rng], Array]) -> Plant:
    """Keras' images are others."""

    def plant(scene: Scene, rng: Rng) -> None:
        assert scene.batch is not None
        x = scene.batch.pop("x")
        scene.batch |= {"x_ref": x, "x_keras": change(x, rng).astype(np.float32)}
        scene.plant(cause, "input", None)

    return plant


fault("input-channel-order", "reversed", "lenet residual", fed("input-channel-order", lambda x, r: x[..., ::-1]))
fault("input-channel-order", "eval", "alex", fed("input-channel-order", lambda x, r: x[..., ::-1]), mode="eval")
fault("input-scale", "255", "lenet inception", fed("input-scale", lambda x, r: x * 255))
fault("input-scale", "1.0001", "alex", fed("input-scale", lambda x, r: x * 1.0001))
fault("input-scale", "−1 … 1 for 0 … 1", "residual", fed("input-scale input-mean", lambda x, r: x * 2 - 1))
fault("input-mean", "one number", "lenet", fed("input-mean", lambda x, r: x + 0.45))
fault(
    "input-mean", "for each channel", "residual alex", fed("input-mean", lambda x, r: x + r.uniform(0.1, 1, x.shape[3]))
)
fault("input-mean", "an image", "inception", fed("input-mean", lambda x, r: x + r.standard_normal(x.shape[1:])))


def labels(change: Callable[[Array, int], Array]) -> Plant:
    """Keras' labels are others."""

    def plant(scene: Scene, rng: Rng) -> None:
        assert scene.batch is not None
        y = scene.batch.pop("y")
        scene.batch |= {"y_ref": y, "y_keras": change(y, scene.ref.classes())}
        scene.plant("label-offset", "input", None)

    return plant


fault("label-offset", "plus one, modulo the classes", "lenet residual", labels(lambda y, n: (y + 1) % n))
fault("label-offset", "minus one, modulo the classes", "normalised", labels(lambda y, n: (y - 1) % n))


def _rescaling(scene: Scene, rng: Rng) -> None:
    scene.port = scene.port.after("data", Node("rescaling", "rescale", (), {"scale": 1 / 255, "offset": 0.0}))
    scene.plant("input-scale layer-extra", "structure", "")


fault("input-scale", "a Rescaling layer too many", "lenet", _rescaling)
