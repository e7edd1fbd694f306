"""Errors that tests measure, kept with their reports so that the end of a run can show a table of them.

They travel as a test's `user_properties`, which pytest-xdist carries from its workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["drain", "record", "tables"]

_MARK = "measured"
_pending: list[tuple[str, str, float]] = []


def record(table: str, family: str, error: float) -> None:
    """Note one measured case.

    Args:
        table: the title of the table that it belongs to.
        family: its row.
        error: what was measured; a row shows its greatest.
    """
    _pending.append((table, family, float(error)))


def drain() -> list[tuple[str, list[Any]]]:
    """What was noted since the last call, as `user_properties`."""
    found = [(_MARK, list(item)) for item in _pending]
    _pending.clear()
    return found


def tables(properties: Iterable[tuple[str, Any]]) -> Mapping[str, list[str]]:
    """Title → lines of each table: a row's name, number of cases and greatest error (NaN is the greatest)."""
    rows: dict[str, dict[str, list[float]]] = {}
    for mark, value in properties:
        if mark == _MARK:
            title, family, error = value
            rows.setdefault(title, {}).setdefault(family, []).append(float(error))
    made: dict[str, list[str]] = {}
    for title, families in sorted(rows.items()):
        wide = max(len("family"), *map(len, families))
        made[title] = [f"{'family':{wide}}  cases  worst error"]
        for family, errors in sorted(families.items()):
            worst = max(errors, key=lambda e: (e != e, e))
            made[title].append(f"{family:{wide}}  {len(errors):5}  {worst:11.1e}")
    return made
