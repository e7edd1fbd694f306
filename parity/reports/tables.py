"""The tables of a report for people: layers, updates per parameter, and the recipe side by side."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rich import box
from rich.table import Table
from rich.text import Text

from parity.report import PHASES
from parity.reports.words import clean, plural, relative, shape_words, times_floor, verdict_style, worst

if TYPE_CHECKING:
    from parity.report import LayerRow, Probe, RecipeRow, Report

__all__ = [
    "WIDE",
    "Fold",
    "UpdateRow",
    "fold",
    "layer_table",
    "plain_table",
    "recipe_table",
    "update_notes",
    "update_rows",
    "update_table",
]

WIDE = 132
"""Columns from which on a layer takes one line of its table; below, both sides' names and the shape share a column."""

FOLD_FROM = 24
"""A table of at most this many rows is shown whole."""

_FOLD_RUN = 3
_NAMED = 6
_QUIET = ("match", "masked", "inherited")
_SHOWN_IN = {"input": "forward", "loss": "forward"}
_NUMBERED = ("forward", "backward", "update")
_DIFFERS = "bold yellow"  # whether a difference counts is for the findings to say, so it is not red

Row = TypeVar("Row")
Cell = tuple[str, float | None, float | None]


@dataclass(frozen=True)
class Fold(Generic[Row]):
    """A run of rows that a table shows as one line."""

    rows: tuple[Row, ...]


def fold(
    rows: Sequence[Row], key: Callable[[Row], str], foldable: Container[str], threshold: int = FOLD_FROM
) -> list[Row | Fold[Row]]:
    """`rows` with every run of three or more of one foldable key replaced by a `Fold`, if they are many.

    The first row, and the row before and after a run of another key, stay as they are, for orientation.

    Args:
        rows: in the order of the table.
        key: what the rows of a run have in common.
        foldable: the keys whose runs fold.
        threshold: rows up to which nothing is folded.
    """
    if len(rows) <= threshold:
        return list(rows)
    shown: list[Row | Fold[Row]] = []
    runs = [(word, list(run)) for word, run in groupby(rows, key=key)]
    for position, (word, run) in enumerate(runs):
        head = run[:1]
        tail = run[-1:] if position + 1 < len(runs) and len(run) > 1 else []
        middle = run[1 : len(run) - len(tail)]
        if word in foldable and len(middle) >= _FOLD_RUN:
            shown += [*head, Fold(tuple(middle)), *tail]
        else:
            shown += run
    return shown


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def plain_table(*columns: tuple[str, dict[str, Any]], title: str) -> Table:
    """A table in the house's style: a title, headings, a line, and no box.

    Args:
        *columns: heading and rich's column settings of each.
        title: above it.
    """
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", header_style="dim", padding=(0, 1),
        collapse_padding=True, pad_edge=False, show_edge=False,
    )  # fmt: skip
    for heading, settings in columns:
        table.add_column(heading, **settings)
    return table


def _phases(report: Report) -> list[str]:
    present = {_SHOWN_IN.get(phase, phase) for row in report.layers for phase in row.cells}
    return [phase for phase in PHASES if phase in present]


def _columns(row: LayerRow, phases: Sequence[str]) -> dict[str, Cell]:
    """Column → cell; the input's and the loss' own phases stand in the column of the forward pass."""
    cells: dict[str, Cell] = {}
    for phase in PHASES:
        if phase in row.cells:
            column = _SHOWN_IN.get(phase, phase)
            if column not in cells or worst((cells[column][0], row.cells[phase][0])) != cells[column][0]:
                cells[column] = row.cells[phase]
    return {phase: cells[phase] for phase in phases if phase in cells}


def _verdict(cell: Cell | None, numbers: bool, stacked: bool, at_most: bool = False) -> Text:
    """A cell: the word, and the isolated distance and the propagated error beside or below it."""
    if cell is None:
        return Text("·", style="dim")
    status, isolated, propagated = cell
    text = Text(status, style=verdict_style(status))
    if not numbers or (isolated is None and propagated is None):
        return text
    distance = times_floor(isolated) or "–"
    pair = f"{'≤' + distance if at_most else distance:>6} {relative(propagated):<5}"
    if stacked:
        return Text.assemble(text, "\n", (" ".join(pair.split()), "dim"))
    return Text.assemble(Text(f"{status:<10}", style=verdict_style(status)), " ", (pair.rstrip(), "dim"))


def _kinds(row: LayerRow) -> str:
    """What the layer is; both sides' words where they differ."""
    left, right = clean(row.kind), clean(row.keras_kind)
    return left if left == right or not right else right if not left else f"{left} ≠ {right}"


def layer_table(report: Report, width: int, names: tuple[str, str]) -> Table:
    """One row per pair of layers: names, kind, shape, and per phase the verdict and its numbers.

    Args:
        report: the report.
        width: columns of the page.
        names: headings of the two sides.
    """
    phases = _phases(report)
    wide = width >= WIDE
    if not wide and width < 100:
        phases = [phase for phase in phases if phase != "update"]  # the table of updates has it per parameter

    rows = fold(report.layers, lambda row: worst(cell[0] for cell in _columns(row, phases).values()), _QUIET)
    flat = {"no_wrap": True}
    heads = [(phase, {**flat, "min_width": 9}) for phase in phases]
    if wide:
        lead = [(names[0], {"overflow": "fold"}), (names[1], {"overflow": "fold"}), ("layer", {"overflow": "fold"})]
        table = plain_table(*lead, ("shape", flat), *heads, title="Layers")
    else:
        heading = f"{names[0]} ↔ {names[1]}"
        table = plain_table((heading, {"overflow": "fold", "ratio": 1}), *heads, title="Layers")
        table.expand = True
    for row in rows:
        run = row.rows if isinstance(row, Fold) else (row,)
        cells = _merged([_columns(each, phases) for each in run])
        verdicts = [
            _verdict(cells.get(phase), phase in _NUMBERED, stacked=not wide, at_most=len(run) > 1) for phase in phases
        ]
        lead = (
            _folded_lead(run, wide)
            if isinstance(row, Fold)
            else _lead(row, wide, any(cell[0] not in _QUIET for cell in cells.values()))
        )
        table.add_row(*lead, *verdicts)
    return table


def _lead(row: LayerRow, wide: bool, loud: bool) -> list[Text]:
    """The columns before the verdicts: names, kind and shape, in four columns or in one of two lines."""
    style = "bold" if loud else ""
    left, right = clean(row.layer) or "–", clean(row.keras_layer) or "–"
    kind, shape = _kinds(row), shape_words(row.shape)
    if wide:
        return [Text(left, style=style), Text(right, style=style), Text(kind, style="dim"), Text(shape)]
    below = " → ".join(part for part in (kind, shape) if part)
    return [Text.assemble((f"{left} ↔ {right}", style), "\n", (below, "dim"))]


def _folded_lead(run: Sequence[LayerRow], wide: bool) -> list[Text]:
    """The same for a run of rows: how many, and from which to which."""
    count, first, last = plural(len(run), "layer"), run[0], run[-1]
    if wide:
        return [
            Text(f"… {clean(last.layer)}", style="italic"),
            Text(f"… {clean(last.keras_layer)}", style="italic"),
            Text(f"{count}, folded", style="italic"),
            Text(),
        ]
    span = f"{clean(first.layer or first.keras_layer)} … {clean(last.layer or last.keras_layer)}"
    return [Text.assemble((f"… {count}", "italic"), "\n", (span, "dim"))]


def _merged(rows: Sequence[dict[str, Cell]]) -> dict[str, Cell]:
    """Column → the worst status and the largest numbers of these rows."""
    return {
        phase: (
            worst(row[phase][0] for row in rows if phase in row),
            _most(row[phase][1] for row in rows if phase in row),
            _most(row[phase][2] for row in rows if phase in row),
        )
        for phase in dict.fromkeys(phase for row in rows for phase in row)
    }


@dataclass(frozen=True)
class UpdateRow:
    """The updates of one parameter over all steps.

    Attributes:
        layer, keras_layer: names of its layer on both sides.
        tensor: its role.
        status: the worst status of any step.
        step: the first step with that status.
        isolated: the largest isolated distance of any step, in units of the floor.
        propagated: the largest relative error end to end.
        note: what the worst step says besides.
    """

    layer: str
    keras_layer: str
    tensor: str
    status: str
    step: int
    isolated: float | None
    propagated: float | None
    note: str


def update_rows(probes: Sequence[Probe]) -> list[UpdateRow]:
    """One row per parameter that the update phase saw, in the order of the probes."""
    return list(_updates(probes))


def _updates(probes: Sequence[Probe]) -> Iterator[UpdateRow]:
    groups: dict[tuple[str, str, str], list[Probe]] = {}
    for probe in probes:
        if probe.phase == "update":
            groups.setdefault((probe.layer, probe.keras_layer, probe.tensor), []).append(probe)
    for (layer, keras_layer, tensor), steps in groups.items():
        status = worst(probe.status for probe in steps)
        first = min((probe for probe in steps if probe.status == status), key=lambda probe: probe.step)
        isolated = max((p.isolated_x_floor for p in steps if p.isolated_x_floor is not None), default=None)
        propagated = max((p.rms_rel for p in steps if p.rms_rel is not None), default=None)
        yield UpdateRow(layer, keras_layer, tensor, status, first.step, isolated, propagated, first.note)


def update_table(report: Report) -> Table | None:
    """One row per parameter: the worst verdict of its updates, since which step, and its numbers; None without any."""
    everything = update_rows(report.probes)
    if not everything:
        return None
    steps = max(probe.step for probe in report.probes if probe.phase == "update")
    # One wrong optimizer moves every parameter wrongly from the same step on: such runs fold like quiet ones.
    keys = {f"{row.status} {row.step}" for row in everything}
    rows = fold(everything, lambda row: f"{row.status} {row.step}", keys)
    flat = {"no_wrap": True}
    table = plain_table(
        ("parameter", {"overflow": "fold"}), ("Keras layer", {"overflow": "fold"}), ("verdict", flat),
        ("from step", {**flat, "justify": "right"}), ("×floor", {**flat, "justify": "right"}),
        ("end to end", {**flat, "justify": "right"}),
        title=f"Updates, the worst of {plural(steps, 'step')}",
    )  # fmt: skip
    for row in rows:
        if isinstance(row, Fold):
            table.add_row(
                Text(f"… {plural(len(row.rows), 'parameter')}", style="italic"),
                Text(f"… {clean(row.rows[-1].keras_layer)}", style="italic"),
                Text(row.rows[0].status, style=verdict_style(row.rows[0].status)),
                str(row.rows[0].step) if row.rows[0].status != "match" else "",
                f"≤{times_floor(_most(each.isolated for each in row.rows))}",
                relative(_most(each.propagated for each in row.rows)),
            )
            continue
        loud = row.status not in _QUIET
        name = f"{clean(row.layer)} {clean(row.tensor)}" if row.layer else f"– {clean(row.tensor)}"
        table.add_row(
            Text(name, style="bold" if loud else ""),
            Text(clean(row.keras_layer) or "–"),
            Text(row.status, style=verdict_style(row.status)),
            str(row.step) if row.status != "match" else "",
            times_floor(row.isolated),
            relative(row.propagated),
        )
    return table


def update_notes(report: Report) -> Iterator[Text]:
    """One line per note on updates, with the parameters that it is about."""
    about: dict[str, list[str]] = {}
    for row in update_rows(report.probes):
        if row.note:
            about.setdefault(row.note, []).append(f"{clean(row.layer or row.keras_layer)} {clean(row.tensor)}")
    for note, names in about.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield Text(f"{', '.join(names[:_NAMED])}{more}: {clean(note)}", style="dim")


def recipe_table(rows: Sequence[RecipeRow], names: tuple[str, str]) -> Table | None:
    """The two recipes side by side, with a word where they differ; None without any."""
    if not rows:
        return None
    fold_text: dict[str, Any] = {"overflow": "fold"}
    flat: dict[str, Any] = {"no_wrap": True}
    table = plain_table(("", flat), (names[0], fold_text), (names[1], fold_text), ("", flat), title="Recipe")
    for row in rows:
        style = "bold" if row.word == "differs" else ""
        left = Text(clean(row.ref) or "–", style=style)
        if row.default:
            left.append(" (default)", style="dim")
        mark = Text(row.word, style=_DIFFERS if row.word == "differs" else "dim")
        table.add_row(Text(clean(row.name)), left, Text(clean(row.keras) or "–", style=style), mark)
    return table
