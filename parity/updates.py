"""The `update` phase: what one and the same sequence of gradients does to both sides' weights.

Before each step the reference's weights are restored in the Keras model, and the reference's gradients go into the
Keras optimizer in one call; its slots evolve by themselves. So an optimizer's fault cannot hide behind a fault of the
backward pass. What regularizers add is part of the update, as every other weight decay is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from parity.align import Alignment
from parity.layers import BatchNorm
from parity.runner import Pass, Runner
from parity.tolerance import CLEAN, ROUNDOFF, Distance, channel_rms, distance, rms
from parity.transfer import Link, transferred

__all__ = ["Course", "Move", "free_course", "isolated_moves"]

Array = np.ndarray

_SCALARS = 1e-5
"""Relative error of a step that float32 scalars cause (Keras' 1 - beta^t in Adam: 7e-6), taken as Keras holds them."""


@dataclass(eq=False)
class Course:
    """One side's free run over N steps on the batch.

    Attributes:
        weights: parameters before step 1, after step 1, … after step N, by id.
        passes: what each step's forward and backward showed (only the first with every layer's tensors).
    """

    weights: list[dict[str, Array]] = field(default_factory=list)
    passes: list[Pass] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Move:
    """How one parameter moved in one step on both sides.

    Attributes:
        link: which parameter.
        step: from 1.
        status: match, born, or unverified.
        x_floor: of the isolated move; None where it was not judged by value.
        floor: root mean square that rounding may do.
        isolated: distance of the two isolated moves.
        propagated: relative distance of what N free steps did so far; None where it cannot be said.
        expected, actual: the isolated moves in the Keras layout.
        note: how it was judged.
    """

    link: Link
    step: int
    status: str
    x_floor: float | None
    floor: float
    isolated: Distance | None
    propagated: Distance | None
    expected: Array | None = None
    actual: Array | None = None
    note: str = ""


def free_course(
    runner: Runner,
    inputs: Mapping[str, Array],
    labels: Array | None,
    *,
    steps: int,
    masks: Sequence[Mapping[str, Array]] | None = None,
    tick: Callable[[str], None] = lambda _: None,
) -> Course:
    """Train the model for `steps` updates on the batch, from its present weights, which are left as trained.

    Args:
        runner: either side.
        inputs: name → n h w c.
        labels: class ids or one-hot.
        steps: at least 1.
        masks: per step, layer → dropout mask to use.
        tick: called before each step with a few words.
    """
    course = Course(weights=[runner.params()])
    for step in range(steps):
        tick(f"step {step + 1}")
        observed = runner.run(
            inputs, labels, mode="train", backward=True, observe=step == 0, masks=masks[step] if masks else None
        )
        runner.update(observed.param_grads, observed.statistics)
        course.passes.append(observed)
        course.weights.append(runner.params())
    return course


def isolated_moves(
    alignment: Alignment,
    links: tuple[Link, ...],
    keras: Runner,
    course: Course,
    free: Course,
    *,
    slots: Mapping[str, Mapping[str, Array]],
    unmoved: frozenset[str] = frozenset(),
) -> list[Move]:
    """Every parameter's isolated move in every step, and the free one beside it.

    Args:
        alignment: who is whose partner.
        links: how parameters correspond.
        keras: the Keras runner; its weights and optimizer are used and left changed.
        course: the reference's free run.
        free: the Keras model's free run.
        slots: the optimizer's slots to start from, by Keras id.
        unmoved: reference ids whose updates the reference's own trainer cannot say.
    """
    keras.reset(slots)
    moves: list[Move] = []
    for step, observed in enumerate(course.passes, start=1):
        before, after = course.weights[step - 1], course.weights[step]
        start = transferred(links, before)
        goal = transferred(links, after)
        keras.load(start)
        keras.update(_gradients(links, observed, start), _statistics(alignment, observed))
        reached = keras.params()
        for link in links:
            if not link.keras or link.keras not in start or not link.ref:
                continue
            if any(key in unmoved for key in link.ref):
                note = "the reference's trainer stops here: it has no averaging rate for the moments"
                moves.append(Move(link, step, "unverified", None, 0.0, None, None, note=note))
                continue
            moves.append(_move(link, step, start, goal, reached, course, free))
    return moves


def _gradients(links: tuple[Link, ...], observed: Pass, start: Mapping[str, Array]) -> dict[str, Array]:
    """The reference's gradients in the Keras layout; zero for a parameter that only Keras has."""
    made: dict[str, Array] = {}
    for link in links:
        if link.keras not in start:
            continue
        if link.linear and link.to_keras is not None and all(key in observed.param_grads for key in link.ref):
            made[link.keras] = link.to_keras(observed.param_grads) if link.ref else np.zeros_like(start[link.keras])
        elif not link.ref:
            made[link.keras] = np.zeros_like(start[link.keras])
    return made


def _statistics(alignment: Alignment, observed: Pass) -> dict[str, Mapping[str, Array]]:
    return {
        pair.keras.layers[-1]: observed.statistics[pair.ref.layers[-1]]
        for pair in alignment.pairs
        if pair.ref.layers[-1] in observed.statistics
    }


def _move(
    link: Link,
    step: int,
    start: Mapping[str, Array],
    goal: Mapping[str, Array],
    reached: Mapping[str, Array],
    course: Course,
    free: Course,
) -> Move:
    before = start[link.keras].astype(np.float64)
    expected = goal[link.keras].astype(np.float64) - before
    actual = reached[link.keras].astype(np.float64) - before
    floor = ROUNDOFF * channel_rms(start[link.keras]) + (8 * ROUNDOFF + _SCALARS / CLEAN) * rms(expected)
    travelled: Distance | None = None
    if link.linear:
        origin = free.weights[0][link.keras].astype(np.float64)
        here = free.weights[step][link.keras].astype(np.float64) - origin
        travelled = distance(here, goal[link.keras].astype(np.float64) - origin)
    apart = distance(actual, expected)
    x_floor = apart.x_floor(floor)
    status = "match" if x_floor <= CLEAN else "born"
    if status == "born" and link.role in ("variance", "deviation") and isinstance(link.pair.ref.kind, BatchNorm):
        return _spread(link, step, start, reached, course, expected, actual)
    return Move(link, step, status, x_floor, float(np.mean(floor)), apart, travelled, expected, actual)


def _spread(
    link: Link,
    step: int,
    start: Mapping[str, Array],
    reached: Mapping[str, Array],
    course: Course,
    expected: Array,
    actual: Array,
) -> Move:
    """The running variance: the rate is judged, not the law.

    MatConvNet averages the deviation, Keras the variance, with or without Bessel's correction n/(n-1); there is no
    argument for it. So the Keras value must be what *its* law makes of the reference's rate and batch statistics.
    """
    kind = link.pair.ref.kind
    assert isinstance(kind, BatchNorm)
    statistics = course.passes[step - 1].statistics.get(link.pair.ref.layers[-1])
    if statistics is None or kind.momentum is None:
        return Move(link, step, "unverified", None, 0.0, None, None, note="no batch statistics were observed")
    rate = 1.0 - kind.momentum
    old, batch = start[link.keras].astype(np.float64), statistics["variance"].astype(np.float64)
    output = course.passes[0].outputs.get(link.pair.ref.output)
    sizes = [1.0]
    if output is not None:
        count = output.size // output.shape[-1]
        sizes.append(count / max(1, count - 1))
    held = reached[link.keras].astype(np.float64)
    tries = [distance(held, (1 - rate) * old + rate * batch * size) for size in sizes]
    best = min(tries, key=lambda d: d.rms)
    scale = ROUNDOFF * (np.abs(old) + np.abs(batch) * 64 + kind.epsilon)
    x_floor = best.x_floor(scale)
    note = "the rate agrees; the law of averaging is Keras' own"
    status = "match" if x_floor <= CLEAN * 4 else "born"
    return Move(
        link, step, status, x_floor, float(np.mean(scale)), distance(actual, expected), None, expected, actual,
        note if status == "match" else "",
    )  # fmt: skip
