"""The help of the debugger's application: every key and every command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

if TYPE_CHECKING:
    from parity.debugger.commands import Commands

__all__ = ["HelpScreen"]

_MORE = (
    ("enter", "stand at the stop that is selected in the list"),
    ("g  /", "run to a layer, a phase, or both"),
    ("[  ]", "another tensor of this stop"),
    ("t  T", "another view"),
    ("e", "export a tensor"),
    ("r", "write a script that shows this layer's divergence without parity"),
    (":", "the command line; tab or → completes, ↑ ↓ go through its history, escape closes it"),
    ("tab", "another panel; arrows and page keys scroll it"),
    ("escape", "stop what is running, before the next layer"),
    ("d", "dark or light"),
    ("?", "this help; escape or ? closes it"),
    ("q  ctrl+c", "quit; a session that has a file is saved"),
)


class HelpScreen(ModalScreen[None]):
    """Every key and command on one page."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "close"),
        Binding("question_mark", "dismiss", "close", show=False),
        Binding("q", "dismiss", "close", show=False),
    ]

    def __init__(self, keys: Sequence[tuple[str, str, str, str]], commands: Commands) -> None:
        super().__init__()
        self._keys, self._commands = keys, commands

    def compose(self) -> ComposeResult:
        """The page."""
        with VerticalScroll(id="sheet"):
            yield Static(Text("Keys", "bold"))
            keys = [(key, f"{words}  ({command})") for key, command, words, _ in self._keys]
            yield Static(_table([*keys, *_MORE]))
            yield Static(Text("\nCommands", "bold"))
            yield Static(_commands(self._commands.help_rows()))


def _commands(rows: Sequence[tuple[str, str]]) -> Group:
    """Each command above what it does: some take more than half a line."""
    return Group(*(part for takes, words in rows for part in (Text(takes, "bold"), Padding(words, (0, 0, 0, 4)))))


def _table(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for key, words in rows:
        table.add_row(Text(key), Text(words))
    return table
