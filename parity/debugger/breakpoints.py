"""Breakpoints: at a layer, a phase, a status, a condition on the figures, with hit counts."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from parity.debugger.stops import Stop
from parity.errors import BadUsage
from parity.report import PHASES, STATUSES, Probe

__all__ = ["CONDITIONS", "Breakpoint", "parse_break"]

CONDITIONS = {
    "max_abs": "largest absolute difference end to end",
    "rms_rel": "root mean square of the difference, relative to the reference",
    "x_floor": "isolated distance in noise floors",
    "propagated": "end-to-end distance in noise floors",
    "floor": "the noise floor",
    "nan": "a tensor that is not finite where the other side is (alone, without a comparison)",
}
"""What a condition may name, and what it is."""

_OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "==": operator.eq}
_TERM = re.compile(r"\s*(\w+)\s*(?:(>=|<=|==|>|<)\s*([-+]?[\w.+-]+))?\s*")
_FIGURES = {"x_floor": "isolated_x_floor", "propagated": "propagated_x_floor"}


@dataclass(eq=False)
class Breakpoint:
    """Where a run stops; what is empty stands for anything.

    Attributes:
        layer: pattern of a layer's name on either side.
        phase: one of the phases.
        status: one of the statuses.
        condition: terms such as `max_abs > 1e-3`, joined by `and` or `or` (see `CONDITIONS`).
        after: how often it is passed before it stops a run.
        hits: how often it was met.
        enabled: False passes it.
        number: by which it is named.
    """

    layer: str = ""
    phase: str = ""
    status: str = ""
    condition: str = ""
    after: int = 0
    hits: int = 0
    enabled: bool = True
    number: int = field(default=0)

    def __post_init__(self) -> None:
        if self.phase and self.phase not in PHASES:
            raise BadUsage(f"there is no phase {self.phase!r}; {_meant(self.phase, PHASES)}")
        if self.status and self.status not in STATUSES:
            raise BadUsage(f"there is no status {self.status!r}; {_meant(self.status, STATUSES)}")
        if self.condition:
            _parsed(self.condition)

    def met(self, stop: Stop, probes: Sequence[Probe]) -> bool:
        """Whether it stands at a stop with these probes; hit counts are the caller's."""
        if not self.enabled or (self.phase and stop.phase != self.phase):
            return False
        names = [name for name in (stop.layer, stop.keras_layer) if name]
        if self.layer and not any(fnmatchcase(name, self.layer) for name in names):
            return False
        if not self.status and not self.condition:
            return True
        here = [probe for probe in probes if not self.status or probe.status == self.status]
        return any(_holds(self.condition, probe) for probe in here)

    @property
    def words(self) -> str:
        """What was asked for, as `break` takes it."""
        named = f"layer={self.layer}" if self.layer in (*PHASES, *STATUSES) else self.layer
        parts = [named, self.phase, self.status]
        parts += [f"after={self.after}"] if self.after else []
        parts += [f"if {self.condition}"] if self.condition else []
        return " ".join(part for part in parts if part) or "everywhere"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a session's file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Breakpoint:
        """Of a session's file; raises BadUsage for what `break` would not take."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        return cls(**known)


def _meant(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def parse_break(words: str) -> Breakpoint:
    """The breakpoint of a command: `conv* phase=backward status=born after=2 if max_abs > 1e-3 or nan`.

    A word that is a phase or a status may stand alone; a condition may too, without `if`.

    Raises:
        BadUsage: a word that is none of these.
    """
    before, found, condition = f" {words.strip()} ".partition(" if ")
    if not found and any(sign in words for sign in "<>"):
        first = words.split()[0]
        before, condition = ("", words) if first in CONDITIONS else (first, words[words.index(first) + len(first) :])
    late = re.search(r"\s(?:after|hits)=\S*\s*$", condition)  # it may stand at the end as well
    if late is not None:
        before, condition = before + late.group(), condition[: late.start()]
    if found and not condition.strip():
        raise BadUsage("break: if what? write a condition, e.g. if max_abs > 1e-3, if x_floor > 50 or if nan")
    values: dict[str, Any] = {"condition": condition.strip()}
    for word in before.split():
        name, equals, value = word.partition("=")
        if equals and name in ("layer", "phase", "status"):
            values[name] = value
        elif equals and name in ("after", "hits"):
            if not value.isdigit():
                raise BadUsage(f"break: {name} is a whole number, not {value!r}")
            values["after"] = int(value)
        elif equals:
            raise BadUsage(f"break: there is no {name}=; there are layer=, phase=, status= and after=")
        elif word in PHASES:
            values["phase"] = word
        elif word in STATUSES:
            values["status"] = word
        elif word == "nan":
            values["condition"] = "nan"
        else:
            values["layer"] = word
    return Breakpoint(**values)


def _parsed(condition: str) -> list[list[tuple[str, str, float]]]:
    """Alternatives of terms that must all hold: (name, sign, number)."""
    found: list[list[tuple[str, str, float]]] = []
    for part in re.split(r"\bor\b", condition):
        terms: list[tuple[str, str, float]] = []
        for text in re.split(r"\band\b", part):
            match = _TERM.fullmatch(text)
            name = match.group(1) if match else ""
            if match is None or name not in CONDITIONS or (name == "nan") != (match.group(2) is None):
                raise BadUsage(
                    f"{text.strip() or condition!r} is no condition; write one as max_abs > 1e-3, x_floor > 50 or nan "
                    f"({', '.join(CONDITIONS)})"
                )
            try:
                terms.append((name, match.group(2) or "", float(match.group(3) or 0)))
            except ValueError:
                raise BadUsage(f"{match.group(3)!r} in the condition is no number") from None
        found.append(terms)
    return found


def _holds(condition: str, probe: Probe) -> bool:
    if not condition:
        return True

    def term(name: str, sign: str, number: float) -> bool:
        if name == "nan":
            return probe.max_abs is not None and not math.isfinite(probe.max_abs)
        value = getattr(probe, _FIGURES.get(name, name))
        return value is not None and _OPERATORS[sign](value, number)

    return any(all(term(*parts) for parts in terms) for terms in _parsed(condition))
