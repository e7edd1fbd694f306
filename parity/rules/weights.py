"""The Keras file's own weights are not the reference's: flipped, transposed, scaled, swapped, or others altogether.

Only with the file's own weights kept is it a divergence. What is wrong with a parameter is read off its values
(`parity.rules.laid`); several mistakes at once each get a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from parity.case import Comparison
from parity.relation import relation
from parity.report import Finding
from parity.rules import repairs
from parity.rules.base import finding, kernel_layouts
from parity.rules.laid import Layout, Reading, equal, read, words_of
from parity.rules.lines import lines
from parity.transfer import Link, Transferred, Turned

__all__ = ["find"]

Array = np.ndarray


def find(run: Comparison) -> Iterable[Finding]:
    """The findings of each parameter whose values differ where they count: with `--weights own`, most of all."""
    values = run.ref.params()
    expected = Transferred(run.links, values)
    differing = {p.layer for p in run.probes if p.phase == "weights" and p.status == "born"}
    if not differing:
        return
    handled: set[str] = set()
    yield from _unread(run, expected, differing)
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
        found = read(wanted, held, list(_layouts(link, wanted, values[link.ref[0]])))
        links = _moved_along(run, link, found, expected)
        handled |= {other.keras for other in links}
        others = _elsewhere(run, link, expected) if found is None or found.rest else ""
        for each in _said(link, links, found, wanted, held, others):
            yield replace(each, changes=repairs.reset(run, *links))


def _unread(run: Comparison, expected: Mapping[str, Array], differing: set[str]) -> Iterator[Finding]:
    """Parameters that differ and are too large to be read whole from a recording: their layout is not looked into."""
    for link in run.links:
        if link.pair.ref.name not in differing or link.keras in expected or not (link.ref and link.to_keras):
            continue
        notes = [p.note for p in run.probes if p.phase == "weights" and p.status == "born"
                 and (p.layer, p.tensor) == (link.pair.ref.name, link.role)]  # fmt: skip
        name = f"{link.pair.keras.origin}.{link.role}"
        for note in notes:
            words = f"{name} has other values than the reference's ({note}); it is too large to look for its layout."
            fix = f"load the reference's {link.role}"
            yield finding("weights-differ", "divergence", "weights", words, pair=link.pair, fix=fix, confirmed=True)


def _elsewhere(run: Comparison, link: Link, expected: Mapping[str, Array]) -> str:
    """Which other parameter's values of the reference a parameter holds; empty for none, or for a constant."""
    held = run.old_values[link.keras]
    if held.size < 2 or np.ptp(held) == 0:
        return ""
    for other in run.links:
        alike = other is not link and other.role == link.role and other.ref and other.keras in expected
        if not alike or expected[other.keras].shape != held.shape or not equal(expected[other.keras], held):
            continue
        theirs = run.old_values.get(other.keras)
        back = theirs is not None and theirs.shape == held.shape and equal(expected[link.keras], theirs)
        name = f"{other.pair.ref.name}.{other.role}"
        return f"holds the values of the reference's {name}" + ("; the two are exchanged" if back else "")
    return ""


def _said(
    link: Link, links: list[Link], found: Reading | None, wanted: Array, held: Array, others: str
) -> Iterator[Finding]:
    """A finding for each mistake in a parameter; `others`: whose values it holds instead."""
    name, roles = f"{link.pair.keras.origin}.{link.role}", " and ".join(other.role for other in links)

    def told(cause: str, evidence: str, fix: str) -> Finding:
        return finding(cause, "divergence", "weights", evidence, pair=link.pair, fix=fix, confirmed=True)

    if found is None or found.rest:
        word, more = relation(wanted, held)
        if found is not None:
            evidence = f"{name} is nearly the reference's, {found.layout[1]}; its values are others too."
            yield told(found.layout[0], evidence, f"load the reference's {link.role} as it is")
        cause = "bias-value" if link.role == "bias" else "weights-differ"
        where = _single(wanted, held)
        has = f"has other values than the reference's ({word}: {more}){where}"
        evidence = f"{name} {others or has}."
        yield told(cause, evidence, f"load the reference's {link.role}")
        return
    laid = f", {found.layout[1]}" if found.layout[1] else ""
    times = f" times {found.factor:.6g}" if found.factor != 1.0 else ""
    if found.order is not None:
        which = "makes" if found.axis == -1 else "reads"
        verb = "hold" if len(links) > 1 else "holds"
        evidence = (
            f"{link.pair.keras.origin}'s {roles} {verb} the reference's values{times}{laid}, with the channels it "
            f"{which} {words_of(found.order)}."
        )
    elif laid:
        evidence = f"{name} is the reference's{laid}{f', {times.strip()}' if times else ''}."
    else:
        evidence = f"{name} is {found.factor:.6g} times the reference's."
    for cause in found.causes:
        if cause == "weights-scaled":
            fix = f"divide {name} by {found.factor:.6g}"
        elif cause == "channel-order" and found.order is not None:
            fix = f"load the reference's {roles} in its own order"
        else:
            fix = f"load the reference's {link.role} as it is"
        yield told(cause, evidence, fix)


def _single(wanted: Array, held: Array) -> str:
    """Where the only elements that differ are, if they are few."""
    if wanted.shape != held.shape:
        return ""
    places = np.argwhere(~np.isclose(held, wanted, rtol=1e-6, atol=1e-12))
    if not 0 < len(places) <= 3 or len(places) == wanted.size:
        return ""
    told = [f"[{', '.join(map(str, at))}] {held[tuple(at)]:.6g} for {wanted[tuple(at)]:.6g}" for at in places]
    return f"; only at {'; '.join(told)}"


def _moved_along(run: Comparison, link: Link, found: Reading | None, expected: Mapping[str, Array]) -> list[Link]:
    """The parameter, and those of its layer that are in the same other order of the channels that it makes."""
    if found is None or found.order is None or found.axis != -1:
        return [link]
    moved: list[Link] = []
    for other in run.links:
        if other is link:
            moved.append(other)
        elif other.pair is link.pair and other.ref and other.keras in expected and other.keras in run.old_values:
            wanted, held = expected[other.keras], run.old_values[other.keras]
            alike = wanted.shape == held.shape and wanted.shape[-1:] == found.order.shape
            if alike and not equal(wanted, held) and equal(wanted[..., found.order], held):
                moved.append(other)
    return moved


def _layouts(link: Link, wanted: Array, raw: Array) -> Iterator[Layout]:
    """(cause, words, the reference's values laid out that way)."""
    if link.role not in ("kernel", "depthwise_kernel"):
        if link.role == "variance" and not link.linear:
            yield "bn-sigma-as-variance", "the deviation and not its square", raw
        return
    if wanted.ndim == 4:
        yield from kernel_layouts(wanted)
    elif wanted.ndim == 2:
        if wanted.shape[0] == wanted.shape[1]:
            yield "kernel-io-transpose", "with inputs and outputs swapped", wanted.T
        size = getattr(link.pair.ref.kind, "size", None) or (1, 1)
        turned = link.to_keras
        if isinstance(turned, Turned):
            yield from _flattened(turned.plain(wanted, turned.keras), turned.keras, "as if nothing turned it before")
        elif len(size) == 2 and size[0] * size[1] > 1 and wanted.shape[0] % (size[0] * size[1]) == 0:
            yield from _flattened(wanted.reshape(size[0], size[1], -1, wanted.shape[1]), (0, 1, 2))


def _flattened(cube: Array, right: tuple[int, ...], plainly: str = "") -> Iterator[Layout]:
    """A kernel h w c outputs with its rows in each order but the right one; `plainly`: words for that of h, w, c."""
    for order, words in _FLATTENED.items():
        if order != right:
            more = f", {plainly}" if plainly and order == (0, 1, 2) else ""
            yield "flatten-order", words + more, cube.transpose(*order, 3).reshape(-1, cube.shape[-1])


_FLATTENED = {
    (0, 1, 2): "with the map flattened row-major",
    (1, 0, 2): "with the map flattened column-major",
    (2, 0, 1): "with channels flattened first",
    (2, 1, 0): "with channels flattened first, column-major",
    (0, 2, 1): "with the map flattened by rows, channels, columns",
    (1, 2, 0): "with the map flattened by columns, channels, rows",
}
"""Axes of a map, the outermost first → how it is flattened so."""


def _swapped(run: Comparison, link: Link, expected: Mapping[str, Array]) -> tuple[str, Link, str] | None:
    """Two vectors of a batch normalisation in each other's place."""
    partners = {"gamma": ("beta", "bn-gamma-beta-swapped"), "mean": ("variance", "bn-mean-var-swapped")}
    if link.role not in partners:
        return None
    role, cause = partners[link.role]
    other = next((o for o in run.links if o.pair is link.pair and o.role == role and o.keras in expected), None)
    if other is None:
        return None
    mine, theirs = run.old_values[link.keras], run.old_values[other.keras]
    if equal(mine, expected[other.keras]) and equal(theirs, expected[link.keras]):
        return cause, other, f"{link.pair.keras.origin}'s {link.role} and {role} are in each other's place."
    return None
