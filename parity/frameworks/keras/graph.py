"""The graph that a model executes, lifted from one recorded run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from parity.frameworks.keras.bare import operation_kind
from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.kinds import (
    activation_kind,
    argument_of,
    axes_of,
    described,
    draws_unseen,
    initializer_text,
    kind_of,
    other_penalty,
    penalty_coefficients,
    role_of,
    settings_of,
    under_keras_2,
)
from parity.frameworks.keras.observe import Recorder
from parity.frameworks.keras.records import Mask, Place, Record
from parity.layers import Kind, Loss, Opaque, lookup
from parity.network import Layer, Network, Param

__all__ = ["Graph", "Node", "Term", "graph_of", "loss_kind"]


@dataclass(frozen=True, eq=False)
class Term:
    """One loss of the model: which output, labels and mask it reads, the loss object, its weight in the sum."""

    name: str
    label: str
    output: int
    prediction: str
    loss: Any
    weight: float
    kind: Loss
    mask: str | None = None


@dataclass(frozen=True, eq=False)
class Node:
    """How one layer of the network is run alone.

    Attributes:
        layer: the network's layer.
        step: `"core"` (the layer without a fused activation), `"activation"` (that activation), `"mask"` (the mask that
            the layer puts on what it makes), `"loss"`, or `"source"` (operations outside of layers, which cannot be run
            alone).
        record: the call that it stands for.
        term: of a loss.
        fused: whether the core leaves an activation to a node of its own.
        earlier: of a mask, the masks (tensor names, or None) of what its layer reads.
    """

    layer: Layer
    step: str
    record: Record | None = None
    term: Term | None = None
    fused: bool = False
    earlier: tuple[str | None, ...] = ()


@dataclass(frozen=True, eq=False)
class Graph:
    """A lifted model.

    Attributes:
        network: in the neutral vocabulary.
        nodes: layer's name → how to run it.
        variables: param id → the Keras variable.
        terms: the losses.
        owners: param id → path of the leaf that holds it.
        whole: tensors that hold no floating-point numbers → their data type.
    """

    network: Network
    nodes: Mapping[str, Node]
    variables: Mapping[str, Any]
    terms: tuple[Term, ...]
    owners: Mapping[str, str]
    whole: Mapping[str, str]

    def differentiable(self, pid: str) -> bool:
        """Whether the loss has a derivative with respect to it: weights, frozen ones too, but no moving statistics."""
        param = self.network.params[pid]
        return param.trainable or param.role not in ("mean", "variance")


def loss_kind(loss: Any, shape: tuple[int, ...] = ()) -> Loss:
    """The kind of a live Keras loss object (or of the function inside Keras' wrapper) on predictions of this shape."""
    function = getattr(loss, "fn", None)
    settings = {**getattr(loss, "_fn_kwargs", {})}
    if function is None:
        settings = {k: v for k, v in loss.get_config().items() if k != "name"} if hasattr(loss, "get_config") else {}
    name = getattr(function, "__name__", None) or type(loss).__name__
    reduction = getattr(loss, "reduction", "mean")
    return Loss.from_keras(name, {**settings, "reduction": reduction}, [shape])


def graph_of(
    engine: Engine,
    model: Any,
    leaves: Sequence[Place],
    recorder: Recorder,
    inputs: Mapping[str, Any],
    predictions: Any,
    terms: Sequence[tuple[int, Any, float]],
    remarks: tuple[str, ...] = (),
) -> Graph:
    """The graph of a recorded run.

    Args:
        engine: whose model it is.
        model: the model.
        leaves: its leaves.
        recorder: what one run of it left.
        inputs: name → tensor that it was run on.
        predictions: what it returned.
        terms: its losses (output's number, loss object, weight).
        remarks: what to say about it as a whole.
    """
    params, variables, owners = _params(engine, model, leaves, recorder)
    held: dict[str, dict[str, str]] = {}
    for pid, path in owners.items():
        held.setdefault(path, {})[params[pid].role] = pid
    nodes: dict[str, Node] = {}
    whole: dict[str, str] = {}
    produced: set[str] = set()

    def make(name: str, tensor: Any) -> None:
        produced.add(name)
        if not engine.backend.is_floating(tensor):
            whole[name] = engine.backend.dtype(tensor)

    for name, tensor in inputs.items():
        make(name, tensor)
    predicted = engine.flatten(predictions)
    put: dict[str, list[Mask]] = {}
    for mask in recorder.masks_read(predictions):
        put.setdefault(mask.record.name, []).append(mask)
    for record in recorder.records:
        for name, tensor in zip(record.inputs, record.tensors, strict=True):
            if name in recorder.sources and name not in produced:
                nodes[name] = _source(name, tensor)
                make(name, tensor)
        for node in _nodes(engine, record, held.get(record.place.path, {})):
            nodes[node.layer.name] = node
        for name, tensor in (*record.outputs.items(), (f"{record.name}:activation", record.activation)):
            if tensor is not None:
                make(name, tensor)
        for mask in put.get(record.name, ()):
            nodes[mask.name] = _mask(mask)
            make(mask.name, mask.tensor)
    outputs: list[str] = []
    for i, tensor in enumerate(predicted):
        name = recorder.name_of(tensor)
        if name is None:
            name = f"output:{i}" if i else "output"
            nodes[name] = _source(name, tensor)
        outputs.append(name)
    masks = [recorder.mask_name(engine.mask_of(tensor)) for tensor in predicted]
    found = tuple(
        Term(
            *_loss_names(outputs[i], len(terms)),
            output=i,
            prediction=outputs[i],
            loss=loss,
            weight=weight,
            kind=loss_kind(loss, _shape(predicted[i])),
            mask=masks[i],
        )
        for i, loss, weight in terms
    )
    nodes.update({term.name: _loss(term) for term in found})
    network = Network(
        name=model.name,
        framework="keras",
        inputs={name: _shape(tensor) for name, tensor in inputs.items()},
        outputs=tuple(outputs),
        layers=tuple(node.layer for node in nodes.values()),
        params=params,
        labels=tuple(term.label for term in found),
        objectives={term.name: term.weight for term in found},
        meta=dict(engine.description),
        remarks=remarks,
    )
    return Graph(network, nodes, variables, found, owners, whole)


def _loss_names(output: str, count: int) -> tuple[str, str]:
    """What a model's loss on this output, and the labels that it reads, are called."""
    return ("loss", "labels") if count == 1 else (f"loss:{output}", f"labels:{output}")


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in tensor.shape[1:])


def _source(name: str, tensor: Any) -> Node:
    remark = "made by operations outside of layers, which parity cannot run alone"
    kind = Opaque(type="operations outside of layers")
    return Node(Layer(name, kind, (), (name,), {}, _shape(tensor), name.split(":")[0], "", (remark,)), "source")


def _mask(mask: Mask) -> Node:
    """The node of a mask that a layer puts on what it makes."""
    record = mask.record
    read = tuple(dict.fromkeys((*record.inputs, *(name for name in mask.earlier if name))))
    kind, shape = Opaque(type="mask"), _shape(mask.tensor)
    layer = Layer(mask.name, kind, read, (mask.name,), {}, shape, record.place.path, "mask")
    return Node(layer, "mask", record, earlier=mask.earlier)


def _loss(term: Term) -> Node:
    """The node of a loss."""
    remark = (f"counts {term.weight:g} times",) if term.weight != 1 else ()
    read = (term.prediction, term.label, *([term.mask] if term.mask else []))
    layer = Layer(term.name, term.kind, read, (term.name,), {}, (), "loss", "loss", remark)
    return Node(layer, "loss", term=term)


def _nodes(engine: Engine, record: Record, params: Mapping[str, str]) -> list[Node]:
    """A call's node, and that of its fused activation."""
    place, fused = record.place, record.activation is not None
    outputs = tuple(record.outputs)
    first = record.outputs[outputs[0]]
    kind, remarks = _kind(record)
    elsewise = engine.backend.remark(place.type, _config(place.item)) if place.own else ""
    remarks = (*remarks, elsewise) if elsewise else remarks
    law = described(getattr(place.item, "activity_regularizer", None))
    activity = {**law, "mean": engine.averages_activities} if law else {}
    layer = Layer(
        record.name, kind, record.inputs, outputs, dict(params), _shape(first), place.path, place.type, remarks,
        {} if fused else activity, settings_of(place.type, _config(place.item)),
    )  # fmt: skip
    found = [Node(layer, "core", record, fused=fused)]
    if fused:
        name = f"{record.name}:activation"
        spoken = _config(place.item).get("activation")
        said = activation_kind(spoken) or Opaque(type="activation")
        shape = _shape(record.activation)
        layer = Layer(name, said, outputs, (name,), {}, shape, place.path, place.type, activity=activity)
        found.append(Node(layer, "activation", record))
    return found if engine.modern else [replace(node, layer=under_keras_2(node.layer)) for node in found]


def _config(item: Any) -> dict[str, Any]:
    try:
        return dict(item.get_config())
    except Exception:  # a class of the user's may not say, or fail to
        return {}


def _attribute(item: Any, name: str) -> Any:
    return getattr(item, name, None)


def _kind(record: Record) -> tuple[Kind, tuple[str, ...]]:
    place = record.place
    read = zip(record.inputs, record.tensors, strict=True)
    shapes = [_shape(tensor) for name, tensor in read if not name.endswith(":mask")]
    config = _config(place.item)
    if getattr(place.item, "_USE_V2_BEHAVIOR", True) is False:
        config.pop("trainable", None)  # of an old Keras: frozen, it normalises by the batch all the same (`standalone`)
    remarks: list[str] = []
    if draws_unseen(place.type, kind_of(place.type, config, shapes)):
        remarks.append("random, without a mask")
    if str(getattr(place.item, "compute_dtype", "")) in ("float16", "bfloat16"):
        remarks.append(f"computes in {place.item.compute_dtype}")
    if getattr(place.item, "activity_regularizer", None) is not None:
        remarks.append("adds an activity regularizer to the loss")
    if not place.own:
        remarks.append("a class of the user's")
        # What it derives from says which layer it stands for; what it computes is compared by value all the same.
        base = _ancestor(place.item)
        if base is None or not _ancestral(place.item, config):
            return kind_of(place.type, config, shapes, runs_code=True), tuple(remarks)
        return kind_of(base, config, shapes), tuple(remarks)
    module = type(place.item).__module__
    if ".ops." in module or place.type in ("TFOpLambda", "SlicingOpLambda"):
        word = str(config.get("function", place.type)).rsplit(".", 1)[-1]
        settings = {**config, **_attributes(place.item), **record.kwargs}
        return operation_kind(word, record.args, settings, shapes), tuple(remarks)
    return kind_of(place.type, config, shapes), tuple(remarks)


def _ancestor(item: Any) -> str | None:
    """The nearest class of Keras' own that a user's class derives from, if the vocabulary knows it."""
    for base in type(item).__mro__[1:]:
        if base.__module__.split(".")[0] in ("keras", "tf_keras") and lookup("keras", base.__name__):
            return base.__name__
    return None


def _ancestral(item: Any, config: Mapping[str, Any]) -> bool:
    """Whether the last thing that a user's class does can be its parent's: a fused activation would stay inside."""
    activation = getattr(item, "activation", None)
    return activation is None or config.get("activation") in (None, "linear")


def _attributes(item: Any) -> dict[str, Any]:
    """The settings of a bare Keras 3 operation, which are its plain attributes."""
    return {
        k: v for k, v in vars(item).items() if not k.startswith("_") and isinstance(v, int | float | str | list | tuple)
    }


def _params(
    engine: Engine, model: Any, leaves: Sequence[Place], recorder: Recorder
) -> tuple[dict[str, Param], dict[str, Any], dict[str, str]]:
    """Params, variables and owners by id, in the order of the leaves."""
    kinds = {record.place.path: _kind(record)[0] for record in reversed(recorder.records)}
    trained = {id(v) for v in model.trainable_variables}
    params: dict[str, Param] = {}
    variables: dict[str, Any] = {}
    owners: dict[str, str] = {}
    seen: set[int] = set()
    for place in leaves:
        if not engine.is_layer(place.item):
            continue
        config, held = _config(place.item), partial(_attribute, place.item)
        for variable in place.item.weights:
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            source = getattr(variable, "path", None) or variable.name
            word = source.rsplit("/", 1)[-1].split(":")[0]
            role = role_of(source) if not place.type.startswith("Separable") else word
            pid, again = f"{place.path}.{role}", 1
            while pid in params:
                again += 1
                pid = f"{place.path}.{role}#{again}"
            regularizer = getattr(variable, "regularizer", None) or argument_of(held, word, "regularizer")
            l1, l2 = penalty_coefficients(regularizer)
            bound = getattr(variable, "constraint", None) or argument_of(held, word, "constraint")
            shape = tuple(int(n) for n in variable.shape)
            params[pid] = Param(
                id=pid,
                role=pid.split(".", 1)[1] if again > 1 else role,
                axes=axes_of(kinds.get(place.path, Opaque()), role, shape, place.type),
                shape=shape,
                value=np.array(variable.numpy(), dtype=np.float32),
                trainable=id(variable) in trained,
                l1=l1,
                l2=l2,
                penalty=other_penalty(regularizer),
                constraint=described(bound),
                initializer=initializer_text(argument_of(config.get, word, "initializer")),
                source=source,
            )
            variables[pid] = variable
            owners[pid] = place.path
    return params, variables, owners
