"""The vocabulary of causes: every slug that a finding can have, in order, and its page.

A page is a Markdown file of `parity/pages`, shipped with the package: `# title`, what the cause is, then one `##`
section for each of `HEADINGS`. Nothing is read before a page is asked for.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from parity.errors import BadUsage

__all__ = ["CAUSES", "FAMILIES", "HEADINGS", "Page", "page"]

FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Input and labels": ("input-channel-order", "input-scale", "input-mean", "label-offset"),
        "Structure": ("layer-missing", "layer-extra", "layer-order"),
        "Weights": (
            "kernel-flip",
            "kernel-hw-transpose",
            "kernel-io-transpose",
            "flatten-order",
            "channel-order",
            "weights-differ",
            "weights-scaled",
            "bias-missing",
            "bias-value",
        ),
        "Padding and pooling": (
            "padding-asymmetric",
            "padding-size",
            "pool-ceil",
            "pool-pad-value",
            "pool-avg-count-pad",
            "pool-method",
            "pool-size",
            "pool-stride",
        ),
        "Convolution": ("conv-stride", "conv-dilation", "conv-groups"),
        "Batch normalisation": (
            "bn-epsilon",
            "bn-sigma-as-variance",
            "bn-mean-var-swapped",
            "bn-gamma-beta-swapped",
            "bn-mode",
            "bn-momentum",
        ),
        "Local response normalisation": ("lrn-alpha", "lrn-size", "lrn-kappa", "lrn-beta"),
        "Activation and dropout": (
            "activation-missing",
            "activation-extra",
            "activation-kind",
            "activation-slope",
            "dropout-rate",
            "dropout-missing",
        ),
        "Softmax and loss": ("softmax-missing", "softmax-double", "loss-kind", "loss-reduction"),
        "Optimizer": (
            "optimizer-kind",
            "optimizer-learning-rate",
            "optimizer-lr-multiplier",
            "optimizer-momentum",
            "optimizer-nesterov",
            "optimizer-weight-decay-missing",
            "optimizer-weight-decay-decoupled",
            "optimizer-weight-decay-as-lr-decay",
            "optimizer-epsilon",
            "optimizer-clipping",
        ),
        "Training": ("layer-frozen", "initializer", "metric"),
        "What no edit explains": ("dtype-low-precision", "nondeterminism", "unknown"),
    }
)
"""Family → its slugs, both in the order of the phases in which they act. Slugs are stable: reports name them."""

CAUSES: tuple[str, ...] = tuple(slug for slugs in FAMILIES.values() for slug in slugs)
"""Every slug, in order."""

HEADINGS = ("How it shows", "Example", "How parity confirms it", "Fix in Keras", "Easily confused with")
"""The sections of every page, behind the paragraph that says what the cause is."""


@dataclass(frozen=True)
class Page:
    """What there is to know about one cause.

    Attributes:
        slug: its name in reports.
        title: a few words.
        family: a key of `FAMILIES`.
        summary: what it is, in Markdown.
        sections: heading → Markdown, in the order of `HEADINGS`.
    """

    slug: str
    title: str
    family: str
    summary: str
    sections: Mapping[str, str]


@functools.cache
def page(slug: str) -> Page:
    """The page of a cause.

    Raises:
        BadUsage: there is no such cause; the message names the nearest ones.
    """
    family = next((name for name, slugs in FAMILIES.items() if slug in slugs), None)
    if family is None:
        near = difflib.get_close_matches(slug.strip().lower().replace("_", "-"), CAUSES, n=3, cutoff=0.5)
        hint = f"the nearest: {', '.join(near)}; " if near else ""
        raise BadUsage(f"there is no cause '{slug}'; {hint}'parity rule' lists all")
    text = resources.files("parity").joinpath("pages", f"{slug}.md").read_text(encoding="utf-8")
    head, *parts = text.split("\n## ")
    title, _, summary = head.removeprefix("# ").partition("\n")
    sections = {heading.strip(): body.strip() for heading, _, body in (part.partition("\n") for part in parts)}
    return Page(slug, title.strip(), family, summary.strip(), MappingProxyType(sections))
