"""The faults, a file for each family; a new family is a new file and a word here."""

from bench.faults.planted import doubles, inputs, layers, masked, norms, training, weights, windows
from bench.faults.planted.base import FAULTS, Fault

__all__ = [
    "FAULTS",
    "Fault",
    "doubles",
    "inputs",
    "layers",
    "masked",
    "norms",
    "training",
    "weights",
    "windows",
]
