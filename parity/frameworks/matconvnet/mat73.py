"""MAT files of version 7.3: HDF5 with MATLAB's conventions.

A variable is a dataset (numbers; its axes are reversed) or a group (a struct); the attribute `MATLAB_class` says what
it is. Cells, and the fields of struct arrays, are datasets of references to the elements, which lie in `/#refs#`. An
empty array is a dataset of its extents, marked `MATLAB_empty`.
"""

from __future__ import annotations

from pathlib import Path
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

__all__ = ["read_mat73"]

_NUMBERS = {
    "double": "f8",
    "single": "f4",
    "logical": "?",
    **{f"{sign}int{bits}": f"{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
"""MATLAB's classes of numbers → numpy's."""


def read_mat73(path: Path) -> dict[str, Any]:
    """The variables of a MAT v7.3 file (see `matfile.read` for their form); raises MatError where it is damaged."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            reader = _Reader(file, allowance(path.stat().st_size))
            names = [str(name) for name in file]
            return {name: reader.child(file, name, 0) for name in names if not name.startswith("#")}
    except (MatError, MemoryError):
        raise
    except Exception as error:  # libhdf5 and h5py raise nearly anything on damaged bytes
        raise MatError(str(error).split("\n")[0][:200] or type(error).__name__) from None


class _Reader:
    """Walks one open file, with a budget of bytes and of values, and remembers what it has read by its address."""

    def __init__(self, file: Any, budget: int) -> None:
        self.file = file
        self.budget = budget
        self.left = MOST // 5  # every step of a walk along references counts, and each takes longer than in a v7 file
        self.seen: dict[int, tuple[Any, int]] = {}
        self.open: set[int] = set()

    def child(self, group: Any, name: str, depth: int) -> Any:
        """A member of a group, if it is really stored there: a link into another file could read anything."""
        import h5py

        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise MatError(f"{name!r} is a link to another place")
        return self.value(group[name], depth)

    def value(self, node: Any, depth: int) -> Any:
        import h5py
        from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]

        address = int(h5o.get_info(node.id).addr)
        if address in self.seen:  # what is shared counts again: whoever walks the result walks it again
            found, weight = self.seen[address]
            self.spare(weight)
            return found
        before = self.left
        self.spare(1)
        if depth > DEEPEST or address in self.open:
            raise MatError("its values are nested in circles or without end")
        self.open.add(address)
        found = self.group(node, depth) if isinstance(node, h5py.Group) else self.dataset(node, depth)
        self.open.discard(address)
        self.seen[address] = found, before - self.left
        return found

    def spare(self, values: int) -> None:
        """Hold the number of values against its limit."""
        self.left -= values
        if self.left < 0:
            raise MatError("it refers to more values than a network can have")

    def group(self, node: Any, depth: int) -> Any:
        """A struct: a scalar one, or an array whose fields are all datasets of references."""
        kind = _class_of(node)
        if "MATLAB_sparse" in node.attrs:
            return Unreadable("a sparse array")
        if kind not in ("struct", ""):
            return Unreadable("a function handle" if kind == "function_handle" else "an object")
        names = list(node)  # the attribute MATLAB_fields has their order, but on damaged bytes libhdf5 hangs in it
        arrays = [node[name] for name in names]
        if names and all(_holds_references(item) and not _class_of(item) for item in arrays):
            shapes = {tuple(item.shape) for item in arrays}
            if len(shapes) != 1:
                raise MatError("the fields of a struct array differ in length")
            columns = [self.references(item, depth) for item in arrays]
            count = len(columns[0])
            return unlist([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)], count)
        return {name: self.child(node, name, depth + 1) for name in names}

    def dataset(self, node: Any, depth: int) -> Any:
        kind = _class_of(node)
        if node.is_virtual or node.external:
            raise MatError("a value lies in another file")
        if "MATLAB_empty" in node.attrs and int(np.ravel(node.attrs["MATLAB_empty"])[0]):
            return self.empty(node, kind)
        if _holds_references(node):
            return self.references(node, depth)
        if kind in ("function_handle", "opaque") or (
            "MATLAB_object_decode" in node.attrs and kind not in (*_NUMBERS, "char")
        ):
            return Unreadable("a function handle" if kind == "function_handle" else "an object")
        if node.dtype.names:
            return Unreadable("a complex array")
        if node.dtype.kind not in "biuf" or kind not in (*_NUMBERS, "char", ""):
            return Unreadable(f"an array of class {kind or node.dtype}")
        self.spend(node)
        array = np.asarray(node[()]).T
        if array.ndim < 2:
            array = array.reshape(array.shape + (1,) * (2 - array.ndim)) if array.ndim else array.reshape(1, 1)
        if kind == "char":
            return char_rows(text_of(array.reshape(-1, order="F")), array.shape)
        target = np.dtype(_NUMBERS[kind]) if kind else array.dtype
        self.charge(array.size * max(target.itemsize - array.itemsize, 0))
        return array.astype(target, copy=False)

    def empty(self, node: Any, kind: str) -> Any:
        """An empty array: the dataset holds its extents."""
        if elements(node.shape) > 32 or node.dtype.kind not in "iu":
            raise MatError("an empty array's extents are damaged")
        shape = tuple(int(v) for v in np.ravel(node[()]))
        if kind in ("cell", "struct", "canonical empty"):
            return [] if kind != "canonical empty" else np.zeros((0, 0))
        if kind == "char":
            return ""
        if kind not in _NUMBERS:
            return Unreadable("an object")
        if elements(shape) or min(shape, default=0) < 0:
            raise MatError("an empty array's extents are damaged")
        return np.zeros(shape, _NUMBERS[kind])

    def references(self, node: Any, depth: int) -> list[Any]:
        """The elements that a dataset refers to, in column-major order."""
        import h5py

        self.spend(node)
        found: list[Any] = []
        for reference in np.asarray(node[()]).T.reshape(-1, order="F"):
            if not isinstance(reference, h5py.Reference) or not reference:
                raise MatError("a cell refers to nothing")
            found.append(self.value(self.file[reference], depth + 1))
        return found

    def spend(self, node: Any) -> None:
        """Hold a dataset's declared size against the budget before its memory is taken."""
        size = elements(node.shape) * node.dtype.itemsize
        if node.chunks is None and size > max(node.id.get_storage_size(), 64):
            raise MatError("an array claims more numbers than are stored")
        self.charge(size)
        chunk = elements(node.chunks or ()) * node.dtype.itemsize  # libhdf5 takes memory for a whole one
        if chunk > max(self.budget, 1 << 20):
            raise MatError("its arrays unfold to far more than the file's size")

    def charge(self, size: int) -> None:
        """Take bytes off the budget."""
        self.budget -= size
        if self.budget < 0:
            raise MatError("its arrays unfold to far more than the file's size")


def _class_of(node: Any) -> str:
    raw = node.attrs.get("MATLAB_class", b"")
    return raw.decode("latin-1") if isinstance(raw, bytes) else str(raw)


def _holds_references(node: Any) -> bool:
    import h5py

    return isinstance(node, h5py.Dataset) and h5py.check_ref_dtype(node.dtype) is h5py.Reference
