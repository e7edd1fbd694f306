"""A fix as a Python script that a reader can follow and run without parity: it loads, changes, compiles and saves."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from parity.frameworks.keras.edit import Edited
from parity.frameworks.keras.edits import code
from parity.frameworks.keras.edits.structure import word_of
from parity.frameworks.keras.edits.surgery import Surgery
from parity.frameworks.keras.engine import Engine, engine_of
from parity.frameworks.keras.optimizer_state import proportional

__all__ = ["Script", "script_of"]

_EMBEDDED = ("structure", "plan", "surgery")

_BATCH = {"input": "x", "labels": "y"}

_ELSEWHERE = ("optimizer", "loss", "rate", *_BATCH)


@dataclass(frozen=True, eq=False)
class Script:
    """A script, and the arrays that it reads from a file beside it.

    Attributes:
        text: the script; `{arrays}` stands for the name of that file.
        arrays: name → array; empty where it needs no file.
    """

    text: str
    arrays: Mapping[str, np.ndarray]


def script_of(
    edited: Edited,
    why: Sequence[str],
    *,
    source: str,
    result: str,
    custom_objects: str | None = None,
    metrics: Sequence[str] = (),
) -> Script:
    """The script that does to a file what was done to the model.

    Args:
        edited: the copy, with the weights that the result should hold.
        why: a sentence for each change of `edited.done`.
        source: path of the model's file.
        result: path of the file to write.
        custom_objects: path of a Python file with its custom classes.
        metrics: what its `compile()` counts, by name.

    Raises:
        ValueError: this Keras cannot load the file by itself, or finds other layers in it.
    """
    engine = engine_of(edited.model)
    _check(engine, source, edited, custom_objects)
    lines = _Lines(edited, why)
    surgery = bool(lines.edits)
    parts = [
        _head(source, result, engine, bool(lines.arrays), custom_objects is not None),
        _imports(engine, surgery, bool(lines.arrays), custom_objects is not None),
        f"MODEL = {code.text(source)}\nRESULT = {code.text(result)}",
    ]
    if lines.arrays:
        parts.append('ARRAYS = np.load(pathlib.Path(__file__).with_name("{arrays}"))')
    if surgery:
        parts.append("\n".join(["EDITS = [", *lines.edits, "]"]))
    if lines.rates:
        parts.append("\n".join([*_RATES, "RATES = [", *lines.rates, "]"]))
    if lines.batch:
        parts.append("\n".join(lines.batch))
    parts.append(_main(engine, edited, why, lines, custom_objects, metrics))
    if lines.rates:
        parts += [*([] if surgery else [_LAYER]), _FACTORS, _rated(engine, edited.model.optimizer)]
    if surgery:
        parts.append("# How a copy is made with these edits. What is changed stands above.")
        parts += [_body(name) for name in _EMBEDDED]
    parts.append('if __name__ == "__main__":\n    main()')
    return Script("\n\n\n".join(part.strip("\n") for part in parts) + "\n", lines.arrays)


class _Lines:
    """The changes as lines of code, each behind the reason for it.

    Attributes:
        edits: of EDITS.
        rates: of RATES.
        batch: comments on what the model is fed.
        arrays: what EDITS reads from the file beside.
    """

    def __init__(self, edited: Edited, why: Sequence[str]) -> None:
        self.edits: list[str] = []
        self.rates: list[str] = []
        self.batch: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._said: dict[int, str] = {}
        for change, words in zip(edited.done, why, strict=True):
            values, layer = change.values, code.text(change.layer)
            if change.action in _BATCH:
                letter = _BATCH[change.action]
                self._add(self.batch, words, 0, f"# So feed the model with {letter} = {values.get('code', letter)}")
            elif change.action == "rate":
                line = f"    ({layer}, {code.text(values['role'])}, {code.value(float(values['factor']))}),"
                self._add(self.rates, words, 4, line)
            elif change.action not in _ELSEWHERE:
                line = f"    ({code.text(change.action)}, {layer}, {code.value(values, self.arrays)}),"
                self._add(self.edits, words, 4, line)
        for path, word, variable in edited.fresh:
            values = {"role": word, "value": np.array(variable.numpy())}
            line = f'    ("weights", {code.text(path)}, {code.value(values, self.arrays)}),'
            self._add(self.edits, "What is new or has another shape now holds the reference's values.", 4, line)

    def _add(self, lines: list[str], words: str, indent: int, line: str) -> None:
        if self._said.get(id(lines)) != words:
            lines += code.comment(words, indent)
        self._said[id(lines)] = words
        lines.append(line)


# Parts ----------------------------------------------------------------------------------------------------------------


def _head(source: str, result: str, engine: Engine, arrays: bool, custom: bool) -> str:
    beside = ", and {arrays} beside it" if arrays else ""
    runs = " It runs the file of custom classes." if custom else ""
    return (
        '"""Changes a Keras model so that it computes what its reference does.\n\n'
        f"Reads {source}\nand writes {result}.\n"
        f"Needs {engine.name} and numpy{beside}.{runs}\n"
        'Each change says what was found, with the numbers of both sides.\n"""'
    )


def _imports(engine: Engine, surgery: bool, arrays: bool, custom: bool) -> str:
    keras = "import keras" if engine.modern else "import tf_keras as keras"
    plain = ["import pathlib"] * arrays + ["import runpy"] * custom
    named: list[str] = []
    if surgery:
        plain += ["import copy", "import inspect", "import math"]
        named = ["from collections.abc import Callable, Iterable, Mapping, Sequence", "from typing import Any"]
    standard = [*sorted(plain), *named]
    return "\n".join(
        ["from __future__ import annotations", "", *standard, *([""] if standard else []), keras, "import numpy as np"]
    )


def _main(
    engine: Engine,
    edited: Edited,
    why: Sequence[str],
    lines: _Lines,
    custom_objects: str | None,
    metrics: Sequence[str],
) -> str:
    model, surgery = edited.model, bool(lines.edits)
    body = ['"""Writes the changed model, and returns it."""']
    given = ""
    if custom_objects is not None:
        body.append(f"custom = runpy.run_path({code.text(custom_objects)})")
        given = ", custom_objects=custom"
    load = f"keras.models.load_model(MODEL, compile=False{given})"
    body += [f"surgery = Surgery(keras, {load}, EDITS)", "model = surgery.model"] if surgery else [f"model = {load}"]
    if getattr(model, "optimizer", None) is not None:
        recipe = [w for c, w in zip(edited.done, why, strict=True) if c.action in ("optimizer", "loss")]
        body += [line for words in dict.fromkeys(recipe) for line in code.comment(words)]
        optimizer, settings = code.compilation(engine, model, metrics, custom_objects is not None)
        body += [f"optimizer = {optimizer}", f"settings = {settings}", "model.compile(optimizer=optimizer, **settings)"]
    body.append("model.save(RESULT)")
    if lines.rates:
        layer = "surgery.layer" if surgery else "lambda path: layer_of(model, path)"
        body.append(f"factors = factors_of(RATES, {layer})")
        body.append("model.compile(optimizer=rated(optimizer, factors), **settings)  # to train with the factors")
    body.append("return model")
    return "def main():\n" + textwrap.indent("\n".join(body), "    ")


# Factors on learning rates --------------------------------------------------------------------------------------------

_RATES = (
    "# Factors on the learning rates of single parameters. Keras has no argument for them, and no file holds",
    "# them: what `main` returns has an optimizer that multiplies.",
)

_LAYER = '''
def layer_of(model, path):
    """A layer by its path, `"block/conv"` inside a submodel."""
    for name in path.split("/"):
        model = model.get_layer(name)
    return model
'''

_FACTORS = '''
def name_of(variable):
    """What tells a variable from others."""
    return getattr(variable, "path", None) or variable.name


def factors_of(rates, layer):
    """Name of the variable → factor."""
    found = {}
    for path, role, factor in rates:
        for variable in layer(path).weights:
            if name_of(variable).split("/")[-1].split(":")[0] in (role, f"depthwise_{role}"):
                found[name_of(variable)] = found.get(name_of(variable), 1.0) * factor
    return found
'''

_CLASS = '''
def rated(optimizer, factors):
    """A new optimizer of the same settings that multiplies the learning rates of the named variables."""

    class Rated(type(optimizer)):
METHOD

    return Rated.from_config(optimizer.get_config())
'''

_SCALED_GRADIENTS = """
def apply(self, grads, trainable_variables=None):
    variables = self._trainable_variables if trainable_variables is None else trainable_variables
    scaled = [g if g is None else g * factors.get(name_of(v), 1.0) for g, v in zip(grads, variables)]
    return super().apply(scaled, trainable_variables)
"""

_SCALED_GRADIENTS_2 = """
def apply_gradients(self, grads_and_vars, *args, **kwargs):
    scaled = [(g if g is None else g * factors.get(name_of(v), 1.0), v) for g, v in grads_and_vars]
    return super().apply_gradients(scaled, *args, **kwargs)
"""

_SCALED_RATES = """
def update_step(self, gradient, variable, learning_rate):
    held = self._trainable_variables[self._get_variable_index(variable)]  # `variable` may be the backend's own
    super().update_step(gradient, variable, learning_rate * factors.get(name_of(held), 1.0))
"""

_SCALED_MOVES_TORCH = """
def apply(self, grads, trainable_variables=None):
    variables = self._trainable_variables if trainable_variables is None else trainable_variables
    chosen = [(v, v.value.detach().clone(), factors[name_of(v)]) for v in variables if name_of(v) in factors]
    super().apply(grads, trainable_variables)
    for variable, before, factor in chosen:
        variable.assign(before + factor * (variable.value.detach() - before))
"""

_SCALED_MOVES_2 = """
def apply_gradients(self, grads_and_vars, *args, **kwargs):
    pairs = list(grads_and_vars)
    chosen = [(v, v + 0.0, factors[name_of(v)]) for _, v in pairs if name_of(v) in factors]
    result = super().apply_gradients(pairs, *args, **kwargs)
    for variable, before, factor in chosen:
        variable.assign(before + factor * (variable - before))
    return result
"""


def _rated(engine: Engine, optimizer: Any) -> str:
    """An optimizer's class with factors, as code; SGD's step is proportional to the gradients."""
    methods = {
        (True, True): _SCALED_GRADIENTS,
        (False, True): _SCALED_GRADIENTS_2,
        (True, False): _SCALED_RATES,
        (False, False): _SCALED_MOVES_2,
    }
    method = methods[engine.modern, proportional(optimizer)].strip("\n")
    if engine.backend.name == "torch" and not proportional(optimizer):  # which steps all variables in one go
        method = _SCALED_MOVES_TORCH.strip("\n")
    return _CLASS.replace("METHOD", textwrap.indent(method, "        "))


# The surgery ----------------------------------------------------------------------------------------------------------


def _body(name: str) -> str:
    """A module's text without what a script has once: its docstring, imports and `__all__`."""
    source = resources.files("parity.frameworks.keras.edits").joinpath(f"{name}.py").read_text(encoding="utf-8")
    dropped: set[int] = set()
    for i, node in enumerate(ast.parse(source).body):
        heading = i == 0 and isinstance(node, ast.Expr)
        listed = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if heading or listed or isinstance(node, ast.Import | ast.ImportFrom):
            dropped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return "\n".join(line for i, line in enumerate(source.splitlines(), 1) if i not in dropped)


def _check(engine: Engine, source: str, edited: Edited, custom_objects: str | None) -> None:
    """Whether this Keras loads the file by itself, and finds the layers that are named."""
    from parity.frameworks.keras.safety import custom_objects as objects_in

    layers = [(c.action, c.layer, c.values) for c in edited.done if c.action not in _ELSEWHERE]
    try:
        given = dict(objects_in(custom_objects))
        model = engine.keras.models.load_model(source, compile=False, custom_objects=given)
        found = [word_of(variable) for variable in Surgery(engine.keras, model, layers).model.weights]
    except Exception as error:
        words = " ".join(str(error).split())[:160]
        raise ValueError(f"{engine.name} cannot load {source} by itself ({type(error).__name__}: {words})") from error
    if found != [word_of(variable) for variable in edited.model.weights]:
        raise ValueError(f"{engine.name} finds other layers in {source} by itself")
