"""The table that a run ends with, and whether it is good enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.faults.run import Result, Score

AIMS = {"detected": 1.0, "located": 1.0, "named": 0.97, "fixed": 0.90}
"""Least shares of the planted faults; false alarms: none."""


def aims(results: Sequence[Result]) -> bool:
    """Whether every aim is reached."""
    scores = [s for r in results for s in r.scores]
    shares = [(_share(scores, word), least) for word, least in AIMS.items()]
    return all(share is None or share >= least for share, least in shares) and all(
        r.passed for r in results if r.kind in ("clean", "masked")
    )


def _share(scores: Sequence[Score], word: str) -> float | None:
    held = [v for s in scores if (v := getattr(s, word)) is not None]
    return sum(held) / len(held) if held else None


def _count(scores: Sequence[Score], word: str) -> str:
    held = [v for s in scores if (v := getattr(s, word)) is not None]
    if not held:
        return "–"
    done = sum(held)
    return f"{done}" if done == len(held) else f"[red]{done}/{len(held)}[/]"


def show(results: Sequence[Result], seed: int, seconds: float) -> None:
    """Print per cause and in total, then the failures."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if Console().is_terminal else 160)
    table = Table(title=f"Faults, seed {seed}", title_justify="left")
    table.add_column("cause")
    columns: dict[str, Callable[[Sequence[Score]], str]] = {
        "planted": lambda s: str(len(s)),
        "detected": lambda s: _count(s, "detected"),
        "phase and layer": lambda s: _count(s, "located"),
        "first cause": lambda s: _count(s, "named"),
        "confirmed": lambda s: _count(s, "confirmed"),
        "fix verified": lambda s: _count(s, "fixed"),
    }
    for name in columns:
        table.add_column(name, justify="right")
    by_cause: dict[str, list[Score]] = {}
    for result in results:
        for score in result.scores:
            by_cause.setdefault(score.cause, []).append(score)
    for cause, scores in sorted(by_cause.items()):
        table.add_row(cause, *(count(scores) for count in columns.values()))
    every = [s for scores in by_cause.values() for s in scores]
    if every:
        table.add_section()
        table.add_row("in total", *(count(every) for count in columns.values()), style="bold")
        shares = [_share(every, word) for word in ("detected", "located", "named", "confirmed", "fixed")]
        table.add_row("", "", *("–" if share is None else f"{share:.1%}" for share in shares))
        console.print(table)
    console.print(_summary(results, seconds))
    for result in results:
        if set(result.failed) - set(_LIGHT):
            console.print(f"[bold]{result.id}[/]: {', '.join(result.failed)}")
            console.print(f"    expected {result.expected}", markup=False)
            console.print(f"    said     {result.said}", markup=False)
    for word in _LIGHT:
        ids = [r.id for r in results if word in r.failed]
        if ids:
            console.print(f"{word}: {', '.join(ids)}", markup=False)


_LIGHT = ("not confirmed", "fix not verified")
"""Failures of cases that are listed by name only: place and cause are right."""


def _summary(results: Sequence[Result], seconds: float) -> str:
    lines = []
    for kind, words in (("clean", "right ports"), ("masked", "faults that the batch cannot show")):
        held = [r for r in results if r.kind == kind]
        alarms = sum("false alarm" in r.failed or "error" in r.failed for r in held)
        unnoted = sum(any(w.startswith("no note") for w in r.failed) for r in held)
        extra = f", {unnoted} without their note" if kind == "masked" else ""
        lines.append(f"{words}: {len(held)} comparisons, {alarms} false alarms{extra}")
    spurious = sum(bool(r.extra) for r in results)
    lines.append(f"cases with findings of what was not planted: {spurious}")
    lines.append(f"{len(results)} comparisons in {seconds:.0f} s")
    return "\n".join(lines)
