"""Builds a copy of a Keras model with layers changed, inserted, removed, moved and rewired; the weights come along.

Four modules, this one, `plan`, `own` and `structure`, import nothing else of parity: a fix script carries their text,
so that what the script does is what was tried. They run under Keras 3 (any backend) and Keras 2 (`tf_keras`), which
they are given as a module. The edits are described in `plan`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from parity.frameworks.keras.edits.plan import ROLES, Edit, Part, Plan
from parity.frameworks.keras.edits.structure import (
    arguments_of,
    config_of,
    flat,
    graph_of,
    inputs_of,
    is_symbol,
    maker_of,
    mapped,
    nodes_of,
    operation_of,
    tuples,
    value_of,
    with_arithmetic_of,
    word_of,
)

__all__ = ["Surgery"]


class Surgery:
    """One edited copy of one model.

    Args:
        keras: the module `keras` or `tf_keras`.
        model: a Sequential or functional model; it stays as it is.
        edits: what to change, in order.

    Attributes:
        model: the copy, not compiled.
        fresh: (path, name of the variable) of what the model's own weights do not fit.

    Raises:
        ValueError: an edit names nothing, or does not fit.
    """

    def __init__(self, keras: Any, model: Any, edits: Iterable[Edit]) -> None:
        self.keras = keras
        self.plan = Plan(keras, model, edits)
        self.fresh: list[tuple[str, str]] = []
        self._made: dict[int, Any] = {}
        self.model = self._model(model)
        self._carry()
        for edit in self.plan.later:
            self._set(*edit)

    def layer(self, path: str) -> Any:
        """What stands in the copy in the place of the layer of this path; None where nothing does."""
        return self._made.get(id(self.plan.part(path).item))

    # Building ---------------------------------------------------------------------------------------------------------

    def _copy(self, item: Any) -> Any:
        """What stands in a layer's place, made once."""
        if id(item) in self._made:
            return self._made[id(item)]
        part = self.plan.parts.get(id(item))
        if part is None:
            return item  # made for this copy
        if part.instead is not None:
            self.plan.release(item.name)
            new = self.plan.create(part.instead[0], {**part.instead[1], **part.arguments})
        elif isinstance(item, self.keras.layers.Layer) and not self.plan.is_model(item):
            new = self._rebuilt(item, part.arguments)
        elif part.arguments:
            raise ValueError(f"{item.name} is a {type(item).__name__}, and takes no arguments")
        elif self.plan.is_model(item):
            new = self._model(item)
        else:
            new = copy.copy(item)  # a bare operation
            new._inbound_nodes, new._outbound_nodes = [], []
        self._made[id(item)] = new
        return new

    def _rebuilt(self, layer: Any, arguments: Mapping[str, Any]) -> Any:
        """A layer of the same class and settings, but for these."""
        if type(layer).__name__ == "Lambda" and hasattr(layer, "function"):
            # Its function is alive here; a configuration would hold its code, which Keras refuses to run.
            shape = getattr(layer, "_output_shape", None)
            own = {"output_shape": shape, "mask": layer.mask, "arguments": layer.arguments, "name": layer.name}
            return type(layer)(layer.function, **{**own, **arguments})
        config = {**config_of(layer), **{k: tuples(v) for k, v in arguments.items()}}
        config.pop("batch_input_shape", None)
        try:
            new = type(layer).from_config(dict(config))
        except (TypeError, ValueError, ImportError):
            # Functions of the user's own that nothing registers are taken as they are.
            live = {k: v for k in config if k not in arguments and callable(v := getattr(layer, k, None))}
            live = {k: v for k, v in live.items() if type(v).__module__.split(".")[0] not in ("keras", "tf_keras")}
            if not live:
                raise
            new = type(layer).from_config({**config, **live})
        return with_arithmetic_of(layer, new)

    def _model(self, model: Any) -> Any:
        items = [item for item in self.plan.items(model) if type(item).__name__ != "InputLayer"]
        parts = [self.plan.parts[id(item)] for item in items]
        new = [self.plan.parts[id(item)] for item in self.plan.new.values()]
        plain = not any(part.inputs or part.order or part.aside for part in (*parts, *new))
        if isinstance(model, self.keras.Sequential) and plain:
            return self._sequence(model, parts)
        if not hasattr(graph_of(model), "_nodes_by_depth"):
            raise ValueError(f"{model.name} ({type(model).__name__}) is written in code, and cannot be rebuilt")
        return self._function(model)

    def _sequence(self, model: Any, parts: Sequence[Part]) -> Any:
        stack: list[Any] = []
        if getattr(model, "inputs", None):
            start = flat(model.inputs)[0]
            maker = maker_of(start)
            shape = (None, *tuple(start.shape)[1:])
            stack.append(self.keras.Input(batch_shape=shape, dtype=start.dtype, name=maker.name))
            stack += self._copies(self.plan.parts[id(maker)].behind) if id(maker) in self.plan.parts else []
        for part in parts:
            stack += self._copies(part.before)
            stack += ([] if part.removed else [self._copy(part.item)]) + self._copies(part.behind)
        return self.keras.Sequential(stack, name=model.name)

    def _copies(self, layers: Sequence[Any]) -> list[Any]:
        return [self._copy(layer) for layer in self.plan.chain(layers)]

    def _function(self, model: Any) -> Any:
        """A functional model, call by call."""
        graph = graph_of(model)
        run = _Run(self, model)
        starts: dict[int, Any] = {}
        for tensor in flat(graph.inputs):
            maker = maker_of(tensor)
            start = self.keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=maker.name)
            starts[id(tensor)] = start
            part = self.plan.parts.get(id(maker))
            run.named[maker.name] = start
            run.values[id(tensor)] = run.through(part.behind, start, maker.name) if part else start
        waiting = [node for node in nodes_of(model) if type(operation_of(node)).__name__ != "InputLayer"]
        while waiting:
            left = [node for node in waiting if not run.call(node)]
            if len(left) == len(waiting):
                raise ValueError(f"{operation_of(left[0]).name} would read what is made of its own output")
            waiting = left
        names = ("_inputs_struct", "_outputs_struct") if self.plan.modern else ("_nested_inputs", "_nested_outputs")
        inputs, outputs = (getattr(graph, name) for name in names)
        inputs = mapped(inputs, lambda t: starts.get(id(t), t))
        outputs = mapped(outputs, lambda t: run.values.get(id(t), t))
        own = type(model).__module__.split(".")[0] in ("keras", "tf_keras")
        return (self.keras.Model if own else type(model))(inputs=inputs, outputs=outputs, name=model.name)

    # Weights ----------------------------------------------------------------------------------------------------------

    def _carry(self) -> None:
        """Gives every copy its layer's values, by name, where their shapes agree."""
        for path, item in self.plan.paths.items():
            new = self._made.get(id(item))
            if new is None or self.plan.is_model(item) or not isinstance(item, self.keras.layers.Layer):
                continue
            held, wanted = self._variables(item), self._variables(new)
            names = [word_of(v) for v in held]
            if names != [word_of(v) for v in wanted] and len(set(names)) == len(names):
                by_name: dict[str, Any] = dict(zip(names, held, strict=True))
                held = [by_name.get(word_of(v)) for v in wanted]
            for i, variable in enumerate(wanted):
                source = held[i] if i < len(held) else None
                if source is not None and tuple(source.shape) == tuple(variable.shape):
                    variable.assign(value_of(source))
                else:
                    self.fresh.append((path, word_of(variable)))

    def _variables(self, layer: Any) -> list[Any]:
        return list(layer.variables if self.plan.modern else layer.weights)

    def _set(self, action: str, path: str, values: Mapping[str, Any]) -> None:
        """What is set on a layer that is there: a weight, or whether it trains."""
        new = self.layer(path)
        if new is None:
            raise ValueError(f"{path} is not in the copy")
        if action == "trainable":
            new.trainable = bool(values["trainable"])
            return
        role, value = str(values["role"]), np.asarray(values["value"])
        found = [v for name in ROLES.get(role, (role,)) for v in new.weights if word_of(v) == name]
        if not found:
            raise ValueError(f"{path} has no {role}")
        if tuple(found[0].shape) != value.shape:
            raise ValueError(f"{path}'s {role} has shape {tuple(found[0].shape)}, and cannot take {value.shape}")
        found[0].assign(value)
        self.fresh = [entry for entry in self.fresh if entry != (path, word_of(found[0]))]


class _Run:
    """The calls of one functional model, made again.

    Attributes:
        values: id of a symbolic tensor of the model → what takes its place.
        called: id of a node → what it makes, before what is put behind it.
        named: name of a layer → what it makes itself, whatever is put behind it.
    """

    def __init__(self, surgery: Surgery, model: Any) -> None:
        self.surgery, self.plan, self.model = surgery, surgery.plan, model
        self.values: dict[int, Any] = {}
        self.called: dict[int, list[Any]] = {}
        self.named: dict[str, Any] = {}

    def through(self, layers: Sequence[Any], tensor: Any, name: str) -> Any:
        """A tensor, which the layer of this name makes, behind these layers."""
        for item in self.plan.chain(layers):
            read = self._joined(item, tensor, name)
            tensor = self.surgery._copy(item)(read)
            name = item.name
            self.named[name] = tensor
        return tensor

    def _joined(self, item: Any, tensor: Any, name: str) -> Any:
        """What a layer behind others reads: the tensor, or that among others. ValueError while some are not made."""
        part = self.plan.parts.get(id(item))
        if part is None or part.inputs is None:
            return tensor
        read = [tensor if path.rsplit("/", 1)[-1] == name else self._own(path) for path in part.inputs]
        if any(t is None for t in read):
            raise ValueError(f"{item.name} would read what is made of its own output")
        return read

    def _waits(self, part: Part, layers: Sequence[Any]) -> bool:
        """Whether one of the layers put before or behind another one reads something that is not made yet."""
        chain = self.plan.chain(layers)
        made = {part.item.name, *(item.name for item in chain)}
        held = [self.plan.parts[id(item)] for item in chain if id(item) in self.plan.parts]
        read = [path for each in held for path in each.inputs or ()]
        return any(path.rsplit("/", 1)[-1] not in made and self._own(path) is None for path in read)

    def call(self, node: Any) -> bool:
        """Makes a node's outputs; False while something that it reads is not made yet."""
        part = self.plan.parts[id(operation_of(node))]
        name = part.item.name
        if id(node) not in self.called:
            called = self._arguments(node, part)
            if called is None or self._waits(part, part.before):
                return False
            args, kwargs = called
            if part.before:
                if isinstance(args[0], list | tuple):
                    raise ValueError(f"{name} reads several tensors: it is not clear which to put a layer on")
                args = (self.through(part.before, args[0], ""), *args[1:])
            made = flat(flat(args[0])[0] if part.removed else self.surgery._copy(part.item)(*args, **kwargs))
            self.called[id(node)] = made
            self.named.setdefault(name, made[0])
        made = self.called[id(node)]
        if part.behind:
            if len(made) > 1:
                raise ValueError(f"{name} makes several tensors: it is not clear which to put a layer on")
            if self._waits(part, part.behind):
                return False
            made = [self.through(part.behind, made[0], name)]
        for old, new in zip(flat(node.outputs), made, strict=True):
            self.values[id(old)] = new
        return True

    def _arguments(self, node: Any, part: Part) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """What a node is called with in the copy; None while some of it is not made yet."""
        args, kwargs = arguments_of(node)
        if part.inputs is not None:
            read = [self._source(name) for name in part.inputs]
            if any(tensor is None for tensor in read):
                return None
            if part.instead is not None:  # another layer is called in its own way
                return (read if len(read) > 1 else read[0],), {}
            several = len(read) > 1 or isinstance(args[0], list | tuple)
            return (read if several else read[0], *args[1:]), kwargs
        if any(id(tensor) not in self.values for tensor in inputs_of(node)):
            return None
        args, kwargs = mapped((args, kwargs), lambda t: self.values.get(id(t), t) if is_symbol(t) else t)
        if part.order is None:
            return args, kwargs
        tensors = list(args[0]) if isinstance(args[0], list | tuple) else []
        if sorted(part.order) != list(range(len(tensors))):
            raise ValueError(f"{part.item.name} reads {len(tensors)} tensors, and {part.order} is no order of them")
        return ([tensors[i] for i in part.order], *args[1:]), kwargs

    def _item(self, name: str) -> Any:
        """The layer or input of this name, in this model if there is one."""
        home = self.plan.homes.get(id(self.model), (None, ""))[1]
        path = f"{home}/{name}" if home and f"{home}/{name}" in self.plan.paths else name
        return self.plan.part(path).item

    def _own(self, name: str) -> Any:
        """What a layer or input itself makes in the copy; None while it is not made yet."""
        item = self._item(name)
        if item.name not in self.named and self.plan.new.get(item.name) is item:
            return self._beside(item)
        return self.named.get(item.name)

    def _source(self, name: str) -> Any:
        """What is read where the layer or input of this name was; None while it is not made yet."""
        item = self._item(name)
        if self.plan.new.get(item.name) is item:
            return self._own(name)
        found = [t for t in flat(graph_of(self.model).inputs) if maker_of(t) is item]
        found += [flat(n.outputs)[0] for n in nodes_of(self.model) if operation_of(n) is item and not found]
        if len(found) != 1:
            problem = "is called more than once" if found else "is not in the same model"
            raise ValueError(f"{name} {problem}: it is not clear what to read")
        return self.values.get(id(found[0]))

    def _beside(self, item: Any) -> Any:
        """What a new layer makes that stands beside the others; None while what it reads is not made yet."""
        part = self.plan.parts[id(item)]
        if not part.aside:
            if self._item(part.near).name in self.plan.new:
                self._own(part.near)  # which makes what stands behind it, too
            return self.named.get(item.name)
        read = [self._own(path) for path in part.inputs or [part.near]]
        if any(tensor is None for tensor in read) or self._waits(part, part.behind):
            return None
        self.named[item.name] = made = self.surgery._copy(item)(read if part.inputs else read[0])
        self.through(part.behind, made, item.name)
        return made
