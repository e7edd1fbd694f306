"""The debugger's application: every key, every view, small screens and large, through Textual's pilot."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import html
import io
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from parity.debugger import panels, pictures
from parity.debugger.app import DebuggerApp, fitting
from parity.debugger.commands import Commands
from parity.debugger.looking import ParameterLine
from parity.debugger.panels import Panel, StopTable, ended
from parity.debugger.stepper import Stepper
from parity.reports.output import show

SEED = Path(__file__).parents[2] / "traces" / "seed"
SCREENS = Path(__file__).parent / "screens"


@pytest.fixture(scope="module")
def stepper():
    return Stepper.open(str(SEED / "net.mat"), str(SEED / "model.h5"), str(SEED / "batch.npz"))


@pytest.fixture(autouse=True)
def anew(stepper):
    """At the start, without breakpoints or experiments."""
    while len(stepper.experiments):
        stepper.experiments.undo()
    stepper.breakpoints.clear()
    stepper.restart()


async def settled(app, pilot):
    """Waits until no command and no drawing is under way, and the footer is there."""
    quiet = 0
    for _ in range(2000):
        await pilot.pause(0.02)
        done = not app.busy and all(worker.is_finished for worker in app.workers)
        quiet = quiet + 1 if done and app.screen_stack[0].query("FooterKey") else 0
        if quiet == 3:
            break


def play(stepper, keys, size=(120, 36), session=None, check=lambda app: None, screens=None):
    """Opens the application, presses keys, and gives (the screen's lines, the application).

    `check` is called at the end; `screens` takes the page after each key, beginning with the first one.
    """
    found: list[str] = []

    def keep(app):
        if screens is not None:
            screens.append("\n".join(lines_of(app.export_screenshot())))

    async def scene():
        app = DebuggerApp(stepper, Commands(stepper, session), "net.mat ↔ model.h5")
        async with app.run_test(size=size) as pilot:
            await settled(app, pilot)
            keep(app)
            for key in keys:
                await pilot.press(*(key if isinstance(key, tuple) else (key,)))
                await settled(app, pilot)
                keep(app)
            check(app)
            if app.is_running and app.return_code is None:
                found.extend(lines_of(app.export_screenshot()))
        return app

    app = asyncio.run(scene())
    return found, app


def lines_of(svg):
    """The text of a screenshot, line by line."""
    rows: dict[float, list[tuple[float, str]]] = {}
    pattern = r'<text[^>]*? x="([\d.]+)" y="([\d.]+)"[^>]*?>(.*?)</text>'
    for x, y, text in re.findall(pattern, svg):
        plain = html.unescape(re.sub(r"<[^>]+>", "", text)).replace("\xa0", " ")
        rows.setdefault(float(y), []).append((float(x), plain))
    lines = []
    for y in sorted(rows):
        line = ""
        for x, text in sorted(rows[y]):
            line = line.ljust(round(x / 12.2)) + text
        lines.append(line.rstrip())
    return lines


def typed(text):
    """Keys that enter a text in the command line."""
    names = {" ": "space", "=": "equals_sign", "-": "minus", ".": "full_stop", ",": "comma", "_": "underscore"}
    names |= {"/": "slash", ">": "greater_than_sign", "*": "asterisk"}
    return tuple(names.get(c, c) for c in text)


def command(text):
    return [("colon",), typed(text), ("enter",)]


def test_the_first_screen(stepper):
    lines, _ = play(stepper, [])
    page = "\n".join(lines)
    assert "parity debug  net.mat ↔ model.h5" in page
    for words in ("the start: what both sides are fed", "struct ip1", "fwd    conv1", "bwd    loss", "▶"):
        assert words in page
    for label in list(Panel.VIEWS.values())[:6]:
        assert label in page
    for words in ("n next", "p back", "c continue", "x put", "f fix", ": line", "? help", "q quit", "u undo"):
        assert words in page.replace("  ", " ")


def test_stepping_forth_and_back(stepper):
    screens = []
    play(stepper, ["n", "n", "n", "p", "R"], screens=screens)
    assert "forward of pool1 (Keras max_pooling2d_1)" in screens[3]
    assert "forward of conv1" in screens[4]
    assert stepper.position == 0


def test_continue_finds_the_groups_and_shows_where_they_are(stepper):
    page = "\n".join(play(stepper, ["c"])[0])
    assert stepper.stop.words == "structure of ip1 (Keras conv2d_5)"
    page = "\n".join(play(stepper, ["c"])[0])
    assert "diverges at backward of ip1 (Keras conv2d_5)" in page
    assert "dkernel" in page
    assert "Keras − reference" in page
    assert "diverged so far" in page


def test_the_rules_name_the_cause_and_the_fix_makes_it_vanish(stepper):
    screens, statuses = [], []
    play(stepper, ["c", "c", "w", "f"], screens=screens, check=lambda app: statuses.append(stepper.state().status))
    assert "conv-groups at ip1" in screens[3]
    assert "ip1 backward was born, and is match now" in screens[4]
    assert statuses == ["match"]
    play(stepper, ["u"])
    assert stepper.state().status == "born"


def test_putting_a_tensor_in_and_taking_it_out(stepper):
    screens = []
    play(stepper, ["c", "c", "x", "u", "X"], screens=screens)
    assert "the reference's gradients of ip1 put in the Keras run" in screens[3]
    assert "undone" in screens[4]
    assert "Keras's gradients of ip1 put in the reference's run" in screens[5]
    assert len(stepper.experiments) == 1


def test_every_view_draws(stepper):
    stepper.run_to("conv2")
    screens, opened = [], []
    play(stepper, ["t"] * (len(Panel.VIEWS) - 1), screens=screens, check=lambda app: opened.append(app.view))
    assert opened == list(Panel.VIEWS)[-1:]
    seen = dict(zip(Panel.VIEWS, screens, strict=True))
    wanted = {
        "heatmap": "Keras − reference",
        "slice": "around the element that differs most",
        "histogram": "reference",
        "worst": "relative",
        "profile": "by channel",
        "terms": "receptive field",
        "params": "rms Keras",
        "recipe": "learning rate",
        "experiments": "no experiments",
    }
    for name, words in wanted.items():
        assert words in seen[name], (name, seen[name])
    lines, _ = play(stepper, ["T"])  # the one before the first is the last
    assert "no experiments" in "\n".join(lines)


def test_other_tensors(stepper):
    stepper.run_to("backward")
    stepper.run_to("conv4 backward")
    screens = []
    play(stepper, ["right_square_bracket", "left_square_bracket"], screens=screens)
    first, other, again = (re.search(r"tensor (\w+)", page).group(1) for page in screens)
    assert first != other
    assert first == again


def test_the_command_line(stepper):
    screens, focused = [], []
    keys = [*command("run conv3"), *command("nonsense"), ("colon",), typed("run p"), "escape"]
    keys += [*command("status"), ("colon",), "up", "escape", ("g",), typed("pool4"), ("enter",)]
    play(stepper, keys, screens=screens, check=lambda app: focused.append(app.focused.id))
    assert "> run conv3" in screens[3]
    assert "is no command" in screens[6]
    assert screens[keys.index("up") + 1].splitlines()[-2].strip() == "status"
    assert focused == ["stops"]
    assert stepper.stop.layer == "pool4"


def test_the_command_line_completes(stepper):
    held = []
    keys = [("colon",), typed("run conv1"), "backspace", "tab"]
    play(stepper, keys, check=lambda app: held.extend([app.query_one("#prompt").value, app.focused.id]))
    assert held == [next(line for line in Commands(stepper).completions() if line.startswith("run conv")), "prompt"]
    stepper.run_to("conv1")
    page = "\n".join(play(stepper, [("colon",), typed("set st"), "tab"], size=(80, 24))[0])
    assert "set stride=" in page
    assert "tab complete" in page


def test_the_footer_of_a_small_screen_holds_every_key(stepper):
    assert play(stepper, [], size=(80, 24))[0][-1].split()[-4:] == ["q", "quit", "u", "undo"]


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("conv1", 5, "conv1"),
        ("stage/conv_12", 7, "…onv_12"),
        ("", 3, ""),
        ("名名名名", 5, "…名名"),
        ("名名名名", 4, "…名"),
    ],
)
def test_of_a_long_name_the_end_is_shown(text, room, shown):
    assert ended(text, room) == shown


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (80, "forward of stage2_block_12_convolution (Keras front/stage2_block_12_convolution)"),
        (60, "forward of stage2_block_12_convolution (Keras …_convolution)"),
        (44, "forward of …convolution (Keras …convolution)"),
        (42, "forward of stage2_block_12_convolution"),
        (30, "forward of …ock_12_convolution"),
    ],
)
def test_where_one_stands_is_said_in_the_room_that_there_is(room, shown):
    layer = "stage2_block_12_convolution"
    assert fitting(f"forward of {layer} (Keras front/{layer})", (layer, f"front/{layer}"), room) == shown


def test_numbers_are_whole_where_a_tensor_has_a_long_name():
    rows = [ParameterLine("kernel.momentum", (8, 8, 4, 4), 0.2331999, 0.2331, 6.1711e-10)]
    out = io.StringIO()
    show(pictures.parameters(rows, 43), out, 43)
    assert [line.split() for line in out.getvalue().splitlines()[1:]] == [
        ["kernel.mom…", "0.2332", "0.2331", "6.171e-10"]
    ]


def test_a_view_is_drawn_for_its_panel_when_it_is_first_opened(stepper):
    stepper.run_to("conv2")
    lines, _ = play(stepper, ["t"], size=(120, 36))
    columns = next(lines[i + 1] for i, line in enumerate(lines) if line.endswith("┃ reference"))
    assert len(columns.partition("┃")[2].split()) >= 5


def test_the_log_is_wrapped_anew_for_another_width(stepper):
    found = {}

    async def scene():
        app = DebuggerApp(stepper, Commands(stepper), "")
        async with app.run_test(size=(140, 40)) as pilot:
            for line in ("continue", "rule"):
                app.give(line)
                await settled(app, pilot)
            for width in (140, 80, 200):
                await pilot.resize_terminal(width, 40)
                await settled(app, pilot)
                found[width] = [line.text.rstrip() for line in app.query_one("#log").lines]

    asyncio.run(scene())
    words = " ".join(found[140][-4:]).split()
    assert max(len(line) for line in found[80]) <= 77
    assert 100 < max(len(line) for line in found[140]) < max(len(line) for line in found[200])
    assert all(" ".join(lines).split()[-len(words) :] == words for lines in found.values())


def test_breakpoints(stepper):
    page = "\n".join(play(stepper, ["n", "n", "b"])[0])
    assert "breakpoint 1" in page
    assert "●" in page
    play(stepper, ["R", "c"])
    assert stepper.stop.layer in ("conv1", "ip1")
    assert [b.number for b in stepper.breakpoints] == [1]


def test_the_list_of_stops_goes_where_one_points(stepper):
    play(stepper, ["down", "down", "down", "enter"])
    assert stepper.position == 3


def test_export(stepper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stepper.run_to("conv1")
    play(stepper, [("e",), typed("a.npy output keras"), ("enter",)])
    assert (tmp_path / "a.npy").exists()


def test_help_lists_every_key_and_command(stepper):
    screens = []
    play(stepper, ["question_mark", "escape", "n"], size=(110, 80), screens=screens)
    for words in ("put ref's tensor", "another view", "quit", "experiments", "repro DIR", "the command line"):
        assert words in screens[1]
    assert stepper.position == 1
    assert "Commands" not in screens[-1]


def test_dark_and_light(stepper):
    themes = []
    for keys in ([], ["d"]):
        play(stepper, keys, check=lambda app: themes.append(app.theme))
    assert len(set(themes)) == 2


@pytest.mark.parametrize("size", [(80, 24), (60, 18), (200, 60)])
def test_screens_of_every_size(stepper, size):
    lines, _ = play(stepper, ["c", "c"], size=size)
    page = "\n".join(lines)
    assert all(len(line) <= size[0] + 1 for line in lines)
    assert "ip1" in page
    assert "born" in page
    assert "dkernel" in page


def test_half_of_a_tiny_screen_is_left_to_the_views(stepper):
    page = "\n".join(play(stepper, ["c"], size=(40, 10))[0])
    assert "structure" in page
    assert "Heatmap" in page
    assert re.search(r"struct *ip1 +born", page)
    assert "nothing is" in page


def test_resizing(stepper):
    async def scene():
        app = DebuggerApp(stepper, Commands(stepper), "")
        async with app.run_test(size=(140, 40)) as pilot:
            await settled(app, pilot)
            await pilot.resize_terminal(80, 24)
            await settled(app, pilot)
            assert app.screen.has_class("narrow")
            await pilot.press("n")
            await settled(app, pilot)
            await pilot.resize_terminal(140, 40)
            await settled(app, pilot)
            assert not app.screen.has_class("narrow")
            await pilot.press("c")
            await settled(app, pilot)
            for size in ((200, 60), (40, 10), (140, 40)):
                await pilot.resize_terminal(*size)
                await settled(app, pilot)
                table = app.query_one(StopTable)
                line = stepper.position + table.header_height - table.scroll_offset.y
                assert table.header_height <= line < table.size.height, size

    asyncio.run(scene())
    assert stepper.position > 10


def test_a_key_asks_where_to_write_the_reproducer(stepper, tmp_path):
    from parity.debugger.prompt import Prompt

    stepper.resume()

    async def scene():
        app = DebuggerApp(stepper, Commands(stepper), "")
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.press("r")
            prompt = app.query_one(Prompt)
            assert prompt.display
            assert prompt.value == "repro "
            prompt.value = f"repro {tmp_path / 'shown'}"
            await pilot.press("enter")
            await settled(app, pilot)

    asyncio.run(scene())
    assert (tmp_path / "shown" / "repro.py").exists()


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_quitting_saves_the_session_and_gives_the_verdict(stepper, tmp_path, key):
    session = tmp_path / "session.json"
    _, app = play(stepper, ["c", "c", key], session=session)
    assert app.return_value == 1
    assert "backward" in session.read_text()


def test_a_session_that_cannot_be_saved_is_not_lost_at_the_first_key(stepper, tmp_path):
    """Its folder has gone meanwhile: that is told, and another file can be named; or one quits again."""

    async def scene(keys, *, other):
        folder = tmp_path / "gone"
        folder.mkdir()
        app = DebuggerApp(stepper, Commands(stepper, folder / "s.json"), "")
        async with app.run_test(size=(120, 36)) as pilot:
            await settled(app, pilot)
            folder.rmdir()
            for key in keys:
                await pilot.press(key)
                await settled(app, pilot)
            assert "quit again to lose it" in " ".join(line.text for line in app.query_one("#log").lines)
            assert app.return_code is None
            if other:
                app.give(f"save {tmp_path / 'kept.json'}")
                await settled(app, pilot)
            await pilot.press(keys[-1])
        return app.return_value

    assert asyncio.run(scene(["q"], other=True)) == {"match": 0, "diverged": 1}.get(stepper.verdict, 2)
    assert (tmp_path / "kept.json").exists()
    assert asyncio.run(scene(["question_mark", "ctrl+c"], other=False)) == 2


def test_snapshots(stepper):
    """The screens as they were: without figures, which another machine rounds otherwise."""
    SCREENS.mkdir(exist_ok=True)
    scenes = {"start": [], "groups": ["c", "c"], "help": ["question_mark"]}
    for name, keys in scenes.items():
        stepper.begin(stepper.setup.sides.keras, stepper.setup.sides.data)  # nothing of other tests is known
        lines, _ = play(stepper, keys, size=(100, 30))
        words = (" ".join(re.findall(r"[^\W\d_]{2,}", line)) for line in lines)
        text = "\n".join(line for line in words if line) + "\n"
        path = SCREENS / f"{name}.txt"
        if not path.exists():
            path.write_text(text, encoding="utf-8")
            pytest.fail(f"{path} did not exist and was made: look at it, and run again")
        assert text == path.read_text(encoding="utf-8"), name


def test_where_no_colour_is_asked_for_verdicts_can_be_read_on_dark_and_light(stepper, monkeypatch):
    """As greys, red on a dark ground cannot be told from it."""
    for keys, dark in ([], True), (["d"], False):
        monkeypatch.setenv("NO_COLOR", "1")
        pages = []
        play(stepper, [*keys, "c", "c"], check=lambda app, pages=pages: pages.append(app.export_screenshot()))
        inks = {
            name: int(fill[:2], 16) for name, fill in re.findall(r"\.(terminal-[\w-]+) \{ fill: #(\w{6})", pages[0])
        }
        names = re.findall(r'class="(terminal-[\w-]+)"[^>]*>(?:born|match|diverged)[^<]*<', pages[0])
        assert len(names) > 5
        dull = [inks[name] for name in names if not (inks[name] > 200 if dark else inks[name] < 50)]
        assert len(dull) <= 1, (dark, dull)  # that of the chosen row stands on another ground


def test_an_error_in_a_view_leaves_the_application_there(stepper, monkeypatch):
    def fails(*_):
        raise ValueError("nobody thought of this")

    monkeypatch.setitem(panels._VIEWS, "slice", fails)
    stepper.run_to("conv1")
    screens = []
    play(stepper, ["t", "n"], screens=screens)
    assert "an error inside parity: ValueError: nobody" in screens[1]
    assert stepper.stop.layer == "pool1"


def test_frameworks_are_not_looked_through_for_garbage_while_keys_are_heard(stepper):
    """In somebody else's process too, which has its collector again afterwards."""
    before = gc.get_freeze_count()
    gc.unfreeze()
    found = []

    async def look(pilot):
        await settled(pilot.app, pilot)
        found.append(gc.get_freeze_count())
        pilot.app.exit(0)

    app = DebuggerApp(stepper, Commands(stepper), "")
    asyncio.run(app.run_async(headless=True, size=(80, 24), auto_pilot=look))
    assert found[0] > 10_000
    assert gc.get_freeze_count() == 0
    if before:
        gc.freeze()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("terminal", ["xterm-256color", "vt100"])
def test_a_real_terminal(tmp_path, terminal):
    """Starts in a pseudo-terminal, steps, is resized, and leaves the terminal as it was.

    On one without colours the row and the view that are chosen stand out by reversed letters.
    """
    import pexpect
    import pyte

    session = tmp_path / "session.json"
    arguments = ["-m", "parity", "debug", "--ref", str(SEED / "net.mat"), "--keras", str(SEED / "model.h5")]
    arguments += ["--batch", str(SEED / "batch.npz"), "--session", str(session)]
    child = pexpect.spawn(sys.executable, arguments, dimensions=(30, 100), timeout=120, encoding="utf-8",
                          env={**os.environ, "TERM": terminal, "COLORTERM": ""})  # fmt: skip
    screen = pyte.Screen(100, 30)
    stream = pyte.Stream(screen)

    def until(words, seconds=100):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(pexpect.TIMEOUT):
                stream.feed(child.read_nonblocking(65536, timeout=0.5))
            if words in "\n".join(screen.display):
                return
        raise AssertionError(f"{words!r} is not on the screen:\n" + "\n".join(screen.display))

    until("the start: what both sides are fed")
    child.send("n")
    until("structure of ip1")
    if terminal == "vt100":
        until("born")
        cells = [cell for row in screen.buffer.values() for cell in row.values()]
        assert {(cell.fg, cell.bg) for cell in cells} == {("default", "default")}
        reversed_ = ["".join(row[x].data for x in range(100) if row[x].reverse) for row in screen.buffer.values()]
        assert any("struct ip1" in words for words in reversed_)
        assert any("Heatmap" in words for words in reversed_)
    child.setwinsize(24, 80)
    screen.resize(24, 80)
    child.send("n")
    until("forward of conv1")
    child.send("q")
    child.expect(pexpect.EOF)
    rest = child.before or ""
    child.close()
    assert "\x1b[?1049l" in rest  # back from the alternate screen
    assert "\x1b[?25h" in rest  # and the cursor is there
    assert child.exitstatus == 1
    assert "conv1" in session.read_text()


def test_the_session_of_the_readme(tmp_path):
    """Under 15 commands find the groups, go on with the reference's gradients, and explain the optimizer."""
    import importlib.util

    docs = Path(__file__).parents[2] / "docs"
    lines = [line for line in (docs / "session.txt").read_text(encoding="utf-8").splitlines() if line]
    assert len(lines) < 15
    readme = (docs.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"> {line}" in readme for line in lines if line != "quit")
    spec = importlib.util.spec_from_file_location("debugger_pictures", docs / "debugger.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    groups, update = asyncio.run(module.play(tmp_path))
    page = "\n".join(lines_of(groups.read_text(encoding="utf-8")))
    assert "conv-groups at ip1" in page
    assert "backward of ip1" in page
    page = "\n".join(lines_of(update.read_text(encoding="utf-8")))
    assert "update of conv1" in page
    assert "experiment 1: the reference's gradients of ip1 put in the Keras run" in page
    for name in (groups.name, update.name):
        assert (docs / name).exists()
        assert name in readme


def test_a_tensor_of_a_hundred_million_elements_blocks_no_key(stepper, tmp_path, monkeypatch):
    """While it is looked through, keys are answered at once, and the next layer can be gone to."""
    from parity.debugger.looking import Look

    large = np.memmap(tmp_path / "zeros", np.float32, "w+", shape=(10_000, 10_000))  # a file without blocks
    large[-1, -1] = 1.0
    monkeypatch.setattr(Look, "_value", lambda self, name, side: large)
    stepper.run_to("conv1")
    waits, drawing = {}, []

    async def scene():
        app = DebuggerApp(stepper, Commands(stepper), "")
        async with app.run_test(size=(120, 36)) as pilot:
            await pilot.pause(0.1)
            answers = {
                "t": lambda: app.view == "slice",
                "d": lambda: app.theme == "textual-light",
                "right_square_bracket": lambda: app.tensor_index == 1,
                "T": lambda: app.view == "heatmap",
                "n": lambda: app.busy or stepper.stop.layer == "pool1",
            }
            for key, answered in answers.items():
                drawing.append(any(not worker.is_finished for worker in app.workers))
                begun = time.perf_counter()
                app.simulate_key(key)  # the pilot would wait until the machine idles
                while not answered() and time.perf_counter() - begun < 20:
                    await asyncio.sleep(0.005)
                waits[key] = time.perf_counter() - begun
            while app.busy:
                await asyncio.sleep(0.02)
            app.workers.cancel_all()

    asyncio.run(scene())
    assert all(drawing)
    assert max(waits.values()) < 5, waits  # to look through it takes longer, and other tests run beside
    assert stepper.stop.layer == "pool1"


SLOW = """
import os, time
import keras


def build():
    model = keras.models.load_model("model.keras")
    layer = model.get_layer("relu1")
    quick = type(layer).call

    def call(self, *args, **named):
        if os.path.exists("slow"):
            open("running", "w").close()
            time.sleep(300)
        return quick(self, *args, **named)

    layer.__class__ = type("Slow", (type(layer),), {"call": call})
    return model
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_an_interrupt_does_not_wait_for_a_layer_that_takes_minutes(tmp_path):
    """The session is saved, the terminal as it was, and the process gone."""
    import termios

    import pexpect

    from tests import twins

    layers = twins.plain()
    twins.save(tmp_path / "net.mat", layers)
    twins.twin(layers).save(tmp_path / "model.keras")
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    arguments = ["-m", "parity", "debug", "--ref", "net.mat", "--keras", "slow.py:build", "--session", "session.json"]
    child = pexpect.spawn(sys.executable, arguments, dimensions=(30, 100), timeout=120, encoding="utf-8",
                          cwd=str(tmp_path), env={**os.environ, "TERM": "xterm-256color",
                                                  "PYTHONPATH": str(SEED.parents[1])})  # fmt: skip
    before = termios.tcgetattr(child.child_fd)
    child.expect_exact("the start: what both sides are fed")
    child.send("b")
    child.expect_exact("breakpoint 1")
    (tmp_path / "slow").touch()
    child.send("c")
    for _ in range(600):
        if (tmp_path / "running").exists():
            break
        time.sleep(0.1)
    assert (tmp_path / "running").exists()
    child.send("\x03")
    begun = time.monotonic()
    child.expect(pexpect.EOF)
    assert time.monotonic() - begun < 30
    shown = child.before or ""
    after = termios.tcgetattr(child.child_fd)
    child.close()
    assert (child.signalstatus, child.exitstatus) == (None, 0)
    assert [after[i] for i in (0, 1, 2, 3)] == [before[i] for i in (0, 1, 2, 3)]
    assert "\x1b[?1049l" in shown
    assert "Traceback" not in shown
    assert '"breakpoints": [\n    {' in (tmp_path / "session.json").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("when", ["opening", "running", "asking", "signal"])
def test_an_interrupt_anywhere_leaves_the_terminal_as_it_was(tmp_path, when):
    """Ctrl-C while files are opened, while a layer is run, in the help, and as a signal: the session is kept."""
    import termios

    import pexpect

    session = tmp_path / "session.json"
    arguments = ["-m", "parity", "debug", "--ref", str(SEED / "net.mat"), "--keras", str(SEED / "model.h5")]
    arguments += ["--batch", str(SEED / "batch.npz"), "--session", str(session)]
    child = pexpect.spawn(sys.executable, arguments, dimensions=(30, 100), timeout=120, encoding="utf-8",
                          env={**os.environ, "TERM": "xterm-256color"})  # fmt: skip
    before = termios.tcgetattr(child.child_fd)
    if when == "opening":
        time.sleep(1.5)
    else:
        child.expect_exact("the start: what both sides are fed")
        child.send("b")
        child.expect_exact("breakpoint 1")
        (session.unlink() if when == "signal" else child.send("c" if when == "running" else "?"))
        time.sleep(0.2)
    (child.kill(signal.SIGINT) if when == "signal" else child.send("\x03"))
    child.expect(pexpect.EOF)
    shown = child.before or ""
    after = termios.tcgetattr(child.child_fd)
    child.close()
    assert [after[i] for i in (0, 1, 2, 3)] == [before[i] for i in (0, 1, 2, 3)]
    assert "Traceback" not in shown
    assert child.signalstatus is None
    if when != "opening":
        assert "\x1b[?1049l" in shown
        assert '"breakpoints": [\n    {' in session.read_text()
