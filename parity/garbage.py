"""The collector of garbage, which finds nothing while a framework is imported and takes its time all the same."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["unsought"]


@contextmanager
def unsought() -> Iterator[None]:
    """Run a block that imports a framework without a search for garbage.

    Such an import makes half a million objects, and all of them stay: to look through them again and again would take a
    sixth of the time of a small comparison. At the end they count as old ones, which are seldom looked through.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else `unfreeze` would undo somebody's `freeze`
            gc.freeze()
            gc.unfreeze()  # puts them into the oldest generation
        gc.enable()
