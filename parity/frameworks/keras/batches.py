"""Checks a batch against a model, and turns inputs and labels into what the model and its losses take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.errors import BadUsage, CannotCompare
from parity.layers.keras_losses import class_of
from parity.layers.loss_words import INTEGERS

if TYPE_CHECKING:
    from parity.frameworks.keras.engine import Engine
    from parity.frameworks.keras.graph import Term
    from parity.runner import Targets

__all__ = ["Feeder", "labels_for", "match_inputs"]


class Feeder:
    """Turns arrays into what a model is called with.

    Args:
        engine: whose model it is.
        model: the model.
        example: the inputs that it is first shown; they name and order those of a subclassed model.
    """

    def __init__(self, engine: Engine, model: Any, example: Mapping[str, np.ndarray]) -> None:
        self._engine, self._model = engine, model
        self._names = engine.input_names(model) or list(example)
        self._shapes = engine.input_shapes(model) or [() for _ in self._names]
        self._types = engine.input_types(model)
        self._tried: set[str] = set()
        self._of_ids: set[str] = set()  # losses of the user's own that take class ids

    def arrays(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch's arrays by input (see `match_inputs`): float32, and whole numbers where an input takes those."""
        matched = match_inputs(given, self._names, self._shapes)
        types = self._types or [_natural(array) for array in matched.values()]
        return {
            name: array if word == "string" else np.ascontiguousarray(array, "float32" if "float" in word else word)
            for (name, array), word in zip(matched.items(), types, strict=True)
        }

    def tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Tensors by name."""
        return {name: self._engine.backend.constant(arrays[name]) for name in self._names}

    def structure(self, tensors: Mapping[str, Any]) -> Any:
        """The structure of tensors that the model is called with."""
        values = [tensors[name] for name in self._names]
        if len(values) == 1:
            return values[0]
        try:
            form = self._model._inputs_struct if self._engine.modern else self._model.input
            return self._engine.pack(form, values)
        except (AttributeError, ValueError, TypeError):
            return values

    def labels(self, term: Term, targets: Targets, prediction: Any) -> tuple[Any, ...]:
        """A loss's arguments: y_true, y_pred, and the sample weights if the batch has some.

        Keras' class weights are sample weights too: each sample has that of its class.
        """
        kind, backend = term.kind, self._engine.backend
        dtype = backend.dtype(prediction)
        given, sparse = targets.values[term.label], kind.sparse or term.name in self._of_ids
        array = labels_for(kind.function, sparse, given, prediction.shape, kind.ignored)
        arguments = (backend.constant(array, None if sparse else dtype), prediction)
        if not sparse and not class_of(kind.function) and term.name not in self._tried:
            self._tried.add(term.name)
            if np.shape(given) != np.shape(array) and not _taken(term.loss, arguments):
                self._of_ids.add(term.name)
                return self.labels(term, targets, prediction)
        weights = targets.weights.get(term.label)
        if weights is None:
            return arguments
        weighed = (*arguments, backend.constant(np.asarray(weights), dtype))
        if np.ndim(weights) < 2 or class_of(kind.function) or _taken(term.loss, weighed):
            return weighed
        # A loss in the user's own code may give one number per image: then it leaves out the pixels itself.
        if not (sparse and np.isin(weights, (0, 1)).all()):
            raise CannotCompare(
                f"the loss {kind.function} gives one number per image, which no pixel can be weighed in"
            )
        ignored = np.reshape(weights, array.shape) == 0
        return backend.constant(np.where(ignored, -1, array).astype(array.dtype), None), prediction


def _taken(loss: Any, arguments: Sequence[Any]) -> bool:
    """Whether a loss in the user's own code takes these labels: only running it shows that."""
    try:
        loss(*arguments)
    except Exception:  # whatever the user's code raises
        return False
    return True


def _natural(array: np.ndarray) -> str:
    """What an input that has no type of its own is fed as: whole numbers stay whole numbers."""
    return {"i": "int32", "u": "int32", "b": "bool"}.get(array.dtype.kind, "float32")


def match_inputs(
    given: Mapping[str, np.ndarray], names: Sequence[str], shapes: Sequence[Sequence[int | None]]
) -> dict[str, np.ndarray]:
    """The batch's arrays by the model's input names; where none of the names agree, in the model's order.

    Raises:
        BadUsage: an input is missing.
        CannotCompare: an array's shape does not fit.
    """
    if len(names) == len(given) and not set(names) & set(given):
        given = dict(zip(names, given.values(), strict=True))
    missing = [name for name in names if name not in given]
    if missing:
        raise BadUsage(
            f"the batch has no array for the Keras model's input {missing[0]} (it has {', '.join(given) or 'none'})"
        )
    found: dict[str, np.ndarray] = {}
    for name, shape in zip(names, shapes, strict=True):
        array = np.asarray(given[name])
        if array.ndim < 1 or len(array) == 0:
            raise CannotCompare(f"the batch's {name} holds no images")
        fits = array.ndim == len(shape) + 1 and all(
            w is None or w == g for w, g in zip(shape, array.shape[1:], strict=True)
        )
        if shape and not fits:
            raise CannotCompare(
                f"the batch has images of shape {_words(array.shape[1:])}, and the Keras model's input {name} takes "
                f"{_words(shape)}"
            )
        found[name] = array
    return found


def labels_for(
    function: str, sparse: bool, labels: np.ndarray, prediction: Sequence[int], ignored: int | None = None
) -> np.ndarray:
    """Labels as a loss takes them.

    Args:
        function: the loss (`Loss.function`).
        sparse: whether it takes class ids.
        labels: class ids from 0, (n,) or per pixel (n, h, w), or one-hot (n, c); for other losses the targets as they
            are.
        prediction: shape of what the loss reads, batch included.
        ignored: the one label that need not be a class.

    Returns:
        Class ids (n, 1), one-hot in the prediction's shape, a column of 0 and 1 for one unit, or the targets; those
        of `INTEGERS` as they are, (n, 1) or the sequences (n, steps).

    Raises:
        CannotCompare: counts do not agree, or a label has no class.
    """
    labels = np.asarray(labels)
    shape = tuple(int(n) for n in prediction)
    n, classes = shape[0], shape[-1] if len(shape) > 1 else 1
    if labels.shape[:1] != (n,):
        raise CannotCompare(f"the batch has {labels.shape[0] if labels.ndim else 0} labels for {n} images")
    if function in INTEGERS:
        return labels.reshape(n, -1).astype(np.int32)
    if labels.shape == shape and not sparse:
        return labels.astype(np.float32)
    per_pixel = len(shape) > 2 and labels.shape[1:] in (shape[1:-1], (*shape[1:-1], 1))
    ids = labels.reshape(shape[:-1]).astype(np.int64) if per_pixel else _ids(labels, classes)
    if ids is None:
        raise CannotCompare(f"labels of shape {_words(labels.shape)} do not fit a prediction of shape {_words(shape)}")
    counted = ids if ignored is None else ids[ids != ignored]
    low, high = (int(counted.min()), int(counted.max())) if counted.size else (0, 0)
    if low < 0 or high >= max(classes, 2):
        raise CannotCompare(
            f"the batch's labels run from {low} to {high}, and the Keras model tells {max(classes, 2)} classes apart "
            "(labels count from 0)"
        )
    spread = ids.reshape(*ids.shape, *(1,) * (len(shape) - ids.ndim))
    if sparse:
        return np.broadcast_to(spread, (*shape[:-1], 1)).copy()
    if classes == 1:
        return np.broadcast_to(spread, shape).astype(np.float32)
    hot = np.eye(classes, dtype=np.float32)[spread[..., 0]]
    return np.broadcast_to(hot, shape).copy()


def _ids(labels: np.ndarray, classes: int) -> np.ndarray | None:
    """Class ids (n,) of ids or one-hot rows; None for something else."""
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1] == 1:
        return flat[:, 0].astype(np.int64)
    if flat.shape[1] != classes:
        raise CannotCompare(f"the batch's labels tell {flat.shape[1]} classes apart, and the Keras model {classes}")
    return flat.argmax(axis=1).astype(np.int64)


def _words(shape: Sequence[Any]) -> str:
    return "×".join("?" if n is None else str(n) for n in shape) or "a scalar"
