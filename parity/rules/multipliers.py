"""The recipes move single parameters otherwise: rate multipliers, frozen layers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from parity.align import Pair
from parity.case import Comparison
from parity.changes import Change
from parity.differences import differences
from parity.report import Finding
from parity.rules.attribution import doing, judged, rebuilt, with_params
from parity.rules.base import finding
from parity.rules.places import keeper, own_role
from parity.rules.trained import reference_of, severity_of, trained, where
from parity.transfer import Link
from parity.wording import listed

__all__ = ["find"]


def find(run: Comparison) -> Iterator[Finding]:
    """Findings of the update phase; notes where the steps on this batch do not show them."""
    ref, keras = run.ref.recipe, run.keras.recipe
    if ref.optimizer is None or keras.optimizer is None or run.mode != "train":
        return
    yield from _multipliers(run)
    yield from _frozen(run)


def _multipliers(run: Comparison) -> Iterator[Finding]:
    if run.keras.recipe.custom and severity_of(run) == "note":
        return  # its steps are the reference's: a class multiplies, whatever it declares
    acts = doing(run)
    by_factor: dict[float, list[Link]] = {}
    for link in trained(run):
        theirs = acts.params[link.keras].rate_multiplier
        factor = reference_of(run, link).rate_multiplier / (theirs or 1.0)
        if factor and not math.isclose(factor, 1.0, rel_tol=1e-5):
            by_factor.setdefault(float(f"{factor:.6g}"), []).append(link)
    hidden = "factors" in acts.solved
    word = run.keras.recipe.custom or "Keras' optimizer"
    for factor, found in sorted(by_factor.items()):
        fields = {link.keras: {"rate_multiplier": acts.params[link.keras].rate_multiplier * factor} for link in found}
        severity, sure = judged(run, with_params(acts, fields))
        names = ", ".join(f"{link.pair.keras.origin}.{link.role}" for link in found[:3])
        more = " …" if len(found) > 3 else ""
        if hidden:
            inverse = float(f"{1 / factor:.5g}")
            evidence = (
                f"{word} moves {where(found)} {inverse:g} times as far as the reference does, in every step; the "
                "factor was solved for from its steps, and holds for other gradients too."
            )
            fix = f"take the factor {inverse:g} out of {word}"
        else:
            evidence = (
                f"The reference gives {where(found)} {factor:g} times the learning rate (per-layer learningRate); "
                "Keras gives every variable the same."
            )
            fix = (
                f"multiply the rate of {names}{more} by {factor:g}: an optimizer with an update_step of its own "
                "(`parity rule optimizer-lr-multiplier`)"
            )
        changes = tuple(_faster(run, link, factor) for link in found)
        if hidden and all(reference_of(run, link).rate_multiplier == 1 for link in trained(run)):
            changes = rebuilt(run)  # without the class that multiplies
        yield finding(
            "optimizer-lr-multiplier",
            severity,
            "update",
            evidence,
            pair=found[0].pair,
            fix=fix,
            confirmed=sure,
            changes=changes,
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
            layers = _holders(run, here)
            of = f" of {listed(layers)}" if len(layers) < len(_holders(run, _all(run, pair))) else ""
            yield finding(
                "layer-frozen",
                "divergence" if born else "note",
                "update",
                f"{pair.ref.name} never moves in {side} ({listed(list(dict.fromkeys(k.role for k in here)))}{of}).",
                pair=pair,
                fix="; ".join(f"{layer}.trainable = {wanted}" for layer in layers),
                changes=tuple(Change("trainable", layer, {"trainable": side == "Keras"}) for layer in layers),
            )


def _holders(run: Comparison, links: Iterable[Link]) -> list[str]:
    """The Keras layers that hold these parameters: one unit may be made of several, such as the parts of a group."""
    keys = {link.keras for link in links}
    held = [layer for layer in run.keras.network if keys & set(layer.params.values())]
    return list(dict.fromkeys((layer.origin or layer.name).removesuffix(":activation") for layer in held))


def _all(run: Comparison, pair: Pair) -> list[Link]:
    return [link for link in run.links if link.pair is pair and link.keras and link.learned]


def _faster(run: Comparison, link: Link, factor: float) -> Change:
    return Change("rate", keeper(run, link), {"role": own_role(run, link), "factor": factor})
