"""How numbers, names and verdicts are written in every report that people read."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["STYLES", "clean", "plural", "relative", "shape_words", "times_floor", "verdict_style", "worst"]

STYLES = {
    "match": "green",
    "masked": "yellow",
    "inherited": "cyan",
    "born": "bold red",
    "unpaired": "bold magenta",
    "unverified": "bold yellow",
    "diverged": "bold red",
}
"""Status or verdict → style. The word itself is always written, so that nothing rests on the colour."""

_SEVERITY = ("match", "masked", "inherited", "unverified", "unpaired", "born")


def verdict_style(word: str) -> str:
    """The style of a status or verdict; plain for a word that is neither."""
    return STYLES.get(word, "")


def worst(statuses: Iterable[str]) -> str:
    """The gravest of these statuses, `match` if there is none."""
    return max(statuses, key=lambda s: _SEVERITY.index(s) if s in _SEVERITY else 0, default="match")


def times_floor(value: float | None) -> str:
    """A distance in units of the noise floor in at most six characters: `0.7×`, `340×`, `12k×`, `3e7×`."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return f"{value}×"
    if value == 0:
        return "0×"
    if value < 0.05:
        return "<0.1×"
    if value < 9.95:
        return f"{value:.1f}×"
    if value < 999.5:
        return f"{value:.0f}×"
    if value < 999_500:
        return f"{value / 1000:.0f}k×"
    return f"{_short(value)}×"


def relative(value: float | None) -> str:
    """A relative error with one digit, in at most five characters: `2e-7`, `0.3`, `0`."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 9.95:
        return f"{value:.1f}" if abs(value) >= 0.95 else f"{value:.2f}"
    if 9.95 <= abs(value) < 999.5:
        return f"{value:.0f}"
    return _short(value)


def _short(value: float) -> str:
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def clean(text: object) -> str:
    """Text from a file without what would move a terminal's cursor, change its colours or break a line."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _unsafe(char) else char for char in str(text))


def _unsafe(char: str) -> bool:
    # Cc and Cf hold escape, newlines, and the marks that reverse the direction of what follows.
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def plural(count: int, one: str, many: str = "") -> str:
    """`1 layer`, `3 layers`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def shape_words(shape: Sequence[int | None] | None) -> str:
    """`26×26×8`; an open extent is `?`, an unknown shape empty."""
    if not shape:
        return ""
    return "×".join("?" if extent is None else str(extent) for extent in shape)
