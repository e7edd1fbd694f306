"""The recipes differ in what else they do to single weights: penalties that are no decay, and constraints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from parity.acting import acting
from parity.case import Comparison
from parity.changes import Change, holder
from parity.network import Param
from parity.optimizers.constraints import BOUNDS
from parity.report import Finding
from parity.rules.attribution import doing, judged, with_params
from parity.rules.base import finding
from parity.rules.decay import penalties
from parity.rules.places import keeper, own_role
from parity.rules.trained import reference_of, severity_of, trained, where
from parity.transfer import Link
from parity.wording import listed

__all__ = ["find"]


def find(run: Comparison) -> Iterator[Finding]:
    """Findings of the update phase, each for all parameters that differ alike; notes where no step shows them."""
    if run.ref.recipe.optimizer is None or run.keras.recipe.optimizer is None or run.mode != "train":
        return
    for (mine, theirs), links in _apart(run, _signs).items():
        yield _penalty(run, links, mine, theirs, "l1")
    for (mine, theirs), links in _apart(run, _gradient).items():
        yield _penalty(run, links, mine, theirs, "penalty")
    for (mine, theirs), links in _apart(run, _bound).items():
        yield _constraint(run, links, mine, theirs)


def _apart(run: Comparison, words: Callable[[Param], str]) -> dict[tuple[str, str], list[Link]]:
    """What the two sides do to a parameter, in words → the parameters of which that is not the same."""
    found: dict[tuple[str, str], list[Link]] = {}
    for link in trained(run):
        mine, theirs = words(reference_of(run, link)), words(run.keras.network.params[link.keras])
        if mine != theirs:
            found.setdefault((mine, theirs), []).append(link)
    return found


def _signs(param: Param) -> str:
    return f"{param.l1:g}·sign(w)" if param.l1 else ""


def _gradient(param: Param) -> str:
    return f"the gradient of {_named(param.penalty)}" if param.penalty else ""


def _bound(param: Param) -> str:
    return _named(param.constraint)


def _named(held: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name} {_shown(value)}" for name, value in held.get("config", {}).items())
    return f"{held['class_name']} ({settings})" if settings else str(held.get("class_name", ""))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _penalty(run: Comparison, links: list[Link], mine: str, theirs: str, field: str) -> Finding:
    undone = {link.keras: {field: getattr(reference_of(run, link), field)} for link in links}
    changes = penalties(run, links)
    if mine and theirs:
        evidence = f"The reference adds {mine} to the gradient of {where(links)}, Keras {theirs}."
    else:
        one, other = ("The reference", "Keras") if mine else ("Keras", "the reference")
        evidence = f"{one} adds {mine or theirs} to the gradient of {where(links)}; {other} adds nothing there."
    fix = f"{links[0].role}_regularizer={holder(changes[0])}"
    return _found(run, links, "optimizer-weight-decay-missing", evidence, undone, changes, fix)


def _constraint(run: Comparison, links: list[Link], mine: str, theirs: str) -> Finding:
    undone = {link.keras: {"constraint": reference_of(run, link).constraint} for link in links}
    changes = tuple(
        Change(
            "constrain",
            keeper(run, link),
            {"role": own_role(run, link), "constraint": reference_of(run, link).constraint},
        )
        for link in links
    )
    if mine and theirs:
        evidence = f"After every update the reference binds {where(links)} by {mine}, Keras by {theirs}."
    else:
        one, other = ("the reference", "Keras") if mine else ("Keras", "the reference")
        evidence = f"After every update {one} binds {where(links)} by {mine or theirs}; {other} does not."
    fix = f"{links[0].role}_constraint={holder(changes[0])}"
    return _found(run, links, "optimizer-kind", evidence, undone, changes, fix)


def _found(
    run: Comparison,
    links: list[Link],
    cause: str,
    evidence: str,
    undone: Mapping[str, Mapping[str, Any]],
    changes: tuple[Change, ...],
    fix: str,
) -> Finding:
    """The finding: proven by a replay where formulas cover what both sides do, else by its fix alone."""
    severity, sure = judged(run, with_params(doing(run), undone))
    if severity_of(run) == "divergence" and not (acting(run) and all(map(_covered, undone.values()))):
        names, sure = {link.keras for link in links}, False
        severity = "divergence" if any(m.status == "born" and m.link.keras in names for m in run.moves) else "note"
    on = listed([link.pair.keras.origin for link in links])
    return finding(
        cause, severity, "update", evidence, pair=links[0].pair, fix=f"{fix} on {on}", confirmed=sure, changes=changes
    )


def _covered(fields: Mapping[str, Any]) -> bool:
    """Whether a replay can do what these fields of a parameter say."""
    bound = fields.get("constraint")
    return not fields.get("penalty") and (not bound or bound["class_name"] in BOUNDS)
