"""The rules that name causes; a new one is a new file and a line here."""

from __future__ import annotations

from parity.rules import (
    activities,
    decay,
    fields,
    graph,
    hidden,
    inputs,
    multipliers,
    nondeterminism,
    notes,
    parameters,
    penalties,
    recipe,
    weights,
)
from parity.rules.base import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    inputs.find,
    nondeterminism.find,
    graph.find,
    fields.find,
    hidden.find,
    parameters.find,
    activities.find,
    weights.find,
    recipe.find,
    decay.find,
    penalties.find,
    multipliers.find,
    notes.find,
)
"""Every rule, in the order in which their findings are read when phase and certainty are equal."""
