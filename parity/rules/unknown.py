"""A fault was born in a layer and no rule names its cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from parity.case import Comparison
from parity.report import Finding

__all__ = ["find_rest"]


def find_rest(run: Comparison, found: Sequence[Finding]) -> Iterable[Finding]:
    """`unknown` for each layer with a born probe that no divergence found so far lies at."""
    named = {(f.layer, f.keras_layer) for f in found if f.severity == "divergence"}
    layers = {name for pair in named for name in pair if name}
    recipe = any(f.phase == "update" and f.severity == "divergence" for f in found)
    seen: set[str] = set()
    for probe in run.probes:
        name = probe.layer or probe.keras_layer
        if probe.status != "born" or name in layers or name in seen or probe.keras_layer in layers:
            continue
        if run.explanations.get(probe.layer) is not None:
            continue  # said with others that have the same cause
        if probe.phase == "update" and recipe:
            continue
        seen.add(name)
        if probe.phase == "input":
            evidence = f"The two sides are given different inputs ({probe.note or f'{probe.rms_rel:.2g} apart'})."
            yield Finding("unknown", "divergence", probe.layer, probe.keras_layer, probe.phase, evidence)
            continue
        size = f"{probe.isolated_x_floor:.3g} times the noise floor" if probe.isolated_x_floor else probe.note
        evidence = (
            f"With the reference's inputs and weights, {probe.tensor} of {probe.keras_layer or probe.layer} differs "
            f"by {size}; no field that parity knows of explains it."
        )
        yield Finding("unknown", "divergence", probe.layer, probe.keras_layer, probe.phase, evidence)
