"""A layer computes something else although its fields do not say so: what was tried and reproduces it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from parity.align import Pair
from parity.case import Comparison
from parity.layers import Concat, Opaque
from parity.report import Finding
from parity.rules import grafts, repairs
from parity.rules.base import finding
from parity.rules.explained import explanation
from parity.rules.lines import lines
from parity.rules.places import everywhere
from parity.wording import listed

__all__ = ["find"]

_PRECISION = "dtype-low-precision"

_ROLES = {
    "bias-missing": ("bias", "beta", "depthwise_bias"),
    "layer-missing": ("gamma",),
    "activation-slope": ("alpha",),
    "activation-kind": ("alpha",),
}
"""Cause → the parameters whose absence it may be."""


def find(run: Comparison) -> Iterable[Finding]:
    """A confirmed finding for each proposal that an explanation needs; one for all layers that compute in few bits."""
    coarse: list[Pair] = []
    for pair in run.alignment.pairs:
        if any(p.layer == pair.ref.name and p.tensor == "inputs" and p.status == "born" for p in run.probes):
            continue  # it reads something else, which is said where the graphs are compared
        found = explanation(run, pair)
        absent = {link.role for link in run.links if link.pair is pair and link.problem}
        written_out = isinstance(pair.keras.kind, Opaque) and len(pair.keras.layers) > 1
        for proposal in found.proposals if found else ():
            if not absent.isdisjoint(_ROLES.get(proposal.cause, ())):
                continue  # said where the parameters are compared
            if proposal.cause == _PRECISION:
                coarse.append(pair)
                continue
            words = f"{pair.keras.origin} {proposal.words}: so edited, the reference makes the same tensors."
            if proposal.cause == "channel-order" and isinstance(pair.ref.kind, Concat):
                changes = grafts.reordered(run, pair)
            elif written_out:
                changes = grafts.instead(run, pair)
            else:
                changes = repairs.proposed(run, pair, proposal.cause, proposal.edit)
                changes = everywhere(run, pair.keras, changes)
            fix = "" if written_out or not proposal.fix else f"{pair.keras.origin}: {proposal.fix}"
            fix = fix or lines(run, changes)
            for cause in (proposal.cause, *proposal.also):
                yield finding(
                    cause, "divergence", _phase(run, pair), words, pair=pair, fix=fix, confirmed=True, changes=changes
                )
    if coarse:
        yield _coarse(run, coarse)


def _phase(run: Comparison, pair: Pair) -> str:
    # Where nothing was born in a number (a layer makes another shape of its input), the structure says it.
    return next((phase for phase in ("forward", "loss", "backward") if run.diverged(pair, phase)), "structure")


def _coarse(run: Comparison, pairs: Sequence[Pair]) -> Finding:
    """One policy is one mistake, however many layers it reaches."""
    assert run.bench is not None
    kinds = listed([run.bench.trial(pair).low_precision for pair in pairs])
    names = listed([pair.keras.origin for pair in pairs])
    compute = "computes" if len(pairs) == 1 else "compute"
    words = f"{names} {compute} in {kinds}; what differs there is noise of the size of its rounding, and nothing else."
    changes = [change for pair in pairs for change in repairs.wider(run, pair)]
    where = names if len(pairs) < 4 else "every layer"
    fix = f'{where}: dtype="float32" (no mixed precision policy: keras.config.set_dtype_policy("float32"))'
    return finding(
        _PRECISION, "divergence", _phase(run, pairs[0]), words, pair=pairs[0], fix=fix, confirmed=True, changes=changes
    )
