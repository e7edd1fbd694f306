"""Getting a report out: onto a stream of any width and encoding, or whole into a file."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from parity.errors import BadUsage
from parity.reports.words import clean

__all__ = ["as_text", "check_target", "complain", "progress_on", "replacing", "show", "write"]

_PLAIN = str.maketrans({"×": "x", "→": ">", "↔": "|", "…": "~", "≤": "<", "–": "-", "·": ".", "≠": "!"})
"""Signs that an encoding other than UTF-8 may lack; one for one, so that columns stay aligned."""


def show(renderable: Any, stream: TextIO | None = None, width: int | None = None) -> None:
    """Write `renderable` to a stream: colours on a terminal, else plain text without trailing blanks.

    Args:
        renderable: a report, an inspection, or anything that rich can draw.
        stream: standard output by default.
        width: columns; by default the terminal's (or `COLUMNS`), and 80 in a pipe.
    """
    from rich.console import Console

    out: TextIO = sys.stdout if stream is None else stream
    console = Console(file=out, width=width, highlight=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    text = capture.get()
    if not console.is_terminal:
        text = "".join(line.rstrip() + "\n" for line in text.splitlines())
    encoding = getattr(out, "encoding", None) or "utf-8"
    if not encoding.lower().startswith("utf"):
        text = text.translate(_PLAIN)
    out.write(text.encode(encoding, "replace").decode(encoding))
    out.flush()


def as_text(renderable: Any, width: int = 100) -> str:
    """`renderable` as plain text without trailing blanks."""
    stream = io.StringIO()
    show(renderable, stream, width)
    return stream.getvalue().rstrip("\n")


def complain(message: str) -> None:
    """One line on standard error, whatever the message and the stream's encoding."""
    line = f"parity: {clean(' '.join(message.split()))}\n"
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    sys.stderr.write(line.encode(encoding, "replace").decode(encoding))
    sys.stderr.flush()


def check_target(path: Path, option: str, inputs: Iterable[Path] = (), *, regular: bool = False) -> None:
    """Raise before a long run if a file could not, or must not, be written to this path after it.

    Args:
        path: where something will be written.
        option: the option that names it, for messages.
        inputs: what is read; none of it may be written over.
        regular: whether it must be a file that another can take the place of: no pipe or device.

    Raises:
        BadUsage: the directory is missing or not writable, or the path is a directory, or an input.
    """
    if path.is_dir():
        raise BadUsage(f"{option} {path}: is a directory; name a file in it")
    for given in inputs:
        if _same(path, given):
            raise BadUsage(f"{option} {path}: would write over {given}, which is read; choose another name")
    if _in_place(path):
        if regular:
            raise BadUsage(_irregular(path, option))
        return
    folder = path.resolve().parent
    if not folder.is_dir():
        raise BadUsage(f"{option} {path}: there is no directory {folder}; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadUsage(f"{option} {path}: cannot write in {folder} ({error.strerror or error})") from None


def write(path: Path, text: str, option: str) -> None:
    """Write a whole file or nothing: a temporary one in the same directory takes the old one's place.

    Raises:
        BadUsage: the file cannot be written.
    """
    if not _in_place(path):
        with replacing(path, option) as name:
            Path(name).write_text(text, encoding="utf-8")
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadUsage(f"{option} {path}: cannot be written ({error.strerror or error})") from None


@contextlib.contextmanager
def replacing(path: Path, option: str) -> Iterator[str]:
    """A temporary file in the same directory, with the same extension, that takes the path's place if all goes well.

    Raises:
        BadUsage: it cannot be written, or is a pipe or a device.
    """
    if _in_place(path):
        raise BadUsage(_irregular(path, option))
    name = ""
    try:
        target = path.resolve()
        _sweep(target)
        prefix, suffix = _parts(target)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f"{prefix}{os.getpid()}-", suffix=suffix)
        os.close(descriptor)
        yield name
        with Path(name).open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, _permissions(target))  # noqa: PTH101
        os.replace(name, target)  # noqa: PTH105
    except OSError as error:
        raise BadUsage(f"{option} {path}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108


def _parts(target: Path) -> tuple[str, str]:
    """How the names of temporary files for this target begin, before the process that writes one, and end.

    They name the machine, or the part of it, in which processes are counted: elsewhere a number is another process.
    """
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
        host = zlib.crc32(f"{socket.gethostname()} {space}".encode())
        return f".{target.stem[:80]}.{host:08x}-", f".part{target.suffix}"
    return f".{target.stem[:80]}.{zlib.crc32(socket.gethostname().encode()):08x}-", f".part{target.suffix}"


def _sweep(target: Path) -> None:
    """Remove what processes left here that were killed while they wrote this target."""
    if os.name != "posix":
        return  # elsewhere a process cannot be asked whether it lives without harming it
    begin, end = _parts(target)
    with contextlib.suppress(OSError):
        for entry in os.scandir(target.parent):
            number = entry.name[len(begin) :].partition("-")[0]
            if not (entry.name.startswith(begin) and entry.name.endswith(end) and number.isdigit()):
                continue
            try:
                os.kill(int(number), 0)
            except (ProcessLookupError, OverflowError):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)  # noqa: PTH108
            except OSError:
                continue  # it lives, as another user's


def _in_place(path: Path) -> bool:
    """Whether the path is a pipe or device (`/dev/stdout`), which a file must not take the place of."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def _irregular(path: Path, option: str) -> str:
    return f"{option} {path}: is no regular file, and this can only be written as a whole; name another"


def _same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return one.resolve() == other.resolve()


def _permissions(target: Path) -> int:
    """Those of the file that is replaced, else what the umask leaves."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


@contextlib.contextmanager
def progress_on(stream: TextIO | None = None) -> Iterator[Callable[[str, int, int], None] | None]:
    """A callback `(description, done, total)` that draws a bar on a terminal and leaves none behind; None in a pipe."""
    out: TextIO = sys.stderr if stream is None else stream
    if not out.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=out)
    columns = (TextColumn("{task.description:<24.24}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def advance(description: str, done: int, total: int) -> None:
            bar.update(task, description=clean(description), completed=done, total=total or None)

        yield advance
