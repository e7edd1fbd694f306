"""Everything parity raises on purpose, in one tree.

ParityError                 one line for the user; the command line ends with exit code 2
├── BadFile                 a file is missing, damaged, or not what it should be
├── BadUsage                options or arguments that do not go together
├── Refused                 running this would run code from an untrusted file
└── CannotCompare           both sides are readable, but there is nothing sound to compare

A message names the file (or argument), what is wrong with it, and what to do, in one line.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["BadFile", "BadUsage", "CannotCompare", "ParityError", "Refused"]


class ParityError(Exception):
    """The base of every error that parity raises on purpose; `str()` of it is one line."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class BadFile(ParityError):
    """A file that is missing, damaged, or not what it should be.

    Args:
        path: the file.
        problem: what is wrong with it.
        remedy: what the user can do.
    """

    def __init__(self, path: str | Path, problem: str, remedy: str = "") -> None:
        self.path, self.problem, self.remedy = str(path), problem, remedy
        super().__init__(f"{path}: {problem}" + (f"; {remedy}" if remedy else ""))


class BadUsage(ParityError):
    """Options or arguments that do not go together, or that name nothing."""


class Refused(ParityError):
    """The model holds code (a Lambda, a custom class) that parity does not run unasked."""


class CannotCompare(ParityError):
    """Both sides could be read, but there is nothing sound to compare."""
