"""HDF5 files and `.keras` archives as containers: opened with bounds, their attributes and arrays listed.

Files are untrusted: sizes are checked against the file's own before anything is read, links that lead out of the file
are refused, and nothing in it is executed.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.errors import BadFile, ParityError
from parity.frameworks.keras.heaps import soundly_stored
from parity.frameworks.keras.stored import Stored

if TYPE_CHECKING:
    import h5py

__all__ = [
    "CONFIG_LIMIT",
    "attribute",
    "check_objects",
    "guard",
    "json_attribute",
    "member",
    "named",
    "opened",
    "placed",
    "strings",
    "text",
]

CONFIG_LIMIT = 64 << 20
"""Bytes that a configuration may have; ResNet-152's has 0.3 MB."""

GROWTH_LIMIT = 20
"""How often its stored size an array or archive member may unfold to: weights shrink by a tenth, zero slots more."""

OBJECT_LIMIT = 500_000
"""Groups and arrays that a file may hold."""


@contextmanager
def guard(path: Path) -> Iterator[None]:
    """Whatever goes wrong in reading becomes one BadFile line; parity's own errors pass."""
    try:
        yield
    except ParityError:
        raise
    except MemoryError as error:
        raise BadFile(path, "is too large to read into memory") from error
    except RecursionError as error:
        raise BadFile(path, "its configuration is nested too deeply", "it was not written by Keras") from error
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise BadFile(path, f"is damaged ({_short(error)})", "copy or download it again, or save it again") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise BadFile(path, f"is a damaged .keras archive ({_short(error)})", "copy or download it again") from error


@contextmanager
def opened(path: Path, kind: str) -> Iterator[Any]:
    """The HDF5 file itself, or (`kind="zip"`) the one inside a `.keras` archive, unfolded into memory with a bound."""
    import h5py

    if kind != "zip":
        with h5py.File(path, "r") as f:
            yield f
        return
    with zipfile.ZipFile(path) as archive:
        data = member(path, archive, "model.weights.h5", None)
    with h5py.File(io.BytesIO(data), "r") as f:
        yield f


def member(path: Path, archive: zipfile.ZipFile, name: str, limit: int | None) -> bytes:
    """One member's bytes; refuses one that unfolds to an implausible size, whatever its header says."""
    info = archive.getinfo(name)
    allowed = limit if limit is not None else max(CONFIG_LIMIT, GROWTH_LIMIT * info.compress_size)
    allowed = min(allowed, max(CONFIG_LIMIT, GROWTH_LIMIT * path.stat().st_size))
    if info.file_size > allowed:
        raise BadFile(path, f"{name} unfolds to {info.file_size:,} bytes, which no Keras file does")
    with archive.open(info) as f:
        data = f.read(allowed + 1)
    if len(data) > allowed:
        raise BadFile(path, f"{name} unfolds to more than {allowed:,} bytes, which no Keras file does")
    return data


def check_objects(path: Path, f: h5py.File) -> None:
    """Refuses arrays larger than the file can hold and links that lead out of it."""
    import h5py

    allowed = max(CONFIG_LIMIT, GROWTH_LIMIT * path.stat().st_size)
    seen, total, open_groups = set[Any](), 0, ["/"]
    while open_groups:
        group: Any = f[open_groups.pop()]
        address = h5py.h5o.get_info(group.id).addr  # pyright: ignore[reportAttributeAccessIssue]
        if address in seen:
            continue
        seen.add(address)
        if len(seen) > OBJECT_LIMIT:
            raise BadFile(path, f"holds more than {OBJECT_LIMIT:,} groups, which no Keras file does")
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise BadFile(path, f"{group.name}/{name} is a link, which no Keras file has", "do not trust this file")
            item = group[name]
            if isinstance(item, h5py.Group):
                open_groups.append(str(item.name))
            elif isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise BadFile(path, f"{item.name} lies in another file", "do not trust this file")
                total += int(item.nbytes)
                if total > allowed:
                    raise BadFile(path, f"declares arrays of more than {allowed:,} bytes, which the file cannot hold")


def named(path: Path, group: Any, place: str) -> tuple[Stored, ...]:
    """The arrays that a group's `weight_names` lists, in that order."""
    found: list[Stored] = []
    for name in strings(group, "weight_names"):
        if name not in group:
            raise BadFile(path, f"the array {name} of {place} is missing", "the file is damaged; save it again")
        found.append(Stored(name, tuple(int(n) for n in group[name].shape), f"{place}/{name}"))
    return tuple(found)


def placed(f: Any) -> tuple[dict[str, tuple[Stored, ...]], tuple[Stored, ...]]:
    """The arrays of an archive: those of each layer by its path (`layers/dense`), and the optimizer's, by number."""
    weights: dict[str, list[Stored]] = {}
    slots: list[Stored] = []

    def note(name: str, item: Any) -> None:
        if "/vars/" not in f"/{name}" or not hasattr(item, "shape"):
            return
        # Keras 2.12 wrote its own attribute's name.
        folder = name.rsplit("/", 1)[0].replace("_layer_checkpoint_dependencies", "layers")
        stored = Stored(name, tuple(int(n) for n in item.shape), name)
        if folder.startswith("optimizer"):
            slots.append(stored)
        elif folder.startswith("layers"):
            weights.setdefault(folder.removesuffix("/vars"), []).append(stored)

    f.visititems(note)
    return {k: tuple(sorted(v, key=_number)) for k, v in weights.items()}, tuple(sorted(slots, key=_number))


def _number(stored: Stored) -> tuple[int, str]:
    tail = stored.name.rsplit("/", 1)[-1]
    return (int(tail), "") if tail.isdigit() else (1 << 30, tail)


def strings(group: Any, key: str) -> list[str]:
    """A list of strings from an attribute, which Keras cuts into `key0`, `key1`, ... when it is long."""
    if key in group.attrs:
        return _texts(group, key)
    found: list[str] = []
    chunk = 0
    while f"{key}{chunk}" in group.attrs:
        found.extend(_texts(group, f"{key}{chunk}"))
        chunk += 1
    return found


def _texts(group: Any, key: str) -> list[str]:
    """The texts of one attribute; raises ValueError for one that holds none, or is not stored soundly."""
    sound = group.attrs.get_id(key).shape == (0,) or _is_text(group, key, Path(str(group.file.filename)))
    if not sound:
        raise ValueError(f"its {key} are no names")
    return [text(v) for v in group.attrs[key]]


def _is_text(group: Any, key: str, path: Path) -> bool:
    """Whether an attribute's type is text, and what lies elsewhere in the file is found there (see `heaps`)."""
    import h5py

    kind = group.attrs.get_id(key).get_type()
    if kind.get_class() != h5py.h5t.STRING:
        return False
    count = math.prod(group.attrs.get_id(key).shape or ())
    return not kind.is_variable_str() or not path.is_file() or soundly_stored(path, key, count)


def json_attribute(path: Path, f: h5py.File, key: str) -> Any:
    """A JSON attribute, or None where it is absent."""
    if key not in f.attrs:
        return None
    raw = attribute(path, f, key)
    if len(raw) > CONFIG_LIMIT:
        raise BadFile(path, f"its {key} has {len(raw):,} characters, which no Keras file has")
    return json.loads(raw)


def attribute(path: Path, group: Any, key: str, default: str = "") -> str:
    """A text attribute; raises BadFile for one that is no text, or is not stored soundly."""
    if key not in group.attrs:
        return default
    if not _is_text(group, key, path):
        problem = f"is damaged (its {key} is not where it should be, or no text)"
        raise BadFile(path, problem, "copy or download it again")
    return text(group.attrs[key])


def text(value: Any) -> str:
    """An attribute's text, whether h5py gives it as bytes or as a string."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:97] + "..."
