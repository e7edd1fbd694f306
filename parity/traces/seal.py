"""The digest that seals a trace: of the digests of its pieces, which several threads make at a time.

One digest of all bytes in their order, as the first format has it, is made by one thread alone: it took as long as half
of the reading.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["BLOCK", "PIECE", "of_pieces", "of_stream"]

BLOCK = 512
"""Bytes of the user block, which HDF5 leaves to whoever writes a file."""

PIECE = 1 << 20
"""Bytes of a piece; the last one may be shorter."""

_SIZE = hashlib.sha256().digest_size


def of_pieces(path: Path, said: bytes) -> str:
    """The seal of the second format: SHA-256 of what the first line says, then of each piece's own SHA-256 in order.

    Args:
        path: a file; its user block is left out.
        said: the first line without the digest. It names the format and the number of bytes.

    Raises:
        OSError: it cannot be read.
    """
    size = max(0, path.stat().st_size - BLOCK)
    made = bytearray(_SIZE * -(-size // PIECE))
    numbers = iter(range(len(made) // _SIZE))
    workers = max(1, min(4, os.cpu_count() or 1, len(made) // _SIZE))
    with ThreadPoolExecutor(workers) as pool:
        for lane in [pool.submit(_digest, path, numbers, made) for _ in range(workers)]:
            lane.result()
    return hashlib.sha256(said + made).hexdigest()


def _digest(path: Path, numbers: Iterator[int], made: bytearray) -> None:
    """The digests of the pieces that no other thread has taken, put in their places."""
    held = memoryview(bytearray(PIECE))
    with path.open("rb", buffering=0) as file:
        for n in numbers:
            file.seek(BLOCK + n * PIECE)
            count = 0
            while count < PIECE and (more := file.readinto(held[count:])):
                count += more
            made[n * _SIZE : (n + 1) * _SIZE] = hashlib.sha256(held[:count]).digest()


def of_stream(path: Path) -> str:
    """The seal of the first format: SHA-256 of all behind the user block; the next bytes are read meanwhile.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    held, other = (memoryview(bytearray(2 * PIECE)) for _ in range(2))
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1) as ahead:
        file.seek(BLOCK)
        read = ahead.submit(file.readinto, held)
        while count := read.result():
            read = ahead.submit(file.readinto, other)
            digest.update(held[:count])
            held, other = other, held
    return digest.hexdigest()
