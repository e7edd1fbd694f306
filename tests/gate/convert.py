"""Makes `traces/gate/seed_slim.mat`: a run of the real MatConvNet, in the form that `parity_record.m` writes.

    python -m tests.gate.convert
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.frameworks.matconvnet.golden import TRACES, golden
from tests.frameworks.matconvnet.write import write

TARGET = TRACES.parent / "gate" / "seed_slim.mat"


def convert(target: Path = TARGET) -> Path:
    """The first pass and the first update of MatConvNet's own run of the slim example network, on its four images."""
    trace = golden("seed_slim_f01_nobn_head")["trace"]
    net = trace["net_tidy"]
    names = {"learningRate", "momentum", "weightDecay", "nesterovUpdate"}
    options = {key: value for key, value in trace["trainParams"].items() if key in names}
    x, dzdx = (list(trace[key]) for key in ("x", "dzdx"))
    params, ders, after = [], [], []
    for place in range(len(net["layers"]), 0, -1):
        for entry in range(len(trace["dzdw"][place - 1]), 0, -1):
            params.append(np.array([[float(place), float(entry)]]))
            ders.append(trace["dzdw"][place - 1][entry - 1])
            after.append(trace["weights_after"][0][place - 1][entry - 1])
    step = {"objective": np.ravel(trace["objective"])[:1], "param": params, "der": ders, "after": after}
    record = {
        "format": np.array([[1.0]]),
        "kind": "simplenn",
        "mode": "train",
        "version": "head",
        "images": np.array([[float(np.size(trace["labels"]))]]),
        "inputs": [
            {"name": "x0", "value": np.asarray(trace["images"], np.float32)},
            {"name": "label", "value": np.asarray(trace["labels"], np.float32)},
        ],
        "vars": [
            {"name": f"x{i}", "value": np.asarray(value, np.float32), "der": np.asarray(der, np.float32)}
            for i, (value, der) in enumerate(zip(x, dzdx, strict=True))
        ],
        "masks": np.zeros((0, 0)),
        "steps": step,
        "engine": "Octave 7.3.0",
    }
    meta = {**(net["meta"] if isinstance(net.get("meta"), dict) else {}), "trainOpts": options}
    return write(target, {"net": {"layers": net["layers"], "meta": meta}, "parity": record}, "v7")


if __name__ == "__main__":
    print(convert())
