"""The recipes move single parameters otherwise: rate multipliers, frozen layers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator

from parity.case import Comparison
from parity.changes import Change
from parity.differences import differences
from parity.optimizers.base import OpaqueRule
from parity.replay import replay
from parity.report import Finding
from parity.rules.base import finding, listed
from parity.rules.repairs import path
from parity.rules.trained import reference_of, severity_of, trained, where
from parity.transfer import Link

__all__ = ["find", "scaled"]


def find(run: Comparison) -> Iterator[Finding]:
    """Findings of the update phase; notes where no update ran or none diverged."""
    ref, keras = run.ref.recipe, run.keras.recipe
    if ref.optimizer is None or keras.optimizer is None or run.mode != "train":
        return
    found = scaled(run)
    if found is not None:
        yield from _hidden(run, found)
    else:
        yield from _multipliers(run, severity_of(run))
    yield from _frozen(run)


def scaled(run: Comparison) -> dict[str, float] | None:
    """Keras id → the factor by which an optimizer that the vocabulary does not know moves it otherwise, if that is all.

    Solved for from its steps. None for an optimizer that says what it does, and where no factors explain it.
    """
    if not isinstance(run.keras.recipe.optimizer, OpaqueRule) or not any(m.status == "born" for m in run.moves):
        return None
    tried = replay(run)
    return tried.factors() if tried is not None else None


def _hidden(run: Comparison, factors: dict[str, float]) -> Iterator[Finding]:
    """What a user's own optimizer does to single parameters: the factors that make its steps of the reference's."""
    links = [link for link in trained(run) if link.keras in factors]
    own = {link.keras: factors[link.keras] for link in links}
    common = statistics.median_low(own.values()) if own else 1.0
    rule = run.keras.recipe.optimizer
    word = rule.name if rule else "optimizer"
    if not math.isclose(common, 1.0, rel_tol=1e-4):
        rate = run.ref.recipe.learning_rate.first
        yield finding(
            "optimizer-learning-rate",
            "divergence",
            "update",
            f"Keras' {word} makes {common:.6g} times the reference's steps, as at a learning rate of "
            f"{rate * common:.6g}.",
            fix=f"a rate {1 / common:.6g} times as high" if common else "",
            confirmed=True,
        )
    by_factor: dict[float, list[Link]] = {}
    for link in links:
        factor = own[link.keras] / common if common else 1.0
        if not math.isclose(factor, 1.0, rel_tol=1e-4, abs_tol=1e-6):
            by_factor.setdefault(float(f"{factor:.5g}"), []).append(link)
    for factor, found in sorted(by_factor.items()):
        yield finding(
            "optimizer-lr-multiplier",
            "divergence",
            "update",
            f"Keras' {word} moves {where(found)} {factor:g} times as far as the reference does, in every step, and the "
            "others as far.",
            pair=found[0].pair,
            fix=f"take the factor {factor:g} out of {word}",
            confirmed=True,
            changes=tuple(_faster(run, link, 1.0 / factor) for link in found) if factor else (),
        )


def _multipliers(run: Comparison, severity: str) -> Iterator[Finding]:
    by_factor: dict[float, list[Link]] = {}
    for link in trained(run):
        factor = reference_of(run, link).rate_multiplier / (run.keras.network.params[link.keras].rate_multiplier or 1.0)
        if factor not in (0.0, 1.0):
            by_factor.setdefault(factor, []).append(link)
    for factor, found in sorted(by_factor.items()):
        names = ", ".join(f"{link.pair.keras.origin}.{link.role}" for link in found[:3])
        yield finding(
            "optimizer-lr-multiplier",
            severity,
            "update",
            f"The reference gives {where(found)} {factor:g} times the learning rate (per-layer learningRate); Keras "
            "gives every variable the same.",
            pair=found[0].pair,
            fix=f"multiply the rate of {names}{' …' if len(found) > 3 else ''} by {factor:g}: an optimizer with an "
            "update_step of its own (`parity rule optimizer-lr-multiplier`)",
            changes=tuple(_faster(run, link, factor) for link in found),
        )


def _frozen(run: Comparison) -> Iterator[Finding]:
    ref_frozen: list[Link] = []
    keras_frozen: list[Link] = []
    for link in run.links:
        if not (link.ref and link.keras and link.learned):
            continue
        mine, theirs = reference_of(run, link), run.keras.network.params[link.keras]
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
                changes=(Change("trainable", path(run, pair.keras), {"trainable": side == "Keras"}),),
            )


def _faster(run: Comparison, link: Link, factor: float) -> Change:
    return Change("rate", path(run, link.pair.keras), {"role": link.role, "factor": factor})
