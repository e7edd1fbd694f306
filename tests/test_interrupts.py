"""An interrupt that a library swallows is heard all the same."""

from __future__ import annotations

import contextlib
import signal
import threading

import pytest

from parity.interrupts import heeded


def swallowing(error: type[BaseException] | None = None) -> None:
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGINT)
    if error is not None:
        raise error("there is no such module")


@pytest.mark.parametrize("error", [None, ImportError, SystemExit])
def test_a_swallowed_interrupt_is_raised_at_the_end(error):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), heeded():
        swallowing(error)
    assert signal.getsignal(signal.SIGINT) is handler


class Gone:
    """Interrupted while it is taken away, where no exception can be raised."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_one_that_the_interpreter_drops_is_raised_and_nothing_is_printed(capsys):
    with pytest.raises(KeyboardInterrupt), heeded():
        Gone()
    assert capsys.readouterr().err == ""


def test_one_that_nobody_swallows_comes_once_and_at_once():
    reached = []

    @heeded()
    def interrupted():
        signal.raise_signal(signal.SIGINT)
        reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not reached


def test_without_an_interrupt_nothing_is_raised_but_what_was():
    with heeded():
        pass
    with pytest.raises(ImportError, match="such"), heeded():
        raise ImportError("there is no such module")


def test_where_interrupts_are_ignored_they_stay_so():
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heeded():
            swallowing()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


def test_in_another_thread_it_does_nothing():
    made = []
    thread = threading.Thread(target=heeded()(lambda: made.append(signal.getsignal(signal.SIGINT))))
    thread.start()
    thread.join()
    assert made == [signal.getsignal(signal.SIGINT)]
