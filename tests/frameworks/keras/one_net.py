"""`python -m tests.frameworks.keras.one_net ENGINE FOLDER WHICH`: one net, and comparisons, on one engine and backend.

A backend is fixed for a process, so each has one of its own. It writes `numbers.npz` and `verdicts.json`, and then runs
those tests of `test_graphs.py` that WHICH selects, whose exit code it has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import parity
from parity.frameworks.keras.engine import engine_of
from parity.frameworks.keras.runner import KerasRunner
from tests import twins


def net(keras):
    """Convolutions, batch normalisation, dropout, both poolings, an addition, a concatenation, a softmax."""
    layers = keras.layers
    x = keras.Input((8, 8, 4), name="image")
    a = layers.Conv2D(6, 3, padding="same", activation="relu", kernel_regularizer="l2", name="conv1")(x)
    b = layers.Dropout(0.3, name="drop")(layers.BatchNormalization(name="bn")(a))
    c = layers.Conv2D(6, 3, padding="same", name="conv2")(b)
    d = layers.Add(name="add")([a, c])
    e = layers.Concatenate(name="cat")(
        [layers.MaxPooling2D(2, name="max")(d), layers.AveragePooling2D(2, name="avg")(d)]
    )
    f = layers.Dense(3, activation="softmax", name="fc")(layers.Flatten(name="flat")(e))
    model = keras.Model(x, f)
    model.compile(keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy")
    return model


def numbers(keras):
    """Everything that a runner shows of the net: mode/precision/what/name → array."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(6, 8, 8, 4)).astype(np.float32), rng.integers(0, 3, 6)
    runner = KerasRunner(net(keras), x)
    values = {
        pid: rng.uniform(0.05, 0.15, v.shape) * rng.choice([-1, 1], v.shape) for pid, v in runner.params().items()
    }
    values["bn.variance"] = np.abs(values["bn.variance"])
    runner.load({pid: np.asarray(v, np.float32) for pid, v in values.items()})
    found = {}

    def keep(key, seen):
        found.update({f"{key}/output/{name}": value for name, value in seen.outputs.items()})
        found.update({f"{key}/derivative/{name}": value for name, value in seen.output_grads.items()})
        found.update({f"{key}/gradient/{pid}": value for pid, value in seen.param_grads.items()})
        found.update({f"{key}/{role}/{n}": v for n, both in seen.statistics.items() for role, v in both.items()})
        found[f"{key}/loss"] = np.asarray(seen.loss)

    drawn = runner.run({"image": x}, y)
    np.testing.assert_allclose(drawn.outputs["drop"], drawn.outputs["bn"] * drawn.masks["drop"] / 0.7, rtol=1e-6)
    assert 0.55 < drawn.masks["drop"].mean() < 0.85
    found.update({f"penalty/{pid}": value for pid, value in drawn.penalty_grads.items()})
    masks = {"drop": (rng.random((6, 8, 8, 6)) < 0.7).astype(np.float32)}
    exact = runner.run({"image": x}, y, masks=masks, precision=64)
    keep("train64", exact)
    keep("eval64", runner.run({"image": x}, y, mode="eval", precision=64))
    keep("eval32", runner.run({"image": x}, y, mode="eval"))
    tensors, losses = exact.outputs, runner.network.losses
    for layer in runner.network:
        if layer in losses or layer.output not in exact.output_grads:
            continue
        alone = runner.isolate(
            [layer.name],
            {name: tensors[name].astype(np.float32) for name in layer.inputs},
            upstream={layer.output: exact.output_grads[layer.output].astype(np.float32)},
            masks=masks,
        )
        found[f"alone32/output/{layer.output}"] = alone.outputs[layer.output]
        found.update({f"alone32/{layer.name}/derivative/{name}": v for name, v in alone.input_grads.items()})
        found.update({f"alone32/{layer.name}/gradient/{pid}": v for pid, v in alone.param_grads.items()})
    runner.reset()
    grads = {pid: value.astype(np.float32) for pid, value in exact.param_grads.items()}
    for _ in range(3):
        runner.update(grads, {name: dict(both) for name, both in exact.statistics.items()})
    found.update({f"moved/{pid}": value for pid, value in runner.params().items()})
    return found


def verdicts(keras, backend, folder):
    """Name → verdict, where the first divergence is, and the causes, of a right port and of wrong ones."""
    nets = {"plain": twins.plain, "normalised": twins.normalised}
    mats = {name: twins.save(folder / f"{name}.mat", make()) for name, make in nets.items()}
    pairs = {
        "clean": ("normalised", {}),
        "slope": ("normalised", {"edits": {"relu1": {"leak": 0.3}}}),
        "epsilon": ("normalised", {"edits": {"bn1": {"epsilon": 1e-3}}}),
        "momentum": ("normalised", {"optimizer": keras.optimizers.SGD(twins.RATE, momentum=0.8)}),
    }
    if backend == "torch":
        pairs["average"] = ("plain", {})
    if backend == "jax":  # each shape of each operation is compiled first
        pairs = {name: pairs[name] for name in ("clean", "momentum")}
    found = {}
    for name, (which, options) in pairs.items():
        model = twins.twin(nets[which](), module=keras, **options)
        # A momentum shows in the second step; jax works each step out anew.
        report = parity.compare(ref=mats[which], keras=model, batch=twins.batch(), steps=2, verify=False)
        first = report.first_divergence
        found[name] = {
            "verdict": report.verdict,
            "first": first and [first.phase, first.layer],
            "causes": sorted({(f.cause, f.layer) for f in report.findings if f.severity == "divergence"}),
            "phases": sorted({p.phase for p in report.probes}),
            "notes": list(report.notes),
        }
    return found


def seen(name, folder):
    """The numbers and the verdicts of an engine, on the backend that this process has."""
    engine = engine_of(name)
    pairs = verdicts(engine.keras, engine.backend.name, folder)
    return numbers(engine.keras), {"engine": engine.description, "pairs": pairs}


def main():
    name, folder = sys.argv[1], Path(sys.argv[2])
    arrays, said = seen(name, folder)
    np.savez(folder / "numbers.npz", **arrays)
    (folder / "verdicts.json").write_text(json.dumps(said))
    graphs = str(Path(__file__).with_name("test_graphs.py"))
    options = ["-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
    sys.exit(pytest.main([graphs, "-k", sys.argv[3], *options]))


if __name__ == "__main__":
    main()
