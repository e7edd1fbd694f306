"""A gate's result on the terminal or in a log."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from parity.gate.config import Config, Pair
from parity.gate.run import GateResult, PairResult
from parity.reports.words import clean, plural, verdict_style

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["closing_lines", "compare_command", "pair_lines"]

_SHOWN = 6
"""Problems of one pair that are told; the files of a gate hold all."""

_INDENT = 12


def pair_lines(found: PairResult, config: Config) -> Iterator[RenderableType]:
    """One line for a pair, and below it what is wrong with it and what to do.

    Args:
        found: the pair's result.
        config: the gate, whose names are set to one width.
    """
    from rich.padding import Padding
    from rich.text import Text

    judgement, word = found.judgement, found.judgement.verdict
    width = max(len(clean(pair.name)) for pair in config.pairs)
    head = Text.assemble((f"{word:<{_INDENT}}", verdict_style(word)), (f"{clean(found.name):<{width}}", "bold"))
    if judgement.report is not None and not judgement.problems:
        report = judgement.report
        head.append(f"  {plural(len(report.probes), 'tensor')} in {plural(len(report.phases), 'phase')}")
        if judgement.allowed:
            head.append(f", {plural(len(judgement.allowed), 'exception')} needed")
    head.append(f"  {found.seconds:.1f} s", style="dim")
    yield head

    def below(text: Text) -> Padding:
        return Padding(text, (0, 0, 0, _INDENT))

    for problem in judgement.problems[:_SHOWN]:
        text = Text.assemble((problem.kind, verdict_style(word)), f": {clean(problem.sentence)}")
        if problem.remedy:
            text.append(f"\n{clean(problem.remedy)}", style="cyan")
        yield below(text)
    if len(judgement.problems) > _SHOWN:
        yield below(Text(f"and {plural(len(judgement.problems) - _SHOWN, 'more problem')}", style="dim"))
    if judgement.report is not None and judgement.problems:
        # A line for each option: what a narrow terminal would break could not be pasted.
        yield below(Text("all of it: " + " \\\n  ".join(compare_command(judgement.pair)), style="dim"))
    for warning in judgement.warnings:
        yield below(Text(f"warning: {clean(warning)}", style="yellow"))


def compare_command(pair: Pair) -> list[str]:
    """What shows a pair's whole comparison: the command, then each option with its value."""
    words = ["parity compare"]
    for key, value in pair.options.items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words += [option] if value else []
        else:
            words.append(f"{option} {shlex.quote(str(value))}")
    return words


def closing_lines(result: GateResult) -> Iterator[RenderableType]:
    """What concerns the gate as a whole, and its verdict."""
    from rich.text import Text

    for note in result.notes:
        yield Text(f"note: {clean(note)}", style="yellow")
    if result.updated is not None:
        yield Text(f"\n{result.config.lock}: {plural(len(result.updated), 'baseline')} made anew", style="bold")
        left = [clean(found.name) for found in result.results if found.name not in result.updated]
        if left:
            yield Text(f"left as it was: {', '.join(left)}; only what holds, or is allowed, makes a baseline")
    words = [found.judgement.verdict for found in result.results]
    counts = ", ".join(f"{words.count(w)} {w}" for w in ("match", "diverged", "unverified") if w in words)
    text = Text.assemble("\n", (result.verdict, verdict_style(result.verdict)))
    yield text.append(f": {plural(len(words), 'pair')}, {counts}", style="bold")
