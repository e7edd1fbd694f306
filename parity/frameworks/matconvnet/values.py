"""What the two readers of MAT files share: their error, their limits, and how MATLAB's values become plain ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DEEPEST", "MOST", "MatError", "Unreadable", "allowance", "char_rows", "elements", "text_of", "unlist"]

DEEPEST = 60
"""Levels of structs and cells inside each other; a network has about six."""


MOST = 1_000_000
"""Values in one file, structs and cells and their elements; a network has a few thousand."""


class MatError(Exception):
    """What is wrong with a MAT file, the end of a sentence."""


@dataclass(frozen=True)
class Unreadable:
    """A value of a MAT file that has no plain counterpart.

    Attributes:
        what: e.g. `"a function handle"`, `"an object"`, `"a sparse array"`, `"a complex array"`.
        name: the function's name, where the file says it.
    """

    what: str
    name: str = ""

    def __str__(self) -> str:
        return self.what


def allowance(size: int) -> int:
    """Bytes that a compressed file of `size` bytes may unfold to: weights hardly shrink, so far more is an attack."""
    return max(256 << 20, 64 * size)


def text_of(codes: np.ndarray) -> str:
    """The text of these character codes; raises MatError for what is no text, or longer than one in a network."""
    if codes.size > _LONGEST:
        raise MatError(f"a text claims {codes.size} characters")
    if codes.dtype.kind != "u" or (codes.size and int(codes.max()) >= 0x110000):
        raise MatError("a text is damaged")
    return codes.astype("<u4").tobytes().decode("utf-32-le", errors="surrogatepass")


_LONGEST = 1 << 22


def char_rows(text: str, shape: tuple[int, ...]) -> Any:
    """A char array of this shape, its characters in column-major order: a str, or a list of str for several rows."""
    if not text:
        return ""
    rows = shape[0] if shape else 1
    if rows <= 1:
        return text
    return [text[row::rows] for row in range(rows)]


def unlist(items: list[Any], count: int) -> Any:
    """Elements of a struct array: the only one itself, otherwise a list."""
    return items[0] if count == 1 else items


def elements(shape: tuple[int, ...]) -> int:
    """Number of elements of a shape, in Python's own integers, which do not overflow."""
    total = 1
    for extent in shape:
        total *= extent
    return total
