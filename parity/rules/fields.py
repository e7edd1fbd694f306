"""Two paired layers differ in a field: an epsilon, a slope, a stride, groups, a pooling method, a loss.

The experiment: the reference's layer is given the Keras value of every field that differs, run again on the same inputs
(in float64 where Keras' layer can), and must then reproduce the Keras tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.align import Pair
from parity.bench import Trial
from parity.case import Comparison
from parity.differences import Difference, differences
from parity.layers import Activation, BatchNorm, Conv, Kind, Loss, Pad, Pool, Softmax
from parity.report import Finding
from parity.rules.base import finding, shown
from parity.runner import Local
from parity.tensors import shaped
from parity.tolerance import CLEAN, distance

__all__ = ["find"]


def find(run: Comparison) -> Iterable[Finding]:
    """Findings of every pair whose fields differ, and of pooling over zeros that were padded before it."""
    for pair in run.alignment.pairs:
        found = differences(pair)
        acted = run.diverged(pair, "structure", "forward", "loss", "backward")
        for difference in found:
            yield _finding(run, pair, difference, found, acted)
        if not found and acted and _pads_with_zeros(run, pair):
            yield finding(
                "pool-pad-value",
                "divergence",
                "forward",
                f"{pair.keras.origin} takes the maximum over zeros that ZeroPadding2D put around the map; in the "
                "reference padding never wins a maximum, so the border differs wherever the inputs are negative.",
                pair=pair,
                fix=f"pad before {pair.keras.origin} with keras.ops.pad(x, …, constant_values=-1e30)",
            )


def _finding(
    run: Comparison, pair: Pair, difference: Difference, together: Sequence[Difference], acted: bool
) -> Finding:
    if difference.phase == "update":
        moved = any(
            m.status == "born" for m in run.moves if (m.link.pair is pair and not m.link.linear) or _average(m, pair)
        )
        severity = "divergence" if moved else "note"
    else:
        severity = "divergence" if acted else "note"
    phase = _first_phase(run, pair, difference)
    hidden = "" if severity == "divergence" else " This batch does not show it."
    evidence = _evidence(pair, difference) + hidden
    confirmed = severity == "divergence" and phase != "structure" and _reproduced(run, pair, difference, together)
    return finding(
        difference.cause, severity, phase, evidence, pair=pair, fix=_fix(run, pair, difference), confirmed=confirmed
    )


def _average(move: Any, pair: Pair) -> bool:
    return move.link.pair is pair and move.link.role == "mean"


def _first_phase(run: Comparison, pair: Pair, difference: Difference) -> str:
    if difference.phase == "update":
        return "update"
    order = ("structure", "forward", "loss", "backward")
    return next((phase for phase in order if run.diverged(pair, phase)), difference.phase)


def _evidence(pair: Pair, difference: Difference) -> str:
    ref, keras = pair.ref.kind, pair.keras.kind
    mine, theirs = shown(difference.ref), shown(difference.keras)
    if difference.field == "groups" and isinstance(ref, Conv) and isinstance(keras, Conv):
        return _groups(pair, ref, keras)
    if difference.cause == "softmax-missing":
        return (
            f"The reference's {pair.ref.name} applies softmax before the logarithm; the Keras loss takes "
            f"{pair.keras.origin}'s inputs as probabilities, but they are logits."
        )
    if difference.cause == "padding-asymmetric":
        return (
            f"Both pad as many cells, but on other sides: [top bottom left right] is {mine} in the reference and "
            f"{theirs} in Keras, so every window is shifted."
        )
    what = {
        "pad": "padding [top bottom left right]",
        "function": "loss" if isinstance(ref, Loss) else "function",
        "momentum": "weight of the old running average",
    }.get(difference.field, difference.field)
    return f"{what} is {mine} in the reference ({pair.ref.name}) and {theirs} in Keras ({pair.keras.origin})."


def _groups(pair: Pair, ref: Conv, keras: Conv) -> str:
    def words(kind: Conv) -> str:
        return "one dense filter bank" if kind.groups == 1 else f"{kind.groups} filter groups"

    return (
        f"The reference runs {pair.ref.name} as {words(ref)}: each filter sees 1/{ref.groups} of the input channels "
        f"(MatConvNet's groups are implicit, from filters shallower than the input). Keras' {pair.keras.origin} is "
        f"{words(keras)}, with {_ratio(keras.groups, ref.groups)} the weights."
    )


def _ratio(keras: int, ref: int) -> str:
    return f"{ref // keras} times" if ref % keras == 0 else f"{ref}/{keras} times"


def _fix(run: Comparison, pair: Pair, difference: Difference) -> str:
    kind: Kind = pair.ref.kind
    name = pair.keras.origin
    if isinstance(kind, Loss):
        if difference.cause == "softmax-missing":
            return "model.compile(loss=…CategoricalCrossentropy(from_logits=True), …), or end with a softmax"
        line = kind.keras_line(difference.field)
        return f"model.compile(loss=…({line}), …)" if line else ""
    if isinstance(kind, Activation | Softmax):
        line = kind.keras_line(difference.field)
        return f"{name}: {line}" if line else ""
    source = run.keras.network[pair.keras.layers[-1]]
    line = kind.keras_line(difference.field)
    if not line:
        return ""
    typed = source.source_type or kind.name
    return f"{name}: {typed}(…, {line})"


def _pads_with_zeros(run: Comparison, pair: Pair) -> bool:
    kinds = [run.keras.network[name].kind for name in pair.keras.layers]
    return (
        isinstance(pair.keras.kind, Pool) and pair.keras.kind.method == "max" and any(isinstance(k, Pad) for k in kinds)
    )


# --------------------------------------------------------------------------------------------------------- experiments


def _reproduced(run: Comparison, pair: Pair, difference: Difference, together: Sequence[Difference]) -> bool:
    """Whether the reference with Keras' fields gives Keras' tensors, and without this one edit does not."""
    edit = getattr(run.ref, "edited", None)
    if edit is None or run.bench is None or len(pair.ref.layers) != 1 or difference.phase == "update":
        return False
    every = {d.field: d.keras for d in together if d.phase != "update"}
    if not _explains(run, pair, every):
        return False
    others = {name: value for name, value in every.items() if name != difference.field}
    return not _explains(run, pair, others)


def _explains(run: Comparison, pair: Pair, edits: dict[str, Any]) -> bool:
    bench = run.bench
    assert bench is not None
    if isinstance(pair.ref.kind, Activation | Softmax) and type(pair.ref.kind) is not type(pair.keras.kind):
        kind: Kind = pair.keras.kind if edits else pair.ref.kind
    elif isinstance(pair.ref.kind, BatchNorm) and "epsilon" in edits and run.mode == "eval":
        return False  # MatConvNet's stored deviation already holds its own epsilon
    else:
        kind = replace(pair.ref.kind, **edits)
    trial = bench.trial(pair)
    try:
        edited = run.ref.edited(pair.ref.layers[-1], kind)  # type: ignore[attr-defined]
        made = trial.run_ref(runner=edited, ties="row")
        wide = trial.run_ref(runner=edited, ties="row", precision=64)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return _alike(run, trial, made, wide)


def _alike(run: Comparison, trial: Trial, made: Local, wide: Local) -> bool:
    """Whether every tensor of the edited reference is the Keras one, to the noise floor (or in float64)."""
    assert run.bench is not None
    names = {v.tensor: v for v in run.verdicts[trial.pair.ref.name]}
    for name, verdict in names.items():
        actual = trial.tensor(trial.keras_local, "keras", name)
        expected = trial.tensor(made, "ref", name)
        if actual is None or expected is None:
            continue
        fitted = shaped(actual, expected.shape)
        if fitted is None:
            return False
        floor = np.asarray(verdict.floor)
        if distance(fitted, expected).x_floor(floor) <= CLEAN:
            continue
        truth = trial.tensor(wide, "ref", name)
        judged = trial.tensor(trial.referee, "keras", name) if trial.referee else None
        if truth is None or judged is None:
            return False
        again = shaped(judged, truth.shape)
        if again is None or distance(again, truth).x_floor(floor) > 1.0:
            return False
    return True
