"""What one call of a configuration is in the vocabulary, and the shapes of a model's tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.frameworks.keras.bare import operation_kind
from parity.frameworks.keras.configs import Call, walk
from parity.frameworks.keras.kinds import activation_kind, draws_unseen, fuses, kind_of, settings_of
from parity.frameworks.keras.operations import operation_shape
from parity.frameworks.keras.safety import runs_code
from parity.frameworks.keras.shapes import shape_of, state_shape
from parity.layers import Kind, Opaque, Split
from parity.network import Layer, Shape

__all__ = ["layer_of", "outputs_of", "shapes_of"]


def shapes_of(path: Path, entry: Mapping[str, Any], stored: Sequence[str] = ()) -> dict[str, list[Shape | None]]:
    """The input shapes of each call of a model, by the call's name; None where they are not known.

    Args:
        path: its file, for messages.
        entry: its class_name and config.
        stored: see `configs.walk`.

    Raises:
        BadFile: the configuration contradicts itself.
    """
    walked = walk(path, entry, stored)
    shapes: dict[str, Shape | None] = dict(walked.inputs)
    found: dict[str, list[Shape | None]] = {}
    for call in walked.calls:
        given = [shapes.get(n) or said for n, said in zip(call.inputs, call.shapes, strict=True)]
        found[call.name] = given
        layer, _ = layer_of(call, call.inputs, given, walked.arity.get(call.name, 1))
        shapes |= {call.name: layer.shape, **outputs_of(call, layer)}
    return found


def layer_of(
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
    kind = _kind(name, entry, config, call, known, code)
    if draws_unseen(name, kind):
        remarks.append("random, without a mask")
    if config.get("activity_regularizer") is not None:
        remarks.append("adds an activity regularizer to the loss")
    shape = _shape(name, entry, config, call, kind, known)
    if isinstance(kind, Split):
        arity = len(kind.bounds) + 1  # whichever of them are read
    outputs = (call.name,) if arity == 1 else tuple(f"{call.name}:{i}" for i in range(arity))
    read = tuple(dict.fromkeys(inputs))  # a tensor that is given twice is one tensor
    said = settings_of(name, config)
    layer = Layer(call.name, kind, read, outputs, {}, shape, call.path, name, tuple(remarks), settings=said)
    fused = activation_kind(config.get("activation")) if fuses(name) and not code else None
    if fused is None:
        return layer, None
    activation = f"{call.name}:activation"
    return layer, Layer(activation, fused, (call.name,), (activation,), {}, shape, call.path, name)


def outputs_of(call: Call, layer: Layer) -> dict[str, Shape | None]:
    """The shape of each tensor that a call's layer makes: the states of a recurrent layer have shapes of their own."""
    config = call.entry["config"]
    states = state_shape(str(call.entry["class_name"]), config if isinstance(config, Mapping) else {})
    rest = states if states is not None else layer.shape
    return {name: layer.shape if i == 0 else rest for i, name in enumerate(layer.outputs)}


def _shape(
    name: str, entry: Mapping[str, Any], config: Mapping[str, Any], call: Call, kind: Kind, known: Sequence[Shape]
) -> Shape | None:
    if not isinstance(kind, Opaque):
        return kind.output_shape(known) if known else None
    if _is_operation(name, entry):
        word = str(config.get("function", name)).rsplit(".", 1)[-1]
        return operation_shape(word, call.arguments, {**config, **call.settings}, known)
    return shape_of(name, config, known)


def _is_operation(name: str, entry: Mapping[str, Any]) -> bool:
    return ".ops" in str(entry.get("module") or "") or name in ("TFOpLambda", "SlicingOpLambda")


def _kind(
    name: str, entry: Mapping[str, Any], config: Mapping[str, Any], call: Call, known: Sequence[Shape], code: bool
) -> Kind:
    if not code and _is_operation(name, entry):
        word = str(config.get("function", name)).rsplit(".", 1)[-1]
        settings = {**config, **call.settings}
        return operation_kind(word, call.arguments, settings, known)
    return kind_of(name, config, known, runs_code=code)
