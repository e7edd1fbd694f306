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
from parity.distances import Distance, channel_rms, distance
from parity.layers import BatchNorm
from parity.network import STATISTICS
from parity.recipe import Recipe
from parity.runner import Pass, Runner, Targets
from parity.tolerance import CLEAN, ROUNDOFF
from parity.transfer import Link, transferred

__all__ = [
    "Course",
    "Move",
    "coarseness",
    "free_step",
    "isolated_moves",
    "isolated_step",
    "move_floor",
    "sized_floor",
    "spread",
    "step_moves",
]

Array = np.ndarray

_SCALARS = 2.5e-5
"""Relative error of a step that float32 scalars cause at least, taken as Keras holds them.

Half of what Keras' 1 - beta2^t in Adam is off by: beta2 = 0.999 itself is rounded by 1.3e-8 (1.3e-5 of it), and the
power by an ulp, 6e-8 (3e-5 of it at the second step, less later). Of a beta2 closer to 1 it is more (`coarseness`).
"""


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
        shape: of the parameter.
        note: how it was judged.
    """

    link: Link
    step: int
    status: str
    x_floor: float | None
    floor: float
    isolated: Distance | None
    propagated: Distance | None
    shape: tuple[int, ...] = ()
    note: str = ""


def free_step(
    runner: Runner,
    course: Course,
    inputs: Mapping[str, Array],
    labels: Targets | None,
    *,
    masks: Mapping[str, Array] | None = None,
    keep: frozenset[str] | None = None,
) -> Pass:
    """Train the model for one update on the batch, from its present weights, and add the step to its course.

    Args:
        runner: either side.
        course: its steps so far; only the first step's pass has every layer's tensors.
        inputs: name → n h w c.
        labels: what the losses are held against.
        masks: layer → dropout mask to use.
        keep: tensors to observe in the first step; None for all.
    """
    if not course.weights:
        course.weights.append(runner.params())
    first = not course.passes
    seen = runner.run(inputs, labels, mode="train", backward=True, observe=first, masks=masks, keep=keep)
    runner.update(seen.param_grads, seen.statistics)
    course.passes.append(seen)
    course.weights.append(runner.params())
    return seen


def isolated_moves(
    alignment: Alignment,
    links: tuple[Link, ...],
    keras: Runner,
    course: Course,
    free: Course,
    *,
    slots: Mapping[str, Mapping[str, Array]],
    unmoved: Mapping[str, str] | None = None,
    watch: Callable[[int, Mapping[str, Array], Sequence[Move]], None] | None = None,
) -> list[Move]:
    """Every parameter's isolated move in every step, and the free one beside it.

    Args:
        alignment: who is whose partner.
        links: how parameters correspond.
        keras: the Keras runner; its weights and optimizer are used and left changed.
        course: the reference's free run.
        free: the Keras model's free run.
        slots: the optimizer's slots to start from, by Keras id.
        unmoved: reference id → why the reference cannot say what its update is.
        watch: called after each step with its number, the Keras parameters that it reached, and its moves.
    """
    keras.reset(slots)
    moves: list[Move] = []
    for step in range(1, len(course.passes) + 1):
        reached = isolated_step(alignment, links, keras, course, step)
        here = step_moves(links, course, free, reached, step, unmoved, coarseness(keras.recipe))
        if watch is not None:
            watch(step, reached, here)
        moves += here
    return moves


def isolated_step(
    alignment: Alignment, links: tuple[Link, ...], keras: Runner, course: Course, step: int
) -> dict[str, Array]:
    """The Keras parameters after a step from the reference's weights by its gradients; the optimizer goes on."""
    observed = course.passes[step - 1]
    start = transferred(links, course.weights[step - 1])
    keras.load(start)
    keras.update(_gradients(links, observed, start), _statistics(alignment, links, observed))
    return keras.params()


def step_moves(
    links: tuple[Link, ...],
    course: Course,
    free: Course,
    reached: Mapping[str, Array],
    step: int,
    unmoved: Mapping[str, str] | None = None,
    coarse: float = 0.0,
) -> list[Move]:
    """Every parameter's move in one step.

    Args:
        links: how parameters correspond.
        course: the reference's free run.
        free: the Keras model's free run.
        reached: what `isolated_step` gave.
        step: from 1.
        unmoved: reference id → why the reference cannot say what its update is.
        coarse: the `coarseness` of the Keras recipe.
    """
    origin, start, goal = (transferred(links, course.weights[at]) for at in (0, step - 1, step))
    moves: list[Move] = []
    for link in links:
        if not link.keras or link.keras not in start or not link.ref:
            continue
        why = next((unmoved[key] for key in link.ref if key in unmoved), "") if unmoved else ""
        if why:
            moves.append(Move(link, step, "unverified", None, 0.0, None, None, note=why))
            continue
        moves.append(_move(link, step, start, goal, reached, origin, course, free, coarse))
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


def _statistics(alignment: Alignment, links: tuple[Link, ...], observed: Pass) -> dict[str, Mapping[str, Array]]:
    """What the reference took of its batch, by Keras layer, where that averages along the same axis."""
    apart = {link.pair.ref.name for link in links if link.role in STATISTICS and link.problem}
    return {
        pair.keras.layers[-1]: observed.statistics[pair.ref.layers[-1]]
        for pair in alignment.pairs
        if pair.ref.layers[-1] in observed.statistics and pair.ref.name not in apart
    }


def coarseness(recipe: Recipe) -> float:
    """Relative error of a step that the update rule's own float32 scalars cause."""
    return recipe.optimizer.coarseness if recipe.optimizer is not None else 0.0


def move_floor(start: Array, change: Array, noise: float = 0.0, coarse: float = 0.0) -> Array:
    """What rounding may do to a parameter's change in one step, per channel.

    Args:
        start: the parameter before it.
        change: of the parameter.
        noise: what else may differ, relative to the change.
        coarse: what the update rule's scalars may be off by.
    """
    return sized_floor(channel_rms(start), channel_rms(change), noise, coarse)


def sized_floor(start: Array, change: Array, noise: float = 0.0, coarse: float = 0.0) -> Array:
    """The `move_floor` of a parameter and a change that have these root mean squares per channel."""
    size = np.maximum(np.sqrt(np.mean(np.square(change))), change)  # a channel above the others is coarser by itself
    return ROUNDOFF * start + (8 * ROUNDOFF + max(_SCALARS, coarse) / CLEAN + noise) * size


def _move(
    link: Link,
    step: int,
    start: Mapping[str, Array],
    goal: Mapping[str, Array],
    reached: Mapping[str, Array],
    origin: Mapping[str, Array],
    course: Course,
    free: Course,
    coarse: float,
) -> Move:
    key = link.keras
    expected, actual = goal[key] - start[key], reached[key] - start[key]
    floor = move_floor(start[key], expected, coarse=coarse)
    travelled: Distance | None = None
    if link.linear:
        travelled = distance(free.weights[step][key] - free.weights[0][key], goal[key] - origin[key])
    apart = distance(actual, expected)
    x_floor = apart.x_floor(floor)
    status = "match" if x_floor <= CLEAN else "born"
    if status == "born" and link.role in ("variance", "deviation") and isinstance(link.pair.ref.kind, BatchNorm):
        return spread(link, step, start, reached, course, apart)
    return Move(link, step, status, x_floor, float(np.mean(floor)), apart, travelled, expected.shape)


def spread(
    link: Link,
    step: int,
    start: Mapping[str, Array],
    reached: Mapping[str, Array],
    course: Course,
    apart: Distance,
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
    status = "match" if x_floor <= CLEAN * 4 else "born"
    note = "the rate agrees; the law of averaging is Keras' own" if status == "match" else ""
    return Move(link, step, status, x_floor, float(np.mean(scale)), apart, None, old.shape, note)
