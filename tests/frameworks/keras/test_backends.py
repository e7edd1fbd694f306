"""Both engines and all three backends compute one net alike, and comparisons say the same on each."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from .one_net import seen

ROOT = Path(__file__).parents[3]
WORLDS = {
    "keras-jax": ("keras", "jax"),  # first, for it takes longest
    "keras-tensorflow": ("keras", "tensorflow"),
    "keras-torch": ("keras", "torch"),
    "tf_keras": ("tf_keras", "tensorflow"),
}

SOME = {
    "torch": "not tf_keras and not double and not eval",
    "jax": "not tf_keras and not eval and alone and (shared or dicts or masking)",
}
"""Backend → which tests of `test_graphs.py` are run on it."""


def _python(*words, backend, **environment):
    """A process of its own, as its result."""
    # Compiling well would take most of jax' time.
    hasty = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    hasty += " --xla_cpu_use_fusion_emitters=false"
    env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "XLA_FLAGS": hasty}
    env = {**env, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Name → (numbers, verdicts, its process) of each engine and backend; other backends then run `SOME` graphs."""
    folders = {name: tmp_path_factory.mktemp(name) for name in WORLDS}
    found = {}

    def run(name):
        engine, backend = WORLDS[name]
        return _python("-m", "tests.frameworks.keras.one_net", engine, folders[name], SOME[backend], backend=backend)

    others = [name for name, (_, backend) in WORLDS.items() if backend != "tensorflow"]
    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(run, name) for name in others]
        for name, (engine, backend) in WORLDS.items():
            if backend == "tensorflow":  # which this process has
                found[name] = *seen(engine, folders[name]), None
        for name, done in zip(others, ended, strict=True):
            verdicts = folders[name] / "verdicts.json"
            assert done.result().returncode == 0 or verdicts.exists(), done.result().stderr[-3000:]
            with np.load(folders[name] / "numbers.npz") as file:
                found[name] = dict(file), json.loads(verdicts.read_text()), done.result()
    return found


@pytest.mark.parametrize("world", [name for name in WORLDS if name != "keras-tensorflow"])
def test_the_same_numbers(worlds, world):
    wanted, found = worlds["keras-tensorflow"][0], worlds[world][0]
    extra = set(found) ^ set(wanted)
    assert all("fc:activation" in key for key in extra)  # tensorflow's loss takes the logits behind it
    for key in sorted(set(wanted) & set(found)):
        if key == "moved/bn.variance" and world == "tf_keras":
            continue  # Keras 2 takes Bessel's correction into its moving variance
        a, b = wanted[key], found[key]
        exact = key.split("/")[0].endswith("64")
        scale = np.abs(a).max(initial=0)
        tolerance = 1e-11 if exact else 5e-6
        assert a.dtype == b.dtype, key
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * scale + 1e-13, err_msg=key)


@pytest.mark.parametrize("world", WORLDS)
def test_float64_is_float64(worlds, world):
    """In float32 the same values are off by rounding: more than nothing, and less than an error would be."""
    numbers = worlds[world][0]
    for name in ("conv1", "bn", "conv2", "fc"):
        rough, exact = numbers[f"eval32/output/{name}"], numbers[f"eval64/output/{name}"]
        assert (rough.dtype, exact.dtype) == (np.float32, np.float64)
        gap = np.abs(rough - exact).max() / np.abs(exact).max()
        assert 1e-9 < gap < 1e-5, name


@pytest.mark.parametrize("world", WORLDS)
def test_the_same_verdicts(worlds, world):
    said = worlds[world][1]
    assert said["engine"]["framework"] == WORLDS[world][0]
    assert WORLDS[world][1] in said["engine"]
    pairs = said["pairs"]
    assert len(pairs["clean"]["phases"]) == 7
    assert pairs["clean"]["verdict"] == "match", pairs["clean"]
    causes = {"slope": ("activation-slope", "relu1"), "epsilon": ("bn-epsilon", "bn1")}
    for name, cause in causes.items():
        if name not in pairs:
            continue
        assert pairs[name]["verdict"] == "diverged"
        assert pairs[name]["first"] == ["forward", cause[1]]
        assert cause in [tuple(c) for c in pairs[name]["causes"]], pairs[name]
    assert pairs["momentum"]["first"][0] == "update"
    assert "optimizer-momentum" in [cause for cause, _ in pairs["momentum"]["causes"]]
    usual = worlds["keras-tensorflow"][1]["pairs"]
    for name in {"clean", "momentum"} | (set(pairs) & set(usual)):
        for what in ("verdict", "first", "causes", "phases"):
            assert json.dumps(pairs[name][what]) == json.dumps(usual[name][what]), name


def test_what_keras_computes_elsewise_on_torch_is_found(worlds):
    """An average over a window at the border: torch repeats the border, tensorflow and jax count what is there."""
    found = worlds["keras-torch"][1]["pairs"]["average"]
    assert found["first"] == ["forward", "pool2"]


@pytest.mark.parametrize("world", ["keras-torch", "keras-jax"])
def test_graphs_on_other_backends(worlds, world):
    """All of them on torch; on jax, where each shape is compiled first, some."""
    done = worlds[world][2]
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_a_backend_that_is_not_installed_is_one_line(tmp_path):
    """Jax is an extra."""
    (tmp_path / "jax.py").write_text("raise ImportError('no jax here')\n")
    code = "from parity.frameworks.keras.engine import engine_of; engine_of('keras')"
    done = _python("-c", code, backend="jax", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("parity.errors.CannotCompare: KERAS_BACKEND is jax, which is not installed (no jax here)")
    assert "pip install 'parity-debugger[jax]'" in last
