"""Lifts a Keras file into the vocabulary from its configuration alone: nothing is built, no framework is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from parity.frameworks.keras.configs import Call, Walk, walk
from parity.frameworks.keras.files import KerasFile, Stored, guard, read
from parity.frameworks.keras.kinds import (
    NOISE,
    activation_kind,
    axes_of,
    fuses,
    initializer_text,
    kind_of,
    operation_kind,
    penalty_coefficients,
    role_of,
)
from parity.frameworks.keras.recipes import losses_of, metric_names, optimizer_era, recipe_of
from parity.frameworks.keras.safety import runs_code
from parity.frameworks.keras.shapes import shape_of
from parity.layers import Kind, Opaque, Split
from parity.network import Layer, Network, Param, Shape
from parity.recipe import Recipe

__all__ = ["lift", "lift_file"]


def lift(path: str | Path) -> tuple[Network, Recipe]:
    """The network and the recipe of a `.h5` or `.keras` file.

    Lambda layers and classes of the user's appear as `Opaque(runs_code=True)`. Parameters have shapes and no values.

    Raises:
        BadFile: it cannot be read, or its configuration contradicts itself.
    """
    return lift_file(read(path))


def lift_file(file: KerasFile) -> tuple[Network, Recipe]:
    """As `lift`, of a file whose facts have been read."""
    with guard(file.path):
        stored = list(file.weights) if file.format == "hdf5" else []
        walked = walk(file.path, file.model_config, stored)
        recipe = _recipe(file)
        return _network(file, walked, recipe), recipe


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
    return recipe_of({"class_name": name, "config": config}, losses, metrics, era, file.steps_done, notes=tuple(notes))


def _network(file: KerasFile, walked: Walk, recipe: Recipe) -> Network:
    shapes: dict[str, Shape | None] = dict(walked.inputs)
    stored = _Weights(file)
    layers: list[Layer] = []
    params: dict[str, Param] = {}
    final: dict[str, str] = {}  # a call → the name of what it hands on, behind its fused activation
    for call in walked.calls:
        inputs = tuple(_behind(final, name) for name in call.inputs)
        for name, said in zip(inputs, call.shapes, strict=True):
            if shapes.get(name) is None and said is not None:
                shapes[name] = said
        given = [shapes.get(name) for name in inputs]
        layer, activation = _lift_call(call, inputs, given, walked.arity.get(call.name, 1))
        held = stored.params(call, layer.kind)
        for param in held:
            params.setdefault(param.id, param)
        layers.append(_with_params(layer, {param.role: param.id for param in held}))
        shapes.update(dict.fromkeys(layer.outputs, layer.shape))
        final[call.name] = layer.output
        if activation is not None:
            layers.append(activation)
            shapes[activation.output] = activation.shape
            final[call.name] = activation.output
    outputs = tuple(_behind(final, name) for name in walked.outputs)
    labels: list[str] = []
    losses = losses_of((file.training_config or {}).get("loss"))
    if len(losses) == 1 and len(outputs) > 1:
        losses *= len(outputs)
    for i, (kind, output) in enumerate(zip(losses, outputs, strict=False)):
        name = "loss" if len(losses) == 1 else f"loss:{output}"
        label = "labels" if len(losses) == 1 else f"labels:{output}"
        layers.append(Layer(name, kind, (output, label), (name,), {}, (), "loss", "loss"))
        labels.append(label)
        if i == 0 and recipe.loss is None:
            break
    remarks: list[str] = []
    if not walked.calls:
        remarks.append(
            f"{file.model_config['class_name']} is a class of the user's: the file holds its weights and not its graph"
        )
    return Network(
        name=_name(file),
        framework="keras",
        inputs=dict(walked.inputs),
        outputs=outputs,
        layers=tuple(layers),
        params=params,
        labels=tuple(labels),
        meta={"keras": file.version or "unknown", "backend": file.backend or "unknown", "format": file.format},
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


def _lift_call(
    call: Call, inputs: tuple[str, ...], given: Sequence[Shape | None], arity: int
) -> tuple[Layer, Layer | None]:
    """A call's layer, and that of its fused activation."""
    entry = call.entry
    name = str(entry["class_name"])
    config: Mapping[str, Any] = entry["config"] if isinstance(entry["config"], Mapping) else {}
    known = [shape for shape in given if shape is not None]
    known = known if len(known) == len(given) else []
    code = runs_code(entry)
    remarks: list[str] = []
    if code:
        remarks.append("runs code from the file" if name == "Lambda" else "a class of the user's")
    if name in NOISE:
        remarks.append("random, without a mask")
    if config.get("activity_regularizer") is not None:
        remarks.append("adds an activity regularizer to the loss")
    kind = _kind(name, entry, config, call, known, code)
    shape = kind.output_shape(known) if known and not isinstance(kind, Opaque) else shape_of(name, config, known)
    if isinstance(kind, Split):
        arity = len(kind.bounds) + 1  # whichever of them are read
    outputs = (call.name,) if arity == 1 else tuple(f"{call.name}:{i}" for i in range(arity))
    layer = Layer(call.name, kind, inputs, outputs, {}, shape, call.path, name, tuple(remarks))
    fused = activation_kind(config.get("activation")) if fuses(name) and not code else None
    if fused is None:
        return layer, None
    activation = f"{call.name}:activation"
    return layer, Layer(activation, fused, (call.name,), (activation,), {}, shape, call.path, name)


def _kind(
    name: str, entry: Mapping[str, Any], config: Mapping[str, Any], call: Call, known: Sequence[Shape], code: bool
) -> Kind:
    module = str(entry.get("module") or "")
    if not code and (".ops" in module or name in ("TFOpLambda", "SlicingOpLambda")):
        word = str(config.get("function", name)).rsplit(".", 1)[-1]
        settings = {**config, **call.settings}
        return operation_kind(word, call.arguments, settings, known)
    return kind_of(name, config, known, runs_code=code)


class _Weights:
    """The stored arrays of a file, by layer."""

    def __init__(self, file: KerasFile) -> None:
        self.file = file
        # HDF5 lists a submodel's arrays as one: its layers take theirs in turn, by how many each has.
        self._taken: dict[str, int] = {}
        self._known: dict[str, tuple[Stored, ...]] = {}

    def arrays(self, call: Call, config: Mapping[str, Any]) -> tuple[Stored, ...]:
        """The arrays of a leaf, in its own order."""
        if call.path in self._known:
            return self._known[call.path]
        if self.file.format == "zip":
            found = self.file.weights.get(call.place, ())
        elif "/" not in call.path:
            found = self.file.weights.get(call.path, ())
        else:
            found = self._of_submodel(call)
        self._known[call.path] = found
        return found

    def _of_submodel(self, call: Call) -> tuple[Stored, ...]:
        """Those of the outermost submodel's arrays whose names say the leaf's: `base/conv2d_1/kernel:0`."""
        top, leaf = call.path.split("/", 1)[0], call.path.rsplit("/", 1)[-1]
        return tuple(s for s in self.file.weights.get(top, ()) if leaf in s.name.split("/")[:-1])

    def params(self, call: Call, kind: Kind) -> list[Param]:
        """The leaf's parameters."""
        name = str(call.entry["class_name"])
        raw = call.entry["config"]
        config: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
        found: list[Param] = []
        names = _variable_names(name, config)
        for i, stored in enumerate(self.arrays(call, config)):
            word = stored.name.rsplit("/", 1)[-1].split(":")[0]
            if self.file.format == "zip":
                word = names[i] if i < len(names) else f"variable_{i}"
            role = word if name.startswith("Separable") else role_of(word)
            word = {"W": "kernel", "b": "bias"}.get(word, word)
            initial = config.get(f"{word}_initializer", config.get("init") if role == "kernel" else None)
            l1, l2 = penalty_coefficients(config.get(f"{word}_regularizer"))
            statistic = role in ("mean", "variance")
            found.append(
                Param(
                    id=f"{call.path}.{role}",
                    role=role,
                    axes=axes_of(kind, role, stored.shape, name),
                    shape=stored.shape,
                    trainable=bool(config.get("trainable", True)) and not statistic,
                    l1=l1,
                    l2=l2,
                    initializer=initializer_text(initial),
                    source=stored.name,
                )
            )
        return found


def _variable_names(name: str, config: Mapping[str, Any]) -> list[str]:
    """A layer's variables in its own order, which a `.keras` archive numbers without naming."""
    bias = ["bias"] if config.get("use_bias", True) else []
    if name == "BatchNormalization":
        scale, center = config.get("scale", True), config.get("center", True)
        return ["gamma"] * bool(scale) + ["beta"] * bool(center) + ["moving_mean", "moving_variance"]
    if name == "DepthwiseConv2D":
        return ["depthwise_kernel", *bias]
    if name.startswith("SeparableConv"):
        return ["depthwise_kernel", "pointwise_kernel", *bias]
    if name in ("LayerNormalization", "GroupNormalization"):
        return ["gamma"] * bool(config.get("scale", True)) + ["beta"] * bool(config.get("center", True))
    if name == "PReLU":
        return ["alpha"]
    if name == "Embedding":
        return ["embeddings"]
    return ["kernel", *bias]
