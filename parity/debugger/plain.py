"""The debugger's application without colours: where the terminal has none, and where NO_COLOR asks for greys."""

from __future__ import annotations

import os
from functools import lru_cache

from rich.color import Color as RichColor
from rich.color import ColorType
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

__all__ = ["Legible", "colourless"]


def colourless() -> bool:
    """Whether what is known of the terminal says that it has no colours, as of a vt100 or an xterm-mono."""
    if os.environ.get("COLORTERM"):
        return False
    try:
        import curses

        curses.setupterm(os.environ.get("TERM", ""), 1)
        return curses.tigetnum("colors") < 2
    except Exception:  # no curses here, or a terminal that nobody has described
        return False


class Legible(LineFilter):
    """Words in red or green in the ink that shows best: as greys some of them cannot be told from a dark ground."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The same segments, without named colours."""
        ground = background.rich_color
        return [Segment(text, None if style is None else _inked(style, ground), None) for text, style, _ in segments]


@lru_cache(1024)
def _inked(style: Style, ground: RichColor) -> Style:
    if style.color is None or style.color.type is not ColorType.STANDARD:
        return style
    beneath = style.bgcolor if style.bgcolor is not None and style.bgcolor.triplet is not None else ground
    return style + Style(color=Color.from_rich_color(beneath).get_contrast_text(0.9).rich_color)
