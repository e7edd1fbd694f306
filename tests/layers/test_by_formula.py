"""MatConvNet's operators against their formulas, cell by cell, on shapes that no recording has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from parity.layers import (
    LRN,
    BilinearSampler,
    Context,
    ConvTranspose,
    DistanceLoss,
    Kind,
    NormalizeLp,
    NormOffset,
    PDist,
    ROIPooling,
    Scale,
    SpatialNorm,
)

SEEDS = range(6)


def tensor(array: np.ndarray) -> torch.Tensor:
    """n h w c as n c h w."""
    return torch.from_numpy(np.moveaxis(array, -1, 1).copy())


def check(kind: Kind, expected: np.ndarray, *arrays: np.ndarray, slopes: bool = True, **params: np.ndarray) -> None:
    """The layer gives what is expected (n h w c), and its derivatives are those of finite differences."""
    inputs = [tensor(a) for a in arrays]
    values = {role: torch.from_numpy(v) for role, v in params.items()}
    y = kind.forward(inputs, values, Context())
    made = np.moveaxis(y.numpy(), 1, -1)
    np.testing.assert_allclose(made, expected, rtol=1e-10, atol=1e-12)
    assert kind.output_shape([a.shape[1:] for a in arrays]) == made.shape[1:]
    if not slopes:
        return
    leaves = [t.clone().requires_grad_() for t in (*inputs, *values.values())]

    def run(*given: torch.Tensor) -> torch.Tensor:
        return kind.forward(given[: len(inputs)], dict(zip(values, given[len(inputs) :], strict=True)), Context())

    assert torch.autograd.gradcheck(run, leaves, eps=1e-6, atol=1e-6, rtol=1e-5, fast_mode=True)


def draw(seed: int) -> tuple[np.random.Generator, list[int]]:
    """Random numbers, and (n, h, w, c) with extents of 1 among them."""
    rng = np.random.default_rng(seed)
    return rng, [int(rng.integers(1, 4)), int(rng.integers(1, 6)), int(rng.integers(1, 6)), int(rng.integers(1, 5))]


@pytest.mark.parametrize("seed", SEEDS)
def test_convt(seed: int) -> None:
    rng, (n, h, w, _) = draw(seed)
    groups, each, depth = (int(v) for v in rng.integers(1, 4, 3))
    fh, fw, uy, ux = (int(v) for v in rng.integers(1, 5, 4))
    full = ((h - 1) * uy + fh, (w - 1) * ux + fw)
    crop = [int(rng.integers(0, (extent - 1) // 2 + 1)) for extent in full for _ in range(2)]
    x, kernel = rng.normal(size=(n, h, w, groups * each)), rng.normal(size=(fh, fw, depth, groups * each))
    bias = rng.normal(size=groups * depth)
    y = np.zeros((n, *full, groups * depth))
    for i, j, u, v, c in np.ndindex(h, w, fh, fw, groups * each):
        g = c // each
        y[:, i * uy + u, j * ux + v, g * depth : (g + 1) * depth] += x[:, i, j, c, None] * kernel[u, v, :, c]
    y = y[:, crop[0] : full[0] - crop[1], crop[2] : full[1] - crop[3]] + bias
    fields = {"upsample": np.array([[uy, ux]]), "crop": np.array([crop]), "numGroups": np.array([[groups]])}
    shapes: dict[str, tuple[int, ...]] = {"kernel": kernel.shape, "bias": bias.shape}
    kind = ConvTranspose.from_matconvnet(fields, shapes).fit([x.shape[1:]], shapes)
    check(kind, y, x, kernel=kernel, bias=bias)


@pytest.mark.parametrize("seed", SEEDS)
def test_lrn(seed: int) -> None:
    rng, shape = draw(seed)
    shape[3] = int(rng.integers(1, 9))
    size, kappa, alpha, beta = int(rng.integers(1, 8)), *rng.uniform(0.2, 2, 3)
    x = rng.normal(size=shape)
    before = (size - 1) // 2
    window = np.stack([(x[..., max(k - before, 0) : k + size - before] ** 2).sum(-1) for k in range(shape[3])], -1)
    check(LRN.from_matconvnet({"param": np.array([[size, kappa, alpha, beta]])}, {}),
          x * (kappa + alpha * window) ** -beta, x)  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_spnorm(seed: int) -> None:
    rng, shape = draw(seed)
    (ph, pw), alpha, beta = rng.integers(1, 6, 2), *rng.uniform(0.2, 2, 2)
    x = rng.normal(size=shape)
    mean = np.zeros_like(x)
    for i, j in np.ndindex(*shape[1:3]):
        top, left = i - (ph - 1) // 2, j - (pw - 1) // 2
        cells = x[:, max(top, 0) : top + ph, max(left, 0) : left + pw] ** 2
        mean[:, i, j] = cells.mean((1, 2))
    check(SpatialNorm.from_matconvnet({"param": np.array([[ph, pw, alpha, beta]])}, {}),
          x * (1 + alpha * mean) ** -beta, x)  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_noffset_and_normalizelp(seed: int) -> None:
    rng, shape = draw(seed)
    x = rng.normal(size=shape)
    alpha, beta = rng.uniform(0.2, 2, 2)
    total = (x**2).sum(-1, keepdims=True)
    check(NormOffset(alpha, beta), x - alpha * np.maximum(total, 1e-8) ** beta, x)
    check(NormalizeLp(), x / np.sqrt(total + 0.01), x)
    flat = (np.abs(x) ** 4).sum((1, 2), keepdims=True)
    check(NormalizeLp(4.0, 0.1, spatial=True), x / (flat + 0.1) ** 0.25, x)


@pytest.mark.parametrize("p", [0.7, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("root", [True, False])
def test_pdist(p: float, root: bool) -> None:
    rng = np.random.default_rng(int(10 * p))
    x, other, weights = rng.normal(size=(2, 3, 1, 4)), rng.normal(size=(2, 1, 1, 4)), rng.uniform(size=(2, 3, 1, 1))
    d = (np.abs(x - other) ** p).sum(-1, keepdims=True)
    d = d ** (1 / p) if root else d
    true = p >= 1 or not root  # a root of p below 1 is differentiated otherwise by vl_nnpdist
    check(PDist(p, root, aggregate=False, epsilon=1e-30), d * weights, x, other, weights, slopes=true)
    total = DistanceLoss(p=p, root=root).forward([tensor(x)], {}, Context(labels=tensor(other)))
    np.testing.assert_allclose(total.item(), d.sum())


@pytest.mark.parametrize("seed", SEEDS)
def test_scale(seed: int) -> None:
    rng, shape = draw(seed)
    x, a = rng.normal(size=shape), rng.normal(size=(1, 1, shape[3]))
    b = rng.normal(size=(shape[1], 1, 1))
    check(Scale(), x * a + b, x, gamma=a, beta=b)
    other = rng.normal(size=(shape[0], 1, 1, shape[3]))
    check(Scale(bias=False), x * other, x, other)
    check(Scale(), x * other + a, x, other, gamma=a)


def bilinear(x: np.ndarray, py: float, px: float) -> np.ndarray:
    """As the CPU build does: nothing before the map, zeros behind it."""
    h, w, c = x.shape
    i, j = math.floor(py), math.floor(px)
    total = np.zeros(c)
    if i < 0 or j < 0:
        return total
    for di, dj in np.ndindex(2, 2):
        if i + di < h and j + dj < w:
            total += x[i + di, j + dj] * (py - i if di else 1 - py + i) * (px - j if dj else 1 - px + j)
    return total


@pytest.mark.parametrize("seed", SEEDS)
def test_bilinear_sampler(seed: int) -> None:
    rng, shape = draw(seed)
    n, h, w, c = shape
    k, ho, wo = (int(v) for v in rng.integers(1, 4, 3))
    x, grid = rng.normal(size=shape), rng.uniform(-1.6, 1.6, size=(k * n, 2, ho, wo))
    y = np.zeros((k * n, ho, wo, c))
    for g, i, j in np.ndindex(k * n, ho, wo):
        py, px = (grid[g, 0, i, j] + 1) * (h - 1) / 2, (grid[g, 1, i, j] + 1) * (w - 1) / 2
        y[g, i, j] = bilinear(x[g // k], py, px)
    check(BilinearSampler(), y, x, grid)


@pytest.mark.parametrize("method", ["max", "avg"])
@pytest.mark.parametrize("seed", SEEDS)
def test_roi_pooling(seed: int, method: str) -> None:
    rng, (n, _, _, c) = draw(seed)
    h, w, count = (int(v) for v in rng.integers(4, 12, 3))
    parts = [int(v) for v in rng.integers(1, 5, 2)]
    factors = rng.choice([0.25, 0.5, 1.0], 2)
    x = rng.normal(size=(n, h, w, c))
    corners = rng.uniform(-3, 16, size=(count, 2, 2))
    corners.sort(1)
    rois = np.concatenate([rng.integers(1, n + 1, (count, 1)), corners.reshape(count, 4)], 1)
    y = np.zeros((count, *parts, c))
    for r, (image, u1, v1, u2, v2) in enumerate(rois):
        spans = []
        for low, high, part, factor, extent in ((v1, v2, parts[0], factors[1], h), (u1, u2, parts[1], factors[0], w)):
            start, end = (_rounded(factor * (value - 1) + 1) - 1 for value in (low, high))
            size = max(end - start + 1, 1) / part
            edges = [(math.floor(i * size) + start, math.ceil((i + 1) * size) + start) for i in range(part)]
            spans.append([(min(max(a, 0), extent), min(max(b, 0), extent)) for a, b in edges])
        for i, j in np.ndindex(*parts):
            (top, bottom), (left, right) = spans[0][i], spans[1][j]
            if bottom > top and right > left:
                cell = x[int(image) - 1, top:bottom, left:right]
                y[r, i, j] = cell.max((0, 1)) if method == "max" else cell.mean((0, 1))
    fields: dict[str, Any] = {
        "method": method,
        "subdivisions": np.array([parts]),
        "transform": factors,
        "flatten": False,
    }
    given = np.moveaxis(rois, 0, 1)[None, :, :, None]
    kind = ROIPooling.from_matconvnet(fields, {})
    check(kind, y, x, given, slopes=False)
    fields["flatten"] = True
    flat = y.transpose(0, 3, 2, 1).reshape(count, 1, 1, -1)  # column-major: rows first, then columns, then channels
    check(ROIPooling.from_matconvnet(fields, {}), flat, x, given, slopes=False)


def _rounded(value: float) -> int:
    """Half away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def test_regions_by_a_matrix() -> None:
    """A 2×3 transformation, column by column: here it swaps u and v."""
    x = np.arange(24.0).reshape(1, 4, 6, 1)
    fields: dict[str, Any] = {
        "method": "max", "subdivisions": np.array([[1, 1]]), "flatten": False,
        "transform": np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]),
    }  # fmt: skip
    rois = np.array([[1.0, 2, 5, 3, 6]]).reshape(1, 5, 1, 1)
    check(ROIPooling.from_matconvnet(fields, {}), x[:, 1:3, 4:6].max((1, 2), keepdims=True), x, rois, slopes=False)


def shapes(*extents: Sequence[int]) -> list[tuple[int, ...]]:
    return [tuple(e) for e in extents]


@pytest.mark.parametrize(
    ("kind", "inputs", "says"),
    [
        (Scale(), shapes((3, 3, 4)), "3 in all are needed"),
        (Scale(bias=False), shapes((3, 3, 4), (2, 1, 4)), "cannot multiply"),
        (PDist(), shapes((3, 3, 4), (3, 3, 5)), "cannot compare"),
        (BilinearSampler(), shapes((3, 3, 4), (3, 4, 4)), "no grid"),
    ],
)
def test_what_does_not_fit(kind: Kind, inputs: list[tuple[int, ...]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind.fit(inputs, {})
