"""What explains a pair whose layer computes something else: its fields, something that they do not say, or both."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parity.activity import TENSOR
from parity.align import Pair
from parity.case import Comparison
from parity.differences import Difference, differences, fed_alike
from parity.experiments import Edit, Experiment
from parity.layers import Activation, BatchNorm, Conv, Loss, Pool, Softmax
from parity.rules.proposals import Proposal, proposals

__all__ = ["Explanation", "explanation"]

_TOGETHER = 24
"""Proposals among which two are tried together."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """What makes the reference's layer compute what the Keras one does.

    Attributes:
        fields: the fields that are needed for it, out of those that differ.
        proposals: what else is needed.
    """

    fields: tuple[str, ...] = ()
    proposals: tuple[Proposal, ...] = ()


def explanation(run: Comparison, pair: Pair) -> Explanation | None:
    """What explains a pair at which a fault was born, found once; None where nothing that was tried does."""
    name = pair.ref.name
    if name not in run.explanations:
        born = _computes_otherwise(run, pair) or _misshapen(run, pair)
        run.explanations[name] = _sought(run, pair) if born and run.bench is not None else None
    return run.explanations[name]


def _computes_otherwise(run: Comparison, pair: Pair) -> bool:
    """Whether the layer itself makes other tensors; what it adds to the loss for them is none of them."""
    phases = ("forward", "loss", "backward")
    own = [p for p in run.probes if p.layer == pair.ref.name and p.phase in phases and p.tensor != TENSOR]
    return any(p.status == "born" for p in own)


def _misshapen(run: Comparison, pair: Pair) -> bool:
    """Whether a layer that holds the reference's weights makes another shape of the same input."""
    shapes = [p for p in run.probes if p.layer == pair.ref.name and p.phase == "structure" and p.tensor == "shape"]
    unloaded = any(link.pair is pair and link.ref and link.keras and link.to_keras is None for link in run.links)
    return not unloaded and any(p.status == "born" for p in shapes)


def _sought(run: Comparison, pair: Pair) -> Explanation | None:
    experiment = Experiment(run, pair)
    parts = run.ref.recipe.sub_batches
    if isinstance(pair.ref.kind, BatchNorm) and parts > 1 and run.mode == "train":
        return _in_parts(experiment, parts)
    if not experiment.possible:
        return None
    precision = experiment.first.low_precision
    if precision and experiment.explains(Edit()):
        words = f"computes in {precision}; what differs is noise of its size"
        fix = 'dtype="float32" (and no mixed precision policy)'
        return Explanation((), (Proposal("dtype-low-precision", words, Edit(), fix),))
    said = [d for d in differences(pair) if d.phase != "update" and not d.worded]
    declared = _declared(run, pair, experiment, said)
    if said and experiment.explains(declared):
        return Explanation(_needed(run, pair, experiment, said, Edit()))
    whole = Edit(kind=pair.keras.kind, factor=declared.factor)
    if said and isinstance(pair.keras.kind, Loss) and experiment.explains(whole):
        return Explanation(tuple(d.field for d in said))
    tried: list[Proposal] = []
    for proposal in proposals(experiment):  # one after the other: each may cost a search for its numbers
        if experiment.explains(proposal.edit):
            return Explanation((), (proposal,))
        tried.append(proposal)
    for proposal in proposals(experiment, declared) if said else ():
        if experiment.explains(declared + proposal.edit):
            return Explanation(_needed(run, pair, experiment, said, proposal.edit), (proposal,))
    return _two_at_once(experiment, [p for p in tried if not p.fitted][:_TOGETHER])


def _two_at_once(experiment: Experiment, given: Sequence[Proposal]) -> Explanation | None:
    """Two mistakes: one that is made or not, and one whose number is solved for on top of it, or another such."""
    for base in given:
        for proposal in proposals(experiment, base.edit):
            if proposal.fitted and proposal.cause != base.cause and experiment.explains(base.edit + proposal.edit):
                return Explanation((), (base, proposal))
    for one, other in itertools.combinations(given, 2):
        if one.cause != other.cause and experiment.explains(one.edit + other.edit):
            return Explanation((), (one, other))
    return None


def _in_parts(experiment: Experiment, parts: int) -> Explanation | None:
    """A reference that runs its batches in parts normalises each by its own moments.

    Its layer, run on the whole batch, must make the Keras tensors, on other inputs too.
    """
    if not (experiment.fits(experiment.first, Edit()) and experiment.holds(Edit())):
        return None
    words = f"normalises by the whole batch, the reference by each of the {parts} parts that it runs it in"
    fix = f"feed the parts one by one, with gradient_accumulation_steps={parts}; or train with numSubBatches 1"
    return Explanation((), (Proposal("bn-mode", words, Edit(), fix),))


def _declared(run: Comparison, pair: Pair, experiment: Experiment, said: Sequence[Difference]) -> Edit:
    """The reference's layer with the Keras values of these fields."""
    if isinstance(pair.ref.kind, Activation | Softmax) and isinstance(pair.keras.kind, Activation | Softmax):
        return Edit(kind=pair.keras.kind) if said else Edit()
    fields = {d.field: d.keras for d in said if d.field != "weight"}
    if isinstance(experiment.kind, Loss):
        return Edit(fields=fields, factor=pair.keras.weight / pair.ref.weight if pair.ref.weight else 1.0)
    deviation = experiment.first.roles.get("deviation")
    stored = run.mode == "eval" or fields.get("frozen", getattr(experiment.kind, "frozen", False))
    if isinstance(experiment.kind, BatchNorm) and "epsilon" in fields and deviation is not None and stored:
        # MatConvNet's stored deviation already holds its own epsilon, and nothing is added to it.
        variance = deviation.astype(np.float64) ** 2 - experiment.kind.epsilon
        return Edit(fields=fields, params={"deviation": np.sqrt(np.maximum(variance + fields["epsilon"], 0))})
    theirs = pair.keras.kind
    if isinstance(theirs, Conv | Pool) and isinstance(experiment.kind, Conv | Pool) and theirs.pad and fed_alike(pair):
        fields.setdefault("pad", theirs.pad)  # `same` is worked out for the window that Keras has
    if "groups" in fields:
        return Edit(fields=fields, held=_in_blocks(experiment))
    return Edit(fields=fields)


def _in_blocks(experiment: Experiment) -> dict[str, np.ndarray]:
    """The filters as a Keras layer of fewer groups holds the reference's: blocks with zeros between them."""
    link = experiment.first.named.gradients.get("dkernel")
    value = experiment.first.bench.keras_values.get(link.keras) if link is not None else None
    return {"kernel": value} if value is not None and value.ndim == 4 else {}


def _needed(
    run: Comparison, pair: Pair, experiment: Experiment, said: Sequence[Difference], rest: Edit
) -> tuple[str, ...]:
    """The fields without which the others do not explain it."""
    if len(said) == 1:
        return (said[0].field,)
    needed: list[str] = []
    for difference in said:
        others = _declared(run, pair, experiment, [d for d in said if d is not difference])
        if not experiment.fits(experiment.first, others + rest):
            needed.append(difference.field)
    return tuple(needed)
