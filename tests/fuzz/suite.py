"""A family of damaged files: sound files, how they are taken apart and put together, what is done to the parts."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PLAIN", "Container", "Mutator", "Suite", "damaged"]

Mutator = Callable[[random.Random, str, bytearray], None]
"""(random numbers, name of a part, its bytes) → changes the bytes in place."""


@dataclass(frozen=True)
class Container:
    """How a file is taken apart and put together again.

    Attributes:
        name: for messages.
        unwrap: file → parts by name.
        wrap: the file, its parts → a file.
    """

    name: str
    unwrap: Callable[[bytes], dict[str, bytearray]]
    wrap: Callable[[bytes, Mapping[str, bytearray]], bytes]


PLAIN = Container("plain", lambda data: {"": bytearray(data)}, lambda data, parts: bytes(parts[""]))
"""The bytes of the file themselves."""


@dataclass(frozen=True)
class Suite:
    """One family of damaged files.

    Attributes:
        name: for the command line.
        make: random numbers → a damaged file.
        open: path → whatever opening gives; a ParityError is a right answer, any other exception is not.
        suffix: of the file's name.
        seconds: how long one file may take.
        memory: bytes that the worker may take on top of what it has when it starts.
        strict: whether a warning counts as a failure too, because the user would see it.
        cost: how many files of another suite take as long as one of this: so many fewer are opened.
    """

    name: str
    make: Callable[[random.Random], bytes]
    open: Callable[[Path], object]
    suffix: str = ""
    seconds: float = 30.0
    memory: int = 2 << 30
    strict: bool = True
    cost: int = 1

    def case(self, seed: int, index: int) -> bytes:
        """The damaged file of this seed and number, the same every time."""
        return self.make(random.Random(f"{self.name} {seed} {index}"))


def damaged(
    files: Sequence[Path], containers: Sequence[Container], mutators: Sequence[Mutator]
) -> Callable[[random.Random], bytes]:
    """A `Suite.make`: one of these files, in one of these containers, with some of these changes in its parts."""
    held: dict[Path, bytes] = {}

    def make(rng: random.Random) -> bytes:
        path = rng.choice(list(files))
        if path not in held:
            held[path] = path.read_bytes()
        container = rng.choice(list(containers))
        parts = container.unwrap(held[path])
        names = [name for name in parts if parts[name]]
        for _ in range(rng.choice((1, 1, 1, 2, 3, 20))):
            name = rng.choice(names)
            rng.choice(list(mutators))(rng, name, parts[name])
        return container.wrap(held[path], parts)

    return make
