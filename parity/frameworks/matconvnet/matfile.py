"""Reading MAT files, v5/v6/v7 and v7.3, into plain Python values.

Files are untrusted: every extent that a file declares is held against the bytes that it has, decompression is bounded,
nothing of a file is ever run, and whatever is wrong becomes one `BadFile`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parity.errors import BadFile
from parity.frameworks.matconvnet.values import MatError, Unreadable

__all__ = ["Unreadable", "read"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


def read(path: str | Path) -> dict[str, Any]:
    """The variables of a MAT file by name, as plain values.

    A struct becomes a dict, a struct array a list of dicts, a cell array a list (both in column-major order), a char
    row a str (several rows a list of str), numbers and logicals an ndarray of the shape that the file declares (at
    least two axes, in column-major order; an empty one keeps its extents), and what is none of these (function handles,
    objects, sparse and complex arrays) an `Unreadable` that says what it was.

    Args:
        path: a file of MAT v5, v6, v7 or v7.3; told apart by content.

    Raises:
        BadFile: missing, no file, not a MAT file, truncated, damaged, or with extents beyond its own size.
    """
    path = Path(path)
    if not path.exists():
        raise BadFile(path, "no such file")
    if not path.is_file():
        raise BadFile(path, "is not a file")
    try:
        with path.open("rb") as stream:
            head = stream.read(512 + len(_HDF5))
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror})") from None
    if not head:
        raise BadFile(path, "is empty")
    hdf5 = head.startswith(_HDF5) or head[512:].startswith(_HDF5)
    if not hdf5 and head[126:128] not in (b"IM", b"MI"):
        raise BadFile(path, _not_a_mat_file(head), "give a MAT file, saved with -v6, -v7 or -v7.3")
    if not hdf5 and head.startswith(b"MATLAB 7.3"):
        raise BadFile(path, "says MATLAB v7.3, but holds no HDF5 data; it is damaged or truncated", "copy it again")
    try:
        if hdf5:
            from parity.frameworks.matconvnet.mat73 import read_mat73

            return read_mat73(path)
        from parity.frameworks.matconvnet.mat5 import read_mat5

        return read_mat5(path.read_bytes())
    except MatError as error:
        raise BadFile(
            path, f"cannot be read as a MAT file: {error}", "it is damaged or truncated; copy it again"
        ) from None
    except MemoryError:
        raise BadFile(path, "does not fit into memory") from None
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or 'input/output error'})") from None


def _not_a_mat_file(head: bytes) -> str:
    if head.startswith(b"MATLAB"):
        return "begins like a MAT file, but its header is cut off"
    for magic, what in ((b"PK", "a zip archive (.keras, .npz or .mlx)"), (b"\x1f\x8b", "gzip-compressed")):
        if head.startswith(magic):
            return f"is not a MAT file but {what}"
    if len(head) >= 20 and head[:4] in (b"\x00\x00\x00\x00", b"\x0a\x00\x00\x00") and b"\x00" not in head[20:21]:
        return "is not a MAT file of version 5 or later (it may be version 4)"
    return "is not a MAT file"
