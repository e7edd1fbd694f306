"""`parity inspect`: what is in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from parity.errors import BadUsage

__all__ = ["inspect"]


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A MatConvNet or Keras file.")],
    input_size: Annotated[
        Optional[str], typer.Option(metavar="H,W[,C]", help="Work out shapes and memory for inputs of this size.")
    ] = None,
) -> int:
    """Show the layers, parameters and recipe of a file; nothing in it is built or run."""
    from parity.inspection import inspect_file
    from parity.reports.output import show

    show(inspect_file(file, input_size=None if input_size is None else _extents(input_size)))
    return 0


def _extents(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise BadUsage(f"--input-size is H,W or H,W,C in whole numbers, not {text!r}") from None
