"""A model built from its repaired configuration, with the file's arrays put into it leaf by leaf."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from parity.errors import BadFile
from parity.frameworks.keras.configs import walk
from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.leaves import leaves_of
from parity.frameworks.keras.records import places

__all__ = ["assembled", "built"]


def assembled(engine: Engine, file: KerasFile, given: Mapping[str, Any]) -> Any:
    """The model of a file, not compiled.

    Args:
        engine: the Keras that builds it.
        file: its facts, in words that this Keras reads.
        given: custom objects by name.

    Raises:
        BadFile: an array does not fit its layer.
    """
    model = built(engine, file.model_config, given)
    _fill(engine, model, file)
    return model


def built(engine: Engine, entry: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """A model of this configuration with fresh weights; raises whatever Keras raises."""
    entry = copy.deepcopy(entry)  # Keras takes it apart
    if not engine.modern:
        return engine.keras.models.model_from_config(dict(entry), custom_objects=dict(given))
    if "module" in entry:
        return engine.keras.saving.deserialize_keras_object(dict(entry), custom_objects=dict(given))
    from keras.src.legacy.saving import saving_utils

    return saving_utils.model_from_config(dict(entry), custom_objects=dict(given))


def _fill(engine: Engine, model: Any, file: KerasFile) -> None:
    """Puts each leaf's arrays into its variables."""
    if not model.built:
        raise BadFile(file.path, "its model does not say the shape of its input", "pass the model itself")
    walked = walk(file.path, file.model_config, list(file.weights) if file.format == "hdf5" else [])
    left = {path: arrays for path, arrays in leaves_of(file, walked).items() if arrays}
    for place in places(engine, model):
        arrays = left.pop(place.path, ())
        variables = (
            [*place.item.trainable_weights, *place.item.non_trainable_weights] if engine.is_layer(place.item) else []
        )
        if len(arrays) != len(variables):
            raise BadFile(
                file.path,
                f"holds {len(arrays)} arrays for layer {place.path}, which has {len(variables)}",
                "save it again",
            )
        for variable, stored, value in zip(variables, arrays, file.read_all(list(arrays)), strict=True):
            if tuple(variable.shape) != value.shape:
                raise BadFile(
                    file.path,
                    f"its {stored.name} has shape {value.shape}, and layer {place.path} {tuple(variable.shape)}",
                )
            variable.assign(value)
    if left:
        raise BadFile(file.path, f"holds arrays for a layer {next(iter(left))}, which its model does not have")
