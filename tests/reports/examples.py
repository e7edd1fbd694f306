"""Reports made by hand: a match, the divergent pair of the README, an unverified one, and a net of 150 layers."""

from __future__ import annotations

import dataclasses

from parity.report import Finding, FirstDivergence, LayerRow, Outcome, Probe, RecipeRow, Report

ENVIRONMENT = {
    "parity": "0.1.0", "python": "3.11.7", "numpy": "2.4.6", "seed": 0,
    "ref": {"name": "torch", "version": "2.13.0+cpu", "threads": 2},
    "keras": {"framework": "tf_keras", "version": "2.21.0", "tensorflow": "2.21.0"},
}  # fmt: skip
INPUTS = {
    "ref": {"path": "traces/seed/net.mat", "sha256": "a" * 64, "framework": "matconvnet"},
    "keras": {"path": "traces/seed/model.h5", "sha256": "b" * 64, "framework": "keras"},
    "batch": {"path": "traces/seed/batch.npz", "sha256": "c" * 64},
}
OPTIONS = {"mode": "train", "weights": "ref", "steps": 3, "rtol": None, "atol": None, "only": None, "allow": ()}

MATCH = ("match", 0.8, 2.1e-7)
NETWORK = (
    ("conv1", "conv2d_1", "conv 3×3", (26, 26, 8)),
    ("pool1", "max_pooling2d_1", "max pool 3×3", (24, 24, 8)),
    ("conv2", "conv2d_2", "conv 5×5", (20, 20, 16)),
    ("pool2", "max_pooling2d_2", "max pool 2×2 /2", (10, 10, 16)),
    ("conv3", "conv2d_3", "conv 3×3", (8, 8, 32)),
    ("pool3", "max_pooling2d_3", "max pool 3×3", (6, 6, 32)),
    ("conv4", "conv2d_4", "conv 5×5", (2, 2, 64)),
    ("pool4", "max_pooling2d_4", "max pool 2×2", (1, 1, 64)),
    ("ip1", "conv2d_5", "conv 1×1", (1, 1, 32)),
    ("relu", "activation_1", "relu", (1, 1, 32)),
    ("classifier", "dense_1", "conv 1×1", (1, 1, 2)),
    ("loss", "loss", "softmaxlog", ()),
)


def repeated(count: int) -> Report:
    """A fault that is the same at so many layers, between two others."""

    def epsilon(name: str, other: str) -> Finding:
        said = f"epsilon is 1e-05 in the reference ({name}) and 0.001 in Keras ({other})."
        fix = f"{other}: BatchNormalization(…, epsilon=1e-05)"
        return Finding("bn-epsilon", "divergence", name, other, "forward", said, fix, True, True)

    first, last = divergent().findings[0], epsilon("bn_last", "norm_last")
    same = [epsilon(f"bn{i}", f"norm{i}") for i in range(1, count + 1)]
    unsure = dataclasses.replace(last, confirmed=False)
    return dataclasses.replace(divergent(), findings=(first, *same, unsure))


def divergent() -> Report:
    """The example pair: structure at ip1, and a recipe that differs nearly everywhere."""
    layers, probes = [], []
    for name, keras_name, kind, shape in NETWORK:
        cells = {"structure": ("match", None, None), "forward": MATCH, "backward": MATCH}
        keras_kind = kind
        if name.startswith(("conv", "ip", "class")):
            cells["weights"] = ("match", None, None)
            cells["update"] = ("born", 3.1e6, 0.98)
            probes += [
                Probe(name, keras_name, "update", role, step, (3, 3), "born", 1e-3, 0.98, 1e-9, 3.1e6 + step, 4e6)
                for role in ("kernel", "bias")
                for step in (1, 2, 3)
            ]
        if name == "ip1":
            kind, keras_kind = "conv 1×1, 2 groups", "conv 1×1"
            cells["structure"] = ("born", None, None)
            cells["backward"] = ("born", 1.4e6, 0.52)
        if name == "loss":
            cells = {"loss": MATCH, "backward": MATCH}
        layers.append(LayerRow(name, keras_name, kind, keras_kind, shape, cells))
        probes.append(
            Probe(name, keras_name, "forward", "output", 1, (32, *shape), "match", 1e-7, 2.1e-7, 1e-8, 0.8, 1.1)
        )
    probes.insert(
        0,
        Probe(
            "ip1", "conv2d_5", "structure", "kernel", 1, (1, 1, 32, 32), "born", note="(1,1,32,32) against (1,1,64,32)"
        ),
    )
    findings = (
        Finding(
            "conv-groups", "divergence", "ip1", "conv2d_5", "structure",
            "The filters of ip1 are 32 deep on 64 channels, so MatConvNet runs two groups of filters; the Keras layer "
            "is dense over all 64: 2048 weights against 1024.",
            "keras.layers.Conv2D(32, 1, groups=2)", True, True,
        ),
        Finding(
            "optimizer-kind", "divergence", "", "", "update",
            "MatConvNet trains with SGD, momentum 0.9; the Keras model is compiled with RMSprop.",
            "keras.optimizers.SGD(0.01, momentum=0.9)", True, False,
        ),
        Finding(
            "optimizer-learning-rate", "divergence", "", "", "update", "0.01 against 0.0001.",
            "learning_rate=0.01", True,
        ),
        Finding(
            "optimizer-weight-decay-as-lr-decay", "divergence", "", "", "update",
            "decay=0.0005 shrinks Keras' learning rate at every update; MatConvNet's shrinks the weights.",
            "kernel_regularizer=keras.regularizers.L2(0.00025)",
        ),
        Finding(
            "initializer", "note", "conv1", "conv2d_1", "weights",
            "The reference's filters are spread like a normal of deviation 0.0125, Keras' file says GlorotUniform.",
            'kernel_initializer=keras.initializers.RandomNormal(stddev=0.0125)',
        ),
        Finding("metric", "note", "", "", "loss", "top-1 error against binary_accuracy.", 'metrics=["accuracy"]'),
    )  # fmt: skip
    recipe = (
        RecipeRow("loss", "softmaxlog, mean", "categorical_crossentropy, mean", True),
        RecipeRow("optimizer", "SGD momentum 0.9", "RMSprop rho 0.9, epsilon 1e-7", False),
        RecipeRow("learning rate", "0.01 ×10, 0.001 ×10, 0.0001 ×10", "0.0001 / (1 + 0.0005·t)", False),
        RecipeRow("weight decay", "0.0005", "0", False),
        RecipeRow("metrics", "top-1 error", "binary_accuracy", False),
        RecipeRow("batch size", "256", "", False, True),
    )
    return Report(
        verdict="diverged",
        first_divergence=FirstDivergence(
            "structure", "ip1", "conv2d_5", "kernel", 1, "born",
            sentence="ip1 has filters of 1×1×32×32 (two groups on 64 channels) where conv2d_5 has 1×1×64×32.",
        ),
        findings=findings,
        probes=tuple(probes),
        layers=tuple(layers),
        recipe=recipe,
        outcome=Outcome(32, 3, 17, 16),
        notes=("the first rate of the schedule is used on both sides", "weights of the Keras file: independent"),
        environment=ENVIRONMENT,
        inputs=INPUTS,
        options=OPTIONS,
    )  # fmt: skip


def matching() -> Report:
    """Everything agrees."""
    layers = tuple(
        LayerRow(n, k, kind, kind, shape, {"structure": ("match", None, None), "forward": MATCH, "backward": MATCH})
        for n, k, kind, shape in NETWORK
    )
    probes = tuple(
        Probe(n, k, "update", "kernel", step, (3, 3), "match", 1e-9, 1e-7, 1e-9, 0.9, 1.2)
        for n, k, _, _ in NETWORK[:3]
        for step in (1, 2, 3)
    )
    return dataclasses.replace(
        divergent(), verdict="match", first_divergence=None, findings=(), layers=layers, probes=probes,
        outcome=Outcome(32, 0, 17, 17), notes=(),
    )  # fmt: skip


def unverified() -> Report:
    """A layer without a partner that could not be observed."""
    rows = (
        LayerRow("conv1", "conv2d_1", "conv 3×3", "conv 3×3", (26, 26, 8), {"forward": MATCH}),
        LayerRow("", "gaussian_noise", "", "GaussianNoise", (26, 26, 8), {"forward": ("unverified", None, None)}),
    )
    probes = (Probe("", "gaussian_noise", "forward", "output", status="unverified", note="random, without a mask"),)
    return dataclasses.replace(
        divergent(), verdict="unverified", first_divergence=None, findings=(), layers=rows, probes=probes, outcome=None
    )


def long() -> Report:
    """150 layers; one wrong epsilon in the middle, everything behind it inherited."""
    rows, probes = [], []
    for number in range(150):
        name, keras_name = (
            f"res{number // 10}_branch{number % 10}_conv",
            f"stage{number // 10}/block{number % 10}/conv2d",
        )
        status = "match" if number < 71 else "born" if number == 71 else "inherited"
        forward = (
            status,
            {"match": 1.0 + number % 7 / 10, "born": 41_000.0, "inherited": 0.9}[status],
            1e-6 * (number + 1),
        )
        cells = {"structure": ("match", None, None), "forward": forward, "backward": forward}
        rows.append(LayerRow(name, keras_name, "conv 3×3, pad 1", "conv 3×3, pad 1", (56, 56, 256), cells))
        probes += [
            Probe(name, keras_name, "update", "kernel", s, (3, 3, 256, 256), "match", 1e-9, 1e-7, 1e-9, 1.1, 1.2)
            for s in (1, 2, 3)
        ]
    return dataclasses.replace(
        divergent(), layers=tuple(rows), probes=tuple(probes), findings=divergent().findings[:1],
        first_divergence=FirstDivergence(
            "forward", "res7_branch1_conv", "stage7/block1/conv2d", "output", 1, "born", 41_000.0, 7.2e-5, 1e-8
        ),
    )  # fmt: skip
