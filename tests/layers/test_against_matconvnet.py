"""Every operator against recordings of MatConvNet's own code: output and every derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from parity.layers import LRN, Activation, BatchNorm, Context, Conv, Dropout, Kind, Loss, Pool, Softmax
from parity.layers._losses import BINARY, CATEGORICAL, cost
from parity.layers.batchnorm import given_moments
from tests.frameworks.matconvnet.golden import four, golden, nhwc, relative

DOUBLE, SINGLE = 1e-9, 2e-6


def cases(name: str, op: str = "") -> list[Any]:
    found = [case for case in golden(f"ops_{name}")["cases"] if not op or case["op"] == op]
    return [pytest.param(case, id=f"{case['op']}-{at}-{case['desc'][:30]}") for at, case in enumerate(found)]


def torch_of(array: np.ndarray, grad: bool = True) -> torch.Tensor:
    """h w c n as a torch leaf n c h w in channels_last memory."""
    tensor = torch.from_numpy(nhwc(array).copy(order="C")).permute(0, 3, 1, 2)
    return tensor.requires_grad_(grad)


def param_of(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy(order="C")).requires_grad_()


def mcn(tensor: torch.Tensor | None) -> np.ndarray:
    """n c h w as h w c n."""
    assert tensor is not None
    return tensor.detach().permute(2, 3, 1, 0).numpy()


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-9 in double, a few roundings in single, relative to the tensor's size."""
    assert actual.dtype == expected.dtype
    assert relative(actual, expected.reshape(actual.shape)) < (DOUBLE if expected.dtype == np.float64 else SINGLE)


def forward(
    kind: Kind, case: Any, params: dict[str, torch.Tensor], context: Context
) -> tuple[torch.Tensor, torch.Tensor]:
    """The input and the output, after dzdy has flowed back."""
    x = torch_of(case["x"])
    y = kind.forward([x], params, context)
    close(mcn(y), four(case.get("y_exact", case["y"])))
    y.backward(torch_of(case["dzdy"], grad=False))
    close(mcn(x.grad), four(case.get("dzdx_exact", case["dzdx"])))
    shape = kind.output_shape([tuple(nhwc(case["x"]).shape[1:])])
    assert shape == tuple(nhwc(case["y"]).shape[1:])
    return x, y


@pytest.mark.parametrize("case", cases("conv"))
def test_conv(case: Any) -> None:
    layer = {"pad": case["pad"], "stride": case["stride"], "dilate": case["dilate"]}
    arrays = Conv.split_matconvnet([case["w"], case["b"]])
    params = {role: param_of(value) for role, (value, _) in arrays.items()}
    shapes = {role: value.shape for role, (value, _) in arrays.items()}
    kind = Conv.from_matconvnet(layer, shapes).fit([nhwc(case["x"]).shape[1:]], shapes)
    forward(kind, case, params, Context())
    if "kernel" in params:
        close(params["kernel"].grad.numpy(), four(case["dzdw"]))
    if "bias" in params:
        close(params["bias"].grad.numpy(), case["dzdb"].reshape(-1))
    else:
        assert not case["dzdb"].size


def test_every_conv_case_has_its_groups() -> None:
    seen = set()
    for case in golden("ops_conv")["cases"]:
        if case["w"].size:
            kind = Conv.from_matconvnet(case | {"dilate": case["dilate"]}, {"kernel": four(case["w"]).shape})
            seen.add(kind.fit([nhwc(case["x"]).shape[1:]], {"kernel": four(case["w"]).shape}).groups)
    assert {1, 2, 4} <= seen


@pytest.mark.parametrize("case", cases("pool"))
def test_pool(case: Any) -> None:
    kind = Pool.from_matconvnet(case, {})
    forward(kind, case, {}, Context())


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


@pytest.mark.parametrize("case", cases("activations", "vl_nnrelu"))
def test_relu(case: Any) -> None:
    forward(Activation.from_matconvnet({"type": "relu", "leak": case["leak"]}, {}), case, {}, Context())


@pytest.mark.parametrize("case", cases("activations", "vl_nnsigmoid"))
def test_sigmoid(case: Any) -> None:
    forward(Activation.from_matconvnet({"type": "sigmoid"}, {}), case, {}, Context())


@pytest.mark.parametrize("case", cases("activations", "vl_nnsoftmax"))
def test_softmax(case: Any) -> None:
    forward(Softmax(), case, {}, Context())


@pytest.mark.parametrize("case", cases("activations", "vl_nndropout"))
def test_dropout(case: Any) -> None:
    rate = float(case["rate"].item())
    kept = torch_of((case["mask"] != 0).astype(case["x"].dtype), grad=False)
    forward(Dropout.from_matconvnet({"rate": case["rate"]}, {}), case, {}, Context(mask=kept))
    x = torch_of(case["x"])
    assert Dropout(rate).forward([x], {}, Context(mode="eval", mask=kept)) is x


@pytest.mark.parametrize("case", cases("normalize", "vl_nnnormalize"))
def test_lrn(case: Any) -> None:
    forward(LRN.from_matconvnet(case, {}), case, {}, Context())


def test_lrn_does_not_divide_alpha_as_torch_does() -> None:
    x = torch.randn(2, 7, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = LRN(5, 2.0, 0.3, 0.75).forward([x], {}, Context())
    torch.testing.assert_close(y, torch.nn.functional.local_response_norm(x, 5, 0.3 * 5, 0.75, 2.0))


@pytest.mark.parametrize("case", cases("bnorm"))
def test_bnorm(case: Any) -> None:
    gamma, beta = param_of(case["g"].reshape(-1)), param_of(case["b"].reshape(-1))
    epsilon = float(case["epsilon"].item()) if case["epsilon"].size else 1e-4
    kind = BatchNorm(epsilon, 0.9, "deviation")
    params = {"gamma": gamma, "beta": beta}
    context = Context()
    if case["moments_given"].size:
        moments = torch.from_numpy(case["moments_given"].copy())
        params |= {"mean": moments[:, 0].contiguous(), "deviation": moments[:, 1].contiguous()}
        context = Context(mode="eval")
    forward(kind, case, params, context)
    close(gamma.grad.numpy(), case["dzdg"].reshape(-1))
    close(beta.grad.numpy(), case["dzdb"].reshape(-1))
    if context.mode == "train":
        mean, variance = context.statistics["mean"].numpy(), context.statistics["variance"].numpy()
        close(np.stack([mean, np.sqrt(variance + np.asarray(epsilon, variance.dtype))], 1), case["moments_out"])


def test_frozen_moments_have_the_true_derivative() -> None:
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    gamma, mean, deviation = (
        torch.tensor(v, dtype=torch.float64) for v in ([2.0, 3.0, 4.0], [0.1, 0.2, 0.3], [0.5, 1.0, 2.0])
    )
    given_moments(x, gamma, torch.zeros(3, dtype=torch.float64), mean, deviation, True).sum().backward()
    torch.testing.assert_close(x.grad, (gamma / deviation).reshape(1, 3, 1, 1).expand_as(x))


@pytest.mark.parametrize("case", cases("loss"))
def test_loss(case: Any) -> None:
    x = torch_of(case["x"])
    function = case["loss"] if case["op"] == "vl_nnloss" else "softmaxlog"
    labels, weights = case["c"], case["instanceWeights"]
    if case["op"] == "vl_nnsoftmaxloss" and labels.ndim == 4 and labels.shape[2] == 2:
        labels, weights = labels[:, :, :1], labels[:, :, 1:]
    images = x.shape[0]
    binary = function in BINARY
    per_image = (labels.size == images and x.shape[2:] != (1, 1)) or labels.size == images == labels.shape[-1]
    if binary:
        given = torch.from_numpy(four(labels.reshape(case["x"].shape)).transpose(3, 2, 0, 1).copy())
    else:
        ids = labels.reshape(-1) if per_image else four(labels)[:, :, 0].transpose(2, 0, 1)
        given = torch.from_numpy(np.ascontiguousarray(ids).astype(np.int64) - 1)
    mass = None
    if weights.size:
        spread = four(weights).transpose(3, 2, 0, 1)
        mass = torch.from_numpy((spread if binary else spread[:, 0]).copy())
    top = int(case["topK"].item()) if case["topK"].size else 5
    total = cost(function, x, given, mass, top=top)
    total.backward(torch.tensor(float(case["dzdy"].item()), dtype=x.dtype))
    np.testing.assert_allclose(total.item(), case["y_sum"].item(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(total.item() / images, case["y_head"].item(), rtol=1e-9, atol=1e-12)
    expected = four(case["dzdx_sum"]) if case["dzdx_sum"].size > 1 else np.zeros(four(case["x"]).shape)
    np.testing.assert_allclose(mcn(x.grad), expected, rtol=1e-9, atol=1e-12)
    if mass is None and top == 5 and function in CATEGORICAL:
        mean = Loss(function).forward([x.detach()], {}, Context(labels=given))
        np.testing.assert_allclose(mean.item(), case["y_head"].item(), rtol=1e-9, atol=1e-12)
