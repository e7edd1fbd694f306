"""A sample of the fault benchmark: planted faults are found in their place with their cause, right ports match."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.faults.cases import cases
from bench.faults.run import Result, Score, run_case
from bench.faults.scene import PHASES
from bench.faults.table import aims

SEED = 0

FAILING: dict[str, str] = {}
"""Case → why it fails today."""

UNFIXED: dict[str, str] = {}
"""Case → why its fix is not carried out."""

SAMPLE = [
    *FAILING,
    "channel-order/groups of filters@alex",
    "channel-order/within a group@alex",
    "weights-scaled/1.00007@chain",
    "double/flip and factor, one layer@alex",
    "nondeterminism/noise of 1e-3@lenet",
    "optimizer-learning-rate/halved after two steps@lenet",
    "input-scale/255@lenet",
    "layer-order/relu before bnorm@residual",
    "loss-kind/hinge@residual",
    "pool-ceil/floor for ceil@alex",
    "softmax-double/two softmax layers@lenet",
    "activation-missing/relu@inception",
    "activation-slope/times 1.0002@inception",
    "bn-epsilon/1.3e-05@normalised",
    "bn-epsilon/0.001 in eval@residual",
    "dtype-low-precision/mixed_float16@lenet",
    "flatten-order/column-major@lenet",
    "kernel-io-transpose/convolution@square",
    "layer-missing/skip connection@residual",
    "lrn-alpha/divided by the window@alex",
    "optimizer-momentum/0.9002@alex",
    "optimizer-weight-decay-missing/biases spared@lenet",
    "padding-size/one less, same shape@strided",
    "pool-avg-count-pad/counts zeros@inception",
    "unknown/gradient times 1.0002@inception",
    "weights-differ/one element@residual",
    "double/epsilon and no decay@normalised",
    "double/flip and bias, one layer@lenet",
]
CLEAN = [
    "clean/zeros@normalised",
    "activation-slope/masked, bright images@alex",
    "optimizer-clipping/masked, never bites@lenet",
    "pool-pad-value/masked, behind a ReLU@inception",
    "clean/hidden channels permuted@residual",
    "clean/whole numbers@alex",
    "clean/plain@two_heads",
    "clean/eval@inception",
    "clean/fused, logits@inception",
    "clean/names dealt anew@normalised",
    "clean/another order, Keras' own names@inception",
    "clean/tf_keras@residual",
    "clean/.keras@residual",
    "clean/.h5 of tf_keras@lenet",
    "clean/Adam@lenet",
    "clean/filters decay only@lenet",
    "clean/channels of little variance@normalised",
    "clean/any 0@graph",
]


def _marked(names):
    return [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=FAILING[name])) if name in FAILING else name
        for name in names
    ]


@pytest.mark.parametrize("name", _marked(SAMPLE))
def test_a_planted_fault_is_found_in_its_place_with_its_cause(name):
    result = run_case(SEED, name)
    known = {"not confirmed", "fix not verified"} if name in UNFIXED else set()
    assert not set(result.failed) - known, f"{result.expected}\n{result.said}"


@pytest.mark.parametrize("name", _marked(CLEAN))
def test_a_right_port_matches(name):
    result = run_case(SEED, name)
    assert result.passed, result.said


def test_the_list_is_long_enough_and_the_same_for_every_seed():
    made = cases(0)
    assert [case.id for case in made] == [case.id for case in cases(1)]
    kinds = Counter(case.kind for case in made)
    assert kinds["clean"] >= 150
    assert len({case.id.split("@")[0] for case in made if case.kind == "fault"}) >= 60
    assert kinds["double"] >= 10
    assert kinds["masked"] >= 10


def test_one_seed_always_makes_the_same_case(tmp_path):
    import zlib

    import numpy as np

    from bench.faults.matlab import save

    case = next(case for case in cases(3) if case.id == "clean/any 0@graph")
    held = []
    for at in range(2):
        scene = case.scene(np.random.default_rng([3, zlib.crc32(case.id.encode())]))
        bytes_ = save(tmp_path / f"{at}.mat", scene.ref).read_bytes()
        held.append((scene.spelling, scene.options, bytes_[128:], scene.batch["x"].tobytes()))
    assert held[0] == held[1]


def score(**changes):
    values = dict(cause="x", detected=True, located=True, named=True, confirmed=True, fixed=True)
    return Score(**(values | changes))


def test_the_aims_hold_only_if_every_one_of_them_does():
    good = Result("a", "fault", (score(),))
    assert aims([good] * 20)
    assert not aims([good] * 20 + [Result("b", "fault", (score(detected=False),), False)])
    assert not aims([good] * 20 + [Result("b", "fault", (score(located=False),), False)])
    assert not aims([good] * 20 + [Result("b", "fault", (score(named=False),), False)])
    assert aims([good] * 39 + [Result("b", "fault", (score(named=False),), False)])
    assert not aims([good] * 5 + [Result("b", "fault", (score(fixed=False),), False)])
    assert not aims([good] * 20 + [Result("b", "clean", (), False)])


def test_every_phase_has_a_fault():
    import numpy as np

    seen = set()
    for case in cases(0):
        if case.kind == "fault":
            seen |= {word for p in case.scene(np.random.default_rng(1)).planted for word in p.phase.split()}
    assert seen == set(PHASES)
