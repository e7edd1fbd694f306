"""A recipe file: in TOML, what a .mat does not say of how its network is trained."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity.errors import BadFile
from parity.frameworks.matconvnet.solver_state import SOLVERS

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

__all__ = ["VERSIONS", "Overrides", "read_recipe"]

VERSIONS = ("beta25", "head")
"""Releases whose trainers differ: up to 1.0-beta25 losses are sums, later they are means over the images."""

_EXAMPLE = 'e.g. solver = "adam", learning_rate = [0.01, 0.001], weight_decay = 0.0005'


@dataclass(frozen=True)
class Overrides:
    """What a recipe file says; it takes precedence over the network's own file.

    Attributes:
        path: the file.
        options: option → value, in the spelling of cnn_train.m's `opts`, as plain Python values.
        epoch: the epoch that is trained, from 1; None for the one after those that the network has behind it.
        version: one of `VERSIONS`; empty where the file does not say.
    """

    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    version: str = ""


def read_recipe(path: str | Path) -> Overrides:
    """A recipe file, checked.

    Its keys, all optional (MatConvNet's own spelling, e.g. `learningRate`, does as well):

    - `solver`: "sgd" (momentum), "adagrad", "adadelta", "adam" or "rmsprop";
    - `solver_options`: a table of the solver's options, e.g. `beta1` or `rho`;
    - `learning_rate`: a number, or a list with one per epoch; `epoch`: which of them, from 1;
    - `momentum`, `nesterov`, `weight_decay`, `batch_size`, `sub_batches`, `epochs`;
    - `der_outputs`: a table, variable = weight, of what is differentiated (DagNN);
    - `version`: "beta25" or "head".

    Raises:
        BadFile: it cannot be read, is no TOML, or a key or value is wrong; the message names the key.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFile(path, "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else "it is not text"
        raise BadFile(path, f"cannot be read ({what})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadFile(path, f"is not TOML: {error}", _EXAMPLE) from None
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = _SPELLINGS.get(_folded(key))
        if name is None:
            near = difflib.get_close_matches(_folded(key), _SPELLINGS, 1)
            hint = f"did you mean {_KEYS[_SPELLINGS[near[0]]].key!r}?" if near else f"it has {', '.join(_shown())}"
            raise BadFile(path, f"a recipe has no key {key!r}", hint)
        if name in found:
            raise BadFile(path, f"{key!r} is given twice, in two spellings")
        try:
            found[name] = _KEYS[name].read(value)
        except ValueError as error:
            raise BadFile(path, f"{key} {error}") from None
    _check_solver(path, found)
    epoch, version = found.pop("epoch", None), found.pop("version", "")
    return Overrides(str(path), found, epoch, version)


def _check_solver(path: Path, found: Mapping[str, Any]) -> None:
    given = found.get("solverOpts", {})
    if "solver" not in found:
        if given:
            raise BadFile(path, "solver_options are given, but no solver", 'e.g. solver = "adam"')
        return
    known = SOLVERS[found["solver"]].options if found["solver"] else {}
    for option in given:
        if option not in known:
            has = ", ".join(known) or "none"
            raise BadFile(
                path, f"solver_options.{option} is not an option of {found['solver'] or 'sgd'} (it has {has})"
            )


# ------------------------------------------------------------------------------------------------------------- values


def _number(low: float = 0.0) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be a number, not {value!r}")
        if not math.isfinite(value) or value < low:
            raise ValueError(f"must be at least {low:g} and finite, not {value!r}")
        return float(value)

    return read


def _rates(value: Any) -> list[float]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise ValueError("is an empty list; give a number, or one per epoch")
    return [_number()(item) for item in items]


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"must be a whole number from 1, not {value!r}")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {value!r}")
    return value


def _word(words: Mapping[str, str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        word = value.lower().lstrip("@").removeprefix("solver.") if isinstance(value, str) else None
        if word is None or word not in words:
            raise ValueError(f"must be one of {', '.join(word for word in words if word)}, not {value!r}")
        return words[word]

    return read


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a table, not {value!r}")
    made: dict[str, float] = {}
    for name, item in value.items():
        try:
            made[name] = _number(-math.inf)(item)
        except ValueError as error:
            raise ValueError(f"must hold numbers; {name} {error}") from None
    return made


def _weights(value: Any) -> dict[str, float]:
    """`{objective = 1}`, or MatConvNet's cell `["objective", 1]`."""
    if isinstance(value, list) and len(value) % 2 == 0 and all(isinstance(name, str) for name in value[::2]):
        value = dict(zip(value[::2], value[1::2], strict=True))
    if not value:
        raise ValueError("names nothing; give a table, variable = weight")
    return _numbers(value)


@dataclass(frozen=True)
class _Key:
    key: str
    read: Callable[[Any], Any]


_KEYS: dict[str, _Key] = {
    "solver": _Key("solver", _word({"": "", "sgd": "", "momentum": "", **{name: name for name in SOLVERS}})),
    "solverOpts": _Key("solver_options", _numbers),
    "learningRate": _Key("learning_rate", _rates),
    "momentum": _Key("momentum", _number()),
    "weightDecay": _Key("weight_decay", _number()),
    "batchSize": _Key("batch_size", _count),
    "numEpochs": _Key("epochs", _count),
    "nesterovUpdate": _Key("nesterov", _truth),
    "numSubBatches": _Key("sub_batches", _count),
    "derOutputs": _Key("der_outputs", _weights),
    "epoch": _Key("epoch", _count),
    "version": _Key("version", _word({word: word for word in VERSIONS})),
}
"""MatConvNet's spelling → the key of a recipe file, and how its value is read."""


def _folded(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()


_SPELLINGS: dict[str, str] = {
    **{_folded(name): name for name in _KEYS},
    **{_folded(item.key): name for name, item in _KEYS.items()},
}
"""A key without case and underscores → MatConvNet's spelling."""


def _shown() -> list[str]:
    return [item.key for item in _KEYS.values()]
