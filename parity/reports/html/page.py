"""A report and an index as HTML: text is escaped by the template engine, data go in as JSON, scripts by digest."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.reports.alike import together
from parity.reports.html.charts import depth_figure, update_figure
from parity.reports.html.graph import HEIGHT, WIDTH, draw
from parity.reports.words import clean, plural, relative, shape_words, times_floor, worst

if TYPE_CHECKING:
    from jinja2 import Environment

    from parity.detail import Detail
    from parity.report import Probe, Report

__all__ = ["Entry", "charts_library", "index", "render"]

GLYPHS = {"match": "✓", "masked": "◐", "inherited": "↳", "born": "✕", "unpaired": "⊘", "unverified": "?"}
"""Status → its sign, so that nothing rests on a colour."""

MEANINGS = {
    "match": "equal up to rounding",
    "masked": "differs, but this batch cannot show it",
    "inherited": "only its inputs differ",
    "born": "this layer itself computes something else",
    "unpaired": "has no partner on the other side",
    "unverified": "could not be observed",
}


@dataclass(frozen=True)
class Entry:
    """One line of an index: a pair, its verdict, what to say of it, and the page that says more (relative)."""

    name: str
    verdict: str
    sentence: str = ""
    page: str = ""
    seconds: float | None = None


def render(report: Report, *, library: str = "") -> str:
    """The report as a page; the same report gives the same bytes.

    Args:
        report: what it shows.
        library: where `charts_library` lies beside the page, for pages that share it; by default the page holds it.
    """
    from parity.reports.console import verdict_line

    figures = {phase: depth_figure(report, phase) for phase in ("forward", "backward")}
    figures["update"] = update_figure(report)
    data = {
        "details": [_detail(d) for d in report.details],
        "figures": {name: figure for name, figure in figures.items() if figure is not None},
    }
    by_row: dict[tuple[str, str], list[int]] = {}
    for number, detail in enumerate(report.details):
        by_row.setdefault((detail.layer, detail.keras_layer), []).append(number)
    probes: dict[tuple[str, str], list[Any]] = {}
    for probe in report.probes:
        probes.setdefault((probe.layer, probe.keras_layer), []).append(probe)
    rows = [_row(report, number, probes, by_row) for number in range(len(report.layers))]
    counts = {s: sum(r["status"] == s for r in rows) for s in GLYPHS}
    pictures = [("folded", draw(report.layers, folded=True)), ("whole", draw(report.layers))]
    if len(pictures[0][1].boxes) == len(report.layers):
        pictures = pictures[1:]
    first = report.first_divergence
    numbers = {row["name"]: row["number"] for row in rows}
    return _page(
        "page.html.j2",
        data,
        library=library or None,
        report=report,
        headline=verdict_line(report),
        sides=[_side(report, "ref", "the reference"), _side(report, "keras", "the Keras model")],
        first=first,
        first_number=numbers.get(first.layer or first.keras_layer) if first else None,
        divergences=together([f for f in report.findings if f.severity == "divergence"]),
        notes=together([f for f in report.findings if f.severity == "note"]),
        numbers=numbers,
        rows=rows,
        counts={s: n for s, n in counts.items() if n},
        pictures=pictures,
        box=(WIDTH, HEIGHT),
        figures=data["figures"],
        meanings=MEANINGS,
    )


def index(entries: Sequence[Entry], title: str = "parity gate") -> str:
    """The index of several pages, with its own search and sort.

    Args:
        entries: in the order in which they are listed.
        title: of the page.
    """
    counts = {v: sum(e.verdict == v for e in entries) for v in ("diverged", "unverified", "match")}
    return _page("index.html.j2", {}, library="", entries=entries, title=title, counts=counts)


def _row(
    report: Report, number: int, probes: dict[tuple[str, str], list[Any]], details: dict[tuple[str, str], list[int]]
) -> dict[str, Any]:
    """A layer with what the page shows of it; a Keras name of several layers is matched by the reference's."""
    row = report.layers[number]
    keys = [key for key in probes if (key[0] == row.layer if row.layer else key[1] == row.keras_layer and not key[0])]
    shown = [(cell[1], cell[2]) for cell in row.cells.values()]
    name = row.layer or row.keras_layer
    mine, pictures = [p for key in keys for p in probes[key]], [i for key in keys for i in details.get(key, ())]
    return {
        "number": number,
        "name": name,
        "row": row,
        "status": worst(cell[0] for cell in row.cells.values()),
        "alone": max((a for a, _ in shown if a is not None), default=None),
        "whole": max((w for _, w in shown if w is not None), default=None),
        "probes": mine,
        "details": pictures,
        "unseen": _unseen(mine, [report.details[i] for i in pictures]),
        "findings": [f for f in report.findings if (f.layer or f.keras_layer) == name],
    }


def _unseen(probes: Sequence[Probe], details: Sequence[Detail]) -> list[str]:
    """The tensors that were compared, but of which there is no picture, as in two traces that keep statistics alone."""
    seen = {(d.phase, d.tensor) for d in details}
    compared = (p for p in probes if p.phase in ("forward", "backward") and p.max_abs is not None)
    return [f"{p.phase} {p.tensor}" for p in compared if (p.phase, p.tensor) not in seen and math.prod(p.shape) > 1]


def _side(report: Report, side: str, otherwise: str) -> str:
    """The path of a side's file; a model in memory has none."""
    return str(report.inputs.get(side, {}).get("path") or otherwise)


def _detail(detail: Detail) -> dict[str, Any]:
    """A detail in JSON's own types; the heat map as bytes, 0 for equal, 1 to 255 on a log scale from low to high."""
    grid = detail.heatmap.astype(np.float64)
    finite = grid[np.isfinite(grid) & (grid > 0)]
    low, high = (float(np.log10(finite.min())), float(np.log10(finite.max()))) if finite.size else (0.0, 0.0)
    with np.errstate(all="ignore"):
        level = np.log10(np.where(grid > 0, grid, 1.0))
    scaled = 1 + np.clip((level - low) / max(high - low, 1e-9), 0, 1) * 254
    coded = np.where(grid > 0, np.where(np.isfinite(grid), scaled if high > low else 255, 255), 0).astype(np.uint8)
    return {
        "phase": detail.phase, "tensor": clean(detail.tensor), "step": detail.step, "how": detail.how,
        "shape": shape_words(detail.shape), "axes": list(detail.axes), "extents": list(detail.extents),
        "size": list(grid.shape), "heat": base64.b64encode(coded.tobytes()).decode("ascii"),
        "low": _digits(low), "high": _digits(high),
        "profile": [_digits(v) for v in detail.profile.tolist()],
        "edges": [_digits(detail.edges[0]), _digits(detail.edges[-1])],
        "expected": detail.expected.tolist(), "actual": detail.actual.tolist(),
        "errorEdges": [_digits(v) for v in (detail.error_edges[:1].tolist() + detail.error_edges[-1:].tolist())],
        "errors": detail.errors.tolist(), "equal": _digits(detail.equal), "max": f"{detail.max_abs:.3g}",
        "part": None if detail.part is None else "of a sample: {:,} of {:,} rows".format(*detail.part),
        "floor": None if detail.floor is None else f"{detail.floor:.2g}",
        "worst": [
            [", ".join(map(str, e.index)), f"{e.expected:.8g}", f"{e.actual:.8g}", f"{abs(e.actual - e.expected):.3g}"]
            for e in detail.worst
        ],
    }  # fmt: skip


def _digits(value: float) -> float | str:
    """Five digits; what JSON has no word for as text."""
    number = float(f"{float(value):.5g}")
    return number if np.isfinite(number) else str(number)


# ------------------------------------------------------------------------------------------------------------ the frame


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("parity.reports.html"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(
        clean=clean, times=times_floor, relative=relative, shape=shape_words, trimmed=lambda v: f"{v:g}"
    )
    made.globals.update(glyphs=GLYPHS, plural=plural)
    return made


def _static(name: str) -> str:
    return resources.files("parity.reports.html").joinpath("static", name).read_text(encoding="utf-8")


@functools.cache
def charts_library() -> str:
    """The script that draws a page's charts (Plotly's), to be written beside pages that share it."""
    from plotly.offline import get_plotlyjs

    # Inside an element, nothing may look like its end.
    return get_plotlyjs().replace("</script", "<\\/script")


def _page(template: str, data: dict[str, Any], *, library: str | None, **context: Any) -> str:
    """A template filled in, with its style, its data and its scripts; nothing else may run or be loaded in it.

    `library` is the address of the charts' library; None puts it in the page, "" is for a page without charts.
    """
    from markupsafe import Markup

    scripts = [_static("page.js")] if library is not None else [charts_library(), _static("page.js")]
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    island = json.dumps(data, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)
    island = island.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    allowed = " ".join([*(["'self'"] if library else []), *(f"'sha256-{d}'" for d in digests)])
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    text = (
        _environment()
        .get_template(template)
        .render(
            policy=policy,
            style=Markup(_static("page.css")),  # noqa: S704  (the package's own file)
            scripts=[Markup(s) for s in scripts],  # noqa: S704
            library=library,
            island=Markup(island),  # noqa: S704  (no sign of markup is left in it)
            **context,
        )
    )
    # A lone surrogate (a file name that is not UTF-8) has no place in a document.
    return text.encode("utf-8", "replace").decode("utf-8")
