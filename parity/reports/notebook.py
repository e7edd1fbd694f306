"""A report or inspection as HTML for a notebook's output cell: what the console shows, with inline styles only."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

__all__ = ["to_html"]

_FRAME = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:1.25;'
    "font-family:Menlo,'DejaVu Sans Mono',Consolas,monospace\">{code}</pre>"
)


def to_html(renderable: Any, width: int = 120) -> str:
    """`renderable` (anything that rich can draw) as one `<pre>` element; text from files is escaped.

    Args:
        renderable: a `Report`, an `Inspection`, or any rich renderable.
        width: columns.
    """
    console = Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        force_jupyter=False,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format=_FRAME)
