"""The debugger's command words: one table for scripts, for the application's command line, and for its help."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TextIO

from rich.text import Text

from parity.debugger import pictures, shown
from parity.debugger.breakpoints import parse_break
from parity.debugger.looking import SIDES
from parity.debugger.session import restore, save, script
from parity.debugger.stepper import Arrival, Stepper
from parity.debugger.stops import Stop
from parity.debugger.written import field_names
from parity.errors import BadUsage, ParityError
from parity.interrupts import heeded
from parity.reports.output import check_target, show, write

__all__ = ["COMMANDS", "Command", "Commands", "run_script"]

_VIEWS = ("worst", "heatmap", "histogram", "channels", "terms", "layers", "parameters", "slots", "recipe", "names")


@dataclass(frozen=True)
class Command:
    """One command word.

    Attributes:
        word: as it is entered; any beginning of it that no other word has does as well.
        takes: its arguments, for the help.
        help: what it does.
    """

    word: str
    takes: str
    help: str


COMMANDS = (
    Command("next", "", "one stop on; a submodel that one is not inside counts as one"),
    Command("previous", "", "one stop back, which costs nothing"),
    Command("into", "", "into the submodel that comes next"),
    Command("out", "", "to the end of the submodel, and out of it"),
    Command("continue", "", "on to the next breakpoint, divergence, or the end"),
    Command("run", "LAYER|PHASE", "on to a layer, a phase, or both: run conv1, run backward, run conv1 backward"),
    Command("goto", "N", "stand at the stop of this number"),
    Command("restart", "", "back to the start; what was seen stays known"),
    Command("break", "[LAYER] [PHASE] [STATUS] [after=N] [if CONDITION]",
            "stop there: break conv*, break born, break backward if x_floor > 50, break if nan; alone: here; "
            "break delete N, break off N, break on N, break list"),
    Command("status", "", "where one stands, the verdict so far, breakpoints and experiments"),
    Command("show", "[TENSOR] [VIEW] [ref|keras|difference] [INDEX]",
            "this stop; or of a tensor worst, heatmap, histogram, channels, or terms INDEX; or layers, parameters, "
            "slots (what the optimizers hold), recipe, names"),
    Command("put", "ref|keras", "put one side's tensor of this stop in the other side's run"),
    Command("set", "NAME=VALUE", "edit a field of the reference (epsilon=1e-3) or replace a parameter "
            "(kernel=FILE.npy, keras.bias=0, kernel=keras)"),
    Command("rule", "", "what the rules say of this stop"),
    Command("fix", "[N|CAUSE]", "carry out a fix on a copy of the Keras model and run it to here"),
    Command("undo", "", "take the last experiment back"),
    Command("experiments", "[FILE.py]", "list the experiments, or save them as a script"),
    Command("export", "FILE.npy|FILE.mat [TENSOR] [ref|keras|difference]", "write a tensor to a file"),
    Command("repro", "DIR", "write a script that shows this layer's divergence without parity"),
    Command("save", "[FILE.json]", "save the session"),
    Command("help", "[COMMAND]", "the commands"),
    Command("quit", "", "end; a session that has a file is saved"),
)  # fmt: skip


class Commands:
    """Carries out command lines on a stepper.

    Args:
        stepper: the run.
        session: the file that the session is kept in, or None.

    Attributes:
        finished: whether `quit` was given.
        passed: told of every stop that a long command passes.
        remarks: what is not as it was when the session was saved.

    Raises:
        BadFile: the session's file exists and is none, or one of other files.
    """

    def __init__(self, stepper: Stepper, session: Path | None = None) -> None:
        self.stepper, self.session = stepper, session
        self.finished = False
        self.passed: Callable[[Stop], None] | None = None
        self.remarks: list[str] = []
        if session is not None:
            check_target(session, "--session")
            self.remarks = restore(stepper, session)

    # ---- lines

    def run(self, line: str) -> Any:
        """Carry out one line and give what it shows: something that rich can draw, or None.

        Raises:
            BadUsage: the line is no command, or it cannot be carried out here.
            ParityError: something it needs cannot be run.
        """
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#"):
            return None
        command = self.named(word)
        if rest.strip() and not command.takes:
            raise BadUsage(f"{command.word} takes nothing behind it, not {rest.strip()!r}")
        made = getattr(self, f"_{command.word}")(rest.strip())
        if self.session is not None:
            save(self.stepper, self.session)
        return shown.arrival(made) if isinstance(made, Arrival) else made

    @staticmethod
    def named(word: str) -> Command:
        """The command of a word or of its beginning; raises BadUsage where there is none, or more than one."""
        found = [c for c in COMMANDS if c.word == word] or [c for c in COMMANDS if c.word.startswith(word)]
        if len(found) != 1:
            words = ", ".join(c.word for c in found or COMMANDS)
            near = get_close_matches(word, [c.word for c in COMMANDS], 1)
            meant = f" (perhaps {near[0]})" if near else ""
            raise BadUsage(f"{word!r} {'may be' if found else f'is no command{meant}; there are'} {words}")
        return found[0]

    def completions(self) -> list[str]:
        """Whole lines that can be entered, for a command line that completes."""
        stepper = self.stepper
        names = dict.fromkeys(n for stop in stepper.stops for n in (stop.layer, stop.keras_layer) if n)
        phases = dict.fromkeys(stop.phase for stop in stepper.stops)
        lines = [command.word for command in COMMANDS]
        lines += [f"{word} {name}" for word in ("run", "break") for name in (*phases, *names)]
        lines += [f"show {view}" for view in _VIEWS]
        lines += [f"show {name} {view}" for name in stepper.look().names for view in _VIEWS[:4]]
        pair = stepper.stop.pair
        if pair is not None:
            lines += [f"set {name}=" for name in (*field_names(pair.ref.kind), *pair.ref.params)]
            lines += [f"set keras.{role}=" for role in pair.keras.params]
        return [*lines, "put ref", "put keras", "break born", "break if nan", "break if x_floor > ", "break list"]

    def help_rows(self) -> list[tuple[str, str]]:
        """Each command with its arguments, and what it does."""
        return [(f"{c.word} {c.takes}".strip(), c.help) for c in COMMANDS]

    def save(self) -> None:
        """Save the session, if it has a file."""
        if self.session is not None:
            save(self.stepper, self.session)

    # ---- going

    def _next(self, rest: str) -> Arrival:
        return self.stepper.next()

    def _previous(self, rest: str) -> Arrival:
        return self.stepper.previous()

    def _into(self, rest: str) -> Arrival:
        return self.stepper.into()

    def _out(self, rest: str) -> Arrival:
        return self.stepper.out()

    def _continue(self, rest: str) -> Arrival:
        return self.stepper.resume(self.passed)

    def _run(self, rest: str) -> Arrival:
        if not rest:
            raise BadUsage("run: to which layer or phase? e.g. run conv1, run backward")
        return self.stepper.run_to(rest, self.passed)

    def _goto(self, rest: str) -> Arrival:
        if not rest.isdigit() or not 1 <= int(rest) <= len(self.stepper.stops):
            raise BadUsage(f"goto: the stops are 1 to {len(self.stepper.stops)}")
        return self.stepper.goto(int(rest) - 1)

    def _restart(self, rest: str) -> Arrival:
        return self.stepper.restart()

    def _break(self, rest: str) -> Any:
        stepper, words = self.stepper, rest.split()
        if words[:1] == ["list"]:
            return shown.breakpoints(stepper)
        if words[:1] in (["delete"], ["off"], ["on"]):
            numbers = [int(word) for word in words[1:] if word.isdigit()]
            if len(numbers) != len(words) - 1 or not numbers:
                raise BadUsage(f"break {words[0]}: which? give its number")
            for number in numbers:
                if words[0] == "delete":
                    stepper.remove_breakpoint(number)
                    continue
                item = next((b for b in stepper.breakpoints if b.number == number), None)
                if item is None:
                    raise BadUsage(f"there is no breakpoint {number}")
                item.enabled = words[0] == "on"
            return shown.breakpoints(stepper)
        here = f"{stepper.stop.layer or stepper.stop.keras_layer} {stepper.stop.phase}"
        item = parse_break(rest or here)
        if item.layer:
            stepper.find(item.layer, "break")  # one that could never be met is a mistake in writing
        stepper.add_breakpoint(item)
        return Text(f"breakpoint {item.number}: {item.words}")

    # ---- looking

    def _status(self, rest: str) -> Any:
        return shown.status(self.stepper)

    def _show(self, rest: str) -> Any:
        look = self.stepper.look()
        words = _words(rest)
        view = next((word for word in words if word in _VIEWS), "")
        side = next((word for word in words if word in SIDES), "")
        left = [word for word in words if word not in (view, side)]
        index = next((word for word in left if set(word) <= set("0123456789,*-")), "")
        view = view or ("heatmap" if side or index else "")  # the worst elements are of no side alone, nor of a cut
        names = [word for word in left if word != index]
        name = names[0] if names else ""
        if not words:
            return shown.arrival(self.stepper.here)
        if len(names) > 1:
            raise BadUsage(f"show: what is {names[1]!r}? the views are {', '.join(_VIEWS)}")
        match view:
            case "layers":
                return shown.layers(look, self.stepper.stop.layer)
            case "parameters" | "slots":
                return shown.parameters(look, slots=view == "slots")
            case "recipe":
                return pictures.recipe(look.recipe())
            case "names":
                return Text(", ".join(look.names) or "nothing is computed here")
            case "histogram":
                return shown.histogram(look, name)
            case "channels":
                return shown.channels(look, name)
            case "terms":
                self.stepper.training.refuse("show terms")
                at = _index(index) if index else look.worst("output", 1)[0].index
                if any(i is None for i in at):
                    raise BadUsage("show terms: give one element, e.g. show terms 0,3,3,7")
                return pictures.terms(look.terms([i for i in at if i is not None]))
            case "heatmap":
                return shown.heatmap(look, name, side or "difference", _index(index) if index else None)
            case _:
                return shown.worst(look, name)

    def _export(self, rest: str) -> Any:
        words = _words(rest)
        if not words:
            raise BadUsage("export: to which file? e.g. export conv1.npy output keras")
        side = next((word for word in words[1:] if word in SIDES), "ref")
        names = [word for word in words[1:] if word != side]
        if len(names) > 1:
            raise BadUsage(f"export: what is {names[1]!r}? it takes a file, a tensor, and {', '.join(SIDES)}")
        path = self.stepper.look().export(Path(words[0]), names[0] if names else "", side)
        return Text(f"wrote {path}")

    # ---- experiments

    def _put(self, rest: str) -> Any:
        return Text(self.stepper.experiments.put(rest or "ref").words)

    def _set(self, rest: str) -> Any:
        return Text(self.stepper.experiments.set(rest).words)

    def _rule(self, rest: str) -> Any:
        return shown.findings(self.stepper.experiments.rules())

    def _fix(self, rest: str) -> Any:
        return Text(self.stepper.experiments.fix(rest).words)

    def _undo(self, rest: str) -> Any:
        return Text(f"undone: {self.stepper.experiments.undo().words}")

    def _experiments(self, rest: str) -> Any:
        if rest:
            path = Path(rest)
            write(path, script(self.stepper), "experiments")
            return Text(f"wrote {path}")
        made = list(self.stepper.experiments)
        return Text("\n".join(f"{i}. {item.words}" for i, item in enumerate(made, start=1)) or "no experiments")

    def _repro(self, rest: str) -> Any:
        from parity.debugger.repro import write_repro

        if not rest:
            raise BadUsage("repro: to which folder?")
        return Text(write_repro(self.stepper, Path(rest)))

    # ---- the session

    def _save(self, rest: str) -> Any:
        path = Path(rest) if rest else self.session
        if path is None:
            raise BadUsage("save: to which file? e.g. save session.json")
        save(self.stepper, path)
        self.session = path  # from now on, since it can be written
        return Text(f"saved {path}")

    def _help(self, rest: str) -> Any:
        rows = self.help_rows()
        if rest:
            command = self.named(rest.split()[0])
            rows = [(f"{command.word} {command.takes}".strip(), command.help)]
        return Text("\n".join(f"{takes}\n    {words}" for takes, words in rows))

    def _quit(self, rest: str) -> None:
        self.finished = True


def run_script(
    commands: Commands, lines: Iterable[str], source: str, stream: TextIO | None = None, *, typed: bool = False
) -> int:
    """Carry out command lines until one says `quit` or there are no more; what each shows is printed.

    Args:
        commands: what carries them out.
        lines: one command each; what is empty or begins with # is passed over.
        source: where they come from, for messages.
        stream: where to print; standard output by default.
        typed: somebody types them: a mistake is told, and does not end it.

    Returns:
        0, 1 or 2: the verdict on what was compared so far.

    Raises:
        BadUsage: a line that cannot be carried out, named by file and number.
    """
    for remark in commands.remarks:
        show(Text(remark), stream)
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        show(Text(f"> {text}", "bold"), stream)
        try:
            with heeded():
                made = commands.run(text)
        except ParityError as problem:
            if not typed:
                raise BadUsage(f"{source}, line {number}: {problem}") from None
            made = Text(str(problem), style="bold red")
        except KeyboardInterrupt:  # where it came to is no less worth than where a line ends
            commands.save()
            raise
        if made is not None:
            show(made, stream)
        if commands.finished:
            break
    commands.save()
    return {"match": 0, "diverged": 1}.get(commands.stepper.verdict, 2)


def _words(rest: str) -> list[str]:
    """What follows a command, word by word; quotation marks hold a name with spaces together."""
    try:
        return shlex.split(rest)
    except ValueError:
        raise BadUsage(f"a quotation mark is left open in {rest}") from None


def _index(text: str) -> tuple[int | None, ...]:
    """`0,*,*,7` as an index; * is a free axis."""
    try:
        return tuple(None if part == "*" else int(part) for part in text.split(","))
    except ValueError:
        raise BadUsage(f"{text!r} is no index; write one as 0,3,3,7, or 0,*,*,7 for a cut") from None
