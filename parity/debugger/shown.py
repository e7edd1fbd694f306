"""What the debugger's commands print: words, tables and pictures that a pipe can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from parity.debugger import pictures
from parity.debugger.looking import Look
from parity.report import Finding, Probe
from parity.reports.tables import plain_table
from parity.reports.words import clean, relative, times_floor, verdict_style

if TYPE_CHECKING:
    from parity.debugger.stepper import Arrival, Stepper

__all__ = ["arrival", "channels", "findings", "heatmap", "histogram", "layers", "parameters", "status", "worst"]

_WIDE, _TALL = 72, 24
"""Columns and lines of what is drawn where nobody says how large the screen is."""

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
    lines: list[Any] = [line]
    if made.passed is not None:
        lines.insert(0, Text(f"on the way diverges {clean(made.passed.words)} (goto {made.passed.index + 1})"))
    return Group(*lines, probes(state.probes)) if state.probes else Group(*lines)


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
    lines += _breakpoints(stepper)
    lines += [f"experiment {i}: {clean(item.words)}" for i, item in enumerate(stepper.experiments, start=1)]
    return Text("\n".join(lines))


def breakpoints(stepper: Stepper) -> Text:
    """The breakpoints, with their hits."""
    return Text("\n".join(_breakpoints(stepper)) or "there are no breakpoints; break sets one here")


def _breakpoints(stepper: Stepper) -> list[str]:
    return [
        f"breakpoint {item.number}: {item.words} ({item.hits} hits{'' if item.enabled else ', off'})"
        for item in stepper.breakpoints
    ]


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
    return _titled(f"{name}: the elements that differ most", pictures.worst(look.worst(name, count)))


def heatmap(look: Look, name: str, side: str, index: Sequence[int | None] | None = None) -> Any:
    """A cut of a tensor as a picture."""
    name = name or look.default
    index = look.cut(name) if index is None else index
    at = ",".join("*" if i is None else str(i) for i in index)
    whose = {"ref": "reference", "keras": "Keras", "difference": "Keras − reference"}[side]
    return pictures.heatmap(look.slice(name, side, index), _WIDE, _TALL, f"{name}[{at}]: {whose}")


def histogram(look: Look, name: str, bins: int = 16) -> Any:
    """Both sides' values in bins."""
    name = name or look.default
    return _titled(f"{name}: values", pictures.histogram(look.histogram(name, bins), _WIDE, bins))


def channels(look: Look, name: str) -> Any:
    """Where the error lies: by place, and the channels that are furthest off."""
    name = name or look.default
    drawn = pictures.profiles(look.channels(name), look.spatial(name), _WIDE, _TALL)
    return _titled(f"{name}: root mean square of the difference", drawn)


def parameters(look: Look, *, slots: bool) -> Any:
    """The layer's parameters, or what the optimizers hold of them after this update."""
    rows = [row for row in look.parameters() if "." in row.name or not slots]
    if slots and not rows:
        return Text("nothing is held here; go on to an update of a layer with parameters (run update)")
    return pictures.parameters(rows)


def _titled(title: str, drawn: Any) -> Any:
    return Group(Text(title, "bold"), drawn)


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
