"""An `.h5` of Keras 3 with the module of every class in it, as a `.keras` file has them.

Keras 3 leaves them out of an `.h5`, and its own loader then takes an operation for a layer, a word among the settings
(`score_mode="dot"`) for a function, and a single input in a list for several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from parity.frameworks.keras.configs import is_model, walk
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.leaves import leaves_of
from parity.frameworks.keras.operations import is_operation, module_of

__all__ = ["holds_operations", "with_modules"]


def holds_operations(item: Any) -> bool:
    """Whether a configuration has an operation whose module it does not say."""
    if isinstance(item, Mapping):
        return is_operation(item) or any(holds_operations(part) for part in item.values())
    return isinstance(item, list) and any(holds_operations(part) for part in item)


def with_modules(file: KerasFile) -> KerasFile:
    """The file with modules in its model's configuration, and arrays leaf by leaf."""
    stored = list(file.weights) if file.format == "hdf5" and not file.repaired else []
    walked = walk(file.path, file.model_config, stored)
    return replace(
        file,
        model_config=_entry(file.model_config),
        original=file.original or file.model_config,
        repaired=True,
        weights=leaves_of(file, walked),
    )


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    name, config = str(entry.get("class_name", "")), entry.get("config")
    made = dict(entry)
    if is_operation(entry):
        made |= {"module": module_of(name), "registered_name": None}
    elif "module" not in entry:
        functional = name == "Functional"
        module = "keras.src.models.functional" if functional else "keras" if name == "Sequential" else "keras.layers"
        made |= {"module": module, "registered_name": name if functional else None}
        if ">" in name:
            made |= {"module": None, "registered_name": name}
    if not isinstance(config, Mapping):
        return made
    settings = {key: _entry(part) if _is_layer(key, part) else part for key, part in config.items()}
    if is_model(entry):
        settings["layers"] = [_entry(layer) for layer in config["layers"]]
        for key in ("input_layers", "output_layers"):
            ends = settings.get(key)
            if isinstance(ends, list) and len(ends) == 1 and isinstance(ends[0], list):
                settings[key] = ends[0]
    return {**made, "config": settings}


def _is_layer(key: str, part: Any) -> bool:
    return key in ("layer", "backward_layer", "cell") and isinstance(part, Mapping) and "class_name" in part
