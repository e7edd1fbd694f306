"""Two paired layers differ in a field: an epsilon, a slope, a stride, groups, a pooling method, a loss.

Confirmed where the reference's layer, given the Keras values of the fields that differ, makes the Keras tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from parity.align import Pair
from parity.case import Comparison
from parity.differences import Difference, differences
from parity.layers import Activation, BatchNorm, Conv, Kind, Loss, Pad, Pool, Softmax
from parity.report import Finding
from parity.rules import repairs
from parity.rules.base import finding, shown
from parity.rules.explained import explanation
from parity.rules.lines import lines
from parity.rules.making import spelled
from parity.rules.places import everywhere

__all__ = ["find"]


def find(run: Comparison) -> Iterable[Finding]:
    """Findings of every pair whose fields differ, and of pooling over zeros that were padded before it."""
    for pair in run.alignment.pairs:
        found = differences(pair)
        acted = run.diverged(pair, "structure", "forward", "loss", "backward")
        for difference in found:
            yield _finding(run, pair, difference, acted)
        if not found and acted and _pads_with_zeros(run, pair) and explanation(run, pair) is None:
            yield finding(
                "pool-pad-value",
                "divergence",
                "forward",
                f"{pair.keras.origin} takes the maximum over zeros that ZeroPadding2D put around the map; in the "
                "reference padding never wins a maximum, so the border differs wherever the inputs are negative.",
                pair=pair,
                fix=f"pad before {pair.keras.origin} with keras.ops.pad(x, …, constant_values=-1e30)",
            )


def _finding(run: Comparison, pair: Pair, difference: Difference, acted: bool) -> Finding:
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
    found = explanation(run, pair) if severity == "divergence" and difference.phase != "update" else None
    confirmed = found is not None and difference.field in found.fields
    changes = everywhere(run, pair.keras, repairs.field(run, pair, difference))
    short = isinstance(pair.ref.kind, Activation | Softmax) and not difference.worded
    short = short and all(change.action == "replace" for change in changes)
    fix = "" if short and getattr(pair.ref.kind, "function", "") not in _HARD else lines(run, changes)
    return finding(
        difference.cause,
        severity,
        phase,
        evidence,
        pair=pair,
        fix=fix or _fix(run, pair, difference),
        confirmed=confirmed,
        changes=changes,
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
    if difference.cause == "softmax-missing" and isinstance(ref, Loss):
        return (
            f"The reference's {pair.ref.name} applies softmax before the logarithm; the Keras loss takes what it is "
            "given as probabilities, but it is given logits."
        )
    if difference.cause == "padding-asymmetric":
        alike = sum(difference.ref) == sum(difference.keras)
        what = "Both pad as many cells" if alike else "Windows reach as many padded cells"
        return (
            f"{what}, but on other sides: [top bottom left right] is {mine} in the reference and {theirs} in Keras, so "
            "every window is shifted."
        )
    if difference.worded:
        mine, theirs = (
            _HARD.get(value, value) if isinstance(value, str) else spelled(value)
            for value in (difference.ref, difference.keras)
        )
        setting = f"{difference.field} of {pair.keras.origin}"
        return f"{setting} is {mine} in the reference{_called(pair)} and {theirs} in Keras."
    if difference.field == "spatial":
        whole, single = (pair.keras.origin, pair.ref.name) if difference.keras else (pair.ref.name, pair.keras.origin)
        return f"{whole} drops whole channels, {single} single values: the same share, by another law."
    if difference.field == "frozen" and isinstance(keras, BatchNorm):
        by = ("the batch's moments", "its running statistics, as trainable=False has it")
        mine, theirs = by[bool(difference.ref)], by[bool(difference.keras)]
        return f"{pair.keras.origin} normalises by {theirs}; the reference's {pair.ref.name} by {mine.split(',')[0]}."
    if difference.field == "function" and {difference.ref, difference.keras} == set(_HARD):
        return f"{pair.ref.name} is {_HARD[difference.ref]} in the reference, and {_HARD[difference.keras]} in Keras."
    what = {
        "pad": "padding [top bottom left right]",
        "function": "loss" if isinstance(ref, Loss) else "function",
        "momentum": "weight of the old running average",
    }.get(difference.field, difference.field)
    return f"{what} is {mine} in the reference ({pair.ref.name}) and {theirs} in Keras ({pair.keras.origin})."


def _called(pair: Pair) -> str:
    """The reference's name of a layer, where it has another one."""
    return "" if pair.ref.name == pair.keras.origin else f" ({pair.ref.name})"


_HARD: Mapping[Any, str] = {
    "hard_sigmoid": "Keras 3's hard_sigmoid, relu6(x + 3)/6",
    "hard_sigmoid_legacy": "Keras 2's hard_sigmoid, clip(0.2x + 0.5, 0, 1)",
}


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
    if difference.worded:
        *inside, setting = difference.field.split(".")
        where = f"the {inside[0]} inside {name}" if inside else name
        line = Activation(difference.ref).keras_line("function") if setting.endswith("activation") else ""
        return f"{where}: {setting}={line.partition('=')[2] or spelled(difference.ref)}"
    if isinstance(kind, Loss):
        if difference.cause == "softmax-missing":
            return "model.compile(loss=…CategoricalCrossentropy(from_logits=True), …), or end with a softmax"
        line = kind.keras_line(difference.field)
        if not line:
            return ""
        return f"model.compile({line}, …)" if line.startswith("loss=") else f"model.compile(loss=…({line}), …)"
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
