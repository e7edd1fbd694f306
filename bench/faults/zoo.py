"""The nets of the benchmark, their weights and widths from the seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.faults.nets import Maker, Net

Rng = np.random.Generator


def lenet(rng: Rng) -> Net:
    """Two convolutions and poolings, a fully connected end."""
    m = Maker("lenet", rng, (22, 22, 3))
    m.conv("conv1", 5, int(rng.integers(4, 9)))
    m.pool("pool1", "max", 2, 2)
    m.conv("conv2", 3, 8)
    m.relu("relu2")
    m.pool("pool2", "avg", 2, 2)
    m.fc("fc", 12)
    m.relu("relu3")
    m.fc("classifier", 5)
    m.loss()
    return m.net()


def alex(rng: Rng) -> Net:
    """LRN, groups, pads on unlike sides, poolings that round up, a leaky ReLU, dropout."""
    m = Maker("alex", rng, (24, 24, 3))
    m.conv("conv1", 5, 8, stride=2, pad=2)
    m.relu("relu1")
    m.lrn("norm1", (5, 1, 0.02, 0.75))
    m.pool("pool1", "max", 3, 2, pad=(0, 1, 0, 1))
    m.conv("conv2", 3, 12, groups=2, pad=(2, 0, 2, 0))
    m.relu("relu2", leak=0.1)
    m.pool("pool2", "avg", 3, 2, pad="same")
    m.fc("fc6", 16)
    m.relu("relu6")
    m.add("drop6", "dropout", rate=0.5)
    m.fc("fc7", 6)
    m.loss()
    return m.net()


def normalised(rng: Rng) -> Net:
    """Batch normalisation behind strided convolutions, a sigmoid."""
    m = Maker("normalised", rng, (19, 19, 3))
    m.conv("conv1", 3, 6, stride=2)
    m.bnorm("bn1", rate=0.05)
    m.relu("relu1")
    m.conv("conv2", 3, 8, pad=1)
    m.bnorm("bn2")
    m.relu("relu2", leak=0.2)
    m.pool("pool2", "max", 2, 2)
    m.fc("fc", 10)
    m.add("sig", "sigmoid")
    m.fc("classifier", 4)
    m.loss()
    return m.net()


def residual(rng: Rng) -> Net:
    """Two residual blocks, one with a projection, a global average."""
    m = Maker("residual", rng, (12, 12, 3), "dag")
    m.conv("conv1", 3, 8, pad=1, bias=False)
    m.bnorm("bn1")
    x = m.relu("relu1")
    m.conv("conv2a", 3, 8, pad=1, bias=False)
    m.bnorm("bn2a")
    m.relu("relu2a")
    m.conv("conv2b", 3, 8, pad=1, bias=False)
    y = m.bnorm("bn2b")
    m.add("sum2", "sum", (x, y))
    x = m.relu("relu2")
    m.conv("conv3p", 1, 12, x, stride=2, bias=False)
    side = m.bnorm("bn3p")
    m.conv("conv3a", 3, 12, x, stride=2, pad=(1, 1, 1, 1), bias=False)
    m.bnorm("bn3a", rate=0.05)
    m.relu("relu3a", leak=0.1)
    m.conv("conv3b", 3, 12, pad=1)
    y = m.bnorm("bn3b")
    m.add("sum3", "sum", (side, y))
    m.relu("relu3")
    m.pool("gap", "avg", 6, 1)
    m.fc("fc", 5)
    m.loss()
    return m.net()


def inception(rng: Rng) -> Net:
    """Branches of unlike depth, dilation, groups, a scale, poolings with pads."""
    m = Maker("inception", rng, (13, 13, 3), "dag")
    m.conv("conv1", 3, 8, pad=1)
    m.relu("relu1")
    x = m.pool("pool1", "max", 3, 2, pad="same")
    m.conv("branch_a", 1, 6, x)
    a = m.relu("relu_a")
    m.conv("branch_b1", 1, 4, x)
    m.relu("relu_b1")
    m.conv("branch_b2", 3, 6, pad=2, dilate=2)
    b = m.relu("relu_b2")
    m.pool("pool_c", "max", 3, 1, x, pad=1)
    c = m.conv("branch_c", 1, 6)
    m.conv("branch_d", 3, 6, x, groups=2, pad=1)
    d = m.relu("relu_d", leak=0.1)
    m.add("concat", "concat", (a, b, c, d))
    m.scale("scale")
    m.relu("relu2")
    m.pool("pool2", "avg", 3, 1, pad=1)
    m.fc("fc", 5)
    m.loss()
    return m.net()


def two_heads(rng: Rng) -> Net:
    """Two losses on one trunk."""
    m = Maker("two_heads", rng, (10, 10, 3), "dag")
    m.conv("conv1", 3, 6)
    m.bnorm("bn1")
    x = m.relu("relu1", leak=0.05)
    m.conv("branch_a", 3, 6, x, pad=1)
    a = m.relu("relu_a")
    m.pool("pool_b", "avg", 3, 1, x, pad=1)
    b = m.conv("branch_b", 3, 6, pad=1)
    s = m.add("sum", "sum", (a, b))
    m.loss(m.fc("head1", 4, s), "loss")
    m.loss(m.fc("head2", 3, s), "loss2")
    return m.net(options={"derOutputs": _der_outputs()})


def _der_outputs() -> np.ndarray:
    made = np.empty((1, 4), dtype=object)
    made[0] = ["objective", 1.0, "objective_loss2", 0.5]
    return made


def square(rng: Rng) -> Net:
    """Layers with as many inputs as outputs, so that every transposition fits."""
    m = Maker("square", rng, (9, 9, 6))
    m.conv("conv1", 3, 6, pad=1)
    m.relu("relu1", leak=0.1)
    m.conv("conv2", 3, 6, pad=1)
    m.bnorm("bn2")
    m.relu("relu2")
    m.pool("pool2", "max", 3, 3)
    m.fc("fc", 54)
    m.add("sig", "sigmoid")
    m.fc("fc2", 54)
    m.relu("relu3")
    m.fc("classifier", 6)
    m.loss()
    return m.net()


def strided(rng: Rng) -> Net:
    """Strides so large that shapes hide other pads."""
    m = Maker("strided", rng, (31, 31, 3))
    m.conv("conv1", 7, 8, stride=4, pad=3)
    m.relu("relu1", leak=0.1)
    m.conv("conv2", 5, 8, groups=2, stride=3, pad=2)
    m.relu("relu2")
    m.fc("fc", 5)
    m.loss()
    return m.net()


def deep(rng: Rng) -> Net:
    """Twenty to fifty layers."""
    m = Maker("deep", rng, (12, 12, 4), "dag" if rng.random() < 0.5 else "simple")
    for at in range(int(rng.integers(7, 17))):
        m.conv(f"conv{at}", 3, 8, pad=1, bias=False)
        m.bnorm(f"bn{at}", rate=float(rng.choice([0.01, 0.1])))
        m.relu(f"relu{at}", leak=float(rng.choice([0, 0.1])))
    m.pool("pool", "max", 2, 2)
    m.fc("fc", 5)
    m.loss()
    return m.net()


def wide(rng: Rng) -> Net:
    """Batch normalisation over more than 1e5 values per channel (with 8 images)."""
    m = Maker("wide", rng, (114, 114, 3))
    m.conv("conv1", 3, 8)
    m.bnorm("bn1")
    m.relu("relu1")
    m.pool("pool1", "max", 4, 4)
    m.conv("conv2", 3, 8, stride=2)
    m.bnorm("bn2")
    m.relu("relu2", leak=0.1)
    m.fc("fc", 5)
    m.loss()
    return m.net()


def broad(rng: Rng) -> Net:
    """As many channels as nets in use have: sums of thousands of terms."""
    m = Maker("broad", rng, (14, 14, 3))
    for at, outputs in enumerate((64, 128, 256)):
        m.conv(f"conv{at}", 3, outputs, pad=1)
        m.bnorm(f"bn{at}")
        m.relu(f"relu{at}", leak=float(rng.choice([0, 0.01])))
        m.pool(f"pool{at}", "max", 2, 2)
    m.fc("fc", 512)
    m.relu("relu_fc")
    m.add("drop", "dropout", rate=0.5)
    m.fc("classifier", 100)
    m.loss()
    return m.net()


def chain(rng: Rng) -> Net:
    """A net that nobody thought of: unlike strides and pads, groups, activations, poolings."""
    size = (int(rng.integers(12, 25)), int(rng.integers(12, 25)), int(rng.integers(1, 5)))
    m = Maker("chain", rng, size)
    for at in range(int(rng.integers(1, 9))):
        _random_step(m, rng, at)
    m.fc("fc", 8)
    m.relu("relu_fc", leak=float(rng.choice([0, 0.1])))
    m.fc("classifier", int(rng.integers(2, 7)))
    m.loss()
    return m.net(
        rate=float(rng.choice([0.1, 0.01, 0.003])),
        momentum=float(rng.choice([0.9, 0.5, 0.95])),
        decay=float(rng.choice([0, 0.0005, 0.01])),
    )


def _random_step(m: Maker, rng: Rng, at: int) -> None:
    h, w, c = m.shape()
    window = [int(k) for k in rng.integers(1, 4, 2)]
    stride = [int(s) for s in rng.integers(1, 3, 2)] if min(h, w) > 8 else [1, 1]
    pad = [int(p) for k in window for p in rng.integers(0, k, 2)]
    after = [(e + pad[2 * i] + pad[2 * i + 1] - window[i]) // stride[i] + 1 for i, e in enumerate((h, w))]
    if min(after) < 3:
        window, stride, pad = [3, 3], [1, 1], [1, 1, 1, 1]
    groups = 2 if c % 2 == 0 and rng.random() < 0.4 else 1
    m.conv(f"conv{at}", window, int(rng.integers(2, 7)) * 2, groups=groups, pad=pad, stride=stride)
    if rng.random() < 0.4:
        m.bnorm(f"bn{at}", rate=float(rng.choice([0.01, 0.05, 0.1, 1.0])), epsilon=float(rng.choice([1e-5, 1e-4])))
    choice = rng.random()
    if choice < 0.7:
        m.relu(f"relu{at}", leak=float(rng.choice([0, 0, 0.01, 0.2])))
    elif choice < 0.85:
        m.add(f"sig{at}", "sigmoid")
    if rng.random() < 0.4 and min(m.shape()[:2]) > 5:
        method, width, step = str(rng.choice(["max", "avg"])), int(rng.integers(2, 4)), int(rng.integers(1, 3))
        m.pool(f"pool{at}", method, width, step, pad="same" if rng.random() < 0.5 else 0)
    if rng.random() < 0.2:
        m.add(f"drop{at}", "dropout", rate=float(rng.choice([0.1, 0.5])))


def graph(rng: Rng) -> Net:
    """A random DagNN of blocks: residual, branching, or plain."""
    m = Maker("graph", rng, (int(rng.integers(8, 15)), int(rng.integers(8, 15)), 3), "dag")
    m.conv("stem", 3, 8, pad=1)
    m.relu("stem_relu")
    for at in range(int(rng.integers(1, 5))):
        x, kind = m.last, rng.choice(["residual", "branches", "plain"])
        if kind == "residual":
            m.conv(f"c{at}a", 3, m.shape(x)[2], pad=1, bias=bool(rng.random() < 0.5))
            m.bnorm(f"b{at}a")
            m.relu(f"r{at}a", leak=float(rng.choice([0, 0.1])))
            y = m.conv(f"c{at}b", 3, m.shape(x)[2], pad=1)
            m.add(f"s{at}", "sum", (x, y) if rng.random() < 0.5 else (y, x))
        elif kind == "branches":
            ends = [m.relu(f"r{at}{i}", m.conv(f"c{at}{i}", k, 4, x, pad=k // 2)) for i, k in enumerate((1, 3, 5))]
            m.add(f"cat{at}", "concat", ends)
            m.scale(f"g{at}")
        else:
            m.conv(f"c{at}", 3, 8, pad=1, groups=2)
            m.relu(f"r{at}")
    m.pool("gap", "avg", int(min(m.shape()[:2])), 1) if rng.random() < 0.5 else None
    m.fc("fc", 5)
    m.loss()
    return m.net()


NETS: dict[str, Callable[[Rng], Net]] = {
    make.__name__: make
    for make in (
        lenet,
        alex,
        normalised,
        residual,
        inception,
        two_heads,
        square,
        strided,
        deep,
        wide,
        broad,
        chain,
        graph,
    )
}
