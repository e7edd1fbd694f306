"""Between numpy's `n h w c` and torch's `n c h w`, without copies: channels_last memory is `n h w c` memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["derivatives", "from_torch", "label_tensor", "label_weights", "target_tensor", "to_torch", "weight_tensor"]


def to_torch(array: np.ndarray, precision: int, grad: bool = False) -> torch.Tensor:
    """An activation n h w c (or n c, or a number) as a torch tensor n c h w in channels_last memory, a leaf."""
    import torch

    tensor = torch.from_numpy(
        np.ascontiguousarray(array, np.float64 if precision == 64 else np.float32).reshape(array.shape)
    )
    if tensor.dim() > 2:
        tensor = tensor.movedim(-1, 1)
    return tensor.requires_grad_() if grad else tensor


def from_torch(tensor: torch.Tensor) -> np.ndarray:
    """A torch tensor n c h w (or n c, or a number) as numpy n h w c; shares memory where the layout allows it."""
    plain = tensor.detach()
    return (plain.movedim(1, -1) if plain.dim() > 2 else plain).numpy()


def weight_tensor(array: np.ndarray, precision: int, grad: bool) -> torch.Tensor:
    """A parameter as a torch leaf in its own axes; the array's memory is not written to."""
    import torch

    wanted = np.float64 if precision == 64 else np.float32
    kept = np.ascontiguousarray(array, wanted).reshape(array.shape)
    if not kept.flags.writeable:
        kept = kept.copy()  # torch warns about memory that it must not write
    tensor = torch.from_numpy(kept)
    return tensor.requires_grad_() if grad else tensor


def label_tensor(labels: np.ndarray) -> torch.Tensor:
    """Class ids (n,) or (n, h, w) as a torch tensor; one-hot vectors (n, c) become ids."""
    import torch

    ids = np.argmax(labels, axis=1) if labels.ndim == 2 else labels
    return torch.from_numpy(np.ascontiguousarray(ids, np.int64))


def target_tensor(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Targets (n h w c), (n c) or (n,) as a torch tensor n c h w of the type of predictions `like`."""
    import torch

    array = np.asarray(values)
    array = array.reshape(array.shape[0], *(1,) * (4 - array.ndim), *array.shape[1:]) if array.ndim > 1 else array
    array = array.reshape(-1, 1, 1, 1) if array.ndim == 1 else np.moveaxis(array, -1, 1)
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype)


def label_weights(weights: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Weights (n,) or (n, h, w) of labels, as they broadcast against (n, h, w), of the type of `like`."""
    import torch

    array = np.asarray(weights)
    array = array.reshape(*array.shape, *(1,) * (3 - array.ndim))
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype)


def derivatives(
    made: Sequence[torch.Tensor], sources: Sequence[torch.Tensor], upstream: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor | None, ...]:
    """Derivatives of Σ ⟨upstream, made⟩ for each source, or None where none of it was made of it; None is a sum."""
    import torch

    pulled = [torch.ones_like(m) if u is None else u.reshape(m.shape) for m, u in zip(made, upstream, strict=True)]
    ends = [_pulling().apply(m, u) for m, u in zip(made, pulled, strict=True)]
    return torch.autograd.grad(ends, sources, allow_unused=True)


@cache
def _pulling() -> Any:
    """A number whose derivative is the given one: told it as `grad_outputs`, torch imports sympy first."""
    import torch

    class Pulling(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, made: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(upstream)
            return made.new_zeros(())

        @staticmethod
        def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor, None]:
            return ctx.saved_tensors[0], None

    return Pulling
