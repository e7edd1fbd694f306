"""Learning rates over time: Keras' laws by name, as what they give for each update.

A new law is a function here and a line in `LAWS`. Source: keras/src/optimizers/schedules/learning_rate_schedule.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.recipe import Schedule

__all__ = ["LAWS", "rate_at"]


def rate_at(schedule: Schedule, steps: int) -> float:
    """The learning rate of the update that follows `steps` others; the first one where the law is not known."""
    if schedule.kind == "inverse-time":
        return schedule.first / (1 + schedule.decay * steps)
    law = LAWS.get(schedule.kind)
    try:
        return schedule.first if law is None else law(schedule.config, steps)
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError):  # a law without its settings
        return schedule.first


def _exponential(of: Mapping[str, Any], t: int) -> float:
    power = t / of["decay_steps"]
    return of["initial_learning_rate"] * of["decay_rate"] ** (math.floor(power) if of.get("staircase") else power)


def _inverse_time(of: Mapping[str, Any], t: int) -> float:
    power = t / of["decay_steps"]
    power = math.floor(power) if of.get("staircase") else power
    return of["initial_learning_rate"] / (1 + of["decay_rate"] * power)


def _piecewise(of: Mapping[str, Any], t: int) -> float:
    return of["values"][sum(t > bound for bound in of["boundaries"])]


def _polynomial(of: Mapping[str, Any], t: int) -> float:
    steps, end = of["decay_steps"], of.get("end_learning_rate", 0.0001)
    if of.get("cycle"):
        steps *= max(1, math.ceil(t / steps))
    else:
        t = min(t, steps)
    return (of["initial_learning_rate"] - end) * (1 - t / steps) ** of.get("power", 1.0) + end


def _cosine(of: Mapping[str, Any], t: int) -> float:
    first, target, warm = of["initial_learning_rate"], of.get("warmup_target"), of.get("warmup_steps") or 0
    if target is not None:
        if t < warm:
            return first + (target - first) * t / warm
        first, t = target, t - warm
    share = min(t, of["decay_steps"]) / of["decay_steps"]
    alpha = of.get("alpha", 0.0)
    return first * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * share)) + alpha)


def _restarts(of: Mapping[str, Any], t: int) -> float:
    longer, smaller, alpha = of.get("t_mul", 2.0), of.get("m_mul", 1.0), of.get("alpha", 0.0)
    done = t / of["first_decay_steps"]
    if longer == 1.0:
        turn = math.floor(done)
        share = done - turn
    else:
        turn = math.floor(math.log(1 - done * (1 - longer)) / math.log(longer))
        share = (done - (1 - longer**turn) / (1 - longer)) / longer**turn
    low = 0.5 * smaller**turn * (1 + math.cos(math.pi * share))
    return of["initial_learning_rate"] * ((1 - alpha) * low + alpha)


LAWS: Mapping[str, Callable[[Mapping[str, Any], int], float]] = {
    "ExponentialDecay": _exponential,
    "InverseTimeDecay": _inverse_time,
    "PiecewiseConstantDecay": _piecewise,
    "PolynomialDecay": _polynomial,
    "CosineDecay": _cosine,
    "CosineDecayRestarts": _restarts,
}
"""Keras' class → (its settings, updates done) → the rate."""
