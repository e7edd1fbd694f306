"""The recipes differ: the update rule and its numbers, the learning rate over time, clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from parity.acting import Acting, acting
from parity.case import Comparison
from parity.changes import Change
from parity.optimizers.base import OpaqueRule, UpdateRule
from parity.recipe import Recipe, Schedule
from parity.rehearsal import FACTORS
from parity.report import Finding
from parity.rules.attribution import doing, judged, keras_law, law_of, rates, rebuilt, solved
from parity.rules.base import finding, shown
from parity.rules.decay import decays_the_rate
from parity.rules.making import constructor
from parity.rules.trained import severity_of

__all__ = ["find"]


def find(run: Comparison) -> Iterable[Finding]:
    """Findings of the update phase; notes where the steps on this batch do not show them."""
    ref, acts = run.ref.recipe, doing(run)
    if ref.optimizer is None or acts.recipe.optimizer is None or run.mode != "train":
        return
    yield from _beyond(run, ref)
    yield from _rule(run, ref, acts)
    yield from _rate(run, acts)
    yield from _clipping(run, acts)


def _beyond(run: Comparison, ref: Recipe) -> Iterator[Finding]:
    """What no number of a rule says: settings that move the weights otherwise, and a class of the user's own."""
    keras, severity = run.keras.recipe, severity_of(run)
    words = {
        "gradient_accumulation_steps": "moves the weights once in {} steps, by the mean of the gradients since",
        "ema_overwrite_frequency": "takes an average of the weights over them, every {} updates",
        "ema_momentum": "weighs the old average of the weights with {}",
    }
    for name, said in words.items():
        mine, theirs = ref.extras.get(name), keras.extras.get(name)
        if mine == theirs or (name == "ema_momentum" and not (mine and theirs)):
            continue
        who, other = ("Keras'", "the reference") if theirs else ("The reference's", "Keras")
        rest = "does not" if not (mine and theirs) else f"with {mine}" if name == "ema_momentum" else f"every {mine}"
        off = {"use_ema": bool(mine)} if name == "ema_overwrite_frequency" else {}
        yield finding(
            "optimizer-kind",
            severity,
            "update",
            f"{who} optimizer {said.format(theirs or mine)}; {other} {rest}.",
            fix=f"give the optimizer {name}={mine}" if mine else f"leave {name} out",
            changes=(Change("optimizer", "", {"config": {name: mine, **off}}),),
        )
    alone = run.rehearsal
    known = keras.optimizer is not None and not isinstance(keras.optimizer, OpaqueRule)
    if severity == "note" and keras.custom and known and alone is not None and alone.by(keras):
        yield finding(
            "optimizer-kind",
            "note",
            "update",
            f"{keras.custom} is a class of its own. On this batch it takes the steps of the optimizer that it is "
            "derived from; by gradients from 1e-8 to 100 times as large it takes others.",
        )
    if severity == "divergence" and keras.custom and ref.optimizer and acting(run) is None:
        yield finding(
            "optimizer-kind",
            severity,
            "update",
            f"The reference trains with {_words(ref.optimizer)}. {keras.custom} is a class of its own, and no numbers "
            f"of {keras.optimizer.name if keras.optimizer else 'a rule'} make its steps.",
            fix=_line(ref.optimizer, ref),
            changes=rebuilt(run),
        )


def _rule(run: Comparison, ref: Recipe, acts: Acting) -> Iterator[Finding]:
    mine, theirs = ref.optimizer, acts.recipe.optimizer
    assert mine is not None
    assert theirs is not None
    fix = _line(mine, ref)
    if mine.name != theirs.name:
        severity, sure = judged(run, replace(acts, recipe=replace(acts.recipe, optimizer=mine)))
        sure = sure and not isinstance(mine, OpaqueRule)
        evidence = f"The reference trains with {_words(mine)}, Keras with {_words(theirs)}."
        yield finding("optimizer-kind", severity, "update", evidence, fix=fix, confirmed=sure, changes=rebuilt(run))
        return
    a, b = mine.describe(), theirs.describe()
    for name, cause in mine.causes.items():
        if name not in b or _equal(a[name], b[name]):
            continue
        if name == "rate_inside":
            yield from _inside(run, ref, acts)
            continue
        undone = replace(acts, recipe=replace(acts.recipe, optimizer=replace(theirs, **{name: a[name]})))
        severity, sure = judged(run, undone)
        unseen = _unseen(run, undone.recipe) if severity == "note" else ""
        evidence = f"{name} is {shown(a[name])} in the reference and {shown(b[name])} in Keras."
        hidden = solved(run, (name,))
        changes = rebuilt(run) if _own_class(run, hidden) else _argument(mine, theirs, name)
        if name == "epsilon_inside":
            changes = changes if hidden else _elsewhere(undone.recipe)
        class_ = f"Keras has no argument for it: a class with an update_step of its own (`parity rule {cause}`)"
        words, said = fix if changes else class_, evidence + hidden + unseen
        yield finding(cause, severity, "update", said, fix=words, confirmed=sure, changes=changes)


def _line(rule: UpdateRule, ref: Recipe) -> str:
    """The line of Keras that has a rule."""
    made = rule.keras_line(f"{ref.learning_rate.first:g}")
    if not made.startswith("Outside"):
        return f"model.compile(optimizer={made}, …)"
    legacy = made.split("(")[0].removeprefix("Outside")
    return (
        f"model.compile(optimizer={made}, …), whose class is in `parity rule optimizer-epsilon`; Keras 2 has it as "
        f"keras.optimizers.legacy.{legacy}"
    )


def _inside(run: Comparison, ref: Recipe, acts: Acting) -> Iterator[Finding]:
    """A velocity that holds the learning rate, where a rehearsal with one change of the rate shows it."""
    alone, rule = run.rehearsal, ref.optimizer
    if alone is None or rule is None or not rule.describe().get("momentum"):
        return
    changed = next(at for at, factor in enumerate(FACTORS) if factor != 1)
    if changed + 1 not in alone.apart(alone.ref):
        return
    mine, theirs = (float(np.linalg.norm(side[changed] - alone.weight)) for side in (alone.ref, alone.keras))
    holder, other = ("Keras'", "the reference's") if acts.recipe.optimizer != rule else ("One", "the other")
    still = all(law.kind == "constant" for law in (ref.learning_rate, acts.recipe.learning_rate))
    now = "; with these constant rates it makes no difference" if still else ""
    yield finding(
        "optimizer-momentum",
        "note",
        "update",
        f"{holder} velocity holds the learning rate, {other} does not: after each change of the rate the old velocity "
        f"keeps the old rate for a while{now}. Given the same gradients and, at the {changed + 1}th step, a tenth of "
        f"the rate, Keras moves {theirs / mine if mine else math.inf:.3g} times as far there.",
    )


def _unseen(run: Comparison, undone: Recipe) -> str:
    """Words for a difference that the batch does not show: whether other gradients do."""
    alone = run.rehearsal
    if alone is None or isinstance(undone.optimizer, OpaqueRule):
        return ""
    if alone.by(undone):
        return " This batch does not show it; gradients from 1e-8 to 100 times its own do."
    return " It shows neither on this batch nor on gradients from 1e-8 to 100 times its own."


def _own_class(run: Comparison, hidden: str) -> bool:
    """Whether the fix is an optimizer of Keras' own class: one of the user's may not heed its arguments."""
    return bool(hidden or run.keras.recipe.custom) and "factors" not in doing(run).solved


def _argument(rule: UpdateRule, other: UpdateRule, name: str) -> tuple[Change, ...]:
    """The rule's number as an argument of Keras' optimizer; none where Keras has no argument for it."""
    value = getattr(rule, name)
    own, theirs = (r.keras_settings()[1] for r in (rule, replace(rule, **{name: getattr(other, name)})))
    words = [key for key in {**own, **theirs} if own.get(key) != theirs.get(key)]
    return tuple(Change("optimizer", "", {"config": {word: value}}) for word in words)


def _elsewhere(undone: Recipe) -> tuple[Change, ...]:
    """The class that has epsilon at the other place, with Keras' own settings."""
    assert undone.optimizer is not None
    return (Change("optimizer", "", {"class_name": undone.optimizer.keras_settings()[0]}),)


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


# The learning rate ----------------------------------------------------------------------------------------------------


def _rate(run: Comparison, acts: Acting) -> Iterator[Finding]:
    ref, keras = run.ref.recipe, acts.recipe
    mine, theirs = law_of(ref), law_of(keras)
    own, other = rates(run, ref), rates(run, keras)
    undone = replace(acts, recipe=replace(keras, learning_rate=mine))
    hidden = solved(run, ("learning_rate",))
    law = rebuilt(run)
    steady = law if _own_class(run, hidden) else tuple(_only_the_rate(change) for change in law)
    if not steady:
        steady = (Change("optimizer", "", {"config": {"learning_rate": mine.first, "decay": 0.0}}),)
    per_epoch = mine.kind == "epochs" and len(set(mine.values)) > 1
    fix = f"learning_rate={_spelled(mine)}"
    if not math.isclose(own[0], other[0], rel_tol=1e-6):
        severity, sure = judged(run, undone)
        ratio = other[0] / own[0] if own[0] else math.inf
        default = " (the trainer's default)" if "learning_rate" in ref.defaults else ""
        default = default if mine is ref.learning_rate else " (its rule takes no rate)"
        yield finding(
            "optimizer-learning-rate",
            severity,
            "update",
            f"The learning rate starts at {own[0]:g}{default} in the reference and at {other[0]:g} in Keras, "
            f"{ratio:.6g} times as much; over time {mine} against {theirs}.{hidden}",
            fix=fix,
            confirmed=sure,
            changes=steady,
        )
        return
    if decays_the_rate(run):
        return
    pairs = enumerate(zip(own, other, strict=True))
    later = next((step for step, (a, b) in pairs if not math.isclose(a, b, rel_tol=1e-7)), None)
    if later is not None:
        severity, sure = judged(run, undone)
        epochs = ", which changes from epoch to epoch only" if mine.kind in ("constant", "epochs") else ""
        callback = ", and keras.callbacks.LearningRateScheduler for rates per epoch" if per_epoch else ""
        yield finding(
            "optimizer-learning-rate",
            severity,
            "update",
            f"Both start at {own[0]:g}; from update {later + 1} on Keras' rate is another, {other[later]:.6g} there "
            f"({theirs}), while the reference's is {own[later]:.6g} ({mine}{epochs}).",
            fix=fix + callback,
            confirmed=sure,
            changes=steady,
        )
    elif _differ_later(ref, keras):
        yield finding(
            "optimizer-learning-rate",
            "note",
            "update",
            f"The first rates agree, the schedules do not: {mine}{' per epoch' if per_epoch else ''} in the reference, "
            f"{theirs} in Keras.",
            fix="keras.callbacks.LearningRateScheduler with the reference's rates per epoch" if per_epoch else fix,
        )


def _spelled(schedule: Schedule) -> str:
    """A learning rate over time as the line of Keras that has it; of rates per epoch the first."""
    law = keras_law(schedule)
    if not isinstance(law, dict):
        return f"{law:g}"
    known = not law["class_name"].islower()  # a word of parity's own for a law that it cannot name
    return f"keras.optimizers.schedules.{constructor(law['class_name'], law['config'])}" if known else str(schedule)


def _only_the_rate(change: Change) -> Change:
    """Of a whole optimizer only its learning rate, and no decay of it."""
    return Change(
        "optimizer", "", {"config": {"learning_rate": change.values["config"]["learning_rate"], "decay": 0.0}}
    )


def _differ_later(ref: Recipe, keras: Recipe) -> bool:
    """Whether the rates are others beyond the steps that were run, as far as the schedules' names and numbers say."""
    mine, theirs = law_of(ref), law_of(keras)
    still = [law.kind in ("constant", "epochs") and len(set(law.values)) < 2 for law in (mine, theirs)]
    if any(still):
        return not all(still)
    return (mine.kind, dict(mine.config)) != (theirs.kind, dict(theirs.config)) or not (
        len(mine.values) == len(theirs.values)
        and all(map(_equal, (*mine.values, mine.decay), (*theirs.values, theirs.decay)))
    )


# Clipping -------------------------------------------------------------------------------------------------------------

_LIMITS = ("clipnorm", "clipvalue", "global_clipnorm")


def _clipping(run: Comparison, acts: Acting) -> Iterator[Finding]:
    mine, theirs = dict(run.ref.recipe.clip), dict(acts.recipe.clip)
    if mine.keys() == theirs.keys() and all(_equal(mine[key], theirs[key]) for key in mine):
        return
    undone = replace(acts, recipe=replace(acts.recipe, clip=mine))
    severity, sure = judged(run, undone)
    unseen = _unseen(run, undone.recipe) if severity == "note" else ""
    hidden = solved(run, _LIMITS)
    if not mine:
        evidence = f"Keras clips gradients ({_limits(theirs)}); the reference does not."
        fix = "leave clipnorm and clipvalue out of the optimizer"
    elif not theirs:
        evidence = f"The reference clips gradients ({_limits(mine)}); Keras does not."
        fix = f"give the optimizer {_limits(mine)}"
    else:
        evidence = f"The reference clips gradients by {_limits(mine)}, Keras by {_limits(theirs)}."
        fix = f"give the optimizer {_limits(mine)}"
    config = {**dict.fromkeys(_LIMITS), **mine}
    whole = _own_class(run, hidden)
    changes = rebuilt(run) if whole else (Change("optimizer", "", {"config": config}),)
    yield finding(
        "optimizer-clipping", severity, "update", evidence + hidden + unseen, fix=fix, confirmed=sure, changes=changes
    )


def _limits(clip: dict[str, float]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in clip.items())
