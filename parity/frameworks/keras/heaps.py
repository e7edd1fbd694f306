"""Whether a text attribute of an HDF5 file is stored soundly, seen in the file's bytes before the library reads it.

Keras keeps a model's configuration in an attribute of variable length, which lies in a *global heap collection*. On a
damaged one the HDF5 library takes gigabytes, goes round for ever or crashes, so what it will follow is followed here
first. Layouts: HDF5 File Format Specification 3.0, III.E (global heap), IV.A.2.m (attribute message).
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

__all__ = ["soundly_stored"]

_REFERENCE = 16
"""Bytes of one reference: length, address, number."""

_NEAR = 160
"""Bytes within which an attribute's value follows its name: the type and the extents come between them."""


def soundly_stored(path: Path, key: str, count: int = 1) -> bool:
    """Whether an attribute of this name refers to pieces of a sound heap collection with the lengths that it claims.

    Args:
        path: the file.
        key: the attribute's name.
        count: how many texts it holds; their references stand one behind the other.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        name = key.encode() + b"\0"
        at = data.find(name)
        while at >= 0:
            last = len(data) - _REFERENCE * count
            window = range(at + len(name), min(at + len(name) + _NEAR, last + 1))
            if any(all(_refers(data, place + _REFERENCE * i) for i in range(count)) for place in window):
                return True
            at = data.find(name, at + 1)
    return False


def _refers(data: mmap.mmap, place: int) -> bool:
    """Whether length, address and number of a sound piece of a heap stand here."""
    length, address, number = struct.unpack_from("<IQI", data, place)
    if address > len(data) - 16 or data[address : address + 4] != b"GCOL":
        return False
    return _pieces(data, address).get(number) == length


def _pieces(data: mmap.mmap, start: int) -> dict[int, int]:
    """Number → length of the pieces of a heap collection; nothing where it is not laid out as one."""
    version, size = data[start + 4], struct.unpack_from("<Q", data, start + 8)[0]
    end, at = start + size, start + 16
    if version != 1 or end > len(data):
        return {}
    found: dict[int, int] = {}
    while at + 16 <= end:
        number, _, _, length = struct.unpack_from("<HHIQ", data, at)
        if number == 0:  # what is free, its own header included, up to the end
            return found if at + length == end else {}
        after = at + 16 + (length + 7) // 8 * 8
        if number in found or after > end:
            return {}
        found[number] = length
        at = after
    return found
