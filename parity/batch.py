"""The batch that both sides are fed, as a file or the caller gives it.

Files: an `.npz` with `x` (n h w c) and `y` (n, class ids from 0, or one-hot); or a MatConvNet `imdb.mat` (`images.data`
h w c n, `images.labels` from 1). They are told apart by content. Nothing in a file is unpickled, and no array is read
before its declared size has been held against the file's.

Names in an `.npz`: `x` are the inputs, `y` the targets and `w` the weights of the images (or pixels) in the loss.
Where each side prepares its own, `x_ref` and `x_keras` take the place of `x`. A network with several inputs or losses
takes `x_NAME`, `y_NAME` and `w_NAME`, where NAME is an input's, label's or output's name on either side; and
`x_ref_NAME` where that too differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from parity import npz
from parity.errors import BadFile, BadUsage

__all__ = ["IMDB_IMAGES", "Batch", "class_ids", "extents", "load", "mean_note"]

IMDB_IMAGES = 64
"""An imdb holds a whole data set; its first so many training images make the batch."""

_HEADER = 520


@dataclass(frozen=True, eq=False)
class Batch:
    """Images and labels for both sides, by the names that an `.npz` gives them.

    Attributes:
        arrays: name → value: inputs (`x…`) float32 and finite, the batch axis first; targets (`y…`) and weights
            (`w…`) as they came.
        source: the file's path, or what made it.
        notes: facts for the report.
        counted_from_zero: whether it is certain that labels count from 0, as they should.
    """

    arrays: Mapping[str, np.ndarray]
    source: str = "batch"
    notes: tuple[str, ...] = ()
    counted_from_zero: bool = False

    def __len__(self) -> int:
        return len(next(value for name, value in self.arrays.items() if name.startswith("x")))

    def get(self, *names: str) -> tuple[str, np.ndarray] | None:
        """The first of these arrays that there is, with its name."""
        return next(((name, self.arrays[name]) for name in names if name in self.arrays), None)

    @property
    def x_ref(self) -> np.ndarray | None:
        """The reference's only input; None where inputs have names."""
        return self.arrays.get("x_ref", self.arrays.get("x"))

    @property
    def x_keras(self) -> np.ndarray | None:
        """The Keras model's only input; None where inputs have names."""
        return self.arrays.get("x_keras", self.arrays.get("x"))


def load(source: str | PathLike[str] | Mapping[str, Any] | Batch) -> Batch:
    """The batch of a file, or of arrays in memory.

    Args:
        source: path of an `.npz` or an `imdb.mat`; a mapping with the arrays an `.npz` would have; or a batch, which is
            returned as it is.

    Raises:
        BadFile: missing, damaged, of no kind known here, without inputs, with NaN or Inf, or with labels of another
            count.
    """
    if isinstance(source, Batch):
        return source
    if isinstance(source, Mapping):
        return _from_arrays({str(key): np.asarray(value) for key, value in source.items()}, "the batch")
    if not isinstance(source, str | PathLike):
        raise BadUsage(f"a batch is a path, a mapping with x and y, or a Batch, not {type(source).__name__}")
    path = Path(fspath(source))
    head = _head(path)
    if head.startswith(b"PK"):
        return _from_arrays(npz.read(path), str(path))
    if head.startswith(b"\x93NUMPY"):
        raise BadFile(path, "is a single array (.npy)", "save images and labels with numpy.savez(path, x=..., y=...)")
    if head[126:128] in (b"IM", b"MI") or head.startswith(b"MATLAB") or b"\x89HDF\r\n\x1a\n" in head:
        return _from_imdb(path)
    raise BadFile(path, "is neither an .npz nor a MatConvNet imdb.mat", "see the batch format in the README")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER)
    except FileNotFoundError:
        raise BadFile(path, "there is no such file", "check the path after --batch") from None
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or error})") from None


def _from_arrays(arrays: Mapping[str, np.ndarray], source: str) -> Batch:
    """The batch of arrays named as in an `.npz`; what is neither input, target nor weight is left out."""
    inputs = {name: _images(value, name, source) for name, value in arrays.items() if _is(name, "x")}
    if not inputs or set(inputs) in ({"x_ref"}, {"x_keras"}):
        found = ", ".join(sorted(arrays)[:8]) or "nothing"
        lacks = f"has {next(iter(inputs))} but not the other side's" if inputs else "has no array x"
        raise BadFile(source, f"{lacks} (it has {found})", "save images with numpy.savez(path, x=..., y=...)")
    first, count = next((name, len(value)) for name, value in inputs.items())
    for name, value in inputs.items():
        if len(value) != count:
            raise BadFile(source, f"{first} holds {count} images and {name} {len(value)}", "they need the same")
    rest = {
        name: _beside(value, name, count, source) for name, value in arrays.items() if _is(name, "y") or _is(name, "w")
    }
    return Batch({**inputs, **rest}, source)


def _is(name: str, letter: str) -> bool:
    return name == letter or name.startswith(f"{letter}_")


def _images(array: np.ndarray, name: str, source: str) -> np.ndarray:
    """`array` as float32, the batch axis first, finite."""
    if array.dtype.kind not in "fiub":
        raise BadFile(source, f"{name} holds {array.dtype}, not real numbers")
    if array.ndim not in (2, 3, 4, 5) or 0 in array.shape:
        raise BadFile(source, f"{name} has the shape {extents(array.shape)}", "images are (n, h, w, c)")
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    array = np.ascontiguousarray(array)
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        count = int(array.size - finite.sum())
        raise BadFile(
            source, f"{name} holds {count} values that are NaN or Inf, the first at {list(index)}", "clean it"
        )
    return array


def _beside(array: np.ndarray, name: str, count: int, source: str) -> np.ndarray:
    """Targets or weights of as many images."""
    what = "labels" if _is(name, "y") else "weights"
    if array.dtype.kind not in "fiub" or not 1 <= array.ndim <= 5:
        remedy = "labels are class ids from 0, or one-hot" if what == "labels" else "one number for each image"
        raise BadFile(source, f"{name} holds {array.dtype} of shape {extents(array.shape)}", remedy)
    if len(array) != count:
        raise BadFile(source, f"{name} has {len(array)} {what} for {count} images")
    if what == "weights" and not np.isfinite(array).all():
        raise BadFile(source, f"{name} holds weights that are NaN or Inf", "clean it")
    return array


def class_ids(y: np.ndarray, name: str, source: str) -> tuple[np.ndarray, int | None]:
    """Labels as class ids from 0 (-1 where ignored), (n,) or (n h w), and the number of classes if they were one-hot.

    Raises:
        BadFile: they are neither ids nor one-hot.
    """
    if y.ndim == 2 and y.shape[1] > 1:
        hot = (y == 1).sum(axis=1) == 1
        bad = ~(hot & ((y == 0).sum(axis=1) == y.shape[1] - 1))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise BadFile(source, f"row {row} of {name} is not one-hot", "one 1 and else zeros, or save class ids (n,)")
        return y.argmax(axis=1).astype(np.int64), int(y.shape[1])
    while y.ndim > 1 and y.shape[-1] == 1:
        y = y[..., 0]
    if y.ndim > 3:
        raise BadFile(source, f"{name} has the shape {extents(y.shape)}", "labels are class ids (n,) or (n, h, w)")
    if y.dtype.kind == "f" and not np.all(np.isfinite(y) & (y == np.floor(y))):
        raise BadFile(source, f"{name} holds labels that are not whole numbers", "labels are class ids from 0")
    if y.min() < -1:
        raise BadFile(
            source, f"{name} holds the label {int(y.min())}", "labels are class ids from 0, and -1 is ignored"
        )
    if y.max() > np.iinfo(np.int32).max:
        raise BadFile(source, f"{name} holds the label {int(y.max())}", "labels are class ids from 0")
    return y.astype(np.int64), None


def _from_imdb(path: Path) -> Batch:
    """The first training images of a MatConvNet database (`images.data` h w c n, `images.labels` from 1)."""
    from parity.frameworks.matconvnet import matfile

    variables = matfile.read(path)
    holder = variables.get("imdb", variables)
    images = holder.get("images") if isinstance(holder, Mapping) else None
    data = _numbers(images, "data")
    if not isinstance(images, Mapping) or data is None:
        raise BadFile(path, "has no images.data", "--batch takes an .npz or a MatConvNet imdb.mat")
    labels = _numbers(images, "labels")
    labels = None if labels is None else labels.reshape(-1, order="F")
    data = _four_axes(data, None if labels is None else labels.size, path)
    count = data.shape[-1]
    if labels is not None and labels.size != count:
        raise BadFile(path, f"images.labels has {labels.size} labels for {count} images")
    chosen = np.arange(count)
    sets = _numbers(images, "set")
    if sets is not None and sets.size == count and np.any(sets == 1):
        chosen = np.flatnonzero(sets.reshape(-1, order="F") == 1)
    chosen = chosen[:IMDB_IMAGES]
    arrays: dict[str, np.ndarray] = {"x": np.moveaxis(data[..., chosen], -1, 0)}
    if labels is not None:
        ids = labels[chosen]
        if not np.all(np.isfinite(ids) & (ids == np.floor(ids)) & (ids >= 0)):
            raise BadFile(path, f"images.labels holds {ids.min():g}", "MatConvNet's labels count from 1 (0 is ignored)")
        arrays["y"] = ids.astype(np.int64) - 1
    batch = _from_arrays(arrays, str(path))
    notes = [*batch.notes]
    if len(chosen) < count:
        notes.append(f"the first {len(chosen)} training images of {count} in the imdb make the batch")
    mean = _numbers(images, "data_mean")
    if mean is not None:
        notes += filter(None, [mean_note(batch.arrays["x"], mean, "the imdb's data_mean")])
    return replace(batch, notes=tuple(notes), counted_from_zero=True)


def _numbers(holder: object, name: str) -> np.ndarray | None:
    """The non-empty array of real numbers that a struct has under this name."""
    value = holder.get(name) if isinstance(holder, Mapping) else None
    real = isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size > 0
    return value if real else None


def _four_axes(data: np.ndarray, labels: int | None, path: Path) -> np.ndarray:
    """`data` as (h, w, c, n): MATLAB drops trailing axes of extent 1, and some databases leave the channel out."""
    if data.ndim > 4:
        raise BadFile(path, f"images.data has the shape {extents(data.shape)}", "MatConvNet's is (h, w, c, n)")
    if data.ndim == 3 and labels == data.shape[2] != 1:
        data = data[:, :, np.newaxis, :]
    return data.reshape(*data.shape, *[1] * (4 - data.ndim))


def mean_note(x: np.ndarray, mean: np.ndarray, what: str) -> str:
    """A sentence if the images look as if this mean had not been subtracted from them, else empty.

    The average over the batch lies near zero once the mean is subtracted, and near the mean before.

    Args:
        x: (n h w c).
        mean: (h w c), (c) or (h w), in the images' unit.
        what: what to call it, e.g. `"meta.normalization.averageImage"`.
    """
    centre = np.asarray(x, np.float64).mean(axis=0)
    stored = np.asarray(mean, np.float64)
    if stored.ndim == 2 and centre.ndim == 3 and centre.shape[:2] == stored.shape:
        stored = stored[:, :, np.newaxis]
    stored = stored.reshape(-1) if stored.size in (1, centre.shape[-1]) else stored
    try:
        stored = np.broadcast_to(stored, centre.shape)
    except ValueError:
        centre, stored = centre.mean(keepdims=True), stored.mean(keepdims=True).reshape((1,) * centre.ndim)
    size = float(np.linalg.norm(stored))
    if size == 0 or float(np.linalg.norm(centre)) < float(np.linalg.norm(centre - stored)):
        return ""
    return f"{what} does not look subtracted: the batch's mean image is nearer to it than to zero"


def extents(shape: tuple[int | None, ...]) -> str:
    """A shape in words: `28×28×1`."""
    return "×".join("?" if extent is None else str(extent) for extent in shape) or "()"
