"""What is done to the bytes of a part."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from tests.fuzz.suite import Mutator

__all__ = ["extreme", "flip_bit", "flip_byte", "near", "truncate"]

_EXTREMES = (0, 1, 2, 7, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1)


def flip_byte(rng: random.Random, name: str, part: bytearray) -> None:
    """Another byte somewhere."""
    part[rng.randrange(len(part))] = rng.randrange(256)


def flip_bit(rng: random.Random, name: str, part: bytearray) -> None:
    """One bit somewhere."""
    part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)


def extreme(rng: random.Random, name: str, part: bytearray) -> None:
    """A number of four bytes replaced by an extreme one."""
    at = rng.randrange(len(part)) & ~3
    part[at : at + 4] = struct.pack("<I", rng.choice(_EXTREMES))[: len(part) - at]


def truncate(rng: random.Random, name: str, part: bytearray) -> None:
    """The end cut off."""
    del part[rng.randrange(1, len(part) + 1) :]


def near(marks: Sequence[bytes], mutator: Mutator, reach: int = 64) -> Mutator:
    """The same change, but close behind one of these marks: there a file's structure lies."""
    places: dict[bytes, list[int]] = {}

    def find(part: bytes) -> list[int]:
        found = []
        for mark in marks:
            at = part.find(mark)
            while at >= 0:
                found.append(at)
                at = part.find(mark, at + 1)
        return found

    def mutate(rng: random.Random, name: str, part: bytearray) -> None:
        key = struct.pack("<I", len(part)) + bytes(part[:256])
        if key not in places:
            places[key] = find(bytes(part))
        if not places[key]:
            mutator(rng, name, part)
            return
        at = min(rng.choice(places[key]), len(part) - 1)
        window = part[at : at + reach]
        mutator(rng, name, window)
        part[at : at + reach] = window

    return mutate
