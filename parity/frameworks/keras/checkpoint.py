"""Arrays of a TensorFlow checkpoint, read without TensorFlow: an index (a table of keys) and data files beside it.

Formats: tensorflow/core/util/tensor_bundle/tensor_bundle.cc (`BundleEntryProto`), and the sorted table of LevelDB
(tensorflow/tsl/lib/io/table.cc), whose blocks a bundle does not compress.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parity.errors import BadFile

__all__ = ["Bundle", "Entry", "fields", "strings_of"]

_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"

_TYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "<u1", 5: "<i2", 6: "<i1", 9: "<i8", 10: "?", 17: "<u2", 19: "<f2", 22: "<u4",
    23: "<u8",
}  # fmt: skip
"""tensorflow/core/framework/types.proto; strings and bfloat16 are not among them."""

_BFLOAT16 = 14

INDEX_LIMIT = 64 << 20
"""Bytes that an index may have."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A base-128 number and where it ends; raises ValueError behind the data's end."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number runs past the end")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protocol buffer in order: (number, whole number or bytes); ValueError where it is damaged."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        if at + size > len(data):
            raise ValueError("a field runs past the end")
        yield number, data[at : at + size]
        at += size


@dataclass(frozen=True)
class Entry:
    """Where one array lies: its type (`types.proto`), shape, data file, offset and bytes."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


class Bundle:
    """A checkpoint's arrays by key.

    Args:
        folder: holds `NAME.index` and `NAME.data-00000-of-0000N`.
        name: of the checkpoint; that of a SavedModel is `variables`.

    Raises:
        BadFile: the index is missing or damaged.
    """

    def __init__(self, folder: Path, name: str = "variables") -> None:
        self.folder, self.name = folder, name
        index = folder / f"{name}.index"
        if not index.is_file():
            raise BadFile(folder.parent, f"has no {folder.name}/{index.name}", "copy the whole folder")
        if index.stat().st_size > INDEX_LIMIT:
            raise BadFile(index, f"has more than {INDEX_LIMIT:,} bytes")
        try:
            self.entries = {key.decode("utf-8", "replace"): _entry(value) for key, value in _table(index.read_bytes())}
        except (ValueError, IndexError) as error:
            raise BadFile(index, f"is damaged ({error})", "copy the whole folder again") from error

    def read(self, key: str) -> np.ndarray:
        """The array of a key.

        Raises:
            BadFile: its data file is missing or too short, or it is no array of numbers.
        """
        entry = self.entries[key]
        shards = sorted(self.folder.glob(f"{self.name}.data-*-of-*"))
        if entry.shard >= len(shards):
            raise BadFile(self.folder, f"the data of {key} is missing", "copy the whole folder again")
        path = shards[entry.shard]
        count = int(np.prod(entry.shape, dtype=object)) if entry.shape else 1
        kind = "<u2" if entry.dtype == _BFLOAT16 else _TYPES.get(entry.dtype)
        if kind is None:
            raise BadFile(path, f"{key} holds no numbers")
        if count * np.dtype(kind).itemsize != entry.size or entry.offset + entry.size > path.stat().st_size:
            raise BadFile(path, f"is too short for {key}", "copy the whole folder again")
        with path.open("rb") as f:
            f.seek(entry.offset)
            array = np.frombuffer(f.read(entry.size), kind).reshape(entry.shape)
        if entry.dtype == _BFLOAT16:
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array.copy()


def _entry(data: bytes) -> Entry:
    found = dict.fromkeys((1, 3, 4, 5), 0)
    shape: list[int] = []
    for number, value in fields(data):
        if number == 2 and isinstance(value, bytes):
            for inner, dimension in fields(value):
                if inner == 2 and isinstance(dimension, bytes):
                    shape.append(next((n for word, n in fields(dimension) if word == 1 and isinstance(n, int)), 0))
        elif number in found and isinstance(value, int):
            found[number] = value
    return Entry(found[1], tuple(shape), found[3], found[4], found[5])


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a sorted table; the first, without a key, is the bundle's header."""
    if len(data) < 48 or data[-8:] != _MAGIC:
        raise ValueError("not an index")
    at = len(data) - 48
    for _ in range(2):
        _, at = varint(data, at)
    offset, at = varint(data, at)
    size, at = varint(data, at)
    for _, handle in _block(data, offset, size):
        inner, at = varint(handle, 0)
        length, _ = varint(handle, at)
        for key, value in _block(data, inner, length):
            if key:
                yield key, value


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if offset + size + 1 > len(data) or size < 4:
        raise ValueError("a block runs past the end")
    if data[offset + size] != 0:
        raise ValueError("a compressed block")
    block = data[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")
    end = size - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block without an end")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        added, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + added + length > end:
            raise ValueError("an entry runs past its block")
        key = key[:shared] + block[at : at + added]
        yield key, block[at + added : at + added + length]
        at += added + length


def strings_of(bundle: Bundle, key: str) -> list[bytes]:
    """The strings of an entry: their lengths, a checksum, then their bytes (tensor_bundle.cc, `ReadStringTensor`).

    Raises:
        BadFile: the data file is missing or too short.
    """
    entry = bundle.entries[key]
    shards = sorted(bundle.folder.glob(f"{bundle.name}.data-*-of-*"))
    if entry.shard >= len(shards) or entry.offset + entry.size > shards[entry.shard].stat().st_size:
        raise BadFile(bundle.folder, f"the data of {key} is missing", "copy the whole folder again")
    with shards[entry.shard].open("rb") as f:
        f.seek(entry.offset)
        data = f.read(entry.size)
    count = int(np.prod(entry.shape, dtype=object)) if entry.shape else 1
    at, lengths = 0, list[int]()
    for _ in range(min(count, entry.size)):
        length, at = varint(data, at)
        lengths.append(length)
    at += 4
    found: list[bytes] = []
    for length in lengths:
        if at + length > len(data):
            raise BadFile(bundle.folder, f"the data of {key} is damaged", "copy the whole folder again")
        found.append(data[at : at + length])
        at += length
    return found
