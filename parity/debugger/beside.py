"""Two calls at the same time, of libraries that need not wait for each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

__all__ = ["both"]


def both(first: Callable[[], None], second: Callable[[], None], *, at_once: bool) -> None:
    """Make two calls, one after the other or, at once, the first on a thread of its own.

    Whatever is raised, an interrupt included, neither runs on afterwards.
    """
    if not at_once:
        first()
        second()
        return
    other = _thread().submit(first)
    try:
        second()
    finally:
        wait([other])
    other.result()


@cache
def _thread() -> ThreadPoolExecutor:
    """One thread, always the same: torch makes threads of its own for each on which it runs."""
    return ThreadPoolExecutor(1, thread_name_prefix="beside")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread.cache_clear)  # a process that forks does not hand its threads on
