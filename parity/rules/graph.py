"""A layer has no partner, or reads something else than its partner does."""

from __future__ import annotations

from collections.abc import Iterable

from parity.case import Comparison
from parity.changes import Change
from parity.layers import Activation, Concat, Dropout, Loss, Softmax
from parity.report import Finding
from parity.rules import grafts
from parity.rules.base import finding
from parity.rules.explained import explanation
from parity.rules.lines import lines
from parity.rules.making import layer_of, written
from parity.units import Unit
from parity.wording import kind_words

__all__ = ["find"]


def find(run: Comparison) -> Iterable[Finding]:
    """Findings for units without a partner, swapped neighbours, and wiring."""
    alignment = run.alignment
    for unit, other in alignment.moved:
        changes = grafts.moved(run, unit, other)
        yield _at(
            "layer-order",
            unit,
            other.origin,
            f"Both sides have {unit.kind.name.lower()} {unit.name} / {other.origin}, but at another place: in the "
            f"reference it follows {_before(run, unit, 'ref')}, in Keras {_before(run, other, 'keras')}.",
            lines(run, changes) or f"move {other.origin} behind {_partner(run, unit)}",
            changes,
        )
    for unit in alignment.ref_only:
        if all(unit is not mine for mine, _ in alignment.moved) and not alignment.hidden(unit):
            yield _missing(run, unit)
    for unit in alignment.keras_only:
        if all(unit is not theirs for _, theirs in alignment.moved) and not unit.between:
            yield _extra(run, unit)
    for probe in run.probes:
        if probe.phase == "structure" and probe.tensor == "inputs" and probe.status == "born":
            pair = next(p for p in alignment.pairs if p.ref.name == probe.layer)
            permuted = isinstance(pair.ref.kind, Concat) and _same_sources(run, pair.ref, pair.keras)
            lost = len(pair.ref.inputs) > len(pair.keras.inputs)
            cause = "channel-order" if permuted else "layer-missing" if lost else "layer-order"
            words = f"{probe.layer} {probe.note}."
            tried = explanation(run, pair) if permuted else None
            sure = tried is not None and any(p.cause == cause for p in tried.proposals)
            changes = grafts.reordered(run, pair)
            fix = lines(run, changes) or f"call {probe.keras_layer} on the partners of what {probe.layer} reads"
            yield finding(cause, "divergence", "structure", words, pair=pair, fix=fix, confirmed=sure, changes=changes)


def _missing(run: Comparison, unit: Unit) -> Finding:
    cause, what = "layer-missing", unit.kind.name.lower()
    if isinstance(unit.kind, Activation):
        cause, what = "activation-missing", unit.kind.function
    elif isinstance(unit.kind, Dropout):
        cause = "dropout-missing"
    elif isinstance(unit.kind, Softmax):
        cause = "softmax-missing"
    evidence = f"The reference has {what} {unit.name} behind {_before(run, unit, 'ref')}; nothing in Keras does that."
    changes = grafts.missing(run, unit)
    fix = lines(run, changes) or f"add {_keras_words(unit)} behind {_partner(run, unit)}"
    return _at(cause, unit, "", evidence, fix, changes)


def _extra(run: Comparison, unit: Unit) -> Finding:
    cause, what = "layer-extra", unit.kind.name.lower()
    if isinstance(unit.kind, Activation):
        cause, what = "activation-extra", unit.kind.function
    elif isinstance(unit.kind, Softmax) and _has_softmax(run):
        cause = "softmax-double"
    evidence = (
        f"Keras has {what} {unit.origin} behind {_before(run, unit, 'keras')}; the reference has nothing like it."
    )
    changes = grafts.surplus(run, unit)
    fix = lines(run, changes)
    return Finding(cause, "divergence", "", unit.origin, "structure", evidence, fix, changes=changes)


def _has_softmax(run: Comparison) -> bool:
    """Whether the reference applies softmax, in a layer of its own or in its loss: Keras then applies it twice."""
    return any(
        isinstance(unit.kind, Softmax) or (isinstance(unit.kind, Loss) and unit.kind.function == "softmaxlog")
        for unit in run.alignment.ref_units
    )


def _at(cause: str, unit: Unit, keras_layer: str, evidence: str, fix: str, changes: tuple[Change, ...]) -> Finding:
    return Finding(cause, "divergence", unit.name, keras_layer, "structure", evidence, fix, changes=changes)


def _before(run: Comparison, unit: Unit, side: str) -> str:
    network = run.ref.network if side == "ref" else run.keras.network
    names = []
    for tensor in unit.inputs:
        maker = network.producers.get(tensor)
        names.append((maker.origin or maker.name) if maker else "the input")
    return " and ".join(names) or "the input"


def _partner(run: Comparison, unit: Unit) -> str:
    """The Keras name of what comes before a reference unit."""
    for tensor in unit.inputs:
        pair = run.alignment.by_ref.get(run.alignment.source(tensor, "ref"))
        if pair:
            return pair.keras.origin
    return "the input"


def _keras_words(unit: Unit) -> str:
    """The Keras layer that a unit is, for one that parity does not put in by itself."""
    made = layer_of(unit.kind)
    return written(made["class_name"], made["config"]) if made else f"a layer that does {kind_words(unit.kind)}"


def _same_sources(run: Comparison, ref: Unit, keras: Unit) -> bool:
    mine = sorted(run.alignment.source(t, "ref") for t in ref.inputs)
    theirs = sorted(run.alignment.counterpart(t) or "?" for t in keras.inputs)
    return mine == theirs
