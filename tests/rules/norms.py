"""Batch normalisation and local response normalisation."""

from __future__ import annotations

import numpy as np

from tests.rules.planting import LARGE, SMALL, Row, disguised, edit, given, held, together


def _epsilon(value):
    return edit("bn1", epsilon=value, stored=1e-5)


def _bn(cause, size, plant, like, mode="eval"):
    return Row(cause, size, "normal", plant, "weights bn1", like, mode, own=True)


def _deviation(arrays):
    return [*arrays[:3], np.sqrt(arrays[3] + 1e-5)]


def _moments_swapped(arrays):
    return [arrays[0], arrays[1], arrays[3], arrays[2]]


def _vectors_swapped(arrays):
    return [arrays[1], arrays[0], *arrays[2:]]


def _near_one(weights):
    """Deviations that are nearly their own squares."""
    weights[2][:, 1] = 1 + 7e-5 * np.arange(1, 5)
    return weights


def _near_each_other(weights):
    """Moments that are nearly each other."""
    weights[2][:, 0] = (weights[2][:, 1] ** 2 - 1e-5) * (1 + 7e-5)
    return weights


def _alike(weights):
    """A gain that is nearly the offset."""
    weights[1] = weights[0] * (1 + 7e-5)
    return weights


def _of_this_batch(scene):
    """Moments that are nearly those of what this batch makes of the 1×1 convolution before."""
    kernel, bias = scene.ref["conv1"].weights
    x = scene.batch["x"].astype(np.float64).reshape(-1, kernel.shape[2])
    made = x @ kernel[0, 0].astype(np.float64) + bias[0]
    moments = np.stack([made.mean(0), np.sqrt(made.var(0) + 1e-5) * (1 + 1e-4)], axis=1)
    given("bn1", lambda w: [w[0], w[1], moments])(scene)


def _frozen(scene):
    scene.train(frozen=frozenset({"bn1"}))


def _by_the_batch(base):
    class Always(base):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=True, mask=mask)

    return Always


def _lrn(cause, how, like, mode="eval", **param):
    """Another number in [size kappa alpha beta]."""

    def plant(scene):
        own = dict(zip(("size", "kappa", "alpha", "beta"), scene.ref["lrn1"].fields["param"], strict=True))
        scene.edit("lrn1", param=tuple({**own, **param}.values()))

    return Row(cause, how, "responses", plant, "forward lrn1", like, mode)


def _faint_alpha(scene):
    for net in ("ref", "port"):
        setattr(scene, net, getattr(scene, net).edited("lrn1", param=(5, 1.0, 2e-5, 0.75)))
    scene.edit("lrn1", param=(3, 1.0, 2e-5, 0.75))


ROWS = (
    Row("bn-epsilon", LARGE, "normal", _epsilon(1e-2), "forward bn1", "large bn-mode", "train"),
    Row("bn-epsilon", LARGE, "normal", _epsilon(1e-2), "forward bn1", "large bn-sigma-as-variance", name="in eval"),
    Row("bn-epsilon", SMALL, "normal", _epsilon(1.3e-5), "forward bn1", "small bn-sigma-as-variance"),
    Row("bn-epsilon", SMALL, "normal", _epsilon(1.3e-5), "forward bn1", "small bn-mode", "train", name="in train"),
    _bn("bn-sigma-as-variance", LARGE, held("bn1", _deviation), "large bn-mean-var-swapped", "train"),
    _bn(
        "bn-sigma-as-variance",
        SMALL,
        together(given("bn1", _near_one), held("bn1", _deviation)),
        "small bn-mean-var-swapped",
    ),
    _bn("bn-mean-var-swapped", LARGE, held("bn1", _moments_swapped), "large bn-sigma-as-variance"),
    _bn(
        "bn-mean-var-swapped",
        SMALL,
        together(given("bn1", _near_each_other), held("bn1", _moments_swapped)),
        "small bn-sigma-as-variance",
    ),
    _bn("bn-gamma-beta-swapped", LARGE, held("bn1", _vectors_swapped), "large bn-mean-var-swapped"),
    _bn(
        "bn-gamma-beta-swapped",
        SMALL,
        together(given("bn1", _alike), held("bn1", _vectors_swapped)),
        "small bn-mean-var-swapped",
    ),
    Row("bn-mode", LARGE, "normal", _frozen, "forward bn1", "large bn-epsilon", "train"),
    Row("bn-mode", SMALL, "normal", together(_of_this_batch, _frozen), "forward bn1", "small bn-epsilon", "train"),
    Row(
        "bn-mode",
        SMALL,
        "normal",
        together(_of_this_batch, disguised("bn1", _by_the_batch)),
        "forward bn1",
        "small bn-epsilon",
        marks="confirmed",
        name="in eval",
    ),
    _lrn("lrn-alpha", LARGE, "large lrn-kappa", "train", alpha=0.04),
    _lrn("lrn-alpha", SMALL, "small lrn-beta", alpha=0.2 * 1.0003),
    _lrn("lrn-kappa", LARGE, "large lrn-alpha", kappa=2.0),
    _lrn("lrn-kappa", SMALL, "small lrn-alpha", "train", kappa=1.0002),
    _lrn("lrn-beta", LARGE, "large lrn-size", beta=0.5),
    _lrn("lrn-beta", SMALL, "small lrn-kappa", beta=0.75 * 1.0003),
    _lrn("lrn-size", LARGE, "large lrn-alpha", size=3),
    Row("lrn-size", SMALL, "responses", _faint_alpha, "forward lrn1", "small lrn-alpha"),
)
