"""The curves of a page as Plotly figures: error through depth, and updates over steps. Colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from parity.report import Probe, Report
from parity.reports.words import clean, relative, times_floor

__all__ = ["depth_figure", "update_figure"]

_LEAST, _MOST = 1e-2, 1e12
_NAMED = 10

_GRAVITY = {"born": 3, "unverified": 2, "inherited": 1}


def depth_figure(report: Report, phase: str) -> dict[str, Any] | None:
    """Error in noise floors through the layers, run alone and end to end; None where nothing of the phase was compared.

    Args:
        report: what is shown.
        phase: `"forward"` or `"backward"`.
    """
    phases = ("forward", "loss") if phase == "forward" else ("backward",)
    by_layer: dict[tuple[str, str], list[Probe]] = {}
    for probe in report.probes:
        if probe.phase in phases:
            by_layer.setdefault((probe.layer, probe.keras_layer), []).append(probe)
    place = {row.layer or row.keras_layer: number for number, row in enumerate(report.layers)}
    found = sorted(by_layer.items(), key=lambda item: place.get(item[0][0] or item[0][1], len(place)))
    if not found:
        return None
    numbers = [place.get(names[0] or names[1], -1) for names, _ in found]
    labels = [_plain(names[0] or names[1]) for names, _ in found]
    alone = [_largest([p.isolated_x_floor for p in probes]) for _, probes in found]
    whole = [_largest([p.propagated_x_floor for p in probes]) for _, probes in found]
    traces = []
    for name, role, values in (("end to end", "propagated", whole), ("layer alone", "isolated", alone)):
        if all(value is None for value in values):
            continue  # layers of a trace cannot be run alone
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "meta": role, "connectgaps": False,
                "x": list(range(len(found))), "y": [_shown(v) for v in values], "customdata": numbers,
                "text": [f"{n}<br>{name} {times_floor(v)} noise floors" for n, v in zip(labels, values, strict=True)],
                "hoverinfo": "text",
            }
        )  # fmt: skip
    traces.append(
        {"type": "scatter", "mode": "lines", "name": "noise floor", "meta": "floor", "hoverinfo": "skip",
         "x": [0, max(1, len(found) - 1)], "y": [1, 1]}
    )  # fmt: skip
    every = max(1, -(-len(found) // 24))
    layout = {
        "xaxis": {"tickvals": list(range(0, len(found), every)), "ticktext": [_short(n) for n in labels[::every]]},
        "yaxis": {
            "type": "log", "title": {"text": "× noise floor"}, "exponentformat": "power",
            "dtick": _decades(alone + whole), **_range(alone + whole),
        },
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def update_figure(report: Report) -> dict[str, Any] | None:
    """Relative error of what the free steps did to each parameter, faults first; None without updates."""
    series: dict[str, list[Probe]] = {}
    for probe in report.probes:
        if probe.phase == "update" and probe.rms_rel is not None:
            series.setdefault(f"{probe.layer or probe.keras_layer} · {probe.tensor}", []).append(probe)
    if not series:
        return None
    # A parameter whose update is a fault has its curve by name, however far off others are that follow from it.
    ranked = sorted(
        series.items(),
        key=lambda item: (
            -max(_GRAVITY.get(p.status, 0) for p in item[1]), -max(p.rms_rel or 0.0 for p in item[1]), item[0]
        ),
    )  # fmt: skip
    traces = []
    for rank, (name, probes) in enumerate(ranked[:_NAMED]):
        probes = sorted(probes, key=lambda p: p.step)
        traces.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": _plain(_short(name, 26)), "meta": f"series{rank}",
                "x": [p.step for p in probes], "y": [_floored(p.rms_rel) for p in probes],
                "text": [f"{_plain(name)}<br>step {p.step}: relative error {relative(p.rms_rel)}" for p in probes],
                "hoverinfo": "text",
            }
        )  # fmt: skip
    rest: dict[str, list[Any]] = {"x": [], "y": [], "text": []}
    for name, probes in ranked[_NAMED:]:
        for probe in sorted(probes, key=lambda p: p.step):
            rest["x"].append(probe.step)
            rest["y"].append(_floored(probe.rms_rel))
            rest["text"].append(f"{_plain(name)}<br>step {probe.step}: relative error {relative(probe.rms_rel)}")
        for key in rest:
            rest[key].append(None)
    if rest["x"]:
        others = len(ranked) - _NAMED
        traces.insert(
            0,
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{others} others",
                "meta": "rest",
                "hoverinfo": "text",
                **rest,
            },
        )
    steps = sorted({p.step for probes in series.values() for p in probes})
    layout = {
        "xaxis": {"title": {"text": "step"}, "tickvals": steps if len(steps) <= 20 else steps[:: len(steps) // 10]},
        "yaxis": {"type": "log", "title": {"text": "relative error"}, "exponentformat": "power"},
    }
    return {"data": traces, "layout": layout}


def _largest(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return max(known, default=None)


def _shown(value: float | None) -> float | None:
    """On a log axis: no zero and no infinity; the text beside the point says the number."""
    if value is None:
        return None
    return float(f"{min(max(value, _LEAST), _MOST) if not math.isnan(value) else _MOST:.4g}")


def _floored(value: float | None) -> float | None:
    if value is None:
        return None
    return float(f"{min(max(value, 1e-10), 1e6) if not math.isnan(value) else 1e6:.4g}")


def _decades(values: Sequence[float | None]) -> int:
    shown = [v for v in map(_shown, values) if v is not None]
    spread = math.log10(max(shown, default=1.0)) - math.log10(min(shown, default=1.0))
    return max(1, math.ceil(spread / 6))


def _range(values: Sequence[float | None]) -> dict[str, Any]:
    """Whole decades for what spreads over less than one and a half: an axis with a single number says little."""
    logs = [0.0, *(math.log10(v) for v in map(_shown, values) if v is not None)]
    if max(logs) - min(logs) >= 1.5:
        return {}
    return {"range": [math.floor(min(logs) - 0.05), math.ceil(max(logs) + 0.05)]}


def _short(name: str, width: int = 14) -> str:
    return name if len(name) <= width else "…" + name[-(width - 1) :]


def _plain(name: str) -> str:
    """A name as Plotly's own markup, which reads tags: none are left."""
    return clean(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
