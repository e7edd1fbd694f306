"""Control-C while libraries are imported: some of them swallow it, and it must not be lost."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["heeded"]


@contextmanager
def heeded() -> Iterator[None]:
    """Run a block or, as a decorator, a function; an interrupt that something in it swallowed is raised at its end.

    An import that falls back to something else for any exception takes a KeyboardInterrupt for a module that is not
    there; the interpreter drops one in a callback. What such an error led to is no news beside the interrupt.

    Raises:
        KeyboardInterrupt: one came meanwhile.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # a signal comes to the main thread alone, and here nobody asked for it
        return
    came: list[int] = []
    unraisable = sys.unraisablehook

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before(number, frame)

    def dropped(told: sys.UnraisableHookArgs) -> None:
        if not issubclass(told.exc_type, KeyboardInterrupt):  # that one is not lost: nothing is to be printed
            unraisable(told)

    signal.signal(signal.SIGINT, remember)
    sys.unraisablehook = dropped
    try:
        yield
    except BaseException as error:
        if came and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = unraisable
    if came:
        raise KeyboardInterrupt
