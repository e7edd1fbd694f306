"""In which fields two paired layers differ, leaving out fields that cannot matter where they stand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from parity.align import Pair
from parity.layers import Activation, BatchNorm, Conv, Dropout, Kind, Loss, Opaque, Pool, Softmax
from parity.layers.geometry import same_pads
from parity.network import Shape
from parity.settings import CLASS, cause_of, settings_apart
from parity.units import Unit, same_shape

__all__ = ["Difference", "differences", "fed_alike", "follows"]


@dataclass(frozen=True)
class Difference:
    """One field in which a pair differs.

    Attributes:
        field: its name in the neutral vocabulary; `"kind"` where the two are different operations.
        ref, keras: both values.
        cause: slug of the cause it would be.
        phase: the first phase in which it can act.
        worded: whether it is a setting in the framework's own words, which no field of the vocabulary stands for.
    """

    field: str
    ref: Any
    keras: Any
    cause: str
    phase: str = "forward"
    worded: bool = False


def differences(pair: Pair) -> tuple[Difference, ...]:
    """The fields that differ and could change a number; empty where the two kinds say the same."""
    ref, keras = pair.ref.kind, pair.keras.kind
    if (
        isinstance(ref, Activation | Softmax)
        and isinstance(keras, Activation | Softmax)
        and type(ref) is not type(keras)
    ):
        return (Difference("function", _word(ref), _word(keras), _other_function(ref, keras)),)
    if isinstance(ref, Opaque) or isinstance(keras, Opaque):
        return tuple(_worded(pair))
    if type(ref) is not type(keras):
        return ()
    pair = _on_one_map(pair)
    keras = pair.keras.kind
    mine, theirs = ref.describe(), keras.describe()
    found: list[Difference] = []
    for name, cause in ref.causes.items():
        a, b = mine[name], theirs[name]
        if name == "pad" and not fed_alike(pair):
            continue  # Keras' `same` was worked out for another map
        if name == "pad" and follows(pair.ref, _said(pair.keras)) and not _window(ref, keras):
            continue  # `same` is right, and is worked out for another window
        if name == "pad" and _reached(pair.ref) is not None and _reached(pair.ref) == _reached(pair.keras):
            continue
        if _same(a, b) or _idle(name, ref, keras, pair.ref.shape):
            continue
        if name == "reduction" and _counts_alike(pair):
            continue
        found.append(Difference(name, a, b, _refined(name, cause, pair), _phase(name, ref)))
    if isinstance(ref, Loss) and not _counts_alike(pair) and not any(d.field == "reduction" for d in found):
        found.append(Difference("weight", pair.ref.weight, pair.keras.weight, "loss-reduction", "loss"))
    return tuple(found)


def _worded(pair: Pair) -> Iterator[Difference]:
    """What two layers of one class say otherwise, where the vocabulary knows not both of them."""
    rank = None if pair.ref.fed is None else len(pair.ref.fed)
    for name, mine, theirs in settings_apart(pair.ref.settings, pair.keras.settings, rank):
        cause = cause_of(name, str(pair.keras.settings[CLASS]))
        yield Difference(name, mine, theirs, cause, worded=True)


def _counts_alike(pair: Pair) -> bool:
    """Whether a loss enters the objective with the same factor on both sides, whoever divides by what."""
    if isinstance(pair.ref.kind, Loss) and isinstance(pair.keras.kind, Loss):
        attributes = pair.ref.fed[-1] if pair.ref.fed else 1
        if attributes != 1 and pair.ref.kind.same_cost(pair.keras.kind):
            return True  # a sum over the attributes against their mean: the numbers show what else divides
        if pair.ref.kind.reduction == pair.keras.kind.reduction and pair.ref.weight == pair.keras.weight:
            return True
    mine, theirs = _share(pair.ref), _share(pair.keras)
    return mine is not None and theirs is not None and math.isclose(mine, theirs, rel_tol=1e-6)


def _share(unit: Unit) -> float | None:
    """The factor on the cost of an image, over the number of images; None where a loss counts by another law."""
    if not isinstance(unit.kind, Loss):
        return None
    if unit.kind.reduction == "mean":
        return unit.weight
    if unit.kind.reduction == "pixel-mean" and unit.fed is not None and None not in unit.fed:
        return unit.weight / math.prod(int(n or 1) for n in unit.fed[:-1])
    return None


def fed_alike(pair: Pair) -> bool:
    """Whether both are fed maps of one size, as far as that is known."""
    if pair.ref.fed is None or pair.keras.fed is None:
        return True
    return same_shape(pair.ref.fed, pair.keras.fed)


def _on_one_map(pair: Pair) -> Pair:
    """The pair with the Keras unit as it is on the reference's map, where Keras has another, behind a fault above.

    `same` is worked out for the map, and a global pooling covers it; other cells and windows stay what they are.
    """
    unit, fed = pair.keras, pair.ref.fed
    kind = unit.kind
    if fed_alike(pair) or fed is None or unit.fed is None or len(fed) != len(unit.fed) or fed[-1] != unit.fed[-1]:
        return pair
    if not isinstance(kind, Conv | Pool) or kind.size is None or None in fed or len(fed) != len(kind.size) + 1:
        return pair
    extents = tuple(int(n or 1) for n in fed[:-1])
    if str(unit.settings.get(CLASS, "")).startswith("Global"):
        kind = replace(kind, size=extents, stride=(1,) * len(extents))
    elif _said(unit) == "same" and kind.pad is not None:
        dilate = kind.dilate if isinstance(kind, Conv) else (1,) * len(extents)
        windows = zip(extents, kind.size, kind.stride, dilate, strict=True)
        kind = replace(kind, pad=tuple(side for n, *window in windows for side in same_pads(n, *window)))
    return replace(pair, keras=replace(unit, kind=kind, fed=fed, shape=None))


def _said(unit: Unit) -> str:
    """The word for a padding that is worked out for the window: `same`, or `causal`; empty where it has none."""
    word = str(unit.settings.get("padding", unit.settings.get("border_mode"))).lower()
    return word if word in ("same", "causal") else ""


def follows(unit: Unit, word: str) -> bool:
    """Whether a padding is as much as the word means for its window on its map."""
    kind, fed = unit.kind, unit.fed
    if not word or not isinstance(kind, Conv | Pool) or kind.pad is None or kind.size is None or fed is None:
        return False
    if None in fed or len(fed) != len(kind.size) + 1:
        return False
    dilate = kind.dilate if isinstance(kind, Conv) else (1,) * len(kind.size)
    if word == "causal":
        windows = zip(kind.size, dilate, strict=True)
        return tuple(kind.pad) == tuple(side for size, d in windows for side in ((size - 1) * d, 0))
    axes = zip(fed[:-1], kind.size, kind.stride, dilate, strict=True)
    return tuple(kind.pad) == tuple(side for n, *window in axes for side in same_pads(int(n or 1), *window))


def _window(ref: Kind, keras: Kind) -> bool:
    """Whether two windows are of one size and dilation, and move alike."""
    names = ("size", "stride", "dilate")
    return all(getattr(ref, name, None) == getattr(keras, name, None) for name in names)


def _reached(unit: Unit) -> tuple[int, ...] | None:
    """The padding that windows reach: a row at the end that the stride never comes to does not count."""
    kind, fed, made = unit.kind, unit.fed, unit.shape
    if not isinstance(kind, Conv | Pool) or kind.pad is None or kind.size is None or fed is None or made is None:
        return None
    if len(kind.pad) != 4 or len(fed) != 3 or len(made) != 3 or None in fed or None in made:
        return None
    dilate = kind.dilate if isinstance(kind, Conv) else (1, 1)
    ends: list[int] = []
    for axis in range(2):
        before = kind.pad[2 * axis]
        extent = (kind.size[axis] - 1) * dilate[axis] + 1
        last = (int(made[axis] or 1) - 1) * kind.stride[axis] + extent
        ends += [before, last - int(fed[axis] or 1) - before]
    return tuple(ends)


def _word(kind: Kind) -> str:
    return kind.function if isinstance(kind, Activation) else kind.name.lower()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float | int):
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=0.0)
    if all(isinstance(n, float) for value in (a, b) for n in (value if isinstance(value, tuple) else (value,))):
        # One number, or one for each channel.
        count = max(len(value) if isinstance(value, tuple) else 1 for value in (a, b))
        rows = [value if isinstance(value, tuple) else (value,) * count for value in (a, b)]
        return len(rows[0]) == len(rows[1]) and all(_same(x, y) for x, y in zip(*rows, strict=True))
    return a == b


def _idle(name: str, ref: Kind, keras: Kind, shape: Shape | None) -> bool:
    """Whether a field cannot change any number here."""
    if isinstance(ref, Conv | Pool) and isinstance(keras, Conv | Pool):
        single = shape is not None and len(shape) == 3 and shape[0] == 1 and shape[1] == 1
        if name == "stride" and single and ref.pad == keras.pad:
            return True
        if name == "pad" and (ref.pad is None or keras.pad is None):
            return True
        if name == "size" and (getattr(ref, "size", None) is None or getattr(keras, "size", None) is None):
            return True
    if isinstance(ref, Conv) and isinstance(keras, Conv) and name == "dilate":
        return all(s == 1 for s in (*ref.size, *keras.size))
    if isinstance(ref, Dropout) and name == "spatial":
        return shape is not None and all(n == 1 for n in shape[:-1])  # a channel of one cell is a single value
    if isinstance(ref, Conv) and name == "bias":
        return True  # judged as a parameter that fits or does not (transfer.py)
    if isinstance(ref, Pool) and isinstance(keras, Pool) and name == "count_pad":
        return "max" in (ref.method, keras.method) or not (any(ref.pad or ()) or any(keras.pad or ()))
    if isinstance(ref, BatchNorm) and isinstance(keras, BatchNorm) and name == "momentum":
        return ref.momentum is None or keras.momentum is None
    if isinstance(ref, Activation) and isinstance(keras, Activation) and name in ("slope", "limit", "threshold"):
        return ref.function != keras.function or ref.function not in ("relu", "elu")
    if isinstance(ref, Loss) and isinstance(keras, Loss) and name in ("function", "settings", "label_smoothing"):
        entropies = {ref.function, keras.function} <= {"log", "softmaxlog"}
        others = ref.function != keras.function and not entropies  # settings of two losses are the losses' own
        return (name != "function" and others) or (name != "label_smoothing" and ref.same_cost(keras))
    return False


def _refined(name: str, cause: str, pair: Pair) -> str:
    ref, keras = pair.ref.kind, pair.keras.kind
    if name == "pad" and isinstance(ref, Conv | Pool) and isinstance(keras, Conv | Pool):
        a, b = (tuple(kind.pad or ()) for kind in (ref, keras))
        # As many cells along each axis, but not on the same sides; `same` pads none that no window reaches. Where the
        # shape is the same windows always reach as many: pads that are even on both sides only differ in size.
        uneven = any(a[i] - a[i + 1] != b[i] - b[i + 1] for i in range(0, min(len(a), len(b)), 2))
        reached = _reached(pair.ref) if uneven and b == _reached(pair.keras) else None
        for mine in (a, reached or ()):
            axes = range(0, len(mine), 2)
            if mine and len(mine) == len(b) and all(sum(mine[i : i + 2]) == sum(b[i : i + 2]) for i in axes):
                return "padding-asymmetric"
        # MatConvNet has no ceil mode: nets from Caffe have it as cells at the end that the last window reaches.
        if isinstance(ref, Pool) and len(a) == len(b) and a[::2] == b[::2]:
            return "pool-ceil"
    if name == "function" and isinstance(ref, Loss) and isinstance(keras, Loss):
        if ref.function == "softmaxlog" and keras.function == "log":
            return "softmax-missing"
        if ref.function == "log" and keras.function == "softmaxlog":
            return "softmax-double"
    if name == "function" and isinstance(ref, Activation):
        return _other_function(ref, keras)
    return cause


def _other_function(ref: Kind, keras: Kind) -> str:
    """The cause where an activation is another function: a linear one is none at all."""
    words = {_word(ref): "extra", _word(keras): "missing"}
    if "linear" not in words or len(words) == 1:
        return "activation-kind"
    softmax = isinstance(ref, Softmax) and words["linear"] == "missing"
    return "softmax-missing" if softmax else f"activation-{words['linear']}"


def _phase(name: str, kind: Kind) -> str:
    if isinstance(kind, Loss):
        return "loss"
    if isinstance(kind, BatchNorm) and name == "momentum":
        return "update"
    return "forward"
