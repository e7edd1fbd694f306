"""The update rules, one file each; `lookup` finds the one that a Keras class name lifts to."""

from __future__ import annotations

from parity.optimizers.adadelta import Adadelta
from parity.optimizers.adafactor import Adafactor
from parity.optimizers.adagrad import Adagrad
from parity.optimizers.adam import Adam
from parity.optimizers.adamax import Adamax
from parity.optimizers.base import OpaqueRule, UpdateRule
from parity.optimizers.ftrl import Ftrl
from parity.optimizers.lamb import Lamb
from parity.optimizers.lion import Lion
from parity.optimizers.nadam import Nadam
from parity.optimizers.rmsprop import RMSprop
from parity.optimizers.sgd import SGD

__all__ = [
    "RULES",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "Nadam",
    "OpaqueRule",
    "RMSprop",
    "UpdateRule",
    "lookup",
]

RULES: tuple[type[UpdateRule], ...] = (
    Adadelta, Adafactor, Adagrad, Adam, Adamax, Ftrl, Lamb, Lion, Nadam, RMSprop, SGD,
)  # fmt: skip
"""Every update rule of the vocabulary; a new one is a new file and a line here."""


def lookup(class_name: str) -> type[UpdateRule]:
    """The rule that a Keras optimizer class (`"Adam"`, `"Custom>SGD"`) lifts to; `OpaqueRule` if unknown."""
    name = class_name.split(">")[-1].split(".")[-1]
    for rule in RULES:
        if name in rule.keras or name.lower() in (word.lower() for word in rule.keras):
            return rule
    return OpaqueRule
