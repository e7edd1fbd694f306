"""Parameters that are put together of recorded pieces are read in part, and are what the pieces make as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from parity.recipe import Recipe
from parity.stretches import stretches
from parity.traces.assembled import Assembled
from parity.traces.reader import Trace
from parity.traces.writer import writing
from parity.transfer import Blocks, Joined
from tests.traces.test_file import empty, facts

CASES = {
    "two pieces": ([(3, 3, 4, 5), (3, 3, 4, 7)], None, None, (3, 3, 4, 12)),
    "a cut over two pieces": ([(3, 3, 4, 5), (3, 3, 4, 7)], slice(3, 9), None, (36, 6)),
    "a cut of one": ([(6, 20)], slice(8, 20), None, (6, 12)),
    "vectors": ([(5,), (7,)], None, None, (12,)),
    "scalars": ([()], None, None, (1,)),
    "another shape": ([(3, 3, 4, 6), (3, 3, 4, 6)], None, None, (3, 3, 48)),
    "blocks": ([(3, 3, 2, 12)], None, Blocks(2, 12, 4, 4), (3, 3, 8, 12)),
    "blocks in two groups": ([(2, 3, 3, 8)], None, Blocks(3, 8, 4, 2), (2, 3, 6, 8)),
    "depthwise in blocks": ([(3, 3, 1, 8)], None, Blocks(1, 8, 8, 8), (3, 3, 8, 8)),
    "blocks of two pieces": ([(3, 3, 2, 5), (3, 3, 2, 7)], None, Blocks(2, 12, 4, 4), (3, 3, 8, 12)),
    "blocks of a cut": ([(3, 3, 2, 20)], slice(4, 16), Blocks(2, 12, 4, 4), (3, 3, 8, 12)),
}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    path, rng = tmp_path_factory.mktemp("assembled") / "run.h5", np.random.default_rng(0)
    with writing(path, "-o", "0") as sink:
        for name, (shapes, *_) in CASES.items():
            for n, shape in enumerate(shapes):
                sink.put("inputs", f"{name} {n}", rng.standard_normal(shape, dtype=np.float32))
        sink.info(facts(), empty(), Recipe())
    with Trace(path) as opened:
        yield opened


@pytest.mark.parametrize("name", CASES)
def test_any_part_is_that_of_the_whole(trace, name, monkeypatch):
    shapes, cut, blocks, shape = CASES[name]
    names = tuple(f"{name} {n}" for n in range(len(shapes)))
    joined = Joined(names, cut, blocks, shape)
    found = Assembled(joined, {key: trace.held("inputs", key) for key in names})
    whole = joined({key: trace.inputs[key] for key in names})
    assert whole.shape == found.shape == shape
    assert np.count_nonzero(whole) > 0
    assert np.array_equal(found.value(), whole)
    for start in range(0, whole.size, 5):
        for stop in {start, start + 1, min(start + 13, whole.size), whole.size}:
            assert np.array_equal(found.span(start, stop), whole.ravel()[start:stop]), (start, stop)
    monkeypatch.setattr("parity.stretches.LENGTH", 30)
    monkeypatch.setattr("parity.stretches.WIDE", 4)
    parts = list(stretches(found, whole.copy()))
    assert sum(a.size for _, (a, _) in parts) == whole.size
    assert all(np.array_equal(a, b) for _, (a, b) in parts)


def test_no_more_is_read_than_the_rows_that_are_asked_for(trace, monkeypatch):
    """Of a kernel in blocks, one place of the filter."""
    name = "blocks"
    _, cut, blocks, shape = CASES[name]
    held, read = trace.held("inputs", f"{name} 0"), []
    part = type(held).part
    monkeypatch.setattr(type(held), "part", lambda self, rows, columns: read.append(rows) or part(self, rows, columns))
    monkeypatch.setattr(type(held), "value", lambda self: pytest.fail("was read whole"))
    Assembled(Joined((f"{name} 0",), cut, blocks, shape), {f"{name} 0": held}).span(0, 8 * 12)
    assert [(rows.start, rows.stop) for rows in read] == [(0, 2)]
