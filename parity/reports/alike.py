"""Findings that say the same of several layers, told once: an epsilon that is wrong in fifty normalisations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from parity.report import Finding
from parity.wording import listed

__all__ = ["Told", "together"]

_FEWEST = 3
"""From how many layers on they are told together."""

_NAMED = 12
"""How many of them are named in a sentence."""


@dataclass(frozen=True)
class Told:
    """A finding, and the others that say the same of other layers.

    Attributes:
        finding: the first of them, in the report's order.
        others: the rest.
    """

    finding: Finding
    others: tuple[Finding, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The other layers, by the reference's name where it has one."""
        return tuple(other.layer or other.keras_layer for other in self.others)

    @property
    def named(self) -> str:
        """They in a sentence, of many the first ones."""
        return listed(self.places, _NAMED)


def together(findings: Sequence[Finding]) -> list[Told]:
    """The findings in their order, those that differ in nothing but the layer's name with the first of them."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        alike.setdefault(_said(finding), []).append(finding)
    made: list[Told] = []
    for same in alike.values():
        made += [Told(same[0], tuple(same[1:]))] if len(same) >= _FEWEST else [Told(finding) for finding in same]
    order = {id(finding): place for place, finding in enumerate(findings)}
    return sorted(made, key=lambda told: order[id(told.finding)])


def _said(finding: Finding) -> tuple[object, ...]:
    """What a finding says, without the names of its layer."""
    names = sorted({finding.layer, finding.keras_layer} - {""}, key=len, reverse=True)
    if not names:
        return (id(finding),)
    words = re.compile("|".join(rf"(?<![\w/@]){re.escape(name)}(?![\w/@])" for name in names))
    text = (words.sub("…", part) for part in (finding.evidence, finding.fix))
    return (finding.cause, finding.severity, finding.phase, finding.confirmed, finding.fix_verified, *text)
