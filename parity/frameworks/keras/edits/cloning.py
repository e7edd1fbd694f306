"""A copy of a Keras model whose layers have other settings, while its graph stays as it is.

Most fixes need no more than this; what takes layers out, puts them in or moves them needs `surgery`. Like that module
it imports nothing else of parity, for a fix script carries its text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from parity.frameworks.keras.edits.structure import word_of

__all__ = ["cloned"]


def cloned(
    keras: Any, model: Any, settings: Iterable[tuple[str, Any]], weights: Iterable[tuple[str, str, Any]] = ()
) -> Any:
    """A copy with other settings and weights; all else is the model's, where the shapes agree.

    Args:
        keras: the module `keras` or `tf_keras`.
        model: a Sequential or functional model without submodels; it stays as it is.
        settings: (name of a layer, arguments of its constructor, or the new layer that takes its place).
        weights: (name of a layer, Keras' name of its weight, value).
    """
    arguments: dict[str, dict[str, Any]] = {}
    instead: dict[str, Any] = {}
    for name, new in settings:
        if isinstance(new, dict):
            arguments.setdefault(name, {}).update(new)
        else:
            instead[name] = new

    def changed(layer: Any) -> Any:
        config = {**layer.get_config(), **arguments.get(layer.name, {})}
        return instead[layer.name] if layer.name in instead else type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=changed)
    for layer in model.layers:
        values = {word_of(variable): variable for variable in layer.weights}
        values.update({word: value for name, word, value in weights if name == layer.name})
        for variable in copy.get_layer(layer.name).weights:
            value = values.get(word_of(variable))
            if value is not None and tuple(value.shape) == tuple(variable.shape):
                variable.assign(value)
    return copy
