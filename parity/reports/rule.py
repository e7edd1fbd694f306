"""The pages of the causes as rich renderables: one page, and the list of all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Group
from rich.constrain import Constrain
from rich.markdown import Markdown
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from parity.causes import CAUSES, FAMILIES, Page, page
from parity.reports.console import PROSE

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

__all__ = ["listing", "render_list", "render_page", "sheet"]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(`[^`\]]+`)\]\([^)]*\.md\)")
"""A link to another page: the terminal shows its slug, which is what `parity rule` takes."""

_THEME = Theme({"markdown.code": "cyan", "markdown.item.bullet": "dim"})
"""rich itself sets inline code on black, which stands out on a light terminal."""


def render_list(console: Console) -> None:
    """Print every cause with its title, family by family."""
    console.print(listing())


def render_page(slug: str, console: Console) -> None:
    """Print the page of a cause.

    Raises:
        BadUsage: there is no such cause.
    """
    console.print(sheet(slug))


def listing() -> RenderableType:
    """Every cause with its title, family by family; one line each from 80 columns on."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, min_width=max(map(len, CAUSES)))
    table.add_column(overflow="fold")
    for number, (family, slugs) in enumerate(FAMILIES.items()):
        if number:
            table.add_row()
        table.add_row(Text(family, style="bold"))
        for slug in slugs:
            table.add_row(Text(slug, style="cyan"), Text(page(slug).title))
    return Group(table, Text("\nparity rule SLUG shows a page.", style="dim"))


def sheet(slug: str) -> RenderableType:
    """The page of a cause.

    Raises:
        BadUsage: there is no such cause.
    """
    return Constrain(_Themed(Group(*_pieces(page(slug)))), PROSE)


class _Themed:
    """A renderable in this module's styles, whatever console draws it."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with console.use_theme(_THEME):
            yield from console.render(self.inner, options)


def _pieces(found: Page) -> Iterator[RenderableType]:
    yield Text.assemble((found.slug, "bold cyan"), "  ", (found.title, "bold"))
    yield Text()
    yield from _body(found.summary)
    for heading, body in found.sections.items():
        yield Text(f"\n{heading}", style="bold")
        yield from _body(body)


def _body(text: str) -> Iterator[RenderableType]:
    """Markdown, with its fenced blocks set as code: indented, and nothing around them that a copy would take along."""
    end = 0
    for fence in _FENCE.finditer(text):
        before, after = text[end : fence.start()].strip(), text[fence.end() :].strip()
        yield from _prose(before)
        yield Padding(_code(fence[2].rstrip(), fence[1] or "text"), (1, 0, int(bool(after)), 4))
        end = fence.end()
    yield from _prose(text[end:])


def _prose(text: str) -> Iterator[RenderableType]:
    if text.strip():
        yield Markdown(_LINK.sub(r"\1", text.strip()), inline_code_theme=None)


def _code(text: str, language: str) -> RenderableType:
    return Syntax(text, language, theme="ansi_dark", background_color="default", word_wrap=True)
