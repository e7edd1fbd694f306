"""The command line: exit codes, one line for what goes wrong, and that it may be called any number of times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import parity
from parity import cli
from parity.errors import BadFile, CannotCompare
from parity.fixes import Repair
from tests.reports import examples


@pytest.fixture
def session(monkeypatch):
    """A `parity.session` whose `check_and_fix` keeps its arguments and gives a report made by hand."""
    module = types.ModuleType("parity.session")
    module.calls = []  # pyright: ignore[reportAttributeAccessIssue]
    module.answer = examples.matching  # pyright: ignore[reportAttributeAccessIssue]

    def check_and_fix(**arguments):
        module.calls.append(arguments)  # pyright: ignore[reportAttributeAccessIssue]
        return Repair(module.answer())  # pyright: ignore[reportAttributeAccessIssue]

    module.check_and_fix = check_and_fix  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "parity.session", module)
    return module


PAIR = ("compare", "--ref", "net.mat", "--keras", "model.h5")


@pytest.mark.parametrize(("name", "code"), [("matching", 0), ("divergent", 1), ("unverified", 2)])
def test_exit_codes_are_the_verdicts(session, capsys, name, code):
    session.answer = getattr(examples, name)
    assert cli.main(PAIR) == code
    out, err = capsys.readouterr()
    assert examples.INPUTS["ref"]["path"] in out
    assert len(err.splitlines()) == (1 if code == 2 else 0)


def test_unverified_says_on_stderr_what_and_what_to_do(session, capsys):
    session.answer = examples.unverified
    cli.main(PAIR)
    line = capsys.readouterr().err
    assert line.startswith("parity: unverified: gaussian_noise is unverified in forward (random, without a mask)")
    assert "--allow 'unverified:gaussian_noise'" in line


def test_the_defaults(session):
    cli.main(PAIR)
    (call,) = session.calls
    progress = call.pop("progress")
    assert progress is None
    assert call == {
        "ref": "net.mat", "keras": "model.h5", "batch": None, "mode": "train", "weights": "ref", "steps": 3,
        "map": None, "custom_objects": None, "rtol": None, "atol": None, "seed": 0, "only": None, "allow": (),
        "strict": False, "keras_engine": "auto", "keras_arch": None, "backend": "", "trust": False,
        "ref_recipe": None, "ref_version": "", "details": False, "fixes": "diverged",
    }  # fmt: skip


def test_every_option_arrives(session):
    options = (
        "--batch b.npz --mode eval --weights own --steps 5 --map m.json --custom-objects c.py --rtol 1e-3 --atol 0 "
        "--seed 7 --only conv* --allow unpaired:aug_* --allow unverified:noise --strict --keras-engine tf_keras "
        "--keras-arch net.py:build --backend jax --trust --ref-recipe r.toml --ref-version beta25"
    )
    assert cli.main([*PAIR, *options.split()]) == 0
    (call,) = session.calls
    del call["progress"]
    assert call == {
        "ref": "net.mat", "keras": "model.h5", "batch": Path("b.npz"), "mode": "eval", "weights": "own",
        "steps": 5, "map": Path("m.json"), "custom_objects": Path("c.py"), "rtol": 1e-3, "atol": 0.0, "seed": 7,
        "only": "conv*", "allow": ("unpaired:aug_*", "unverified:noise"), "strict": True, "keras_engine": "tf_keras",
        "keras_arch": "net.py:build", "backend": "jax", "trust": True, "ref_recipe": Path("r.toml"),
        "ref_version": "beta25", "details": False, "fixes": "diverged",
    }  # fmt: skip


BAD_USAGE = {
    "--steps 0": "'--steps'",
    "--steps many": "'--steps'",
    "--seed -1": "'--seed'",
    "--mode fast": "'train', 'eval'",
    "--weights none": "'ref', 'own'",
    "--rtol 1e-3": "--rtol without --atol",
    "--atol 1e-3": "--atol without --rtol",
    "--rtol -1 --atol 0": "--rtol -1.0: a tolerance",
    "--rtol nan --atol 0": "--rtol nan: a tolerance",
    "--rtol x --atol 0": "'--rtol'",
    "--allow unpaired": "--allow unpaired: write STATUS:GLOB",
    "--allow unpaired:": "--allow unpaired:: write STATUS:GLOB",
    "--allow match:conv1": "--allow match:conv1: the status is one of masked, inherited, born, unpaired, unverified",
    "--allow odd:conv1": "--allow odd:conv1: the status is one of",
    "--only=": "--only needs a pattern",
    "--json none/report.json": "--json none/report.json: there is no directory",
    "--json .": "--json .: is a directory",
    "--fix model.txt": "--fix model.txt: name a file that ends with .keras or .h5",
    "--fix model.h5": "--fix model.h5: would write over model.h5",
    "--fix-script repair.sh": "--fix-script repair.sh: name a file that ends with .py",
    "--backend mxnet": "'tensorflow', 'torch', 'jax'",
    "--frobnicate": "--frobnicate",
    "extra": "extra",
    "--batch": "--batch",
}


@pytest.mark.parametrize("options", BAD_USAGE)
def test_bad_usage_is_one_line_and_runs_nothing(session, capsys, options):
    assert cli.main([*PAIR, *options.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("parity: ")
    assert BAD_USAGE[options] in err
    assert session.calls == []


@pytest.mark.parametrize("arguments", [["compare"], ["compare", "--ref", "a"], ["inspect"], ["unknown"], ["--unknown"]])
def test_what_is_missing_or_unknown_is_one_line(capsys, arguments):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "--help" in err


def test_no_command_at_all_shows_the_help_and_is_no_success(capsys):
    assert cli.main([]) == 2
    assert "compare" in capsys.readouterr().out


def test_help_and_version(capsys):
    for arguments in (["--help"], ["-h"], ["compare", "--help"], ["inspect", "-h"]):
        assert cli.main(arguments) == 0
        assert "Usage: parity" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"parity {parity.__version__}\n"


def test_a_known_error_is_its_line(session, capsys):
    for error in (BadFile("net.mat", "is truncated", "copy it\nagain"), CannotCompare("nothing in common \x1b[2J")):

        def raises(error=error):
            raise error

        session.answer = raises
        assert cli.main(PAIR) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert "\x1b" not in err
    assert err.startswith("parity: nothing in common")


def test_an_unknown_error_is_one_line_and_its_traceback_only_on_demand(session, capsys, monkeypatch):
    def raises():
        raise KeyError("conv1\nconv2")

    session.answer = raises
    monkeypatch.delenv("PARITY_DEBUG", raising=False)
    assert cli.main(PAIR) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "please report" in err
    assert "KeyError" in err
    monkeypatch.setenv("PARITY_DEBUG", "1")
    assert cli.main(PAIR) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("parity: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), 2), (MemoryError(), 2), (SystemExit(3), 3), (SystemExit("no"), 2), (BrokenPipeError(), 2)],
)
def test_nothing_else_comes_out_of_main(session, capsys, error, code):
    def raises():
        raise error

    session.answer = raises
    assert cli.main(PAIR) == code
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_the_json_file_is_the_report(session, tmp_path, capsys):
    session.answer = examples.divergent
    target = tmp_path / "report.json"
    assert cli.main([*PAIR, "--json", str(target)]) == 1
    assert json.loads(target.read_text())["first_divergence"]["layer"] == "ip1"
    assert list(tmp_path.iterdir()) == [target]
    capsys.readouterr()


def test_an_unverified_comparison_still_writes_its_json(session, tmp_path, capsys):
    session.answer = examples.unverified
    assert cli.main([*PAIR, "--json", str(tmp_path / "r.json")]) == 2
    assert json.loads((tmp_path / "r.json").read_text())["verdict"] == "unverified"
    capsys.readouterr()


def test_a_failed_comparison_writes_no_json(session, tmp_path, capsys):
    def raises():
        raise CannotCompare("nothing in common")

    session.answer = raises
    assert cli.main([*PAIR, "--json", str(tmp_path / "r.json")]) == 2
    assert list(tmp_path.iterdir()) == []
    capsys.readouterr()


def test_it_may_be_called_any_number_of_times(session, capsys):
    hook, streams = sys.excepthook, (sys.stdout, sys.stderr)
    assert [cli.main(PAIR), cli.main(["--bad"]), cli.main(PAIR), cli.main(["--version"])] == [0, 2, 0, 0]
    assert sys.excepthook is hook
    assert (sys.stdout, sys.stderr) == streams
    capsys.readouterr()


def test_warnings_of_the_frameworks_stay_out_of_the_way(session, capsys):
    import warnings

    def warns():
        warnings.warn("deprecated", stacklevel=1)
        return examples.matching()

    session.answer = warns
    assert cli.main(PAIR) == 0
    assert capsys.readouterr().err == ""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parity", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
        cwd=Path(__file__).parents[1],
    )


def test_a_process_gives_the_code_and_the_line():
    done = run("compare", "--ref", "no.mat", "--keras", "no.h5", "--rtol", "1")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "parity: --rtol without --atol: give both or neither\n"


def test_shells_get_their_completion():
    done = run(_PARITY_COMPLETE="complete_bash", COMP_WORDS="parity comp", COMP_CWORD="1")
    assert done.returncode == 0
    assert done.stdout.split() == ["compare"]
    shell = ["bash", "-c", f"{sys.executable} -m parity --show-completion && true"]  # it asks which shell it runs in
    assert "complete_bash" in subprocess.run(shell, capture_output=True, text=True, check=True).stdout


def test_a_reader_that_stops_reading_is_no_error():
    root = Path(__file__).parents[1]
    command = f"{sys.executable} -m parity inspect {root / 'traces' / 'seed' / 'net.mat'} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=root)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
