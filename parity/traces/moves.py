"""The updates of two recorded runs: how each step moved each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.comparison import update_probe
from parity.distances import Distance
from parity.layers import BatchNorm
from parity.report import Probe
from parity.runner import Pass
from parity.stretches import Gap, Size, Tensor, joined, stretches
from parity.tolerance import CLEAN
from parity.traces.held import Held
from parity.traces.reader import Trace
from parity.traces.recorded import Laid
from parity.transfer import Joined, Link
from parity.updates import Course, Move, sized_floor, spread

__all__ = ["recorded_moves", "update_probes"]

Array = np.ndarray

_TOGETHER = 4
"""Steps whose values before and after are read side by side: of many, even stretches are too much for memory."""

_SMALL = 1e-4
"""Relative difference of a move, from the second step on, that rounding in the steps before it can make."""


def recorded_moves(
    all_links: tuple[Link, ...], ref: Trace, keras: Trace, steps: int, sizes: Mapping[str, float] | None = None
) -> list[Move]:
    """Every parameter's move in every step; `born` where it differs by more than its gradient's own noise makes of it.

    Args:
        all_links: how parameters correspond.
        ref: the reference's trace.
        keras: the Keras side's.
        steps: how many.
        sizes: `ref:` or `keras:` and a parameter → the root mean square of its first gradient, where that is known.
    """
    made: list[Move] = []
    mine = [Laid(all_links, ref, f"weights/{k}", keras.network) for k in range(steps + 1)]
    theirs = [keras.unread(f"weights/{k}") for k in range(steps + 1)]
    for link in all_links:
        if not link.keras or not link.ref or link.to_keras is None:
            continue
        noise, key = _noise(link, ref, keras, sizes or {}), link.keras
        known = [all(key in at[k] for at in (mine, theirs)) for k in range(steps + 1)]
        here = [step for step in range(1, steps + 1) if known[step - 1] and known[step]]
        # What can be read in part is read once for a few steps; what must be whole, one step at a time.
        several = _TOGETHER if isinstance(link.to_keras, Joined) and len(here) == steps else 1
        runs = [here[n : n + several] for n in range(0, len(here), several)]
        found = {move.step: move for run in runs for move in _moves(link, run, mine, theirs, noise)}
        for step in range(1, steps + 1):
            move = found.get(step)
            if move is None:
                move = Move(link, step, "unverified", None, 0.0, None, None, note="its value was not recorded")
            elif move.status == "born" and link.role in ("variance", "deviation"):
                before, after = (theirs[k][key].value() for k in (step - 1, step))
                move = _by_its_law(link, step, before, after, ref, keras, move)
            made.append(move)
    return made


def _by_its_law(link: Link, step: int, before: Array, after: Array, ref: Trace, keras: Trace, move: Move) -> Move:
    """A running variance: MatConvNet averages the deviation, Keras the variance, so its rate is judged, not its law."""
    if not isinstance(link.pair.ref.kind, BatchNorm) or move.propagated is None:
        return move
    name, own = link.pair.ref.layers[-1], keras.seen(step).statistics.get(link.pair.keras.layers[-1])
    held = ref.held("step1/outputs", link.pair.ref.output)
    # Only the size of the output is asked for.
    outputs = {} if held is None else {link.pair.ref.output: np.broadcast_to(np.float32(0), held.shape)}
    passes = [Pass(outputs=outputs) for _ in range(step)]
    if own is not None:
        passes[-1].statistics = {name: own}
    found = spread(link, step, {link.keras: before}, {link.keras: after}, Course(passes=passes), move.propagated)
    return replace(found, propagated=found.isolated, isolated=None, x_floor=None)


def _moves(
    link: Link, steps: Sequence[int], mine: Sequence[Laid], theirs: Sequence[Mapping[str, Held]], noise: float
) -> list[Move]:
    """A parameter's moves in steps that follow each other, from one reading of its values before and after them."""
    if not steps:
        return []
    values: list[Tensor] = []
    for step in (steps[0] - 1, *steps):
        values += [mine[step][link.keras], theirs[step][link.keras]]
    shape = tuple(values[0].shape)
    if any(tuple(value.shape) != shape for value in values):
        return []
    closed: list[list[_Closed]] = [[] for _ in steps]
    here: list[_Window] = []
    for columns, parts in stretches(*values):
        if not here or here[0].columns != columns:
            for window, step, done in zip(here, steps, closed, strict=False):
                done.append(window.closed(noise * step))
            here = [_Window(columns) for _ in steps]
        for n, window in enumerate(here):
            window.add(*parts[2 * n : 2 * n + 4])
    made = []
    for window, step, done in zip(here, steps, closed, strict=True):
        made.append(_move(link, step, [*done, window.closed(noise * step)], shape))
    return made


@dataclass(frozen=True, eq=False)
class _Closed:
    """How far a move is off in some channels, the mean of its floor there, and the distance in units of it."""

    columns: slice
    apart: Distance
    floor: float
    x_floor: float


class _Window:
    """A parameter's move in one step, in some of its channels."""

    def __init__(self, columns: slice) -> None:
        self.columns = columns
        self.start, self.change, self.gap = Size(), Size(), Gap()

    def closed(self, noise: float) -> _Closed:
        """What was found, its gradient being so noisy."""
        apart, floor = self.gap.distance(), sized_floor(self.start.channel, self.change.channel, noise)
        return _Closed(self.columns, apart, float(np.mean(floor)), apart.x_floor(floor))

    def add(self, before: Array, own: Array, after: Array, reached: Array) -> None:
        """Add values of the reference and of Keras before the step, and of both after it."""
        change = after - before
        self.start.add(before)
        self.change.add(change)
        self.gap.add(reached - own, change)


def _noise(link: Link, ref: Trace, keras: Trace, sizes: Mapping[str, float]) -> float:
    """How noisy the parameter's gradient is, relative to itself; 0 where nothing says."""

    def share(trace: Trace, side: str, key: str) -> float:
        floor, held = trace.floor("param_grads", key), trace.held("step1/param_grads", key)
        if floor is None or held is None:
            return 0.0
        size = sizes.get(f"{side}:{key}")
        if size is None:
            added = Size()
            for _, (part,) in stretches(held):
                added.add(part)
            size = added.whole
        return float(np.sqrt(np.mean(np.square(floor)))) / size if size > 0 else 0.0

    return max(share(keras, "keras", link.keras), *(share(ref, "ref", key) for key in link.ref))


def _move(link: Link, step: int, found: Sequence[_Closed], shape: tuple[int, ...]) -> Move:
    apart = joined((window.columns, window.apart) for window in found)
    x_floor = max(window.x_floor for window in found)
    clean = x_floor <= 2 * CLEAN or (step > 1 and apart.relative <= _SMALL)
    floor = np.average([w.floor for w in found], weights=[w.columns.stop - w.columns.start for w in found])
    return Move(link, step, "match" if clean else "born", None, float(floor), None, apart, shape)


def update_probes(moves: Sequence[Move]) -> list[Probe]:
    """The probes of the update phase, step by step; a move that differs was born who knows where."""
    made: list[Probe] = []
    for move in sorted(moves, key=lambda m: m.step):
        probe = update_probe(move, before=False)
        status = "inherited" if move.status == "born" else move.status
        made.append(replace(probe, status=status, propagated_x_floor=None if move.note else probe.propagated_x_floor))
    return made
