"""MAT files of version 5 (v6 uncompressed, v7 with zlib), after MathWorks' "MAT-File Format" (R2024a), chapter 1.

A file is a header of 128 bytes and data elements: a tag (type, bytes) and the data, padded to 8 bytes. A variable is a
`miMATRIX` element whose parts are elements themselves, or a `miCOMPRESSED` one that unfolds to such.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from parity.frameworks.matconvnet.values import (
    DEEPEST,
    MOST,
    MatError,
    Unreadable,
    allowance,
    char_rows,
    elements,
    text_of,
    unlist,
)

__all__ = ["read_mat5"]

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""Data types that hold numbers: mi code → numpy's."""
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CODES = {1: "u1", 2: "u1", 4: "u2"}
_MATRIX, _COMPRESSED = 14, 15
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""Array classes that hold numbers: mx code → numpy's."""
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17
_COMPLEX, _LOGICAL = 0x08, 0x02
_NAME = 64
_CHUNK = 1 << 16  # packed bytes that are unfolded at a time


def read_mat5(data: bytes) -> dict[str, Any]:
    """The variables of a MAT v5 file (see `matfile.read` for their form); raises MatError where it is damaged."""
    order = "<" if data[126:128] == b"IM" else ">"
    reader = _Reader(order, allowance(len(data)))
    found: dict[str, Any] = {}
    view = memoryview(data)[128:]
    while view:
        if len(view) < 8:
            if any(view):
                raise MatError("its last element is cut off")
            break
        kind, count = reader.tag(view)
        if kind not in (_MATRIX, _COMPRESSED):
            raise MatError(f"it holds an element of type {kind} where a variable should be")
        body = view[8 : 8 + count]
        if len(body) < count:
            raise MatError(f"it ends {count - len(body)} bytes before its last variable does")
        name, value = reader.variable(body) if kind == _MATRIX else reader.unfold(body)
        if name:
            found[name] = value
        view = view[8 + count :]
    return found


class _Reader:
    """Reads elements in one byte order, with a budget of bytes that compressed variables may unfold to."""

    def __init__(self, order: str, budget: int) -> None:
        self.order = order
        self.budget = budget
        self.left = MOST
        self.tag = struct.Struct(order + "II").unpack_from  # (type, bytes) of the element that begins at an offset

    def charge(self, size: int) -> None:
        """Take bytes off the budget."""
        self.budget -= size
        if self.budget < 0:
            raise MatError("its arrays unfold to far more than the file's size")

    def unfold(self, body: memoryview) -> tuple[str, Any]:
        """A compressed variable, into memory that its first eight bytes ask for and nothing beside it."""
        unzip = zlib.decompressobj()
        plain, filled, longer = bytearray(), 0, False
        try:
            head = unzip.decompress(body[:_CHUNK], 8)
            if len(head) < 8:
                raise MatError("a compressed variable is empty")
            kind, count = self.tag(head)
            if kind != _MATRIX:
                raise MatError("a compressed variable holds no array")
            self.charge(count)
            plain = bytearray(count)
            for at in range(0, len(body), _CHUNK):
                packed = body[at : at + _CHUNK] if at else unzip.unconsumed_tail
                piece = unzip.decompress(packed, count - filled + 1)
                longer = len(piece) > count - filled  # what comes behind the variable is no part of it
                piece = piece[: count - filled]
                plain[filled : filled + len(piece)] = piece
                filled += len(piece)
                if longer:
                    break
        except zlib.error:
            raise MatError("a compressed variable is damaged") from None
        if filled < count or not (unzip.eof or longer):
            raise MatError("a compressed variable is cut off")
        return self.variable(memoryview(plain).toreadonly())

    def parts(self, view: memoryview) -> Iterator[tuple[int, memoryview]]:
        """(type, data) of the elements in `view`, small ones (whose data lies in the tag) included."""
        at, end, tag = 0, len(view), self.tag
        while at + 8 <= end:
            kind, count = tag(view, at)
            if kind >> 16:  # a small element: two bytes each of count and type, four of data
                kind, count = kind & 0xFFFF, kind >> 16
                if count > 4:
                    raise MatError("a small element claims more than 4 bytes")
                yield kind, view[at + 4 : at + 4 + count]
                at += 8
                continue
            at += 8
            if count > end - at:
                raise MatError("an element claims more bytes than there are")
            yield kind, view[at : at + count]
            at += count + (-count % 8 if kind != _COMPRESSED else 0)
        if at < end:
            raise MatError("an element is cut off")

    def variable(self, view: memoryview, depth: int = 0) -> tuple[str, Any]:
        """Name and value of a `miMATRIX` element."""
        if depth > DEEPEST:
            raise MatError(f"its values are nested more than {DEEPEST} deep")
        self.left -= 1
        if self.left < 0:
            raise MatError("it holds more values than a network can have")
        if not view:
            return "", np.zeros((0, 0))  # MATLAB writes an empty element for []
        parts = self.parts(view)
        flags = self.integers(self.next(parts, "flags"), "I")
        if len(flags) < 1:
            raise MatError("an array has no flags")
        kind, bits = flags[0] & 0xFF, flags[0] >> 8
        if kind == _OPAQUE:  # its next part is a name, not extents
            return self.text(self.next(parts, "name")), Unreadable("an object")
        shape = tuple(self.integers(self.next(parts, "extents"), "i"))
        if not 2 <= len(shape) <= 32 or min(shape) < 0:
            raise MatError("an array's extents are damaged")
        name = self.text(self.next(parts, "name"))
        return name, self.value(kind, bits, shape, parts, len(view), depth)

    def value(
        self,
        kind: int,
        bits: int,
        shape: tuple[int, ...],
        parts: Iterator[tuple[int, memoryview]],
        room: int,
        depth: int,
    ) -> Any:
        count = elements(shape)
        if kind in _CLASSES:
            array = self.numbers(self.next(parts, "numbers"), count)
            if bits & _COMPLEX:
                return Unreadable("a complex array")
            target = np.dtype("?") if bits & _LOGICAL else np.dtype(_CLASSES[kind])
            self.charge(count * max(target.itemsize - array.itemsize, 0))
            return array.astype(target, copy=False).reshape(shape, order="F")
        if kind == _CHAR:
            return char_rows(self.characters(parts, count), shape)
        if kind == _CELL:
            if 8 * count > room:  # an element takes at least its tag
                raise MatError("a cell array claims more elements than the file has bytes")
            return [self.matrix(parts, depth) for _ in range(count)]
        if kind in (_STRUCT, _OBJECT):
            if kind == _OBJECT:
                self.next(parts, "class name")
                return Unreadable("an object")
            names = self.fields(parts)
            if 8 * count * max(len(names), 1) > room and count != 1:
                raise MatError("a struct array claims more elements than the file has bytes")
            return unlist([{name: self.matrix(parts, depth) for name in names} for _ in range(count)], count)
        if kind == _SPARSE:
            return Unreadable("a sparse array")
        if kind == _FUNCTION:
            return Unreadable("a function handle", _function_name(self.matrix(parts, depth)))
        raise MatError(f"it holds an array of the unknown class {kind}")

    def matrix(self, parts: Iterator[tuple[int, memoryview]], depth: int) -> Any:
        kind, body = self.next(parts, "element of a cell or struct")
        if kind != _MATRIX:
            raise MatError("a cell or struct holds something that is no array")
        return self.variable(body, depth + 1)[1]

    def fields(self, parts: Iterator[tuple[int, memoryview]]) -> list[str]:
        """Names of a struct's fields, each padded with zeros to a fixed length."""
        lengths = self.integers(self.next(parts, "length of field names"), "i")
        _, raw = self.next(parts, "field names")
        if len(lengths) != 1 or not 1 <= lengths[0] <= _NAME * 64 or len(raw) % lengths[0]:
            raise MatError("a struct's field names are damaged")
        step = lengths[0]
        return [bytes(raw[at : at + step]).split(b"\0")[0].decode("latin-1") for at in range(0, len(raw), step)]

    def next(self, parts: Iterator[tuple[int, memoryview]], what: str) -> tuple[int, memoryview]:
        found = next(parts, None)
        if found is None:
            raise MatError(f"an array lacks its {what}")
        return found

    def integers(self, part: tuple[int, memoryview], code: str) -> list[int]:
        """Numbers of four bytes, `i` signed or `I` not."""
        body = part[1]
        if len(body) > 8 * 64 or len(body) % 4:
            raise MatError("an array's header is damaged")
        return list(struct.unpack(f"{self.order}{len(body) // 4}{code}", body))

    def text(self, part: tuple[int, memoryview]) -> str:
        return bytes(part[1]).decode("latin-1")

    def numbers(self, part: tuple[int, memoryview], count: int) -> np.ndarray:
        """`count` numbers as stored, in native byte order: a smaller type than the array's class may hold them."""
        kind, body = part
        if kind not in _NUMBERS:
            raise MatError(f"an array's numbers are of the unknown type {kind}")
        dtype = np.dtype(self.order + _NUMBERS[kind])
        if len(body) != count * dtype.itemsize:
            raise MatError("an array's extents and its numbers disagree")
        return np.frombuffer(body, dtype).astype(dtype.newbyteorder("="), copy=False)

    def characters(self, parts: Iterator[tuple[int, memoryview]], count: int) -> str:
        if not count:
            return ""
        kind, body = self.next(parts, "characters")
        if len(body) > 4 * count:
            raise MatError("a text's length is damaged")
        if kind in _TEXTS:
            suffix = {16: "", 17: "-le", 18: "-le"}[kind].replace("le", "le" if self.order == "<" else "be")
            text = bytes(body).decode(_TEXTS[kind] + suffix, errors="replace")
        elif kind in _CODES:
            dtype = np.dtype(self.order + _CODES[kind])
            if len(body) % dtype.itemsize:
                raise MatError("a text is damaged")
            text = text_of(np.frombuffer(body, dtype))
        else:
            raise MatError(f"a text is of the unknown type {kind}")
        if len(text) != count and kind != 16:
            raise MatError("a text's length is damaged")
        return text


def _function_name(inside: Any) -> str:
    """The name of a simple function handle, from the struct that MATLAB stores for it; empty for another kind."""
    handle = inside.get("function_handle") if isinstance(inside, dict) else None
    name = handle.get("function") if isinstance(handle, dict) else None
    return name if isinstance(name, str) else ""
