"""The stepper without a terminal: it says what `compare` says, stop by stop; and experiments can be made and undone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import parity
from parity.debugger.breakpoints import parse_break
from parity.debugger.commands import Commands, run_script
from parity.debugger.repro import write_repro
from parity.debugger.stepper import Stepper
from parity.errors import BadFile, BadUsage

SEED = Path(__file__).parents[2] / "traces" / "seed"
FILES = (SEED / "net.mat", SEED / "model.h5", SEED / "batch.npz")


@pytest.fixture(scope="module")
def shared() -> Stepper:
    return Stepper.open(*FILES, steps=2)


@pytest.fixture
def stepper(shared):
    while len(shared.experiments):
        shared.experiments.undo()
    shared.breakpoints.clear()
    shared.restart()
    return shared


@pytest.fixture(scope="module")
def report():
    return parity.compare(*FILES, steps=2, verify=False)


def test_every_stop_says_what_compare_says(stepper, report):
    while stepper.resume().reason != "end":
        pass
    key = lambda p: (p.phase, p.layer, p.keras_layer, p.tensor, p.step)  # noqa: E731
    mine = {key(p): p.status for p in stepper.probes}
    assert {key(p): mine[key(p)] for p in report.probes} == {key(p): p.status for p in report.probes}
    assert stepper.verdict == report.verdict
    first, expected = stepper.first_divergence, report.first_divergence
    assert (first.phase, first.layer, first.tensor) == (expected.phase, expected.layer, expected.tensor)


def test_a_script_finds_the_groups_puts_the_tensor_and_goes_on_to_the_optimizer(stepper):
    lines = ["continue", "rule", "continue", "put ref", "status", "continue", "rule", "quit"]
    out = io.StringIO()
    assert run_script(Commands(stepper), lines, "script", out) == 1
    text = out.getvalue()
    assert "diverges at structure of ip1" in text
    assert "conv-groups at ip1" in text
    assert "diverges at backward of ip1" in text
    assert "diverges at update of conv1" in text
    assert "optimizer-kind" in text


def test_what_is_put_in_takes_the_error_away_and_undo_brings_it_back(stepper):
    stepper.run_to("ip1 backward")
    error = {p.tensor: p.max_abs for p in stepper.here.state.probes}
    stepper.experiments.put("ref")
    assert {p.tensor: p.max_abs for p in stepper.here.state.probes}["dkernel"] == 0
    stepper.experiments.undo()
    assert {p.tensor: p.max_abs for p in stepper.here.state.probes} == error


def test_a_fix_makes_the_divergence_vanish(stepper):
    stepper.run_to("ip1 backward")
    assert stepper.here.state.status == "born"
    made = stepper.experiments.fix("conv-groups")
    assert "is match now" in made.words
    assert stepper.here.state.status == "match"
    stepper.experiments.undo()
    assert stepper.here.state.status == "born"


def test_a_field_of_the_reference_that_is_not_the_cause_is_told(stepper):
    stepper.run_to("pool1 forward")
    made = stepper.experiments.set("method=avg")
    assert made.reproduces is False
    stepper.experiments.undo()
    assert stepper.here.state.status == "match"


@pytest.mark.parametrize(
    ("words", "phase", "layer"),
    [("conv3", "forward", "conv3"), ("born", "backward", "ip1"), ("backward if x_floor > 50", "backward", "ip1")],
)
def test_breakpoints_stop_a_run(stepper, words, phase, layer):
    stepper.run_to("forward")
    stepper.add_breakpoint(parse_break(words))
    arrival = stepper.resume()
    assert (arrival.reason, arrival.stop.phase, arrival.stop.layer) == ("breakpoint", phase, layer)


def test_a_breakpoint_counts_its_hits(stepper):
    item = stepper.add_breakpoint(parse_break("conv* phase=forward after=2"))
    assert stepper.run_to("pool4").stop.layer == "conv3"
    assert item.hits == 3


def test_a_breakpoint_that_could_never_be_met_is_refused(stepper):
    commands = Commands(stepper)
    with pytest.raises(BadUsage, match="break: no stop is 'cnov1'"):
        commands.run("break cnov1 if nan")
    assert not stepper.breakpoints
    commands.run("break conv* if max_abs > 1e-9 or nan after=2")
    commands.run("break max_pooling2d_1")  # by its name in Keras
    first = stepper.breakpoints[0]
    assert (first.layer, first.condition, first.after) == ("conv*", "max_abs > 1e-9 or nan", 2)


def test_a_mistake_ends_a_script_and_not_somebody_who_types(stepper):
    lines, out = ["brake conv1", "run conv1", "status"], io.StringIO()
    with pytest.raises(BadUsage, match=r"script, line 1: 'brake' is no command \(perhaps break\)"):
        run_script(Commands(stepper), lines, "script", io.StringIO())
    assert run_script(Commands(stepper), lines, "standard input", out, typed=True) in (0, 1)
    assert "perhaps break" in out.getvalue()
    assert stepper.stop.layer == "conv1"


def test_a_parameter_that_does_not_fit_is_refused_with_what_it_is(stepper):
    commands = Commands(stepper)
    commands.run("run ip1 forward")
    said = "keras gives no value for the kernel of ip1: the reference's kernel is 1×1×32×32, the Keras one 1×1×64×32"
    with pytest.raises(BadUsage, match=said):
        commands.run("set kernel=keras")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('show "output', "a quotation mark is left open"),
        ('export "a.npy', "a quotation mark is left open"),
        ("save /nonexistent/s.json", "cannot be written"),
        ("break conv1 if", "if what"),
        ("break conv1 status=bron", "no status 'bron'; did you mean 'born'"),
        ("break phase=inside", "no phase 'inside'; there are input, structure"),
        ("goto 0", "the stops are 1 to"),
        ("show terms 99,0,0,0", "there is no output"),
        ("put sideways", "whose tensor, ref or keras"),
        ("next 3", "next takes nothing behind it, not '3'"),
        ("quit now", "quit takes nothing behind it"),
        ("export a.npy x sideways", "what is 'sideways'"),
        ("show x heatmap 0,*,*,99", "0,\\*,\\*,99 lies outside of"),
        ("run ip1 backwards", "no stop is 'ip1 backwards'; perhaps backward is meant; the phases are"),
    ],
)
def test_a_mistake_in_writing_is_told_in_a_line_and_changes_nothing(stepper, line, said):
    commands = Commands(stepper)
    with pytest.raises(BadUsage, match=said) as refusal:
        commands.run(line)
    assert "\n" not in str(refusal.value)
    assert commands.session is None
    assert not stepper.breakpoints
    commands.run("next")


@pytest.mark.parametrize(
    "words", ["conv* backward born after=2 if nan or x_floor > 50", "layer=loss", "if nan", "ip1", "layer=born update"]
)
def test_a_breakpoint_is_told_as_it_is_written(words):
    assert parse_break(words).words == words
    assert parse_break(parse_break(words).words).to_dict() == parse_break(words).to_dict()


@pytest.mark.parametrize("words", ["conv1 if size > 3", "if max_abs > a", "phase=sideways", "colour=red"])
def test_a_breakpoint_that_is_none_is_refused(words):
    with pytest.raises(BadUsage):
        parse_break(words)


def test_a_session_is_taken_up(stepper, tmp_path):
    commands = Commands(stepper, tmp_path / "s.json")
    for line in ("run conv2", "break conv4", "put ref"):
        commands.run(line)
    words = stepper.stop.words
    stepper.experiments.undo()
    stepper.breakpoints.clear()
    stepper.restart()
    Commands(stepper, tmp_path / "s.json")
    assert stepper.stop.words == words
    assert [b.words for b in stepper.breakpoints] == ["conv4"]
    assert [e.command for e in stepper.experiments] == ["put ref"]
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(BadFile):
        Commands(stepper, tmp_path / "s.json")


def changed(path, **values):
    """The session's file, as if the Keras model had been another one then, with these entries."""
    held = json.loads(path.read_text(encoding="utf-8"))
    held["files"]["keras"] = "0" * 64
    path.write_text(json.dumps({**held, **values}), encoding="utf-8")
    return path


def test_of_a_session_of_a_file_that_changed_what_still_has_its_layer_is_taken_up(stepper, tmp_path):
    path = tmp_path / "s.json"
    commands = Commands(stepper, path)
    for line in ("run conv2", "break conv4", "break conv3 if nan", "put ref"):
        commands.run(line)
    points = json.loads(path.read_text(encoding="utf-8"))["breakpoints"]
    made = [("put ref", "conv2 forward", 1), ("put ref", "gone forward", 1), ("put ref", "conv2 forward", 9)]
    made += [("set epsilon=1", "conv2 forward", 1)]
    experiments = [{"command": command, "where": [where, step]} for command, where, step in made]
    changed(path, breakpoints=[{**points[0], "layer": "gone"}, points[1]], experiments=experiments)
    stepper.experiments.undo()
    stepper.breakpoints.clear()
    stepper.restart()
    out = io.StringIO()
    again = Commands(stepper, path)
    run_script(again, ["status"], "script", out)
    assert stepper.stop.words == "forward of conv2 (Keras conv2d_2)"
    assert [b.words for b in stepper.breakpoints] == ["gone", "conv3 if nan"]  # the layer may come back
    assert [e.command for e in stepper.experiments] == ["put ref"]
    assert [remark.split(":")[0] for remark in again.remarks] == [
        "the Keras model has changed since this session was saved", "kept, though its layer is gone",
        "dropped", "dropped", "dropped",
    ]  # fmt: skip
    told = " ".join(out.getvalue().split())
    lost = [
        "kept, though its layer is gone: breakpoint 1 at gone",
        "put ref at gone forward, step 1: there is no such place",
    ]
    lost += ["put ref at conv2 forward, step 9", "set epsilon=1 at conv2 forward, step 1: set: conv2 has no field"]
    for words in lost:
        assert words in told


def test_an_interrupted_line_leaves_the_session_where_it_came_to(stepper, tmp_path):
    commands = Commands(stepper, tmp_path / "s.json")

    def interrupted(stop):
        if stop.layer == "conv2":
            raise KeyboardInterrupt

    commands.passed = interrupted
    with pytest.raises(KeyboardInterrupt):
        run_script(commands, ["run conv4"], "script", io.StringIO())
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["position"]["layer"] == "pool1"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"files": 5}, "files is 5"),
        ({"files": {"ref": 5}}, "a file is 5"),
        ({"position": {"phase": 5, "layer": "conv2", "keras_layer": "", "step": 1}}, "position's phase is 5"),
        ({"position": {"phase": "forward", "layer": "conv2", "keras_layer": "", "step": 10**400}}, "step is 1000"),
        ({"inside": "abc"}, "inside is 'abc'"),
        ({"breakpoints": [{"number": "x"}]}, "a breakpoint's number is 'x'"),
        ({"breakpoints": [{"number": 1, "hits": -5}]}, "a breakpoint's hits is -5"),
        ({"breakpoints": [{"number": 1, "condition": "import os"}]}, "s.json.*'import os' is no condition"),
        ({"experiments": [{"command": "put ref", "where": ["conv2 forward"]}]}, "damaged"),
        ({"experiments": [{"command": "put ref", "where": ["conv2 forward", float("inf")]}]}, "step is inf"),
        ("[" * 100_000, "damaged"),
    ],
)
def test_a_damaged_session_is_refused_and_stays_as_it_is(stepper, tmp_path, damage, told):
    """By one line that names the file; nothing of it is taken up."""
    path = tmp_path / "s.json"
    Commands(stepper, path).run("run conv2")
    stepper.restart()
    text = damage if isinstance(damage, str) else json.dumps({**json.loads(path.read_text(encoding="utf-8")), **damage})
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadFile, match=told) as caught:
        Commands(stepper, path)
    assert "s.json" in str(caught.value)
    assert len(str(caught.value).replace(str(path), "s.json")) < 240
    assert path.read_text(encoding="utf-8") == text
    assert (stepper.position, stepper.breakpoints) == (0, [])


def test_a_session_of_another_network_is_refused(stepper, tmp_path):
    path = tmp_path / "s.json"
    Commands(stepper, path).run("run conv2")
    changed(path, position={"phase": "forward", "layer": "stem", "keras_layer": "stem_1", "step": 1})
    with pytest.raises(BadFile, match="is a session of another Keras model"):
        Commands(stepper, path)


def test_experiments_are_saved_as_a_script_that_makes_them_again(stepper, tmp_path, capsys):
    """By names: a fix takes a stop away, so that the numbers of those behind it are others then."""
    import runpy

    commands = Commands(stepper)
    for line in ("run conv2 forward", "put ref", "run ip1 backward", "fix conv-groups", "run conv1 update", "put ref"):
        commands.run(line)
    made = [(item.command, item.where) for item in stepper.experiments]
    assert [command for command, _ in made] == ["put ref", "fix conv-groups", "put ref"]
    commands.run(f"experiments {tmp_path / 'again.py'}")
    again = runpy.run_path(str(tmp_path / "again.py"))["stepper"]
    assert [(item.command, item.where) for item in again.experiments] == made
    stepper.goto(len(stepper.stops) - 1)
    again.goto(len(again.stops) - 1)
    assert {(p.layer, p.phase, p.tensor, p.step): p.status for p in again.probes} == {
        (p.layer, p.phase, p.tensor, p.step): p.status for p in stepper.probes
    }
    assert "the reference's output of conv2 put in the Keras run" in capsys.readouterr().out


def test_terms_of_a_convolution_add_up(stepper):
    stepper.run_to("conv2 forward")
    look = stepper.look()
    terms = look.terms((0, 3, 3, 1), count=10_000)
    for side in ("ref", "keras"):
        total = sum(getattr(term, side) for term in terms.terms) + look.tensor("bias", side)[1]
        assert total == pytest.approx(look.tensor("output", side)[0, 3, 3, 1], rel=1e-5)


def test_the_reproducer_runs_without_parity(stepper, tmp_path):
    stepper.run_to("ip1 backward")
    write_repro(stepper, tmp_path)
    blocked = "import sys, runpy; sys.modules['parity'] = None; runpy.run_path('repro.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", blocked], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    differing = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("differs")]
    assert (done.returncode, differing) == (1, ["dkernel"]), done.stderr[-2000:]


def test_a_clean_pair_has_nothing_to_stop_at(tmp_path):
    clean = Stepper.open(SEED / "model.h5", SEED / "model.h5", SEED / "batch.npz", steps=1)
    assert clean.resume().reason == "end"
    assert clean.verdict == "match"
    with pytest.raises(BadUsage, match="no layer diverges"):
        write_repro(clean, tmp_path)


def test_a_long_run_can_be_stopped(stepper):
    """Between two layers; what was judged stays, and the run can be gone on with."""
    stepper.begin(stepper.setup.sides.keras, stepper.setup.sides.data)
    passed = []

    def progress(stop):
        passed.append(stop)
        if len(passed) == 5:
            stepper.interrupt()

    stepper.resume(progress)  # the structure of ip1
    with pytest.raises(BadUsage, match="stopped at forward of"):
        stepper.resume(progress)
    assert stepper.position == passed[-1].index - 1
    assert stepper.resume().stop.words == "backward of ip1 (Keras conv2d_5)"
