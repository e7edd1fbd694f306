"""A layer makes other numbers each time that it runs on the same inputs, so nothing can be held against it."""

from __future__ import annotations

from collections.abc import Iterator

from parity.case import Comparison
from parity.judge import RESTLESS, RESTLESS_REF
from parity.layers import Loss
from parity.report import Finding
from parity.rules.base import finding

__all__ = ["find"]


def find(run: Comparison) -> Iterator[Finding]:
    """One finding for each layer that does not repeat itself (run twice alone, with the same inputs and masks)."""
    for pair in run.alignment.pairs:
        if isinstance(pair.ref.kind, Loss):
            continue  # draws nothing, but Keras finds the logits behind a sigmoid in the whole run only
        for note, name, other in (
            (RESTLESS, pair.keras.origin, "reference"),
            (RESTLESS_REF, pair.ref.name, "Keras side"),
        ):
            restless = [v for v in run.verdicts.get(pair.ref.name, ()) if v.note == note]
            if not restless:
                continue
            yield finding(
                "nondeterminism",
                "divergence",
                restless[0].phase,
                f"{name}, run twice on the same inputs and weights, makes different numbers "
                f"({', '.join(v.tensor for v in restless)}): a difference to the {other} says nothing there.",
                pair=pair,
                fix=f"give {name} a seed or take the chance out of it, or permit it with --allow 'unverified:{name}'",
                confirmed=True,
            )
