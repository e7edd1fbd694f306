"""What rules about updates have in common: the parameters that are trained, and how to name them."""

from __future__ import annotations

from collections.abc import Iterator

from parity.case import Comparison
from parity.network import Param
from parity.transfer import Link
from parity.wording import listed

__all__ = ["reference_of", "severity_of", "trained", "where"]


def severity_of(run: Comparison) -> str:
    """What a fact of the recipe is: a divergence where some update diverged, else a note."""
    return "divergence" if any(m.status == "born" for m in run.moves) else "note"


def trained(run: Comparison) -> Iterator[Link]:
    """Parameters that the gradient moves on the reference's side and that Keras has too."""
    for link in run.links:
        if link.ref and link.keras and link.learned and reference_of(run, link).trainable:
            yield link


def reference_of(run: Comparison, link: Link) -> Param:
    """The reference's parameter, the first where one Keras parameter is made of several."""
    return run.ref.network.params[link.ref[0]]


def where(found: list[Link]) -> str:
    """The parameters in words: `the kernels of conv1, conv2`."""
    plural = {"bias": "biases", "kernel": "kernels", "gamma": "gammas", "beta": "betas"}
    roles = sorted({plural.get(link.role, link.role) for link in found})
    names = listed([link.pair.ref.name for link in found])
    return f"the {' and '.join(roles)} of {names}" if len(roles) < 3 else f"the parameters of {names}"
