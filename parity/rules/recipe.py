"""The recipes differ: the update rule and its numbers, the learning rate over time, clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from parity.case import Comparison
from parity.changes import Change
from parity.optimizers.base import UpdateRule
from parity.optimizers.schedules import rate_at
from parity.recipe import Recipe
from parity.replay import replay
from parity.report import Finding
from parity.rules.base import finding, shown
from parity.rules.decay import decays_the_rate
from parity.rules.multipliers import scaled
from parity.rules.trained import severity_of

__all__ = ["find"]


def find(run: Comparison) -> Iterable[Finding]:
    """Findings of the update phase; notes where no update ran or none diverged."""
    ref, keras = run.ref.recipe, run.keras.recipe
    if ref.optimizer is None or keras.optimizer is None or run.mode != "train":
        return
    severity = severity_of(run)
    yield from _rule(run, ref, keras, severity)
    yield from _rate(run, severity)
    if keras.clip and not ref.clip:
        words = ", ".join(f"{k}={v:g}" for k, v in keras.clip.items())
        yield finding(
            "optimizer-clipping",
            severity,
            "update",
            f"Keras clips gradients ({words}); the reference does not.",
            fix="leave clipnorm and clipvalue out of the optimizer",
            changes=(Change("optimizer", "", {"config": dict.fromkeys(("clipnorm", "clipvalue", "global_clipnorm"))}),),
        )


def _rule(run: Comparison, ref: Recipe, keras: Recipe, severity: str) -> Iterator[Finding]:
    mine, theirs = ref.optimizer, keras.optimizer
    assert mine is not None
    assert theirs is not None
    fix = f"model.compile(optimizer={mine.keras_line(_number(ref.learning_rate.first))}, …)"
    if mine.name != theirs.name and scaled(run) is None:
        evidence = f"The reference trains with {_words(mine)}, Keras with {_words(theirs)}."
        changes = _built(mine, ref.learning_rate.first)
        yield finding("optimizer-kind", severity, "update", evidence, fix=fix, changes=changes)
        return
    if mine.name != theirs.name:
        return
    a, b = mine.describe(), theirs.describe()
    for name, cause in mine.causes.items():
        if name not in b or _equal(a[name], b[name]):
            continue
        if name == "rate_inside":
            momentum = a.get("momentum") or b.get("momentum")
            schedules = any(len(set(r.learning_rate.values)) > 1 or r.learning_rate.decay for r in (ref, keras))
            if momentum and schedules:
                yield finding(
                    cause,
                    "note",
                    "update",
                    "Keras' velocity holds the learning rate, the reference's does not: equal while the rate is "
                    "constant, but after each change of the rate the old velocity keeps the old rate for a while.",
                )
            continue
        label = {"nesterov": "nesterov"}.get(name, name)
        evidence = f"{label} is {shown(a[name])} in the reference and {shown(b[name])} in Keras."
        changes = _argument(mine, theirs, name)
        sure = severity == "divergence" and not changes and _replayed(run, name, a[name])
        yield finding(cause, severity, "update", evidence, fix=fix, confirmed=sure, changes=changes)


def _replayed(run: Comparison, name: str, value: Any) -> bool:
    """Whether Keras' recipe as it says, and not with the reference's value of this field, makes the steps it makes."""
    tried, recipe = replay(run), run.keras.recipe
    assert recipe.optimizer is not None
    if tried is None or not tried.explains(recipe):
        return False
    return not tried.explains(replace(recipe, optimizer=replace(recipe.optimizer, **{name: value})))


def _built(rule: UpdateRule, rate: float) -> tuple[Change, ...]:
    """Keras' optimizer of a rule."""
    name, settings = rule.keras_settings()
    config = {"learning_rate": rate, **{key: value for key, value in settings.items() if value is not None}}
    return (Change("optimizer", "", {"class_name": name, "config": config}),) if name else ()


def _argument(rule: UpdateRule, other: UpdateRule, name: str) -> tuple[Change, ...]:
    """The rule's number as an argument of Keras' optimizer; none where Keras has no argument for it."""
    if name == "use_rate":
        return (Change("optimizer", "", {"config": {"learning_rate": 1.0}}),)
    value = getattr(rule, name)
    own, theirs = (r.keras_settings()[1] for r in (rule, replace(rule, **{name: getattr(other, name)})))
    words = [key for key in {**own, **theirs} if own.get(key) != theirs.get(key)]
    return tuple(Change("optimizer", "", {"config": {word: value}}) for word in words)


def _words(rule: UpdateRule) -> str:
    numbers = [
        f"{k} {shown(v)}" for k, v in rule.describe().items() if k in ("momentum", "rho", "beta1", "beta2") and v
    ]
    nesterov = ", nesterov" if rule.describe().get("nesterov") else ""
    return rule.name + (f" ({', '.join(numbers)}{nesterov})" if numbers else "")


def _equal(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float | int) and not isinstance(b, bool):
        return math.isclose(a, b, rel_tol=1e-6)
    return a == b


def _number(value: float) -> str:
    return f"{value:g}"


def _rate(run: Comparison, severity: str) -> Iterator[Finding]:
    ref, keras = run.ref.recipe, run.keras.recipe
    mine, theirs = ref.learning_rate, keras.learning_rate
    default = " (the trainer's default)" if "learning_rate" in ref.defaults else ""
    rates = [rate_at(theirs, keras.steps_done + step) for step in range(len(run.course.passes) or 1)]
    steady = (Change("optimizer", "", {"config": {"learning_rate": mine.first, "decay": 0.0}}),)
    if not math.isclose(mine.first, rates[0], rel_tol=1e-6):
        ratio = rates[0] / mine.first if mine.first else math.inf
        yield finding(
            "optimizer-learning-rate",
            severity,
            "update",
            f"The learning rate starts at {mine.first:g}{default} in the reference and at {rates[0]:g} in Keras, "
            f"{ratio:.3g} times as much; over time {mine} against {theirs}.",
            fix=f"learning_rate={mine.first:g}",
            changes=steady,
        )
        return
    if decays_the_rate(run):
        return
    later = next((step for step, rate in enumerate(rates) if not math.isclose(rate, mine.first, rel_tol=1e-7)), None)
    if later is not None:
        yield finding(
            "optimizer-learning-rate",
            severity,
            "update",
            f"Both start at {mine.first:g}; from update {later + 1} on Keras' rate is another, {rates[later]:.6g} "
            f"there ({theirs}), while the reference's is {mine}, which changes from epoch to epoch only.",
            fix=f"learning_rate={mine.first:g}, and keras.callbacks.LearningRateScheduler for rates per epoch",
            changes=steady,
        )
    elif _schedule_differs(ref, keras):
        yield finding(
            "optimizer-learning-rate",
            "note",
            "update",
            f"The first rates agree, the schedules do not: {mine} per epoch in the reference, {theirs} in Keras.",
            fix="keras.callbacks.LearningRateScheduler with the reference's rates per epoch",
        )


def _schedule_differs(ref: Recipe, keras: Recipe) -> bool:
    mine, theirs = ref.learning_rate, keras.learning_rate
    changes = mine.kind == "epochs" and len(set(mine.values)) > 1
    return changes != (theirs.kind not in ("constant", "epochs") or len(set(theirs.values)) > 1)
