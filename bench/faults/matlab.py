"""Nets as `.mat` files: a SimpleNN as `vl_simplenn` has it, a DagNN as `saveobj` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from bench.faults.nets import Net, Node, Recipe


def save(path: Path, net: Net) -> Path:
    """Write the net in its own style."""
    scipy.io.savemat(path, _dag(net) if net.style == "dag" else _simple(net))
    return path


def _options(recipe: Recipe) -> dict[str, Any]:
    options = {"learningRate": recipe.rate, "momentum": recipe.momentum, "weightDecay": recipe.decay}
    return {**options, "batchSize": 8.0, "numEpochs": 3.0, **recipe.options}


def _cell(items: Sequence[Any]) -> np.ndarray:
    made = np.empty((1, len(items)), dtype=object)
    for at, item in enumerate(items):
        made[0, at] = item
    return made


def _structs(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    made = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for at, row in enumerate(rows):
        made[0, at] = tuple(row.values())
    return made


def _floats(values: Sequence[float]) -> np.ndarray:
    return np.array(values, float)


# ------------------------------------------------------------------------------------------------------------- SimpleNN


def _simple(net: Net) -> dict[str, Any]:
    layers = [_layer(node) for node in net.nodes]
    return {"layers": _cell(layers), "meta": {"inputSize": _floats(net.size), "trainOpts": _options(net.recipe)}}


def _layer(node: Node) -> dict[str, Any]:
    f = node.fields
    made: dict[str, Any] = {"type": node.kind, "name": node.name}
    if node.kind == "conv":
        weights = [*node.weights] if f["bias"] else [node.weights[0], np.zeros((0, 0), np.float32)]
        made |= {"weights": _cell(weights), "pad": _floats(f["pad"]), "stride": _floats(f["stride"])}
        made["dilate"] = _floats(f["dilate"])
    elif node.kind == "bnorm":
        made |= {"weights": _cell(node.weights), "epsilon": f["epsilon"], "learningRate": _floats([1, 1, f["rate"]])}
    elif node.kind == "relu":
        made["leak"] = float(f["leak"])
    elif node.kind == "pool":
        made |= {"method": f["method"], "pool": _floats(f["size"])}
        made |= {"stride": _floats(f["stride"]), "pad": _floats(f["pad"])}
    elif node.kind == "lrn":
        made |= {"type": "lrn", "param": _floats(f["param"])}
    elif node.kind == "dropout":
        made["rate"] = f["rate"]
    elif node.kind == "loss":
        made["type"] = "softmaxloss"
    elif node.kind != "sigmoid":
        raise ValueError(f"{node.kind} is no layer of a SimpleNN")
    for key in ("learningRate", "weightDecay"):
        if key in f:
            made[key] = _floats(f[key])
    return made


# ---------------------------------------------------------------------------------------------------------------- DagNN


def _dag(net: Net) -> dict[str, Any]:
    params: list[dict[str, Any]] = []
    rows = [_block(node, net, params) for node in net.nodes]
    names = dict.fromkeys(name for row in rows for key in ("inputs", "outputs") for name in row[key][0])
    meta = {
        "inputs": _structs([{"name": "data", "size": _floats(net.size)}]),
        "trainOpts": _options(net.recipe),
    }
    return {
        "vars": _structs([{"name": name, "precious": False} for name in names]),
        "params": _structs(params),
        "layers": _structs(rows),
        "meta": meta,
    }


_BLOCKS = {
    "conv": "Conv",
    "bnorm": "BatchNorm",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "pool": "Pooling",
    "lrn": "LRN",
    "dropout": "DropOut",
    "sum": "Sum",
    "concat": "Concat",
    "scale": "Scale",
    "loss": "Loss",
}


def _block(node: Node, net: Net, params: list[dict[str, Any]]) -> dict[str, Any]:
    inputs = [name if name == "data" else f"{name}_" for name in node.inputs]
    outputs = [f"{node.name}_"]
    if node.kind == "loss":
        inputs.append("label" if node.name == "loss" else f"label_{node.name}")
        outputs = ["objective" if node.name == "loss" else f"objective_{node.name}"]
    return {
        "name": node.name,
        "type": f"dagnn.{_BLOCKS[node.kind]}",
        "inputs": _cell(inputs),
        "outputs": _cell(outputs),
        "params": _cell(_params(node, params)),
        "block": _properties(node, net),
    }


def _params(node: Node, params: list[dict[str, Any]]) -> list[str]:
    letters = {"conv": "fb", "bnorm": "mbx", "scale": "ab"}.get(node.kind, "")
    made = []
    for at, (letter, value) in enumerate(zip(letters, node.weights, strict=False)):
        shape = (1, 1, value.shape[-1]) if node.kind == "scale" else value.shape
        average = node.kind == "bnorm" and at == 2
        rate = node.fields["rate"] if average else node.fields.get("learningRate", (1.0,) * 3)[at]
        decay = node.fields.get("weightDecay", (1.0,) * 3)[at]
        name = f"{node.name}{letter}"
        params.append({"name": name, "value": value.reshape(shape), "learningRate": rate, "weightDecay": decay})
        made.append(name)
    return made


def _properties(node: Node, net: Net) -> dict[str, Any]:
    f = node.fields
    if node.kind == "conv":
        made = {"size": _floats(node.weights[0].shape), "hasBias": bool(f["bias"]), "pad": _floats(f["pad"])}
        return {**made, "stride": _floats(f["stride"]), "dilate": _floats(f["dilate"]), "opts": _cell(["cuDNN"])}
    if node.kind == "bnorm":
        return {"numChannels": float(len(node.weights[0])), "epsilon": f["epsilon"]}
    if node.kind == "relu":
        return {"useShortCircuit": True, "leak": float(f["leak"])}
    if node.kind == "pool":
        made = {"method": f["method"], "poolSize": _floats(f["size"])}
        return {**made, "stride": _floats(f["stride"]), "pad": _floats(f["pad"])}
    if node.kind == "lrn":
        return {"param": _floats(f["param"])}
    if node.kind == "dropout":
        return {"rate": f["rate"], "frozen": False}
    if node.kind == "concat":
        return {"dim": 3.0}
    if node.kind == "scale":
        return {"size": _floats([1, 1, node.weights[0].shape[-1]]), "hasBias": True}
    if node.kind == "loss":
        return {"loss": "softmaxlog"}
    return {}
