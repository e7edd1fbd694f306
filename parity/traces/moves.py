"""The updates of two recorded runs: how each step moved each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity.comparison import update_probe
from parity.layers import BatchNorm
from parity.report import Probe
from parity.runner import Pass
from parity.tolerance import CLEAN, Distance, distance, rms
from parity.traces.reader import Trace
from parity.transfer import Link
from parity.updates import Course, Move, move_floor, spread

__all__ = ["recorded_moves", "update_probes"]

Array = np.ndarray

_SMALL = 1e-4
"""Relative difference of a move, from the second step on, that rounding in the steps before it can make."""


def recorded_moves(all_links: tuple[Link, ...], ref: Trace, keras: Trace, steps: int) -> list[Move]:
    """Every parameter's move in every step; `born` where it differs by more than its gradient's own noise makes of it.

    Args:
        all_links: how parameters correspond.
        ref: the reference's trace.
        keras: the Keras side's.
        steps: how many.
    """
    made: list[Move] = []
    for link in all_links:
        if not link.keras or not link.ref or link.to_keras is None:
            continue
        noise = _noise(link, ref, keras)
        before = _both(link, ref, keras, 0)
        for step in range(1, steps + 1):
            after = _both(link, ref, keras, step)
            if before is None or after is None:
                made.append(Move(link, step, "unverified", None, 0.0, None, None, note="its value was not recorded"))
            else:
                move = _move(link, step, before, after, noise)
                if move.status == "born" and link.role in ("variance", "deviation"):
                    move = _by_its_law(link, step, before[1], after[1], ref, keras, move)
                made.append(move)
            before = after
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


def _both(link: Link, ref: Trace, keras: Trace, step: int) -> tuple[Array, Array] | None:
    """The reference's value in the Keras layout and the Keras one; None where a trace does not hold them."""
    mine, theirs = ref.weights(step), keras.weights(step)
    if link.keras not in theirs or any(key not in mine for key in link.ref):
        return None
    assert link.to_keras is not None
    expected, actual = link.to_keras({key: mine[key] for key in link.ref}), theirs[link.keras]
    return (expected, actual) if expected.shape == actual.shape else None


def _noise(link: Link, ref: Trace, keras: Trace) -> float:
    """How noisy the parameter's gradient is, relative to itself; 0 where nothing says."""

    def share(trace: Trace, keys: Mapping[str, None]) -> float:
        worst = 0.0
        for key in keys:
            floor, held = trace.floor("param_grads", key), trace.held("step1/param_grads", key)
            if floor is not None and held is not None:
                size = rms(held.value())
                worst = max(worst, float(np.sqrt(np.mean(np.square(floor)))) / size if size > 0 else 0.0)
        return worst

    return max(share(ref, dict.fromkeys(link.ref)), share(keras, {link.keras: None}))


def _move(link: Link, step: int, before: tuple[Array, Array], after: tuple[Array, Array], noise: float) -> Move:
    expected, actual = after[0] - before[0], after[1] - before[1]
    floor = move_floor(before[0], expected, noise * step)
    apart: Distance = distance(actual, expected)
    x_floor = apart.x_floor(floor)
    clean = x_floor <= 2 * CLEAN or (step > 1 and apart.relative <= _SMALL)
    status = "match" if clean else "born"
    return Move(link, step, status, None, float(np.mean(floor)), None, apart, expected.shape)


def update_probes(moves: Sequence[Move]) -> list[Probe]:
    """The probes of the update phase, step by step; a move that differs was born who knows where."""
    made: list[Probe] = []
    for move in sorted(moves, key=lambda m: m.step):
        probe = update_probe(move, before=False)
        status = "inherited" if move.status == "born" else move.status
        made.append(replace(probe, status=status, propagated_x_floor=None if move.note else probe.propagated_x_floor))
    return made
