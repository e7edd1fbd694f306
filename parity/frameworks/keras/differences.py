"""What changes when a file runs under another Keras than the one that wrote it, in words for the report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.saved_state import inner

__all__ = ["era_remarks"]


def era_remarks(file: KerasFile, engine: Engine) -> tuple[str, ...]:
    """Which Keras runs a file that another one wrote, and each difference that this makes for its layers and optimizer.

    Args:
        file: its facts.
        engine: what runs it.
    """
    wrote = f"Keras {file.version}" if file.version else "an early Keras"
    runs = f"{'Keras' if engine.modern else 'tf_keras'} {engine.keras.__version__}"
    found: list[str] = []
    entries = list(_entries(file.model_config))
    if file.era < 3 and engine.modern:
        found.append(f"saved by {wrote}, runs under {runs}, not under Keras 2's own code (tf_keras)")
        found.extend(_under_keras_3(file, entries))
    elif file.era == 1:
        found.append(f"saved by {wrote}, runs under {runs}, the oldest that runs here")
    if file.era == 1 and not engine.modern and any(e.get("class_name") == "BatchNormalization" for e in entries):
        found.append(
            "Keras 1 averages the batch variance as it is; Keras 2's fused batch normalisation puts Bessel's "
            "correction n/(n-1) on it"
        )
    if file.backend == "theano" or any(remark.startswith("kernel-flip") for remark in file.remarks):
        uneven = [str(e["config"].get("name")) for e in entries if _uneven(e)]
        if uneven:
            found.append(
                f"Theano pads 'same' evenly and tensorflow puts the odd cell last: {', '.join(uneven[:4])}"
                f"{' and others' if len(uneven) > 4 else ''} can see another border than on Theano"
            )
    return tuple(found)


def _under_keras_3(file: KerasFile, entries: list[Mapping[str, Any]]) -> Iterator[str]:
    classes = {str(e.get("class_name", "")) for e in entries}
    if "BatchNormalization" in classes:
        yield (
            "Bessel's correction: Keras 2's fused batch normalisation averages n/(n-1) times the batch variance, "
            "Keras 3 the batch variance itself, so the moving variances part with training"
        )
    if any("hard_sigmoid" in (c.get("activation"), c.get("recurrent_activation")) for c in _configs(entries)):
        yield "hard_sigmoid is clip(0.2x + 0.5, 0, 1) in Keras 2 and relu6(x + 3)/6 in Keras 3: other values"
    if any(re.search("Random|Dropout|Noise", name) for name in classes):
        yield "random layers draw other numbers than Keras 2's"
    optimizer = (file.training_config or {}).get("optimizer")
    if not isinstance(optimizer, Mapping):
        return
    name, config, _ = inner(optimizer)
    legacy = not name.startswith("Custom>") and "use_ema" not in config
    if legacy and config.get("decay"):
        yield f"the legacy decay={config['decay']:g} is said as the schedule InverseTimeDecay"


def _uneven(entry: Mapping[str, Any]) -> bool:
    """Whether `padding="same"` of a layer needs an odd number of cells somewhere, or may."""
    config = entry.get("config")
    if not isinstance(config, Mapping) or config.get("padding") != "same":
        return False
    extents = [config.get(key) for key in ("kernel_size", "pool_size", "strides")]
    size, pool, stride = ([n] if isinstance(n, int) else list(n or ()) for n in extents)
    return any(n > 1 for n in stride) or any(n % 2 == 0 for n in [*size, *pool])


def _configs(entries: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for entry in entries:
        config = entry.get("config")
        if isinstance(config, Mapping):
            yield config


def _entries(item: Any) -> Iterator[Mapping[str, Any]]:
    """Every serialized object with a configuration of its own, layers inside wrappers and submodels too."""
    if isinstance(item, Mapping):
        if isinstance(item.get("class_name"), str) and isinstance(item.get("config"), Mapping):
            yield item
        for part in item.values():
            yield from _entries(part)
    elif isinstance(item, list):
        for part in item:
            yield from _entries(part)
