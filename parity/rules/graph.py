"""A layer has no partner, or reads something else than its partner does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from parity.case import Comparison
from parity.changes import Change
from parity.layers import Activation, Concat, Dropout, Loss, Softmax
from parity.report import Finding
from parity.rules import grafts
from parity.rules.base import finding
from parity.rules.explained import explanation
from parity.rules.lines import lines
from parity.rules.making import layer_of, written
from parity.splits import Split, splits
from parity.units import Unit
from parity.wording import kind_words, noun

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
            f"Both sides have {noun(unit.kind)} {unit.name} / {other.origin}, but at another place: in the "
            f"reference it follows {_before(run, unit, 'ref')}, in Keras {_before(run, other, 'keras')}.",
            lines(run, changes) or f"move {other.origin} behind {_partner(run, unit)}",
            changes,
        )
    told = [unit for pair in alignment.moved for unit in pair]
    for split in splits(alignment):
        told += [split.one, *split.parts]
        yield from _parted(run, split)
    for unit in alignment.ref_only:
        if all(unit is not other for other in told) and not alignment.hidden(unit):
            yield _missing(run, unit)
    for unit in alignment.keras_only:
        if all(unit is not other for other in told) and not unit.between:
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


def _parted(run: Comparison, split: Split) -> Iterator[Finding]:
    """Findings for what one side has between two convolutions that the other has in one layer, which has no place."""
    one, other = split.one, "Keras" if split.in_keras else "the reference"
    where = f"between {split.deep.origin} and {split.wide.origin}, which {other} has in one layer, {one.origin}."
    if not split.in_keras:
        yield from (_extra(run, unit, where) for unit in split.between)
        return
    for unit in split.between:
        changes = grafts.apart(run, split) if unit is split.between[0] else None
        yield replace(_missing(run, unit, where, changes), keras_layer=one.origin)


def _missing(run: Comparison, unit: Unit, where: str = "", changes: tuple[Change, ...] | None = None) -> Finding:
    """What only the reference has, at this place in words; `changes` put it in."""
    cause, what = "layer-missing", noun(unit.kind)
    if isinstance(unit.kind, Activation):
        cause, what = "activation-missing", unit.kind.function
    elif isinstance(unit.kind, Dropout):
        cause = "dropout-missing"
    elif isinstance(unit.kind, Softmax):
        cause = "softmax-missing"
    where = where or f"behind {_before(run, unit, 'ref')}; nothing in Keras does that."
    changes = grafts.missing(run, unit) if changes is None else changes
    fix = lines(run, changes) or f"add {_keras_words(unit)} behind {_partner(run, unit)}"
    return _at(cause, unit, "", f"The reference has {what} {unit.name} {where}", fix, changes)


def _extra(run: Comparison, unit: Unit, where: str = "") -> Finding:
    """What only Keras has, at this place in words."""
    cause, what = "layer-extra", noun(unit.kind)
    if isinstance(unit.kind, Activation):
        cause, what = "activation-extra", unit.kind.function
    elif isinstance(unit.kind, Softmax) and _has_softmax(run):
        cause = "softmax-double"
    where = where or f"behind {_before(run, unit, 'keras')}; the reference has nothing like it."
    changes = grafts.surplus(run, unit)
    evidence = f"Keras has {what} {unit.origin} {where}"
    return Finding(cause, "divergence", "", unit.origin, "structure", evidence, lines(run, changes), changes=changes)


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
