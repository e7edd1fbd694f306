"""A fix as a Python script that a reader can follow and run without parity: it loads, changes, compiles and saves."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity.frameworks.keras.edit import LAYERS, Edited
from parity.frameworks.keras.edits import code
from parity.frameworks.keras.edits.optimizers import OWN_OPTIMIZERS
from parity.frameworks.keras.edits.structure import word_of
from parity.frameworks.keras.edits.surgery import Surgery
from parity.frameworks.keras.edits.ways import Said, Way, module_text, operations, way_of
from parity.frameworks.keras.engine import Engine, engine_of
from parity.frameworks.keras.optimizer_state import proportional

__all__ = ["Script", "script_of"]

_BATCH = {"input": "x", "labels": "y"}


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
    loaded = _checked(engine, source, edited, custom_objects)
    way = way_of(engine, loaded, edited, why) if operations(edited, why) else None
    arrays = way.arrays if way else {}
    rates, batch = _rates(edited, why), _batch(edited, why)
    parts = [
        _head(source, result, engine, bool(arrays), custom_objects is not None),
        _imports(engine, way, custom_objects is not None, own=_is_own(edited)),
        f"MODEL = {code.text(source)}\nRESULT = {code.text(result)}",
        'ARRAYS = np.load(pathlib.Path(__file__).with_name("{arrays}"))' if arrays else "",
        way.data if way else "",
        rates,
        batch,
        _main(engine, edited, why, way, bool(rates), custom_objects, metrics),
    ]
    if rates:
        parts += ["" if way else _LAYER, _FACTORS, _rated(engine, edited.model.optimizer)]
    parts += way.functions if way else []
    parts += [module_text("optimizers")] if _is_own(edited) else []
    parts.append('if __name__ == "__main__":\n    main()')
    return Script("\n\n\n".join(part.strip("\n") for part in parts if part) + "\n", arrays)


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


def _is_own(edited: Edited) -> bool:
    """Whether the copy's optimizer is of a class that Keras lacks."""
    return type(getattr(edited.model, "optimizer", None)).__name__ in OWN_OPTIMIZERS


def _imports(engine: Engine, way: Way | None, custom: bool, *, own: bool) -> str:
    keras = "import keras" if engine.modern else "import tf_keras as keras"
    plain = ["pathlib"] * bool(way and way.arrays) + ["runpy"] * custom + list(way.modules if way else ())
    names = way.names if way else ("from typing import Any",) if own else ()
    standard = [*(f"import {name}" for name in sorted(plain)), *names]
    return "\n".join(
        ["from __future__ import annotations", "", *standard, *([""] if standard else []), keras, "import numpy as np"]
    )


def _rates(edited: Edited, why: Sequence[str]) -> str:
    """The factors on learning rates."""
    said = Said()
    for change, words in zip(edited.done, why, strict=True):
        if change.action == "rate":
            factor = code.value(float(change.values["factor"]))
            said.add(words, f"({code.text(change.layer)}, {code.text(change.values['role'])}, {factor}),")
    return _RATES.strip() + "\n" + said.as_list("RATES") if said.lines else ""


def _batch(edited: Edited, why: Sequence[str]) -> str:
    """Comments on what the model is to be fed."""
    said = Said(indent=0)
    for change, words in zip(edited.done, why, strict=True):
        if change.action in _BATCH:
            letter = _BATCH[change.action]
            said.add(words, f"# So feed the model with {letter} = {change.values.get('code', letter)}")
    return "\n".join(said.lines)


def _main(
    engine: Engine,
    edited: Edited,
    why: Sequence[str],
    way: Way | None,
    rates: bool,
    custom_objects: str | None,
    metrics: Sequence[str],
) -> str:
    model = edited.model
    body = ['"""Writes the changed model, and returns it."""']
    given = ""
    if custom_objects is not None:
        body.append(f"custom = runpy.run_path({code.text(custom_objects)})")
        given = ", custom_objects=custom"
    load = f"keras.models.load_model(MODEL, compile=False{given})"
    body += way.body(load) if way else [f"model = {load}"]
    if getattr(model, "optimizer", None) is not None:
        recipe = [w for c, w in zip(edited.done, why, strict=True) if c.action in ("optimizer", "loss")]
        body += [line for words in dict.fromkeys(recipe) for line in code.comment(words)]
        optimizer, settings = code.compilation(engine, model, metrics, custom_objects is not None)
        body += [f"optimizer = {optimizer}", f"settings = {settings}", "model.compile(optimizer=optimizer, **settings)"]
    body.append("model.save(RESULT)")
    if rates:
        layer = way.layer if way else "lambda path: layer_of(model, path)"
        body.append(f"factors = factors_of(RATES, {layer})")
        body.append("model.compile(optimizer=rated(optimizer, factors), **settings)  # to train with the factors")
    body.append("return model")
    return "def main():\n" + textwrap.indent("\n".join(body), "    ")


# Factors on learning rates --------------------------------------------------------------------------------------------

_RATES = """
# Factors on the learning rates of single parameters. Keras has no argument for them, and no file holds
# them: what `main` returns has an optimizer that multiplies.
"""

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


def _checked(engine: Engine, source: str, edited: Edited, custom_objects: str | None) -> Any:
    """The model as this Keras loads it by itself. Raises ValueError where it does not, or finds other layers in it."""
    from parity.frameworks.keras.safety import custom_objects as objects_in

    layers = [(c.action, c.layer, c.values) for c in edited.done if c.action in LAYERS]
    try:
        given = dict(objects_in(custom_objects))
        model = engine.keras.models.load_model(source, compile=False, custom_objects=given)
        found = [word_of(variable) for variable in Surgery(engine.keras, model, layers).model.weights]
    except Exception as error:
        words = " ".join(str(error).split())[:160]
        raise ValueError(f"{engine.name} cannot load {source} by itself ({type(error).__name__}: {words})") from error
    if found != [word_of(variable) for variable in edited.model.weights]:
        raise ValueError(f"{engine.name} finds other layers in {source} by itself")
    return model
