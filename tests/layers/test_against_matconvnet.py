"""Every operator against recordings of MatConvNet's own code: output and every derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from parity.frameworks.matconvnet.blocks import BLOCKS
from parity.layers import (
    LRN,
    BatchNorm,
    BilinearSampler,
    Context,
    Conv,
    ConvTranspose,
    DistanceLoss,
    Dropout,
    Loss,
    Pool,
    ROIPooling,
)
from parity.layers.batchnorm import given_moments
from tests.frameworks.matconvnet.golden import four, golden, nhwc, record
from tests.layers.cases import CASES, MAKERS, run

DOUBLE = 1e-9
SINGLE = {"x": 4e-7, "dzdx": 7e-7, "dzdw": 1.3e-6}
SINGLE_BNORM = {"x": 1.3e-6, "dzdx": 1.5e-6, "dzdw": 1.2e-5}
"""What MatConvNet's own single runs differ by from its double runs; eight times that is allowed."""
APPROXIMATE = 5e-2
"""LRN with the powers of MatConvNet's CPU build: a few per mille in value and a few per cent in derivatives."""


@pytest.mark.parametrize(
    ("family", "recorded", "make"),
    [pytest.param(f, r, m, id=f"{f}-{at}-{r.get('desc', r.get('name'))[:30]}") for f, at, r, m in CASES],
)
def test_as_matconvnet_computes_it(family: str, recorded: Any, make: Any) -> None:
    case = make(recorded)
    errors = run(case)
    single = case.output.dtype == np.float32
    name = f"{family}, single" if single else family
    record(name if case.exact else f"{family}, approximate powers", max(errors.values()))
    floors = SINGLE_BNORM if isinstance(case.kind, BatchNorm) else SINGLE
    for what, error in errors.items():
        assert error < (APPROXIMATE if not case.exact else 8 * floors[what] if single else DOUBLE), what


def test_no_family_is_left_out() -> None:
    counts = {family: len(golden(file)["cases"]) for family, (file, _) in MAKERS.items()}
    assert min(counts.values()) > 0
    assert len(CASES) == sum(counts.values())
    blocks = {case["type"] for case in golden("ops_dagblocks")["cases"]}
    assert blocks <= set(BLOCKS)


def test_every_conv_case_has_its_groups() -> None:
    seen = set()
    for case in golden("ops_conv")["cases"]:
        if case["w"].size:
            kind = Conv.from_matconvnet(case | {"dilate": case["dilate"]}, {"kernel": four(case["w"]).shape})
            seen.add(kind.fit([nhwc(case["x"]).shape[1:]], {"kernel": four(case["w"]).shape}).groups)
    assert {1, 2, 4} <= seen


def test_ties_differ_between_the_two_orders() -> None:
    x = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]], dtype=torch.float64)
    wanted = {"column": [[0, 0], [1, 0]], "row": [[0, 1], [0, 0]]}
    for ties, expected in wanted.items():
        leaf = x.clone().requires_grad_()
        Pool("max", (2, 2)).forward([leaf], {}, Context(ties=ties)).sum().backward()
        assert leaf.grad.int().tolist() == [[expected]]


@pytest.mark.parametrize("ties", ["column", "row"])
@pytest.mark.parametrize(("size", "stride", "pad"), [((3, 2), (1, 1), (0, 0, 0, 0)), ((2, 3), (2, 1), (1, 1, 2, 0))])
def test_the_winner_of_a_tie_by_hand(
    ties: str, size: tuple[int, int], stride: tuple[int, int], pad: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, (2, 3, 6, 7)).astype(np.float64)
    leaf = torch.from_numpy(x).requires_grad_()
    y = Pool("max", size, stride, pad).forward([leaf], {}, Context(ties=ties))
    weight = rng.normal(size=tuple(y.shape))
    y.backward(torch.from_numpy(weight))
    padded = np.pad(x, ((0, 0), (0, 0), pad[:2], pad[2:]), constant_values=-np.inf)
    expected = np.zeros_like(padded)
    for n, c, i, j in np.ndindex(*y.shape):
        window = padded[n, c, i * stride[0] : i * stride[0] + size[0], j * stride[1] : j * stride[1] + size[1]]
        order = "F" if ties == "column" else "C"
        at = np.unravel_index(np.argmax(window.ravel(order=order)), window.shape, order=order)
        expected[n, c, i * stride[0] + at[0], j * stride[1] + at[1]] += weight[n, c, i, j]
    h, w = x.shape[2:]
    np.testing.assert_allclose(leaf.grad.numpy(), expected[:, :, pad[0] : pad[0] + h, pad[2] : pad[2] + w], atol=1e-12)


def test_nan_never_wins_a_maximum() -> None:
    x = torch.tensor([[[[float("nan"), 1.0], [2.0, 0.0]]]], requires_grad=True)
    y = Pool("max", (2, 2)).forward([x], {}, Context())
    y.backward()
    assert y.item() == 2
    assert x.grad.tolist() == [[[[0, 0], [1, 0]]]]


def test_lrn_does_not_divide_alpha_as_torch_does() -> None:
    x = torch.randn(2, 7, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = LRN(5, 2.0, 0.3, 0.75).forward([x], {}, Context())
    torch.testing.assert_close(y, torch.nn.functional.local_response_norm(x, 5, 0.3 * 5, 0.75, 2.0))


def test_frozen_moments_have_the_true_derivative() -> None:
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    gamma, mean, deviation = (
        torch.tensor(v, dtype=torch.float64) for v in ([2.0, 3.0, 4.0], [0.1, 0.2, 0.3], [0.5, 1.0, 2.0])
    )
    given_moments(x, gamma, torch.zeros(3, dtype=torch.float64), mean, deviation, True).sum().backward()
    torch.testing.assert_close(x.grad, (gamma / deviation).reshape(1, 3, 1, 1).expand_as(x))


def test_dropout_in_eval_mode_hands_its_input_on() -> None:
    x = torch.ones(2, 3, 1, 1)
    assert Dropout(0.5).forward([x], {}, Context(mode="eval", mask=torch.zeros_like(x))) is x


def test_raw_values_by_version() -> None:
    mean = Loss("softmaxlog")
    assert mean.raw_value(0.5, 4, "head") == 0.5
    assert mean.raw_value(0.5, 4, "beta25") == 2.0
    assert Loss("softmaxlog", "sum").raw_value(2.0, 4, "head") == 0.5
    with pytest.raises(ValueError, match="beta25"):
        mean.raw_value(0.5, 4, "beta24")


def test_a_grid_before_and_behind_the_map() -> None:
    """MatConvNet's CPU build is not symmetric: nothing comes from just before the map, half a cell from just behind."""
    x = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    grid = torch.zeros(1, 3, 2, 1, dtype=torch.float64)
    grid[0, :, 0, 0] = torch.tensor([-1.5, 1.5, 0.5])
    y = BilinearSampler().forward([x, grid], {}, Context())
    assert y.flatten().tolist() == [0.0, 0.5, 1.0]


def test_a_region_of_one_point_and_one_outside() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    rois = torch.tensor([[1.0, 2, 2, 2, 2], [1, 9, 9, 12, 12]]).T.reshape(1, 1, 5, 2)
    y = ROIPooling("max", (1, 1)).forward([x, rois], {}, Context())
    assert y.flatten().tolist() == [5.0, 0.0]


@pytest.mark.parametrize("spell", [(1, 1, 5, 3), (3, 5, 1, 1)])
def test_regions_as_columns_or_as_images(spell: tuple[int, ...]) -> None:
    x = torch.arange(24.0).reshape(2, 1, 3, 4)
    rois = torch.tensor([[1.0, 1, 1, 4, 3], [2, 1, 1, 2, 2], [2, 3, 2, 4, 3]])
    given = rois.T.reshape(spell) if spell[0] == 1 else rois.reshape(spell)
    y = ROIPooling("max", (1, 1)).forward([x, given], {}, Context())
    assert y.flatten().tolist() == [11.0, 17.0, 23.0]


def test_groups_of_a_transposed_convolution_are_torchs() -> None:
    kernel = torch.randn(3, 2, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    kind = ConvTranspose(6, (3, 2), (2, 2), (1, 0, 0, 1), groups=3, bias=False)
    y = kind.forward([x], {"kernel": kernel}, Context())
    whole = torch.nn.functional.conv_transpose2d(x, kernel.permute(3, 2, 0, 1), stride=2, groups=3)
    torch.testing.assert_close(y, whole[:, :, 1:, :-1])


def test_instance_weights_that_a_file_holds() -> None:
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    labels = torch.tensor([[[0, 1], [2, -1]], [[1, 1], [0, 2]]])
    plane = np.array([[1.0, 2.0], [0.5, 0.0]])
    kind = Loss.from_matconvnet({"loss": "softmaxlog", "instanceWeights": plane}, {})
    weights = torch.from_numpy(plane).expand(2, 2, 2)
    expected = Loss("softmaxlog").forward([x], {}, Context(labels=labels, weights=weights))
    torch.testing.assert_close(kind.forward([x], {}, Context(labels=labels)), expected)
    doubled = kind.forward([x], {}, Context(labels=labels, weights=2 * torch.ones(2, 1, 1, dtype=torch.float64)))
    torch.testing.assert_close(doubled, 2 * expected)
    binary = Loss.from_matconvnet({"loss": "logistic", "instanceWeights": plane}, {})
    signs = torch.sign(x)
    torch.testing.assert_close(
        binary.forward([x], {}, Context(labels=signs)),
        Loss("logistic").forward([x], {}, Context(labels=signs, weights=weights.unsqueeze(1))),
    )
    with pytest.raises(ValueError, match="one batch"):
        Loss.from_matconvnet({"loss": "log", "instanceWeights": np.ones((1, 1, 1, 2))}, {})


def test_a_distance_to_a_target_is_a_loss() -> None:
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    target = torch.randn(2, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    fields = {"type": "pdist", "p": 2.0, "noRoot": True, "aggregate": False, "epsilon": 1e-3, "instanceWeights": []}
    kind = DistanceLoss.from_matconvnet(fields, {})
    assert (kind.target, kind.reduction, kind.root) == ("values", "sum", False)
    total = kind.forward([x], {}, Context(labels=target))
    torch.testing.assert_close(total, ((x - target) ** 2).sum())
    assert kind.raw_value(3.0, 2, "head") == kind.raw_value(3.0, 2, "beta25") == 3.0
    mean = DistanceLoss(reduction="mean", root=False)
    torch.testing.assert_close(mean.forward([x], {}, Context(labels=target)), total / 2)
    assert mean.raw_value(1.5, 2, "head") == 3.0
