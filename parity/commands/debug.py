"""`parity debug`: both sides in lockstep, layer by layer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from parity.commands.selection import Selection, with_selection

__all__ = ["debug"]


@with_selection
def debug(
    selection: Selection,
    commands: Annotated[
        Optional[str], typer.Option(metavar="FILE", help="Carry out the commands of a file; - reads standard input.")
    ] = None,
    repro: Annotated[
        Optional[Path], typer.Option(metavar="DIR", help="Write a script that shows the first divergence by itself.")
    ] = None,
    session: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Keep breakpoints, experiments and the place in this file.")
    ] = None,
) -> int:
    """Step through two models in lockstep: forward, loss, backward and updates; look, experiment, find the cause."""
    from parity.errors import BadUsage

    options = selection.keywords()
    screen = commands is None and repro is None
    if screen and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadUsage("debug: this is no terminal; drive it by --commands FILE, or by --commands - from a pipe")
    lines: list[str] = []
    if commands is not None and commands != "-":
        try:
            lines = Path(commands).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadUsage(f"--commands {commands}: cannot be read ({error})") from None
    from parity.debugger.commands import Commands, run_script
    from parity.debugger.stepper import Stepper
    from parity.interrupts import heeded

    with heeded():
        stepper = Stepper.open(**options)
        made = Commands(stepper, session)
    code = 0
    if screen:
        from parity.debugger.app import DebuggerApp

        title = f"{Path(selection.ref).name} ↔ {Path(selection.keras).name}"
        return DebuggerApp(stepper, made, title, abandon=_end).run() or 0
    if commands is not None:
        if commands == "-":
            code = run_script(made, sys.stdin, "standard input", typed=sys.stdin.isatty())
        else:
            code = run_script(made, lines, commands)
    if repro is not None:
        from parity.debugger.repro import write_repro
        from parity.reports.output import show

        show(write_repro(stepper, repro))
        code = {"match": 0, "diverged": 1}.get(stepper.verdict, 2)
    return code


def _end(code: int) -> None:
    """End the process though a thread of it is busy."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
