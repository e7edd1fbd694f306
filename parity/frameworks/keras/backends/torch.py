"""Keras 3 on torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from parity.frameworks.keras.backends.base import Backend, Gradients, Made, Watch, nothing, promoted_to_double

__all__ = ["Torch", "make"]


class Torch(Backend):
    """Keras 3 on torch: its tensors know how they were made, so every one can be differentiated with respect to."""

    name = "torch"

    def __init__(self) -> None:
        import keras
        import torch

        self.torch, self.version = torch, torch.__version__
        self._convert: Any = keras.ops.convert_to_tensor

    def remark(self, class_name: str, config: Mapping[str, Any]) -> str:
        """Keras' own `average_pool` (keras/src/backend/torch/nn.py, `_apply_same_padding`)."""
        if class_name.startswith("AveragePooling") and config.get("padding") == "same":
            return 'pads "same" by repeating the border on torch, which tensorflow and jax leave out of the mean'
        return ""

    def constant(self, value: Any, dtype: str | None = None) -> Any:
        """On the device that Keras computes on."""
        value = value if self.torch.is_tensor(value) else np.asarray(value)
        return self._convert(value, dtype=dtype).detach()

    def numpy(self, tensor: Any) -> np.ndarray:
        """A view, on a CPU; numpy has no bfloat16."""
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.dtype == self.torch.bfloat16 else tensor).numpy()

    def is_tensor(self, item: Any) -> bool:
        """A parameter inside a variable is none that a layer is given."""
        return isinstance(item, self.torch.Tensor) and not isinstance(item, self.torch.nn.Parameter)

    def cast(self, tensor: Any, dtype: str) -> Any:
        """`Tensor.to`."""
        return tensor.to(getattr(self.torch, dtype))

    def alias(self, tensor: Any) -> Any:
        """A view of the same memory."""
        copy = tensor.view_as(tensor)
        if hasattr(tensor, "_keras_mask"):
            copy._keras_mask = tensor._keras_mask
        return copy

    def equal(self, first: Any, second: Any) -> bool:
        """`torch.equal`."""
        return self.torch.equal(first, second)

    @contextlib.contextmanager
    def precision(self, bits: int) -> Iterator[None]:
        """Torch has float64 at any time; Keras must be let use it."""
        with promoted_to_double() if bits == 64 else contextlib.nullcontext():
            yield

    def snapshot(self, variable: Any) -> Any:
        """A copy: variables are assigned to in place."""
        return self.raw(variable).detach().clone()

    def ones_like(self, tensor: Any) -> Any:
        """`torch.ones_like`."""
        return self.torch.ones_like(tensor)

    @contextlib.contextmanager
    def same_draw(self) -> Iterator[None]:
        """Dropout without a seed draws from torch's global generator."""
        with self.torch.random.fork_rng():
            yield

    @contextlib.contextmanager
    def no_gradients(self) -> Iterator[None]:
        """`torch.no_grad`."""
        with self.torch.no_grad():
            yield

    def differentiate(
        self,
        function: Callable[[Mapping[str, Any], Watch], Made],
        tensors: Mapping[str, Any],
        variables: Mapping[str, Any],
        backward: bool,
    ) -> tuple[Made, Gradients]:
        """Autograd; frozen variables are thawed for this run."""
        torch = self.torch
        if not backward:
            with torch.no_grad():
                return function(tensors, lambda tensor: tensor), nothing
        raw = {key: self.raw(variable) for key, variable in variables.items()}
        raw = {key: tensor for key, tensor in raw.items() if tensor.is_floating_point()}
        for tensor in tensors.values():
            if tensor.is_floating_point():
                tensor.requires_grad_()
        with torch.enable_grad(), _thawed(raw):
            made = function(tensors, lambda tensor: tensor)

        def gradients(objectives: Mapping[str, Any], sources: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
            known = {**tensors, **made.tensors, **made.objectives}
            targets = {name: made.objectives[name] for name in objectives if made.objectives[name].requires_grad}
            if not targets:
                return {}, {}
            wanted = {name: known[name] for name in sources if known[name].requires_grad}
            seeds = [
                torch.ones_like(target) if objectives[name] is None else objectives[name].to(target.dtype)
                for name, target in targets.items()
            ]
            with _thawed(raw):
                found = torch.autograd.grad(
                    list(targets.values()), [*wanted.values(), *raw.values()], seeds, allow_unused=True
                )
            pairs = list(zip([*wanted, *raw], found, strict=True))
            split = len(wanted)
            return (
                {name: value for name, value in pairs[:split] if value is not None},
                {key: value for key, value in pairs[split:] if value is not None},
            )

        return made, gradients


@contextlib.contextmanager
def _thawed(tensors: Mapping[str, Any]) -> Iterator[None]:
    """Lets derivatives with respect to frozen parameters be taken."""
    frozen = [tensor for tensor in tensors.values() if not tensor.requires_grad]
    try:
        for tensor in frozen:
            tensor.requires_grad_(True)
        yield
    finally:
        for tensor in frozen:
            tensor.requires_grad_(False)


def make() -> Backend:
    """The backend."""
    return Torch()
