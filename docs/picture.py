"""Draw `docs/compare.svg`, the picture in the README, from the real example pair: `python docs/picture.py`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

import parity

ROOT = Path(__file__).parents[1]
WIDTH = 100


def main() -> None:
    """Compare the pair in `traces/seed/` and export what the terminal shows."""
    seed = Path("traces/seed")
    report = parity.compare(ref=seed / "net.mat", keras=seed / "model.h5", batch=seed / "batch.npz")
    console = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    console.print(report)
    svg = console.export_svg(
        title="parity compare --ref net.mat --keras model.h5 --batch batch.npz", unique_id="parity"
    )
    # No font from another server: whatever the reader's machine has.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code", "Menlo, Consolas, DejaVu Sans Mono")
    (ROOT / "docs" / "compare.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
