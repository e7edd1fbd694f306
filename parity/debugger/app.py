"""The debugger on a terminal: the stepper's stops, its looks and its command line, as a Textual application.

Everything that one can do here is a command of `parity.debugger.commands`; a key is a short form of one. Commands run
in a thread of their own, so that the screen answers while a layer is computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.css.query import NoMatches
from textual.filter import LineFilter, NoColor
from textual.widgets import Footer, Static, TabbedContent, TabPane
from textual.worker import get_current_worker

from parity.debugger.help import HelpScreen
from parity.debugger.measures import WANTED, Unwanted
from parity.debugger.panels import Log, Panel, StopTable, ended
from parity.debugger.plain import Legible, colourless
from parity.debugger.prompt import Prompt
from parity.errors import ParityError
from parity.garbage import set_aside
from parity.reports.words import clean, verdict_style

if TYPE_CHECKING:
    from parity.debugger.commands import Commands
    from parity.debugger.stepper import Stepper

__all__ = ["DebuggerApp", "fitting"]

_KEYS = (
    ("n", "next", "next", "next"),
    ("p", "previous", "back", "back"),
    ("c", "continue", "continue", "continue"),
    ("i", "into", "into", ""),
    ("o", "out", "out", ""),
    ("b", "break", "break here", "break"),
    ("x", "put ref", "put ref's tensor", "put"),
    ("X", "put keras", "put Keras' tensor", ""),
    ("f", "fix", "apply the fix", "fix"),
    ("w", "rule", "why: run the rules", "why"),
    ("s", "status", "status", ""),
    ("R", "restart", "restart", ""),
    ("u", "undo", "undo", "undo"),
)
"""Key, the command that it gives, its words in the help, and its word in the footer (empty: the footer leaves it out).

In the footer the command line, the help and the end stand before the last; all of it fits in 80 cells.
"""


def _binding(key: str, command: str, words: str, word: str) -> Binding:
    return Binding(key, f"command('{command}')", word or words, show=bool(word))


_NO_COLOURS = NoColor()

_PATIENCE = 2.0
"""Seconds that a layer which runs when one quits is waited for."""


def fitting(words: str, names: tuple[str, ...], room: int) -> str:
    """Where one stands in so many cells, as far as that goes: long names by their ends, or the layer's alone."""
    whole, (layer, partner) = words, (*names, "")[:2]
    for name in sorted(map(clean, names), key=len, reverse=True):
        over = cell_len(words) - room
        if over > 0 and name:
            words = words.replace(name, ended(name, max(_SHORTEST, cell_len(name) - over)))
    if partner and cell_len(words) > room:
        return fitting(whole.replace(f" (Keras {clean(partner)})", ""), (layer,), room)
    return words


_SHORTEST = 12
"""Cells that are left to a layer's name where there is no room."""


def _inside(problem: Exception) -> Text:
    return Text(clean(f"an error inside parity: {type(problem).__name__}: {problem}"), style="bold red")


class DebuggerApp(App[int]):
    """Steps both sides of a comparison.

    Args:
        stepper: at its start or anywhere else.
        commands: its command line.
        title: what is compared, for the first line.
        abandon: called with the exit code where one has quit and a layer still runs seconds later: nothing can stop
            one that a framework is computing, so what calls this from a process of its own may end that. None waits.

    The application returns the exit code of what was seen so far: 0, 1, or 2.
    """

    CSS_PATH = "app.tcss"
    TITLE = "parity debug"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        *(_binding(*key) for key in _KEYS[:-1]),
        Binding("colon", "prompt('')", "line", key_display=":"),
        Binding("g", "prompt('run ')", "run to", show=False),
        Binding("e", "prompt('export ')", "export", show=False),
        Binding("r", "prompt('repro ')", "reproducer", show=False),
        Binding("slash", "prompt('run ')", "find a layer", show=False, key_display="/"),
        Binding("right_square_bracket", "tensor(1)", "next tensor", show=False, key_display="]"),
        Binding("left_square_bracket", "tensor(-1)", "tensor before", show=False, key_display="["),
        Binding("tab", "app.focus_next", "next panel", show=False),
        Binding("t", "view(1)", "next view", show=False),
        Binding("T", "view(-1)", "view before", show=False),
        Binding("d", "dark", "dark or light", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("escape", "stop", "stop", show=False),
        Binding("q", "quit_now", "quit"),
        Binding("ctrl+c", "quit_now", "quit", show=False, priority=True),
        _binding(*_KEYS[-1]),
    ]

    def __init__(
        self,
        stepper: Stepper,
        commands: Commands,
        title: str = "",
        abandon: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self._abandon = abandon
        self.stepper, self.commands, self._what = stepper, commands, title
        self.tensor_index = 0
        self.busy = False
        self._turn = threading.Lock()
        self._bare = self._told = False
        self._set_aside: Callable[[], None] = lambda: None
        self._legible = Legible()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """What lines pass through on their way to the terminal."""
        if self._bare:
            return [_NO_COLOURS]
        return [self._legible, *super().get_line_filters()] if self.no_color else super().get_line_filters()

    async def run_async(self, *args: Any, **named: Any) -> int | None:
        """As of every application; the terminal is as it was, and the session saved, when a layer is abandoned."""
        self._bare = not named.get("headless") and colourless()
        self.no_color |= self._bare
        with set_aside() as self._set_aside, self._heeding():
            code = await super().run_async(*args, **named)
        if self._abandon is not None and not self._turn.acquire(timeout=_PATIENCE):
            self._abandon(code or 0)
        return code

    @contextlib.contextmanager
    def _heeding(self) -> Iterator[None]:
        """An interrupt that comes as a signal, not as a key, does what the key does."""
        before, loop = signal.getsignal(signal.SIGINT), asyncio.get_running_loop()
        try:
            loop.add_signal_handler(signal.SIGINT, lambda: self.call_later(self.action_quit_now))
        except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

    # ---- the screen

    def compose(self) -> ComposeResult:
        """The first line, the stops, the views, the log, the command line, the keys."""
        yield Static(id="banner", markup=False)
        with Horizontal(id="body"):
            yield StopTable(self.stepper, id="stops")
            with Vertical(id="right"):
                yield Static(id="here", markup=False)
                with TabbedContent(id="views"):
                    for name, label in Panel.VIEWS.items():
                        with TabPane(label, id=f"view-{name}"):
                            yield Panel(name, id=f"panel-{name}")
        yield Log(id="log")
        yield Prompt(id="prompt")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Shows where one stands."""
        self.screen.set_class(self._bare, "bare")
        self.query_one("#stops").focus()
        self.query_one(Prompt).display = False
        for remark in self.commands.remarks:
            self.query_one(Log).add(Text(remark))
        self.refresh_all()
        self.call_after_refresh(self._prepare)

    @work(thread=True, group="prepare")
    def _prepare(self) -> None:
        self.stepper.prepare()
        self._set_aside()

    def refresh_all(self) -> None:
        """Everything anew, as the stepper is now."""
        try:
            self.query_one("#banner", Static).update(self._banner())
        except NoMatches:  # the application is closing
            return
        self.query_one("#here", Static).update(self._here())
        self.query_one(StopTable).show()
        self.draw_view()

    def _banner(self) -> Text:
        verdict = self.stepper.verdict if self.stepper.finished else f"{self.stepper.verdict} so far"
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append("parity debug  ", "bold")
        text.append(f"{clean(self._what)}  " if self._what else "")
        text.append(verdict, verdict_style(self.stepper.verdict))
        if self.busy:
            text.append("  running …", "italic")
        return text

    def _here(self) -> Text:
        stop, state = self.stepper.stop, self.stepper.state()
        text, rest = Text(no_wrap=True, overflow="ellipsis"), Text()
        text.append(f"{stop.index + 1}/{len(self.stepper.stops)}  ", "dim")
        room = self.query_one("#right").size.width - 2
        text.append(fitting(clean(stop.words), (stop.layer, stop.keras_layer), room - text.cell_len), "bold")
        if state is not None:
            rest.append(state.status, verdict_style(state.status))
        tensors = self._tensors()
        if tensors:
            rest.append(f"   tensor {tensors[self.tensor_index % len(tensors)]}", "dim")
            if len(tensors) > 1:
                rest.append(f" ({self.tensor_index % len(tensors) + 1} of {len(tensors)}: [ ])", "dim")
        text.append("  " if text.cell_len + rest.cell_len + 2 <= room else "\n")
        return text.append_text(rest)

    def _tensors(self) -> list[str]:
        """The tensors of the present stop: the worst first, then what was compared, then inputs and parameters."""
        look = self.stepper.look()
        known = set(look.names)
        state = self.stepper.state()
        compared = [p.tensor for p in state.probes if p.tensor in known] if state else []
        shows = bool(compared) or self.stepper.stop.adds
        first = look.default if shows else ""
        return list(dict.fromkeys([*([first] if first else []), *compared, *(look.names if shows else ())]))

    @property
    def tensor(self) -> str:
        """The tensor that the views show; empty where the stop has none."""
        tensors = self._tensors()
        return tensors[self.tensor_index % len(tensors)] if tensors else ""

    # ---- views

    @property
    def view(self) -> str:
        """The view that is open."""
        return str(self.query_one(TabbedContent).active).removeprefix("view-") or next(iter(Panel.VIEWS))

    def draw_view(self) -> None:
        """Draws the open view, in a thread: a tensor may be large."""
        panel = self.query_one(f"#panel-{self.view}", Panel)
        if not panel.size:  # it was never on the screen; when it is, it is told of its size
            return
        width, height = max(20, panel.size.width - 2), max(6, panel.size.height - 1)
        self._draw(panel, self.view, width, height)

    @work(thread=True, exclusive=True, group="view")
    def _draw(self, panel: Panel, name: str, width: int, height: int) -> None:
        worker = get_current_worker()
        WANTED.set(lambda: not worker.is_cancelled)  # another drawing is under way then, of what is there now
        try:
            made = panel.made_of(self.stepper, self.tensor, width, height, self._turn)
        except Unwanted:
            return
        except Exception as problem:  # as of a command: it must not take the session with it
            made = _inside(problem)
        if not worker.is_cancelled:
            self.call_from_thread(panel.update, made)

    def on_tabbed_content_tab_activated(self) -> None:
        """Another view is open."""
        self.draw_view()

    def on_resize(self, event: events.Resize) -> None:
        """The screen has another size."""
        width = event.size.width
        size = "tiny" if width < 50 else "narrow" if width < 100 else "wide" if width >= 160 else ""
        for name in ("tiny", "narrow", "wide"):
            self.screen.set_class(size == name, name)
        self.query_one(StopTable).fit(size)
        self.screen.set_class(event.size.height < 30, "low")
        self.screen.set_class(event.size.height < 16, "lowest")
        self.call_after_refresh(self._draw_here)

    def _draw_here(self) -> None:
        self.query_one("#here", Static).update(self._here())

    # ---- commands

    def action_command(self, line: str) -> None:
        """A key's command."""
        self.give(line)

    def give(self, line: str) -> None:
        """Carries out one command line, in a thread."""
        if self.busy:
            self.notify("still running; escape stops it", timeout=2)
            return
        self.busy = True
        self.stepper.interrupt(wanted=False)
        self.query_one("#banner", Static).update(self._banner())
        self._give(line)

    @work(thread=True, exclusive=True, group="command")
    def _give(self, line: str) -> None:
        try:
            with self._turn:
                made: Any = self.commands.run(line)
        except ParityError as problem:
            made = Text(str(problem), style="bold red")
        except Exception as problem:  # an error of ours must not take the session with it
            made = _inside(problem)
        self.call_from_thread(self._done, line, made)

    def _done(self, line: str, made: Any) -> None:
        self.busy = False
        log = self.query_one(Log)
        log.add(Text(f"> {line}", "bold"))
        for part in made if isinstance(made, list | tuple) else [made]:
            if part is not None and part != "":
                log.add(part)
        if self.commands.finished:
            self.action_quit_now()
            return
        self.tensor_index = 0
        self.refresh_all()

    def action_prompt(self, start: str) -> None:
        """Opens the command line."""
        self.query_one(Prompt).open(start, None if self.busy else self.commands.completions())

    def on_prompt_entered(self, event: Prompt.Entered) -> None:
        """A command line was entered."""
        self.query_one("#stops").focus()
        self.give(event.line)

    def on_prompt_closed(self) -> None:
        """The command line was shut."""
        self.query_one("#stops").focus()

    # ---- the rest of the keys

    def action_tensor(self, step: int) -> None:
        """Another tensor of this stop."""
        self.tensor_index += step
        self.query_one("#here", Static).update(self._here())
        self.draw_view()

    def action_view(self, step: int) -> None:
        """Another view."""
        names = list(Panel.VIEWS)
        self.query_one(TabbedContent).active = f"view-{names[(names.index(self.view) + step) % len(names)]}"

    def action_dark(self) -> None:
        """Dark or light."""
        self.theme = "textual-light" if self.theme == "textual-dark" else "textual-dark"

    def action_help(self) -> None:
        """Keys and commands."""
        self.push_screen(HelpScreen(_KEYS, self.commands))

    def action_quit_now(self) -> None:
        """Ends the session, which is saved if it has a file; a layer that is running is the last one.

        Where it cannot be saved that is told, and nothing ends: `save` takes another file.
        """
        if self.busy:
            self.stepper.interrupt()
        try:
            self.commands.save()
        except ParityError as problem:
            if not self._told:
                self._told = True
                self.query_one(Log).add(Text(f"{problem}; quit again to lose it", style="bold red"))
            else:
                self.exit(2, message=Text(f"parity: {problem}"))
            return
        self.exit({"match": 0, "diverged": 1}.get(self.stepper.verdict, 2))

    def action_stop(self) -> None:
        """Stops what is running before the next layer."""
        if self.busy:
            self.stepper.interrupt()

    def jump(self, index: int) -> None:
        """Stand at another stop; what lies between is run."""
        self.give(f"goto {index + 1}")
