"""What MatConvNet fills into a SimpleNN network before it uses it (simplenn/vl_simplenn_tidy.m)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity.frameworks.matconvnet.values import Unreadable

__all__ = ["LEGACY_RATES", "tidy"]

_PARAMETRIC = ("conv", "convt", "bnorm")

_DEFAULTS: dict[str, dict[str, Any]] = {
    "conv": {"pad": 0.0, "stride": 1.0, "dilate": 1.0, "opts": []},
    "convt": {"crop": 0.0, "upsample": 1.0, "numGroups": 1.0, "opts": []},
    "pool": {"pad": 0.0, "stride": 1.0, "opts": []},
    "relu": {"leak": 0.0},
    "dropout": {"rate": 0.5},
    "normalize": {"param": [5.0, 1.0, 0.0001 / 5, 0.75]},
    "lrn": {"param": [5.0, 1.0, 0.0001 / 5, 0.75]},
    "pdist": {"noRoot": False, "aggregate": False, "p": 2.0, "epsilon": 1e-3, "instanceWeights": []},
    "bnorm": {"epsilon": 1e-5},
}
"""Type → field → default. A pool has none for its method and window: the branch with them is never reached (:102)."""

LEGACY_RATES = ("filtersLearningRate", "biasesLearningRate", "filtersWeightDecay", "biasesWeightDecay")
"""Multipliers of the oldest files, which tidy leaves where they are and no later trainer reads."""


def tidy(net: Mapping[str, Any]) -> dict[str, Any]:
    """The network with every default filled in: only `layers` (a list of dicts) and `meta` (a dict).

    Args:
        net: a SimpleNN network as `matfile.read` gives it; it is not changed.

    Raises:
        ValueError: `layers`, a layer, its type or its weights are not what they should be. The message says which.
    """
    layers = net.get("layers")
    if isinstance(layers, Mapping):  # a struct array of one layer
        layers = [layers]
    if isinstance(layers, np.ndarray) and not layers.size:
        layers = []
    if not isinstance(layers, list):
        raise ValueError("its `layers` are not a cell array")
    return {"layers": [_layer(layer, i) for i, layer in enumerate(layers, 1)], "meta": _meta(net)}


def _meta(net: Mapping[str, Any]) -> dict[str, Any]:
    """`meta`, with what the oldest files keep beside the layers, and the crop that a border implies."""
    found = net.get("meta")
    meta = dict(found) if isinstance(found, Mapping) else {}
    for name in ("classes", "normalization"):
        if name in net:
            meta[name] = net[name]
    normalization = meta.get("normalization")
    if isinstance(normalization, Mapping) and "cropSize" not in normalization:
        border, size = normalization.get("border"), normalization.get("imageSize")
        if isinstance(border, np.ndarray) and isinstance(size, np.ndarray) and border.size and size.size >= 2:
            extents = np.ravel(size, order="F")[:2]
            with np.errstate(all="ignore"):  # what a damaged file says here is only shown
                crop = extents / (extents + np.resize(np.ravel(border, order="F"), 2))
            meta["normalization"] = {**normalization, "cropSize": crop.reshape(1, 2)}
    return meta


def _layer(layer: Any, position: int) -> dict[str, Any]:
    where = f"layers{{{position}}}"
    if not isinstance(layer, Mapping):
        raise ValueError(f"{where} is not a struct")
    kind = layer.get("type")
    if not isinstance(kind, str) or not kind:
        raise ValueError(f"{where} has no `type`")
    tidied = dict(layer)
    if kind == "custom":  # copied untouched (:46-48)
        return tidied
    name = tidied.get("name")
    tidied["name"] = name if isinstance(name, str) and name.strip() else f"layer{position}"
    if "weights" not in tidied and kind in _PARAMETRIC:
        if "filters" not in tidied or "biases" not in tidied:
            raise ValueError(f"{where} ({tidied['name']}) has no `weights`")
        tidied["weights"] = [tidied.pop("filters"), tidied.pop("biases")]
    weights = tidied.get("weights", [])
    if isinstance(weights, np.ndarray) and not weights.size:
        weights = []
    if not isinstance(weights, list):
        raise ValueError(f"{where} ({tidied['name']}): its `weights` are not a cell array")
    for j, value in enumerate(weights, 1):
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            what = str(value) if isinstance(value, Unreadable) else "not an array of class single or double"
            raise ValueError(f"{where} ({tidied['name']}): its weights{{{j}}} is {what}")
    if kind == "bnorm" and len(weights) == 2:
        channels = weights[1].size
        weights = [*weights, np.zeros((channels, 2), np.float32)]
    tidied["weights"] = weights
    tidied.setdefault("precious", False)
    for field, value in _DEFAULTS.get(kind, {}).items():
        tidied.setdefault(field, value)
    return tidied
