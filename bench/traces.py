"""`python -m bench.traces`: what recording costs, and how fast and in how much memory two large traces compare.

Recording is timed against the same run (all its passes: the steps, the shaken one, the float64 one) that keeps nothing,
in turn and in one process. Two traces are timed against reading every dataset of both files with h5py, which does not
check their seals. Both the clock and the processor's time are given, their ratios pair by pair: where others use the
machine, believe the second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.children import answer, peak

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
    found = _child("record", folder, options)
    alone, recorded = found["alone"], found["recorded"]
    print(f"VGG-16 at a quarter of the width, batch {BATCH}, {STEPS} steps, median of {options.runs}")
    for words, runs in (("the run alone", alone), ("the run, recorded", recorded)):
        clock, used = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{words:44} {clock:7.2f} s  {used:7.2f} s of processor time")
    clock, used = (statistics.median(b[n] / a[n] for a, b in zip(alone, recorded, strict=True)) for n in (0, 1))
    print(f"{'':44} {clock:7.2f}×  {used:7.2f}×  (asked: {LIMITS['recording']}×)")
    size, raw, peak = (found[key] >> 20 for key in ("size", "raw", "peak"))
    print(f"{'the trace':44} {size:7} MiB of {raw} MiB of tensors; {peak} MiB of memory\n")


def _comparing(folder: Path, options: argparse.Namespace) -> None:
    for maker, what in (("make", "many tensors"), ("huge", "six tensors")):
        size = _child(maker, folder, options)["size"]
        print(f"two traces of {size / 2**30:.2f} GiB, {what}")
        pairs = [[_child(name, folder, options) for name in ("read", "compare")] for _ in range(options.runs)]
        for words, n in (("reading both", 0), ("comparing both: " + pairs[0][1]["verdict"], 1)):
            clock, used = (statistics.median(pair[n][key] for pair in pairs) for key in ("seconds", "cpu"))
            print(f"{words:44} {clock:7.2f} s  {used:7.2f} s of processor time")
        clock, used = (statistics.median(b[key] / a[key] for a, b in pairs) for key in ("seconds", "cpu"))
        print(f"{'':44} {clock:7.2f}×  {used:7.2f}×  (asked: {LIMITS['comparing']}×)")
        print(f"{'memory':44} {max(b['peak'] for _, b in pairs) >> 20:7} MiB  (asked: {LIMITS['memory']} MiB)\n")


def _child(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    given = {"folder": folder, "gib": options.gib, "runs": options.runs}
    # Threads that spin while they wait for work take processor time without doing any.
    return answer("bench.traces", name, given, OMP_WAIT_POLICY="PASSIVE")


# ------------------------------------------------------------------------------------------------------------- children


class Nowhere:
    """A recording that keeps nothing."""

    def put(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    tensor = sample = info = settle = put


def run_recorded(options: argparse.Namespace) -> dict[str, Any]:
    """The run in turn alone and written down: seconds by the clock and of the processor."""
    import h5py

    from bench.nets import batch
    from parity.frameworks.matconvnet.runner import MatConvNetRunner
    from parity.runner import Targets
    from parity.traces.recording import record_run
    from parity.traces.writer import writing

    runner = MatConvNetRunner.open(options.folder / "vgg16q.mat")
    fed = batch(BATCH)
    inputs = dict.fromkeys(runner.network.data(runner.network.inputs), fed["x"])
    labels = Targets.of(fed["y"], runner.network)
    weights, target = runner.params(), options.folder / "recorded.h5"

    def timed(keep: bool) -> tuple[float, float]:
        runner.load(weights)
        target.unlink(missing_ok=True)  # to free the space of another trace is no part of it
        start, used = time.perf_counter(), time.process_time()
        if keep:
            with writing(target, "-o", "bench") as sink:
                record_run(runner, inputs, labels, sink, steps=STEPS)
        else:
            record_run(runner, inputs, labels, Nowhere(), steps=STEPS)
        return time.perf_counter() - start, time.process_time() - used

    timed(keep=False)  # torch's first run plans its own work
    pairs = [(timed(keep=False), timed(keep=True)) for _ in range(options.runs)]
    raw = 0

    def add(_: str, item: Any) -> None:
        nonlocal raw
        raw += item.nbytes if isinstance(item, h5py.Dataset) else 0

    with h5py.File(target) as file:
        file.visititems(add)
    alone, recorded = zip(*pairs, strict=True)
    return {"alone": alone, "recorded": recorded, "peak": peak(), "size": target.stat().st_size, "raw": raw}


def make_two(options: argparse.Namespace) -> dict[str, Any]:
    """Two traces of one run, a rounding error apart: half of the activations behind a ReLU."""
    from parity.layers import Activation
    from parity.network import Layer, Network

    shape = (16, 56, 56, 256)
    count = max(2, round(options.gib * 2**30 / (0.75 * 4 * 16 * 56 * 56 * 256)))
    names = [f"r{n}" for n in range(count)]
    layers = tuple(
        Layer(name, Activation("relu"), (before,), (name,), shape=shape[1:], origin=name, source_type="relu")
        for before, name in zip(["x", *names], names, strict=False)
    )
    tensors = [("step1/outputs", name, shape, bool(n % 2)) for n, name in enumerate(names)]
    made = ("inputs", "x", (16, 1, 1, 1), False)
    network = Network("bench", "", {"x": shape[1:]}, (names[-1],), layers, {})
    return _written(options.folder, network, [made, *tensors], steps=0)


def make_huge(options: argparse.Namespace) -> dict[str, Any]:
    """Two traces of few tensors, each a sixth: a map, the vector that it is flattened to, a kernel that moves."""
    from parity.layers import Activation, Dense, Flatten
    from parity.network import Layer, Network, Param

    side = round((options.gib * 2**30 / 24 / 4) ** 0.5)
    rows = max(1, 4 * side * side // 4096)
    image, vector = (side, side, 4), (4 * side * side,)
    layers = (
        Layer("r", Activation("relu"), ("x",), ("r",), shape=image, origin="r", source_type="relu"),
        Layer("f", Flatten(), ("r",), ("f",), shape=vector, origin="f", source_type="Flatten"),
        Layer("d", Dense(4096, bias=False), ("z",), ("d",), {"kernel": "k"}, (4096,), "d", "Dense"),
    )
    inputs = {"x": image, "z": (rows,)}
    network = Network("bench", "", inputs, ("f", "d"), layers, {"k": Param("k", "kernel", "i o", (rows, 4096))})
    tensors = [
        ("inputs", "x", (1, *image), False), ("inputs", "z", (1, rows), False),
        ("step1/outputs", "r", (1, *image), True), ("step1/outputs", "f", (1, *vector), True),
        ("step1/outputs", "d", (1, 4096), False), ("step1/param_grads", "k", (rows, 4096), False),
        ("weights/0", "k", (rows, 4096), False), ("weights/1", "k", (rows, 4096), False),
    ]  # fmt: skip
    return _written(options.folder, network, tensors, steps=1)


def _written(folder: Path, network: Any, tensors: Sequence[tuple[str, str, Any, bool]], steps: int) -> dict[str, Any]:
    """Both traces, of (group, name, shape, whether it comes from a ReLU); what one takes."""
    import numpy as np

    from parity.recipe import Recipe
    from parity.traces.writer import writing

    facts = {
        "mode": "train" if steps else "eval", "steps": steps, "seed": 0, "tensors": "all",
        "engine": {"name": "made up"}, "source": {}, "passes": [{"loss": None, "losses": {}, "penalty": 0.0}],
    }  # fmt: skip
    rng = np.random.default_rng(0)
    for side, framework in (("ref", "matconvnet"), ("keras", "keras")):
        again = np.random.default_rng(1)
        with writing(folder / f"{side}.h5", "-o", "bench") as sink:
            for group, name, shape, rectified in tensors:
                value = again.standard_normal(shape, dtype=np.float32)
                if rectified:
                    np.maximum(value, 0, out=value)
                if side == "keras" and group.startswith("step"):
                    value *= (1 + 2.0**-24 * rng.integers(-1, 2, shape[-1])).astype(np.float32)
                sink.put(group, name, value)
                if group == "step1/outputs":
                    sink.put("floors/outputs", name, np.full(shape[-1], 2.0**-23))
            sink.info(facts, replace(network, framework=framework), Recipe())
    return {"size": (folder / "ref.h5").stat().st_size}


def read_both(options: argparse.Namespace) -> dict[str, Any]:
    """Every dataset of both files, one after the other, chunk by chunk, with h5py alone."""
    import h5py

    def read(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            for chunk in item.iter_chunks() if item.chunks else [()]:
                item[chunk]

    start, used = time.perf_counter(), time.process_time()
    for side in ("ref", "keras"):
        with h5py.File(options.folder / f"{side}.h5") as file:
            file.visititems(read)
    spent = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
    return {**spent, "peak": peak()}


def compare_both(options: argparse.Namespace) -> dict[str, Any]:
    """`parity compare` of the two, imports and seals included."""
    start, used = time.perf_counter(), time.process_time()
    import parity
    from parity.traces.reader import Trace

    with Trace(options.folder / "ref.h5", verify=False) as trace:
        mode = trace.mode
    report = parity.compare(ref=options.folder / "ref.h5", keras=options.folder / "keras.h5", mode=mode)
    spent = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
    return {**spent, "peak": peak(), "verdict": report.verdict}


CHILDREN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "record": run_recorded,
    "make": make_two,
    "huge": make_huge,
    "read": read_both,
    "compare": compare_both,
}

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
