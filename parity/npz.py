"""Reading numpy's archives from strangers: no pickles, and no array before its declared size fits the file's."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from parity.errors import BadFile

__all__ = ["LIMIT", "read"]

LIMIT = 4 << 30
"""Bytes that one archive's arrays may take together."""

_PIECE = 1 << 20
_DEFLATE = 1032  # the most that one compressed byte can unfold to


def read(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, by name.

    Args:
        path: the archive.
        names: which to read; None reads all. A name that is not there is left out.

    Raises:
        BadFile: not an archive of arrays, damaged, too large, or with an array of Python objects.
    """
    arrays: dict[str, np.ndarray] = {}
    left = LIMIT
    wanted = None if names is None else set(names)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if not members:
                raise BadFile(
                    path, "is a zip archive without arrays in it", "save it with numpy.savez(path, x=..., y=...)"
                )
            for member in members:
                name = member.filename.removesuffix(".npy")
                if wanted is not None and name not in wanted:
                    continue
                if member.file_size > _DEFLATE * member.compress_size + _DEFLATE:
                    raise BadFile(path, f"{name} declares more bytes than its compressed ones can unfold to")
                with archive.open(member) as file:
                    arrays[name] = _array(file, path, name, min(left, member.file_size))
                left -= arrays[name].nbytes
    except BadFile:
        raise
    except MemoryError:
        raise BadFile(path, "does not fit into memory", "save fewer images") from None
    except Exception as error:  # a damaged archive can fail in zipfile, zlib or numpy, each with errors of its own
        raise BadFile(path, f"is damaged or truncated ({type(error).__name__})", "write it again") from None
    if wanted is not None and not arrays:
        # The names are for the message: a user who saved `images` must see that `x` was looked for.
        found = sorted(member.filename.removesuffix(".npy") for member in members)[:8]
        raise BadFile(
            path, f"has no array x (it has {', '.join(found)})", "save it with numpy.savez(path, x=..., y=...)"
        )
    return arrays


def _array(file: IO[bytes], path: Path, name: str, limit: int) -> np.ndarray:
    """One array in numpy's format, of at most `limit` bytes."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise BadFile(path, f"{name} holds Python objects, which parity does not load", "save plain numbers")
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise BadFile(path, f"{name} declares {size} bytes, more than the file or the limit of {LIMIT >> 30} GiB holds")
    data = bytearray(size)  # and not bytes: torch wants arrays that may be written to
    view, filled = memoryview(data), 0
    while filled < size:
        piece = file.read(min(size - filled, _PIECE))
        if not piece:
            raise EOFError
        view[filled : filled + len(piece)] = piece
        filled += len(piece)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
