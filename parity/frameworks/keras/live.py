"""What a live model was compiled with, the reference's loss as a Keras object, and a copy of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity.errors import BadUsage, CannotCompare
from parity.frameworks.keras.edits import optimizers
from parity.frameworks.keras.engine import Engine, engine_of
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.lift import lift_file
from parity.frameworks.keras.optimizer_copies import again, keras_class
from parity.frameworks.keras.optimizer_state import stepping
from parity.frameworks.keras.recipes import metric_names, recipe_of
from parity.frameworks.keras.saved_state import saved_state
from parity.layers import Loss
from parity.layers.keras_losses import class_of
from parity.optimizers import OpaqueRule, lookup
from parity.recipe import Recipe

__all__ = ["as_saved", "compile_alike", "copied", "live_recipe", "loss_from_kind", "vocabularies"]


def live_recipe(engine: Engine, model: Any, losses: Sequence[Loss]) -> Recipe:
    """The recipe of a live model's `compile()`."""
    optimizer = getattr(model, "optimizer", None)
    metrics = _metrics(engine, model)
    if optimizer is None:
        return recipe_of(None, losses, metrics, 3, origin="an uncompiled model" if not losses else "compile()")
    moved = stepping(optimizer)
    described = _described(moved)
    config = described["config"] if moved is optimizer else {"inner_optimizer": described}
    era = 2 if engine.is_legacy(moved) else 3
    steps = int(np.asarray(moved.iterations))
    custom = type(model).train_step is not engine.keras.Model.train_step
    notes = ("the model has a train_step of its own, which parity does not run",) if custom else ()
    entry = {"class_name": type(optimizer).__name__, "config": config}
    own = _known_class(moved)
    if own != type(moved).__name__ and moved is optimizer:
        entry["class_name"] = own
    found = recipe_of(entry, losses, metrics, era, steps, notes=notes)
    return found if own == type(moved).__name__ else replace(found, custom=type(moved).__name__)


def _known_class(optimizer: Any) -> str:
    """Keras' class (or parity's) that an optimizer is derived from, if not from the base of all; else its own."""
    for base in type(optimizer).__mro__:
        own = base.__module__ == optimizers.__name__
        if own or base.__module__.split(".")[0] in ("keras", "tf_keras"):
            return base.__name__ if lookup(base.__name__) is not OpaqueRule else type(optimizer).__name__
    return type(optimizer).__name__


def as_saved(recipe: Recipe, file: KerasFile, ids: Sequence[str]) -> Recipe:
    """A live model's recipe with what only its file says: metrics, updates done, the optimizer's slots.

    Args:
        recipe: of the live model.
        file: the facts of its file.
        ids: param ids of the model's trained variables, in order.
    """
    network, saved = lift_file(file)
    state = saved_state(file, network)
    found = dict(zip(state.ids, ids, strict=True)) if len(state.ids) == len(ids) else {key: key for key in ids}
    slots = {found[key]: held for key, held in saved.slots.items() if key in found}
    said = [note for note in saved.notes if note not in recipe.notes]
    return replace(
        recipe,
        metrics=saved.metrics,
        steps_done=saved.steps_done or recipe.steps_done,
        slots=slots,
        origin=saved.origin,
        notes=(*recipe.notes, *said),
    )


def _described(optimizer: Any) -> dict[str, Any]:
    """Class and settings of a live optimizer, as a file would have them."""
    config = dict(optimizer.get_config())
    law = config.get("learning_rate", config.get("lr"))
    if law is not None and hasattr(law, "get_config"):
        law = {"class_name": type(law).__name__, "config": law.get_config()}
    elif law is not None and hasattr(law, "numpy"):
        law = float(law.numpy())
    return {"class_name": type(optimizer).__name__, "config": {**config, "learning_rate": law}}


def _metrics(engine: Engine, model: Any) -> tuple[str, ...]:
    container = getattr(model, "_compile_metrics" if engine.modern else "compiled_metrics", None)
    return metric_names(getattr(container, "_user_metrics", None))


def loss_from_kind(engine: Engine, kind: Loss, *, softmax: bool) -> Any:
    """A Keras loss that computes this kind, for a model that ends with a softmax or does not.

    A cross-entropy of logits is the same as one of probabilities behind a softmax. Keras' mean over the batch is what
    enters MatConvNet's update too.

    Raises:
        CannotCompare: the kind has no Keras counterpart.
    """
    losses = engine.keras.losses
    reduction = "sum" if kind.reduction == "sum" else "sum_over_batch_size"
    settings: dict[str, Any] = {**dict(kind.settings), "reduction": reduction}
    if kind.label_smoothing:
        settings["label_smoothing"] = kind.label_smoothing
    if kind.function in ("softmaxlog", "log"):
        return losses.CategoricalCrossentropy(from_logits=kind.function == "softmaxlog" and not softmax, **settings)
    found = getattr(losses, class_of("hinge" if kind.function == "mean_hinge" else kind.function), None)
    if kind.target == "either" and isinstance(found, type):
        return found(**settings)
    raise CannotCompare(
        f"the Keras model is not compiled, and the reference's loss {kind.function} has no Keras counterpart; "
        "compile the model with its loss"
    )


def compile_alike(engine: Engine, copy: Any, model: Any) -> None:
    """Compile a copy as its model is compiled, with an optimizer that starts anew."""
    compiled = model.get_compile_config() if getattr(model, "optimizer", None) is not None else None
    if compiled:
        # Saving as HDF5 takes the optimizer out of what a model of Keras 3 was compiled with.
        optimizer = model.optimizer
        if keras_class(type(optimizer)) is type(optimizer):
            copy.compile_from_config({"optimizer": engine.keras.optimizers.serialize(optimizer), **compiled})
        else:  # what is written of a user's own class may not be enough to make it again
            copy.compile_from_config({**compiled, "optimizer": "sgd"})
            copy.optimizer = again(optimizer)


def copied(model: Any) -> Any:
    """A model of its own with the same layers, weights and compilation, for comparing a live model with itself.

    Raises:
        BadUsage: Keras cannot clone it (a subclassed model).
    """
    engine = engine_of(model)
    try:
        clone = engine.keras.models.clone_model(model)
        clone.set_weights(model.get_weights())
        compile_alike(engine, clone, model)
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        raise BadUsage(
            f"both sides are one model, and Keras cannot copy it ({type(error).__name__}: {text}); build it twice"
        ) from error
    return clone


def vocabularies(model: Any, names: Sequence[str]) -> dict[str, int]:
    """Input → how many tokens it tells apart, where an embedding reads it; `names` are those of the model's inputs."""
    found: dict[str, int] = {}
    for layer in getattr(model, "layers", ()):
        size = getattr(layer, "input_dim", None)
        if type(layer).__name__ != "Embedding" or not isinstance(size, int):
            continue
        read = {id(tensor) for node in layer._inbound_nodes for tensor in _flat(node.input_tensors)}
        for name, tensor in zip(names, model.inputs, strict=False):
            if id(tensor) in read:
                found[name] = min(size, found.get(name, size))
    return found


def _flat(tensors: Any) -> Sequence[Any]:
    """What a node reads: Keras 2 keeps a single tensor as itself."""
    return tensors if isinstance(tensors, list | tuple) else [tensors]
