"""Layer types, update rules and recipes in a few words, as every table and message writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from parity.layers import (
    LRN,
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Kind,
    Loss,
    Merge,
    Opaque,
    Pad,
    Pool,
    Reshape,
    SeparableConv,
)
from parity.optimizers.base import UpdateRule
from parity.recipe import Recipe

__all__ = ["kind_words", "listed", "noun", "recipe_words", "rule_words"]

_IDLE_AT = {"momentum": 0.0, "initial": 0.0}
_BORING_RULE_FIELDS = {"use_rate", "rate_inside", "epsilon_inside"}


def kind_words(kind: Kind) -> str:
    """A layer type with the fields that matter, e.g. `conv 3×3, 64 filters, stride 2, pad 1, 2 groups`."""
    own = kind.words()
    if own:
        return ", ".join(own)
    match kind:
        case Conv():
            word = "separable conv" if isinstance(kind, SeparableConv) else "conv"
            parts = [f"{word} {_by(kind.size)}, {kind.filters} filters", *_window(kind.stride, kind.pad)]
            parts += [f"dilate {_same(kind.dilate)}"] if set(kind.dilate) != {1} else []
            parts += [f"{kind.groups} groups"] if kind.groups != 1 else []
            parts += [] if kind.bias else ["no bias"]
            if isinstance(kind, SeparableConv) and kind.multiplier != 1:
                parts.append(f"{kind.multiplier} for each channel")
        case Dense():
            parts = [f"dense, {kind.units} units", *([] if kind.bias else ["no bias"])]
        case Pool():
            parts = [f"{kind.method} pool {'global' if kind.size is None else _by(kind.size)}"]
            parts += _window(kind.stride, kind.pad) if kind.size is not None else []
            parts += ["padding counts"] if kind.count_pad else []
        case Activation():
            parts = [kind.function, *_others(kind, "function")]
        case BatchNorm():
            momentum = "no momentum" if kind.momentum is None else f"momentum {_number(kind.momentum)}"
            parts = [f"batch norm, epsilon {_number(kind.epsilon)}", momentum]
            parts += [word for word, present in (("no beta", kind.center), ("no gamma", kind.scale)) if not present]
            parts += ["frozen"] if kind.frozen else []
        case LRN():
            parts = [
                f"lrn over {kind.size}, kappa {_number(kind.kappa)}",
                f"alpha {_number(kind.alpha)}",
                f"beta {_number(kind.beta)}",
            ]
        case Dropout():
            parts = [f"{'spatial ' if kind.spatial else ''}dropout {_number(kind.rate)}"]
        case Loss():
            parts = [f"{kind.function} loss", kind.reduction]
            parts += [f"label smoothing {_number(kind.label_smoothing)}"] if kind.label_smoothing else []
            parts += [f"{name.replace('_', ' ')} {_value(value)}" for name, value in kind.settings]
        case Pad():
            parts = [f"pad {_same(kind.pad)}", *([f"with {kind.value:g}"] if kind.value else [])]
        case Reshape():
            parts = [f"reshape to {_by(kind.target)}"]
        case Merge():
            parts = [kind.operation]
        case Opaque():
            parts = [kind.type or "unknown"]
        case _:
            parts = [kind.name.lower() if kind.name != "LRN" else "lrn", *_others(kind)]
    return ", ".join(parts)


def noun(kind: Kind) -> str:
    """What a layer type is called in a sentence; a layer that the vocabulary does not know by its framework's name."""
    if isinstance(kind, Opaque):
        return kind.type or "unknown layer"
    return {"ConvTranspose": "transposed conv", "SeparableConv": "separable conv"}.get(kind.name, kind.name.lower())


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names with commas, cut after a few."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:most]) + (f" and {len(unique) - most} more" if len(unique) > most else "")


def rule_words(rule: UpdateRule | None) -> str:
    """An update rule with its numbers, e.g. `SGD, momentum 0.9`; empty where nothing says."""
    if rule is None:
        return ""
    shown = [
        f"{field.name.replace('_', ' ')} {_value(getattr(rule, field.name))}"
        for field in fields(rule)
        if isinstance(getattr(rule, field.name), int | float)
        and field.name not in _BORING_RULE_FIELDS
        and not isinstance(getattr(rule, field.name), bool)
        and getattr(rule, field.name) != _IDLE_AT.get(field.name)
    ]
    flags = [
        field.name.replace("_", " ")
        for field in fields(rule)
        if getattr(rule, field.name) is True and field.name not in _BORING_RULE_FIELDS
    ]
    return ", ".join([rule.name, *shown, *flags])


def recipe_words(recipe: Recipe) -> list[tuple[str, str, bool]]:
    """The recipe line by line: name, value in words (empty where the file does not say), whether it is a default."""
    loss = recipe.loss
    clip = ", ".join(f"{name} {_number(value)}" for name, value in recipe.clip.items())
    own = f" (class {recipe.custom})" if recipe.custom else ""
    lines: list[tuple[str, str, tuple[str, ...]]] = [
        ("loss", kind_words(loss) if loss else "", ("loss",)),
        ("optimizer", rule_words(recipe.optimizer) + own, ("optimizer",)),
        ("learning rate", str(recipe.learning_rate) if recipe.optimizer or recipe.origin else "", ("learning_rate",)),
        ("weight decay", f"{_number(recipe.weight_decay)}", ("weight_decay",)),
        (
            "decoupled decay",
            f"{_number(recipe.decoupled_decay)}" if recipe.decoupled_decay else "",
            ("decoupled_decay",),
        ),
        ("gradient clipping", clip, ("clip",)),
        ("metrics", ", ".join(recipe.metrics), ("metrics",)),
        ("batch size", "" if recipe.batch_size is None else str(recipe.batch_size), ("batch_size",)),
        ("epochs", "" if recipe.epochs is None else str(recipe.epochs), ("epochs",)),
        ("updates done", str(recipe.steps_done) if recipe.steps_done else "", ("steps_done",)),
    ]
    return [(name, value, any(key in recipe.defaults for key in keys)) for name, value, keys in lines]


def _window(stride: Sequence[int], pad: Sequence[int] | None) -> Iterable[str]:
    if set(stride) != {1}:
        yield f"stride {_same(stride)}"
    if pad is None:
        yield "pad same"
    elif any(pad):
        yield f"pad {_same(pad)}"


def _others(kind: Kind, *known: str) -> list[str]:
    """The fields that do not have their class' default."""
    return [
        f"{field.name.replace('_', ' ')} {_value(getattr(kind, field.name))}"
        for field in fields(kind)
        if field.name not in known and getattr(kind, field.name) != field.default
    ]


def _value(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    return _by(value) if isinstance(value, tuple) else str(value)


def _by(values: Sequence[int]) -> str:
    return "×".join(map(str, values))


def _same(values: Sequence[int]) -> str:
    """`2` for (2, 2), `0 1 0 1` where the extents differ."""
    return str(values[0]) if len(set(values)) == 1 else " ".join(map(str, values))


def _number(value: float) -> str:
    """Six digits at most, and `1e-7` rather than `1e-07`."""
    return f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e")
