"""Two faults in one layer, or in two that stand side by side, and what a batch says twice: each has its finding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.rules.planting import Plant, Planted, disguised, edit, held, together, without
from tests.rules.weights import biased, convolves, no_bias, noise, turned


@dataclass(frozen=True)
class Compound(Planted):
    """Several faults.

    Attributes:
        name: in the tests.
        net, mode, own: as in `Row`.
        plant: puts them into the port.
        where: `phase layer` of the first divergence.
        causes: `cause at layer`, in the order in which they must be named, and no others.
        marks: what must hold of each.
    """

    name: str
    net: str
    plant: Plant
    where: str
    causes: tuple[str, ...]
    mode: str = "eval"
    own: bool = False
    marks: str = "confirmed, fixed"

    @property
    def expected(self) -> str:
        """The line that must be said."""
        phase, _, layer = self.where.partition(" ")
        return f"{phase} {layer}: {', '.join(f'{cause} ({self.marks})' for cause in self.causes)}"


def _epsilon(value):
    return edit("bn1", epsilon=value, stored=1e-5)


def _frozen(scene):
    scene.train(frozen=frozenset({"bn1"}))


def _loss(**options):
    return lambda scene: scene.train(loss=options)


def _logits(scene):
    scene.spell(softmax="logits")
    scene.train(loss={"from_logits": False, "reduction": "sum"})


def _fed(x=None, y=None):
    """Keras is fed other images, other labels, or both."""

    def plant(scene):
        for name, change in (("x", x), ("y", y)):
            if change is not None:
                value = scene.batch.pop(name)
                scene.batch |= {f"{name}_ref": value, f"{name}_keras": change(value).astype(value.dtype)}

    return plant


_PERMUTED = [2, 0, 3, 1]


def _both_in_code(base):
    return biased(0.1)(convolves(turned)(base))


ROWS = (
    Compound(
        "other padding and no bias",
        "filters",
        together(edit("conv3", pad=(0,) * 4), no_bias("conv3")),
        "structure conv3",
        ("padding-size at conv3", "bias-missing at conv3"),
        "train",
    ),
    Compound(
        "shifted padding and no groups",
        "filters",
        together(edit("conv2", pad=(1,) * 4), edit("conv2", groups=1)),
        "structure conv2",
        ("conv-groups at conv2", "padding-asymmetric at conv2"),
        "train",
    ),
    Compound(
        "stride and padding",
        "filters",
        edit("conv3", pad=(0,) * 4, stride=(3, 3)),
        "forward conv3",
        ("conv-stride at conv3", "padding-size at conv3"),
    ),
    Compound(
        "method and stride",
        "windows",
        edit("max1", method="avg", stride=(2, 2)),
        "structure max1",
        ("pool-method at max1", "pool-stride at max1"),
    ),
    Compound(
        "method and hidden size",
        "windows",
        edit("max1", method="avg", size=(3, 3)),
        "forward max1",
        ("pool-method at max1", "pool-size at max1"),
        "train",
    ),
    Compound(
        "method and cells at the end",
        "pooled",
        edit("max2", method="avg", pad=(0,) * 4),
        "structure max2",
        ("pool-method at max2", "pool-ceil at max2"),
    ),
    Compound(
        "small epsilon and small slope behind it",
        "normal",
        together(_epsilon(1.3e-5), edit("relu1", leak=0.10001)),
        "forward bn1",
        ("bn-epsilon at bn1", "activation-slope at relu1"),
    ),
    Compound(
        "epsilon and mode",
        "normal",
        together(_epsilon(1e-3), _frozen),
        "forward bn1",
        ("bn-epsilon at bn1", "bn-mode at bn1"),
        "train",
    ),
    Compound(
        "epsilon and swapped vectors",
        "normal",
        together(_epsilon(1e-3), held("bn1", lambda a: [a[1], a[0], *a[2:]])),
        "weights bn1",
        ("bn-gamma-beta-swapped at bn1", "bn-epsilon at bn1"),
        own=True,
    ),
    Compound(
        "both pairs of vectors swapped",
        "normal",
        held("bn1", lambda a: [a[1], a[0], a[3], a[2]]),
        "weights bn1",
        ("bn-gamma-beta-swapped at bn1", "bn-mean-var-swapped at bn1"),
        own=True,
    ),
    Compound(
        "flipped and scaled",
        "filters",
        held("conv1", lambda a: [a[0][::-1, ::-1] * np.float32(1.00007), *a[1:]]),
        "weights conv1",
        ("kernel-flip at conv1", "weights-scaled at conv1"),
        own=True,
    ),
    Compound(
        "permuted and scaled",
        "filters",
        held("conv1", lambda a: [a[0][..., _PERMUTED] * np.float32(-1.5), a[1][_PERMUTED]]),
        "weights conv1",
        ("channel-order at conv1", "weights-scaled at conv1"),
        own=True,
    ),
    Compound(
        "flipped and permuted",
        "filters",
        held("conv1", lambda a: [a[0][::-1, ::-1][..., _PERMUTED], a[1][_PERMUTED]]),
        "weights conv1",
        ("kernel-flip at conv1", "channel-order at conv1"),
        own=True,
    ),
    Compound(
        "flipped and stale",
        "filters",
        held("conv1", lambda a: noise(1e-3)([a[0][::-1, ::-1], a[1]])),
        "weights conv1",
        ("kernel-flip at conv1", "weights-differ at conv1"),
        own=True,
    ),
    Compound(
        "flipped, and another bias",
        "filters",
        held("conv1", lambda a: [a[0][::-1, ::-1], a[1] + np.float32(0.1)]),
        "weights conv1",
        ("kernel-flip at conv1", "bias-value at conv1"),
        own=True,
    ),
    Compound(
        "flipped in code, and shifted padding",
        "filters",
        together(disguised("conv2", convolves(turned)), edit("conv2", pad=(1,) * 4)),
        "forward conv2",
        ("padding-asymmetric at conv2", "kernel-flip at conv2"),
        marks="confirmed",
    ),
    Compound(
        "flipped in code, and another bias in code",
        "filters",
        disguised("conv1", _both_in_code),
        "forward conv1",
        ("kernel-flip at conv1", "bias-value at conv1"),
        marks="confirmed",
    ),
    Compound(
        "alpha and kappa",
        "responses",
        edit("lrn1", param=(5, 2.0, 0.04, 0.75)),
        "forward lrn1",
        ("lrn-alpha at lrn1", "lrn-kappa at lrn1"),
    ),
    Compound(
        "size and beta",
        "responses",
        edit("lrn1", param=(3, 1.0, 0.2, 0.5)),
        "forward lrn1",
        ("lrn-size at lrn1", "lrn-beta at lrn1"),
    ),
    Compound(
        "summed loss and smoothed labels",
        "normal",
        _loss(kind="CategoricalCrossentropy", label_smoothing=0.1, reduction="sum"),
        "loss loss",
        ("loss-reduction at loss", "loss-kind at loss"),
    ),
    Compound(
        "logits for probabilities, summed",
        "normal",
        _logits,
        "loss loss",
        ("softmax-missing at loss", "loss-reduction at loss"),
        "train",
    ),
    Compound(
        "two activations missing",
        "active",
        without("sig", "relu1"),
        "structure relu1",
        ("activation-missing at relu1", "activation-missing at sig"),
    ),
    Compound(
        "channels, scale and mean of images, and labels",
        "normal",
        _fed(lambda x: x[..., ::-1] * 2 - 1, lambda y: (y + 1) % 4),
        "input input",
        (
            "input-channel-order at input",
            "input-mean at input",
            "input-scale at input",
            "label-offset at input",
        ),
    ),
)
