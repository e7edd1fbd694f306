"""What the debugger's commands print: short texts and tables that a pipe can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from parity.debugger.looking import Look
from parity.report import Finding, Probe
from parity.reports.tables import plain_table
from parity.reports.words import clean, relative, times_floor, verdict_style

if TYPE_CHECKING:
    from parity.debugger.stepper import Arrival, Stepper
    from parity.debugger.terms import Terms

__all__ = ["arrival", "channels", "findings", "heatmap", "histogram", "layers", "recipe", "status", "terms", "worst"]

Array = np.ndarray

_SHADES = " .:-=+*#%@"
_RIGHT = {"justify": "right", "no_wrap": True}


def arrival(made: Arrival) -> Any:
    """Where a command came to, why, and what was compared there."""
    stop, state = made.stop, made.state
    words = {
        "breakpoint": f"breakpoint {made.breakpoint.number if made.breakpoint else ''} at ",
        "divergence": "diverges at ",
        "end": "the end: ",
    }
    line = Text(words.get(made.reason, ""))
    line.append(clean(stop.words), "bold")
    line.append("  ")
    line.append(state.status, verdict_style(state.status))
    return Group(line, probes(state.probes)) if state.probes else line


def probes(rows: Sequence[Probe]) -> Table:
    """The compared tensors of a stop."""
    table = plain_table(
        ("tensor", {"no_wrap": True}), ("status", {}), ("max abs", _RIGHT), ("relative", _RIGHT),
        ("alone", _RIGHT), ("end to end", _RIGHT), ("", {}), title="",
    )  # fmt: skip
    for p in rows:
        table.add_row(
            Text(p.tensor), Text(p.status, verdict_style(p.status)), "" if p.max_abs is None else f"{p.max_abs:.2e}",
            relative(p.rms_rel), times_floor(p.isolated_x_floor), times_floor(p.propagated_x_floor),
            Text(clean(p.note)),
        )  # fmt: skip
    return table


def status(stepper: Stepper) -> Any:
    """Where one is, the verdict so far, breakpoints and experiments."""
    seen = sum(stepper.state(stop.index) is not None for stop in stepper.stops)
    lines = [f"stop {stepper.position + 1} of {len(stepper.stops)}: {clean(stepper.stop.words)}"]
    if stepper.inside:
        lines.append(f"inside {clean('/'.join(stepper.inside))}")
    so_far = "" if stepper.finished else f" so far ({seen} of {len(stepper.stops)} stops seen)"
    first = stepper.first_divergence
    where = ""
    if first is not None:
        name = first.layer or f"Keras {first.keras_layer}"
        where = f", first in {first.phase} at {clean(name)}, {first.tensor}"
        where += f", step {first.step}" if first.phase == "update" else ""
    lines.append(f"verdict{so_far}: {stepper.verdict}{where}")
    lines += [
        f"breakpoint {item.number}: {item.words} ({item.hits} hits{'' if item.enabled else ', off'})"
        for item in stepper.breakpoints
    ]
    lines += [f"experiment {i}: {clean(item.words)}" for i, item in enumerate(stepper.experiments, start=1)]
    return Text("\n".join(lines))


def layers(look: Look, position: str) -> Any:
    """The layers with the statuses of their stops."""
    rows = look.layers()
    phases = dict.fromkeys(phase for row in rows for phase in row.statuses)
    names = [phase for phase in ("forward", "loss", "backward", "update") if phase in phases]
    table = plain_table(
        ("", {}), ("layer", {}), ("Keras", {}), *((name, {"no_wrap": True}) for name in names), title=""
    )
    for row in rows:
        cells = [row.statuses.get(name, "") for name in names]
        mark = ">" if row.layer == position else ""
        table.add_row(mark, clean(row.layer), clean(row.keras_layer), *(Text(c, verdict_style(c)) for c in cells))
    return table


def worst(look: Look, name: str, count: int = 10) -> Any:
    """The elements that are furthest off."""
    name = name or look.default
    table = plain_table(
        ("index", {"no_wrap": True}), ("reference", _RIGHT), ("Keras", _RIGHT), ("difference", _RIGHT),
        title=f"{name}: the elements that differ most",
    )  # fmt: skip
    for item in look.worst(name, count):
        table.add_row(",".join(map(str, item.index)), f"{item.ref:.7g}", f"{item.keras:.7g}", f"{item.difference:.3g}")
    return table


def heatmap(look: Look, name: str, side: str, index: Sequence[int | None] | None = None, width: int = 64) -> Any:
    """A cut of a tensor in shades; the largest absolute value of a cell where the cut is larger than the screen."""
    name = name or look.default
    index = look.cut(name) if index is None else index
    cut = np.abs(look.slice(name, side, index).astype(np.float64))
    steps = [max(1, -(-extent // most)) for extent, most in zip(cut.shape, (width // 2, width), strict=True)]
    padded = np.pad(cut, [(0, -extent % step) for extent, step in zip(cut.shape, steps, strict=True)])
    cells = padded.reshape(padded.shape[0] // steps[0], steps[0], -1, steps[1]).max(axis=(1, 3))
    finite = cells[np.isfinite(cells)]
    top = float(finite.max()) if finite.size else 0.0
    shade = np.zeros(cells.shape, int)
    if top > 0:
        shade = np.ceil(np.nan_to_num(cells / top, nan=1, posinf=1) * (len(_SHADES) - 1)).astype(int).clip(0, 9)
    rows = ["".join(_SHADES[s] if np.isfinite(v) else "!" for s, v in zip(*pair, strict=True))
            for pair in zip(shade, cells, strict=True)]  # fmt: skip
    at = ",".join("*" if i is None else str(i) for i in index)
    whose = {"ref": "reference", "keras": "Keras", "difference": "difference"}[side]
    head = f"{name}[{at}] of the {whose}, absolute; @ is {top:.3g}" + (
        ", ! is not finite" if "!" in "".join(rows) else ""
    )
    return Text("\n".join([head, *("|" + row + "|" for row in rows)]))


def histogram(look: Look, name: str, bins: int = 16) -> Any:
    """Both sides' values in bins."""
    name = name or look.default
    found = look.histogram(name, bins)
    table = plain_table(("from", _RIGHT), ("reference", _RIGHT), ("Keras", _RIGHT), ("", {}), title=f"{name}: values")
    most = max(1, int(max(found.ref.max(initial=0), found.keras.max(initial=0))))
    for low, a, b in zip(found.edges, found.ref, found.keras, strict=False):
        bar = "#" * round(20 * int(a) / most) + "\n" + "=" * round(20 * int(b) / most)
        table.add_row(f"{low:.3g}", str(a), str(b), bar)
    return table


def channels(look: Look, name: str, count: int = 16) -> Any:
    """The channels that are furthest off, and their share of the error."""
    name = name or look.default
    values = look.channels(name)
    total = float(np.square(values).sum()) or 1.0
    table = plain_table(
        ("channel", _RIGHT), ("rms error", _RIGHT), ("share", _RIGHT), title=f"{name}: error by channel ({values.size})"
    )
    for channel in sorted(range(values.size), key=lambda c: -values[c])[:count]:
        table.add_row(str(channel), f"{values[channel]:.3g}", f"{values[channel] ** 2 / total:.0%}")
    return table


def terms(found: Terms) -> Any:
    """An element, its receptive field, and the terms that made it."""
    at = ",".join(map(str, found.index))
    lines = [f"output[{at}]: {found.ref:.7g} in the reference, {found.keras:.7g} in Keras"]
    if found.field:
        lines.append("made of its input at " + ", ".join(f"{a}" if a == b else f"{a}..{b}" for a, b in found.field))
    if found.image_field is not None:
        size, stride, offset = (tuple(f"{v:g}" for v in part) for part in found.image_field)
        lines.append(f"sees {' by '.join(size)} of the input (stride {','.join(stride)}, offset {','.join(offset)})")
    lines.append(f"bias and the rest: {found.rest_ref:.7g} in the reference, {found.rest_keras:.7g} in Keras")
    table = plain_table(
        ("input at", {"no_wrap": True}), ("reference: value × weight", _RIGHT), ("Keras: value × weight", _RIGHT),
        title="terms that differ most",
    )  # fmt: skip
    for item in found.terms:
        table.add_row(
            ",".join(map(str, item.index)), f"{item.value_ref:.4g} × {item.slope_ref:.4g} = {item.ref:.5g}",
            f"{item.value_keras:.4g} × {item.slope_keras:.4g} = {item.keras:.5g}",
        )  # fmt: skip
    return Group(Text("\n".join(lines)), table)


def findings(found: Sequence[Finding]) -> Any:
    """What the rules say."""
    if not found:
        return Text("no rule names a cause here")
    parts: list[Any] = []
    for i, f in enumerate(found, start=1):
        place = f" at {clean(f.layer or f.keras_layer)}" if f.layer or f.keras_layer else ""
        note = ", a note" if f.severity == "note" else ""
        parts.append(Text(f"{i}. {f.cause}{place}, {f.phase}{', confirmed' if f.confirmed else ''}{note}"))
        parts.append(Padding(Text(clean(f.evidence)), (0, 0, 0, 3)))
        if f.fix:
            able = "" if f.changes else "  (not one that `fix` can carry out)"
            parts.append(Padding(Text(f"fix in Keras: {clean(f.fix)}{able}"), (0, 0, 0, 3)))
    return Group(*parts)


def recipe(look: Look) -> Any:
    """How both sides are trained."""
    table = plain_table(("", {}), ("reference", {}), ("Keras", {}), ("", {}), title="recipe")
    for row in look.recipe():
        table.add_row(row.name, clean(row.ref), clean(row.keras), "same" if row.same else "differs")
    return table
