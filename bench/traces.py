"""`python -m bench.traces`: what recording costs, and how fast and in how much memory two large traces compare.

Recording is timed against the same run (all its passes: the steps, the shaken one, the float64 one) that keeps nothing.
Two traces are timed against reading every dataset of both files with h5py, which has no check of their seals. Each
measurement is a process of its own; the machine may be busy, so read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BATCH, STEPS = 8, 3
LIMITS = {"recording": 1.3, "memory": 300, "comparing": 2.0}
"""What is asked for: times the run alone, MiB, times the reading of both files."""


def main() -> None:
    """Run every measurement and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", type=Path, help="a MatConvNet file with VGG-16's layers; by default one is made")
    parser.add_argument("--gib", type=float, default=2.0, help="size of each of the two traces")
    parser.add_argument("--runs", type=int, default=3, help="repetitions that count")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _recording(folder, options)
        _comparing(folder, options)


def _recording(folder: Path, options: argparse.Namespace) -> None:
    from bench.nets import vgg

    vgg(folder, options.net)
    ratios: list[tuple[float, float]] = []
    for _ in range(options.runs):
        alone, recorded = (_child(name, folder, options) for name in ("run", "record"))
        ratios.append((recorded["seconds"] / alone["seconds"], recorded["cpu"] / alone["cpu"]))
    ratio, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"VGG-16 at a quarter of the width, batch {BATCH}, {STEPS} steps, median of {options.runs}")
    print(f"{'the run alone':44} {alone['seconds']:7.2f} s  {alone['peak'] >> 20:7} MiB")
    print(f"{'the run, recorded':44} {recorded['seconds']:7.2f} s  {recorded['peak'] >> 20:7} MiB")
    print(f"{'':44} {ratio:7.2f}×  (asked: {LIMITS['recording']}×), of processor time {cpu:.2f}×")
    print(f"{'the trace':44} {recorded['size'] / 2**20:7.0f} MiB\n")


def _comparing(folder: Path, options: argparse.Namespace) -> None:
    size = _child("make", folder, options)["size"]
    print(f"two traces of {size / 2**30:.2f} GiB")
    ratios = []
    for _ in range(options.runs):
        read, compared = (_child(name, folder, options) for name in ("read", "compare"))
        ratios.append(compared["seconds"] / read["seconds"])
    ratio, peak = statistics.median(ratios), compared["peak"] >> 20
    print(f"{'reading both':44} {read['seconds']:7.2f} s")
    print(f"{'comparing both: ' + compared['verdict']:44} {compared['seconds']:7.2f} s  {peak:7} MiB")
    print(f"{'':44} {ratio:7.2f}×  (asked: {LIMITS['comparing']}×, {LIMITS['memory']} MiB)")


def _child(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.traces", "--child", name, "--folder", str(folder), "--gib"]
    done = subprocess.run([*command, str(options.gib)], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


# ------------------------------------------------------------------------------------------------------------- children


class Nowhere:
    """A recording that keeps nothing."""

    def put(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    tensor = sketch = info = put


def _run(options: argparse.Namespace, sink: Callable[[Any], Any]) -> dict[str, Any]:
    import numpy as np

    from parity.frameworks.matconvnet.runner import MatConvNetRunner
    from parity.runner import Targets

    runner = MatConvNetRunner.open(options.folder / "vgg16q.mat")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, 224, 224, 3)).astype(np.float32)
    inputs = dict.fromkeys(runner.network.data(runner.network.inputs), x)
    labels = Targets.of(rng.integers(0, 1000, BATCH), runner.network)
    runner.run(inputs, labels)  # torch's first run plans its own work
    start, used = time.perf_counter(), time.process_time()
    sink(lambda to: _record(runner, inputs, labels, to))
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used, "peak": _peak()}


def _record(runner: Any, inputs: Any, labels: Any, sink: Any) -> None:
    from parity.traces.recording import record_run

    record_run(runner, inputs, labels, sink, steps=STEPS)


def run_alone(options: argparse.Namespace) -> dict[str, Any]:
    """All passes, and nothing kept."""
    return _run(options, lambda act: act(Nowhere()))


def run_recorded(options: argparse.Namespace) -> dict[str, Any]:
    """All passes, written down."""
    from parity.traces.writer import writing

    target = options.folder / "recorded.h5"

    def written(act: Callable[[Any], None]) -> None:
        with writing(target, "-o", "bench") as sink:
            act(sink)

    return _run(options, written) | {"size": target.stat().st_size}


def make_two(options: argparse.Namespace) -> dict[str, Any]:
    """Two traces of one run, a rounding error apart: half of the activations behind a ReLU."""
    import numpy as np

    from parity.layers import Activation
    from parity.network import Layer, Network
    from parity.recipe import Recipe
    from parity.traces.writer import writing

    rng, shape = np.random.default_rng(0), (16, 56, 56, 256)
    count = max(2, round(options.gib * 2**30 / (0.75 * 4 * 16 * 56 * 56 * 256)))
    names = [f"r{n}" for n in range(count)]
    layers = tuple(
        Layer(name, Activation("relu"), (before,), (name,), shape=shape[1:], origin=name, source_type="relu")
        for before, name in zip(["x", *names], names, strict=False)
    )
    facts = {
        "mode": "eval", "steps": 0, "seed": 0, "tensors": "all", "engine": {"name": "made up"}, "source": {},
        "passes": [{"loss": None, "losses": {}, "penalty": 0.0}],
    }  # fmt: skip
    for side, framework in (("ref", "matconvnet"), ("keras", "keras")):
        network = Network("bench", framework, {"x": shape[1:]}, (names[-1],), layers, {})
        with writing(options.folder / f"{side}.h5", "-o", "bench") as sink:
            again = np.random.default_rng(1)
            sink.put("inputs", "x", np.zeros((16, 1, 1, 1), np.float32))
            for n, name in enumerate(names):
                value = again.standard_normal(shape, dtype=np.float32)
                if n % 2:
                    np.maximum(value, 0, out=value)
                if side == "keras":
                    value *= (1 + 2.0**-24 * rng.integers(-1, 2, shape[-1])).astype(np.float32)
                sink.tensor("step1/outputs", name, value, "all")
                sink.put("floors/outputs", name, np.full(shape[-1], 2.0**-23))
            sink.info(facts, network, Recipe())
    return {"size": (options.folder / "ref.h5").stat().st_size}


def read_both(options: argparse.Namespace) -> dict[str, Any]:
    """Every dataset of both files, one after the other, with h5py alone."""
    import h5py

    start = time.perf_counter()
    for side in ("ref", "keras"):
        with h5py.File(options.folder / f"{side}.h5") as file:
            for group in ("step1/outputs", "floors/outputs"):
                for data in file[group].values():
                    rows = max(1, (1 << 20) // max(1, data.size // data.shape[0]))
                    for at in range(0, data.shape[0], rows):
                        data[at : at + rows]
    return {"seconds": time.perf_counter() - start, "peak": _peak()}


def compare_both(options: argparse.Namespace) -> dict[str, Any]:
    """`parity compare` of the two, imports and seals included."""
    start = time.perf_counter()
    import parity

    report = parity.compare(ref=options.folder / "ref.h5", keras=options.folder / "keras.h5", mode="eval")
    return {"seconds": time.perf_counter() - start, "peak": _peak(), "verdict": report.verdict}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


CHILDREN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "run": run_alone,
    "record": run_recorded,
    "make": make_two,
    "read": read_both,
    "compare": compare_both,
}

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
