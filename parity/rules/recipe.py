"""The recipes differ: optimizer, learning rate, momentum, weight decay, multipliers, clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from parity.case import Comparison
from parity.differences import differences
from parity.network import Param
from parity.optimizers.base import UpdateRule
from parity.recipe import Recipe
from parity.report import Finding
from parity.rules.base import finding, listed, shown
from parity.transfer import Link

__all__ = ["find"]


def find(run: Comparison) -> Iterable[Finding]:
    """Findings of the update phase; notes where no update ran or none diverged."""
    ref, keras = run.ref.recipe, run.keras.recipe
    if ref.optimizer is None or keras.optimizer is None or run.mode != "train":
        return
    severity = "divergence" if any(m.status == "born" for m in run.moves) else "note"
    yield from _rule(ref, keras, severity)
    yield from _rate(ref, keras, severity)
    yield from _decay(run, ref, keras, severity)
    yield from _multipliers(run, ref, severity)
    yield from _frozen(run)
    if keras.clip and not ref.clip:
        words = ", ".join(f"{k}={v:g}" for k, v in keras.clip.items())
        yield finding(
            "optimizer-clipping",
            severity,
            "update",
            f"Keras clips gradients ({words}); the reference does not.",
            fix="leave clipnorm and clipvalue out of the optimizer",
        )


def _rule(ref: Recipe, keras: Recipe, severity: str) -> Iterator[Finding]:
    mine, theirs = ref.optimizer, keras.optimizer
    assert mine is not None
    assert theirs is not None
    fix = f"model.compile(optimizer={mine.keras_line(_number(ref.learning_rate.first))}, …)"
    if mine.name != theirs.name:
        evidence = f"The reference trains with {_words(mine)}, Keras with {_words(theirs)}."
        yield finding("optimizer-kind", severity, "update", evidence, fix=fix)
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
        yield finding(cause, severity, "update", evidence, fix=fix)


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


def _rate(ref: Recipe, keras: Recipe, severity: str) -> Iterator[Finding]:
    mine, theirs = ref.learning_rate, keras.learning_rate
    default = " (the trainer's default)" if "learning_rate" in ref.defaults else ""
    if not math.isclose(mine.first, theirs.first, rel_tol=1e-6):
        ratio = theirs.first / mine.first if mine.first else math.inf
        yield finding(
            "optimizer-learning-rate",
            severity,
            "update",
            f"The learning rate starts at {mine.first:g}{default} in the reference and at {theirs.first:g} in Keras, "
            f"{ratio:.3g} times as much; over time {mine} against {theirs}.",
            fix=f"learning_rate={mine.first:g}",
        )
    elif _schedule_differs(ref, keras):
        yield finding(
            "optimizer-learning-rate",
            "note",
            "update",
            f"The first rates agree, the schedules do not: {mine} per epoch in the reference, {theirs} in Keras.",
            fix="keras.callbacks.LearningRateScheduler with the reference's rates per epoch",
        )
    if theirs.decay and not ref.weight_decay:
        yield finding(
            "optimizer-learning-rate",
            severity,
            "update",
            f"Keras shrinks the rate with every update (decay={theirs.decay:g}: {theirs}); the reference keeps it.",
            fix="leave decay out of the optimizer",
        )


def _schedule_differs(ref: Recipe, keras: Recipe) -> bool:
    mine, theirs = ref.learning_rate, keras.learning_rate
    changes = mine.kind == "epochs" and len(set(mine.values)) > 1
    return changes != (theirs.kind not in ("constant", "inverse-time") or len(set(theirs.values)) > 1)


def _decay(run: Comparison, ref: Recipe, keras: Recipe, severity: str) -> Iterator[Finding]:
    lacking: list[Link] = []
    other: list[tuple[Link, float, float]] = []
    extra: list[Link] = []
    for link in _trained(run):
        mine = ref.weight_decay * _ref(run, link).decay_multiplier + 2 * _ref(run, link).l2
        param = run.keras.network.params[link.keras]
        theirs = keras.weight_decay * param.decay_multiplier + 2 * param.l2
        if math.isclose(mine, theirs, rel_tol=1e-5, abs_tol=1e-12):
            continue
        if theirs == 0:
            lacking.append(link)
        elif mine == 0:
            extra.append(link)
        else:
            other.append((link, mine, theirs))
    coefficient = ref.weight_decay
    fix = (
        f"kernel_regularizer=keras.regularizers.L2({coefficient / 2:g}), and bias_regularizer the same, on every layer"
    )
    by_rate = keras.learning_rate.decay
    if by_rate and coefficient:
        yield finding(
            "optimizer-weight-decay-as-lr-decay",
            severity,
            "update",
            f"Keras' decay={by_rate:g} shrinks the learning rate, {keras.learning_rate}, with every update; it is not "
            f"weight decay. The reference adds {coefficient:g}·w to every gradient.",
            fix=f"leave decay out; {fix}",
        )
    elif keras.decoupled_decay and lacking:
        yield finding(
            "optimizer-weight-decay-decoupled",
            severity,
            "update",
            f"The reference adds {coefficient:g}·w to the gradient, and so to the momentum; Keras' "
            f"weight_decay={keras.decoupled_decay:g} takes rate·{keras.decoupled_decay:g}·w off beside the momentum.",
            fix=f"weight_decay=None; {fix}",
        )
    elif lacking:
        where = _where(lacking)
        yield finding(
            "optimizer-weight-decay-missing",
            severity,
            "update",
            f"The reference adds {coefficient:g}·w to the gradient of {where}; Keras adds nothing there.",
            pair=lacking[0].pair,
            fix=fix,
        )
    if other:
        link, mine, theirs = other[0]
        yield finding(
            "optimizer-weight-decay-missing",
            severity,
            "update",
            f"The reference adds {mine:g}·w to the gradient of {_where([o[0] for o in other])}, Keras {theirs:g}·w "
            "(an L2(c) penalty adds 2c·w).",
            pair=link.pair,
            fix=f"keras.regularizers.L2({mine / 2:g})",
        )
    if extra:
        yield finding(
            "optimizer-weight-decay-missing",
            severity,
            "update",
            f"Keras decays {_where(extra)}, where the reference has no weight decay.",
            pair=extra[0].pair,
            fix="take the regularizer off these parameters",
        )
    if keras.decoupled_decay and not coefficient:
        yield finding(
            "optimizer-weight-decay-decoupled",
            severity,
            "update",
            f"Keras' weight_decay={keras.decoupled_decay:g} shrinks the weights; the reference has no weight decay.",
            fix="weight_decay=None",
        )


def _trained(run: Comparison) -> Iterator[Link]:
    """Parameters that the gradient moves on the reference's side and that Keras has too."""
    for link in run.links:
        if link.ref and link.keras and link.learned and _ref(run, link).trainable:
            yield link


def _ref(run: Comparison, link: Link) -> Param:
    return run.ref.network.params[link.ref[0]]


def _where(found: list[Link]) -> str:
    plural = {"bias": "biases", "kernel": "kernels", "gamma": "gammas", "beta": "betas"}
    roles = sorted({plural.get(link.role, link.role) for link in found})
    names = listed([link.pair.ref.name for link in found])
    return f"the {' and '.join(roles)} of {names}" if len(roles) < 3 else f"the parameters of {names}"


def _multipliers(run: Comparison, ref: Recipe, severity: str) -> Iterator[Finding]:
    by_factor: dict[float, list[Link]] = {}
    for link in _trained(run):
        factor = _ref(run, link).rate_multiplier / (run.keras.network.params[link.keras].rate_multiplier or 1.0)
        if factor not in (0.0, 1.0):
            by_factor.setdefault(factor, []).append(link)
    for factor, found in sorted(by_factor.items()):
        names = ", ".join(f"{link.pair.keras.origin}.{link.role}" for link in found[:3])
        yield finding(
            "optimizer-lr-multiplier",
            severity,
            "update",
            f"The reference gives {_where(found)} {factor:g} times the learning rate (per-layer learningRate); Keras "
            "gives every variable the same.",
            pair=found[0].pair,
            fix=f"multiply the rate of {names}{' …' if len(found) > 3 else ''} by {factor:g}: an optimizer with an "
            "update_step of its own (`parity rule optimizer-lr-multiplier`)",
        )


def _frozen(run: Comparison) -> Iterator[Finding]:
    ref_frozen: list[Link] = []
    keras_frozen: list[Link] = []
    for link in run.links:
        if not (link.ref and link.keras and link.learned):
            continue
        mine, theirs = _ref(run, link), run.keras.network.params[link.keras]
        moves = mine.trainable and mine.rate_multiplier > 0
        if moves and not theirs.trainable:
            keras_frozen.append(link)
        elif theirs.trainable and not moves:
            ref_frozen.append(link)
    for side, found in (("Keras", keras_frozen), ("the reference", ref_frozen)):
        for name in dict.fromkeys(link.pair.ref.name for link in found):
            here = [link for link in found if link.pair.ref.name == name]
            pair = here[0].pair
            if any(d.cause == "bn-mode" for d in differences(pair)):
                continue  # frozen, it normalises by its running statistics too, which says more
            born = any(m.status == "born" for m in run.moves if m.link.pair is pair)
            wanted = "True" if side == "Keras" else "False"
            yield finding(
                "layer-frozen",
                "divergence" if born else "note",
                "update",
                f"{pair.ref.name} never moves in {side} ({listed([link.role for link in here])}).",
                pair=pair,
                fix=f"{pair.keras.origin}.trainable = {wanted}",
            )
