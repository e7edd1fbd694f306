"""Arrays as text: heatmaps, bars, profiles and tables, for a terminal of any width, with colours or without.

A heatmap says its values twice, by a colour and by a sign, so that it can be read without colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from parity.debugger.measures import reduced
from parity.reports.words import clean

if TYPE_CHECKING:
    from parity.debugger.looking import ParameterLine
    from parity.debugger.measures import Extreme, Histogram
    from parity.debugger.terms import Terms
    from parity.report import RecipeRow

__all__ = ["bars", "heatmap", "histogram", "number", "parameters", "profiles", "recipe", "strongest", "terms", "worst"]

Array = np.ndarray

_RAMP = " .:-=+*#%@"
_BARS = " ▏▎▍▌▋▊▉█"
_SHORTEST = 8
"""Cells that are left to the first column of a table where there is no room."""
_BLUE, _RED, _GREY = (33, 102, 172), (178, 24, 43), (247, 247, 247)


def number(value: float) -> str:
    """A number in at most ten characters."""
    if value != value:
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:.4g}"


def strongest(*values: Array) -> float | None:
    """The greatest magnitude in several tensors, as their common scale; None where one is not finite."""
    ends = [float(rule.reduce(value, axis=None, initial=0.0)) for value in values for rule in (np.fmax, np.fmin)]
    top = max((abs(end) for end in ends), default=0.0)
    return top if math.isfinite(top) else None


def heatmap(value: Array, width: int = 60, height: int = 16, title: str = "", limit: float | None = None) -> Group:
    """A matrix as a picture: blue is negative, red positive, and the signs `.:-=+*#%@` say how much.

    Args:
        value: (rows, columns); what does not fit is reduced, each cell showing the greatest magnitude that it covers.
        width: columns of text; a cell takes two.
        height: lines.
        title: stands above it.
        limit: the magnitude of the strongest colour; by default the greatest one.
    """
    shown = reduced(value, height, max(1, width // 2))
    finite = np.abs(shown[np.isfinite(shown)])
    top = limit if limit is not None else float(finite.max(initial=0.0))
    lines: list[Text] = []
    for row in shown:
        line = Text(no_wrap=True)
        for cell in row:
            line.append(*_cell(float(cell), top))
        lines.append(line)
    head = [Text(title, "bold", no_wrap=True, overflow="ellipsis")] if title else []
    strongest = f"strongest {number(top)}" if top else "zero everywhere"
    if not top and finite.size < shown.size:
        strongest = "no finite value but zeros" if finite.size else "no finite value"
    return Group(*head, *lines, Text(_scale(value.shape, shown.shape, strongest, width), "dim", no_wrap=True))


def _scale(whole: tuple[int, ...], shown: tuple[int, ...], strongest: str, width: int) -> str:
    """The line beneath a picture: as much of it as fits."""
    extent = f"{whole[0]}×{whole[1]}"
    covered = "×".join(str(-(-n // m)) for n, m in zip(whole, shown, strict=True))
    said = [f"{extent}, {strongest}, each cell the greatest of {covered}"] if shown != whole else []
    said += [f"{extent}, {strongest}", strongest, strongest.rpartition(" ")[2]]
    return next((words for words in said if len(words) <= width), said[-1])


def _cell(value: float, top: float) -> tuple[str, str]:
    if not math.isfinite(value):
        return "!!", "bold reverse"
    share = min(1.0, abs(value) / top) if top > 0 else 0.0
    if share < 0.005:  # rounding beside what is of interest
        return ("· " if share else "  "), "dim"
    sign = _RAMP[min(len(_RAMP) - 1, math.ceil(share * (len(_RAMP) - 1)))]
    end = _RED if value > 0 else _BLUE
    red, green, blue = (round(g + (e - g) * math.sqrt(share)) for g, e in zip(_GREY, end, strict=True))
    ink = "black" if 299 * red + 587 * green + 114 * blue > 128_000 else "white"
    return sign + ("-" if value < 0 else sign), f"{ink} on rgb({red},{green},{blue})"


def bars(values: Sequence[float] | Array, labels: Sequence[str], width: int = 60, most: int = 40) -> Group:
    """Numbers as bars with labels, at most so many: of more, the greatest."""
    given = np.asarray(values, np.float64).ravel()
    order = np.arange(given.size)
    if given.size > most:
        order = np.sort(np.argsort(-np.nan_to_num(given, nan=np.inf))[:most])
    top = float(np.nanmax(given, initial=0.0)) if given.size else 0.0
    places = [int(i) for i in order]
    space = max((len(labels[i]) for i in places), default=0)
    room = max(4, width - space - 13)
    lines = [
        Text.assemble(
            (labels[i].rjust(space), "dim"), " ", _bar(given[i], top, room).ljust(room), " ", number(given[i])
        )
        for i in places
    ]
    if given.size > most:
        lines.append(Text(f"the {most} greatest of {given.size}", "dim"))
    return Group(*lines)


def _bar(value: float, top: float, room: int) -> str:
    if not math.isfinite(value):
        return "!" * room
    eighths = round(max(0.0, value) / top * room * 8) if top > 0 else 0
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BARS[rest] if rest else "")


def histogram(found: Histogram, width: int = 60, height: int = 20) -> Group:
    """Both sides' values in common bins, side by side; counts on a logarithmic scale."""
    step = -(-len(found.ref) // max(1, height))
    edges = found.edges[::step]
    counts = [np.add.reduceat(side, np.arange(0, len(side), step)) for side in (found.ref, found.keras)]
    top = math.log1p(float(max(c.max(initial=0) for c in counts)))
    room = max(4, (width - 26) // 2)
    lines = [Text(f"{'from':>11}  {'reference':<{room + 6}}  Keras", "dim")]
    for i in range(len(counts[0])):
        parts = [_bar(math.log1p(float(c[i])), top, room) for c in counts]
        differs = "bold" if counts[0][i] != counts[1][i] else ""
        mine, theirs = (f"{part:<{room}} {int(c[i]):<5d}" for part, c in zip(parts, counts, strict=True))
        lines.append(Text.assemble((f"{number(float(edges[i])):>11}  ", "dim"), mine, "  ", (theirs, differs)))
    return Group(*lines)


def worst(found: Sequence[Extreme], width: int = 76) -> Table:
    """The elements at which the sides are furthest apart."""
    rows: list[tuple[str, ...]] = []
    for item in found:
        gap = item.difference
        share = abs(gap / item.ref) if item.ref else math.inf
        rows.append((_index(item.index), f"{item.ref:.7g}", f"{item.keras:.7g}", number(gap), number(share)))
    columns = ("index", "reference", "Keras", "difference", "relative")
    return _table(columns, rows, width, spare=(("relative",), ("difference",)))


def profiles(channels: Array, spatial: Array, width: int = 60, height: int = 16) -> Group:
    """Where the difference lies: at which places, and in which channels (root mean square)."""
    parts: list[Any] = []
    if spatial.ndim == 2 and spatial.size > 1:
        parts.append(heatmap(spatial, width, max(4, height // 2), "by place, over images and channels"))
        parts.append(Text())
    parts.append(Text("by channel", "bold"))
    parts.append(bars(channels, [str(i) for i in range(channels.size)], width, max(4, height - len(parts) * 4)))
    return Group(*parts)


def terms(found: Terms, width: int = 76) -> Group:
    """What made one element, on both sides."""
    head = [
        Text.assemble((f"{word} ", "dim"), said)
        for word, said in (
            ("element", _index(found.index)), ("reference", f"{found.ref:.8g}"), ("Keras", f"{found.keras:.8g}")
        )
    ]  # fmt: skip
    room = sum(part.cell_len for part in head) + 4 <= width
    lines: list[Any] = [Text("  ").join(head) if room else Text("\n").join(head)]
    several = len(found.fields) > 1
    for nth, field in enumerate(found.fields, start=1):
        if field:
            extent = " × ".join(f"{a}…{b}" if a != b else f"{a}" for a, b in field)
            lines.append(Text(f"reads {extent}" + (f" of input {nth}" if several else ""), "dim"))
    if found.image_field is not None:
        size, stride, offset = (part for part in found.image_field)
        words = "×".join(f"{s:g}" for s in size)
        at = ",".join(f"{o:g}" for o in offset)
        step = ",".join(f"{s:g}" for s in stride)
        lines.append(Text(f"its receptive field on the network's input is {words} (stride {step}, offset {at})", "dim"))
    rows: list[tuple[str, ...]] = []
    for term in found.terms:
        values = (term.value_ref, term.value_keras, term.slope_ref, term.slope_keras, term.ref, term.keras)
        place = (f"{term.input}: " if several else "") + _index(term.index)
        rows.append((place, *(number(value) for value in values)))
    if found.others:
        rows.append((f"{found.others} others", "", "", "", "", number(found.others_ref), number(found.others_keras)))
    rows.append(("no input", "", "", "", "", number(found.rest_ref), number(found.rest_keras)))
    columns = ("input", "value ref", "value Keras", "slope ref", "slope Keras", "adds ref", "adds Keras")
    return Group(*lines, _table(columns, rows, width, spare=(columns[1:3], columns[3:5])))


def parameters(given: Sequence[ParameterLine], width: int = 76) -> Table:
    """Parameters and what optimizers hold of them: sizes as root mean squares, and how far the sides are apart."""
    rows: list[tuple[str, ...]] = []
    for row in given:
        sizes = ("-" if value is None else number(value) for value in (row.ref, row.keras, row.difference))
        rows.append((clean(row.name), "×".join(map(str, row.shape)) or "scalar", *sizes))
    return _table(("tensor", "shape", "rms ref", "rms Keras", "difference"), rows, width, spare=(("shape",),))


def recipe(rows: Sequence[RecipeRow]) -> Table:
    """How both sides are trained, side by side."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for column in ("", "reference", "Keras", ""):
        table.add_column(column)
    for row in rows:
        marked = row.ref + (" (default)" if row.default else "")
        words = "" if row.same else "differs"
        table.add_row(row.name, clean(marked), clean(row.keras), words, style="" if row.same else "bold")
    return table


def _index(index: Sequence[int]) -> str:
    return "[" + ",".join(map(str, index)) + "]"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, spare: Sequence[Sequence[str]]) -> Table:
    """A table without lines; where it is too wide, groups of columns that can be spared go, the last one first."""
    sizes = {name: max(len(cell) for cell in (name, *(row[i] for row in rows))) for i, name in enumerate(columns)}
    kept, left = list(columns), list(spare)
    while left and sum(sizes[name] for name in kept) + 2 * (len(kept) - 1) > width:
        gone = left.pop()
        kept = [name for name in kept if name not in gone]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    over = max(0, sum(sizes[name] for name in kept) + 2 * (len(kept) - 1) - width)
    for name in kept:  # a name can be told by its beginning, a number cannot
        first = name == columns[0]
        room = max(_SHORTEST, sizes[name] - over) if first else sizes[name]
        table.add_column(name, justify="left" if first else "right", no_wrap=True, width=room)
    for row in rows:
        table.add_row(*(cell for name, cell in zip(columns, row, strict=True) if name in kept))
    return table
