"""A live model that keeps its channels first, as one that keeps them last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from parity.errors import ParityError
from parity.frameworks.keras.assemble import built
from parity.frameworks.keras.calls import shapes_of
from parity.frameworks.keras.channels_first import rewritten
from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.live import compile_alike
from parity.frameworks.keras.records import places
from parity.frameworks.keras.stored import Stored

__all__ = ["with_channels_last"]

_ENTRY = ("class_name", "config", "module", "registered_name")


def with_channels_last(model: Any) -> Any:
    """The model itself, or where its layers keep their channels first a copy with channels last (`channels_first`).

    The copy has the same weights and is compiled alike; its optimizer starts anew. A model that cannot be rebuilt from
    its configuration (a subclassed one) stays as it is.
    """
    engine = engine_of(model)
    layers = model._flatten_layers() if engine.is_model(model) else ()
    if not any(getattr(layer, "data_format", None) == "channels_first" for layer in layers):
        return model
    try:
        entry = {key: part for key, part in json.loads(model.to_json()).items() if key in _ENTRY}
        path = Path(model.name)
        work = rewritten(entry, lambda made: shapes_of(path, made))
        if not work.inputs:
            return model
        copy = built(engine, work.entry, {type(layer).__name__: type(layer) for layer in layers})
        held = {place.path: place.item for place in places(engine, model) if engine.is_layer(place.item)}
        for place in places(engine, copy):
            old = held.get(place.path)
            if old is None:
                continue
            change = work.changes.get(place.path)
            for new, variable in zip(place.item.weights, old.weights, strict=True):
                value = engine.backend.numpy(variable)
                stored = Stored(variable.name, value.shape, "")
                new.assign((change(stored) if change else stored).value(lambda _, value=value: value))
        compile_alike(engine, copy, model)
    except (NotImplementedError, ValueError, TypeError, ParityError):
        return model
    return copy
