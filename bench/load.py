"""`python -m bench.load [--net FILE.mat]`: what reading a network costs, in ratios to scipy's loadmat and its arrays.

Without a file, one like ResNet-50 at half the width is made, random weights, in a DagNN's saved form. Times are medians
of interleaved runs; memory is what a process of its own takes at its peak beyond what it had before. Then `parity
inspect` of a Keras ResNet-50, a process from start to end, in ratios to one that only imports keras.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from bench.children import ROOT, answer, status
from parity.frameworks.matconvnet.lift import lift
from parity.frameworks.matconvnet.matfile import read

READERS: dict[str, Callable[[Path], Any]] = {
    "scipy.io.loadmat": lambda path: scipy.io.loadmat(path),
    "values read": read,
    "network lifted": lift,
}
INSPECT_LIMIT = 1.3
"""What is asked of `parity inspect` on a Keras file: times the import of keras, which it does without."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_peak(READERS[options.child], options.net)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.net:
            files = {options.net.name: options.net}
        else:
            files = {f"ResNet-50, half the width, {v}": resnet(Path(folder) / f"{v}.mat", v) for v in ("v6", "v7")}
        for name, path in files.items():
            _show(name, path, options.runs)
        if not options.net and not _inspects(Path(folder), options.runs):
            sys.exit(1)


def _show(name: str, path: Path, runs: int) -> None:
    network, _ = lift(path)
    arrays = sum(param.value.nbytes for param in network.params.values() if param.value is not None)
    seconds: dict[str, list[float]] = {reader: [] for reader in READERS}
    for _ in range(runs):
        for reader, load in READERS.items():
            begun = time.perf_counter()
            load(path)
            seconds[reader].append(time.perf_counter() - begun)
    usual = {reader: statistics.median(times) for reader, times in seconds.items()}
    first = next(iter(READERS))
    print(f"{name}: {path.stat().st_size / 2**20:.1f} MiB, arrays {arrays / 2**20:.1f} MiB")
    for reader in READERS:
        grown = int(answer("bench.load", reader, {"net": path}))
        print(
            f"  {reader:18} {1000 * usual[reader]:6.0f} ms  {usual[reader] / usual[first]:4.2f}× scipy   "
            f"{grown / 2**20:5.0f} MiB  {grown / arrays:4.2f}× the arrays"
        )


def _inspects(folder: Path, runs: int) -> bool:
    """Prints what `parity inspect` takes on a ResNet-50 of each of Keras' formats; whether all are within the limit."""
    made = [folder / "resnet50.h5", folder / "resnet50.keras"]
    for path in made:
        code = f"import keras; keras.applications.ResNet50(weights=None).save({str(path)!r})"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    commands = {"import keras": [sys.executable, "-c", "import keras"]}
    commands |= {path.name: [sys.executable, "-m", "parity", "inspect", str(path)] for path in made}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
            seconds[name].append(time.perf_counter() - begun)
    usual = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {name: value / usual["import keras"] for name, value in usual.items()}
    print(f"parity inspect of Keras files, {made[0].stat().st_size / 2**20:.0f} MiB (asked for: {INSPECT_LIMIT})")
    for name, ratio in ratios.items():
        print(f"  {name:18} {1000 * usual[name]:6.0f} ms  {ratio:4.2f}× import keras")
    return all(ratios[path.name] <= INSPECT_LIMIT for path in made)


def _peak(load: Callable[[Path], Any], path: Path) -> int:
    """Bytes at the peak beyond what the process had before; a small file is read first, for what imports take."""
    with tempfile.TemporaryDirectory() as folder:
        load(resnet(Path(folder) / "small.mat", "v7", widths=(4,), blocks=(1,)))
    before = status("VmRSS")
    kept = load(path)
    assert kept is not None
    return max(status("VmHWM") - before, 0)


def resnet(
    path: Path, version: str, widths: tuple[int, ...] = (32, 64, 128, 256), blocks: tuple[int, ...] = (3, 4, 6, 3)
) -> Path:
    """A residual network of bottlenecks in a DagNN's saved form, with He weights."""
    rng = np.random.default_rng(0)
    layers: list[dict[str, Any]] = []
    params: list[dict[str, Any]] = []

    def add(name: str, kind: str, inputs: list[str], block: dict[str, Any], **values: np.ndarray) -> str:
        names = [f"{name}_{role}" for role in values]
        params.extend(
            {"name": n, "value": v, "learningRate": 1.0, "weightDecay": 1.0}
            for n, v in zip(names, values.values(), strict=True)
        )
        layers.append(
            {"name": name, "type": f"dagnn.{kind}", "inputs": _cell(inputs), "outputs": _cell([f"{name}_out"]),
             "params": _cell(names), "block": block}
        )  # fmt: skip
        return f"{name}_out"

    def conv(name: str, source: str, size: int, depth: int, count: int, stride: int, *, relu: bool = True) -> str:
        filters = rng.standard_normal((size, size, depth, count)) * np.sqrt(2 / (size * size * depth))
        block = {"size": [float(size), float(size), float(depth), float(count)], "hasBias": False,
                 "pad": [float(size // 2)] * 4, "stride": [float(stride)] * 2}  # fmt: skip
        made = add(name, "Conv", [source], block, filter=filters.astype(np.float32))
        ones, zeros = np.ones((count, 1), np.float32), np.zeros((count, 1), np.float32)
        moments = np.concatenate([zeros, ones], 1)
        made = add(
            f"{name}_bn", "BatchNorm", [made], {"numChannels": float(count)}, mult=ones, bias=zeros, moments=moments
        )
        return add(f"{name}_relu", "ReLU", [made], {"leak": 0.0}) if relu else made

    made = conv("conv1", "data", 7, 3, widths[0], 2)
    depth = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), 2):
        for index in range(count):
            name, stride = f"res{stage}{chr(ord('a') + index)}", 2 if stage > 2 and not index else 1
            inner = conv(f"{name}_2a", made, 1, depth, width, stride)
            inner = conv(f"{name}_2b", inner, 3, width, width, 1)
            inner = conv(f"{name}_2c", inner, 1, width, 4 * width, 1, relu=False)
            side = made if index else conv(f"{name}_1", made, 1, depth, 4 * width, stride, relu=False)
            made = add(f"{name}_sum", "Sum", [inner, side], {})
            made = add(f"{name}_relu", "ReLU", [made], {"leak": 0.0})
            depth = 4 * width
    variables = [{"name": name, "precious": False} for name in ["data", *(f"{layer['name']}_out" for layer in layers)]]
    saved = {"layers": _structs(layers), "params": _structs(params), "vars": _structs(variables),
             "meta": {"inputSize": [224.0, 224.0, 3.0]}}  # fmt: skip
    scipy.io.savemat(path, saved, do_compression=version == "v7")
    return path


def _cell(names: list[str]) -> np.ndarray:
    cell = np.empty((1, len(names)), object)
    cell[0, :] = names
    return cell


def _structs(records: list[dict[str, Any]]) -> np.ndarray:
    """A struct array."""
    array = np.empty((1, len(records)), [(name, object) for name in records[0]])
    for at, record in enumerate(records):
        array[0, at] = tuple(record.values())
    return array


if __name__ == "__main__":
    main()
