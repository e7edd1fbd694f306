"""Getting a report out: streams of any encoding, files whole or not at all."""

from __future__ import annotations

import io
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

from parity.cli import main
from parity.errors import BadUsage
from parity.reports.output import check_target, progress_on, replacing, show, write
from tests.reports import examples


def test_a_pipe_gets_lines_without_trailing_blanks():
    stream = io.StringIO()
    show(examples.divergent(), stream)
    assert stream.getvalue().splitlines() == [line.rstrip() for line in stream.getvalue().splitlines()]
    assert "diverged" in stream.getvalue()


def test_a_stream_that_cannot_write_every_sign_gets_others_of_the_same_width():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    show(examples.divergent(), stream)
    text = raw.getvalue().decode("ascii")
    assert "26x26x8" in text
    assert "conv1 | conv2d_1" in text
    assert "First divergence" in text


def test_a_file_is_replaced_whole_and_keeps_its_permissions(tmp_path):
    target = tmp_path / "report.json"
    target.write_text("old")
    target.chmod(0o640)
    write(target, "new", "--json")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_gets_what_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "report.json", "new", "--json")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.json").stat().st_mode) == 0o640


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / "report.json"
    target.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadUsage, match="No space left"):
        write(target, "new", "--json")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_only_what_dead_processes_left_of_this_name_is_removed(tmp_path):
    target = tmp_path / "report.json"
    with replacing(target, "--json") as name:
        begin = Path(name).name.partition("-")[0]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = f"{begin}-{dead.pid}-x.part.json"
    others = [
        left.replace(str(dead.pid), str(os.getpid())),
        left.replace(".report.", ".other."),
        f"{begin}-x.part.json",
    ]
    for each in (left, *others):
        (tmp_path / each).write_text("")
    write(target, "new", "--json")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["report.json", *others])


GATE = Path(__file__).parents[2] / "traces" / "gate"


@pytest.mark.parametrize(
    ("command", "option"),
    [("compare", "--json"), ("compare", "--junit"), ("compare", "--markdown"), ("compare", "--html"),
     ("gate", "--json"), ("gate", "--html"), ("gate", "--update")],
)  # fmt: skip
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, capsys, monkeypatch, command, option):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    target, pair = tmp_path / "report", ("--ref", str(GATE / "matconvnet.h5"), "--keras", str(GATE / "keras.h5"))
    if command == "gate":
        monkeypatch.setattr("parity.gate.pool.processors", lambda: 0)  # in this process
        (tmp_path / "parity.toml").write_text(
            f'[[pair]]\nname = "two"\nmode = "train"\nref = "{pair[1]}"\nkeras = "{pair[3]}"\n'
        )
        pair = ("--config", str(tmp_path / "parity.toml"))
    if (command, option) == ("gate", "--html"):
        target.mkdir()
    else:
        target.write_text("old")
    arguments = [option, str(target)]
    if option == "--update":
        (tmp_path / "parity.toml").write_text(
            f'lock = "report"\n{(tmp_path / "parity.toml").read_text()}[[pair.allow]]\n'
            'cause = "optimizer-lr-multiplier"\nlayer = "c2"\nsince = 2026-01-01\nreason = "known"\n'
        )
        target.write_text('{"schema": "parity-lock/1", "pairs": {}}\n')
        arguments = [option]
    before = target.read_text() if target.is_file() else ""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        code = main([command, *pair, *arguments])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{option} {target}" in line
    assert "File too large" in line
    if target.is_file():
        assert target.read_text() == before
    else:
        assert list(target.iterdir()) == []


def test_a_symbolic_link_stays_one(tmp_path):
    real = tmp_path / "real.json"
    real.write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(real)
    write(link, "new", "--json")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_device_is_written_to_and_not_replaced():
    check_target(Path(os.devnull), "--json")
    write(Path(os.devnull), "new", "--json")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize(
    ("path", "words"),
    [("none/report.json", "there is no directory"), (".", "is a directory"), ("/proc/report.json", "cannot write in")],
)
def test_a_target_that_cannot_be_is_refused_before(tmp_path, path, words):
    with pytest.raises(BadUsage, match=words):
        check_target(tmp_path / path, "--json")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_can_be_is_not_made_yet(tmp_path):
    check_target(tmp_path / "report.json", "--json")
    assert list(tmp_path.iterdir()) == []


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_is_silent_in_a_pipe_and_leaves_no_line_on_a_terminal(monkeypatch):
    with progress_on(io.StringIO()) as advance:
        assert advance is None
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress_on(stream) as advance:
        assert advance is not None
        advance("forward [conv1]", 1, 12)
        advance("backward", 0, 0)
    assert "backward" in stream.getvalue()
    assert stream.getvalue().endswith(("\x1b[1A\x1b[2K", "\x1b[2K"))


def test_show_takes_any_renderable():
    stream = io.StringIO()
    show(Text("words"), stream)
    assert stream.getvalue() == "words\n"


def test_a_report_in_a_shell_is_short_and_printed_whole():
    report = examples.divergent()
    assert repr(report) == "<Report diverged: first in structure at ip1; 4 causes found>"
    assert str(report).startswith("parity\nreference")
    assert str(report).splitlines()[-2:] == [
        "diverged: first in structure at ip1; 4 causes found",
        "3 of 32 predictions differ; top-1 right: MatConvNet 17, Keras 16",
    ]


def test_what_is_read_is_not_written_over(tmp_path):
    model, link = tmp_path / "model.keras", tmp_path / "link.json"
    model.write_bytes(b"mine")
    link.symlink_to(model)
    for path in (model, link, tmp_path / "." / "model.keras"):
        with pytest.raises(BadUsage, match=r"--json .* would write over .*model.keras, which is read"):
            check_target(path, "--json", [tmp_path / "batch.npz", model])
    check_target(tmp_path / "other.json", "--json", [model])
    check_target(model, "--json")


def test_nothing_takes_the_place_of_a_pipe_or_device(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_target(pipe, "--json")  # text can be written into one
    with pytest.raises(BadUsage, match=r"-o .*pipe: is no regular file"):
        check_target(pipe, "-o", regular=True)
    with pytest.raises(BadUsage, match=r"-o .*pipe: is no regular file"), replacing(pipe, "-o"):
        pytest.fail("it went on")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
