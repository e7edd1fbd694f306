"""A gate's configuration: what it says, and the one line for each thing that is wrong in it."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from parity.errors import BadFile, BadUsage
from parity.gate.config import read_config

PAIR = '[[pair]]\nname = "lenet"\nref = "net.mat"\nkeras = "model.h5"\n'
ALLOW = PAIR + '[[pair.allow]]\ncause = "bn-epsilon"\nlayer = "bn1"\nreason = "known"\n'


@pytest.fixture
def written(tmp_path):
    def write(text: str, name: str = "parity.toml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_what_it_says(written):
    text = """
lock = "baseline.lock"
[defaults]
batch = "batch.npz"
steps = 2

[[pair]]
name = "lenet"
ref = "mat/net.mat"
keras = "net.py:build"
steps = 5
phases = ["update", "forward"]

[[pair.allow]]
layer = "bn*"
cause = "bn-epsilon"
since = 2026-01-01
until = 2026-12-31
reason = "known"

[[pair]]
name = "eval"
ref = "a.mat"
keras = "package.net:build"
mode = "eval"
"""
    path = written(text)
    config = read_config(path)
    folder = path.parent
    assert config.lock == folder / "baseline.lock"
    first, second = config.pairs
    assert dict(first.options) == {
        "batch": str(folder / "batch.npz"), "steps": 5, "ref": str(folder / "mat/net.mat"),
        "keras": f"{folder / 'net.py'}:build",
    }  # fmt: skip
    assert (first.phases, first.required) == (("forward", "update"), ("forward", "update"))
    (allow,) = first.allow
    assert (allow.words, allow.since, allow.until) == (
        "bn-epsilon at bn*", datetime.date(2026, 1, 1), datetime.date(2026, 12, 31)
    )  # fmt: skip
    assert (first.line, allow.line, second.line) == (7, 14, 21)
    assert (second.options["keras"], second.options["steps"], second.required) == (
        "package.net:build", 2, ("structure", "forward")
    )  # fmt: skip


def test_in_a_pyproject(written, monkeypatch):
    tables = PAIR.replace("[[pair", "[[tool.parity.pair")
    path = written('[project]\nname = "x"\n' + tables, "pyproject.toml")
    monkeypatch.chdir(path.parent)
    config = read_config()
    assert [pair.name for pair in config.pairs] == ["lenet"]
    assert config.pairs[0].line == 3
    assert config.pairs[0].options["ref"] == "net.mat"


def test_without_a_baseline(written):
    assert read_config(written("lock = false\n" + PAIR)).lock is None


def test_inline_tables_have_no_lines(written):
    config = read_config(written('pair = [{name = "a", ref = "r.mat", keras = "k.h5"}]\n'))
    assert config.pairs[0].line == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no [[pair]]"),
        ("pair = 3", "has no [[pair]]"),
        ("[[pair", "is not TOML"),
        ("[[pairs]]\n", "the top level has no key 'pairs'; did you mean 'pair'?"),
        ("lock = 3\n" + PAIR, "lock is a file's name, or false for no baseline, not 3"),
        ("[defaults]\nname = 'x'\n" + PAIR, "[defaults] has no key 'name'"),
        ("[[pair]]\nref = 'a'\n", "pair 1 needs a name"),
        ("[[pair]]\nname = 'a'\nref = 'a'\n", "pair 'a' has no 'keras'"),
        (PAIR + PAIR, "two pairs are named 'lenet'"),
        (PAIR + "bacth = 'b.npz'\n", "pair 'lenet' has no key 'bacth'; did you mean 'batch'?"),
        (PAIR + "steps = 0\n", "pair 'lenet': steps must be a whole number from 1, not 0"),
        (PAIR + "steps = true\n", "steps must be a whole number from 1, not True"),
        (PAIR + "mode = 'test'\n", "mode is train or eval, not 'test'"),
        (PAIR + "mode = ['eval']\n", "mode is train or eval, not ['eval']"),
        (PAIR + "strict = 1\n", "strict is true or false, not 1"),
        (PAIR + "rtol = 1e-3\n", "rtol without atol"),
        (PAIR + "rtol = nan\natol = 0\n", "rtol must be a number from 0 on"),
        (PAIR + "phases = ['forwards']\n", "phases must be a list of phases"),
        (PAIR + "batch = ''\n", "batch must be text"),
        (PAIR + "allow = 'unpaired:x'\n", "allow is a list of tables, [[pair.allow]]"),
        (ALLOW, "allow 1 needs a date; since ="),
        (ALLOW + "until = '2026-12-31'\n", "until must be a date such as 2026-12-31 (without quotes)"),
        (ALLOW + "until = 2026-12-31T00:00:00\n", "until must be a date"),
        (ALLOW.replace("known", " ") + "since = 2026-01-01\n", "needs a reason"),
        (ALLOW.replace("bn-epsilon", "bn-epsilom") + "since = 2026-01-01\n", "did you mean 'bn-epsilon'?"),
        (ALLOW.replace('cause = "bn-epsilon"', "") + "since = 2026-01-01\n", "needs a cause (or a status)"),
        (
            ALLOW + "status = 'bad'\nsince = 2026-01-01\n",
            "the status is one of born, unpaired, unverified, masked, inherited",
        ),
        (ALLOW.replace('layer = "bn1"', "status = 'born'") + "since = 2026-01-01\n", "a status is allowed at a layer"),
        (ALLOW + "layers = 'x'\nsince = 2026-01-01\n", "has no key 'layers'; did you mean 'layer'?"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(written, text, message):
    with pytest.raises(BadFile) as caught:
        read_config(written(text))
    assert message in str(caught.value)
    assert "parity.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadFile, match=r"parity\.toml: there is no such file; write one, with \[\[pair\]\]"):
        read_config()
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(BadFile, match=r"pyproject\.toml: has no \[tool\.parity\]"):
        read_config()
    (tmp_path / "parity.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadFile, match="it is not text"):
        read_config()


def test_selected_by_name(written):
    config = read_config(written(PAIR + PAIR.replace("lenet", "resnet")))
    assert [p.name for p in config.select(["res*"]).pairs] == ["resnet"]
    assert config.select(["res*"]).unselected == {"lenet"}
    assert config.select([]) is config
    with pytest.raises(BadUsage, match="there is no pair 'lenett'; did you mean 'lenet'"):
        config.select(["lenett"])


def test_an_exception_is_for_a_layer_or_for_the_recipe(written):
    (allow,) = read_config(written(ALLOW + "since = 2026-01-01\n")).pairs[0].allow
    assert allow.fits("bn1", "bn_1")
    assert allow.fits("", "bn1")
    assert not allow.fits("bn2", "")
    assert not allow.fits("", "")  # what holds for the recipe as a whole is not at bn1
