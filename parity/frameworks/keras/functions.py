"""Functions of tensorflow (`tf.concat`) that are called on symbolic tensors of Keras 3, as operations of their graph.

Keras 2 turns such calls into layers; Keras 3 refuses them. Where a model's own code is asked for its graph they are
bare operations like `keras.ops`' own: tensorflow hands over what its functions cannot take, and only as long as
somebody asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["TYPE", "as_operations"]

TYPE = "TFOpLambda"
"""The class of such an operation, by the name that Keras 2 has for it."""


@contextlib.contextmanager
def as_operations() -> Iterator[None]:
    """As long as this lasts, tensorflow's functions of symbolic tensors are operations of Keras' graph."""
    state = _dispatcher()
    state.active, state.names = True, {}
    try:
        yield
    finally:
        state.active = False


@functools.cache
def _dispatcher() -> Any:
    """The dispatcher, which tensorflow is told of once; it does nothing until it is active."""
    keras = importlib.import_module("keras")
    dispatch = importlib.import_module("tensorflow.python.util.dispatch")
    operation = _operation(keras)

    class Dispatcher(dispatch.GlobalOpDispatcher):
        active = False
        names: dict[str, int]

        def handle(self, op: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            tensors = keras.tree.flatten((args, kwargs))
            if not self.active or not any(isinstance(tensor, keras.KerasTensor) for tensor in tensors):
                return self.NOT_SUPPORTED
            word = getattr(op, "__name__", "function")
            self.names[word] = count = self.names.get(word, -1) + 1
            return operation(op, word, f"{word}_{count}" if count else word)(*args, **kwargs)

    made = Dispatcher()
    made.register()
    return made


def _operation(keras: Any) -> type[Any]:
    """The class of the operations."""
    outputs = importlib.import_module("keras.src.backend").compute_output_spec

    def dense(item: Any) -> Any:
        """A symbolic tensor that is not sparse: Keras takes the product of a number and a tensor for sparse."""
        return keras.KerasTensor(item.shape, item.dtype) if isinstance(item, keras.KerasTensor) else item

    class Function(keras.Operation):
        def __init__(self, function: Callable[..., Any], word: str, name: str) -> None:
            super().__init__(name=name)
            self._function, self.function = function, word

        def call(self, *args: Any, **kwargs: Any) -> Any:
            return self._function(*args, **kwargs)

        def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
            return outputs(self._function, *keras.tree.map_structure(dense, args), **_mapped(keras, dense, kwargs))

        def get_config(self) -> dict[str, Any]:
            return {"name": self.name, "function": self.function}

    Function.__name__, Function.__module__ = TYPE, "keras.tensorflow"
    return Function


def _mapped(keras: Any, change: Callable[[Any], Any], kwargs: Any) -> dict[str, Any]:
    return {key: keras.tree.map_structure(change, value) for key, value in kwargs.items()}
