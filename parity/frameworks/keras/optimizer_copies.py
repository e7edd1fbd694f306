"""New optimizers of the same class and settings, those of a user's own classes included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["again", "keras_class"]

_HOMES = ("keras", "tf_keras")

_BUILT = ("_built", "_index_dict")
"""What Keras 2 holds from the first step on, beside its slots (optimizer.py, `build`): a new one is built anew."""


def again(optimizer: Any, config: Mapping[str, Any] | None = None) -> Any:
    """A new optimizer at step 0.

    A class of the user's own may hold what its `get_config` does not say: factors on the rates of some variables. That
    is carried over; and where its constructor asks for it, the constructor of the Keras class below it is run instead.

    Args:
        optimizer: as it is.
        config: other settings of the same class; None takes its own.

    Raises:
        TypeError: neither constructor takes the settings.
    """
    maker = type(optimizer)
    settings = dict(optimizer.get_config() if config is None else config)
    base = keras_class(maker)
    if base is maker:
        return maker.from_config(settings)
    try:
        made = maker.from_config(dict(settings))
    except TypeError:
        plain = type(maker.__name__, (maker,), {"__init__": base.__init__})
        made = plain.from_config(settings)
        made.__class__ = maker
    for name in vars(optimizer).keys() - {*_usual(base), *_BUILT}:
        value = vars(optimizer)[name]
        if not _holds_variables(value):  # slots are made anew
            setattr(made, name, value)
    return made


def keras_class(maker: type) -> type:
    """The class itself, or the first of Keras' own that it is derived from."""
    return next((c for c in maker.__mro__ if c.__module__.split(".")[0] in _HOMES), maker)


def _usual(base: Any) -> Iterable[str]:
    """Names of what an optimizer of one of Keras' own classes holds; all of it is in its config, or is its state."""
    try:
        return vars(base()).keys()
    except TypeError:  # the abstract class, whose name is to be given
        return vars(base(name="optimizer")).keys() if "tf_keras" in base.__module__ else vars(base(0.01)).keys()


def _holds_variables(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_variables(part) for part in value.values())
    if isinstance(value, list | tuple | set):
        return any(_holds_variables(part) for part in value)
    return hasattr(value, "assign")
