"""The two ways in which a fix script makes its copy, as code: other settings in a clone, or surgery on the graph."""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from parity.changes import Change
from parity.frameworks.keras.edit import LAYERS, Edited
from parity.frameworks.keras.edits import cloning, code
from parity.frameworks.keras.edits.plan import ROLES, Plan
from parity.frameworks.keras.edits.structure import word_of
from parity.frameworks.keras.engine import Engine

__all__ = ["Said", "Way", "module_text", "operations", "way_of"]

_FRESH = "What is new or has another shape now holds the reference's values."

_EMBEDDED = ("structure", "own", "plan", "surgery")


class Said:
    """Lines of code, each behind the reason for it, which is not said twice in a row."""

    def __init__(self, indent: int = 4) -> None:
        self.lines: list[str] = []
        self._indent, self._last = indent, ""

    def add(self, words: str, line: str) -> None:
        """One more line, for this reason."""
        if words != self._last:
            self.lines += code.comment(words, self._indent)
        self._last = words
        self.lines.append(" " * self._indent + line)

    def as_list(self, name: str) -> str:
        """The lines as the list of this name; nothing where there are none."""
        return "\n".join([f"{name} = [", *self.lines, "]"]) if self.lines else ""


class Way:
    """Surgery, which can do all that a change can say.

    Attributes:
        arrays: name → array that the code reads from the file beside it.
        data: what is changed, as code.
        layer: the expression of a function that gives a layer of `model` by its path.
        modules: what is imported whole.
        names: imports of names.
        functions: the functions that it needs, as code.
    """

    layer = "surgery.layer"
    modules: Sequence[str] = ("copy", "inspect", "math")
    names: Sequence[str] = (
        "from collections.abc import Callable, Iterable, Mapping, Sequence",
        "from typing import Any",
    )

    def __init__(self, edited: Edited, why: Sequence[str]) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        edits = Said()
        for change, words in operations(edited, why):
            values = code.value(change.values, self.arrays)
            edits.add(words, f"({code.text(change.action)}, {code.text(change.layer)}, {values}),")
        for path, word, variable in edited.fresh:
            values = {"role": word, "value": np.array(variable.numpy())}
            edits.add(_FRESH, f'("weights", {code.text(path)}, {code.value(values, self.arrays)}),')
        self.data = edits.as_list("EDITS")

    def body(self, load: str) -> list[str]:
        """The lines that make `model` of what this expression loads."""
        return [f"surgery = Surgery(keras, {load}, EDITS)", "model = surgery.model"]

    @property
    def functions(self) -> list[str]:
        """What the copy is made with."""
        return ["# How a copy is made with these edits. What is changed stands above.", *map(module_text, _EMBEDDED)]


class Clone(Way):
    """Other settings and weights in a clone of the model, whose graph stays as it is.

    Args:
        engine: whose model it is.
        model: the model, as this Keras loads it.
        edited: the copy that was tried.
        why: a sentence for each change of `edited.done`.

    Raises:
        ValueError: a clone does not make what was tried.
    """

    layer = "model.get_layer"
    modules = ()
    names = ("from collections.abc import Iterable", "from typing import Any")

    def __init__(self, engine: Engine, model: Any, edited: Edited, why: Sequence[str]) -> None:
        self.arrays = {}
        self._engine = engine
        self._plan = plan = Plan(engine.keras, model, [])
        if any("/" in path for path in plan.paths):
            raise ValueError("a clone holds its submodels as they are")
        settings, weights = Said(), Said()
        given: list[tuple[str, Any]] = []
        held: list[tuple[str, str, np.ndarray]] = []
        for change, words in operations(edited, why):
            part, before = plan.part(change.layer), dict(plan.part(change.layer).arguments)
            plan.add((change.action, change.layer, change.values))
            name = part.item.name
            if change.action == "weights":
                held.append((name, _word(edited, name, change), np.asarray(change.values["value"])))
                weights.add(words, self._weight(*held[-1]))
            elif change.action == "replace" and part.instead is not None:
                maker, call = plan.constructor(*part.instead)
                given.append((name, maker(**call)))
                inside = ", ".join(f"{key}={code.value(value)}" for key, value in call.items())
                settings.add(words, f"({code.text(name)}, keras.layers.{maker.__name__}({inside})),")
            else:
                new = {k: v for k, v in part.arguments.items() if k not in before or before[k] is not v}
                new |= {"trainable": bool(change.values["trainable"])} if change.action == "trainable" else {}
                given.append((name, new))
                settings.add(words, f"({code.text(name)}, {self._arguments(new)}),")
        for name, word, variable in edited.fresh:
            held.append((name, word, np.array(variable.numpy())))
            weights.add(_FRESH, self._weight(*held[-1]))
        self._check(model, edited, given, held)
        named = {"SETTINGS": settings, "WEIGHTS": weights}
        self.data = "\n\n\n".join(filter(None, (lines.as_list(name) for name, lines in named.items())))
        self._given = ["SETTINGS" if given else "[]", *(["WEIGHTS"] if held else [])]

    def body(self, load: str) -> list[str]:
        """The line that makes `model` of what this expression loads."""
        return [f"model = cloned(keras, {load}, {', '.join(self._given)})"]

    @property
    def functions(self) -> list[str]:
        """What the copy is made with."""
        return [module_text("cloning"), inspect.getsource(word_of)]

    def _check(
        self,
        model: Any,
        edited: Edited,
        settings: Sequence[tuple[str, Any]],
        weights: Sequence[tuple[str, str, np.ndarray]],
    ) -> None:
        """Whether the clone is what was tried: its layers, their settings and weights."""
        if not all(part.stays for part in self._plan.parts.values()):
            raise ValueError("the graph changes")
        changed = [(name, new) for name, new in settings if not isinstance(new, dict)]
        if any(name == other and new is not layer for name, layer in changed for other, new in settings):
            raise ValueError("what takes a layer's place is changed again")
        keras = self._engine.keras
        copy = cloning.cloned(keras, model, settings, weights)
        pairs = list(zip(copy.layers, edited.model.layers, strict=True))
        for ours, tried in pairs:
            if type(ours) is not type(tried) or _plain(ours.get_config()) != _plain(tried.get_config()):
                raise ValueError(f"{ours.name} comes out otherwise")
            both = zip(ours.weights, tried.weights, strict=True)
            if any(word_of(v) != word_of(w) or tuple(v.shape) != tuple(w.shape) for v, w in both):
                raise ValueError(f"{ours.name} has other weights")

    def _weight(self, name: str, word: str, value: np.ndarray) -> str:
        return f"({code.text(name)}, {code.text(word)}, {code.value(value, self.arrays)}),"

    def _arguments(self, new: Mapping[str, Any]) -> str:
        """Arguments as the code of a dict."""
        words = {key: _holder(value) for key, value in new.items() if key.endswith(("_regularizer", "_constraint"))}
        return "{" + ", ".join(f"{code.text(k)}: {words.get(k) or code.value(v)}" for k, v in new.items()) + "}"


def _holder(value: Any) -> str:
    """A regularizer or a constraint of Keras' own as code; empty for none."""
    if value is None:
        return ""
    module = "keras.constraints" if "constraint" in type(value).__module__ else "keras.regularizers"
    given = [(key, code.value(held)) for key, held in value.get_config().items()]
    alone = len(given) == 1 and given[0][0] in ("l1", "l2")
    return f"{module}.{type(value).__name__}({given[0][1] if alone else ', '.join(f'{k}={v}' for k, v in given)})"


def way_of(engine: Engine, model: Any, edited: Edited, why: Sequence[str]) -> Way:
    """The shorter way that makes what was tried. For the arguments see `Clone`."""
    try:
        return Clone(engine, model, edited, why)
    except (ValueError, TypeError, AttributeError, KeyError, StopIteration):
        return Way(edited, why)


def operations(edited: Edited, why: Sequence[str]) -> list[tuple[Change, str]]:
    """The changes of layers, each with its reason."""
    return [(change, words) for change, words in zip(edited.done, why, strict=True) if change.action in LAYERS]


def _word(edited: Edited, name: str, change: Change) -> str:
    """Keras' name of the weight that is set."""
    role, found = str(change.values["role"]), {word_of(v) for v in edited.model.get_layer(name).weights}
    return next(word for word in ROLES.get(role, (role,)) if word in found)


def _plain(config: Mapping[str, Any]) -> str:
    """A configuration as text, to compare; the first layer of a Sequential may say its shape or not."""
    config = {key: value for key, value in config.items() if key != "batch_input_shape"}
    return json.dumps(config, sort_keys=True, default=str)


def module_text(name: str) -> str:
    """The text of a module of `edits` without what a script has once: its docstring, imports and `__all__`."""
    source = resources.files("parity.frameworks.keras.edits").joinpath(f"{name}.py").read_text(encoding="utf-8")
    dropped: set[int] = set()
    for i, node in enumerate(ast.parse(source).body):
        heading = i == 0 and isinstance(node, ast.Expr)
        listed = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if heading or listed or isinstance(node, ast.Import | ast.ImportFrom):
            dropped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return "\n".join(line for i, line in enumerate(source.splitlines(), 1) if i not in dropped)
