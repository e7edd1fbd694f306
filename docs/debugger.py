"""Draws the debugger's screens of the README: `python docs/debugger.py` plays docs/session.txt on the example pair."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

HERE = Path(__file__).parent
SEED = HERE.parent / "traces" / "seed"
SCREENS = {"rule": "debugger-groups.svg", "status": "debugger-update.svg"}
"""Command after whose first (or only) time the screen is kept → the file."""


async def play(folder: Path) -> list[Path]:
    """Plays the session in the application and keeps its screens.

    Args:
        folder: where they are written.
    """
    from parity.debugger.app import DebuggerApp
    from parity.debugger.commands import Commands
    from parity.debugger.stepper import Stepper

    stepper = Stepper.open(str(SEED / "net.mat"), str(SEED / "model.h5"), str(SEED / "batch.npz"))
    app = DebuggerApp(stepper, Commands(stepper), "net.mat ↔ model.h5")
    made: list[Path] = []
    async with app.run_test(size=(118, 38)) as pilot:
        for line in (HERE / "session.txt").read_text(encoding="utf-8").split("\n"):
            if not line or line == "quit":
                continue
            app.give(line)
            for _ in range(3000):
                await pilot.pause(0.02)
                if not app.busy and all(worker.is_finished for worker in app.workers):
                    break
            await pilot.pause(0.1)
            path = folder / SCREENS.get(line, "")
            if line in SCREENS and path not in made:
                path.write_text(_local(app.export_screenshot(title="parity debug")), encoding="utf-8")
                made.append(path)
    return made


def _local(svg: str) -> str:
    """No font from another server: whatever the reader's machine has."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "Menlo, Consolas, DejaVu Sans Mono")


if __name__ == "__main__":
    for drawn in asyncio.run(play(HERE)):
        print(drawn)
