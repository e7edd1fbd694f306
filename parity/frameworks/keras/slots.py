"""Which slot of which parameter each of an optimizer's stored arrays is, in every layout that a Keras has written.

Three ways to tell them apart, by what the file offers:

- tf.keras and Keras 3 say the slot in an array's name: `RMSprop/conv2d/kernel/rms:0` (legacy), `SGD/m/conv2d/kernel:0`
  (2.11 to 2.15), `adam/conv2d_kernel_velocity` (3.x). The parameters come in the order of the layers.
- A `.keras` archive numbers them in the order in which the optimizer makes them, slots of one parameter side by side
  where the optimizer makes them together (keras/src/optimizers/base_optimizer.py, `add_optimizer_variables`).
- Standalone Keras (1 and 2 up to 2.3) writes one block per slot. Up to 2.0 the parameters of a block are sorted by name
  (keras 1.2, `engine/training.py`, `collect_trainable_weights`), afterwards they come in the order of the layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from parity.frameworks.keras.stored import Stored

__all__ = ["LAYOUTS", "Slot", "Variable", "canonical", "slots_of", "standalone"]


class Slot(NamedTuple):
    """One slot of an update rule.

    Attributes:
        name: the neutral word, as the rule of `parity.optimizers` has it.
        legacy: what tf.keras' legacy optimizers call it.
        words: what later ones put into an array's name (2.11 to 2.15, 3.x).
        attribute: where a live optimizer of Keras 2.11 and later lists it, by parameter.
        needs: a setting that must be on for the slot to be there, e.g. `centered`.
    """

    name: str
    legacy: str
    words: tuple[str, ...]
    attribute: str
    needs: str = ""


_MEAN = Slot("mean", "m", ("m", "momentum"), "_momentums")
_SQUARE = Slot("square", "v", ("v", "velocity"), "_velocities")
_ADAM = (_MEAN, _SQUARE), (Slot("max", "vhat", ("vhat", "velocity_hat"), "_velocity_hats", "amsgrad"),)

LAYOUTS: Mapping[str, tuple[tuple[Slot, ...], ...]] = {
    "SGD": ((Slot("momentum", "momentum", ("m", "momentum"), "momentums", "momentum"),),),
    "RMSprop": (
        (Slot("square", "rms", ("velocity",), "_velocities"),),
        (Slot("momentum", "momentum", ("momentum",), "_momentums", "momentum"),),
        (Slot("mean", "mg", ("average_gradient",), "_average_gradients", "centered"),),
    ),
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "Adamax": ((_MEAN._replace(attribute="_m"), Slot("norm", "v", ("u", "norm"), "_u")),),
    "Nadam": ((_MEAN, _SQUARE),),
    "Adagrad": ((Slot("square", "accumulator", ("accumulator",), "_accumulators"),),),
    "Adadelta": (
        (
            Slot("square", "accum_grad", ("accumulated_grad",), "_accumulated_grads"),
            Slot("delta", "accum_var", ("accumulated_delta_var",), "_accumulated_delta_vars"),
        ),
    ),
    "Ftrl": (
        (
            Slot("square", "accumulator", ("accumulator",), "_accumulators"),
            Slot("linear", "linear", ("linear",), "_linears"),
        ),
    ),
    "Lion": ((_MEAN,),),
    "Lamb": ((_MEAN, _SQUARE),),
    "ScheduleFreeAdamW": ((_MEAN, _SQUARE),),
    "Adafactor": (
        (
            Slot("row", "", ("r",), "_r"),
            Slot("column", "", ("c",), "_c"),
            Slot("square", "", ("v", "velocity"), "_v"),
        ),
    ),
}
"""Optimizer → its slots in the order in which they are made; those in one bracket lie side by side per parameter."""

SHARED = (
    (Slot("average", "average", ("average",), "_model_variables_moving_average", "use_ema"),),
    (
        Slot(
            "accumulated",
            "",
            ("gradient_accumulator",),
            "_accumulated_gradients",
            "gradient_accumulation_steps",
        ),
    ),
)
"""Slots that any optimizer of Keras 2.11 and later may have, before its own."""


class Variable(NamedTuple):
    """A trained array of the model, as the file lists it: its name and its shape there."""

    name: str
    shape: tuple[int, ...]


@dataclass(eq=False)
class Slots:
    """An optimizer's stored arrays, told apart.

    Attributes:
        steps: the count of updates done.
        scalars: what else belongs to the whole optimizer: `learning_rate`, `product` (Nadam's), `loss_scale`,
            `good_steps`.
        rows: per variable, in the order of the layers, slot's name → array.
        unknown: arrays that could not be placed.
    """

    steps: Stored | None = None
    scalars: dict[str, Stored] = field(default_factory=dict)
    rows: list[dict[str, Stored]] = field(default_factory=list)
    unknown: list[Stored] = field(default_factory=list)


def canonical(class_name: str) -> str:
    """An optimizer's class as `LAYOUTS` has it: `Custom>SGD` and `OutsideRMSprop` are `SGD` and `RMSprop`."""
    word = class_name.split(">")[-1].split(".")[-1].removeprefix("Outside")
    return next((name for name in LAYOUTS if name.lower() == word.lower()), word)


def standalone(version: str) -> bool:
    """Whether a version is one of Keras as a package of its own on tensorflow 1, Theano or CNTK (up to 2.3)."""
    found = re.match(r"(\d+)\.(\d+)(?!.*-tf)", version)
    return not version or (found is not None and (int(found[1]), int(found[2])) < (2, 4))


def slots_of(
    stored: Sequence[Stored],
    class_name: str,
    config: Mapping[str, Any],
    variables: Sequence[Variable],
    *,
    modern: bool,
) -> Slots:
    """Tells an optimizer's arrays apart.

    Args:
        stored: in the file's order (`.keras`: by number).
        class_name: of the innermost optimizer (see `inner` for those that scale the loss).
        config: its settings.
        variables: the trained arrays of the model in the order of the layers, as the file lists them; empty where they
            are not known.
        modern: whether a Keras 3 wrote them, whose archives also hold the learning rate.

    Returns:
        What could be placed; a count or a shape that fits no layout leaves everything but the scalars `unknown`.
    """
    name = canonical(class_name)
    found = Slots()
    layout = (*SHARED, *LAYOUTS.get(name, ()))
    arrays = _scalars(found, _own(stored), [slot for group in layout for slot in group], name, config, modern)
    named = _by_name(arrays, [slot for group in layout for slot in group])
    if named is not None:
        rows = _columns(named, variables, name)
    elif arrays and arrays[0].name.startswith("optimizer/"):
        rows = _by_number(arrays, layout, config, variables)
    else:
        rows = _by_block(arrays, LAYOUTS.get(name, ()), config, variables)
    if rows is None:
        found.unknown = list(arrays)
    else:
        found.rows = rows
    return found


def _own(stored: Sequence[Stored]) -> list[Stored]:
    """The arrays of the optimizer that steps: an archive lists those of one inside a loss scaler twice."""
    inner = [s for s in stored if s.name.startswith("optimizer/inner_optimizer/")]
    if not inner:
        return list(stored)
    outer = [s for s in stored if not s.name.startswith("optimizer/inner_optimizer/")]
    return [*outer[: len(outer) - len(inner)], *inner]


_COUNT = re.compile(r"iter(ation|ations)?(_\d+)?")


def _scalars(
    found: Slots, arrays: Sequence[Stored], slots: Sequence[Slot], name: str, config: Mapping[str, Any], modern: bool
) -> list[Stored]:
    """Takes the optimizer's own scalars out, which come first (Keras 3's Nadam ends in one), and returns the rest."""
    rest = list(arrays)
    leading: list[tuple[str, Stored]] = []
    words = _numbered(arrays, config, modern)
    while rest and rest[0].shape == () and len(leading) < (len(words) if words else 6):
        if _named(rest[0].name, slots) is not None:
            break
        scalar = rest.pop(0)
        word = words[len(leading)] if words else _word(scalar.name, len(leading))
        leading.append((word, scalar))
    if name == "Nadam" and modern and rest and rest[-1].shape == ():
        leading.append(("product", rest.pop()))
    for word, scalar in leading:
        if word == "steps":  # a loss scaler's own count stays 0: the last one is that of the optimizer inside it
            found.steps = scalar
        elif word:
            found.scalars[word] = scalar
    return rest


def _numbered(arrays: Sequence[Stored], config: Mapping[str, Any], modern: bool) -> list[str]:
    """The scalars that an archive's first numbers are; empty for arrays that have names."""
    if not arrays or not arrays[0].name.startswith("optimizer/"):
        return []
    words = ["steps"]
    if modern and not isinstance(config.get("learning_rate"), Mapping):
        words.append("learning_rate")
    scaled = any(s.name.startswith("optimizer/inner_optimizer/") for s in arrays)
    return ["", "", "good_steps", "loss_scale", *words] if scaled and modern else words


_WORDS = {
    "learning_rate": "learning_rate",
    "step_counter": "good_steps",
    "good_steps": "good_steps",
    "dynamic_scale": "loss_scale",
    "current_loss_scale": "loss_scale",
}


def _word(name: str, place: int) -> str:
    """What a scalar is, by its name; standalone Keras names only the count, which comes first, if at all."""
    word = name.rsplit("/", 1)[-1].split(":")[0]
    if _COUNT.fullmatch(word):
        return "steps"
    return _WORDS.get(word, "product" if place else "steps")


def _by_name(arrays: Sequence[Stored], slots: Sequence[Slot]) -> dict[str, list[Stored]] | None:
    """Slot's name → its arrays in order; None where a name does not say which slot it is."""
    found: dict[str, list[Stored]] = {}
    for stored in arrays:
        slot = _named(stored.name, slots)
        if slot is None:
            return None
        found.setdefault(slot.name, []).append(stored)
    return found


def _named(name: str, slots: Sequence[Slot]) -> Slot | None:
    parts = name.split(":")[0].split("/")
    if parts[0] == "optimizer" and parts[-1].isdigit():
        return None
    for slot in slots:
        if len(parts) > 2 and parts[-1] == slot.legacy:
            return slot
    for slot in slots:
        if len(parts) > 1 and any(word in parts[:2] for word in slot.words):
            return slot
    words = [(word, slot) for slot in slots for word in slot.words if len(word) > 1]
    ends = [(len(word), slot) for word, slot in words if parts[-1].endswith(f"_{word}")]
    return max(ends, key=lambda end: end[0])[1] if ends else None


def _columns(
    named: Mapping[str, Sequence[Stored]], variables: Sequence[Variable], name: str
) -> list[dict[str, Stored]] | None:
    """Per variable, slot → array, of columns in the order of the layers."""
    count = len(variables) or max((len(column) for column in named.values()), default=0)
    rows: list[dict[str, Stored]] = [{} for _ in range(count)]
    for slot, column in named.items():
        places: Sequence[int] = range(count)
        if name == "Adafactor" and slot in ("row", "column"):
            places = [i for i, v in enumerate(variables) if len(v.shape) >= 2]
        if len(column) != len(places):
            return None
        for i, stored in zip(places, column, strict=True):
            if variables and not (name == "Adafactor" and slot != "square") and stored.shape != variables[i].shape:
                return None
            rows[i][slot] = stored
    return rows


def _on(slot: Slot, config: Mapping[str, Any]) -> bool:
    value = config.get(slot.needs) if slot.needs else True
    return bool(value) if not isinstance(value, str) else value not in ("", "0", "0.0", "False")


def _by_number(
    arrays: Sequence[Stored],
    layout: Sequence[Sequence[Slot]],
    config: Mapping[str, Any],
    variables: Sequence[Variable],
) -> list[dict[str, Stored]] | None:
    """Slots as an optimizer makes them; those that depend on a setting are left out first, then tried all the same."""
    if layout and layout[-1][0].name == "row":
        return _factored(arrays, layout[-1], variables)
    active = [group for group in layout if _on(group[0], config)]
    for groups in (active, [g for g in layout if g in active or g[0].needs == "momentum"]):
        size = sum(len(group) for group in groups)
        if not size:
            continue
        count = len(variables) or len(arrays) // size
        if len(arrays) != count * size:
            continue
        rows: list[dict[str, Stored]] = [{} for _ in range(count)]
        items = iter(arrays)
        for group in groups:
            for row in rows:
                row.update((slot.name, next(items)) for slot in group)
        if _fit(rows, variables):
            return rows
    return None if arrays else []


def _factored(
    arrays: Sequence[Stored], slots: Sequence[Slot], variables: Sequence[Variable]
) -> list[dict[str, Stored]] | None:
    """Adafactor's: rows and columns of a matrix, for a vector two placeholders (Keras 3) or nothing."""
    left = [s for s in arrays if s.shape != ()]
    rows: list[dict[str, Stored]] = []
    for variable in variables:
        names = [slot.name for slot in slots] if len(variable.shape) >= 2 else [slots[-1].name]
        if len(left) < len(names) or left[len(names) - 1].shape != variable.shape:
            return None
        rows.append(dict(zip(names, left, strict=False)))
        del left[: len(names)]
    return None if left or not variables else rows


def _by_block(
    arrays: Sequence[Stored],
    layout: Sequence[Sequence[Slot]],
    config: Mapping[str, Any],
    variables: Sequence[Variable],
) -> list[dict[str, Stored]] | None:
    """Standalone Keras' blocks, each in the order of the layers or sorted by the parameters' names."""
    if not arrays:
        return []
    slots = [slot for group in layout for slot in group]
    if not variables or not slots or len(arrays) % len(variables):
        return None
    count = len(variables)
    blocks = [arrays[i : i + count] for i in range(0, len(arrays), count)]
    # Without amsgrad a third block of (1,) placeholders stands in for the maxima (keras 2.1.6, optimizers.py, Adam).
    if len(blocks) == 3 and slots[-1].needs == "amsgrad" and not config.get("amsgrad"):
        blocks = blocks[:2]
    if len(blocks) > len(slots):
        return None
    straight = list(range(count))
    by_name = sorted(straight, key=lambda i: variables[i].name)
    # The optimizer's variables lie in a scope `training` since the order is that of the layers.
    scoped = arrays[0].name.startswith("training")
    for order in (straight, by_name) if scoped else (by_name, straight):
        rows: list[dict[str, Stored]] = [{} for _ in range(count)]
        for slot, block in zip(slots, blocks, strict=False):
            for i, stored in zip(order, block, strict=True):
                rows[i][slot.name] = stored
        if _fit(rows, variables):
            return rows
    return None


def _fit(rows: Sequence[Mapping[str, Stored]], variables: Sequence[Variable]) -> bool:
    pairs = zip(rows, variables, strict=True) if variables else ()
    return all(stored.shape == variable.shape for row, variable in pairs for stored in row.values())
