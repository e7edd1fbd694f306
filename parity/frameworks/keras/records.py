"""What is seen of a model: the leaves that are watched, and what each of their calls read and made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from parity.frameworks.keras.engine import Engine

__all__ = ["Mask", "Place", "Record", "Ref", "fill", "places"]


@dataclass(frozen=True, eq=False)
class Place:
    """One leaf of a model: a layer, or a bare operation of a functional Keras 3 model.

    Attributes:
        path: its name, behind the names of the submodels that hold it: `"base/conv2d"`.
        item: the layer or operation.
        type: its class name.
        own: whether Keras itself defines its class.
    """

    path: str
    item: Any
    type: str
    own: bool


@dataclass(frozen=True)
class Ref:
    """Stands for the i-th input tensor in a call's arguments."""

    index: int


@dataclass(eq=False)
class Record:
    """One call.

    Attributes:
        name: the node's name: the place's path, `@2` for its second call.
        place: what was called.
        args, kwargs: its arguments, tensors replaced by `Ref`.
        inputs: names of the tensors it read.
        tensors: those tensors.
        outputs: name → tensor it made, before a fused activation.
        activation: the fused activation's output, where there is one.
        handed: what it handed on, flat.
        training: `"train"` or `"eval"` → the `training` that the layer was given when the model ran so; absent where it
            was given none.
    """

    name: str
    place: Place
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[str, ...]
    tensors: tuple[Any, ...]
    outputs: dict[str, Any] = field(default_factory=dict)
    activation: Any = None
    handed: list[Any] = field(default_factory=list)
    training: dict[str, bool] = field(default_factory=dict)


@dataclass(eq=False)
class Mask:
    """A mask that a layer puts on what it makes.

    Attributes:
        name: what to call it.
        record: the call that made it.
        tensor: the mask.
        earlier: names of the masks on what the call read, None where there is none.
    """

    name: str
    record: Record
    tensor: Any
    earlier: tuple[str | None, ...] = ()


def places(engine: Engine, model: Any, homes: Mapping[int, str] = MappingProxyType({})) -> list[Place]:
    """The leaves of a model, depth first; submodels are entered, Keras' own composite layers are leaves.

    Args:
        engine: whose model it is.
        model: the model.
        homes: id of a layer → what stands before its name in its path, of layers that a class of the user's held.
    """
    found: list[Place] = []
    seen: set[int] = set()
    names: set[str] = set()

    def visit(parent: Any, prefix: str) -> None:
        for item in engine.parts(parent):
            if id(item) in seen or engine.is_input(item):
                continue
            seen.add(id(item))
            if engine.is_model(item):
                visit(item, f"{prefix}{homes.get(id(item), '')}{item.name}/")
                continue
            path, again = f"{prefix}{homes.get(id(item), '')}{item.name}", 1
            own = path
            while path in names:
                again += 1
                path = f"{own}#{again}"
            names.add(path)
            root = type(item).__module__.split(".")[0]
            found.append(Place(path, item, type(item).__name__, root in ("keras", "tf_keras")))

    visit(model, "")
    return found


def fill(template: Any, tensors: Sequence[Any]) -> Any:
    """A call's arguments with these tensors in their places."""
    if isinstance(template, Ref):
        return tensors[template.index]
    if isinstance(template, tuple):
        return tuple(fill(part, tensors) for part in template)
    if isinstance(template, list):
        return [fill(part, tensors) for part in template]
    if isinstance(template, dict):
        return {key: fill(part, tensors) for key, part in template.items()}
    return template
