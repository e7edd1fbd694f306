"""The command line at the foot of the debugger's application: completion, and a history of what was entered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input

__all__ = ["Prompt"]


class Prompt(Input):
    """One line that is open only while somebody types; it says `Entered` or `Closed` when it shuts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "carry out"),
        Binding("tab", "complete", "complete", priority=True),
        Binding("up", "recall(1)", "line before"),
        Binding("down", "recall(-1)", "line after"),
        Binding("escape", "close", "close"),
    ]

    class Entered(Message):
        """A line was entered; it is not empty."""

        def __init__(self, line: str) -> None:
            super().__init__()
            self.line = line

    class Closed(Message):
        """The line was shut without one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(placeholder="a command, or help", select_on_focus=False, **options)
        self._entered: list[str] = []
        self._recalled = 0

    def open(self, start: str, completions: Iterable[str] | None) -> None:
        """Take the keys, with this at the start of the line.

        Args:
            start: what stands there already.
            completions: whole lines that one may mean; None keeps those that there were.
        """
        if completions is not None:
            self.suggester = SuggestFromList(completions, case_sensitive=True)
        self.display = True
        self._write(start)
        self.focus()

    def _shut(self) -> None:
        self._write("")
        self._recalled = 0
        self.display = False

    def _write(self, text: str) -> None:
        self.value = text
        self.cursor_position = len(text)

    def action_complete(self) -> None:
        """Takes what is suggested, as the right arrow does at the end of the line."""
        self.cursor_position = len(self.value)
        self.action_cursor_right()

    def action_recall(self, step: int) -> None:
        """Through what was entered before, the last line first."""
        self._recalled = max(0, min(self._recalled + step, len(self._entered)))
        self._write(self._entered[-self._recalled] if self._recalled else "")

    def action_close(self) -> None:
        """Shuts it; what was typed is gone."""
        self._shut()
        self.post_message(self.Closed())

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Shuts it, and says what was entered."""
        event.stop()
        line = event.value.strip().removeprefix(":").strip()
        self._shut()
        if line:
            self._entered.append(line)
        self.post_message(self.Entered(line) if line else self.Closed())
