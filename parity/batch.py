"""The batch that both sides are fed: read from a file, checked against a network, or generated.

Files: an `.npz` with `x` (n h w c) and `y` (n, class ids from 0, or one-hot), or `x_ref`/`x_keras` and
`y_ref`/`y_keras` where each side prepares its own input; or a MatConvNet `imdb.mat` (`images.data` h w c n,
`images.labels` from 1). They are told apart by content. Nothing in a file is unpickled, and no array is read before its
declared size has been held against the file's.
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

__all__ = ["IMDB_IMAGES", "Batch", "fit", "load", "mean_note", "probe"]

IMDB_IMAGES = 64
"""An imdb holds a whole data set; its first so many training images make the batch."""

_HEADER = 520


@dataclass(frozen=True, eq=False)
class Batch:
    """Images and labels for both sides.

    Attributes:
        x_ref, x_keras: (n h w c) or (n c), float32; the same array where the file makes no difference.
        y_ref, y_keras: class ids from 0, (n,) or per pixel (n h w), int64; None without labels.
        source: the file's path, or what made it.
        classes: the width of one-hot labels; None where the labels came as ids.
        notes: facts for the report.
    """

    x_ref: np.ndarray
    x_keras: np.ndarray
    y_ref: np.ndarray | None = None
    y_keras: np.ndarray | None = None
    source: str = "batch"
    classes: int | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x_ref)

    @property
    def one_for_both(self) -> bool:
        """Whether both sides get the very same images and labels."""
        return self.x_ref is self.x_keras and self.y_ref is self.y_keras


def load(source: str | PathLike[str] | Mapping[str, Any] | Batch) -> Batch:
    """The batch of a file, or of arrays in memory.

    Args:
        source: path of an `.npz` or an `imdb.mat`; a mapping with the arrays an `.npz` would have; or a batch, which is
            returned as it is.

    Raises:
        BadFile: missing, damaged, of no kind known here, without `x`, with NaN or Inf, or with labels that are not.
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
        return _from_arrays(npz.read(path, _NAMES), str(path))
    if head.startswith(b"\x93NUMPY"):
        raise BadFile(path, "is a single array (.npy)", "save images and labels with numpy.savez(path, x=..., y=...)")
    if head[126:128] in (b"IM", b"MI") or head.startswith(b"MATLAB") or b"\x89HDF\r\n\x1a\n" in head:
        return _from_imdb(path)
    raise BadFile(path, "is neither an .npz nor a MatConvNet imdb.mat", "see the batch format in the README")


_NAMES = ("x", "y", "x_ref", "x_keras", "y_ref", "y_keras")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER)
    except FileNotFoundError:
        raise BadFile(path, "there is no such file", "check the path after --batch") from None
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or error})") from None


def _from_arrays(arrays: Mapping[str, np.ndarray], source: str) -> Batch:
    """The batch of arrays named as in an `.npz`."""
    notes: list[str] = []
    per_side = [name for name in ("x_ref", "x_keras") if name in arrays]
    if "x" not in arrays and len(per_side) != 2:
        found = ", ".join(sorted(arrays)) or "nothing"
        lacks = "has no array x" if not per_side else f"has {per_side[0]} but not the other side's"
        raise BadFile(source, f"{lacks} (it has {found})", "save images with numpy.savez(path, x=..., y=...)")
    read = {name: _images(arrays[name], name, source, notes) for name in ("x", *per_side) if name in arrays}
    x_ref, x_keras = read.get("x_ref", read.get("x")), read.get("x_keras", read.get("x"))
    if x_ref is None or x_keras is None:  # cannot be: either x or both sides' are there
        raise BadFile(source, "has no array x")
    if len(x_ref) != len(x_keras):
        raise BadFile(source, f"x_ref holds {len(x_ref)} images and x_keras {len(x_keras)}", "both sides need the same")
    y_ref, classes = _labels(arrays, "y_ref", len(x_ref), source, notes)
    y_keras, classes_keras = _labels(arrays, "y_keras", len(x_ref), source, notes)
    if y_ref is not None and y_keras is not None and np.array_equal(y_ref, y_keras):
        y_keras = y_ref
    return Batch(x_ref, x_keras, y_ref, y_keras, source, classes or classes_keras, tuple(dict.fromkeys(notes)))


def _images(array: np.ndarray, name: str, source: str, notes: list[str]) -> np.ndarray:
    """`array` as float32 (n h w c) or (n c), finite."""
    if array.dtype.kind not in "fiub":
        raise BadFile(source, f"{name} holds {array.dtype}, not real numbers")
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise BadFile(source, f"{name} has the shape {_by(array.shape)}", "images are (n, h, w, c)")
    if array.ndim == 3:
        notes.append(f"{name} has no channel axis: taken as (n, h, w, 1)")
        array = array[..., np.newaxis]
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


def _labels(
    arrays: Mapping[str, np.ndarray], name: str, count: int, source: str, notes: list[str]
) -> tuple[np.ndarray | None, int | None]:
    """The ids that `name` (or `y`) holds, and the number of classes if they are one-hot."""
    name = name if name in arrays else "y"
    if name not in arrays:
        return None, None
    y = np.asarray(arrays[name])
    if y.dtype.kind not in "fiub" or y.ndim not in (1, 2, 3):
        raise BadFile(
            source, f"{name} holds {y.dtype} of shape {_by(y.shape)}", "labels are class ids from 0, or one-hot"
        )
    if len(y) != count:
        raise BadFile(source, f"{name} has {len(y)} labels for {count} images")
    if y.ndim == 2 and y.shape[1] > 1:
        hot = (y == 1).sum(axis=1) == 1
        bad = ~(hot & ((y == 0).sum(axis=1) == y.shape[1] - 1))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise BadFile(source, f"row {row} of {name} is not one-hot", "one 1 and else zeros, or save class ids (n,)")
        return y.argmax(axis=1).astype(np.int64), int(y.shape[1])
    y = y[:, 0] if y.ndim == 2 else y
    if y.dtype.kind == "f" and not np.all(np.isfinite(y) & (y == np.floor(y))):
        raise BadFile(source, f"{name} holds labels that are not whole numbers", "labels are class ids from 0")
    if y.min() < 0:
        raise BadFile(source, f"{name} holds the label {int(y.min())}", "labels are class ids from 0")
    if y.max() > np.iinfo(np.int32).max:
        raise BadFile(source, f"{name} holds the label {int(y.max())}", "labels are class ids from 0")
    if y.min() >= 1:
        notes.append(
            f"no label of {name} is 0: labels in a batch count from 0, so check that these do not count from 1"
        )
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
        if not np.all(np.isfinite(ids) & (ids == np.floor(ids)) & (ids >= 1)):
            raise BadFile(path, f"images.labels holds {ids.min():g}", "MatConvNet's labels count from 1 (0 is ignored)")
        arrays["y"] = ids.astype(np.int64) - 1
    batch = _from_arrays(arrays, str(path))
    # The ids came from 1 for certain, so their smallest says nothing here.
    notes = [note for note in batch.notes if not note.startswith("no label")]
    if len(chosen) < count:
        notes.append(f"the first {len(chosen)} training images of {count} in the imdb make the batch")
    mean = _numbers(images, "data_mean")
    if mean is not None:
        notes += filter(None, [mean_note(batch.x_ref, mean, "the imdb's data_mean")])
    return replace(batch, notes=tuple(notes))


def _numbers(holder: object, name: str) -> np.ndarray | None:
    """The non-empty array of real numbers that a struct has under this name."""
    value = holder.get(name) if isinstance(holder, Mapping) else None
    real = isinstance(value, np.ndarray) and value.dtype.kind in "fiub" and value.size > 0
    return value if real else None


def _four_axes(data: np.ndarray, labels: int | None, path: Path) -> np.ndarray:
    """`data` as (h, w, c, n): MATLAB drops trailing axes of extent 1, and some databases leave the channel out."""
    if data.ndim > 4:
        raise BadFile(path, f"images.data has the shape {_by(data.shape)}", "MatConvNet's is (h, w, c, n)")
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


def fit(batch: Batch, shape: tuple[int | None, ...], classes: int | None, side: str = "both") -> Batch:
    """`batch`, if a network takes its images and tells its labels apart; vectors are given the map they need.

    Args:
        batch: the batch.
        shape: what the network takes, (h w c) or (c); None where it leaves an extent open.
        classes: how many classes the network tells apart (1: one logit for two classes); None skips the labels.
        side: `"ref"`, `"keras"`, or `"both"`.

    Raises:
        BadFile: what does not fit, in one line.
    """
    changed: dict[str, np.ndarray] = {}
    for name in ("ref", "keras") if side == "both" else (side,):
        x: np.ndarray = getattr(batch, f"x_{name}")
        y: np.ndarray | None = getattr(batch, f"y_{name}")
        fitted = _fit_images(x, shape, batch.source, name)
        if fitted is not x:
            changed[f"x_{name}"] = fitted
        if classes is not None and y is not None:
            _fit_labels(y, classes, batch)
    if side == "both" and batch.x_ref is batch.x_keras and "x_ref" in changed:
        changed["x_keras"] = changed["x_ref"]
    return replace(batch, **changed) if changed else batch


def _fit_images(x: np.ndarray, shape: tuple[int | None, ...], source: str, side: str) -> np.ndarray:
    have = x.shape[1:]
    if len(shape) == 3 and len(have) == 1 and shape[0] in (1, None) and shape[1] in (1, None):
        x = x.reshape(len(x), 1, 1, -1)
    elif len(shape) == 1 and len(have) == 3 and have[:2] == (1, 1):
        x = x.reshape(len(x), -1)
    have = x.shape[1:]
    if len(have) == len(shape) and all(want in (None, got) for got, want in zip(have, shape, strict=True)):
        return x
    remedy = "prepare the images as the network takes them"
    if len(shape) == len(have) == 3 and all(w in (None, g) for g, w in zip((*have[1:], have[0]), shape, strict=True)):
        remedy = "the axes of x are (n, h, w, c), these look like (n, c, h, w)"
    elif len(shape) == 3 and all(w in (None, g) for g, w in zip(x.shape[:3], shape, strict=True)):
        remedy = "the axes of x are (n, h, w, c), these look like MatConvNet's (h, w, c, n)"
    whose = "the reference" if side == "ref" else "the Keras model"
    raise BadFile(source, f"holds images of {_by(have)}, but {whose} takes {_by(shape)}", remedy)


def _fit_labels(y: np.ndarray, classes: int, batch: Batch) -> None:
    told = max(classes, 2)  # one logit tells two classes apart
    if batch.classes is not None and batch.classes != told:
        raise BadFile(batch.source, f"has one-hot labels of {batch.classes} classes, but the network has {classes}")
    if y.max() >= told:
        remedy = "labels in a batch count from 0"
        if y.min() >= 1 and y.max() == told:
            remedy += ", and these seem to count from 1: subtract 1"
        raise BadFile(batch.source, f"holds the label {int(y.max())}, but the network has {classes} classes", remedy)


def _by(shape: tuple[int | None, ...]) -> str:
    return "×".join("?" if extent is None else str(extent) for extent in shape) or "()"


def probe(shape: tuple[int, ...], classes: int | None, seed: int, n: int | None = None) -> Batch:
    """A generated batch on which faults show that real images would hide; the same for the same arguments.

    Values have both signs and a root mean square of 1. No channel, border or direction looks like another: there is a
    slope along each axis, an offset at each border, and a mean and a spread of its own for each channel. Within a
    channel of an image no two values are equal, so no pooling window has a tie, and none is exactly zero.

    Args:
        shape: (h w c) or (c).
        classes: how many the labels go round; None makes no labels.
        seed: of the generator.
        n: images; by default 16, and 8 where an image has more than 16 384 values.
    """
    rng = np.random.default_rng(seed)
    h, w, c = shape if len(shape) == 3 else (1, 1, shape[0])
    n = n or (16 if h * w * c <= 16_384 else 8)
    rows, columns = np.linspace(-1, 1, h)[:, None, None], np.linspace(-1, 1, w)[None, :, None]
    x = rng.standard_normal((n, h, w, c))
    x += rng.uniform(0.3, 0.9, c) * rows - rng.uniform(0.2, 0.7, c) * columns
    for border, (axis, end) in enumerate(((1, 0), (1, -1), (2, 0), (2, -1))):
        if x.shape[axis] > 2:
            where = [slice(None)] * 4
            where[axis] = slice(0, 1) if end == 0 else slice(-1, None)
            x[tuple(where)] += 0.35 * (border + 1) * (-1) ** border
    # Spreads over a decade: a wrong epsilon of a normalisation shows where the variance is small.
    if c > 1:
        x = x * np.geomspace(0.3, 3.0, c)[rng.permutation(c)] + np.linspace(-0.6, 0.7, c)[rng.permutation(c)]
    x += rng.uniform(-0.2, 0.2, (n, 1, 1, 1))
    x = (x / np.sqrt(np.mean(x**2))).astype(np.float32)
    _untie(x, rng)
    x = x.reshape((n, *shape))
    y = None
    if classes is not None:
        told = max(classes, 2)
        y = np.concatenate([rng.permutation(told) for _ in range(-(-n // told))])[:n].astype(np.int64)
    return Batch(x, x, y, y, f"a probe batch (seed {seed})")


def _untie(x: np.ndarray, rng: np.random.Generator) -> None:
    """Redraw, in place, what is zero or equals another value of its channel and image (n h w c, float32)."""
    planes = np.moveaxis(x, 3, 1).reshape(x.shape[0] * x.shape[3], -1)
    while True:
        order = np.argsort(planes, axis=1)
        ranked = np.take_along_axis(planes, order, axis=1)
        again = np.zeros(planes.shape, bool)
        equal = np.pad(ranked[:, 1:] == ranked[:, :-1], ((0, 0), (1, 0)))
        np.put_along_axis(again, order, equal, axis=1)
        again |= planes == 0
        if not again.any():
            break
        planes[again] += rng.uniform(-0.1, 0.1, int(again.sum())).astype(np.float32)
    x[...] = np.moveaxis(planes.reshape(x.shape[0], x.shape[3], *x.shape[1:3]), 1, 3)
