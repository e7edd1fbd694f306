"""Plain values, as `matfile.read` gives them, written as MAT files of each version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse

__all__ = ["VERSIONS", "cells", "write"]

VERSIONS = ("v6", "v7", "v73")


def write(path: Path, values: Mapping[str, Any], version: str = "v7") -> Path:
    """A dict is a struct, a list a cell row (of structs too), a str a char row; arrays may be sparse or complex."""
    if version == "v73":
        _write73(path, values)
    else:
        scipy.io.savemat(path, cells(dict(values)), do_compression=version == "v7", long_field_names=True)
    return path


def cells(value: Any) -> Any:
    """As scipy writes it."""
    if isinstance(value, dict):
        return {key: cells(item) for key, item in value.items()}
    if isinstance(value, list):
        row = np.empty((1, len(value)), object)
        for at, item in enumerate(value):
            row[0, at] = cells(item)
        return row
    return value


def _write73(path: Path, values: Mapping[str, Any]) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        writer = _Writer(file)
        for name, value in values.items():
            writer.put(file, name, value)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


class _Writer:
    """HDF5 with MATLAB's conventions: axes reversed, cells as references into `/#refs#`."""

    def __init__(self, file: h5py.File) -> None:
        self.file, self.count = file, 0

    def put(self, group: Any, name: str, value: Any) -> None:
        if isinstance(value, dict):
            inside = group.create_group(name)
            inside.attrs["MATLAB_class"] = np.bytes_("struct")
            for key, item in value.items():
                self.put(inside, key, item)
        elif isinstance(value, list):
            held = group.create_dataset(name, (len(value), 1), h5py.ref_dtype) if value else self.empty(group, name)
            held.attrs["MATLAB_class"] = np.bytes_("cell")
            for at, item in enumerate(value):
                held[at, 0] = self.reference(item)
        elif isinstance(value, str):
            codes = np.array([[ord(c)] for c in value], np.uint16)
            held = group.create_dataset(name, data=codes) if value else self.empty(group, name)
            held.attrs["MATLAB_class"] = np.bytes_("char")
        elif scipy.sparse.issparse(value):
            inside = group.create_group(name)
            inside.attrs["MATLAB_class"] = np.bytes_("double")
            inside.attrs["MATLAB_sparse"] = np.uint64(value.shape[0])
            inside.create_dataset("data", data=np.asarray(value.tocsc().data))
        else:
            self.array(group, name, np.asarray(value))

    def array(self, group: Any, name: str, array: np.ndarray) -> None:
        array = array.reshape(array.shape + (1,) * (2 - array.ndim))
        if array.dtype.kind == "c":
            pairs = np.zeros(array.T.shape, [("real", "f8"), ("imag", "f8")])
            pairs["real"], pairs["imag"] = array.T.real, array.T.imag
            held = group.create_dataset(name, data=pairs)
        elif array.size:
            held = group.create_dataset(name, data=array.T.astype("u1") if array.dtype == bool else array.T)
        else:
            held = self.empty(group, name, array.shape)
        names = {"float64": "double", "float32": "single", "bool": "logical", "complex128": "double"}
        held.attrs["MATLAB_class"] = np.bytes_(names.get(array.dtype.name, array.dtype.name))

    def empty(self, group: Any, name: str, shape: tuple[int, ...] = (0, 0)) -> Any:
        held = group.create_dataset(name, data=np.array(shape, np.uint64))
        held.attrs["MATLAB_empty"] = np.uint8(1)
        return held

    def reference(self, value: Any) -> Any:
        self.count += 1
        name = f"#refs#/{self.count}"
        self.put(self.file, name, value)
        return self.file[name].ref
