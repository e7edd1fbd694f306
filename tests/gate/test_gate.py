"""The gate from end to end: the project's own, planted faults, processes that die, and what is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from junitparser import JUnitXml

from parity.cli import main
from parity.gate.config import read_config
from parity.gate.lock import read_lock
from parity.gate.pool import Room, Task, run_all
from parity.gate.run import run_gate
from parity.gate.suites import to_json

ROOT = Path(__file__).parents[2]
OWN = ROOT / "parity.toml"
MODELS = ROOT / "tests" / "gate" / "models.py"
RECORDED = ROOT / "traces" / "octave" / "simple_eval.mat"


def test_the_project_passes_its_own_gate_and_says_the_same_twice(monkeypatch):
    monkeypatch.chdir(ROOT)
    asked = read_config()
    first = run_gate(asked, jobs=0)
    for found in first.results:
        judgement = found.judgement
        assert (judgement.verdict, judgement.problems, judgement.warnings) == ("match", (), ()), found.name
    allowed = {exemption.cause for exemption in first.results[0].judgement.allowed}
    assert {"conv-groups", "optimizer-kind"} < allowed
    again = run_gate(asked.select(["residual", "traces"]), jobs=0)
    documents = [{pair["name"]: pair for pair in json.loads(to_json(result))["pairs"]} for result in (first, again)]
    assert len(documents[1]) == 2
    for name, pair in documents[1].items():
        assert json.dumps(pair) == json.dumps(documents[0][name])


def test_processes_and_this_one_say_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    files = {option: tmp_path / option for option in ("json", "junit", "markdown")}
    options = [word for option, path in files.items() for word in (f"--{option}", str(path))]
    assert main(["gate", "traces", "--jobs", "2", *options]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("match       traces  57 tensors in 7 phases, 1 exception needed")
    assert err == ""
    assert files["json"].read_text() == to_json(run_gate(read_config().select(["traces"]), jobs=0))
    suite = next(iter(JUnitXml.fromfile(str(files["junit"]))))
    assert (suite.name, suite.failures, suite.errors) == ("traces", 0, 0)
    assert suite.skipped > 0
    assert "allowed, optimizer-lr-multiplier at c2: Keras has no argument" in files["markdown"].read_text()


def config(folder: Path, *models: str, lock: str = '"parity.lock"', more: str = "") -> Path:
    pairs = "".join(
        f'[[pair]]\nname = "{name}"\nref = "{RECORDED}"\nkeras = "{MODELS}:{name}"\nmode = "eval"\n{more}'
        for name in models
    )
    (folder / "parity.toml").write_text(f"lock = {lock}\n{pairs}")
    return folder / "parity.toml"


def test_a_changed_model_fails_by_layer_and_cause(tmp_path):
    path = config(tmp_path, "recorded", "wrong_epsilon", "wrong_pad")
    result = run_gate(read_config(path), jobs=0, update=True)
    assert result.updated == ("recorded",)  # what diverges makes no baseline
    assert set(read_lock(tmp_path / "parity.lock")) == {"recorded"}
    assert result.exit_code == 1
    right, epsilon, pad = (found.judgement for found in result.results)
    assert right.verdict == "match"
    assert [(f.cause, f.layer) for f in epsilon.findings] == [("bn-epsilon", "b1")]
    assert epsilon.problems[0].sentence.startswith("bn-epsilon at b1 in forward")
    assert pad.findings[0].layer == "c1"
    assert pad.findings[0].cause.startswith("padding-")


def test_within_a_tolerance_the_baseline_still_sees_what_gets_worse(tmp_path):
    path = config(tmp_path, "recorded", more="rtol = 0.01\natol = 0.01\n")
    assert run_gate(read_config(path), jobs=0, update=True).exit_code == 0
    path.write_text(path.read_text().replace(":recorded", ":slightly_wrong"))
    result = run_gate(read_config(path), jobs=0)
    assert result.exit_code == 1
    problems = result.results[0].judgement.problems
    assert (problems[0].kind, problems[0].layer, problems[0].phase) == ("regression", "b1", "forward")
    path.write_text("lock = false\n" + path.read_text().partition("\n")[2])
    assert run_gate(read_config(path), jobs=0).exit_code == 0  # nothing else would have seen it


def test_one_pair_alone_is_made_anew_and_what_is_gone_is_told(tmp_path):
    more = 'phases = ["structure", "forward"]\n'
    path = config(tmp_path, "recorded", "slightly_wrong", more=more)
    path.write_text(path.read_text().replace(":slightly_wrong", ":recorded"))
    both = read_config(path)
    assert run_gate(both, jobs=0, update=True).updated == ("recorded", "slightly_wrong")
    before = read_lock(tmp_path / "parity.lock")
    assert run_gate(both.select(["recorded"]), jobs=0, update=True).updated == ("recorded",)
    assert read_lock(tmp_path / "parity.lock") == before
    fewer = read_config(config(tmp_path, "recorded", more=more))
    result = run_gate(fewer, jobs=0)
    assert result.exit_code == 0
    assert "has a baseline for 'slightly_wrong', which is no pair here" in result.notes[0]
    run_gate(fewer, jobs=0, update=True)
    assert set(read_lock(tmp_path / "parity.lock")) == {"recorded"}


def test_without_its_files_a_pair_is_unverified_and_the_others_are_judged(tmp_path, capsys, monkeypatch):
    path = config(tmp_path, "recorded", "nothing", lock="false")
    result = run_gate(read_config(path), jobs=0)
    assert [found.judgement.verdict for found in result.results] == ["match", "unverified"]
    assert "models.py:nothing" in result.results[1].judgement.problems[0].sentence
    assert result.exit_code == 2


def test_a_process_that_dies_is_one_pair_unverified(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # nothing is imported before it dies
    killer = tmp_path / "killer.py"
    killer.write_text("import os, signal\n\ndef build():\n    os.kill(os.getpid(), signal.SIGKILL)\n")
    tasks = [
        Task(name, {"ref": str(RECORDED), "keras": f"{killer}:build"}, Room.of({"keras": f"{killer}:build"}))
        for name in ("a", "b")
    ]
    done = dict(run_all(tasks, 1))
    assert sorted(done) == [0, 1]
    for result in done.values():
        assert result.report is None
        assert "ended by signal 9" in result.error


def test_pairs_share_a_process_only_with_what_cannot_be_changed_in_it():
    rooms = [
        Room.of({"keras": "a.h5"}),
        Room.of({"keras": "a.h5", "backend": "torch"}),
        Room.of({"keras": "x/net.py:build"}),
        Room.of({"keras": "y/net.py:build"}),
        Room.of({"keras": "a.h5", "custom_objects": "c.py"}),
        Room.of({"keras": "a.h5"}, {"OMP_NUM_THREADS": "1"}),
    ]
    assert len(set(rooms)) == len(rooms)
    assert Room.of({"keras": "x/net.py:build"}) == Room.of({"keras": "x/net.py:other"})


def test_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["gate"]) == 2
    assert "parity.toml: there is no such file" in capsys.readouterr().err
    config(tmp_path, "recorded")
    assert main(["gate", "recordd"]) == 2
    assert "did you mean 'recorded'?" in capsys.readouterr().err
    assert main(["gate", "--json", str(tmp_path / "no" / "x.json")]) == 2
    assert "there is no directory" in capsys.readouterr().err
    config(tmp_path, "recorded", lock="false")
    assert main(["gate", "--update"]) == 2
    assert "lock = false" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_control_c_ends_every_process_and_leaves_the_baseline(tmp_path):
    path = config(tmp_path, "recorded")
    (tmp_path / "parity.lock").write_text("before")
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import pathlib, time, os\n\n"
        "def build():\n    pathlib.Path('pid').write_text(str(os.getpid()))\n    time.sleep(60)\n"
    )
    path.write_text(path.read_text().replace(f"{MODELS}:recorded", f"{slow}:build"))
    command = [sys.executable, "-m", "parity", "gate", "--update"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = int((tmp_path / "pid").read_text())
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (2, "parity: interrupted\n")
    assert (tmp_path / "parity.lock").read_text() == "before"
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_pages_of_all_pairs_and_their_index(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = OWN.read_text().replace('"traces/', f'"{ROOT}/traces/').replace('"traces"', '"../a <b>"')
    (tmp_path / "parity.toml").write_text(text + '[[pair]]\nname = "lost"\nref = "no.mat"\nkeras = "no.h5"\n')
    monkeypatch.chdir(tmp_path)
    main(["gate", "*<b>", "lost", "--html", "pages", "--jobs", "1"])
    assert {path.name for path in (tmp_path / "pages").iterdir()} == {"index.html", "-a--b-.html", "charts.js"}
    assert (tmp_path / "pages" / "-a--b-.html").stat().st_size < 1_000_000  # the charts.js of all
    index = (tmp_path / "pages" / "index.html").read_text()
    assert 'href="-a--b-.html"' in index
    assert "no.mat" in index
    assert "<b>" not in index
    (tmp_path / "file").write_text("")
    assert main(["gate", "--html", "file"]) == 2
