"""No search for garbage while a framework is imported; whatever somebody set stays as it was."""

from __future__ import annotations

import gc

import pytest

from parity import garbage
from parity.garbage import set_aside, unsought


def test_nothing_is_sought_inside_and_everything_again_behind():
    with unsought():
        assert not gc.isenabled()
        with unsought():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_turns_it_on_again():
    try:
        with unsought():
            raise ImportError
    except ImportError:
        pass
    assert gc.isenabled()


def test_who_turned_it_off_or_froze_objects_finds_it_so():
    frozen = gc.get_freeze_count()
    gc.freeze()
    try:
        held = gc.get_freeze_count()
        with unsought():
            pass
        assert gc.get_freeze_count() == held
        gc.disable()
        with unsought():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        if not frozen:
            gc.unfreeze()


def test_what_was_made_inside_is_still_found_to_be_garbage():
    import weakref

    class Held:
        itself: Held

    with unsought():
        one = Held()
        one.itself = one
        seen = weakref.ref(one)
        del one
    assert seen() is not None
    gc.collect()
    assert seen() is None


def test_a_process_of_paritys_own_never_looks_through_what_an_import_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(garbage, "_own", False)
    before = gc.get_freeze_count()
    with unsought():
        pass
    assert gc.get_freeze_count() == before
    garbage.own_process()
    try:
        with unsought():
            made = [[] for _ in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        if not before:
            gc.unfreeze()


def test_what_is_set_aside_is_looked_through_again_afterwards():
    gc.unfreeze()
    with set_aside() as again:
        held = gc.get_freeze_count()
        assert held > 0
        more = [[] for _ in range(1000)]
        again()
        assert gc.get_freeze_count() >= held + len(more)
        with set_aside() as not_ours:
            not_ours()
        assert gc.get_freeze_count() >= held  # the block inside has not undone it
    assert gc.get_freeze_count() == 0


def test_nothing_is_set_aside_where_nothing_is_sought():
    gc.unfreeze()
    gc.disable()
    try:
        with set_aside() as again:
            again()
            assert gc.get_freeze_count() == 0
        assert not gc.isenabled()
    finally:
        gc.enable()
