"""The digest that seals a trace: of the digests of its pieces, which several threads make at a time.

One digest of all bytes in their order, as the first format has it, is made by one thread alone: it took as long as half
of the reading.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

__all__ = ["BLOCK", "PIECE", "Pieces", "of_stream"]

BLOCK = 512
"""Bytes of the user block, which HDF5 leaves to whoever writes a file."""

PIECE = 1 << 18
"""Bytes of a piece; the last one may be shorter. HDF5 goes back to a few bytes of many, which are digested again."""

_READ = 1 << 21
"""Bytes that are read at once of a file that is digested in one go."""

_THREADS = min(4, os.cpu_count() or 1)


class Pieces:
    """The digests of a file's pieces; while it is written, those of pieces that seem to be done.

    Args:
        path: the file; its user block is left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made: dict[int, bytes] = {}
        self._due: dict[int, object] = {}
        self._lock, self._room = threading.Lock(), memoryview(bytearray(PIECE))
        self._soon: ThreadPoolExecutor | None = None

    def wrote(self, start: int, stop: int) -> None:
        """Some bytes of the file are others now: a piece that ends among them is digested soon, while it is in memory.

        Args:
            start: the first byte, counted from the start of the file.
            stop: the one behind the last.
        """
        first, last = max(0, start - BLOCK) // PIECE, max(0, stop - BLOCK) // PIECE
        for n in range(first, last + 1):
            with self._lock:  # a digest that is made of it now counts no more
                self._made.pop(n, None)
                self._due.pop(n, None)
        for n in range(first, last):
            ticket = self._due[n] = object()
            self._soon = self._soon or ThreadPoolExecutor(1)
            self._soon.submit(self._early, n, ticket)

    def cut(self, size: int) -> None:
        """The file has so many bytes now."""
        with self._lock:
            for n in [n for n in {*self._made, *self._due} if BLOCK + (n + 1) * PIECE > size]:
                self._made.pop(n, None)
                self._due.pop(n, None)

    def close(self) -> None:
        """Digest no more before `seal` asks for it."""
        if self._soon is not None:
            self._soon.shutdown(cancel_futures=True)
            self._soon = None

    def seal(self, said: bytes) -> str:
        """The seal of the second format: SHA-256 of what the first line says, then of each piece's SHA-256 in order.

        Args:
            said: the first line without the digest. It names the format and the number of bytes.

        Raises:
            OSError: the file cannot be read.
        """
        self.close()
        count = -(-max(0, self.path.stat().st_size - BLOCK) // PIECE)
        made = dict(self._made)
        left = iter([n for n in range(count) if n not in made])
        with ThreadPoolExecutor(_THREADS) as pool:
            for lane in [pool.submit(self._rest, left, made) for _ in range(min(_THREADS, count))]:
                lane.result()
        return hashlib.sha256(said + b"".join(made[n] for n in range(count))).hexdigest()

    def _early(self, n: int, ticket: object) -> None:
        with contextlib.suppress(OSError):  # whoever asks for the seal tries again
            with self.path.open("rb", buffering=0) as file:
                digest = _digest(file, n, self._room)
            with self._lock:
                if self._due.get(n) is ticket:
                    self._made[n] = digest

    def _rest(self, left: Iterator[int], made: dict[int, bytes]) -> None:
        """The digests of the pieces that no other thread has taken."""
        held = memoryview(bytearray(PIECE))
        with self.path.open("rb", buffering=0) as file:
            for n in left:
                made[n] = _digest(file, n, held)


def _digest(file: BinaryIO, n: int, held: memoryview) -> bytes:
    file.seek(BLOCK + n * PIECE)
    count = 0
    while count < PIECE and (more := file.readinto(held[count:])):  # type: ignore[attr-defined]
        count += more
    return hashlib.sha256(held[:count]).digest()


def of_stream(path: Path) -> str:
    """The seal of the first format: SHA-256 of all behind the user block; the next bytes are read meanwhile.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    held, other = (memoryview(bytearray(_READ)) for _ in range(2))
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as ahead:
        file.seek(BLOCK)
        read = ahead.submit(file.readinto, held)
        while count := read.result():
            read = ahead.submit(file.readinto, other)
            digest.update(held[:count])
            held, other = other, held
    return digest.hexdigest()
