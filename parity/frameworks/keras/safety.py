"""Looks for code in a configuration before any framework sees it.

A Keras file can name code to run: a Lambda holds byte code, a custom class needs the user's source, and a serialized
function names a module to import. The scan walks the JSON and reports all of them, by layer; `load` refuses what the
user has not provided, and `lift` only marks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from parity.errors import Refused
from parity.frameworks.keras.builtins import ACTIVATIONS, CLASSES, OPERATIONS
from parity.frameworks.keras.operations import is_operation

__all__ = ["GIVEN", "code_in", "custom_objects", "refuse_code", "runs_code"]

_TRUSTED = ("keras.", "tf_keras.", "tensorflow.keras.", "tensorflow.python.keras.")
_FUNCTION_HOMES = ("activations", "losses", "metrics", "initializers", "regularizers", "ops", "nn")


def runs_code(entry: Mapping[str, Any]) -> bool:
    """Whether one serialized object (class_name, module, registered_name) is a Lambda or a class of the user's."""
    name = str(entry.get("class_name", ""))
    if name in ("TFOpLambda", "SlicingOpLambda"):
        return not _harmless(entry)
    if is_operation(entry):
        return False
    if name == "Merge":
        return _merges_by_code(entry)
    module = entry.get("module")
    if module is not None and entry.get("registered_name") is None and _trusted(module):
        return name == "Lambda"
    if module is not None and _trusted(module) and module.startswith(("keras.src.ops", "keras.ops")):
        return False
    if name in ("function", "__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__", "__tuple__"):
        return False
    return name.split(">")[-1] not in CLASSES or (">" in name and not name.startswith("Custom>"))


def _merges_by_code(entry: Mapping[str, Any]) -> bool:
    """Whether a `Merge` of early Keras has a function for its mode, whose byte code is in the file."""
    config = entry.get("config")
    return isinstance(config, Mapping) and any(config.get(f"{k}_type", "raw") != "raw" for k in ("mode", "output_mask"))


def _trusted(module: Any) -> bool:
    return isinstance(module, str) and (module in ("keras", "builtins") or module.startswith(_TRUSTED))


def _harmless(entry: Mapping[str, Any]) -> bool:
    """Whether a Keras 2 `TFOpLambda` calls a tensorflow function that only computes."""
    config = entry.get("config")
    if not isinstance(config, Mapping):
        return False
    called = str(config.get("function", "")).removeprefix("tf.").removeprefix("compat.v1.")
    return called.split(".")[0] in OPERATIONS


def code_in(config: Any) -> Iterator[tuple[str, str, str]]:
    """Every place of a configuration that names code of its own.

    Yields:
        (the layer's name, or what holds it; the class or function's name; `"lambda"`, `"class"` or `"function"`).
    """
    yield from _walk(config, "")


def _walk(item: Any, holder: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(item, list | tuple):
        for part in item:
            yield from _walk(part, holder)
        return
    if not isinstance(item, Mapping):
        return
    config = item.get("config")
    name = item.get("class_name")
    if isinstance(name, str) and "config" in item:
        inner = config.get("name") if isinstance(config, Mapping) else None
        holder = str(item.get("name") or inner or holder)
        if name == "function":
            yield from _function(item, holder)
        elif name in ("Lambda", "__lambda__") or (name == "Merge" and _merges_by_code(item)):
            yield holder, name, "lambda"
            return
        elif runs_code(item):
            yield holder, name, "class"
    for key in ("activation", "recurrent_activation"):
        value = item.get(key)
        if isinstance(value, str) and value not in ACTIVATIONS:
            yield holder, value, "function"
    for key, part in item.items():
        # Serialized byte code appears where a name could stand: ["4wEAAA...", null, null].
        if key == "activation" and isinstance(part, list):
            yield holder, "<lambda>", "lambda"
        else:
            yield from _walk(part, holder)


def _function(item: Mapping[str, Any], holder: str) -> Iterator[tuple[str, str, str]]:
    """A serialized function, which is Keras' own or must be given."""
    module, name = item.get("module"), item.get("config")
    words = str(module or "builtins").split(".")
    own = _trusted(str(module)) and any(home in words for home in _FUNCTION_HOMES)
    if not own and not (words == ["builtins"] and isinstance(name, str) and (name in ACTIVATIONS or _is_loss(name))):
        yield holder, str(item.get("registered_name") or name), "function"


def _is_loss(name: str) -> bool:
    """Names of losses and metrics are looked up in Keras itself, which refuses what it does not know."""
    return name.isidentifier() and name.islower()


GIVEN = "<run_path>"
"""The module that a class of `custom_objects` says it is of."""


def custom_objects(path: str | None) -> dict[str, Callable[..., Any]]:
    """The classes and functions that the user's own .py file defines; running it is what the user asked for.

    Raises:
        BadFile: it is missing, or fails when it runs.
    """
    if path is None:
        return {}
    import runpy
    from pathlib import Path

    from parity.errors import BadFile

    if not Path(path).is_file():
        raise BadFile(path, "does not exist", "--custom-objects takes a Python file that defines the classes")
    try:
        found = runpy.run_path(str(path))
    except Exception as error:
        raise BadFile(
            path, f"failed with {type(error).__name__}: {error}", "--custom-objects runs this file"
        ) from error
    return {name: item for name, item in found.items() if callable(item) and not name.startswith("__")}


def refuse_code(path: Any, config: Any, given: Iterable[str] = ()) -> None:
    """Raises Refused, with the layer and the way on, where a configuration holds code that was not given."""
    known = set(given)
    for holder, name, kind in code_in(config):
        where = f"layer {holder}" if holder else "the model"
        if kind == "lambda":
            raise Refused(
                f"{path}: {where} is a Lambda, whose code is in the file; parity does not run it: replace it with a "
                "built-in layer (Rescaling, Reshape, Activation, keras.ops), compare a model built in Python, or say "
                "--trust if you know where the file comes from"
            )
        if name.split(">")[-1] not in known and name not in known:
            raise Refused(
                f"{path}: {where} needs the custom {kind} {name}, which the file does not hold; "
                "give its source with --custom-objects FILE.py"
            )
