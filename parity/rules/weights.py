"""The Keras file's own weights are not the reference's: flipped, transposed, scaled, swapped, or others altogether.

Only with the file's own weights kept is it a divergence. A layout is confirmed when it makes every element equal; a
factor is solved for on one half of the elements and must hold on the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from parity.case import Comparison
from parity.orders import row_order
from parity.report import Finding
from parity.rules import repairs
from parity.rules.base import finding, kernel_layouts
from parity.rules.lines import lines
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
            fix = lines(run, changes)
            yield finding(
                cause, "divergence", "weights", words, pair=link.pair, fix=fix, confirmed=True, changes=changes
            )
            continue
        order = _reordered(run, link, expected)
        if order is not None:
            links, words = order
            handled |= {other.keras for other in links}
            fix = f"load the reference's {' and '.join(other.role for other in links)} in its own order"
            yield finding(
                "channel-order",
                "divergence",
                "weights",
                words,
                pair=link.pair,
                fix=fix,
                confirmed=True,
                changes=repairs.reset(run, *links),
            )
            continue
        for found in _one(link, wanted, held, values[link.ref[0]]):
            yield replace(found, changes=repairs.reset(run, link))


def _one(link: Link, wanted: Array, held: Array, raw: Array) -> Iterator[Finding]:
    name = f"{link.pair.keras.origin}.{link.role}"

    def found(cause: str, evidence: str, fix: str) -> Finding:
        return finding(cause, "divergence", "weights", evidence, pair=link.pair, fix=fix, confirmed=True)

    layouts = [entry for entry in _layouts(link, wanted, raw) if entry[2].shape == held.shape]
    for cause, words, candidate in layouts:
        if _equal(candidate, held):
            yield found(cause, f"{name} is the reference's, {words}.", f"load the reference's {link.role} as it is")
            return
    factor = _factor(wanted, held)
    if factor is not None:
        yield found(
            "weights-scaled", f"{name} is {factor:.6g} times the reference's.", f"divide {name} by {factor:.6g}"
        )
        return
    for cause, words, candidate in layouts:
        factor = _factor(candidate, held)
        if factor is not None:
            both = f"{name} is the reference's, {words}, times {factor:.6g}."
            yield found(cause, both, f"load the reference's {link.role} as it is")
            yield found("weights-scaled", both, f"divide {name} by {factor:.6g}")
            return
    word, more = relation(wanted, held)
    cause = "bias-value" if link.role == "bias" else "weights-differ"
    where = _single(wanted, held)
    evidence = f"{name} has other values than the reference's ({word}: {more}){where}."
    yield found(cause, evidence, f"load the reference's {link.role}")


def _single(wanted: Array, held: Array) -> str:
    """Where the only elements that differ are, if they are few."""
    if wanted.shape != held.shape:
        return ""
    places = np.argwhere(~np.isclose(held, wanted, rtol=1e-6, atol=1e-12))
    if not 0 < len(places) <= 3 or len(places) == wanted.size:
        return ""
    told = [f"[{', '.join(map(str, at))}] {held[tuple(at)]:.6g} for {wanted[tuple(at)]:.6g}" for at in places]
    return f"; only at {'; '.join(told)}"


def _reordered(run: Comparison, link: Link, expected: dict[str, Array]) -> tuple[list[Link], str] | None:
    """The parameters of a layer that hold the reference's values in another order of the channels, and the words.

    A layer's kernel and its vectors are permuted together, by what it makes; a kernel alone also by what it reads.
    """
    beside = [
        other
        for other in run.links
        if other.pair is link.pair and other.keras in expected and other.ref and other.keras in run.old_values
    ]
    wanted, held = expected[link.keras], run.old_values[link.keras]
    if wanted.shape != held.shape or wanted.ndim == 0:
        return None
    name = link.pair.keras.origin
    order = _permutation(wanted, held, axis=wanted.ndim - 1)
    if order is not None:
        links = [
            o
            for o in beside
            if o.keras == link.keras
            or (
                expected[o.keras].shape[-1:] == (len(order),)
                and expected[o.keras].shape == run.old_values[o.keras].shape
                and not _equal(expected[o.keras], run.old_values[o.keras])
                and _equal(expected[o.keras][..., order], run.old_values[o.keras])
            )
        ]
        roles = " and ".join(o.role for o in links)
        return links, f"{name}'s {roles} hold the reference's values, with the channels it makes {_in_words(order)}."
    if wanted.ndim < 2:
        return None
    order = _permutation(wanted, held, axis=wanted.ndim - 2)
    if order is None or _named_layout(link, wanted, held):
        return None
    return [link], f"{name}'s {link.role} holds the reference's values, with the channels it reads {_in_words(order)}."


def _named_layout(link: Link, wanted: Array, held: Array) -> bool:
    """Whether the order of the inputs is that of another flattening, which has a name of its own."""
    return any(c.shape == held.shape and _equal(c, held) for _, _, c in _layouts(link, wanted, wanted))


def _permutation(wanted: Array, held: Array, axis: int) -> Array | None:
    """The order along an axis in which `wanted` is `held`; None where there is none, or it is the order it has."""
    mine = np.moveaxis(wanted, axis, 0).reshape(wanted.shape[axis], -1).astype(np.float64)
    theirs = np.moveaxis(held, axis, 0).reshape(held.shape[axis], -1).astype(np.float64)
    if len(mine) < 2 or not np.isfinite(mine).all() or not np.isfinite(theirs).all():
        return None
    order = row_order(mine, theirs)
    if np.array_equal(order, np.arange(len(order))) or not _equal(mine[order], theirs):
        return None
    return order


def _in_words(order: Array) -> str:
    """`reversed`, `in blocks ordered 2 1`, or `permuted`."""
    count = len(order)
    if np.array_equal(order, np.arange(count)[::-1]):
        return "reversed"
    starts = np.flatnonzero(np.diff(order, prepend=order[0] - 2) != 1)
    if 1 < len(starts) <= max(2, count // 2):
        rank = np.argsort(np.argsort(order[starts]))
        return f"in blocks, in the order {' '.join(str(r + 1) for r in rank)}"
    return f"permuted ({' '.join(map(str, order[:8]))}{' …' if count > 8 else ''})"


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
