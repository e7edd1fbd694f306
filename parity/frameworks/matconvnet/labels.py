"""Labels of a batch as a loss layer takes them, held against its predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from parity.errors import BadFile, CannotCompare
from parity.frameworks.matconvnet.sizes import times
from parity.frameworks.matconvnet.tensors import from_torch, label_tensor, label_weights, target_tensor
from parity.layers import Loss
from parity.layers.loss_words import as_signs
from parity.network import Layer, Network
from parity.runner import Targets

if TYPE_CHECKING:
    import torch

__all__ = ["has_labels", "labels_from_matlab", "labels_of"]


def has_labels(network: Network, layer: Layer, targets: Targets | None) -> bool:
    """Whether a layer reads no labels, or these hold what it reads."""
    label = network.label_of(layer)
    return not label or (targets is not None and label in targets.values)


def labels_of(
    network: Network, layer: Layer, targets: Targets | None, x: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Labels and instance weights of a loss on predictions `x` (n c h w), in the form that its kind wants.

    Class ids (n,) or (n, h, w) from 0, -1 ignored; signs or values as a tensor n c h w. Raises CannotCompare for labels
    that do not fit.
    """
    name, label = network.name, network.label_of(layer)
    if targets is None or label not in targets.values:
        raise CannotCompare(f"{name}: the loss {layer.name} needs labels")
    values = np.asarray(targets.values[label])
    weights = targets.weights.get(label)
    weighing = None if weights is None else label_weights(weights, x)
    kind = layer.kind
    if isinstance(kind, Loss) and kind.target == "signs":
        weighing = None if weighing is None else weighing.unsqueeze(1)
        return target_tensor(as_signs(values), x), weighing
    if isinstance(kind, Loss) and (kind.target == "values" or (kind.target == "either" and _is_target(values, x))):
        return _values(name, values, x), weighing
    return _label_ids(name, layer, values, x), weighing


def _is_target(values: np.ndarray, x: torch.Tensor) -> bool:
    """Whether labels are values in the predictions' shape, or one per image, rather than classes."""
    if values.ndim == 1:
        return x.shape[1] == 1
    return values.shape[-1] == x.shape[1] and (x.shape[1] > 1 or values.dtype.kind == "f")


def _values(name: str, given: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    """Targets in the predictions' shape (n c h w), or one per image and channel."""
    target = target_tensor(given, x)
    wanted = tuple(x.shape) + (1,) * (4 - x.dim())
    if target.shape[:2] != wanted[:2] or tuple(target.shape[2:]) not in (wanted[2:], (1, 1)):
        raise CannotCompare(f"{name}: targets of shape {given.shape} for predictions {times(from_torch(x).shape)}")
    return target


def _label_ids(name: str, layer: Layer, given: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    """Class ids from 0, -1 ignored, checked against the predictions `x` (n c h w)."""
    images, classes, *extents = x.shape
    if given.ndim in (3, 4) and given.shape[1:] not in ((*extents,), (*extents, 1)):
        raise CannotCompare(f"{name}: labels per pixel are {times(given.shape[1:])}, the predictions {times(extents)}")
    if given.ndim == 4:
        given = given[..., 0]
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim not in (1, 2, 3) or len(given) != images:
        raise CannotCompare(f"{name}: {images} images, but labels of shape {given.shape}")
    if given.ndim == 2:
        if given.shape[1] != classes:
            raise CannotCompare(f"{name}: one-hot labels of {given.shape[1]} classes for {classes} outputs")
    elif given.size and not np.array_equal(given, np.round(given)):
        raise CannotCompare(f"{name}: class labels must be whole numbers")
    elif given.size and (given.min() < -1 or given.max() >= max(classes, 1 + _probability(layer, classes))):
        low, high = int(given.min()), int(given.max())
        raise CannotCompare(
            f"{name}: labels run from {low} to {high}, but its {classes} classes count from 0 to {classes - 1}"
        )
    return label_tensor(given)


def _probability(layer: Layer, classes: int) -> bool:
    """Whether the only output is a probability or value, for which labels 0 and 1 are targets and not classes."""
    from parity.layers._losses import VECTOR

    return classes == 1 and isinstance(layer.kind, Loss) and layer.kind.function in VECTOR


def labels_from_matlab(file: str, network: Network, name: str, value: np.ndarray) -> np.ndarray:
    """The labels that MatConvNet was given, as a batch holds them.

    vl_nnloss ignores 0 and takes a negative label for class 1 (`max(c - 1, 0)`); vl_nnsoftmaxloss ignores both.

    Args:
        file: what to call the file in an error.
        network: which reads them.
        name: the label's.
        value: (n, h, w, c), or (n, 1, 1, 1).

    Returns:
        Class ids from 0, -1 for what is ignored, (n,) or per pixel (n, h, w); for other losses values (n, h, w, c).

    Raises:
        BadFile: labels that this cannot say.
    """
    readers = [layer for layer in network if network.label_of(layer) == name]
    targets = {layer.kind.target for layer in readers if isinstance(layer.kind, Loss)}
    if "ids" not in targets:
        if "signs" in targets and value.size and value.min() >= 0 and not value.all():
            raise BadFile(file, f"its labels {name} are all 0 or 1", "record labels of -1 and 1 (0 is ignored)")
        return value.astype(np.float32)
    if value.shape[-1] != 1 or not np.array_equal(value, np.round(value)):
        what = "with weights of pixels" if value.shape[-1] == 2 else "that are no classes"
        raise BadFile(
            file, f"was recorded with labels {name} {what}", "record one label from 1 for each image or pixel"
        )
    ignored = value <= 0 if all(layer.source_type == "softmaxloss" for layer in readers) else value == 0
    ids = np.where(ignored, -1, np.maximum(value - 1, 0)).astype(np.int64)[..., 0]
    return ids.reshape(-1) if ids.shape[1:] == (1, 1) else ids
