"""Changes of the Keras side as the lines of Keras that someone would write: the text of a finding's fix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from parity.case import Comparison
from parity.changes import Change, holder
from parity.layers import Conv, Pad, Pool
from parity.rules.making import constructor, spelled, written
from parity.rules.places import path

__all__ = ["lines"]

_OF_A_LAYER = ("argument", "regularize", "constrain")
"""Actions that give a layer's constructor other arguments."""


def lines(run: Comparison, changes: Sequence[Change]) -> str:
    """What these changes come to, e.g. `conv2: Conv2D(…, strides=(2, 2))`; empty for what is no line of Keras."""
    types = {layer.origin or layer.name: layer.source_type for layer in run.keras.network}
    made = [change for change in changes if change.action in ("insert", "replace")]
    new = {change.values["config"].get("name") for change in made if change.action == "insert"}
    replaced = {change.layer for change in made if change.action == "replace"}
    told: list[str] = []
    done: set[str] = set()
    for change in changes:
        own = [c for c in changes if c.layer == change.layer and c.action in _OF_A_LAYER]
        of_new = change.layer.rsplit("/", 1)[-1] in new or change.layer in replaced
        if change in made:
            told.append(_made(run, change, changes))
        elif change.action not in _OF_A_LAYER:
            told.append("" if of_new else _line(change))
        elif not of_new and change.layer not in done:
            done.add(change.layer)
            held, behind = _arguments(run, own)
            told.append(f"{change.layer}: {types.get(change.layer, '')}(…, {', '.join(held)}){behind}")
    return "; ".join(line for line in told if line)


def _line(change: Change) -> str:
    name, values = change.layer, change.values
    match change.action:
        case "remove":
            return f"remove {_spoken(name)}"
        case "rewire" if "behind" in values:
            return f"move {_spoken(name)} behind {values['behind']}"
        case "rewire" if "order" in values:
            return f"call {name} on its inputs in the order {' '.join(str(i + 1) for i in values['order'])}"
        case "rewire":
            return f"{name}({_joined(values['inputs'])})"
        case "weights":
            return f"load the reference's {values['role']} into {name}"
        case "trainable":
            return f"{name}.trainable = {bool(values['trainable'])}"
        case "loss" if "weight" in values:
            return f"loss_weights: {values['weight']:.6g} times as much"
        case "loss" if "class_name" in values:
            made = constructor(values["class_name"], values.get("config") or {})
            return f"model.compile(loss=keras.losses.{made}, …)"
        case "loss":
            given = ", ".join(f"{key}={spelled(value)}" for key, value in values["config"].items())
            return f"model.compile(loss=…({given}), …)"
        case _:
            return ""


def _spoken(name: str) -> str:
    return f"{name.removesuffix(':activation')}'s activation" if name.endswith(":activation") else name


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"


def _made(run: Comparison, change: Change, changes: Sequence[Change]) -> str:
    """The new layer with all that is told of it, and where it goes."""
    values, where = change.values, change.layer.removesuffix(":activation") or "the input"
    kind, config = str(values["class_name"]), dict(values.get("config") or {})
    home = change.layer.rsplit("/", 1)[0] + "/" if "/" in change.layer else ""
    called = (change.layer,) if change.action == "replace" else (config.get("name"), f"{home}{config.get('name')}")
    own = [c for c in changes if c.layer in called and c.action in _OF_A_LAYER]
    held, behind = _arguments(run, own, depthwise=kind.startswith("Depthwise"))
    made = written(kind, config, held) + behind
    if change.action == "replace":
        return f"{change.layer}: {made} in its place"
    if values.get("inputs") or values.get("aside"):
        return f"add {made} on {_joined(values.get('inputs') or [where])}"
    if change.layer.endswith(":activation"):
        return f"add {made} between {where} and its activation"
    return f"add {made} {'in front of' if values.get('before') else 'behind'} {where}"


def _arguments(run: Comparison, changes: Sequence[Change], depthwise: bool = False) -> tuple[list[str], str]:
    """The arguments of a constructor, and what else a padding takes."""
    held, behind = [], ""
    for change in changes:
        values: Mapping[str, Any] = change.values
        if change.action != "argument":
            role = str(values["role"])
            word = {"gamma": "depthwise", "beta": "bias"}.get(role, role) if depthwise else role
            what = "regularizer" if change.action == "regularize" else "constraint"
            held.append(f"{word}_{what}={holder(change)}")
            continue
        for key, value in values.items():
            if key != "padding" or isinstance(value, str):
                held.append(f"{key}={spelled(value)}")
                continue
            zeros = _zeros_before(run, change.layer)
            behind = f" without {zeros} before it" if zeros else ""
            if any(value) and list(value) == _same(run, change.layer):
                held.append('padding="same"')
                continue
            held.append('padding="valid"')
            if any(value):
                pairs = [(value[i], value[i + 1]) for i in range(0, len(value), 2)]
                sides = spelled(pairs[0] if len(pairs) == 1 else pairs)
                behind = f" behind ZeroPadding{len(pairs)}D({sides})" + (f" in place of {zeros}" if zeros else "")
    return held, behind


def _zeros_before(run: Comparison, layer: str) -> str:
    """The zero padding that stands before this layer and is read as a part of it; empty where there is none."""
    unit = next((pair.keras for pair in run.alignment.pairs if path(run, pair.keras) == layer), None)
    parts = [] if unit is None else [run.keras.network[name] for name in unit.layers]
    return next((part.origin or part.name for part in parts if isinstance(part.kind, Pad)), "")


def _same(run: Comparison, layer: str) -> list[int] | None:
    """The cells that `padding="same"` adds to what this layer reads in the reference, if Keras' layer can have it."""
    pair = next((pair for pair in run.alignment.pairs if path(run, pair.keras) == layer), None)
    kind = pair.ref.kind if pair else None
    fed = pair.ref.fed if pair else None
    if not isinstance(kind, Conv | Pool) or kind.size is None or fed is None or len(fed) != len(kind.size) + 1:
        return None
    if isinstance(kind, Conv) and any(stride > 1 for stride in kind.stride):
        return None
    cells: list[int] = []
    for extent, size, stride, dilate in zip(
        fed, kind.size, kind.stride, getattr(kind, "dilate", (1,) * len(kind.size)), strict=False
    ):
        if extent is None:
            return None
        total = max((math.ceil(extent / stride) - 1) * stride + (size - 1) * dilate + 1 - extent, 0)
        cells += [total // 2, total - total // 2]
    return cells
