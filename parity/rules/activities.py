"""The two sides add other amounts to the loss for what a layer makes: activity regularizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from parity.activity import TENSOR, Added, added, added_value
from parity.case import Comparison
from parity.changes import Change, holder
from parity.network import Layer
from parity.report import Finding
from parity.rules.base import finding, shown
from parity.rules.places import path

__all__ = ["find"]


def find(run: Comparison) -> Iterator[Finding]:
    """Findings of the loss phase: it is the loss that has another term."""
    born = {probe.layer for probe in run.probes if probe.tensor == TENSOR and probe.status == "born"}
    for each in added(run):
        if each.pair.ref.name in born:
            yield _finding(run, each)


def _finding(run: Comparison, each: Added) -> Finding:
    mine, theirs = _words(run, each, each.ref), _words(run, each, each.keras)
    made = each.pair.ref.name
    if mine and theirs:
        evidence = f"For what {made} makes the reference adds {mine} to the loss, Keras {theirs.rstrip(',')}."
    else:
        one, other = ("the reference", "Keras") if mine else ("Keras", "the reference")
        evidence = f"For what {made} makes {one} adds {mine or theirs} to the loss; {other} adds nothing."
    changes = tuple(_changes(run, each))
    fix = "; ".join(f"{c.layer}: activity_regularizer={holder(c)}" for c in changes if c.action == "regularize")
    return finding("loss-kind", "divergence", "loss", evidence, pair=each.pair, fix=fix, changes=changes)


def _words(run: Comparison, each: Added, layers: Sequence[Layer]) -> str:
    """What one side adds, with its size here; empty for nothing."""
    if not layers:
        return ""
    output = run.course.passes[0].outputs.get(each.pair.ref.output)
    value = None if output is None else added_value(layers, output)
    otherwise = len({bool(layer.activity.get("mean")) for layer in (*each.ref, *each.keras)}) > 1
    laws: list[str] = []
    for layer in layers:
        config = {key: held for key, held in layer.activity.get("config", {}).items() if held}
        settings = ", ".join(f"{key} {shown(held)}" for key, held in config.items())
        shared = "the mean over the images of " if layer.activity.get("mean") and otherwise else ""
        laws.append(f"{shared}{layer.activity['class_name']} ({settings})")
    return " and ".join(laws) + ("" if value is None else f", {value:.4g} here,")


def _changes(run: Comparison, each: Added) -> Iterator[Change]:
    """The reference's laws on the Keras layer, and none on the others that have one."""
    wanted: dict[str, Any] = {"l1": 0.0, "l2": 0.0}
    images = len(next(iter(run.data.ref.values())))
    ours = run.keras.network[each.pair.keras.layers[-1]]
    mean = getattr(run.keras, "averages_activities", False)
    for layer in each.ref:
        config = layer.activity.get("config", {})
        if not set(config) <= {"l1", "l2"}:
            wanted["penalty"] = {key: layer.activity[key] for key in ("class_name", "config")}
            continue
        share = (images if mean else 1) / (images if layer.activity.get("mean") else 1)
        for key in ("l1", "l2"):
            wanted[key] += float(config.get(key) or 0) * share
    homes = [layer for layer in each.keras if layer.source_type == "ActivityRegularization"] or each.keras or [ours]
    for layer in each.keras:
        if layer is not homes[0]:
            yield Change("regularize", layer.origin, {"role": "activity", "l2": 0.0})
    home = homes[0].origin or path(run, each.pair.keras)
    if homes[0].source_type == "ActivityRegularization" and "penalty" not in wanted:
        yield Change("argument", home, {"l1": wanted["l1"], "l2": wanted["l2"]})
    else:
        yield Change("regularize", home, {"role": "activity", **wanted})
