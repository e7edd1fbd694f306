"""What a gate checks: `parity.toml`, or the table `[tool.parity]` of a `pyproject.toml`."""

from __future__ import annotations

import datetime
import difflib
import math
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from parity.causes import CAUSES
from parity.errors import BadFile, BadUsage, ParityError
from parity.identity import source_file
from parity.options import tolerances
from parity.report import PHASES

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

__all__ = ["CONFIG", "Config", "Exemption", "Pair", "read_config"]

CONFIG = "parity.toml"

_ALLOWABLE = ("born", "unpaired", "unverified", "masked", "inherited")
_PATHS = ("ref", "keras", "batch", "map", "custom_objects", "keras_arch", "ref_recipe")
_WORDS: Mapping[str, tuple[str, ...]] = {
    "mode": ("train", "eval"),
    "weights": ("ref", "own"),
    "keras_engine": ("auto", "keras3", "tf_keras"),
    "backend": ("tensorflow", "torch", "jax"),
    "ref_version": ("beta25", "head"),
}
_FLAGS = ("strict", "trust")
_COUNTS: Mapping[str, int] = {"steps": 1, "seed": 0}
_NUMBERS = ("rtol", "atol")
_SHARED = (*_PATHS, *_WORDS, *_COUNTS, *_NUMBERS, *_FLAGS, "only", "phases")
_PAIR = ("name", *_SHARED, "allow")
_TOP = ("lock", "defaults", "pair")
_ALLOW = ("layer", "cause", "status", "since", "until", "reason")
_EXAMPLE = '[[pair]] name = "lenet", ref = "net.mat", keras = "model.h5"'


@dataclass(frozen=True)
class Exemption:
    """A divergence that is known and put up with.

    Attributes:
        reason: why.
        layer: pattern of the layer's name on either side; empty for what concerns the recipe as a whole.
        cause: slug of `parity rule`; empty where a status is permitted whatever its cause.
        status: a status of probes; empty for any that the cause explains.
        since: the day on which it was granted.
        until: the last day on which it holds; None for always.
        line: where it stands in the configuration; 0 where that is not known.
    """

    reason: str
    layer: str = ""
    cause: str = ""
    status: str = ""
    since: datetime.date | None = None
    until: datetime.date | None = None
    line: int = 0

    @property
    def words(self) -> str:
        """`conv-groups at ip1`."""
        return (self.cause or self.status) + (f" at {self.layer}" if self.layer else "")

    def fits(self, *names: str) -> bool:
        """Whether it is meant for a layer with one of these names, or for the recipe where there is none."""
        given = [name for name in names if name]
        return any(fnmatchcase(name, self.layer) for name in given) if given else self.layer in ("", "*")


@dataclass(frozen=True)
class Pair:
    """One comparison of a gate.

    Attributes:
        name: unique in its configuration.
        options: keywords of `parity.session.check`.
        phases: which must have been compared, and are judged; empty for all.
        allow: what is put up with.
        line: where it stands in the configuration; 0 where that is not known.
    """

    name: str
    options: Mapping[str, Any]
    phases: tuple[str, ...] = ()
    allow: tuple[Exemption, ...] = ()
    line: int = 0

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it reads."""
        named = (self.options.get(key) for key in _PATHS)
        return tuple(source_file(path) for path in named if isinstance(path, str))

    @property
    def required(self) -> tuple[str, ...]:
        """The phases without which it is unverified."""
        if self.phases or self.options.get("only"):
            return self.phases  # some layers alone need not have all; what they have is in the baseline
        if self.options.get("mode") == "eval":
            return ("structure", "forward")
        return ("structure", "forward", "loss", "backward", "update")


@dataclass(frozen=True)
class Config:
    """A gate's configuration: its file, its pairs, and its baseline's file (None for none)."""

    path: Path
    pairs: tuple[Pair, ...]
    lock: Path | None
    unselected: frozenset[str] = field(default_factory=frozenset)

    def select(self, patterns: Iterable[str]) -> Config:
        """The pairs whose names fit one of the patterns; all where there are none.

        Raises:
            BadUsage: a pattern that fits no pair.
        """
        patterns = list(patterns)
        if not patterns:
            return self
        names = [pair.name for pair in self.pairs]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = difflib.get_close_matches(pattern, names, 1)
                raise BadUsage(
                    f"{self.path}: there is no pair {pattern!r}; "
                    + (f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}")
                )
        kept = tuple(p for p in self.pairs if any(fnmatchcase(p.name, pattern) for pattern in patterns))
        return Config(self.path, kept, self.lock, frozenset(names) - {p.name for p in kept})


def read_config(path: Path | None = None) -> Config:
    """A configuration, checked.

    Args:
        path: the file; None takes `parity.toml` here, or else `pyproject.toml` where that has a table `[tool.parity]`.

    Raises:
        BadFile: it is not there, is no TOML, or a key or value is wrong; the message names it.
    """
    if path is None:
        path = Path(CONFIG)
        if not path.exists() and Path("pyproject.toml").is_file():
            path = Path("pyproject.toml")
            if "parity" not in _table(path).get("tool", {}):
                raise BadFile(path, "has no [tool.parity]", f"write it, or a {CONFIG} with {_EXAMPLE}")
    table = _table(path)
    header, prefix = r"\[\[\s*pair\s*\]\]", ""
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("parity")
        header, prefix = r"\[\[\s*tool\s*\.\s*parity\s*\.\s*pair\s*\]\]", "tool.parity."
        if not isinstance(table, dict):
            raise BadFile(path, "has no [tool.parity]", f"write [[tool.parity.pair]] tables, or a {CONFIG}")
    return _Reader(path, table, header, prefix).config()


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadFile(path, "there is no such file", f"write one, with {_EXAMPLE}, or name another: --config") from None
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else "it is not text"
        raise BadFile(path, f"cannot be read ({what})") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadFile(path, f"is not TOML ({error})") from None


class _Reader:
    """One file's table, key by key."""

    def __init__(self, path: Path, table: Mapping[str, Any], header: str, prefix: str) -> None:
        self.path, self.table, self.prefix = path, table, prefix
        self.lines = _lines(path, header)

    def config(self) -> Config:
        self._known(self.table, _TOP, f"[{self.prefix.rstrip('.')}]" if self.prefix else "the top level")
        defaults = self.table.get("defaults", {})
        if not isinstance(defaults, dict):
            raise BadFile(self.path, "defaults must be a table")
        self._known(defaults, _SHARED, f"[{self.prefix}defaults]")
        pairs = self.table.get("pair", [])
        if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, dict) for pair in pairs):
            raise BadFile(self.path, f"has no [[{self.prefix}pair]]", f"write {_EXAMPLE}")
        if self.lines is not None and [len(found) for _, found in self.lines] != [_count(p) for p in pairs]:
            self.lines = None  # written in another way, e.g. as inline tables
        made = [self._pair(number, {**defaults, **pair}) for number, pair in enumerate(pairs)]
        names = [pair.name for pair in made]
        for name in names:
            if names.count(name) > 1:
                raise BadFile(self.path, f"two pairs are named {name!r}", "give each a name of its own")
        return Config(self.path, tuple(made), self._lock())

    def _lock(self) -> Path | None:
        value = self.table.get("lock", "parity.lock")
        if value is False:
            return None
        if not isinstance(value, str) or not value:
            raise BadFile(self.path, f"lock is a file's name, or false for no baseline, not {value!r}")
        return self.path.parent / value

    def _known(self, given: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
        keys = list(keys)
        for key in given:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(keys)}"
                raise BadFile(self.path, f"{where} has no key {key!r}", hint)

    def _pair(self, number: int, given: dict[str, Any]) -> Pair:
        name = given.get("name")
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise BadFile(self.path, f"pair {number + 1} needs a name", 'e.g. name = "lenet"')
        where = f"pair {name!r}"
        self._known(given, _PAIR, where)
        for key in ("ref", "keras"):
            if key not in given:
                raise BadFile(self.path, f"{where} has no {key!r}", f"write {_EXAMPLE}")
        options = {key: self._value(where, key, value) for key, value in given.items() if key in _SHARED}
        phases = tuple(options.pop("phases", ()))
        try:
            tolerances(options.get("rtol"), options.get("atol"))
        except ParityError as error:
            raise BadFile(self.path, f"{where}: {error}") from None
        allow = given.get("allow", [])
        if not isinstance(allow, list) or not all(isinstance(item, dict) for item in allow):
            raise BadFile(self.path, f"{where}: allow is a list of tables, [[{self.prefix}pair.allow]]")
        line, inner = self.lines[number] if self.lines else (0, [])
        made = [self._exemption(f"{where}, allow {i + 1}", x, inner[i] if inner else 0) for i, x in enumerate(allow)]
        return Pair(name, options, phases, tuple(made), line)

    def _value(self, where: str, key: str, value: Any) -> Any:
        problem = _problem(key, value)
        if problem:
            raise BadFile(self.path, f"{where}: {key} {problem}, not {value!r}")
        if key in _PATHS:
            return _placed(self.path.parent, value)
        return tuple(phase for phase in PHASES if phase in value) if key == "phases" else value

    def _exemption(self, where: str, given: dict[str, Any], line: int) -> Exemption:
        self._known(given, _ALLOW, where)
        words = {key: given.get(key, "") for key in ("layer", "cause", "status", "reason")}
        for key, value in words.items():
            if not isinstance(value, str):
                raise BadFile(self.path, f"{where}: {key} must be text, not {value!r}")
        if not words["reason"].strip():
            raise BadFile(self.path, f"{where} needs a reason", 'e.g. reason = "retrained in the next release"')
        if not words["cause"] and not words["status"]:
            raise BadFile(self.path, f"{where} needs a cause (or a status)", "'parity rule' lists the causes")
        if words["cause"] and words["cause"] not in CAUSES:
            near = difflib.get_close_matches(words["cause"], CAUSES, 1)
            hint = f"did you mean {near[0]!r}?" if near else "'parity rule' lists all"
            raise BadFile(self.path, f"{where}: there is no cause {words['cause']!r}", hint)
        if words["status"] and words["status"] not in _ALLOWABLE:
            raise BadFile(self.path, f"{where}: the status is one of {', '.join(_ALLOWABLE)}")
        if words["status"] and not words["layer"]:
            raise BadFile(self.path, f"{where}: a status is allowed at a layer", 'e.g. layer = "aug_*"')
        since, until = (self._date(where, key, given.get(key)) for key in ("since", "until"))
        if since is None and until is None:
            raise BadFile(self.path, f"{where} needs a date", "since = the day it was granted, or until = its last day")
        return Exemption(**words, since=since, until=until, line=line)

    def _date(self, where: str, key: str, value: Any) -> datetime.date | None:
        if value is None or (isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)):
            return value
        raise BadFile(self.path, f"{where}: {key} must be a date such as 2026-12-31 (without quotes), not {value!r}")


def _problem(key: str, value: Any) -> str:
    """What a key's value should be, where it is something else."""
    if key in _PATHS or key == "only":
        return "" if isinstance(value, str) and value else "must be text"
    if key in _WORDS:
        return "" if value in _WORDS[key] else f"is {' or '.join(_WORDS[key])}"
    if key in _FLAGS:
        return "" if isinstance(value, bool) else "is true or false"
    if key in _COUNTS:
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= _COUNTS[key]
        return "" if whole else f"must be a whole number from {_COUNTS[key]}"
    if key in _NUMBERS:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
        return "" if number else "must be a number from 0 on"
    if not isinstance(value, list) or not value or not all(phase in PHASES for phase in value):
        return f"must be a list of phases ({', '.join(PHASES)})"
    return ""


def _placed(folder: Path, given: str) -> str:
    """A path of the configuration as it is from here; a function of a package on the import path stays what it is."""
    head, _, name = given.rpartition(":")
    if head and name.isidentifier() and not head.endswith(".py") and not (folder / given).exists():
        return given
    return str(folder / given)


def _count(pair: Mapping[str, Any]) -> int:
    allow = pair.get("allow", [])
    return len(allow) if isinstance(allow, list) else 0


def _lines(path: Path, header: str) -> list[tuple[int, list[int]]] | None:
    """The line of each pair's header, with those of its allowances, from 1."""
    inner = header.replace(r"\s*\]\]", r"\s*\.\s*allow\s*\]\]")
    found: list[tuple[int, list[int]]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(rf"\s*{header}", line):
            found.append((number, []))
        elif re.match(rf"\s*{inner}", line) and found:
            found[-1][1].append(number)
    return found
