"""From probes to causes: run the rules, order what they found, and say what came first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parity.case import Comparison
from parity.report import PHASES, Finding, FirstDivergence, Probe
from parity.rules import RULES
from parity.rules.unknown import find_rest

__all__ = ["diagnose", "first_divergence"]


def diagnose(run: Comparison) -> tuple[Finding, ...]:
    """Every rule's findings: divergences first, earliest phase and most certain first; notes after them."""
    found = [f for rule in RULES for f in rule(run)]
    found += find_rest(run, found)
    places = {unit.name: i for i, unit in enumerate(run.alignment.ref_units)}

    def order(finding: Finding) -> tuple[bool, int, bool, int]:
        # What holds for the recipe as a whole comes before what holds for one layer.
        place = places.get(finding.layer, -1 if finding.phase == "update" else len(places))
        return finding.severity == "note", PHASES.index(finding.phase), not finding.confirmed, place

    return _once(sorted(dict.fromkeys(found), key=order))


def _once(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """A Keras layer that is called again has its mistake there too, which one finding tells of, where it is first."""
    kept: list[Finding] = []
    for each in found:
        same = [i for i, other in enumerate(kept) if _one_mistake(each, other)]
        if not same:
            kept.append(each)
            continue
        first = kept[same[0]]
        kept[same[0]] = replace(first, evidence=f"{first.evidence} {each.keras_layer} is called at {each.layer} too.")
    return tuple(kept)


def _one_mistake(one: Finding, other: Finding) -> bool:
    """Whether two findings at two layers of the reference are about one layer of Keras, and mended by one change."""
    alike = (one.cause, one.severity, one.keras_layer) == (other.cause, other.severity, other.keras_layer)
    if not alike or not one.keras_layer or not one.changes or one.layer == other.layer:
        return False
    if any(change.action == "weights" for change in (*one.changes, *other.changes)):
        return False
    return all(change in other.changes for change in one.changes)


def first_divergence(
    probes: list[Probe], findings: tuple[Finding, ...], *, strict: bool = False, alone: bool = True
) -> FirstDivergence | None:
    """The earliest phase and probe with a fault born there (probes come in the order in which they are judged).

    With `strict`, faults count that this batch does not show. Where layers could not be run alone (two traces) it is
    the earliest probe above noise, wherever its fault was born.
    """
    statuses = ("born", "unpaired", *(("masked",) if strict else ()), *(() if alone else ("inherited",)))
    faults = [p for p in probes if p.status in statuses]
    if not faults:
        return None
    first = min(faults, key=lambda p: PHASES.index(p.phase))
    return FirstDivergence(
        phase=first.phase,
        layer=first.layer,
        keras_layer=first.keras_layer,
        tensor=first.tensor,
        step=first.step,
        status=first.status,
        isolated=first.isolated_x_floor,
        propagated=first.rms_rel,
        floor=first.floor,
        sentence=_sentence(first, findings),
    )


def _sentence(probe: Probe, findings: tuple[Finding, ...]) -> str:
    """The evidence of the finding that explains the first divergence, or the probe's own words."""
    here = [f for f in findings if f.severity == "divergence" and f.layer == probe.layer]
    same = [f for f in here if f.phase == probe.phase and f.keras_layer in ("", probe.keras_layer)] or here
    if not same and probe.phase == "update":
        same = [f for f in findings if f.severity == "divergence" and f.phase == "update"]
    return same[0].evidence if same else probe.note
