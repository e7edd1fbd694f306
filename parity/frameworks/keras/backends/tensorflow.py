"""Keras on tensorflow, run eagerly under one gradient tape."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from parity.frameworks.keras.backends.base import Backend, Gradients, Made, Watch, nothing

__all__ = ["TensorFlow", "make"]


_ALIGNED = 64
"""Bytes at whose multiples tensorflow's kernels take a tensor to begin (Eigen's EIGEN_MAX_ALIGN_BYTES)."""

_WORTHWHILE = 1 << 16
"""Bytes below which a copy costs nothing."""


def _aligned(value: np.ndarray, dtype: str) -> np.ndarray:
    """A copy in rows, of this type, that begins where tensorflow's kernels take a tensor to begin."""
    size = value.size * np.dtype(dtype).itemsize
    held = np.empty(size + _ALIGNED, np.uint8)
    start = -held.ctypes.data % _ALIGNED
    made = held[start : start + size].view(dtype).reshape(value.shape)
    np.copyto(made, value, casting="same_kind")
    return made


class TensorFlow(Backend):
    """Both Kerases on tensorflow."""

    name = "tensorflow"

    def __init__(self) -> None:
        import tensorflow as tf

        self.tf, self.version = tf, tf.__version__

    def constant(self, value: Any, dtype: str | None = None) -> Any:
        """A constant; a tensor is cast."""
        if self.tf.is_tensor(value):
            return value if dtype is None else self.tf.cast(value, dtype)
        return self.tf.constant(np.asarray(value), dtype)

    def lent(self, value: np.ndarray, dtype: str | None = None) -> Any:
        """The array's own memory where its kernels can read it as it lies, or a copy that other threads run beside.

        `tf.constant` copies twice, and stops every thread of Python while it does.
        """
        wanted = dtype or value.dtype.name
        if value.nbytes < _WORTHWHILE or value.dtype.kind != "f" or wanted not in ("float32", "float64"):
            return self.constant(value, dtype)
        lies = value.flags.c_contiguous and value.flags.writeable and value.ctypes.data % _ALIGNED == 0
        if not lies or value.dtype.name != wanted:
            value = _aligned(value, wanted)
        return self.tf.experimental.dlpack.from_dlpack(value.__dlpack__())

    def numpy(self, tensor: Any) -> np.ndarray:
        """A view of an eager tensor's buffer; snapshots are arrays already."""
        if isinstance(tensor, np.ndarray):
            return tensor
        view = getattr(tensor, "_numpy", None)
        return np.asarray(view() if view is not None else tensor.numpy())

    def is_tensor(self, item: Any) -> bool:
        """Variables have `assign`."""
        return self.tf.is_tensor(item) and not hasattr(item, "assign")

    def cast(self, tensor: Any, dtype: str) -> Any:
        """`tf.cast`."""
        return self.tf.cast(tensor, dtype)

    def alias(self, tensor: Any) -> Any:
        """`tf.identity`, with the logits behind a softmax that Keras' losses look for, and the mask."""
        copy = self.tf.identity(tensor)
        for name in ("_keras_logits", "_keras_mask"):
            if hasattr(tensor, name):
                setattr(copy, name, getattr(tensor, name))
        return copy

    def equal(self, first: Any, second: Any) -> bool:
        """Elementwise."""
        return bool(self.tf.reduce_all(first == second))

    def raw(self, variable: Any) -> Any:
        """Keras 3 wraps a `tf.Variable`, Keras 2 is one (whose `value` is a method)."""
        return variable if callable(getattr(variable, "value", None)) else variable.value

    def holds(self, variable: Any, value: np.ndarray) -> bool:
        """Seen in the variable's own memory, which `Variable.numpy` copies."""
        present = self.numpy(self.raw(variable).value())
        return present.dtype == value.dtype and np.array_equal(present, value)

    def quicker(self, layer: Any) -> Mapping[str, Callable[..., Any]]:
        """Keras 3 compiles a grouped convolution anew at each call (keras/src/backend/tensorflow/nn.py, `conv`).

        That takes some 0.4 s, forward and backward. Here the same operation is compiled once for each shape.
        """
        owner = next((c for c in type(layer).__mro__ if "convolution_op" in vars(c)), None)
        if getattr(layer, "groups", 1) == 1 or owner is None or not owner.__module__.startswith("keras.src."):
            return {}
        settings = (tuple(layer.strides), layer.padding, tuple(layer.dilation_rate), layer.data_format)

        def convolution_op(inputs: Any, kernel: Any) -> Any:
            kernel = self.tf.convert_to_tensor(kernel)
            compiled = _compiled(owner, *settings, inputs.dtype, tuple(inputs.shape), tuple(kernel.shape))
            return compiled(inputs, kernel)

        return {"convolution_op": convolution_op}

    def ones_like(self, tensor: Any) -> Any:
        """`tf.ones_like`."""
        return self.tf.ones_like(tensor)

    def drop(self, layer: Callable[[Any], Any], x: Any, state: Sequence[Any]) -> tuple[Any, Any]:
        """Dropout here is a product with mask/(1 - rate): one draw gives both, bit for bit.

        Keras 2's draws cannot be repeated: they come from the kernel's own counter.
        """
        ones = layer(self.tf.ones_like(x))
        return x * ones, ones

    def differentiate(
        self,
        function: Callable[[Mapping[str, Any], Watch], Made],
        tensors: Mapping[str, Any],
        variables: Mapping[str, Any],
        backward: bool,
    ) -> tuple[Made, Gradients]:
        """One tape over everything."""
        if not backward:
            return function(tensors, lambda tensor: tensor), nothing
        raw = {key: self.raw(variable) for key, variable in variables.items()}
        raw = {key: variable for key, variable in raw.items() if self.is_floating(variable)}
        with self.tf.GradientTape() as tape:
            tape.watch([t for t in tensors.values() if self.is_floating(t)] + list(raw.values()))
            made = function(tensors, lambda tensor: tensor)
        tapes = [tape]

        def gradients(objectives: Mapping[str, Any], sources: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
            known = {**tensors, **made.tensors, **made.objectives}
            wanted = {name: known[name] for name in sources if self.is_floating(known[name])}
            targets = [made.objectives[name] for name in objectives]
            seeds = [
                self.tf.ones_like(target) if seed is None else self.tf.cast(seed, target.dtype)
                for target, seed in zip(targets, objectives.values(), strict=True)
            ]
            found, by_variable = tapes.pop().gradient(
                targets, [list(wanted.values()), list(raw.values())], output_gradients=seeds
            )
            return self._present(wanted, found), self._present(raw, by_variable)

        return made, gradients

    def _present(self, names: Collection[str], found: Sequence[Any]) -> dict[str, Any]:
        """What there is, dense: the gradient of a lookup is sparse."""
        pairs = zip(names, found, strict=True)
        return {name: self.tf.convert_to_tensor(value) for name, value in pairs if value is not None}


@lru_cache(256)
def _compiled(owner: Any, strides: Any, padding: str, dilation_rate: Any, data_format: str, *_: Any) -> Any:
    """A convolution as Keras' base class makes it, compiled; the rest of the arguments are what it is compiled for."""
    import tensorflow as tf

    settings = SimpleNamespace(
        strides=strides, padding=padding, dilation_rate=dilation_rate, data_format=data_format
    )  # fmt: skip
    return tf.function(lambda inputs, kernel: owner.convolution_op(settings, inputs, kernel), jit_compile=True)


def make() -> Backend:
    """The backend."""
    return TensorFlow()
