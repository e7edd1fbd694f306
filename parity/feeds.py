"""A batch as one network takes it: its arrays found by name, shaped, and held against the network's losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from parity.batch import Batch, class_ids, extents
from parity.errors import BadFile, CannotCompare
from parity.layers import Loss
from parity.layers.loss_words import INTEGERS
from parity.network import Layer, Network, Shape
from parity.runner import Targets
from parity.units import same_shape

__all__ = [
    "CATEGORICAL",
    "Side",
    "data_inputs",
    "inputs_for",
    "matched_inputs",
    "only_fed",
    "only_recorded",
    "targets_for",
    "without_ignored",
]

CATEGORICAL = frozenset(("softmaxlog", "log", "mhinge", "mshinge", "classerror", "topkerror"))
"""Losses whose labels are classes; any other may also be held against values."""


@dataclass(frozen=True)
class Side:
    """Whose arrays are looked for.

    Attributes:
        key: `"ref"` or `"keras"`, as it stands in the names of arrays.
        words: what to call it in a message.
    """

    key: str
    words: str

    def names(self, letter: str, called: Sequence[str], *, alone: bool) -> list[str]:
        """Names of arrays, the most particular first; `alone` where the array needs no name of its own."""
        wanted = [f"{letter}_{name}" for name in called if name]
        plain = [f"{letter}_{self.key}", letter] if alone else []
        return [*(f"{letter}_{self.key}_{name}" for name in called if name), *wanted, *plain]


def only_recorded(path: object, recorded: str, asked: str) -> None:
    """Raise CannotCompare where a recorded run is asked for in another mode than its own."""
    if recorded != asked:
        raise CannotCompare(f"{path}: was recorded in {recorded} mode; compare it with --mode {recorded}")


def only_fed(path: object, labels: Targets | None, recorded: Targets | None, alike: Callable[[], bool]) -> None:
    """Raise CannotCompare where a recorded run is asked for on another batch than its own.

    Args:
        path: of the recording.
        labels: those of the batch; None asks for none.
        recorded: those that were recorded.
        alike: whether the inputs are those that were recorded.
    """
    if labels is not None and recorded is None:
        raise CannotCompare(f"{path}: was recorded without labels; leave --batch out, or record it again")
    if (labels is not None and recorded is not None and not labels.same(recorded)) or not alike():
        raise CannotCompare(f"{path}: was recorded on another batch; leave --batch out, or record it again")


def data_inputs(network: Network) -> dict[str, Shape]:
    """Name → shape of the inputs that hold data, in order."""
    return {name: network.inputs[name] for name in network.data(network.inputs)}


def matched_inputs(ref: Mapping[str, Shape], keras: Mapping[str, Shape]) -> dict[str, str]:
    """Keras input → the reference's: by name where names agree, then by a shape that is the only one, then by order."""
    made: dict[str, str] = {}
    left = dict(ref)
    plain = {_plain(name): name for name in ref}
    for name in keras:
        own = plain.get(_plain(name))
        if own in left:
            made[name] = own
            del left[own]
    for name, shape in keras.items():
        if name in made or not shape:
            continue
        alike = [other for other, given in left.items() if given and same_shape(given, shape)]
        rivals = [other for other, given in keras.items() if other not in made and given and same_shape(given, shape)]
        if len(alike) == len(rivals) == 1:
            made[name] = alike[0]
            del left[alike[0]]
    made |= dict(zip([name for name in keras if name not in made], left, strict=False))
    return {name: made[name] for name in keras if name in made}


def _plain(name: str) -> str:
    return "".join(c for c in name.lower().split(":")[0] if c.isalnum())


def inputs_for(
    batch: Batch,
    side: Side,
    wanted: Mapping[str, Shape],
    partners: Mapping[str, str],
    *,
    channels_first: bool = False,
    notes: list[str] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays that a network is fed, in its own shapes.

    Args:
        batch: the batch.
        side: whose network it is.
        wanted: input → shape without batch axis; None where an extent is open, () where nothing is known.
        partners: input → its name on the other side.
        channels_first: whether it keeps its channels first, and so takes an array that fits only so, too.
        notes: what was done to an array is added.

    Raises:
        BadFile: an array is missing, or does not fit.
    """
    made: dict[str, np.ndarray] = {}
    for name, shape in wanted.items():
        called = [name, partners.get(name, "")]
        found = batch.get(*side.names("x", called, alone=len(wanted) == 1))
        if found is None:
            have = ", ".join(key for key in batch.arrays if key.startswith("x")) or "none"
            some = ", ".join(f"x_{key}" for key in wanted)
            problem = f"has no array for the input {name} of {side.words} (it has {have})"
            raise BadFile(batch.source, problem, f"name the arrays {some}")
        made[name], turned = _turned(found[1], shape) if channels_first else (found[1], False)
        if turned and notes is not None:
            notes.append(f"{found[0]} has its channels first, as {side.words} keeps them; it is shown as n h w c here.")
        made[name] = _fitted(made[name], shape, batch.source, side.words)
    return made


def _turned(x: np.ndarray, shape: Shape) -> tuple[np.ndarray, bool]:
    """`x` with its channels last, where it fits a shape in no other way; whether it was moved."""
    have = x.shape[1:]
    if len(have) < 2 or _takes(shape, have) or not _takes(shape, (*have[1:], have[0])):
        return x, False
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)), True


def _fitted(x: np.ndarray, shape: Shape, source: str, whose: str) -> np.ndarray:
    """`x` in the shape a network takes: a vector is given the map it needs, a grey image its channel."""
    have = x.shape[1:]
    if not shape:
        return x
    if _takes(shape, have):
        return x
    known = None not in shape
    if len(shape) == len(have) + 1 and shape[-1] in (1, None) and _takes(shape[:-1], have):
        return x[..., np.newaxis]
    if known and len(shape) == 1 and int(np.prod(have)) == shape[0]:
        return x.reshape(len(x), -1)
    if len(have) == 1 and len(shape) == 3 and shape[0] in (1, None) and shape[1] in (1, None):
        flat = x.reshape(len(x), 1, 1, -1)
        if _takes(shape, flat.shape[1:]):
            return flat
    remedy = "prepare the images as the network takes them"
    if len(shape) == len(have) == 3 and _takes(shape, (*have[1:], have[0])):
        remedy = "the axes of x are (n, h, w, c), these look like (n, c, h, w)"
    elif len(shape) == 3 and _takes(shape, x.shape[:3]):
        remedy = "the axes of x are (n, h, w, c), these look like MatConvNet's (h, w, c, n)"
    raise BadFile(source, f"holds images of {extents(have)}, but {whose} takes {extents(shape)}", remedy)


def _takes(shape: Sequence[int | None], have: Sequence[int]) -> bool:
    return len(have) == len(shape) and all(want in (None, got) for got, want in zip(have, shape, strict=True))


def targets_for(
    batch: Batch, side: Side, network: Network, other: Network, partners: Mapping[str, str] | None = None
) -> tuple[Targets | None, tuple[str, ...]]:
    """What the losses of a network are held against, and remarks; None where the batch has no labels for any.

    Args:
        batch: the batch.
        side: whose network it is.
        network: its network.
        other: the other side's, whose names of labels and outputs are understood too.
        partners: loss → the other side's loss that is its partner; None pairs them in order where they are as many.

    Raises:
        BadFile: labels that are no classes where a loss wants classes, or classes that the network does not have.
    """
    values: dict[str, np.ndarray] = {}
    weights: dict[str, np.ndarray] = {}
    notes: list[str] = []
    missing: list[str] = []
    losses, others = network.losses, other.losses
    for loss in (layer for layer in network if network.label_of(layer)):
        called = _called(network, loss)
        partner = None
        if partners is not None:
            partner = partners.get(loss.name)
        elif loss in losses and len(losses) == len(others):
            partner = others[losses.index(loss)].name
        if partner is not None:
            called += _called(other, other[partner])
        found = batch.get(*side.names("y", called, alone=True))
        label = network.label_of(loss)
        if found is None:
            if loss in losses:
                missing.append(called[0])
            continue
        prediction = network.shape_of(loss.inputs[0])
        value = _value(loss.kind, found[1], prediction, found[0], batch, notes)
        weighing = batch.get(*side.names("w", called, alone=True))
        if weighing is not None:
            weights[label] = weighing[1].astype(np.float32)
        values[label] = value
        if network.framework == "keras" and _counts_none(loss.kind, value):
            values[label], weights[label] = without_ignored(value, weights.get(label))
            notes.append("Labels of -1 are ignored: the Keras loss is given a sample weight of 0 for them.")
    have = ", ".join(key for key in batch.arrays if key.startswith("y"))
    if missing and have:
        problem = f"has no labels for the loss on {missing[0]} of {side.words} (it has {have})"
        raise BadFile(batch.source, problem, f"name them y_{missing[0]}")
    return (Targets(values, weights) if values else None), tuple(dict.fromkeys(notes))


def _called(network: Network, loss: Layer) -> list[str]:
    """What a user may call the labels of a loss."""
    prediction = loss.inputs[0]
    maker = network.producers.get(prediction)
    names = [network.label_of(loss).split(":", 1)[-1], prediction, maker.origin if maker else "", loss.name]
    return list(dict.fromkeys(name for name in names if name))


def without_ignored(ids: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Class ids in which 0 stands for those that are ignored (-1), and weights of 0 there, else the given ones or 1."""
    given = np.asarray(np.float32(1) if weights is None else weights)
    given = given.reshape(*given.shape, *(1,) * (ids.ndim - given.ndim))
    return np.where(ids < 0, 0, ids), np.where(ids < 0, np.float32(0), given).astype(np.float32)


def _counts_none(kind: object, value: np.ndarray) -> bool:
    """Whether some labels are to be ignored and the Keras loss has no word for that."""
    ids = value.dtype.kind == "i" and value.size > 0 and value.min() < 0
    return bool(ids) and getattr(kind, "ignore", None) is None and getattr(kind, "ignored", None) != -1


def _value(
    kind: object, y: np.ndarray, prediction: Shape | None, name: str, batch: Batch, notes: list[str]
) -> np.ndarray:
    """Class ids, or the targets as they are for a loss that takes values."""
    function = kind.function if isinstance(kind, Loss) else ""
    classes = prediction[-1] if prediction else None
    if function in INTEGERS:
        return _integers(function, y, name, batch.source)
    try:
        ids, hot = class_ids(y, name, batch.source)
    except BadFile:
        if function in CATEGORICAL:
            raise
        return y.astype(np.float32)
    if function not in CATEGORICAL and classes and y.ndim > 1 and y.shape[-1] == classes and hot is None:
        return y.astype(np.float32)
    if function and function not in CATEGORICAL and hot is None and _is_value(ids, classes):
        return y.astype(np.float32)
    if ids.size and ids.min() >= 1 and not batch.counted_from_zero:
        notes.append(
            f"no label of {name} is 0: labels in a batch count from 0, so check that these do not count from 1"
        )
    if classes is not None:
        ignored = kind.ignored if isinstance(kind, Loss) else None
        _check_classes(ids if ignored is None else ids[ids != ignored], hot, classes, batch)
    return ids


def _integers(function: str, y: np.ndarray, name: str, source: str) -> np.ndarray:
    """Labels of a loss that knows no classes: whose image it is (n,), or a sequence for each (n, steps), 0 for none."""
    if function != "ctc":
        return class_ids(y, name, source)[0]
    if y.ndim != 2 or not np.all(np.isfinite(y) & (y == np.floor(y)) & (y >= 0)):
        problem = f"has {name} of shape {extents(y.shape)}, which is no sequence of classes for each image"
        raise BadFile(source, problem, "the loss ctc takes whole numbers from 1 on (n, steps), filled up with 0")
    return y.astype(np.int64)


def _is_value(ids: np.ndarray, classes: int | None) -> bool:
    """Whether whole numbers cannot be classes: one output that is held against a number."""
    return classes == 1 and bool(ids.size) and (ids.max() > 1 or ids.min() < 0)


def _check_classes(ids: np.ndarray, hot: int | None, classes: int, batch: Batch) -> None:
    told = max(classes, 2)  # one logit tells two classes apart
    if hot is not None and hot != told:
        raise BadFile(batch.source, f"has one-hot labels of {hot} classes, but the network has {classes}")
    if ids.size and ids.max() >= told:
        remedy = "labels in a batch count from 0"
        if ids.min() >= 1 and ids.max() == told:
            remedy += ", and these seem to count from 1: subtract 1"
        raise BadFile(batch.source, f"holds the label {int(ids.max())}, but the network has {classes} classes", remedy)
