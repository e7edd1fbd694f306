"""Lifts a Keras file into the vocabulary from its configuration alone: nothing is built, no framework is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary

from parity.frameworks.keras.calls import layer_of, outputs_of
from parity.frameworks.keras.choice import engine_name
from parity.frameworks.keras.configs import Walk, walk
from parity.frameworks.keras.files import KerasFile, guard, read
from parity.frameworks.keras.kinds import under_keras_2
from parity.frameworks.keras.leaves import leaves_of, params_of
from parity.frameworks.keras.losses import loss_layers
from parity.frameworks.keras.recipes import losses_of, metric_names, optimizer_era, recipe_of
from parity.frameworks.keras.repair import repaired
from parity.frameworks.keras.saved_state import with_state
from parity.frameworks.keras.standalone import normalises_when_frozen
from parity.layers import BatchNorm, Loss
from parity.network import Layer, Network, Param, Shape
from parity.recipe import Recipe

__all__ = ["lift", "lift_file"]


def lift(path: str | Path, arch: str | Path | None = None) -> tuple[Network, Recipe]:
    """The network and the recipe of a file of any of Keras' formats (see `files`).

    Args:
        path: the file, or a SavedModel's folder.
        arch: the model's JSON, for a file of weights alone.

    Lambda layers and classes of the user's appear as `Opaque(runs_code=True)`. Parameters have shapes and no values.

    Raises:
        BadFile: it cannot be read, or its configuration contradicts itself.
    """
    return lift_file(read(path, arch))


def lift_file(file: KerasFile) -> tuple[Network, Recipe]:
    """As `lift`, of a file whose facts have been read; made once, as opening a model asks for it more than once."""
    if file not in _LIFTED:
        _LIFTED[file] = _lifted(repaired(file))
    return _LIFTED[file]


_LIFTED: WeakKeyDictionary[KerasFile, tuple[Network, Recipe]] = WeakKeyDictionary()


def _lifted(file: KerasFile) -> tuple[Network, Recipe]:
    with guard(file.path):
        stored = list(file.weights) if file.format == "hdf5" else []
        walked = walk(file.path, file.model_config, stored)
        recipe = _recipe(file)
        network = _network(file, walked)
        first = next((layer.kind for layer in network.layers if isinstance(layer.kind, Loss)), recipe.loss)
        return network, with_state(replace(recipe, loss=first), file, network)


def _recipe(file: KerasFile) -> Recipe:
    training = file.training_config
    if training is None:
        return recipe_of(None, [], (), file.era, origin="an uncompiled model")
    optimizer = training.get("optimizer")
    losses = losses_of(training.get("loss"))
    metrics = metric_names(training.get("metrics"))
    if isinstance(optimizer, str):
        optimizer = {"class_name": optimizer, "config": {}}
    if not isinstance(optimizer, Mapping) or not optimizer.get("class_name"):
        return recipe_of(None, losses, metrics, file.era, notes=("the file does not say which optimizer",))
    name, config = str(optimizer["class_name"]), optimizer.get("config") or {}
    era = optimizer_era(name, config, file.era)
    notes = [] if file.slots else ["the file holds no optimizer slots: training starts them anew"]
    described = {"class_name": name, "config": config}
    return recipe_of(described, losses, metrics, era, notes=tuple(notes), version=file.version)


def _network(file: KerasFile, walked: Walk) -> Network:
    shapes: dict[str, Shape | None] = dict(walked.inputs)
    leaves = leaves_of(file, walked)
    early = engine_name(file) == "tf_keras"
    layers: list[Layer] = []
    params: dict[str, Param] = {}
    final: dict[str, str] = {}  # a call → the name of what it hands on, behind its fused activation
    for call in walked.calls:
        inputs = tuple(_behind(final, name) for name in call.inputs)
        for name, said in zip(inputs, call.shapes, strict=True):
            if shapes.get(name) is None and said is not None:
                shapes[name] = said
        given = [shapes.get(name) for name in inputs]
        layer, activation = layer_of(call, inputs, given, walked.arity.get(call.name, 1))
        if early:
            layer, activation = under_keras_2(layer), activation and under_keras_2(activation)
        if isinstance(layer.kind, BatchNorm) and normalises_when_frozen(file.version):
            layer = replace(layer, kind=replace(layer.kind, frozen=False))
        held = params_of(file, call, layer.kind, leaves.get(call.path, ()))
        for param in held:
            params.setdefault(param.id, param)
        layers.append(_with_params(layer, {param.role: param.id for param in held}))
        shapes |= outputs_of(call, layer)
        final[call.name] = layer.output
        if activation is not None:
            layers.append(activation)
            shapes[activation.output] = activation.shape
            final[call.name] = activation.output
    outputs = tuple(_behind(final, name) for name in walked.outputs)
    losses = loss_layers(file.training_config, outputs, shapes)
    remarks = list(file.remarks)
    if not walked.calls:
        remarks.append(
            f"{file.model_config['class_name']} is a class of the user's: the file holds its weights and not its graph"
        )
    return Network(
        name=_name(file),
        framework="keras",
        inputs=dict(walked.inputs),
        outputs=outputs,
        layers=(*layers, *(layer for layer, _ in losses)),
        params=params,
        labels=tuple(layer.inputs[1] for layer, _ in losses),
        objectives={layer.name: weight for layer, weight in losses},
        meta={
            "keras": file.version or "unknown",
            "backend": file.backend or "unknown",
            "format": file.format,
            "engine": {"keras": "Keras 3"}.get(engine_name(file), engine_name(file)),
            **({"channels_first": list(file.turned)} if file.turned else {}),
        },
        remarks=tuple(remarks),
    )


def _name(file: KerasFile) -> str:
    config = file.model_config.get("config")
    name = config.get("name") if isinstance(config, Mapping) else None
    return str(name or file.path.stem)


def _behind(final: Mapping[str, str], name: str) -> str:
    """The tensor that is meant by a call's name: what comes out behind its fused activation."""
    return final.get(name, name)


def _with_params(layer: Layer, params: Mapping[str, str]) -> Layer:
    return replace(layer, params=dict(params))
