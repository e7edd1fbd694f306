"""Opens damaged files in a forked worker with limits on time and memory, and says what went wrong."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from parity.errors import ParityError
from tests.fuzz.suite import Suite

__all__ = ["Failure", "Outcome", "one_line", "run"]


@dataclass(frozen=True)
class Failure:
    """One case that ended wrongly.

    Attributes:
        index: its number.
        what: an exception with its place, a signal, or that it ran out of time.
    """

    index: int
    what: str


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        opened: files that were opened in spite of their damage.
        refused: files that ended in one line.
        failures: all others.
        slowest: seconds of the slowest case, and its number.
        peak: the greatest resident memory of a worker, in bytes.
    """

    opened: int = 0
    refused: int = 0
    failures: list[Failure] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    peak: int = 0


def run(suite: Suite, count: int, seed: int = 0, first: int = 0, *, fork: bool = True) -> Outcome:
    """Open `count` damaged files.

    Args:
        suite: which family.
        count: how many.
        seed: of the random numbers; the same seed and number give the same file.
        first: number of the first one.
        fork: False opens them in this process: for a family whose readers cannot crash or hang.
    """
    outcome = Outcome()
    index, end = first, first + count
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged{suite.suffix}"
        if not fork:
            for at in range(first, end):
                _count(outcome, at, *_attempt(suite, seed, at, path))
            return outcome
        while index < end:
            index = _supervise(suite, seed, index, end, path, outcome)
    return outcome


def one_line(error: ParityError) -> str:
    """What is wrong with an error's message; empty if it is one clear line."""
    text = str(error)
    if not text.strip():
        return "its message is empty"
    if "\n" in text or "Traceback" in text:
        return f"its message is not one line: {text[:80]!r}"
    return ""


def _attempt(suite: Suite, seed: int, index: int, path: Path) -> tuple[str, str, float]:
    """(`opened`, `refused` or `failed`; what failed; seconds)."""
    path.write_bytes(suite.case(seed, index))
    begun = time.perf_counter()
    word, what = "opened", ""
    try:
        with warnings.catch_warnings():
            if suite.strict:
                warnings.simplefilter("error")
            suite.open(path)
    except ParityError as error:
        word, what = "refused", one_line(error)
        word = "failed" if what else word
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        word, what = (
            "failed",
            f"{type(error).__name__}: {str(error)[:120]} ({Path(place.filename).name}:{place.lineno})",
        )
    return word, what, time.perf_counter() - begun


def _count(outcome: Outcome, index: int, word: str, what: str, seconds: float) -> None:
    if word == "failed":
        outcome.failures.append(Failure(index, what))
    else:
        setattr(outcome, word, getattr(outcome, word) + 1)
    outcome.slowest = max(outcome.slowest, (seconds, index))


def _supervise(suite: Suite, seed: int, index: int, end: int, path: Path, outcome: Outcome) -> int:
    """Run a worker from `index` on until it is done, dies or hangs; the number of the case to go on with."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _work(suite, seed, index, end, path, writer)
    os.close(writer)
    why = "the worker ended early"
    with os.fdopen(reader, "rb") as stream:
        while index < end:
            ready, _, _ = select.select([stream], [], [], suite.seconds)
            head = stream.read(4) if ready else b""
            if len(head) < 4:
                if not ready:
                    why = f"takes more than {suite.seconds:g} s"
                    os.kill(pid, signal.SIGKILL)
                break
            word, what, seconds, peak = stream.read(struct.unpack("<I", head)[0]).decode().split("\x1f")
            _count(outcome, index, word, what, float(seconds))
            outcome.peak = max(outcome.peak, int(peak))
            index += 1
    _, status = os.waitpid(pid, 0)
    if index < end:
        if os.WIFSIGNALED(status) and "takes" not in why:
            why = f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
        outcome.failures.append(Failure(index, why))
        index += 1
    return index


def _work(suite: Suite, seed: int, index: int, end: int, path: Path, writer: int) -> None:
    """In the worker: open one file after the other and write down how each ended. Never returns."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + suite.memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.disable()
        with contextlib.suppress(OSError):  # what a library prints on damaged bytes is no part of the answer
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
        for at in range(index, end):
            word, what, seconds = _attempt(suite, seed, at, path)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            line = "\x1f".join([word, what.replace("\x1f", " "), f"{seconds:.6f}", str(peak)]).encode()
            os.write(writer, struct.pack("<I", len(line)) + line)
    finally:
        os._exit(0)
