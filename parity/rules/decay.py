"""The recipes differ in what they add to the gradients of the weights: weight decay, in any of its forms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from parity.acting import Acting
from parity.case import Comparison
from parity.changes import Change
from parity.optimizers.sgd import SGD
from parity.recipe import Recipe
from parity.report import Finding
from parity.rules.attribution import doing, judged, rebuilt, solved, with_params
from parity.rules.base import finding
from parity.rules.places import keeper, own_role
from parity.rules.trained import reference_of, trained, where
from parity.settings import CLASS
from parity.transfer import Link

__all__ = ["decays_the_rate", "find", "penalties", "steady_rate"]


def decays_the_rate(run: Comparison) -> bool:
    """Whether Keras' learning rate decays where the reference's weights do, which is one mistake and not two."""
    keras, ref = doing(run).recipe, run.ref.recipe
    if not keras.learning_rate.decay or ref.learning_rate.decay:
        return False
    return any(theirs == 0 < mine for mine, theirs in (_gap(run, link) for link in trained(run)))


def steady_rate(keras: Recipe) -> Change:
    """Keras' optimizer with its first learning rate for good."""
    old = keras.learning_rate.kind == "inverse-time" and not keras.learning_rate.config
    config = {"decay": 0.0} if old else {"learning_rate": keras.learning_rate.first}
    return Change("optimizer", "", {"config": config})


def _gap(run: Comparison, link: Link) -> tuple[float, float]:
    """What each side adds to the gradient of a parameter, in units of the parameter."""
    acts, source = doing(run), reference_of(run, link)
    target = acts.params[link.keras]
    mine = run.ref.recipe.weight_decay * source.decay_multiplier + 2 * source.l2
    return mine, acts.recipe.weight_decay * target.decay_multiplier + 2 * target.l2


def _as_reference(run: Comparison, links: Sequence[Link]) -> Acting:
    """What Keras' optimizer does, but with the reference's decay of these parameters in their gradients."""
    acts = doing(run)
    rest = acts.recipe.weight_decay
    return with_params(
        acts,
        {k.keras: {"l2": (_gap(run, k)[0] - rest * acts.params[k.keras].decay_multiplier) / 2} for k in links},
    )


_ORDER = ("kernel", "depthwise", "pointwise", "alpha", "gamma", "beta", "bias")


def _regularized(link: Link) -> str:
    """What the argument of a Keras layer that penalizes a parameter begins with."""
    role = {"depthwise_bias": "bias"}.get(link.role, link.role.removesuffix("_kernel"))
    if str(link.pair.keras.settings.get(CLASS, "")).startswith("Depthwise"):
        role = {"kernel": "depthwise", "gamma": "depthwise", "pointwise": "kernel", "beta": "bias"}.get(role, role)
    return role if role in _ORDER else "kernel"


def penalties(run: Comparison, links: Sequence[Link]) -> tuple[Change, ...]:
    """All that the reference adds to the gradients of these parameters as penalties of the Keras layers."""
    made: list[Change] = []
    for link in links:
        source, target = reference_of(run, link), run.keras.network.params[link.keras]
        rest = run.keras.recipe.weight_decay * target.decay_multiplier
        values: dict[str, Any] = {"role": own_role(run, link), "l2": (_gap(run, link)[0] - rest) / 2}
        values |= {"l1": source.l1} if source.l1 else {}
        values |= {"penalty": source.penalty} if source.penalty else {}
        made.append(Change("regularize", keeper(run, link), values))
    return tuple(made)


def find(run: Comparison) -> Iterator[Finding]:
    """Findings of the update phase; notes where the steps on this batch do not show them."""
    ref, acts = run.ref.recipe, doing(run)
    keras = acts.recipe
    if ref.optimizer is None or keras.optimizer is None or run.mode != "train":
        return
    if _same_without_momentum(run, acts):
        return
    lacking: list[Link] = []
    other: list[Link] = []
    extra: list[Link] = []
    for link in trained(run):
        mine, theirs = _gap(run, link)
        if not math.isclose(mine, theirs, rel_tol=1e-5, abs_tol=1e-12):
            (lacking if theirs == 0 else extra if mine == 0 else other).append(link)
    decoupled = not math.isclose(keras.decoupled_decay, ref.decoupled_decay, rel_tol=1e-6, abs_tol=1e-12)
    if lacking:
        yield _lacking(run, acts, lacking)
    if other:
        mine, theirs = _gap(run, other[0])
        evidence = (
            f"The reference adds {mine:g}·w to the gradient of {where(other)}, Keras {theirs:g}·w "
            "(an L2(c) penalty adds 2c·w)."
        )
        yield _of_another_size(run, other, evidence, f"keras.regularizers.L2({mine / 2:g})")
    if extra:
        evidence = (
            f"Keras adds {_gap(run, extra[0])[1]:g}·w to the gradient of {where(extra)}, where the reference has no "
            "weight decay."
        )
        yield _of_another_size(run, extra, evidence, "take the regularizer off these parameters")
    if decoupled and not (keras.decoupled_decay and lacking):
        yield _decoupled(run, acts, extra)


def _same_without_momentum(run: Comparison, acts: Acting) -> bool:
    """Whether the decays are the same, though one is in the gradients and the other beside a momentum that is none."""
    rules = (run.ref.recipe.optimizer, acts.recipe.optimizer)
    if (
        not all(isinstance(rule, SGD) and not rule.momentum for rule in rules)
        or run.ref.recipe.clip
        or acts.recipe.clip
    ):
        return False
    beside = run.ref.recipe.decoupled_decay, acts.recipe.decoupled_decay
    gaps = [tuple(map(sum, zip(_gap(run, link), beside, strict=True))) for link in trained(run)]
    return all(math.isclose(mine, theirs, rel_tol=1e-5, abs_tol=1e-12) for mine, theirs in gaps)


def _of_another_size(run: Comparison, links: list[Link], evidence: str, fix: str) -> Finding:
    """Keras decays these parameters in their gradients too, but otherwise."""
    severity, sure = judged(run, _as_reference(run, links))
    hidden = solved(run, ("weight_decay",))
    return finding(
        "optimizer-weight-decay-missing",
        severity,
        "update",
        evidence + hidden,
        pair=links[0].pair,
        fix=fix,
        confirmed=sure,
        changes=rebuilt(run) if hidden else penalties(run, links),
    )


def _lacking(run: Comparison, acts: Acting, links: list[Link]) -> Finding:
    """The reference's decay is in the gradients, and Keras' is elsewhere or nowhere."""
    ref, keras = run.ref.recipe, acts.recipe
    coefficient, undone = _gap(run, links[0])[0], _as_reference(run, links)
    words = [f"{word}_regularizer" for word in sorted({*map(_regularized, links)}, key=_ORDER.index)]
    others = " and ".join(", ".join(words[1:]).rsplit(", ", 1))
    rest = f", and {others} the same" if others else ""
    fix = f"{words[0]}=keras.regularizers.L2({coefficient / 2:g}){rest}, on every layer"
    by_rate = keras.learning_rate.decay
    if by_rate and not ref.learning_rate.decay:
        undone = replace(undone, recipe=replace(keras, learning_rate=ref.learning_rate))
        severity, sure = judged(run, undone)
        return finding(
            "optimizer-weight-decay-as-lr-decay",
            severity,
            "update",
            f"Keras' decay={by_rate:g} shrinks the learning rate, {keras.learning_rate}, with every update; it is not "
            f"weight decay. The reference adds {coefficient:g}·w to every gradient.",
            fix=f"leave decay out; {fix}",
            confirmed=sure,
            changes=(steady_rate(keras), *penalties(run, links)),
        )
    if keras.decoupled_decay:
        undone = replace(undone, recipe=replace(keras, decoupled_decay=ref.decoupled_decay))
        severity, sure = judged(run, undone)
        return finding(
            "optimizer-weight-decay-decoupled",
            severity,
            "update",
            f"The reference adds {coefficient:g}·w to the gradient, and so to the momentum; Keras' "
            f"weight_decay={keras.decoupled_decay:g} takes rate·{keras.decoupled_decay:g}·w off beside the momentum."
            + solved(run, ("decoupled_decay",)),
            fix=f"leave weight_decay out; {fix}",
            confirmed=sure,
            changes=(_beside(run), *penalties(run, links)),
        )
    severity, sure = judged(run, undone)
    return finding(
        "optimizer-weight-decay-missing",
        severity,
        "update",
        f"The reference adds {coefficient:g}·w to the gradient of {where(links)}; Keras adds nothing there.",
        pair=links[0].pair,
        fix=fix,
        confirmed=sure,
        changes=penalties(run, links),
    )


def _decoupled(run: Comparison, acts: Acting, extra: list[Link]) -> Finding:
    """The decays beside the momentum differ."""
    mine, theirs = run.ref.recipe.decoupled_decay, acts.recipe.decoupled_decay
    undone = replace(_as_reference(run, extra), recipe=replace(acts.recipe, decoupled_decay=mine))
    severity, sure = judged(run, undone)
    cause = "optimizer-weight-decay-decoupled"
    if not mine:
        evidence = f"Keras' weight_decay={theirs:g} shrinks the weights; the reference has none beside the gradient."
    elif theirs:
        evidence = f"The reference takes rate·{mine:g}·w off the weights beside the momentum, Keras rate·{theirs:g}·w."
    elif extra:
        evidence = (
            f"The reference takes rate·{mine:g}·w off the weights beside the momentum; Keras decays in the gradients."
        )
    else:
        cause = "optimizer-weight-decay-missing"
        evidence = f"The reference takes rate·{mine:g}·w off the weights; Keras does not."
    return finding(
        cause,
        severity,
        "update",
        evidence + solved(run, ("decoupled_decay",)),
        fix=f"give the optimizer weight_decay={mine:g}" if mine else "leave weight_decay out",
        confirmed=sure,
        changes=(_beside(run),),
    )


def _beside(run: Comparison) -> Change:
    """The reference's decay beside the momentum, as Keras' argument."""
    if solved(run, ("decoupled_decay",)):
        return rebuilt(run)[0]
    return Change("optimizer", "", {"config": {"weight_decay": run.ref.recipe.decoupled_decay}})
