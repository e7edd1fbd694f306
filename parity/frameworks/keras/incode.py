"""A model that is written in code, as the graph that it makes of symbolic tensors.

What a model class, or a layer class that holds others, computes between its layers (`x + y`,
`keras.ops.concatenate`) is no layer and leaves no trace in a run. Called with symbolic tensors the same code makes a
functional model of the same layer objects, whose graph holds those operations. It stands in for the model only where
both make the same numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.functions import as_operations
from parity.frameworks.keras.live import compile_alike
from parity.frameworks.keras.observe import DROPOUTS, shadowed

__all__ = ["Written", "graph_made_by", "is_written"]


@dataclass(frozen=True, eq=False)
class Written:
    """The graph of a model in code.

    Attributes:
        model: a functional model of the same layers and variables.
        homes: id of a layer → the path of the class of the user's that holds it, ending in a slash.
    """

    model: Any
    homes: Mapping[int, str] = field(default_factory=dict)


def is_written(engine: Engine, model: Any) -> bool:
    """Whether a model's code, or that of a class in it that holds layers, may compute something between layers."""
    return (not _own(model) and not _is_graph(model)) or bool(_holders(engine, model))


def graph_made_by(engine: Engine, model: Any, given: Any) -> Written | None:
    """The functional model that a model's own code makes; None where it makes none.

    Args:
        engine: whose model it is.
        model: built.
        given: the (eager) tensors that it is called with, in its own structure.
    """
    holders = _holders(engine, model)
    homes = {id(item): path for holder, path in reversed(holders) for item in _inside(holder)}
    functions = engine.modern and engine.backend.name == "tensorflow"
    try:
        with engine.backend.no_gradients(), as_operations() if functions else contextlib.nullcontext():
            inputs = [
                engine.keras.Input(batch_shape=(None, *tuple(tensor.shape)[1:]), dtype=engine.backend.dtype(tensor))
                for tensor in engine.flatten(given)
            ]
            start = engine.pack(given, inputs) if isinstance(given, list | tuple | dict) else inputs[0]
            asked = {"training": None} if engine.takes(model, "training") else {}
            with _opened(engine, [holder for holder, _ in holders]):
                end = model.call(start, **asked)
            with _told_apart(engine, holders):
                graph = engine.keras.Model(start, end, name=model.name)
            compile_alike(engine, graph, model)
        with engine.backend.no_gradients():
            same = all(_alike(engine, model, graph, given, training) for training in (False, True))
    except Exception:  # code may ask symbolic tensors for what they do not have, in any way
        return None
    return Written(graph, homes) if same else None


# What holds layers ----------------------------------------------------------------------------------------------------


def _holders(engine: Engine, model: Any) -> list[tuple[Any, str]]:
    """The classes of the user's inside a model that hold layers and nothing else, and what holds them, with paths."""
    found: list[tuple[Any, str]] = []

    def visit(parent: Any, prefix: str) -> bool:
        """Whether there is one inside."""
        any_inside = False
        for item in _inside(parent):
            if not engine.is_layer(item):
                continue
            path, place = f"{prefix}{item.name}/", len(found)
            deeper = bool(_inside(item)) and visit(item, path)
            if deeper or _holds(engine, item):
                found.insert(place, (item, path))
                any_inside = True
        return any_inside

    visit(model, "")
    return found


def _holds(engine: Engine, item: Any) -> bool:
    """Whether it is a class of the user's, straight from Keras' `Layer` or `Model`, that holds layers and no weight."""
    base = next((b for b in type(item).__mro__ if b.__module__.split(".")[0] in ("keras", "tf_keras")), None)
    if _own(item) or _is_graph(item) or base is None or base.__name__ not in ("Layer", "Model") or not _inside(item):
        return False
    theirs = {id(v) for layer in _inside(item) if engine.is_layer(layer) for v in layer.variables}
    return all(id(variable) in theirs for variable in item.variables)


def _inside(item: Any) -> list[Any]:
    """The layers that a layer or model holds itself."""
    flatten = getattr(item, "_flatten_layers", None)
    return list(flatten(include_self=False, recursive=False)) if flatten is not None else []


def _own(item: Any) -> bool:
    """Whether Keras itself defines its class."""
    return type(item).__module__.split(".")[0] in ("keras", "tf_keras")


def _is_graph(item: Any) -> bool:
    """Whether it is a functional model, of whatever class, or a Sequential."""
    return hasattr(item, "_nodes_by_depth") or getattr(item, "_functional", None) is not None


@contextlib.contextmanager
def _opened(engine: Engine, holders: Sequence[Any]) -> Iterator[None]:
    """As long as this lasts, what these make of symbolic tensors is what the layers inside them make.

    Each instance is of a class derived from its own for that time; no class is touched.
    """
    symbol = type(engine.keras.Input((1,)))

    def through(self: Any, *args: Any, **kwargs: Any) -> Any:
        symbolic = any(isinstance(tensor, symbol) for tensor in engine.flatten((args, kwargs)))
        return self.call(*args, **kwargs) if symbolic else type(self).__mro__[1].__call__(self, *args, **kwargs)

    classes = [(holder, type(holder)) for holder in holders]
    try:
        for holder, own in classes:
            object.__setattr__(holder, "__class__", type(own.__name__, (own,), {"__call__": through}))
        yield
    finally:
        for holder, own in classes:
            object.__setattr__(holder, "__class__", own)


@contextlib.contextmanager
def _told_apart(engine: Engine, holders: Sequence[tuple[Any, str]]) -> Iterator[None]:
    """As long as this lasts, layers inside of holders go by their paths: two blocks may each have a `conv1`."""
    word, renamed = "name" if engine.modern else "_name", list[tuple[Any, str]]()
    try:
        for holder, path in reversed(holders):
            for item in _inside(holder):
                if all(item is not other for other, _ in renamed):
                    renamed.append((item, item.name))
                    object.__setattr__(item, word, f"{path}{item.name}")
        yield
    finally:
        for item, name in renamed:
            object.__setattr__(item, word, name)


# Whether it is the same -----------------------------------------------------------------------------------------------


def _alike(engine: Engine, model: Any, graph: Any, given: Any, training: bool) -> bool:
    """Whether both make the same of the same, with nothing dropped; no state moves."""
    made: list[list[Any]] = []
    dropouts = [layer for layer in graph._flatten_layers() if type(layer).__name__ in DROPOUTS]
    for one in (model, graph):
        with contextlib.ExitStack() as stack:
            stack.enter_context(engine.backend.untouched(engine.state(model)))
            for layer in dropouts:
                stack.enter_context(shadowed(layer, "rate", 0.0))
            made.append([engine.backend.numpy(t) for t in engine.flatten(one(given, training=training))])
    return len(made[0]) == len(made[1]) and all(map(_equal, *made))


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    size = float(np.abs(a).max(initial=0.0))
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-6 * size, equal_nan=True)
