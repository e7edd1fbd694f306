"""`python -m bench.compare`: what a comparison costs, as a ratio to bare training steps and to imports.

Each measurement is a process of its own, so that peak memory is its own too. Times are medians over repetitions
after one that is not counted; the machine may be busy, so read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.children import ROOT, answer, peak

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BATCH, STEPS = 8, 3


def main() -> None:
    """Run every measurement and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", type=Path, help="a MatConvNet file with VGG-16's layers; by default one is made")
    parser.add_argument("--runs", type=int, default=3, help="repetitions that count")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--mat", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options.mat, options.runs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        from bench.nets import vgg

        mat = vgg(Path(folder), options.net)
        given = options.net is not None and options.net.exists()
        named = options.net.name if given else "VGG-16 at a quarter of the width, random weights"
        print(f"{named}, batch {BATCH}, {STEPS} steps, medians of {options.runs} runs\n")
        _big_net(mat, options.runs)
        _example(options.runs)


def _big_net(mat: Path, runs: int) -> None:
    bare_ref, bare_keras = _child("bare_reference", mat, runs), _child("bare_keras", mat, runs)
    bare = bare_ref["seconds"] + bare_keras["seconds"]
    # Both sides live in one process when they are compared, and so does what they import: count that once.
    memory = _child("bare_both", mat, 1)["peak"]
    print(f"{'bare training steps of both sides':44} {bare:7.2f} s           {memory / 2**20:7.0f} MiB")
    for name, words in (
        ("clean", "comparison, all clean"),
        ("diverged", "comparison, every activation another"),
    ):
        found = _child(name, mat, runs)
        ratio, grown = found["seconds"] / bare, found["peak"] / memory
        print(f"{words:44} {found['seconds']:7.2f} s  {ratio:5.2f}×   {found['peak'] / 2**20:7.0f} MiB  {grown:5.2f}×")
        for part, seconds in found["parts"].items():
            print(f"    {part:40} {seconds:7.2f} s  {seconds / bare:5.2f}×")
        print(f"    {'propagated only':40} {found['propagated']:7.2f} s  {found['propagated'] / bare:5.2f}×")
        print(f"    verdict: {found['verdict']}")


def _example(runs: int) -> None:
    seed = ROOT / "traces/seed"
    command = [sys.executable, "-m", "parity", "compare", "--ref", f"{seed}/net.mat", "--keras", f"{seed}/model.h5"]
    command += ["--batch", f"{seed}/batch.npz"]
    imports = [sys.executable, "-c", "import torch, tensorflow, tf_keras"]
    pairs = [(_seconds(imports), _seconds(command)) for _ in range(runs + 1)][1:]
    ratio = statistics.median(b / a for a, b in pairs)
    alone, whole = statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
    print(f"\nparity compare on the example: {whole:.2f} s, importing both frameworks: {alone:.2f} s, {ratio:.2f}×")
    helps = statistics.median(_seconds([sys.executable, "-m", "parity", "--help"]) for _ in range(runs))
    print(f"parity --help: {helps:.2f} s")


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, check=False)
    return time.perf_counter() - start


def _child(name: str, mat: Path, runs: int) -> dict[str, Any]:
    return answer("bench.compare", name, {"mat": mat, "runs": runs})


# ------------------------------------------------------------------------------------------------------------- children


def _measured(action: Callable[[], Any], runs: int) -> dict[str, Any]:
    """Median seconds of the action after one uncounted run, and the process' peak memory in bytes."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times[1:]), "peak": peak()}


def bare_reference(mat: Path, runs: int) -> dict[str, Any]:
    """Plain torch: functional layers, autograd, SGD."""
    return _measured(_torch_steps(mat), runs)


def bare_keras(mat: Path, runs: int) -> dict[str, Any]:
    """Plain eager Keras: model, tape, optimizer."""
    return _measured(_keras_steps(mat), runs)


def bare_both(mat: Path, runs: int) -> dict[str, Any]:
    """Both in one process, for its memory."""
    first, second = _torch_steps(mat), _keras_steps(mat)

    def both() -> None:
        first()
        second()

    return _measured(both, runs)


def _torch_steps(mat: Path) -> Callable[[], None]:
    import torch
    import torch.nn.functional as F

    from bench.nets import batch
    from parity.layers import Activation, Conv, Dropout, Pool
    from parity.opening import lift

    network, _ = lift(mat)
    held = batch(BATCH)
    x = torch.from_numpy(held["x"].transpose(0, 3, 1, 2).copy())
    y = torch.from_numpy(held["y"])
    weights = {
        key: torch.from_numpy(p.value.transpose(3, 2, 0, 1).copy() if p.value.ndim == 4 else p.value.copy())
        for key, p in network.params.items()
        if p.value is not None
    }
    for value in weights.values():
        value.requires_grad_()

    def forward(t: Any) -> Any:
        for layer in network:
            kind = layer.kind
            if isinstance(kind, Conv):
                pad = (kind.pad or (0, 0))[0]
                t = F.conv2d(t, weights[layer.params["kernel"]], weights[layer.params["bias"]], kind.stride, pad)
            elif isinstance(kind, Activation):
                t = F.relu(t)
            elif isinstance(kind, Pool):
                t = F.max_pool2d(t, kind.size, kind.stride)
            elif isinstance(kind, Dropout):
                t = F.dropout(t, kind.rate)
        return t.flatten(1)

    def steps() -> None:
        optimizer = torch.optim.SGD(weights.values(), 0.001, momentum=0.9, weight_decay=0.0005)
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(forward(x), y).backward()
            optimizer.step()

    return steps


def _keras_steps(mat: Path) -> Callable[[], None]:
    import tensorflow as tf

    from bench.nets import batch, twin
    from parity.opening import lift

    network, _ = lift(mat)
    model = twin(network)
    held = batch(BATCH)
    x, y = tf.constant(held["x"]), tf.constant(held["y"])

    def steps() -> None:
        for _ in range(STEPS):
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x, y, model(x, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply(gradients, model.trainable_variables)

    return steps


def clean(mat: Path, runs: int) -> dict[str, Any]:
    """The whole comparison of a right port."""
    return _comparison(mat, runs, spoil=False)


def diverged(mat: Path, runs: int) -> dict[str, Any]:
    """The whole comparison where every activation is another: float64 is needed all over."""
    return _comparison(mat, runs, spoil=True)


def _comparison(mat: Path, runs: int, *, spoil: bool) -> dict[str, Any]:
    import keras

    import parity
    from bench.nets import batch, twin
    from parity.opening import lift

    network, _ = lift(mat)
    model = twin(network)
    if spoil:
        for layer in model.layers:
            if isinstance(layer, keras.layers.ReLU):
                layer.negative_slope = 0.01
    parts: dict[str, float] = {}
    last = ["", time.perf_counter()]

    def progress(what: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if last[0]:
            parts[last[0]] = parts.get(last[0], 0.0) + now - float(last[1])
        steps = {"Keras, ": "Keras steps", "reference, ": "reference steps"}
        last[:] = [next((w for p, w in steps.items() if what.startswith(p)), _PARTS.get(what, "layers alone")), now]

    reports = []
    data = batch(BATCH)

    def whole() -> None:
        parts.clear()
        last[:] = ["start", time.perf_counter()]
        reports[:] = [parity.compare(ref=mat, keras=model, batch=data, steps=STEPS, progress=progress)]

    found = _measured(whole, runs)
    propagated = parts.get("Keras steps", 0.0) + parts.get("reference steps", 0.0)
    return found | {"parts": dict(parts), "propagated": propagated, "verdict": reports[0].verdict}


_PARTS = {
    "reading files": "reading, opening, aligning",
    "optimizer": "isolated updates",
    "done": "diagnosis and report",
}

CHILDREN: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "bare_reference": bare_reference,
    "bare_keras": bare_keras,
    "bare_both": bare_both,
    "clean": clean,
    "diverged": diverged,
}

if __name__ == "__main__":
    main()
