"""The Keras file's own weights are not the reference's: flipped, transposed, scaled, swapped, or others altogether.

Only with the file's own weights kept is it a divergence. A layout is confirmed when it makes every element equal; a
factor is solved for on one half of the elements and must hold on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from parity.case import Comparison
from parity.report import Finding
from parity.rules import repairs
from parity.rules.base import finding, kernel_layouts
from parity.transfer import Link, relation, transferred

__all__ = ["find"]

Array = np.ndarray


def find(run: Comparison) -> Iterable[Finding]:
    """One finding for each parameter whose values differ (with `--weights own`)."""
    if not run.own:
        return
    values = run.ref.params()
    expected = transferred(run.links, values)
    differing = {p.layer: p for p in run.probes if p.phase == "weights" and p.status == "born"}
    handled: set[str] = set()
    for link in run.links:
        if link.pair.ref.name not in differing or link.keras not in expected or link.keras in handled or not link.ref:
            continue
        wanted, held = expected[link.keras], run.old_values[link.keras]
        if relation(wanted, held)[0] == "equal":
            continue
        swap = _swapped(run, link, expected)
        if swap:
            cause, other, words = swap
            handled |= {link.keras, other.keras}
            changes = repairs.reset(run, link, other)
            yield finding(cause, "divergence", "weights", words, pair=link.pair, confirmed=True, changes=changes)
            continue
        yield replace(_one(link, wanted, held, values[link.ref[0]]), changes=repairs.reset(run, link))


def _one(link: Link, wanted: Array, held: Array, raw: Array) -> Finding:
    name = f"{link.pair.keras.origin}.{link.role}"

    def found(cause: str, evidence: str, fix: str) -> Finding:
        return finding(cause, "divergence", "weights", evidence, pair=link.pair, fix=fix, confirmed=True)

    for cause, words, candidate in _layouts(link, wanted, raw):
        if candidate.shape == held.shape and _equal(candidate, held):
            return found(cause, f"{name} is the reference's, {words}.", f"load the reference's {link.role} as it is")
    factor = _factor(wanted, held)
    if factor is not None:
        evidence = f"{name} is {factor:.6g} times the reference's."
        return found("weights-scaled", evidence, f"divide {name} by {factor:.6g}")
    word, more = relation(wanted, held)
    cause = "bias-value" if link.role == "bias" else "weights-differ"
    evidence = f"{name} has other values than the reference's ({word}: {more})."
    return found(cause, evidence, f"load the reference's {link.role}")


def _layouts(link: Link, wanted: Array, raw: Array) -> Iterator[tuple[str, str, Array]]:
    """(cause, words, the reference's values laid out that way)."""
    if link.role != "kernel":
        if link.role == "variance" and not link.linear:
            yield "bn-sigma-as-variance", "the deviation and not its square", raw
        return
    if wanted.ndim == 4:
        yield from kernel_layouts(wanted)
    elif wanted.ndim == 2:
        if wanted.shape[0] == wanted.shape[1]:
            yield "kernel-io-transpose", "with inputs and outputs swapped", wanted.T
        size = getattr(link.pair.ref.kind, "size", None) or (1, 1)
        if len(size) == 2 and size[0] * size[1] > 1 and wanted.shape[0] % (size[0] * size[1]) == 0:
            cube = wanted.reshape(size[0], size[1], -1, wanted.shape[1])
            for order, words in (
                ((1, 0, 2, 3), "with the map flattened column-major"),
                ((2, 0, 1, 3), "with channels flattened first"),
                ((2, 1, 0, 3), "with channels flattened first, column-major"),
            ):
                yield "flatten-order", words, cube.transpose(order).reshape(wanted.shape)


def _equal(a: Array, b: Array) -> bool:
    scale = max(float(np.abs(b).max(initial=0)), 1e-30)
    return bool(np.abs(a.astype(np.float64) - b).max(initial=0) <= 1e-6 * scale)


def _factor(wanted: Array, held: Array) -> float | None:
    """A constant factor fitted on every other element, if it holds on the rest."""
    a, b = held.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    if a.size < 4 or not b[::2].any():
        return None
    factor = float(a[::2] @ b[::2] / (b[::2] @ b[::2]))
    rest = np.abs(a[1::2] - factor * b[1::2]).max()
    held_size = np.abs(a).max()
    return factor if held_size > 0 and rest <= 2e-6 * held_size and abs(factor - 1) > 1e-6 else None


def _swapped(run: Comparison, link: Link, expected: dict[str, Array]) -> tuple[str, Link, str] | None:
    """Two vectors of a batch normalisation in each other's place."""
    partners = {"gamma": ("beta", "bn-gamma-beta-swapped"), "mean": ("variance", "bn-mean-var-swapped")}
    if link.role not in partners:
        return None
    role, cause = partners[link.role]
    other = next((o for o in run.links if o.pair is link.pair and o.role == role and o.keras in expected), None)
    if other is None:
        return None
    mine, theirs = run.old_values[link.keras], run.old_values[other.keras]
    if _equal(mine, expected[other.keras]) and _equal(theirs, expected[link.keras]):
        return cause, other, f"{link.pair.keras.origin}'s {link.role} and {role} are in each other's place."
    return None
