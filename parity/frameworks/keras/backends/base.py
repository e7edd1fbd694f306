"""The face that tensorflow, torch and jax share: constants, derivatives, random draws."""

from __future__ import annotations

import contextlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Backend", "Gradients", "Made", "Watch"]

Watch: TypeAlias = Callable[[Any], Any]
"""Tensor → the tensor to compute on with, so that a derivative with respect to it can be asked for."""

Gradients: TypeAlias = Callable[[Mapping[str, Any], Collection[str]], tuple[dict[str, Any], dict[str, Any]]]
"""(objective → its weight as a tensor or None for 1, names of tensors) → derivatives by tensor and by variable.

What the objectives do not depend on is absent. It can be called once.
"""


@dataclass
class Made:
    """What a run leaves.

    Attributes:
        objectives: name → tensor that may be differentiated.
        tensors: name → tensor that they may be differentiated with respect to.
        other: nested dicts of tensors that are only looked at.
    """

    objectives: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)


class Backend(ABC):
    """One backend. Data types are words: `"float32"`.

    Attributes:
        name: as `KERAS_BACKEND` spells it.
        version: of its package.
        compiles: whether the first run of each operation on each shape costs far more than the next.
    """

    name: str
    version: str
    compiles: bool = False

    def remark(self, class_name: str, config: Mapping[str, Any]) -> str:
        """What a layer of Keras 3 computes elsewise on this backend than on tensorflow; empty for nothing.

        Args:
            class_name: e.g. `"AveragePooling2D"`.
            config: its settings.
        """
        return ""

    # Values -----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def constant(self, value: Any, dtype: str | None = None) -> Any:
        """A tensor of these values (a number, an array or a tensor); without `dtype` in the array's own type."""

    def lent(self, value: np.ndarray, dtype: str | None = None) -> Any:
        """As `constant`, but of memory that nobody writes to while the tensor is used: it need not be copied."""
        return self.constant(value, dtype)

    @abstractmethod
    def numpy(self, tensor: Any) -> np.ndarray:
        """A tensor's values, without a copy where the backend allows it: not to be written to."""

    @abstractmethod
    def is_tensor(self, item: Any) -> bool:
        """Whether it is a tensor of this backend, and no variable."""

    @abstractmethod
    def cast(self, tensor: Any, dtype: str) -> Any:
        """The tensor in another type."""

    @abstractmethod
    def alias(self, tensor: Any) -> Any:
        """Another object of the same values, through which derivatives pass."""

    @abstractmethod
    def equal(self, first: Any, second: Any) -> bool:
        """Whether two tensors of one shape and type hold the same values."""

    def scalar(self, tensor: Any) -> float:
        """The one value of a tensor."""
        return float(self.numpy(tensor))

    def dtype(self, tensor: Any) -> str:
        """The word for a tensor's data type."""
        return str(getattr(tensor.dtype, "name", tensor.dtype)).removeprefix("torch.")

    def is_floating(self, tensor: Any) -> bool:
        """Whether derivatives with respect to it exist."""
        return "float" in self.dtype(tensor)

    @contextlib.contextmanager
    def precision(self, bits: int) -> Iterator[None]:
        """Inside, values of this many bits are possible."""
        yield

    # Variables --------------------------------------------------------------------------------------------------------

    def raw(self, variable: Any) -> Any:
        """The tensor inside a variable, with respect to which is differentiated."""
        return variable.value

    def snapshot(self, variable: Any) -> Any:
        """A variable's present value, which later assignments leave as it is."""
        return np.array(variable.numpy())

    def holds(self, variable: Any, value: np.ndarray) -> bool:
        """Whether a variable's present values are these, in its own type."""
        present = self.numpy(self.raw(variable))
        return present.dtype == value.dtype and np.array_equal(present, value)

    @contextlib.contextmanager
    def untouched(self, variables: Sequence[Any]) -> Iterator[None]:
        """Puts these variables back afterwards, whatever happens in between."""
        saved = [(variable, self.snapshot(variable)) for variable in variables]
        try:
            yield
        finally:
            for variable, value in saved:
                variable.assign(value)

    # Layers -----------------------------------------------------------------------------------------------------------

    def quicker(self, layer: Any) -> Mapping[str, Callable[..., Any]]:
        """Methods of one of Keras' own layers → what does the same in less time when it is called again and again."""
        return {}

    # Randomness -------------------------------------------------------------------------------------------------------

    def drop(self, layer: Callable[[Any], Any], x: Any, state: Sequence[Any]) -> tuple[Any, Any]:
        """What Keras' own dropout makes of `x`, and of ones, with the same draw.

        Args:
            layer: a dropout layer's `call` with all its arguments but the first.
            x: what is dropped from.
            state: the variables that the draw depends on and moves.
        """
        with self.untouched(state), self.same_draw():
            ones = layer(self.ones_like(x))
        return layer(x), ones

    @abstractmethod
    def ones_like(self, tensor: Any) -> Any:
        """Ones of its shape and type."""

    @contextlib.contextmanager
    def same_draw(self) -> Iterator[None]:
        """Puts the backend's global random state back afterwards, where it has one."""
        yield

    def step(self, optimizer: Any, pairs: Sequence[tuple[Any, Any]]) -> None:
        """One step of an optimizer that is built: (gradient, variable) of every variable that moves."""
        with self.no_gradients():
            optimizer.apply_gradients(list(pairs))

    @contextlib.contextmanager
    def no_gradients(self) -> Iterator[None]:
        """Inside, nothing is noted for later derivatives."""
        yield

    # Derivatives ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def differentiate(
        self,
        function: Callable[[Mapping[str, Any], Watch], Made],
        tensors: Mapping[str, Any],
        variables: Mapping[str, Any],
        backward: bool,
    ) -> tuple[Made, Gradients]:
        """Runs a function so that its objectives can be differentiated.

        Args:
            function: of the tensors; it reads the variables itself. Its result must be used in place of what it left
                elsewhere (on jax it sees placeholders for values).
            tensors: name → tensor to differentiate with respect to, whole numbers passed through.
            variables: id → variable to do the same with, frozen ones too.
            backward: False runs only, and the derivatives are empty.
        """


@contextlib.contextmanager
def promoted_to_double() -> Iterator[None]:
    """Lets Keras 3 promote to float64, which it does on tensorflow alone.

    Elsewhere its table of promotions turns float64 into float32, so that a BatchNormalization of dtype float64 computes
    in float32 (keras/src/backend/common/dtypes.py, `BIT64_TO_BIT32_DTYPE`, `_lattice_result_type`).

    Raises:
        NotImplementedError: this Keras has no such table, and nothing says what it does instead.
    """
    table = getattr(importlib.import_module("keras.src.backend.common.dtypes"), "BIT64_TO_BIT32_DTYPE", None)
    if table is None or "float64" not in table:
        raise NotImplementedError("this Keras cannot be told to compute in float64 on this backend")
    before = table["float64"]
    table["float64"] = "float64"
    try:
        yield
    finally:
        table["float64"] = before


def nothing(objectives: Mapping[str, Any], sources: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The derivatives of a run without any."""
    return {}, {}
