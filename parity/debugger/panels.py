"""The panels of the debugger's application: the list of stops, and the views of a tensor."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, RichLog, Static

from parity.debugger import pictures
from parity.errors import ParityError
from parity.reports.words import clean, times_floor, verdict_style
from parity.wording import kind_words

if TYPE_CHECKING:
    from parity.debugger.known import State
    from parity.debugger.looking import Look
    from parity.debugger.stepper import Stepper
    from parity.debugger.stops import Stop

__all__ = ["Log", "Panel", "StopTable", "ended"]

_SHORT = {"input": "in", "structure": "struct", "weights": "weight", "forward": "fwd", "loss": "loss",
          "backward": "bwd", "update": "upd"}  # fmt: skip

_WIDTHS = {"tiny": (2, 6, 7, 5), "narrow": (2, 7, 11, 12), "": (2, 7, 17, 15), "wide": (2, 7, 36, 15)}
"""Class of the screen → the columns of the list of stops."""

_DEEPEST = 4
"""Submodels within each other that the list of stops indents."""


def ended(text: str, room: int) -> str:
    """A text in so many cells: of a longer one its end, which tells layers of one submodel apart."""
    if cell_len(text) <= room:
        return text
    return "…" + set_cell_size(text[::-1], max(0, room - 1)).rstrip()[::-1]


_COLUMNS = {"mark": "", "phase": "phase", "layer": "layer", "status": "verdict"}


class StopTable(DataTable[Text]):
    """Every stop with what is known of it; the present one is marked, and so are breakpoints."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "stand here", show=False)]

    def __init__(self, stepper: Stepper, **options: Any) -> None:
        super().__init__(cursor_type="row", zebra_stripes=False, show_header=True, cell_padding=0, **options)
        self.stepper = stepper
        self._drawn: dict[int, tuple[Any, ...]] = {}
        self._count = 0
        self._widths = _WIDTHS[""]

    def on_mount(self) -> None:
        """The columns."""
        for (key, label), width in zip(_COLUMNS.items(), self._widths, strict=True):
            self.add_column(label, key=key, width=width)

    def fit(self, size: str) -> None:
        """Columns for a `tiny` screen, a `narrow` or a `wide` one, or one between (empty)."""
        if self._widths == _WIDTHS[size]:
            return
        self._widths = _WIDTHS[size]
        for column, width in zip(self.ordered_columns, self._widths, strict=True):
            column.width = width
        self._count = -1  # names are shortened to the column
        self.show()

    def show(self) -> None:
        """Draws what changed since the last time, and moves the cursor to where one stands."""
        stepper = self.stepper
        if len(stepper.stops) != self._count:
            self.clear()
            self._drawn.clear()
            self._count = len(stepper.stops)
            for stop in stepper.stops:
                row = self._cells(stop)
                self._drawn[stop.index] = self._key(stop)
                self.add_row(*row, key=str(stop.index))
        for stop in stepper.stops:
            key = self._key(stop)
            if self._drawn.get(stop.index) != key:
                self._drawn[stop.index] = key
                for column, cell in zip(_COLUMNS, self._cells(stop), strict=True):
                    self.update_cell(str(stop.index), column, cell)
        self.move_cursor(row=stepper.position, scroll=True)

    def on_resize(self) -> None:
        """Has the line where one stands on the screen, whatever size that has now."""
        self.call_after_refresh(lambda: self.move_cursor(row=self.stepper.position, scroll=True))

    def _key(self, stop: Stop) -> tuple[Any, ...]:
        state = self.stepper.state(stop.index)
        return stop.index == self.stepper.position, self._broken(stop), state.status if state else ""

    def _broken(self, stop: Stop) -> bool:
        return any(
            getattr(item, "layer", "") in (stop.layer, stop.keras_layer)
            and getattr(item, "phase", "") in ("", stop.phase)
            for item in self.stepper.breakpoints
            if getattr(item, "layer", "")
        )

    def _cells(self, stop: Stop) -> list[Text]:
        state = self.stepper.state(stop.index)
        here = stop.index == self.stepper.position
        mark = ("▶" if here else " ") + ("●" if self._broken(stop) else " ")
        name = (stop.layer or stop.keras_layer or "start").removeprefix("/".join((*stop.group, "")))
        step = f"{stop.step}" if stop.step > 1 or stop.phase == "update" else ""
        indent = " " * min(len(stop.group), _DEEPEST)
        room = self._widths[2] - 1 - len(indent)
        return [
            Text(mark, "bold"),
            Text(_SHORT.get(stop.phase, stop.phase) + step, "dim"),
            Text(indent + ended(clean(name), room), "bold" if here else "", no_wrap=True),
            _verdict(state),
        ]

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Stands at the stop that was chosen."""
        jump: Any = getattr(self.app, "jump", None)
        if jump is not None and event.row_key.value is not None:
            jump(int(event.row_key.value))


def _verdict(state: State | None) -> Text:
    if state is None:
        return Text("·", "dim")
    floors = [p.isolated_x_floor for p in state.probes if p.isolated_x_floor is not None]
    text = Text(state.status, verdict_style(state.status))
    if floors and state.status == "born":
        text.append("  " + times_floor(max(floors)), "dim")
    return text


class Log(RichLog):
    """What the commands showed; it is wrapped anew where the screen gets another width."""

    def __init__(self, **options: Any) -> None:
        super().__init__(wrap=True, markup=False, highlight=False, max_lines=2000, **options)
        self._shown: deque[Any] = deque(maxlen=500)
        self._room = 0

    def add(self, part: Any) -> None:
        """Shows something that rich can draw, beneath all before it."""
        self._shown.append(part)
        if self._room:
            self.write(part, width=self._room)

    def on_resize(self, event: events.Resize) -> None:
        """All of it in the width that there is now."""
        room = self.scrollable_content_region.width
        if room and room != self._room:
            self._room = room
            self.clear()
            for part in self._shown:
                self.write(part, width=room)


class Panel(VerticalScroll, can_focus=True):
    """One view of the present stop.

    Attributes:
        VIEWS: name → label, in order.
    """

    VIEWS: ClassVar[dict[str, str]] = {
        "heatmap": "Heatmap",
        "slice": "Slice",
        "histogram": "Histogram",
        "worst": "Worst",
        "profile": "Profiles",
        "terms": "Terms",
        "params": "Parameters",
        "recipe": "Recipe",
        "experiments": "Experiments",
    }

    def __init__(self, view: str, **options: Any) -> None:
        super().__init__(**options)
        self.view = view
        self._content = Static(markup=False)

    def compose(self) -> Any:
        """What is drawn."""
        yield self._content

    def on_resize(self) -> None:
        """What is drawn is drawn for a size, which a view has from the moment on at which it is first seen."""
        redraw: Any = getattr(self.app, "draw_view", None)
        if redraw is not None and self.is_on_screen:
            redraw()

    def update(self, content: Any) -> None:
        """Shows a drawn view."""
        self._content.update(content)

    def made_of(self, stepper: Stepper, name: str, width: int, height: int, turn: AbstractContextManager[Any]) -> Any:
        """What the view shows of a tensor at the present stop; runs in a thread and draws nothing.

        Args:
            stepper: the run.
            name: of the tensor.
            width: of the panel, in cells.
            height: likewise.
            turn: held while something of the run is computed, and not while a tensor is only looked through, however
                large it is.
        """
        try:
            with turn:
                look = stepper.look()
                if self.view in _RUNNING:
                    return _VIEWS[self.view](stepper, look, name, width, height)
                for each in look.names if self.view == "params" else (name,) if name else ():
                    look.hold(each)
            return _VIEWS[self.view](stepper, look, name, width, height)
        except ParityError as problem:
            return Text(clean(str(problem)), "italic")


def _heatmap(stepper: Stepper, look: Look, name: str, width: int, height: int) -> Any:
    """The difference through the worst element, with both sides' values beneath or beside it."""
    if not name:
        return _nothing(look)
    cut = look.cut(name)
    at = ", ".join("*" if i is None else str(i) for i in cut)
    expected, actual = (look.slice(name, side, cut) for side in ("ref", "keras"))
    limit = pictures.strongest(expected, actual)
    rest = max(2, (height - _FRAME) // 2)
    tall = max(2, height - _FRAME - rest)
    gap = pictures.heatmap(look.slice(name, "difference", cut), width, tall, f"{name}[{at}]: Keras − reference")
    half = max(8, (width - 2) // 2)
    both = Table.grid(padding=(0, 2))
    both.add_row(
        pictures.heatmap(expected, half, rest, "reference", limit), pictures.heatmap(actual, half, rest, "Keras", limit)
    )
    return Group(gap, Text(), both)


def _slice(stepper: Stepper, look: Look, name: str, width: int, height: int) -> Any:
    """The numbers around the worst element, of both sides."""
    if not name:
        return _nothing(look)
    cut, worst = look.cut(name), look.worst(name, 1)
    expected, actual = (look.slice(name, side, cut) for side in ("ref", "keras"))
    at = [i for i, free in zip(worst[0].index, cut, strict=True) if free is None] if worst else []
    row, column = at if len(at) == 2 else (0, at[0] if at else 0)
    across, down = max(1, (width - 6) // (_DIGITS + 1)), max(1, (height - 5) // 2)
    top = max(0, min(row - down // 2, expected.shape[0] - down))
    left = max(0, min(column - across // 2, expected.shape[1] - across))
    parts: list[Any] = []
    for title, values in (("reference", expected), ("Keras", actual)):
        table = Table(
            box=None, padding=(0, 1, 0, 0), header_style="dim", title=title, title_justify="left", pad_edge=False
        )
        table.add_column("", style="dim", justify="right")
        columns = range(left, min(left + across, values.shape[1]))
        for j in columns:
            table.add_column(str(j), justify="right", no_wrap=True, min_width=_DIGITS)
        for i in range(top, min(top + down, values.shape[0])):
            cells = [
                Text(pictures.number(float(values[i, j])), "bold reverse" if (i, j) == (row, column) else "")
                for j in columns
            ]
            table.add_row(str(i), *cells)
        parts.append(table)
    where = ", ".join("*" if i is None else str(i) for i in cut)
    title = Text(f"{name}[{where}], around the element that differs most", "dim", no_wrap=True, overflow="ellipsis")
    return Group(title, *parts)


def _histogram(stepper: Stepper, look: Look, name: str, width: int, height: int) -> Any:
    return pictures.histogram(look.histogram(name), width, height - 1) if name else _nothing(look)


def _worst(stepper: Stepper, look: Look, name: str, width: int, height: int) -> Any:
    return pictures.worst(look.worst(name, max(5, height - 2)), width) if name else _nothing(look)


def _profile(stepper: Stepper, look: Look, name: str, width: int, height: int) -> Any:
    return pictures.profiles(look.channels(name), look.spatial(name), width, height) if name else _nothing(look)


def _terms(stepper: Stepper, look: Look, name: str, width: int, height: int) -> Any:
    if look.stop.pair is None:
        return _nothing(look)
    index = look.worst("output", 1)[0].index if "output" in look.names else ()
    return pictures.terms(look.terms(index, max(4, height - 6)), width)


def _params(stepper: Stepper, look: Look, name: str, width: int, height: int) -> Any:
    """The parameters of the layer, and in an update what the optimizers hold: sizes and distances."""
    pair = look.stop.pair
    if pair is None:
        return _nothing(look)
    kinds = Text.assemble(
        ("reference  ", "dim"), kind_words(pair.ref.kind), ("\nKeras      ", "dim"), kind_words(pair.keras.kind)
    )
    return Group(kinds, Text(), pictures.parameters(look.parameters(), width))


def _recipe(stepper: Stepper, look: Look, name: str, width: int, height: int) -> Any:
    return pictures.recipe(look.recipe())


def _experiments(stepper: Stepper, look: Look, name: str, width: int, height: int) -> Any:
    made = [Text(f"{i}. {clean(item.words)}") for i, item in enumerate(stepper.experiments, start=1)]
    points = [Text(f"breakpoint {b.number}: {b.words} ({b.hits} hits)", "dim") for b in stepper.breakpoints]
    empty = "no experiments: x puts the reference's tensor in, :set epsilon=1e-3 edits the reference, f applies a fix"
    return Group(*(made or [Text(empty, "italic")]), Text(), *points)


def _nothing(look: Look) -> Text:
    return Text(f"nothing is computed at {clean(look.stop.words)}; n goes on", "italic")


_FRAME = 5
"""Lines of the heatmap's view that are titles, scales and a gap."""

_DIGITS = 10
"""Cells of a number in the slice's view: `pictures.number` makes no longer one."""

_RUNNING = ("terms", "recipe", "experiments")
"""Views that run layers, or look at the run itself."""

_VIEWS: dict[str, Callable[[Stepper, Look, str, int, int], Any]] = {
    "heatmap": _heatmap,
    "slice": _slice,
    "histogram": _histogram,
    "worst": _worst,
    "profile": _profile,
    "terms": _terms,
    "params": _params,
    "recipe": _recipe,
    "experiments": _experiments,
}
