"""A model of Keras 1 or 2 in the words of Keras 3, for who wants it to run there.

What stock Keras 3 stumbles over in such files: an input shape on a Sequential's first layer, node numbers of submodels
that count one too high, arguments that its constructors dropped, data types as policies, single inputs in a list.
"""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from parity.errors import CannotCompare
from parity.frameworks.keras.configs import is_model, layers_of, name_of, walk, with_names
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.graphs import Edges, Reference
from parity.frameworks.keras.leaves import leaves_of

__all__ = ["modernized"]

_DROPPED = frozenset(
    """
    batch_input_shape input_shape input_dtype input_length ragged implementation time_major fused renorm
    renorm_clipping renorm_momentum virtual_batch_size adjustment query_shape key_shape value_shape batch_size
    build_input_shape
    """.split()
)
"""Arguments that Keras 3's constructors do not have, and that say nothing here (`renorm=True` is refused)."""

_RAGGED = ("ragged", True)

_NOT_TAKEN = {
    "DepthwiseConv1D": "filters groups kernel_initializer kernel_regularizer kernel_constraint".split(),
    "DepthwiseConv2D": "filters groups kernel_initializer kernel_regularizer kernel_constraint".split(),
    "SeparableConv1D": "groups kernel_initializer kernel_regularizer kernel_constraint".split(),
    "SeparableConv2D": "groups kernel_initializer kernel_regularizer kernel_constraint".split(),
    "Conv2DTranspose": ["groups"],
    "Conv3DTranspose": ["groups", "dilation_rate"],
    "Conv1DTranspose": ["groups"],
    "ConvLSTM2D": ["groups"],
    "MultiHeadAttention": ["sequence_length"],
}

_ONLY_KERAS_2 = {
    "TFOpLambda": "calls a tensorflow function as a layer",
    "SlicingOpLambda": "slices as a layer of its own",
    "TensorFlowOpLayer": "holds tensorflow operations",
    "LocallyConnected1D": "is a LocallyConnected1D",
    "LocallyConnected2D": "is a LocallyConnected2D",
    "RandomFourierFeatures": "is a RandomFourierFeatures",
    "Lambda": "is a Lambda with code of Keras 2",
}


def modernized(file: KerasFile) -> KerasFile:
    """The file with its model in the words of Keras 3; arrays leaf by leaf.

    Raises:
        CannotCompare: it has a layer that Keras 3 does not have.
    """
    if not is_model(file.model_config):
        raise CannotCompare(
            f"{file.path}: a subclassed model of Keras 2 does not run under Keras 3; leave out --keras-engine"
        )
    stored = list(file.weights) if file.format == "hdf5" and not file.repaired else []
    entry = with_names(file.model_config, stored)
    walked = walk(file.path, entry, stored)
    leaves = leaves_of(file, walked)
    made = _model(file, entry, "sequential")
    # Both make the same calls in the same order, under names that may differ.
    calls = zip(walked.calls, walk(file.path, made).calls, strict=True)
    names = {old.path: new.path for old, new in calls}
    return replace(
        file,
        model_config=made,
        original=file.original or file.model_config,
        repaired=True,
        weights={names.get(path, path): arrays for path, arrays in leaves.items()},
    )


def _name(name: str) -> str:
    """A layer's name without slashes, which Keras 3 does not allow."""
    return name.replace("/", "_")


def _model(file: KerasFile, entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    config = entry["config"]
    name = str((config.get("name") if isinstance(config, Mapping) else None) or entry.get("name") or name)
    if isinstance(config, Mapping) and "input_layers" in config:
        made: dict[str, Any] = {"class_name": "Functional", "config": _functional(file, entry, name)}
    else:
        made = {"class_name": "Sequential", "config": _sequential(file, entry, name)}
    trainable = config.get("trainable", True) if isinstance(config, Mapping) else True
    made["config"] |= {"name": _name(name), "trainable": trainable, "dtype": "float32"}
    if made["class_name"] == "Functional":
        made["config"].pop("dtype")
    module = "keras.src.models.functional" if made["class_name"] == "Functional" else "keras"
    return {"module": module, "registered_name": made["class_name"] if "src" in module else None, **made}


def _sequential(file: KerasFile, entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    layers: list[dict[str, Any]] = []
    for layer in layers_of(entry):
        if not layers and layer.get("class_name") != "InputLayer":
            inner = layer
            while is_model(inner):
                inner = layers_of(inner)[0]
            shape = inner["config"].get("batch_input_shape") if isinstance(inner.get("config"), Mapping) else None
            if shape is not None and not is_model(layer):
                kind = inner["config"].get("dtype", "float32") if inner["class_name"] == "Embedding" else "float32"
                settings = {"batch_shape": shape, "dtype": _dtype(kind), "name": f"{_name(name_of(layer))}_input"}
                layers.append({"module": "keras.layers", "class_name": "InputLayer", "config": settings})
                layers[-1]["registered_name"] = None
        layers.append(_layer(file, layer))
    return {"layers": layers}


def _functional(file: KerasFile, entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    edges = Edges(entry)
    layers: list[dict[str, Any]] = []
    for name, layer in edges.layers.items():
        made = {**_layer(file, layer), "name": _name(name), "inbound_nodes": list(layer.get("inbound_nodes") or [])}
        for node in range(len(made["inbound_nodes"])):
            edges.replace(made, name, node, [_plain(edges, reference) for reference in edges.sources(name, node)])
        made["inbound_nodes"] = [_four(node) for node in made["inbound_nodes"]]
        layers.append(made)
    return {
        "layers": layers,
        "input_layers": _ends([_plain(edges, reference) for reference in edges.inputs]),
        "output_layers": _ends([_plain(edges, reference) for reference in edges.outputs]),
    }


def _plain(edges: Edges, reference: Reference) -> Reference:
    name, node, index = edges.plain(reference)
    return _name(name), node, index


def _four(node: Any) -> Any:
    """A node as Keras 2 writes it: always [name, node, tensor, kwargs]."""
    if isinstance(node, Mapping):
        return node
    items = [node] if node and isinstance(node[0], str) else node
    return [item if isinstance(item, Mapping) or len(item) > 3 else [*item, {}] for item in items]


def _ends(found: list[Reference]) -> Any:
    return list(found[0]) if len(found) == 1 else [list(reference) for reference in found]


def _layer(file: KerasFile, entry: Mapping[str, Any]) -> dict[str, Any]:
    if is_model(entry):
        return _model(file, entry, name_of(entry))
    name = str(entry.get("class_name", "")).split(">")[-1]
    if name in _ONLY_KERAS_2:
        raise CannotCompare(
            f"{file.path}: layer {name_of(entry)} {_ONLY_KERAS_2[name]}, which Keras 3 does not run; "
            "leave out --keras-engine and --backend"
        )
    raw = entry.get("config")
    config = _arguments(file, name, name_of(entry), dict(raw) if isinstance(raw, Mapping) else {})
    if isinstance(config.get("name"), str):
        config["name"] = _name(config["name"])
    if name == "InputLayer" and isinstance(raw, Mapping):
        config["batch_shape"] = raw.get("batch_input_shape", raw.get("batch_shape"))
    if name == "ThresholdedReLU":
        name, config["threshold"] = "ReLU", config.pop("theta", 1.0)
    made: dict[str, Any] = {"class_name": name, "config": config, "registered_name": None, "module": "keras.layers"}
    if ">" in str(entry.get("class_name", "")) or entry.get("registered_name"):
        made |= {"module": None, "registered_name": entry.get("registered_name") or entry["class_name"]}
    return made


def _arguments(file: KerasFile, name: str, layer: str, config: dict[str, Any]) -> dict[str, Any]:
    if config.get("renorm"):
        raise CannotCompare(f"{file.path}: layer {layer} renormalises batches (renorm), which Keras 3 does not")
    dropped = _DROPPED | set(_NOT_TAKEN.get(name, ()))
    made = {key: _value(key, value) for key, value in config.items() if key not in dropped or (key, value) == _RAGGED}
    if "dtype" in config:
        made["dtype"] = _dtype(config["dtype"])
    inner = made.get("layer"), made.get("backward_layer")
    for key, part in zip(("layer", "backward_layer"), inner, strict=True):
        if isinstance(part, Mapping) and "class_name" in part:
            made[key] = _layer(file, part)
    if name == "BatchNormalization" and isinstance(made.get("axis"), list) and len(made["axis"]) == 1:
        made["axis"] = made["axis"][0]
    if name == "LeakyReLU" and "alpha" in made:
        made["negative_slope"] = made.pop("alpha")
    return made


def _value(key: str, value: Any) -> Any:
    """An initializer, regularizer or constraint without the data type that Keras 2.3 and later put into it."""
    if isinstance(value, Mapping) and "class_name" in value and key.endswith("_initializer"):
        config = value.get("config")
        settings = {k: v for k, v in config.items() if k != "dtype"} if isinstance(config, Mapping) else {}
        return {**value, "config": settings}
    return value


def _dtype(value: Any) -> Any:
    """A data type's or policy's name."""
    if isinstance(value, Mapping):
        config = value.get("config")
        return str(config.get("name", "float32")) if isinstance(config, Mapping) else "float32"
    return value or "float32"
