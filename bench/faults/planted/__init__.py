"""The faults, a file for each family; a new family is a new file and a word here."""

from bench.faults.planted import layers, norms, windows
from bench.faults.planted.base import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "layers", "norms", "windows"]
