"""What edits of a reference may use and MatConvNet has no recording of: activations, moves, joins, other losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from parity.layers import (
    Activation,
    BatchNorm,
    Concat,
    Context,
    Conv,
    Crop,
    Dense,
    Dropout,
    Flatten,
    Identity,
    Kind,
    Loss,
    Merge,
    Pad,
    Pool,
    Rescale,
    Reshape,
    Slice,
    Softmax,
    Split,
)
from parity.layers._losses import cost
from parity.layers.geometry import out_extent, pads_of, same_pads

X = np.linspace(-4, 4, 41)


def erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(v) for v in x])


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x / 2 * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "exponential": np.exp,
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard_sigmoid_legacy": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "log_sigmoid": lambda x: -np.log1p(np.exp(-x)),
}


def run(kind: Kind, *arrays: np.ndarray, context: Context | None = None, **params: np.ndarray) -> np.ndarray:
    """The layer on arrays n h w c or n c, in double; its declared shape must be the real one."""
    tensors = [torch.from_numpy(np.moveaxis(a, -1, 1).copy() if a.ndim > 2 else a.copy()) for a in arrays]
    values = {role: torch.from_numpy(value.astype(np.float64)) for role, value in params.items()}
    y = kind.forward(tensors, values, context or Context())
    assert isinstance(y, torch.Tensor)
    found = y.numpy() if y.dim() <= 2 else np.moveaxis(y.numpy(), 1, -1)
    if not isinstance(kind, Loss):
        assert kind.output_shape([a.shape[1:] for a in arrays]) == found.shape[1:]
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    for shape in ((41, 1), (1, 41), (41, 1, 1, 1)):
        found = run(Activation(name), X.reshape(shape))
        np.testing.assert_allclose(found.ravel(), FUNCTIONS[name](X), rtol=1e-12, atol=1e-14)


def test_functions_with_numbers() -> None:
    def of(kind: Kind) -> np.ndarray:
        return run(kind, X.reshape(41, 1)).ravel()

    np.testing.assert_allclose(of(Activation("relu", 0.1)), np.where(X > 0, X, 0.1 * X))
    np.testing.assert_allclose(of(Activation("elu", 0.5)), np.where(X > 0, X, 0.5 * (np.exp(X) - 1)))
    np.testing.assert_allclose(of(Activation("relu", 0.1, 2.0)), np.minimum(np.where(X > 0, X, 0.1 * X), 2))
    # keras.layers.ReLU: x where x >= threshold, else slope·(x - threshold)
    np.testing.assert_allclose(of(Activation("relu", 0.1, None, 1.0)), np.where(X > 1, X, 0.1 * (X - 1)), atol=1e-15)
    np.testing.assert_allclose(of(Activation("relu", 0.0, None, 1.0)), np.where(X > 1, X, 0), atol=1e-15)
    with pytest.raises(NotImplementedError, match="wavelet"):
        of(Activation("wavelet"))


@pytest.mark.parametrize(("slope", "at_zero"), [(0.0, 0.0), (0.3, 0.3)])
def test_relu_at_exactly_zero(slope: float, at_zero: float) -> None:
    x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    Activation("relu", slope).forward([x], {}, Context()).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == at_zero


RNG = np.random.default_rng(7)
MAP = RNG.normal(size=(2, 4, 5, 3))


def test_dense() -> None:
    w, b = RNG.normal(size=(3, 6)), RNG.normal(size=6)
    for x in (MAP, MAP[:, 0, 0]):
        np.testing.assert_allclose(run(Dense(6), x, kernel=w, bias=b), x @ w + b, rtol=1e-12)
        np.testing.assert_allclose(run(Dense(6, False), x, kernel=w), x @ w, rtol=1e-12)


def test_a_dense_layer_after_flatten_is_a_convolution_that_covers_the_map() -> None:
    kernel = RNG.normal(size=(4, 5, 3, 6))
    covered = run(Conv(6, (4, 5), bias=False), MAP, kernel=kernel).reshape(2, 6)
    flat = run(Flatten(), MAP)
    np.testing.assert_array_equal(flat, MAP.reshape(2, -1))
    np.testing.assert_allclose(run(Dense(6, False), flat, kernel=kernel.reshape(-1, 6)), covered, rtol=1e-10)


def test_moves() -> None:
    np.testing.assert_array_equal(run(Identity(), MAP), MAP)
    np.testing.assert_array_equal(run(Reshape((5, 4, 3)), MAP), MAP.reshape(2, 5, 4, 3))
    np.testing.assert_array_equal(run(Reshape((-1,)), MAP), MAP.reshape(2, -1))
    np.testing.assert_array_equal(run(Reshape((-1, 2, 3)), MAP), MAP.reshape(2, 10, 2, 3))
    padded = np.pad(MAP, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=9)
    np.testing.assert_array_equal(run(Pad((1, 2, 0, 3), 9.0), MAP), padded)
    np.testing.assert_array_equal(run(Crop((1, 2, 0, 3)), padded), MAP)
    np.testing.assert_array_equal(run(Slice(-1, 1, 3), MAP), MAP[..., 1:3])
    np.testing.assert_array_equal(run(Slice(-3, 1, 3), MAP), MAP[:, 1:3])
    np.testing.assert_array_equal(run(Rescale(2.0, 1.0), MAP), 2 * MAP + 1)
    for axis in (-1, -2, -3):
        np.testing.assert_array_equal(run(Concat(axis), MAP, MAP + 1), np.concatenate([MAP, MAP + 1], axis))
    flat = MAP[:, 0, 0]
    np.testing.assert_array_equal(run(Concat(), flat, flat), np.concatenate([flat, flat], 1))


def test_split() -> None:
    x = torch.from_numpy(np.moveaxis(MAP, -1, 1).copy())
    pieces = Split(-1, (1,)).forward([x], {}, Context())
    assert [piece.shape[1] for piece in pieces] == [1, 2]
    torch.testing.assert_close(torch.cat(list(pieces), 1), x)
    assert Split(-1, (1,)).output_shape([(4, 5, 3)]) == (4, 5, 1)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("add", lambda a, b, c: a + b + c),
        ("subtract", lambda a, b, c: a - b - c),
        ("multiply", lambda a, b, c: a * b * c),
        ("average", lambda a, b, c: (a + b + c) / 3),
        ("maximum", lambda a, b, c: np.maximum(np.maximum(a, b), c)),
        ("minimum", lambda a, b, c: np.minimum(np.minimum(a, b), c)),
    ],
)
def test_merges(operation: str, expected: Callable[..., np.ndarray]) -> None:
    arrays = [RNG.normal(size=(2, 3, 3, 2)) for _ in range(3)]
    np.testing.assert_allclose(run(Merge(operation), *arrays), expected(*arrays), rtol=1e-12)


@pytest.mark.parametrize(("ties", "share"), [("column", 1.0), ("row", 1.0), ("shared", 0.5)])
@pytest.mark.parametrize("operation", ["maximum", "minimum"])
def test_of_equal_extremes_the_first_takes_the_gradient_or_all(operation: str, ties: str, share: float) -> None:
    inputs = [torch.zeros(1, 2, requires_grad=True) for _ in range(2)]
    Merge(operation).forward(inputs, {}, Context(ties=ties)).sum().backward()
    for tensor, wanted in zip(inputs, (share, 1 - share), strict=True):
        assert tensor.grad is not None
        assert set(tensor.grad.ravel().tolist()) == {wanted}


def test_softmax_of_either_rank() -> None:
    for x in (MAP, MAP[:, 0, 0]):
        e = np.exp(x)
        np.testing.assert_allclose(run(Softmax(), x), e / e.sum(-1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("rank", [2, 4])
def test_batch_norm_of_either_rank(rank: int) -> None:
    x = MAP if rank == 4 else MAP[:, 0, 0]
    axes = tuple(range(rank - 1))
    gamma, beta, mean = RNG.normal(size=(3, 3))
    variance = RNG.uniform(0.5, 2, 3)
    context = Context()
    found = run(BatchNorm(1e-3), x, context=context, gamma=gamma, beta=beta)
    expected = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-3) * gamma + beta
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(context.statistics["variance"], x.var(axes), rtol=1e-12)
    np.testing.assert_allclose(run(BatchNorm(1e-3, scale=False), x, beta=beta), (expected - beta) / gamma + beta)
    fixed = (x - mean) / np.sqrt(variance + 1e-3)
    for context, kind in ((Context(mode="eval"), BatchNorm(1e-3)), (Context(), BatchNorm(1e-3, frozen=True))):
        y = run(kind, x, context=context, gamma=gamma, beta=beta, mean=mean, variance=variance)
        np.testing.assert_allclose(y, fixed * gamma + beta, rtol=1e-10)
        assert not context.statistics


def test_one_value_per_channel_normalises_to_its_shift() -> None:
    x = torch.randn(1, 3, 1, 1, requires_grad=True)
    beta = torch.tensor([1.0, 2.0, 3.0])
    y = BatchNorm(1e-5).forward([x], {"gamma": torch.ones(3), "beta": beta}, Context())
    y.sum().backward()
    assert y.reshape(3).tolist() == beta.tolist()
    assert x.grad is not None
    assert not x.grad.any()


def test_global_pools() -> None:
    np.testing.assert_allclose(run(Pool("avg", None, squeeze=True), MAP), MAP.mean((1, 2)))
    np.testing.assert_allclose(run(Pool("max", None), MAP), MAP.max((1, 2), keepdims=True))


def test_an_average_may_count_padding() -> None:
    ones = np.ones((1, 2, 2, 1))
    valid, counted = (run(Pool("avg", (2, 2), (1, 1), (1, 0, 1, 0), count), ones) for count in (False, True))
    assert (valid == 1).all()
    assert counted[0, :, :, 0].tolist() == [[0.25, 0.5], [0.5, 1]]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_same_padding_by_its_definition(size: int, stride: int) -> None:
    for extent in range(1, 12):
        before, after = same_pads(extent, size, stride)
        assert 0 <= after - before <= 1
        assert out_extent(extent, size, stride, before, after) == -(-extent // stride)
        kind = Conv(1, (size, size), (stride, stride), None, bias=False)
        x = RNG.normal(size=(1, extent, extent, 1))
        cells = -(-extent // stride)
        assert run(kind, x, kernel=np.ones((size, size, 1, 1))).shape == (1, cells, cells, 1)


def test_padding_that_no_window_reaches_is_left_out() -> None:
    assert pads_of((0, 1, 0, 1), (8, 9), (2, 2), (2, 2), (1, 1)) == (0, 0, 0, 1)
    assert pads_of((1, 1, 1, 1), (8, 8), (3, 3), (2, 2), (1, 1)) == (1, 1, 1, 1)
    assert pads_of((0, 2, 0, 0), (8, 8), (3, 3), (2, 2), (2, 2)) == (0, 1, 0, 0)
    with pytest.raises(ValueError, match="does not fit"):
        out_extent(3, 5, 1, 0, 1)


def test_dropout_without_a_mask_keeps_all() -> None:
    np.testing.assert_allclose(run(Dropout(0.75), MAP), 4 * MAP)
    np.testing.assert_array_equal(run(Dropout(0.0), MAP), MAP)
    assert not run(Dropout(1.0), MAP).any()


def test_losses_of_one_hot_vectors() -> None:
    logits = RNG.normal(size=(5, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ids = np.array([0, 3, 1, 2, 2])
    hot = np.eye(4)[ids]
    smooth = hot * 0.8 + 0.2 / 4

    def mean(function: str, x: np.ndarray, smoothing: float = 0.0) -> float:
        context = Context(labels=torch.from_numpy(ids))
        return float(run(Loss(function, label_smoothing=smoothing), x, context=context))

    assert mean("softmaxlog", logits) == pytest.approx(-np.log(p[np.arange(5), ids]).mean())
    assert mean("softmaxlog", logits, 0.2) == pytest.approx(-(smooth * np.log(p)).sum(1).mean())
    assert mean("log", p) == pytest.approx(mean("softmaxlog", logits))
    assert mean("log", p, 0.2) == pytest.approx(mean("softmaxlog", logits, 0.2))
    assert mean("mean_squared_error", p) == pytest.approx(((p - hot) ** 2).mean())
    assert mean("mean_absolute_error", p) == pytest.approx(np.abs(p - hot).mean())
    binary = -(hot * np.log(p) + (1 - hot) * np.log(1 - p)).mean()
    assert mean("binary_crossentropy", p) == pytest.approx(binary)
    hinge = np.maximum(((1 - hot) * p).max(1) - (hot * p).sum(1) + 1, 0).mean()
    assert mean("categorical_hinge", p) == pytest.approx(hinge)
    total = Loss("softmaxlog", reduction="sum")
    labels = Context(labels=torch.from_numpy(ids))
    assert float(run(total, logits, context=labels)) == pytest.approx(5 * mean("softmaxlog", logits))
    one, target = p[:, :1], np.array([0, 1, 1, 0, 1])
    single = float(run(Loss("binary_crossentropy"), one, context=Context(labels=torch.from_numpy(target))))
    assert single == pytest.approx(-np.log(np.where(target == 1, one[:, 0], 1 - one[:, 0])).mean())
    with pytest.raises(NotImplementedError, match="fancy"):
        cost("fancy", torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))


def test_the_derivative_of_log_is_bounded_and_its_value_is_not() -> None:
    """vl_nnloss.m: the divisor is at least 1e-8."""
    x = torch.tensor([[1e-12, 0.5]], dtype=torch.float64, requires_grad=True)
    value = cost("log", x, torch.tensor([0]))
    value.backward()
    assert value.item() == pytest.approx(12 * math.log(10))
    assert x.grad is not None
    assert x.grad.tolist() == [[-1e8, 0.0]]
