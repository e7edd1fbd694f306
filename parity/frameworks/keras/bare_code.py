"""Bare operations between a model's layers (`x[..., :3]`, `keras.ops.mean`, `tf.reshape`) as code that calls them."""

from __future__ import annotations

import re
from typing import Any

from parity.frameworks.keras.edits.code import value

__all__ = ["operation_call"]

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def operation_call(keras: Any, item: Any) -> tuple[str, list[str]] | None:
    """The public function that does what an operation does, and the operation's settings as arguments of it.

    Args:
        keras: the module whose model the operation is of.
        item: the operation, or a layer.

    Returns:
        None of a layer. Keras 3 names an operation's class as the function: `Logsumexp`, `LogicalAnd`; Keras 2 has the
        function's name in the layer that it makes of it.

    Raises:
        NotImplementedError: an operation that is no public function.
    """
    maker = type(item)
    if maker.__name__ in ("TFOpLambda", "SlicingOpLambda"):
        return f"tf.{item.symbol}", []
    if not maker.__module__.startswith("keras.src.ops."):
        return None
    name = _WORDS.sub("_", maker.__name__).lower()
    for home in ("ops", "ops.image"):
        module = keras.ops.image if home.endswith("image") else keras.ops
        if hasattr(module, name):
            settings = {k: v for k, v in item.get_config().items() if k not in ("name", "dtype") and v is not None}
            return f"keras.{home}.{name}", [f"{key}={value(part)}" for key, part in settings.items()]
    raise NotImplementedError(f"{item.name} is a {maker.__name__}, which keras.ops has no function for")
