"""A report as JSON, schema `parity-report/1`: the same bytes for the same report, and valid JSON whatever it holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from parity.report import SCHEMA

if TYPE_CHECKING:
    from parity.report import Report

__all__ = ["to_dict", "to_json"]

_ORDER = ("divergence", "note")


def to_json(report: Report, indent: int | None = 2) -> str:
    """The report as one JSON document, ending with a newline.

    Numbers that JSON has no word for are the strings `"nan"`, `"inf"` and `"-inf"` (Python's `float` reads them back);
    null means that a number was not measured.

    Args:
        report: what to write.
        indent: as in `json.dumps`; None writes one line.
    """
    return json.dumps(to_dict(report), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def to_dict(report: Report) -> dict[str, Any]:
    """The same as plain dicts, lists, strings, numbers and None.

    Keys: schema, verdict, exit_code, first_divergence, findings (divergences first, in the report's order), probes,
    layers, recipe, outcome, notes, options, phases, environment, inputs.
    """
    findings = sorted(report.findings, key=lambda finding: _ORDER.index(finding.severity))
    return {
        "schema": SCHEMA,
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "first_divergence": _plain(report.first_divergence),
        "findings": _plain(findings),
        "probes": _plain(report.probes),
        "layers": [
            {
                **_plain(row),
                "cells": {
                    phase: dict(zip(("status", "isolated_x_floor", "propagated"), map(_plain, cell), strict=True))
                    for phase, cell in row.cells.items()
                },
            }
            for row in report.layers
        ],
        "recipe": _plain(report.recipe),
        "outcome": _plain(report.outcome),
        "notes": _plain(report.notes),
        "options": _plain(report.options),
        "phases": _plain(report.phases),
        "environment": _plain(report.environment),
        "inputs": _plain(report.inputs),
    }


def _plain(value: Any) -> Any:
    """`value` in JSON's own types: dataclasses become objects, numpy scalars and arrays numbers and lists."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        # A lone surrogate (a file name that is not UTF-8) has no place in a JSON document.
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, PathLike):
        return _plain(str(fspath(value)))
    if hasattr(value, "tolist"):  # numpy: a scalar gives a number, an array gives lists
        return _plain(value.tolist())
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
