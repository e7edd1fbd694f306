"""DagNN's blocks: their properties with the defaults of matlab/+dagnn/*.m, and SimpleNN's words for them.

A layer kind reads one form only (`Kind.from_matconvnet`): a block's properties come to it under both names, the
block's own (`poolSize`) and, where a SimpleNN layer has another word for it, that one as well (`pool`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.layers.base import numbers

__all__ = ["BLOCKS", "Block", "block_fields", "name_value_pairs"]


@dataclass(frozen=True)
class Block:
    """One block class.

    Attributes:
        simplenn: the SimpleNN layer type that does the same; empty where there is none.
        defaults: property → default.
        aliases: property → the SimpleNN layer's word for it.
        legacy: properties of older releases, which are dropped.
        params: how many parameters the block reads, at least and at most; its `hasBias` decides between the two.
        inputs: how many variables it reads, at least and at most (None: any number).
    """

    simplenn: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    legacy: tuple[str, ...] = ()
    params: tuple[int, int] = (0, 0)
    inputs: tuple[int, int | None] = (1, 1)


_FILTER: dict[str, Any] = {"pad": [0.0, 0.0, 0.0, 0.0], "stride": [1.0, 1.0], "dilate": [1.0, 1.0]}
_CUDNN = ["cuDNN"]
_LOSS: dict[str, Any] = {"loss": "softmaxlog", "ignoreAverage": False, "normalise": True, "opts": []}

BLOCKS: dict[str, Block] = {
    "dagnn.Conv": Block(
        "conv", _FILTER | {"size": [0.0, 0.0, 0.0, 0.0], "hasBias": True, "opts": _CUDNN}, params=(1, 2)
    ),
    "dagnn.ConvTranspose": Block(
        "convt",
        {
            "size": [0.0, 0.0, 0.0, 0.0],
            "hasBias": True,
            "upsample": [1.0, 1.0],
            "crop": [0.0, 0.0, 0.0, 0.0],
            "numGroups": 1.0,
            "opts": _CUDNN,
        },
        params=(1, 2),
    ),
    "dagnn.Pooling": Block(
        "pool", _FILTER | {"method": "max", "poolSize": [1.0, 1.0], "opts": _CUDNN}, {"poolSize": "pool"}
    ),
    "dagnn.BatchNorm": Block(
        "bnorm", {"numChannels": [], "epsilon": 1e-5, "opts": ["NoCuDNN"], "moments": []}, params=(3, 3)
    ),
    "dagnn.ReLU": Block("relu", {"useShortCircuit": True, "leak": 0.0, "opts": []}),
    "dagnn.Sigmoid": Block("sigmoid"),
    "dagnn.SoftMax": Block("softmax"),
    "dagnn.LRN": Block("lrn", {"param": [5.0, 1.0, 0.0001 / 5, 0.75]}),
    "dagnn.NormOffset": Block("noffset", {"param": [1.0, 0.5]}),
    "dagnn.SpatialNorm": Block("spnorm", {"param": [2.0, 2.0, 10.0, 2.0]}),
    "dagnn.DropOut": Block("dropout", {"rate": 0.5, "frozen": False}),
    "dagnn.Concat": Block("", {"dim": 3.0}, legacy=("numInputs",), inputs=(1, None)),
    "dagnn.Sum": Block("", {}, legacy=("numInputs",), inputs=(1, None)),
    "dagnn.Scale": Block("", {"size": [], "hasBias": True}, params=(0, 2), inputs=(1, 3)),
    "dagnn.Crop": Block("", {"crop": [0.0, 0.0]}, inputs=(2, 2)),
    "dagnn.Loss": Block("", _LOSS, inputs=(2, 2)),
    "dagnn.PDist": Block(
        "pdist",
        _LOSS | {"loss": "pdist", "p": 2.0, "aggregate": True, "noRoot": False, "epsilon": 1e-6},
        inputs=(2, 3),
    ),
    "dagnn.ROIPooling": Block(
        "", {"method": "max", "subdivisions": [6.0, 6.0], "transform": 1.0, "flatten": False}, inputs=(2, 2)
    ),
    "dagnn.BilinearSampler": Block("", {}, inputs=(2, 2)),
    "dagnn.AffineGridGenerator": Block("", {"Ho": 0.0, "Wo": 0.0}),
    "dagnn.UniformScalingGridGenerator": Block("", {"Ho": 0.0, "Wo": 0.0}),
}
"""Class → what is known of it; a class that is not here is of the file's author."""


def block_fields(type_name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every property of a block, under its own and the SimpleNN layer's name; `type` is the SimpleNN layer's.

    The setters of MATLAB are followed: one pad or crop stands for all four sides, two for top and bottom, left and
    right (Filter.m, ConvTranspose.m), one stride or dilation for both axes.

    Args:
        type_name: a key of `BLOCKS`.
        given: the `block` struct of the file.

    Raises:
        ValueError: a property that the class does not have, at which MatConvNet's own loading stops too.
    """
    block = BLOCKS[type_name]
    unknown = [name for name in given if name not in block.defaults and name not in block.legacy]
    if unknown:
        known = ", ".join(block.defaults) or "none"
        raise ValueError(f"{type_name} has no property {unknown[0]!r} (it has {known})")
    fields = {**block.defaults, **{name: value for name, value in given.items() if name not in block.legacy}}
    for name in ("pad", "crop"):
        if name in fields and type_name != "dagnn.Crop":
            fields[name] = _four_sides(fields[name])
    if isinstance(fields.get("opts"), (list, str)) and type_name in ("dagnn.Loss", "dagnn.PDist"):
        fields |= name_value_pairs(fields["opts"], ("instanceWeights", "classWeights", "threshold", "topK", "loss"))
    fields |= {alias: fields[name] for name, alias in block.aliases.items()}
    return {**fields, "type": block.simplenn or type_name, "block": type_name}


def name_value_pairs(opts: Any, names: Sequence[str]) -> dict[str, Any]:
    """The options of a cell `{'name', value, ...}`, their names as in `names`: MatConvNet ignores case (vl_argparse.m).

    Raises ValueError for a name that is not among them.
    """
    items = opts if isinstance(opts, list) else []
    by_lower = {name.lower(): name for name in names}
    found: dict[str, Any] = {}
    for at in range(0, len(items) - 1, 2):
        name = items[at]
        if not isinstance(name, str) or name.lower() not in by_lower:
            raise ValueError(f"its opts name {name!r}, which is not an option (those are {', '.join(names)})")
        found[by_lower[name.lower()]] = items[at + 1]
    return found


def _four_sides(value: Any) -> Any:
    """A pad or crop of two elements as four, [a a b b]; everything else as it is."""
    items = numbers(value)
    return np.array([[items[0], items[0], items[1], items[1]]]) if len(items) == 2 else value
