"""Writing a trace: tensor after tensor, chunk after chunk, and the file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import BadUsage
from parity.traces.codec import encoded
from parity.traces.format import BLOCK, FORMAT, chunk_shape, escaped, seal
from parity.traces.seal import Pieces
from parity.traces.sketch import Sketch, places

__all__ = ["TraceWriter", "writing"]

Array = np.ndarray

_SMALL = 1 << 14
"""Bytes below which chunks and compression cost more than they save."""

_LOOK = 1 << 12
"""Bytes of a plane that are looked at before it is coded."""

_STORED = 0xFFFF
"""Bytes of a stored block of deflate at most."""

_SAVED = 1 << 26
"""Bytes after which the disk is told to begin: else whoever waits for the end of a file waits for all of it."""

_WORTH = 1.3
"""Bits in a byte below which coding it is worth its time."""


@contextlib.contextmanager
def writing(path: Path, option: str, parity: str) -> Iterator[TraceWriter]:
    """A writer of a trace that takes the path's place when all of it is written and sealed, and not before.

    Args:
        path: where the trace will be.
        option: the option that named it, for messages.
        parity: the version of the parity that writes.

    Raises:
        BadUsage: it cannot be written: no room, no right, no directory.
    """
    import h5py

    from parity.reports.output import replacing

    with replacing(path, option) as name:
        pieces = Pieces(Path(name))
        with (
            Path(name).open("w+b", buffering=0) as raw,
            contextlib.closing(pieces),
            contextlib.closing(_Stream(raw, pieces)) as stream,
        ):
            file = h5py.File(stream, "w", userblock_size=BLOCK, libver=("earliest", "v110"))
            try:
                with TraceWriter(file) as writer:
                    yield writer
                file.close()
                stream.settle()
            except BaseException:
                stream.dead = True  # the file goes; HDF5 must not stumble over what it still holds
                with contextlib.suppress(Exception):
                    file.close()
                if stream.problem is not None:
                    raise _unwritten(path, option, stream.problem) from None
                raise
        try:
            seal(Path(name), parity, pieces)
        except OSError as error:
            raise _unwritten(path, option, error) from None


def _unwritten(path: Path, option: str, error: OSError) -> BadUsage:
    words = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        words += "; make room, or keep less with --tensors sample"
    return BadUsage(f"{option} {path}: cannot be written ({words})")


class _Stream:
    """A file that HDF5 writes through Python: a full disk is an error of ours here, and not one in HDF5's own cache."""

    def __init__(self, stream: Any, pieces: Pieces) -> None:
        self.stream, self.pieces, self.dead = stream, pieces, False
        self.problem: OSError | None = None
        self._disk, self._unsaved = ThreadPoolExecutor(1), 0
        self._saved: list[Future[None]] = []

    def write(self, data: Any) -> int:
        """Write, or swallow what still comes after an error."""
        if self.dead:
            return len(data)
        left, size = memoryview(data).cast("B"), len(data)
        start = self.stream.tell()
        while left:
            left = left[self._tried(lambda rest=left: self.stream.write(rest)) :]
        self.pieces.wrote(start, start + size)
        self._unsaved += size
        if self._unsaved >= _SAVED:
            self._unsaved = 0
            self._saved.append(self._disk.submit(os.fsync, self.stream.fileno()))
        return size

    def settle(self) -> None:
        """Wait for the disk; raises the OSError that it had: it tells of one only once."""
        for saved in self._saved:
            self._tried(saved.result)

    def close(self) -> None:
        """Leave the disk alone."""
        self._disk.shutdown(cancel_futures=True)

    def flush(self) -> None:
        """Flush."""
        if not self.dead:
            self._tried(self.stream.flush)

    def truncate(self, size: int) -> int:
        """Cut to a size."""
        if self.dead:
            return size
        self.pieces.cut(size)
        return self._tried(lambda: self.stream.truncate(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _tried(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except OSError as error:
            self.problem, self.dead = error, True
            raise


class TraceWriter:
    """The open file of a trace that is being written.

    Every array goes out in chunks of a mebibyte: bytes shuffled, then deflated without a search for repetitions other
    than runs, which weights and activations hardly have, and without coding bytes that would not get much shorter. Any
    reader of HDF5 reads them. One chunk at a time is copied, by one thread: several wait for each other, and for the
    run.

    What is given is written in its order while whoever gave it goes on: nobody may write to it before `settle`, or
    before the writer is left.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self._arrays = 0
        self._folders: dict[str, Any] = {}
        self._packed = _Packed()
        self._line = ThreadPoolExecutor(max_workers=1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.settle()
        finally:
            self._line.shutdown(cancel_futures=True)

    def settle(self) -> None:
        """Wait until all that was given is written; raises what went wrong with it."""
        while self._waiting:
            self._waiting.popleft().result()

    def _soon(self, act: Callable[..., None], *given: Any, **named: Any) -> None:
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()
        self._waiting.append(self._line.submit(act, *given, **named))

    def put(self, group: str, name: str, value: Any, **attributes: Any) -> None:
        """Write an array.

        Args:
            group: folder in the file, e.g. `weights/0`.
            name: of the parameter or tensor, as its network has it.
            value: the array, whole.
            **attributes: of the dataset.
        """
        self._soon(self._put, group, name, value, **attributes)

    def _put(self, group: str, name: str, value: Any, **attributes: Any) -> None:
        array = np.asarray(value)
        if array.dtype == bool:
            array = array.astype(np.uint8)
        folder, key = self._folder(group), escaped(name)
        if array.nbytes <= _SMALL:
            dataset = folder.create_dataset(key, data=np.ascontiguousarray(array).reshape(array.shape))
        else:
            dataset = self._chunked(folder, key, array)
        for word, held in attributes.items():
            dataset.attrs[word] = held

    def tensor(self, group: str, name: str, value: Any, keep: str) -> None:
        """Write a tensor, or what is kept of it.

        Args:
            group: folder in the file, e.g. `step1/outputs`.
            name: of the tensor.
            value: the tensor, channels last.
            keep: `"all"`, `"sample"` or `"stats"`.
        """
        array = np.asarray(value)
        if keep == "all":
            self.put(group, name, array)
            return
        self._soon(self._sketch, group, name, array)
        if keep == "sample":
            self.sample(group, name, array)

    def _sketch(self, group: str, name: str, array: Array) -> None:
        sketch = Sketch.of(array)
        shape = np.asarray(array.shape, np.int64)
        self._put(f"sketches/{group}", name, sketch.table(), shape=shape, strange=sketch.strange, flat=sketch.flat)

    def sample(self, group: str, name: str, value: Array) -> None:
        """Write a tensor's values at the sampled places, and no more of it."""
        shape = tuple(value.shape)
        rows = value.reshape(math.prod(shape[:-1]), shape[-1] if shape else 1)  # -1 is no number where nothing is
        self.put(group, name, rows[places(shape)], shape=np.asarray(shape, np.int64))

    def info(self, held: Mapping[str, Any], network: Any, recipe: Any) -> None:
        """Write what is no array: facts of the run, the network and the recipe. Once, at the end.

        Args:
            held: facts, as JSON knows them.
            network: the network as it was run.
            recipe: how it is trained.
        """
        document = {
            "format": FORMAT, **held,
            "network": encoded(network, self._keep), "recipe": encoded(recipe, self._keep),
        }  # fmt: skip
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        self.put("", "info", np.frombuffer(text, np.uint8))
        self.settle()
        self.file.attrs["format"] = FORMAT

    def _keep(self, array: Array) -> int:
        self.put("arrays", str(self._arrays), array)
        self._arrays += 1
        return self._arrays - 1

    def _folder(self, group: str) -> Any:
        """A folder of the file; h5py would look for it, and make it, for each array anew."""
        if group not in self._folders:
            self._folders[group] = self.file.require_group(group) if group else self.file
        return self._folders[group]

    def _chunked(self, folder: Any, key: str, array: Array) -> Any:
        from h5py._objects import phil

        chunks = chunk_shape(array.shape)
        dataset = folder.create_dataset(
            key, array.shape, array.dtype, chunks=chunks, shuffle=True, compression="gzip", compression_opts=1
        )
        corners = itertools.product(*(range(0, n, c) for n, c in zip(array.shape, chunks, strict=True)))
        for corner in corners:
            self._packed.pack(array, corner, chunks)
            with phil:  # h5py's lock around HDF5, which this call alone does not take: another thread may be reading
                dataset.id.write_direct_chunk(corner, self._packed.bytes)
        return dataset


class _Packed:
    """A chunk as HDF5 would shuffle and deflate it, in memory that is used again: to get new memory takes time."""

    def __init__(self) -> None:
        self.planes = self.out = self.moved = np.empty(0, np.uint8)
        self.at = 0

    @property
    def bytes(self) -> memoryview:
        """What was packed."""
        return self.out[: self.at].data

    def pack(self, array: Array, corner: tuple[int, ...], chunks: tuple[int, ...]) -> None:
        """Pack the chunk at a corner of an array; beyond the array's end it is zero."""
        part = array[tuple(slice(at, at + size) for at, size in zip(corner, chunks, strict=True))]
        if part.shape != chunks:
            full = np.zeros(chunks, array.dtype)
            full[tuple(slice(0, n) for n in part.shape)] = part
            part = full
        planes = self._shuffled(np.ascontiguousarray(part).reshape(-1).view(f"<u{array.dtype.itemsize}"))
        most = planes.size + planes.size // 1000 + 64 * (len(planes) + 1)
        if len(self.out) < most:
            self.out = np.empty(most, np.uint8)
        self.at = 0
        self._add(b"\x78\x01")
        for n, plane in enumerate(planes):
            (self._code if _worthwhile(plane) else self._store)(plane, last=n == len(planes) - 1)
        self._add(zlib.adler32(planes.reshape(-1).data).to_bytes(4, "big"))

    def _shuffled(self, words: Array) -> Array:
        """The bytes of numbers, (size, n): to shift and narrow whole numbers is twice as fast as to pick bytes out."""
        size, count = words.itemsize, len(words)
        if self.planes.size < size * count or self.moved.dtype != words.dtype:
            self.planes, self.moved = np.empty(size * count, np.uint8), np.empty(count, words.dtype)
        planes, moved = self.planes[: size * count].reshape(size, count), self.moved[:count]
        for n, plane in enumerate(planes):
            np.copyto(plane, np.right_shift(words, 8 * n, out=moved) if n else words, casting="unsafe")
        return planes

    def _code(self, plane: Array, *, last: bool) -> None:
        """One byte of every number, coded as a part of a deflate stream."""
        coder = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
        self._add(coder.compress(plane.data))
        self._add(coder.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH))

    def _store(self, plane: Array, *, last: bool) -> None:
        """Bytes as they are, in blocks of a deflate stream."""
        for start in range(0, plane.size, _STORED):
            block = plane[start : start + _STORED]
            final = last and start + _STORED >= plane.size
            # RFC 1951, 3.2.4: the last block's bit, then the length and its complement.
            self._add(bytes([final]) + len(block).to_bytes(2, "little") + (0xFFFF - len(block)).to_bytes(2, "little"))
            np.copyto(self.out[self.at : self.at + len(block)], block)
            self.at += len(block)

    def _add(self, data: bytes) -> None:
        self.out[self.at : self.at + len(data)] = np.frombuffer(data, np.uint8)
        self.at += len(data)


def _worthwhile(plane: Array) -> bool:
    """Whether coding one byte of every number makes it much shorter: some of them are looked at.

    The lower bytes of floating-point numbers are all but random: to code them takes longer than to write them.
    """
    counts = np.bincount(plane[:: plane.size // _LOOK | 1])
    shares = counts[counts > 0] / counts.sum()
    return -float(np.sum(shares * np.log2(shares))) < _WORTH
