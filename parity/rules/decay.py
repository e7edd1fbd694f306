"""The recipes differ in what they add to the gradients of the weights: weight decay, in any of its forms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from parity.case import Comparison
from parity.changes import Change
from parity.recipe import Recipe
from parity.report import Finding
from parity.rules.base import finding
from parity.rules.repairs import path
from parity.rules.trained import reference_of, severity_of, trained, where
from parity.transfer import Link

__all__ = ["decays_the_rate", "find", "steady_rate"]


def decays_the_rate(run: Comparison) -> bool:
    """Whether Keras' learning rate decays where the reference's weights do, which is one mistake and not two."""
    keras = run.keras.recipe
    return bool(keras.learning_rate.decay) and any(
        _gap(run, link)[1] == 0 < _gap(run, link)[0] for link in trained(run)
    )


def steady_rate(keras: Recipe) -> Change:
    """Keras' optimizer with its first learning rate for good."""
    old = keras.learning_rate.kind == "inverse-time" and not keras.learning_rate.config
    config = {"decay": 0.0} if old else {"learning_rate": keras.learning_rate.first}
    return Change("optimizer", "", {"config": config})


def _gap(run: Comparison, link: Link) -> tuple[float, float]:
    """What each side adds to the gradient of a parameter, in units of the parameter."""
    source, target = reference_of(run, link), run.keras.network.params[link.keras]
    mine = run.ref.recipe.weight_decay * source.decay_multiplier + 2 * source.l2
    return mine, run.keras.recipe.weight_decay * target.decay_multiplier + 2 * target.l2


def _penalties(run: Comparison, links: Sequence[Link]) -> tuple[Change, ...]:
    """The reference's decay of these parameters as L2 penalties of the Keras layers."""
    made: list[Change] = []
    for link in links:
        target = run.keras.network.params[link.keras]
        rest = run.keras.recipe.weight_decay * target.decay_multiplier
        penalty = (_gap(run, link)[0] - rest) / 2
        made.append(Change("regularize", path(run, link.pair.keras), {"role": link.role, "l2": penalty}))
    return tuple(made)


def find(run: Comparison) -> Iterator[Finding]:
    """Findings of the update phase; notes where no update ran or none diverged."""
    ref, keras = run.ref.recipe, run.keras.recipe
    if ref.optimizer is None or keras.optimizer is None or run.mode != "train":
        return
    severity = severity_of(run)
    lacking: list[Link] = []
    other: list[tuple[Link, float, float]] = []
    extra: list[Link] = []
    for link in trained(run):
        mine, theirs = _gap(run, link)
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
    if by_rate and lacking:
        yield finding(
            "optimizer-weight-decay-as-lr-decay",
            severity,
            "update",
            f"Keras' decay={by_rate:g} shrinks the learning rate, {keras.learning_rate}, with every update; it is not "
            f"weight decay. The reference adds {coefficient:g}·w to every gradient.",
            fix=f"leave decay out; {fix}",
            changes=(steady_rate(keras), *_penalties(run, lacking)),
        )
    elif keras.decoupled_decay and lacking:
        yield finding(
            "optimizer-weight-decay-decoupled",
            severity,
            "update",
            f"The reference adds {coefficient:g}·w to the gradient, and so to the momentum; Keras' "
            f"weight_decay={keras.decoupled_decay:g} takes rate·{keras.decoupled_decay:g}·w off beside the momentum.",
            fix=f"leave weight_decay out; {fix}",
            changes=(Change("optimizer", "", {"config": {"weight_decay": 0.0}}), *_penalties(run, lacking)),
        )
    elif lacking:
        place = where(lacking)
        yield finding(
            "optimizer-weight-decay-missing",
            severity,
            "update",
            f"The reference adds {coefficient:g}·w to the gradient of {place}; Keras adds nothing there.",
            pair=lacking[0].pair,
            fix=fix,
            changes=_penalties(run, lacking),
        )
    if other:
        link, mine, theirs = other[0]
        yield finding(
            "optimizer-weight-decay-missing",
            severity,
            "update",
            f"The reference adds {mine:g}·w to the gradient of {where([o[0] for o in other])}, Keras {theirs:g}·w "
            "(an L2(c) penalty adds 2c·w).",
            pair=link.pair,
            fix=f"keras.regularizers.L2({mine / 2:g})",
            changes=_penalties(run, [o[0] for o in other]),
        )
    if extra:
        yield finding(
            "optimizer-weight-decay-missing",
            severity,
            "update",
            f"Keras decays {where(extra)}, where the reference has no weight decay.",
            pair=extra[0].pair,
            fix="take the regularizer off these parameters",
            changes=_penalties(run, extra),
        )
    if keras.decoupled_decay and not coefficient:
        yield finding(
            "optimizer-weight-decay-decoupled",
            severity,
            "update",
            f"Keras' weight_decay={keras.decoupled_decay:g} shrinks the weights; the reference has no weight decay.",
            fix="leave weight_decay out",
            changes=(Change("optimizer", "", {"config": {"weight_decay": 0.0}}),),
        )
