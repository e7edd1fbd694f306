"""A layer computes something else although its fields do not say so: what was tried and reproduces it."""

from __future__ import annotations

from collections.abc import Iterable

from parity.case import Comparison
from parity.layers import Concat
from parity.report import Finding
from parity.rules import grafts, repairs
from parity.rules.base import finding
from parity.rules.explained import explanation
from parity.rules.lines import lines

__all__ = ["find"]


def find(run: Comparison) -> Iterable[Finding]:
    """A confirmed finding for each proposal that an explanation needs."""
    for pair in run.alignment.pairs:
        if any(p.layer == pair.ref.name and p.tensor == "inputs" and p.status == "born" for p in run.probes):
            continue  # it reads something else, which is said where the graphs are compared
        found = explanation(run, pair)
        absent = any(link.pair is pair and link.problem and link.role == "bias" for link in run.links)
        for proposal in found.proposals if found else ():
            if proposal.cause == "bias-missing" and absent:
                continue  # said where the parameters are compared
            phase = next(phase for phase in ("forward", "loss", "backward") if run.diverged(pair, phase))
            words = f"{pair.keras.origin} {proposal.words}: so edited, the reference makes the same tensors."
            if proposal.cause == "channel-order" and isinstance(pair.ref.kind, Concat):
                changes = grafts.reordered(run, pair)
            else:
                changes = repairs.proposed(run, pair, proposal.cause, proposal.edit)
            fix = f"{pair.keras.origin}: {proposal.fix}" if proposal.fix else lines(run, changes)
            yield finding(
                proposal.cause, "divergence", phase, words, pair=pair, fix=fix, confirmed=True, changes=changes
            )
