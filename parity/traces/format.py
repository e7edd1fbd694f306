"""What a trace file is made of: its first line, its chunks, its names, and the digest that seals it.

A trace is an HDF5 file behind a user block of 512 bytes. The block's first line names the format, the parity that wrote
it, and the digest of all that follows, so damage is found before any of it is believed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from urllib.parse import quote, unquote

from parity.errors import BadFile
from parity.traces.seal import BLOCK, Pieces, of_stream

__all__ = [
    "BLOCK",
    "FORMAT",
    "TENSORS",
    "Header",
    "check",
    "chunk_shape",
    "escaped",
    "header",
    "is_trace",
    "seal",
    "unescaped",
]

FORMAT = 2
"""The format that this parity writes, and the newest that it reads. Format 1 has another seal (`seal.of_stream`)."""

TENSORS = ("all", "sample", "stats")
"""How much of an activation or its gradient a trace may keep: all of it, some of its places, or statistics alone."""

_CHUNK = 1 << 18
"""Elements of a chunk at most: a mebibyte of float32."""

_LINE = re.compile(rb"parity-trace/(\d{1,9}) parity/(\S{1,40}) sha256:([0-9a-f]{64}) bytes:(\d{1,19})\n")
_FIRST = re.compile(rb"parity-trace/(\d{1,9})(?: parity/([A-Za-z0-9.+!_-]{1,40}))?")
_WORDS = b"A run recorded by parity; HDF5 begins at byte 512. See docs/trace-format.md.\n"
_AGAIN = "record it again with `parity record`"


@dataclass(frozen=True)
class Header:
    """The first line of a trace.

    Attributes:
        format: its format.
        parity: the version of the parity that wrote it.
        digest: of everything behind the user block, as hexadecimal digits.
        size: bytes behind the user block.
    """

    format: int
    parity: str
    digest: str
    size: int

    @property
    def said(self) -> bytes:
        """The line without the digest, which vouches for it."""
        return f"parity-trace/{self.format} parity/{self.parity} bytes:{self.size}\n".encode()


def is_trace(given: object) -> bool:
    """Whether something is the path of a trace, by its first bytes; whether it is sound is for `check` to say."""
    if not isinstance(given, str | PathLike):
        return False
    try:
        with Path(fspath(given)).open("rb") as file:
            return file.read(13) == b"parity-trace/"
    except OSError:
        return False


def header(path: Path) -> Header:
    """The first line of a trace.

    Raises:
        BadFile: it cannot be read, is no trace, is damaged, or is of a newer format.
    """
    try:
        with path.open("rb") as file:
            head = file.read(BLOCK)
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or error})") from None
    first = _FIRST.match(head)
    if first is None:
        raise BadFile(path, "is no trace", _AGAIN)
    if int(first[1]) > FORMAT:
        writer = f"parity {first[2].decode()}" if first[2] else "a newer parity"
        problem = f"is a trace of format {int(first[1])}, written by {writer}; this parity reads up to format {FORMAT}"
        raise BadFile(path, problem, f"read it with {writer}, or record it again with this one")
    line = _LINE.match(head)
    if line is None or int(line[1]) < 1:
        raise BadFile(path, "its first line is damaged", _AGAIN)
    if int(line[1]) > 1 and head != _block(line[0]):
        raise BadFile(path, "is damaged behind its first line", _AGAIN)
    return Header(int(line[1]), line[2].decode("ascii", "replace"), line[3].decode(), int(line[4]))


def check(path: Path, head: Header) -> None:
    """Hold a trace against the digest in its first line, all of it.

    Raises:
        BadFile: it is cut off, has something behind it, or is damaged.
    """
    try:
        size = path.stat().st_size - BLOCK
        if size != head.size:
            what = "is cut off" if size < head.size else "has something behind its end"
            raise BadFile(path, f"{what} ({size + BLOCK:,} bytes, not {head.size + BLOCK:,})", _AGAIN)
        digest = of_stream(path) if head.format == 1 else Pieces(path).seal(head.said)
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or error})") from None
    if digest != head.digest:
        raise BadFile(path, "is damaged: its contents do not have the digest in its first line", _AGAIN)


def seal(path: Path, parity: str, pieces: Pieces | None = None) -> None:
    """Write the first line of a finished trace; raises OSError.

    Args:
        path: the file.
        parity: the version of the parity that wrote it.
        pieces: what was digested of it while it was written.
    """
    head = Header(FORMAT, parity, "", path.stat().st_size - BLOCK)
    digest = (pieces or Pieces(path)).seal(head.said)
    line = f"parity-trace/{FORMAT} parity/{parity} sha256:{digest} bytes:{head.size}\n".encode()
    with path.open("r+b") as file:
        file.write(_block(line))


def _block(line: bytes) -> bytes:
    """The user block."""
    return (line + _WORDS).ljust(BLOCK, b"\0")


def escaped(name: str) -> str:
    """A name of a network as a name in the file: HDF5 takes `/` for a folder and `.` for this one."""
    return quote(name, safe=" @:+-_()[]{},=;!~^*'$&#<>|").replace(".", "%2E") or "%"


def unescaped(key: str) -> str:
    """The name of a network that `escaped` made."""
    return "" if key == "%" else unquote(key)


def chunk_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The chunks of a tensor: of a mebibyte at most, whole along the last axes, cut evenly along the first."""
    left, made = _CHUNK, []
    for extent in reversed(shape):
        size = max(1, min(extent, left))
        size = -(-extent // -(-extent // size)) if extent else 1  # what lies beyond the end is written too
        made.append(size)
        left = max(1, left // size) if size == extent else 1
    return tuple(reversed(made)) if math.prod(shape) else ()
