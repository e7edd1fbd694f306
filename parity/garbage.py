"""The collector of garbage, which finds nothing while a framework is imported and takes its time all the same."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["own_process", "set_aside", "unsought"]

_own = False


def own_process() -> None:
    """Say that this process is a command of parity's: what a framework made at its import is never looked through.

    One search through it takes half a second, and a comparison of a small net would make two. In a process of somebody
    else's, objects that only happened to be there would never be found again.
    """
    global _own
    _own = True


@contextmanager
def unsought() -> Iterator[None]:
    """Run a block that imports a framework without a search for garbage.

    Such an import makes half a million objects, and all of them stay: to look through them again and again would take a
    sixth of the time of a small comparison. At the end they count as old ones, which are seldom looked through; or as
    permanent ones (see `own_process`).
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if _own:
            gc.freeze()
        elif not gc.get_freeze_count():  # else `unfreeze` would undo somebody's `freeze`
            gc.freeze()
            gc.unfreeze()  # puts them into the oldest generation
        gc.enable()


@contextmanager
def set_aside() -> Iterator[Callable[[], None]]:
    """Run a block in which a search never goes through what was there before it: it would stop the keys of a screen.

    Yields what sets aside, once more, all that has come since. Where somebody else froze objects, or searches for
    nothing, that stays as it is.
    """
    ours = gc.isenabled() and not gc.get_freeze_count()
    freeze = gc.freeze if ours else lambda: None
    freeze()
    try:
        yield freeze
    finally:
        if ours:
            gc.unfreeze()
