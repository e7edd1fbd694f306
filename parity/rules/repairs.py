"""From a cause to the change of the Keras model that undoes it, as a value that can be carried out on a copy.

A change is what the reference says, in Keras' words: never what happens to make a batch agree. Where Keras has no word
for it there is none, and the finding's text says what to write.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.align import Pair
from parity.case import Comparison
from parity.changes import Change
from parity.differences import Difference, fed_alike, follows
from parity.layers import (
    LRN,
    Activation,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    Dropout,
    Kind,
    Loss,
    Merge,
    Opaque,
    Pad,
    Pool,
    Rescale,
    SeparableConv,
    Softmax,
)
from parity.layers.endings import softmax_behind
from parity.network import STATISTICS
from parity.rules.making import activation_of, layer_of, listed, pool_of
from parity.rules.places import core, keeper, own_role, path
from parity.transfer import Link, Transferred
from parity.units import Unit

__all__ = ["absent", "cells", "cropped", "field", "proposed", "reset", "sized", "trained_alike", "wider"]

_ARGUMENTS: Mapping[type[Kind], Mapping[str, str]] = {
    Conv: {"stride": "strides", "dilate": "dilation_rate", "groups": "groups"},
    ConvTranspose: {"upsample": "strides", "dilate": "dilation_rate"},
    SeparableConv: {"stride": "strides", "dilate": "dilation_rate"},
    Pool: {"size": "pool_size", "stride": "strides"},
    BatchNorm: {"epsilon": "epsilon", "momentum": "momentum"},
    Dropout: {"rate": "rate"},
    Concat: {"axis": "axis"},
    LRN: {"size": "size", "kappa": "kappa", "alpha": "alpha", "beta": "beta"},
}
"""Field → the constructor's argument that holds it."""


# Fields ---------------------------------------------------------------------------------------------------------------


def field(run: Comparison, pair: Pair, difference: Difference) -> tuple[Change, ...]:
    """What gives the Keras layer the reference's value of a field."""
    kind, name = pair.ref.kind, difference.field
    where = path(run, pair.keras)
    if difference.worded:
        nameless = name.endswith("activation") and _name(run, difference.ref) is None
        said = _name(run, difference.ref) if name.endswith("activation") else listed(difference.ref)
        return () if "." in name or nameless else (Change("argument", where, {name: said}),)
    if isinstance(kind, Loss):
        return _loss(run, pair, name)
    if isinstance(kind, Activation | Softmax):
        return activation(run, pair, kind)
    if isinstance(kind, Pool) and name == "method":
        return _other_pool(run, pair, kind)
    if (isinstance(kind, Merge) and name == "operation") or isinstance(kind, Rescale | Pad):
        made = layer_of(kind)
        return (Change("replace", where, made),) if made else ()
    if isinstance(kind, Dropout) and name == "spatial":
        rank = len(pair.keras.shape or ()) - 1
        word = f"SpatialDropout{rank}D" if kind.spatial else "Dropout"
        return (Change("replace", where, {"class_name": word, "config": {"rate": kind.rate}}),)
    if isinstance(kind, Conv | Pool) and name in ("pad", "count_pad", "ceil"):
        return _padded(run, pair, where)
    if isinstance(kind, BatchNorm) and name == "frozen":
        return (Change("trainable", where, {"trainable": not kind.frozen}),)
    if isinstance(kind, ConvTranspose | Crop) and name == "crop":
        return _cut(run, pair, kind)
    argument = _ARGUMENTS.get(type(kind), {}).get(name)
    if argument is None:
        return ()
    changes = [Change("argument", where, {argument: listed(difference.ref)})]
    if isinstance(kind, Conv | Pool) and name in ("size", "stride", "dilate"):
        changes += cells(where, kind.pad)  # Keras' `same` means other cells then
    return tuple(changes)


_HARD = {"hard_sigmoid": 1 / 1.2, "hard_sigmoid_legacy": 1.2}
"""Keras 3's relu6(x + 3)/6 and Keras 2's clip(0.2x + 0.5, 0, 1) → what the other one's input is to be multiplied by."""


def activation(run: Comparison, pair: Pair, kind: Activation | Softmax) -> tuple[Change, ...]:
    """Puts the reference's activation in the place of Keras'; nothing where this Keras has no name for it.

    The two hard sigmoids are the same one of a scaled input.
    """
    where, wanted = path(run, pair.keras), getattr(kind, "function", "")
    if wanted in _HARD:
        if getattr(pair.keras.kind, "function", "") in _HARD:
            scaling = {"class_name": "Rescaling", "config": {"scale": _HARD[wanted]}, "before": True}
            return (Change("insert", where, scaling),)
        word = _name(run, wanted)
        return (Change("replace", where, activation_of(Activation(word))),) if word else ()
    return (Change("replace", where, activation_of(kind)),)


def _name(run: Comparison, function: str) -> str | None:
    """What the Keras side's Keras calls an activation; None where it has no name for it."""
    early = run.keras.network.meta.get("framework") == "tf_keras"
    if function in _HARD:
        return "hard_sigmoid" if early == (function == "hard_sigmoid_legacy") else None
    return function


def cells(where: str, pad: tuple[int, ...] | None) -> tuple[Change, ...]:
    """Gives a layer this padding, in cells; nothing where it is not known."""
    return (Change("argument", where, {"padding": [int(count) for count in pad]}),) if pad is not None else ()


def _padded(run: Comparison, pair: Pair, where: str) -> tuple[Change, ...]:
    """The reference's cells; behind a fault that changes the map of a pooling by their word, which no other map has."""
    kind = pair.ref.kind
    assert isinstance(kind, Conv | Pool)
    if isinstance(kind, Conv) or fed_alike(pair) or not any(kind.pad or ()) or not follows(pair.ref, "same"):
        return cells(where, kind.pad)
    layers = [run.keras.network[name] for name in pair.keras.layers]
    zeros = [Change("remove", layer.origin or layer.name) for layer in layers if isinstance(layer.kind, Pad)]
    return (*zeros, Change("argument", where, {"padding": "same"}))


def _cut(run: Comparison, pair: Pair, kind: ConvTranspose | Crop) -> tuple[Change, ...]:
    """The reference's crop: in the Cropping layer that there is, by the padding of a transposed convolution, or both.

    Keras crops an upsampled map by a word; other cells are those of a Cropping layer behind a `valid` one.
    """
    theirs, wanted = pair.keras.kind, kind.crop
    if not isinstance(theirs, ConvTranspose | Crop) or wanted is None or theirs.crop is None:
        return ()
    layers = [run.keras.network[name] for name in pair.keras.layers]
    cropping = next((layer for layer in layers if isinstance(layer.kind, Crop)), None)
    if cropping is not None and isinstance(cropping.kind, Crop) and cropping.kind.crop is not None:
        own = [c + a - b for c, a, b in zip(cropping.kind.crop, wanted, theirs.crop, strict=True)]
        where = cropping.origin or cropping.name
        return (Change("argument", where, {"cropping": _sides(own)}),) if min(own) >= 0 else ()
    if not isinstance(kind, ConvTranspose):
        return ()
    unset = {"output_padding": None} if pair.keras.settings.get("output_padding") is not None else {}
    return cropped(path(run, pair.keras), kind, unset)


def cropped(where: str, kind: ConvTranspose, unset: Mapping[str, Any] | None = None) -> tuple[Change, ...]:
    """Gives a transposed convolution of Keras this crop: by its padding's word, or by a Cropping layer behind it.

    Args:
        where: its path.
        kind: with the crop that is wanted.
        unset: arguments that the word replaces.
    """
    words = kind.keras_padding()
    if words is not None:
        return (Change("argument", where, {**(unset or {}), **{name: listed(v) for name, v in words.items()}}),)
    rest = [a - b for a, b in zip(kind.crop, kind.keras_crop("valid"), strict=True)]
    if min(rest) < 0:
        return ()
    made = {"class_name": f"Cropping{len(rest) // 2}D", "config": {"cropping": _sides(rest)}}
    return (Change("argument", where, {"padding": "valid"}), Change("insert", where, made))


def _sides(cells: Sequence[int]) -> Any:
    """Cells before and after along each axis, as Keras takes them."""
    pairs = [list(cells[at : at + 2]) for at in range(0, len(cells), 2)]
    return pairs[0] if len(pairs) == 1 else pairs


def _other_pool(run: Comparison, pair: Pair, kind: Pool) -> tuple[Change, ...]:
    """The pooling of the other method in its place, over the same windows."""
    where, layer = path(run, pair.keras), core(run, pair.keras)
    word = "Max" if kind.method == "max" else "Average"
    if layer.source_type.startswith("Global"):
        return (Change("replace", where, {"class_name": f"Global{word}{layer.source_type[-9:]}", "config": {}}),)
    if kind.size is None:
        return ()
    made = Change("replace", where, pool_of(kind))
    return (made, *(cells(where, kind.pad) if any(kind.pad or ()) else ()))


def _loss(run: Comparison, pair: Pair, name: str) -> tuple[Change, ...]:
    kind, output = pair.ref.kind, _output(run, pair)
    assert isinstance(kind, Loss)
    if name == "weight":
        mine, theirs = pair.ref.weight, pair.keras.weight
        return (Change("loss", "", {**output, "weight": mine / theirs}),) if mine and theirs else ()
    if name == "reduction":
        if isinstance(pair.keras.kind, Loss) and kind.counts_otherwise(pair.keras.kind):
            return (Change("loss", "", {**output, "config": {"ignore_class": kind.ignored}}),)
        word = "sum_over_batch_size" if kind.reduction.endswith("mean") else kind.reduction
        word = "" if word == "none" else word
        made = [Change("loss", "", {**output, "config": {"reduction": word}})] if word else []
        fed = pair.ref.fed or ()
        if kind.reduction == "mean" and _sums_what_counts(kind, pair.keras.kind):
            count = len(next(iter(run.data.ref.values())))  # a mean would leave out what is ignored
            share = Change("loss", "", {**output, "weight": pair.ref.weight / (pair.keras.weight or 1.0) / count})
            summed = getattr(pair.keras.kind, "reduction", "") == "sum"
            return (share,) if summed else (Change("loss", "", {**output, "config": {"reduction": "sum"}}), share)
        if kind.reduction == "mean" and len(fed) > 1 and None not in fed:
            # Keras' mean of a map is over its pixels too: the reference adds those up.
            pixels = math.prod(int(n or 1) for n in fed[:-1])
            made = made if getattr(pair.keras.kind, "reduction", "") != "pixel-mean" else []
            factor = pixels * pair.ref.weight / (pair.keras.weight or 1.0)  # the same finding tells of both
            made += [Change("loss", "", {**output, "weight": factor})] if factor != 1 else []
        return tuple(made)
    if name == "label_smoothing":
        return (Change("loss", "", {**output, "config": {"label_smoothing": kind.label_smoothing}}),)
    return _as_reference(run, pair, kind)


def _sums_what_counts(kind: Loss, theirs: Kind) -> bool:
    """Whether Keras leaves out what it ignores, and only the reference divides by the number of images."""
    laws = ("sum", "counted-mean")
    ignored = theirs.ignored if isinstance(theirs, Loss) and theirs.reduction in laws else None
    return kind.ignored is None and ignored is not None


def _as_reference(run: Comparison, pair: Pair, kind: Loss) -> tuple[Change, ...]:
    """The reference's loss in the words of Keras; nothing where Keras has none."""
    output = _output(run, pair)
    if kind.function in ("softmaxlog", "log"):
        word, settings = "CategoricalCrossentropy", dict(kind.settings)
        if kind.ignored is not None:
            settings["ignore_class"] = kind.ignored
        if kind.label_smoothing:
            settings["label_smoothing"] = kind.label_smoothing
        sparse = not kind.label_smoothing and getattr(pair.keras.kind, "sparse", kind.sparse)
        word = f"Sparse{word}" if sparse or kind.ignored is not None else word
        logits = kind.function == "softmaxlog" and not softmax_behind(run.keras.network, _predicted(run, pair))
        config = {"from_logits": logits, **settings}
        return (Change("loss", "", {**output, "class_name": word, "config": config}),)
    name, config = kind.in_keras
    return (Change("loss", "", {**output, "class_name": name, "config": config}),) if name else ()


def _predicted(run: Comparison, pair: Pair) -> str:
    """The tensor that a Keras loss takes."""
    network = run.keras.network
    return next((t for t in network[pair.keras.layers[-1]].inputs if t not in network.labels), "")


def _output(run: Comparison, pair: Pair) -> dict[str, Any]:
    """Names the output of a loss, where there are several."""
    network = run.keras.network
    if len(network.losses) < 2:
        return {}
    maker = network.producers.get(_predicted(run, pair))
    return {"output": (maker.origin or maker.name).split(":")[0]} if maker else {}


# Parameters -----------------------------------------------------------------------------------------------------------


def trained_alike(run: Comparison, unit: Unit, name: str) -> list[Change]:
    """How the parameters of an inserted layer are trained: with the reference's decay and multipliers."""
    changes: list[Change] = []
    recipe = run.ref.recipe
    for role, ids in unit.params.items():
        param = run.ref.network.params[ids[0]]
        if role in STATISTICS or not param.trainable:
            continue
        decay = recipe.weight_decay * param.decay_multiplier + 2 * param.l2
        if decay and run.mode == "train":
            changes.append(Change("regularize", name, {"role": role, "l2": decay / 2}))
        if param.rate_multiplier != 1.0 and run.mode == "train":
            changes.append(Change("rate", name, {"role": role, "factor": param.rate_multiplier}))
    return changes


def absent(run: Comparison, pair: Pair, role: str, *, lacking: str) -> tuple[Change, ...]:
    """Gives the Keras layer a parameter that only the reference has, or takes away one that only Keras has."""
    argument = {"bias": "use_bias", "beta": "center", "gamma": "scale"}.get(role)
    if argument is None or not isinstance(pair.keras.kind, Conv | ConvTranspose | Dense | BatchNorm):
        return ()
    where = path(run, pair.keras)
    if lacking != "Keras":
        return (Change("argument", where, {argument: False}),)
    trained = [change for change in trained_alike(run, pair.ref, where) if change.values.get("role") == role]
    changes = (Change("argument", where, {argument: True}), *trained)
    return (*changes, *_own_value(run, pair, role, where)) if run.own else changes


def _own_value(run: Comparison, pair: Pair, role: str, where: str) -> tuple[Change, ...]:
    """The reference's value for a parameter that is new in a model that keeps its own weights."""
    ids = pair.ref.params.get(role, ())
    values = run.ref.params()
    pieces = [np.ravel(values[key]) for key in ids if key in values]
    return (Change("weights", where, {"role": role, "value": np.concatenate(pieces)}),) if pieces else ()


def reset(run: Comparison, *links: Link) -> tuple[Change, ...]:
    """Puts the reference's values into parameters that hold others."""
    values = Transferred(run.links, run.ref.params())
    return tuple(
        Change("weights", keeper(run, link), {"role": own_role(run, link), "value": np.array(values[link.keras])})
        for link in links
        if link.keras in values
    )


# What fields do not say -----------------------------------------------------------------------------------------------


def proposed(run: Comparison, pair: Pair, cause: str, edit: Any) -> tuple[Change, ...]:
    """What undoes a fault that experiments found.

    A custom layer that holds the number in its configuration is given the reference's; one that is a plain layer of
    Keras in the reference's vocabulary is put in its place; weights that differ are loaded.
    """
    kind, where = pair.ref.kind, path(run, pair.keras)
    links = [link for link in run.links if link.pair is pair and link.keras and link.ref and link.to_keras]
    if edit.params and run.own and not edit.fields:
        return reset(run, *(link for link in links if link.role in edit.params or link.role in _pieces(edit.params)))
    held = pair.keras.kind
    if isinstance(held, Opaque):
        return _configured(where, held, kind, edit)
    if cause == "bias-missing":
        return absent(run, pair, "bias", lacking="Keras")
    if isinstance(kind, Loss):
        return _loss_as(run, pair, kind, cause, edit)
    if cause == "dropout-rate" and isinstance(kind, Dropout):
        return (Change("argument", where, {"rate": kind.rate}),)
    if isinstance(kind, Activation | Softmax):
        return activation(run, pair, kind)
    if (
        isinstance(kind, Pool)
        and not (edit.inputs and kind.method == "avg")
        and cause in ("pool-method", "pool-avg-count-pad", "pool-pad-value")
    ):
        return _other_pool(run, pair, kind) if cause == "pool-method" else _padded(run, pair, where)
    if isinstance(kind, Conv | ConvTranspose) and edit.order:
        return _joined(run, pair, edit.order)
    if isinstance(kind, BatchNorm) and cause == "bn-mode" and edit.fields:
        return (Change("trainable", where, {"trainable": True}),)
    return ()


def sized(run: Comparison, pair: Pair) -> tuple[Change, ...]:
    """Builds a convolution, or a dense layer, with the reference's filters and size; its weights are loaded then."""
    kind, theirs, word = pair.ref.kind, pair.keras.kind, core(run, pair.keras).source_type
    if run.own or not isinstance(kind, Conv) or not isinstance(theirs, Conv):
        return ()
    given: dict[str, Any] = {}
    if kind.size != theirs.size:
        given["kernel_size"] = listed(kind.size)
    if isinstance(kind, SeparableConv) and isinstance(theirs, SeparableConv) and kind.multiplier != theirs.multiplier:
        given["depth_multiplier"] = kind.multiplier
    if word.startswith("Depthwise") and kind.groups == theirs.groups and kind.filters != theirs.filters:
        given["depth_multiplier"] = kind.filters // kind.groups
    elif not word.startswith("Depthwise") and kind.filters != theirs.filters:
        given["units" if word == "Dense" else "filters"] = kind.filters
    if not given or (word == "Dense" and kind.size != theirs.size):
        return ()
    where = path(run, pair.keras)
    resized = cells(where, kind.pad) if "kernel_size" in given else ()  # Keras' `same` means other cells then
    return (Change("argument", where, given), *resized)


def wider(run: Comparison, pair: Pair) -> tuple[Change, ...]:
    """Lets the layers of a pair compute in float32."""
    layers = [run.keras.network[name] for name in pair.keras.layers if not isinstance(pair.ref.kind, Loss)]
    names = dict.fromkeys((layer.origin or layer.name).removesuffix(":activation") for layer in layers)
    return tuple(Change("argument", name, {"dtype": "float32"}) for name in names)


def _joined(run: Comparison, pair: Pair, order: tuple[int, ...]) -> tuple[Change, ...]:
    """The order in which what the groups of a convolution make is joined, put right where it is joined."""
    last = run.keras.network[pair.keras.layers[-1]]
    count = len(run.keras.network.data(last.inputs))
    if not isinstance(last.kind, Concat) or count < 2 or len(order) % count:
        return ()
    width = len(order) // count
    starts = [channel // width for channel in order[::width]]
    if sorted(starts) != list(range(count)):
        return ()  # interleaved
    return (Change("rewire", last.origin or last.name, {"order": [starts.index(i) for i in range(count)]}),)


def _pieces(params: Mapping[str, Any]) -> set[str]:
    return {"variance"} if "deviation" in params else set()


def _configured(where: str, held: Opaque, kind: Kind, edit: Any) -> tuple[Change, ...]:
    """The arguments of a custom layer that hold the numbers that the experiment solved for."""
    own = {name: value for name, value in kind.describe().items() if isinstance(value, int | float)}
    wrong = {name: value for name, value in edit.fields.items() if name in own and isinstance(value, int | float)}
    changes: dict[str, Any] = {}
    for name, value in wrong.items():
        near = [
            key
            for key, given in held.config.items()
            if isinstance(given, int | float) and not isinstance(given, bool) and np.isclose(given, value, rtol=1e-3)
        ]
        named = [key for key in near if key.lower() in (name, *_WORDS.get(name, ()))]
        chosen = named or (near if len(near) == 1 else [])
        if not chosen:
            return ()
        changes[chosen[0]] = own[name]
    return (Change("argument", where, changes),) if changes else ()


_WORDS = {
    "size": ("n", "depth", "depth_radius", "window", "local_size"),
    "kappa": ("k", "bias"),
    "slope": ("alpha", "negative_slope", "leak", "leakiness"),
    "rate": ("p", "rate"),
}
"""What the arguments of custom layers are called."""


def _loss_as(run: Comparison, pair: Pair, kind: Loss, cause: str, edit: Any) -> tuple[Change, ...]:
    output = _output(run, pair)
    if cause == "loss-reduction" and edit.factor:
        return (Change("loss", "", {**output, "weight": 1.0 / edit.factor}),)
    if cause == "loss-kind" and "label_smoothing" in edit.fields:
        return (Change("loss", "", {**output, "config": {"label_smoothing": kind.label_smoothing}}),)
    if "function" in edit.fields:
        return _as_reference(run, pair, kind)
    return ()
