"""Map files: which reference layer is which Keras layer, where the alignment errs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from parity.align import Map
from parity.errors import BadFile

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

__all__ = ["read_map"]

_EXAMPLE = 'write [layers] with lines such as conv1 = "conv2d_3", and [ignore] with ref = [] and keras = []'


def read_map(path: Path) -> Map:
    """Read a TOML map file.

    A table `[layers]` gives the Keras layer of each reference layer; a table `[ignore]` lists layers of either side
    (`ref`, `keras`) that stay without a partner.

    Raises:
        BadFile: it is missing, is not TOML, or holds something else.
    """
    try:
        held: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFile(path, "there is no such file", "check the path of --map") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadFile(path, f"is not a TOML map file ({error})", _EXAMPLE) from None
    layers, ignore = held.get("layers", {}), held.get("ignore", {})
    unknown = set(held) - {"layers", "ignore"}
    if unknown:
        raise BadFile(path, f"has an unknown table [{sorted(unknown)[0]}]", _EXAMPLE)
    if not isinstance(layers, dict) or not all(isinstance(value, str) for value in layers.values()):
        raise BadFile(path, "[layers] must give one Keras layer's name for each reference layer", _EXAMPLE)
    lists = {side: ignore.get(side, []) if isinstance(ignore, dict) else None for side in ("ref", "keras")}
    for side, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BadFile(path, f"[ignore] {side} must be a list of layer names", _EXAMPLE)
    return Map(layers=dict(layers), ignore_ref=tuple(lists["ref"] or ()), ignore_keras=tuple(lists["keras"] or ()))
