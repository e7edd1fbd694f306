"""What becomes of each layer of a model that is to be copied otherwise. Of parity it imports `own` and `structure`.

An edit is `(action, layer, values)`. A layer is named by its path, `"block1/conv"` inside a submodel;
`"conv:activation"` is the activation that is fused into `conv`. Actions and their values:

    argument    constructor's argument → value; `padding` may be cells [top, bottom, left, right]
    replace     class_name and config of the layer that takes its place
    insert      class_name and config of a layer to put behind it (behind an input, too), or before it: `before`; or
                beside it: `aside`, which reads it, and only those read it that are told to (`rewire`); `inputs` for
                one that joins several, paths of layers (what they make themselves, whatever is put behind them)
    remove      nothing; what read the layer reads what the layer read
    rewire      `inputs`: paths to read, in order; or `order`: a permutation; or `behind`: the layer to move it behind
    regularize  `role`, and `l2` and `l1`, the coefficients of its penalty, or `penalty`, `class_name` and `config` of
                another one; none of them takes the penalty off
    constrain   `role` and `constraint`, its `class_name` and `config`; empty to take it off
    weights     `role` and `value`, in the layer's own layout
    trainable   `trainable`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parity.frameworks.keras.edits.own import own_layer
from parity.frameworks.keras.edits.structure import (
    config_of,
    flat,
    inputs_of,
    is_zero_padding,
    maker_of,
    nodes_of,
    operation_of,
    parameters_of,
    same_cells,
    tuples,
)

__all__ = ["ROLES", "Edit", "Part", "Plan"]

Edit = tuple[str, str, Mapping[str, Any]]

ALIASES = {"negative_slope": "alpha", "alpha": "negative_slope"}
"""LeakyReLU's slope in Keras 3 and in Keras 2."""

ROLES = {
    "mean": ("moving_mean",),
    "variance": ("moving_variance",),
    "kernel": ("kernel", "depthwise_kernel", "alpha"),
    "gamma": ("gamma", "depthwise_kernel", "kernel"),
    "beta": ("beta", "bias"),
}
"""A parameter's role → the names that Keras has for it."""


class Part:
    """What becomes of one layer: its own copy, and what stands before and behind it.

    Attributes:
        item: the layer, bare operation, input or submodel.
        arguments: of its constructor, other than now.
        instead: class name and config of what takes its place.
        before, behind: layers to put there: new ones, or items of the model that are moved.
        removed: whether it is left out.
        near: the path of the layer that a new one is put next to.
        aside: whether only those read it, a new layer, that are told to.
        inputs: paths of what it reads.
        order: a permutation of what it reads.
    """

    def __init__(self, item: Any) -> None:
        self.item = item
        self.arguments: dict[str, Any] = {}
        self.instead: tuple[str, dict[str, Any]] | None = None
        self.before: list[Any] = []
        self.behind: list[Any] = []
        self.removed = False
        self.aside = False
        self.near = ""
        self.inputs: list[str] | None = None
        self.order: list[int] | None = None

    @property
    def stays(self) -> bool:
        """Whether the graph around it stays as it is."""
        moved = self.before or self.behind or self.removed or self.aside
        return not moved and self.inputs is None and self.order is None

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of what will stand in its place."""
        return {**(self.instead[1] if self.instead else config_of(self.item)), **self.arguments}


class Plan:
    """What becomes of every layer of a model.

    Args:
        keras: the module `keras` or `tf_keras`.
        model: the model.
        edits: what to change, in order; of several layers put behind one, the first stays nearest to it.

    Attributes:
        paths: path → layer, operation, input or submodel.
        homes: id of one of these → the model that holds it, and its path.
        parts: id → what becomes of it.
        new: name → layer that is inserted; later edits may name it like any other.
        later: edits of what is there when the copy is built.

    Raises:
        ValueError: an edit names nothing, or does not fit.
    """

    def __init__(self, keras: Any, model: Any, edits: Iterable[Edit]) -> None:
        self.keras = keras
        self.modern = int(keras.__version__.split(".")[0]) >= 3
        self.paths: dict[str, Any] = {}
        self.homes: dict[int, tuple[Any, str]] = {}
        self.parts: dict[int, Part] = {}
        self.new: dict[str, Any] = {}
        self.later: list[Edit] = []
        self._index(model, "")
        self._taken = {path.rsplit("/", 1)[-1] for path in self.paths}
        for edit in edits:
            self.add(edit)

    def add(self, edit: Edit) -> None:
        """One more edit, behind the others. Raises ValueError where it names nothing, or does not fit."""
        action, path, values = edit
        if action in ("weights", "trainable"):
            self.part(path)
            self.later.append(edit)
        else:
            getattr(self, f"_{action}")(path, dict(values))

    def _index(self, model: Any, prefix: str) -> None:
        for item in self.items(model):
            if id(item) in self.homes:
                continue
            path, again = f"{prefix}{item.name}", 1
            while path in self.paths:
                again += 1
                path = f"{prefix}{item.name}#{again}"
            self.paths[path] = item
            self.homes[id(item)] = (model, path)
            self.parts[id(item)] = Part(item)
            if self.is_model(item):
                self._index(item, f"{path}/")

    def items(self, model: Any) -> list[Any]:
        """What a model holds itself: layers, bare operations, inputs, submodels."""
        graph = getattr(model, "_functional", None) or model
        if self.modern and getattr(graph, "operations", None) is not None:
            return list(graph.operations)
        inputs = [maker_of(t) for t in flat(model.inputs)] if getattr(model, "inputs", None) else []
        held = list(model.layers)
        return [*(i for i in inputs if all(i is not other for other in held)), *held]

    def chain(self, layers: Sequence[Any]) -> list[Any]:
        """Layers that are put behind one another, each with what is put before and behind it in turn."""
        found: list[Any] = []
        for item in layers:
            part = self.parts.get(id(item)) if any(item is own for own in self.new.values()) else None
            before, behind = (part.before, part.behind) if part else ([], [])
            found += [*self.chain(before), *([] if part and part.removed else [item]), *self.chain(behind)]
        return found

    def is_model(self, item: Any) -> bool:
        """Whether it is a model of this Keras."""
        return isinstance(item, self.keras.Model)

    def part(self, path: str) -> Part:
        """What becomes of the layer of this path, or of the only input. Raises ValueError where there is none."""
        path = path.removesuffix(":activation")
        if path in self.new:
            return self.parts[id(self.new[path])]
        if path not in self.paths:
            inputs = [p for p, item in self.paths.items() if type(item).__name__ == "InputLayer" and "/" not in p]
            if path not in ("", "input", "the input") or len(inputs) != 1:
                raise ValueError(f"the model has no layer {path}")
            path = inputs[0]
        return self.parts[id(self.paths[path])]

    def constructor(self, class_name: str, config: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """A layer class, and what it is called with for this configuration, in this Keras' words."""
        maker = getattr(self.keras.layers, str(class_name), None) or own_layer(self.keras, str(class_name))
        if maker is None:
            raise ValueError(f"Keras has no layer {class_name}")
        known = parameters_of(maker)
        settings: dict[str, Any] = {}
        for key, value in config.items():
            other = ALIASES.get(key, "")
            settings[other if key not in known and other in known else key] = tuples(value)
        return maker, settings

    def create(self, class_name: str, config: Mapping[str, Any]) -> Any:
        """A layer under a name that the model does not have yet."""
        maker, settings = self.constructor(class_name, config)
        wanted = name = str(settings.pop("name", None) or str(class_name).lower())
        again = 1
        while name in self._taken:
            again += 1
            name = f"{wanted}_{again}"
        self._taken.add(name)
        return maker(**settings, name=name)

    def release(self, name: str) -> None:
        """Lets a new layer have the name of one that it replaces."""
        self._taken.discard(name)

    # Actions ----------------------------------------------------------------------------------------------------------

    def _argument(self, path: str, values: dict[str, Any]) -> None:
        if path.endswith(":activation"):
            self._fused(path, values)
            return
        part = self.part(path)
        config = part.config
        for key, value in values.items():
            name = ALIASES[key] if key not in config and ALIASES.get(key, "") in config else key
            if name == "padding" and isinstance(value, list | tuple) and not is_zero_padding(part.item):
                self._pad(part, config, [int(v) for v in value])
                continue
            if part.instead is None and name not in config and name not in parameters_of(type(part.item)):
                raise ValueError(f"{path} ({type(part.item).__name__}) has no argument {key}")
            part.arguments[name] = value

    def _fused(self, path: str, values: dict[str, Any]) -> None:
        """Arguments of a fused activation: which it is, or a slope, for which it becomes a layer."""
        slope = values.get("negative_slope", values.get("alpha"))
        if slope is not None:
            self._replace(path, {"class_name": "LeakyReLU", "config": {"negative_slope": slope}})
        elif set(values) == {"activation"}:
            self._argument(path.removesuffix(":activation"), values)
        else:
            raise ValueError(f"the activation inside {path.split(':')[0]} has no argument {next(iter(values), '')}")

    def _pad(self, part: Part, config: Mapping[str, Any], cells: list[int]) -> None:
        """Padding by cells: `same` where that is equal, else a zero padding before the layer."""
        name, rank = part.instead[0] if part.instead else type(part.item).__name__, len(cells) // 2
        pooling = "Pooling" in name
        before = self._padding_before(part.item)
        shape = self._shape_read(before.item if before else part.item)
        strides = config.get("strides") or config.get("pool_size") or 1
        dense = all(s == 1 for s in (strides if isinstance(strides, list | tuple) else [strides]))
        if any(cells) and (pooling or dense) and same_cells(config, shape, rank) == cells:
            # With a stride it depends on the input's size, which a pooling has no other way around.
            part.arguments["padding"], cells = "same", [0] * len(cells)
        else:
            part.arguments["padding"] = "valid"
        if "Average" in name and any(cells):
            raise ValueError(f"no {name} of Keras pads by {cells} and leaves these cells out of the count")
        pairs = tuple((cells[2 * i], cells[2 * i + 1]) for i in range(rank))
        padding = pairs[0] if rank == 1 else pairs
        if before is not None and any(cells):
            before.arguments["padding"] = padding
        elif before is not None:
            before.removed = True
        elif any(cells):
            made = {"padding": padding, "name": f"{part.item.name}_pad"}
            part.before.append(self.create(f"ZeroPadding{rank}D", made))

    def _padding_before(self, item: Any) -> Part | None:
        """The zero padding that a layer reads and nobody else does."""
        calls = nodes_of(self.homes[id(item)][0])
        for node in calls:
            if operation_of(node) is item and inputs_of(node):
                tensor = inputs_of(node)[0]
                readers = [n for n in calls if any(t is tensor for t in inputs_of(n))]
                maker = maker_of(tensor)
                return self.parts.get(id(maker)) if len(readers) == 1 and is_zero_padding(maker) else None
        return None

    def _shape_read(self, item: Any) -> tuple[Any, ...]:
        for node in nodes_of(self.homes[id(item)][0]):
            if operation_of(node) is item and inputs_of(node):
                return tuple(inputs_of(node)[0].shape)
        return ()

    def _replace(self, path: str, values: dict[str, Any]) -> None:
        class_name, config = str(values["class_name"]), dict(values.get("config") or {})
        if path.endswith(":activation"):
            self._without_activation(path).behind.insert(0, self.create(class_name, config))
            return
        part = self.part(path)
        part.instead, part.arguments = (class_name, {"name": part.item.name, **config}), {}

    def _insert(self, path: str, values: dict[str, Any]) -> None:
        part = self.part(path)
        new = self.create(values["class_name"], values.get("config") or {})
        if path.endswith(":activation") and values.get("before"):
            part.behind[:0] = [new, self._released(path)]
        elif not values.get("aside"):
            (part.before if values.get("before") else part.behind).append(new)
        model, home = self.homes[id(part.item)]
        home = "/".join([*home.split("/")[:-1], new.name])
        self.paths[home], self.homes[id(new)], self.parts[id(new)] = new, (model, home), Part(new)
        self.parts[id(new)].near, self.parts[id(new)].aside = path, bool(values.get("aside"))
        if values.get("inputs"):
            self._rewire(home, values)
        self.new[new.name] = new

    def _remove(self, path: str, values: dict[str, Any]) -> None:
        if path.endswith(":activation"):
            self._without_activation(path)
        else:
            self.part(path).removed = True

    def _without_activation(self, path: str) -> Part:
        part = self.part(path)
        if "activation" not in part.config:
            raise ValueError(f"{path.split(':')[0]} has no activation of its own")
        part.arguments["activation"] = "linear"
        return part

    def _released(self, path: str) -> Any:
        """The activation that was fused into a layer, as a layer of its own."""
        function = self.part(path).config.get("activation")
        self._without_activation(path)
        return self.create("Activation", {"activation": function})

    def _rewire(self, path: str, values: dict[str, Any]) -> None:
        part = self.part(path)
        if "behind" in values:
            home = self.part(str(values["behind"]))
            if self.homes[id(home.item)][0] is not self.homes[id(part.item)][0]:
                raise ValueError(f"{values['behind']} is not in the same model as {path}")
            if path.endswith(":activation"):
                home.behind.append(self._released(path))
                return
            part.removed = True
            home.behind.append(part.item)
        elif "order" in values:
            part.order = [int(i) for i in values["order"]]
        else:
            part.inputs = [str(name) for name in values["inputs"]]

    def _regularize(self, path: str, values: dict[str, Any]) -> None:
        held, made = values.get("penalty"), self.keras.regularizers
        l1, l2 = float(values.get("l1") or 0), float(values.get("l2") or 0)
        if held:
            value = getattr(made, held["class_name"])(**held["config"])
        elif l1 and l2:
            value = made.L1L2(l1, l2)
        else:
            value = made.L1(l1) if l1 else made.L2(l2) if l2 else None
        self._of_parameter(path, str(values["role"]), "regularizer", value)

    def _constrain(self, path: str, values: dict[str, Any]) -> None:
        held = values["constraint"]
        value = getattr(self.keras.constraints, held["class_name"])(**held["config"]) if held else None
        self._of_parameter(path, str(values["role"]), "constraint", value)

    def _of_parameter(self, path: str, role: str, what: str, value: Any) -> None:
        """A regularizer or a constraint of a parameter, in the words of its layer's class."""
        part = self.part(path)
        for name in ROLES.get(role, (role,)):
            for key in (f"{name}_{what}", f"{name.removesuffix('_kernel')}_{what}"):
                # Keras 3 leaves an activity regularizer out of a configuration that has none.
                if key in part.config or (part.instead is None and key in parameters_of(type(part.item))):
                    part.arguments[key] = value
                    return
        raise ValueError(f"{path} ({type(part.item).__name__}) takes no {what} of its {role}")
