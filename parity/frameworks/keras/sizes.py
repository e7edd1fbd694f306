"""Refuses a model whose configuration asks for more than any model has, before a framework makes it.

A Dense of a thousand million units is a few bytes of JSON and gigabytes of memory. The file's own arrays say how large
its layers are; what they do not say is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from parity.errors import BadFile
from parity.frameworks.keras.configs import Walk, walk
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.leaves import leaves_of
from parity.frameworks.keras.variables import variables_of
from parity.network import Network

__all__ = ["refuse_sizes"]

MAP_LIMIT = 1 << 28
"""Values that one layer may make of one image: 1 GiB in float32."""

COUNT_LIMIT = 1 << 31
"""The largest whole number that a layer's settings may hold: more than any size, pool, padding or vocabulary."""

FREE_LIMIT = 1 << 16
"""Units that a layer may have where the file has no array to show for them."""

_NO_SIZES = ("seed", "shared_object_id", "dtype", "registered_name")
"""Settings that are no sizes, however large."""

_UNITS = ("units", "filters", "output_dim", "input_dim", "num_heads", "key_dim", "value_dim", "depth_multiplier")


def refuse_sizes(file: KerasFile, network: Network) -> None:
    """Raises BadFile where a layer, or what it makes, is implausibly large.

    Args:
        file: its facts, repaired.
        network: as lifted from it.
    """
    stored = list(file.weights) if file.format == "hdf5" else []
    walked = walk(file.path, file.model_config, stored)
    leaves = leaves_of(file, walked)
    for path, name, config in _leaves(walked):
        for key, value in _numbers(config):
            if abs(value) > COUNT_LIMIT:
                raise BadFile(
                    file.path, f"layer {path} has {key}={value:,}, which no layer has", "do not trust this file"
                )
        arrays = leaves.get(path, ())
        extents = {extent for stored in arrays for extent in stored.shape}
        known = variables_of(name, config)
        if known is not None and not (known[0] or known[1]):
            continue
        held = sum(math.prod(stored.shape) for stored in arrays)
        for key, value in _numbers(config):
            if key.rsplit(".", 1)[-1] in _UNITS and value > max(FREE_LIMIT, held) and value not in extents:
                raise BadFile(
                    file.path,
                    f"layer {path} has {key}={value:,}, but its arrays hold {held:,} numbers",
                    "save it again",
                )
    for name, shape in network.inputs.items():
        _check_map(file, f"input {name}", shape)
    for layer in network.layers:
        _check_map(file, f"layer {layer.origin or layer.name}", layer.shape)


def _check_map(file: KerasFile, what: str, shape: Any) -> None:
    if shape and None not in shape and math.prod(shape) > MAP_LIMIT:
        raise BadFile(
            file.path, f"{what} makes {' × '.join(f'{n:,}' for n in shape)} values of one image, which none does"
        )


def _leaves(walked: Walk) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    seen: set[str] = set()
    for call in walked.calls:
        config = call.entry.get("config")
        if call.path not in seen and isinstance(config, Mapping):
            seen.add(call.path)
            yield call.path, str(call.entry.get("class_name", "")), config


def _numbers(item: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """Every whole number of a layer's settings, by its key."""
    if isinstance(item, Mapping):
        for word, part in item.items():
            if word not in _NO_SIZES:
                yield from _numbers(part, f"{key}.{word}" if key else str(word))
    elif isinstance(item, list):
        for part in item:
            yield from _numbers(part, key)
    elif isinstance(item, int) and not isinstance(item, bool):
        yield key, item
