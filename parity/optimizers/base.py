"""What every update rule has: its numbers, its slots, one step in numpy, and its Keras line.

An update rule is one file of this folder with one frozen dataclass that derives from `UpdateRule`, named in
`optimizers/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from parity.digits import shortest

if TYPE_CHECKING:
    import numpy as np

__all__ = ["OpaqueRule", "UpdateRule", "keras_call", "number"]


@dataclass(frozen=True)
class UpdateRule:
    """An update rule of the neutral vocabulary, with its numbers (the learning rate is the recipe's).

    Class attributes:
        causes: field → slug of the cause when the two sides differ in it.
        keras: Keras class names that lift to this rule.
    """

    causes: ClassVar[Mapping[str, str]] = {}
    keras: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The rule's word in tables, e.g. `SGD`."""
        return type(self).__name__

    def describe(self) -> dict[str, Any]:
        """Field → value."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def coarseness(self) -> float:
        """Relative error of a step by float32 scalars, taken as Keras holds them: 1 - beta2^t, where it has one.

        beta2 itself is rounded by half an ulp, 3e-8, and its power by as much again; of that a root is taken.
        """
        held = getattr(self, "beta2", None)
        return 3e-8 / (1 - held) if held is not None and held < 1 else 0.0

    def start(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """The slots before the first update, in the weight's class."""
        raise NotImplementedError

    def adopted(self, slots: dict[str, np.ndarray], rate: float) -> dict[str, np.ndarray]:
        """A recipe's slots as this rule keeps them: one that keeps the rate in its momentum multiplies it in."""
        return slots

    def neutral(self, slots: dict[str, np.ndarray], rate: float) -> dict[str, np.ndarray]:
        """This rule's slots as a recipe has them: what `adopted` was given."""
        return slots

    def step(
        self, weight: np.ndarray, gradient: np.ndarray, slots: dict[str, np.ndarray], rate: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The weight and slots after one update with this (decayed) gradient and rate, in the weight's class."""
        raise NotImplementedError

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> UpdateRule:
        """The rule of a Keras optimizer config; `era` is 1 or 2 for the legacy classes, 3 for Keras >= 2.11."""
        raise NotImplementedError

    def keras_settings(self) -> tuple[str, dict[str, Any]]:
        """The Keras class and its arguments but for the rate; an empty class where Keras has none."""
        return "", {}

    def keras_line(self, rate: str) -> str:
        """The Keras expression that builds it, e.g. `keras.optimizers.SGD(0.01, momentum=0.9)`, with `rate` as is."""
        name, settings = self.keras_settings()
        return keras_call(name, rate, **settings) if name else ""


@dataclass(frozen=True)
class OpaqueRule(UpdateRule):
    """An update rule that the vocabulary does not know: it runs as itself, and is compared by what it does."""

    type: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """The framework's own name."""
        return self.type or "unknown"

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], era: int) -> OpaqueRule:
        """Any optimizer, by its class name."""
        return cls(class_name.split(">")[-1], dict(config))


def keras_call(class_name: str, rate: str, **arguments: Any) -> str:
    """`keras.optimizers.CLASS(rate, name=value, …)`, without the arguments that are None."""
    own = arguments.pop("learning_rate", None)
    first = rate if own is None else _spelled(own)
    shown = [first, *(f"{name}={_spelled(value)}" for name, value in arguments.items() if value is not None)]
    home = "" if class_name.startswith("Outside") else "keras.optimizers."  # a class of its own, which Keras lacks
    return f"{home}{class_name}({', '.join(shown)})"


def _spelled(value: Any) -> str:
    return repr(shortest(value) if isinstance(value, float) else value)


def number(config: Mapping[str, Any], name: str, default: float) -> float:
    """A number of a Keras config; the default where it is missing or None (Keras 2 writes None for its own epsilon)."""
    value = config.get(name)
    return default if value is None or isinstance(value, (str, Mapping)) else float(value)
