"""MatConvNet's recordings of its operators as runs of the vocabulary's layers.

A recorded case holds inputs, parameters, an output, an upstream derivative and the derivatives that MatConvNet made of
it. `run` gives a layer the same inputs and measures the worst distance of any of its tensors from the recorded one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from parity.frameworks.matconvnet.blocks import block_fields
from parity.layers import (
    LRN,
    Activation,
    BatchNorm,
    BilinearSampler,
    Concat,
    Context,
    Conv,
    ConvTranspose,
    Crop,
    DistanceLoss,
    Dropout,
    Kind,
    Loss,
    NormalizeLp,
    NormOffset,
    PDist,
    Pool,
    ROIPooling,
    Softmax,
    SpatialNorm,
    lookup,
)
from tests.frameworks.matconvnet.golden import four, golden, nhwc, relative

__all__ = ["CASES", "Case", "run"]


@dataclass
class Case:
    """A recorded case in the vocabulary.

    Attributes:
        kind: the layer.
        inputs: h w c n, of which a derivative is compared where `derivatives` has it.
        params: role → array in the role's axes.
        output: what MatConvNet computed.
        upstream: derivative of some number by the output.
        derivatives: by each input, in order; None where MatConvNet gives none.
        param_derivatives: by each parameter.
        context: masks, labels.
        statistics: the batch's mean and deviation.
        share: what the output and the derivatives of the layer are multiplied by to be MatConvNet's.
        exact: False where MatConvNet itself computed with approximate powers.
        test_output: what MatConvNet computes in test mode, where it is recorded.
    """

    kind: Kind
    inputs: Sequence[np.ndarray]
    output: np.ndarray
    upstream: np.ndarray
    derivatives: Sequence[np.ndarray | None]
    params: Mapping[str, np.ndarray] = field(default_factory=dict)
    param_derivatives: Mapping[str, np.ndarray] = field(default_factory=dict)
    context: Callable[[], Context] = Context
    statistics: np.ndarray | None = None
    share: float = 1.0
    exact: bool = True
    test_output: np.ndarray | None = None


def leaf(array: np.ndarray, grad: bool = True) -> torch.Tensor:
    """h w c n as a torch leaf n c h w in channels_last memory."""
    tensor = torch.from_numpy(nhwc(array).copy(order="C")).permute(0, 3, 1, 2)
    return tensor.requires_grad_(grad)


def mcn(tensor: torch.Tensor) -> np.ndarray:
    """n c h w as h w c n; a number as 1×1×1×1."""
    plain = tensor.detach()
    return plain.permute(2, 3, 1, 0).numpy() if plain.dim() == 4 else plain.reshape(1, 1, 1, 1).numpy()


def run(case: Case) -> dict[str, float]:
    """The worst relative distances from MatConvNet's: of outputs (`x`), derivatives by inputs and by parameters."""
    inputs = [leaf(x, d is not None) for x, d in zip(case.inputs, case.derivatives, strict=True)]
    params = {role: torch.from_numpy(v.copy(order="C")).requires_grad_() for role, v in case.params.items()}
    shapes = [tuple(nhwc(x).shape[1:]) for x in case.inputs]
    kind = case.kind.fit(shapes, {role: v.shape for role, v in case.params.items()})
    context = case.context()
    y = kind.forward(inputs, params, context)
    expected = four(case.output)
    shape = kind.output_shape(shapes)
    assert shape == (tuple(nhwc(case.output).shape[1:]) if y.dim() else ()), "it announces another shape than it makes"
    errors = {"x": [relative(mcn(y * case.share), expected)], "dzdx": [], "dzdw": []}
    upstream = leaf(case.upstream, False) if y.dim() else torch.tensor(case.upstream.item(), dtype=y.dtype)
    y.backward(upstream.reshape(y.shape) * case.share)
    for x, wanted in zip(inputs, case.derivatives, strict=True):
        if wanted is not None:
            assert x.grad is not None
            errors["dzdx"].append(relative(mcn(x.grad), four(wanted)))
    for role, wanted in case.param_derivatives.items():
        grad = params[role].grad
        assert grad is not None
        errors["dzdw"].append(relative(grad.numpy(), wanted.reshape(grad.shape, order="F")))
    if case.statistics is not None:
        mean, variance = (context.statistics[name].numpy() for name in ("mean", "variance"))
        assert isinstance(kind, BatchNorm)
        made = np.stack([mean, np.sqrt(variance + np.asarray(kind.epsilon, variance.dtype))], 1)
        errors["x"].append(relative(made, case.statistics))
    if case.test_output is not None:
        context.mode = "eval"
        again = kind.forward(inputs, params, context)
        errors["x"].append(relative(mcn(again * case.share), four(case.test_output)))
    assert y.detach().numpy().dtype == case.output.dtype
    return {what: max(found) for what, found in errors.items() if found}


def _plain(kind: Kind, case: Any, **more: Any) -> Case:
    """A layer with one input and no parameters."""
    return Case(kind, [case["x"]], case.get("y_exact", case["y"]), case["dzdy"],
                [case.get("dzdx_exact", case["dzdx"])], **more)  # fmt: skip


def _filters(kind: type[Kind], case: Any, fields: Mapping[str, Any]) -> Case:
    found = kind.split_matconvnet([case["w"], case["b"]])
    params = {role: value for role, (value, _) in found.items()}
    made = kind.from_matconvnet(fields, {role: v.shape for role, v in params.items()})
    recorded = {"kernel": case["dzdw"], "bias": case["dzdb"]}
    assert set(params) == {role for role, value in recorded.items() if value.size}
    return _plain(made, case, params=params, param_derivatives={role: recorded[role] for role in params})


def _conv(case: Any) -> Case:
    return _filters(Conv, case, case)


def _convt(case: Any) -> Case:
    return _filters(ConvTranspose, case, case)


def _activation(case: Any) -> Case:
    if case["op"] == "vl_nndropout":
        kept = (case["mask"] != 0).astype(case["x"].dtype)
        return _plain(Dropout.from_matconvnet(case, {}), case, context=lambda: Context(mask=leaf(kept, False)))
    if case["op"] == "vl_nnsoftmax":
        return _plain(Softmax.from_matconvnet(case, {}), case)
    kind = {"vl_nnrelu": "relu", "vl_nnsigmoid": "sigmoid"}[case["op"]]
    return _plain(Activation.from_matconvnet({**case, "type": kind}, {}), case)


def _normalization(case: Any) -> Case:
    kinds = {"vl_nnnormalize": LRN, "vl_nnspnorm": SpatialNorm, "vl_nnnoffset": NormOffset}
    if case["op"] == "vl_nnnormalizelp":
        given = {name: float(case[name].item()) for name in ("p", "epsilon") if name in case}
        return _plain(NormalizeLp(**given, spatial=bool(case["spatial"].item())), case)
    return _plain(kinds[case["op"]].from_matconvnet(case, {}), case)


def _bnorm(case: Any) -> Case:
    params = {"gamma": case["g"].reshape(-1), "beta": case["b"].reshape(-1)}
    moments = case["moments_given"]
    given = {"mean": moments[:, 0], "deviation": moments[:, 1]} if moments.size else {}
    epsilon = float(case["epsilon"].item()) if case["epsilon"].size else 1e-4
    return _plain(
        BatchNorm(epsilon, 0.9, "deviation"), case, params=params | given,
        param_derivatives={"gamma": case["dzdg"], "beta": case["dzdb"]},
        context=lambda: Context(mode="eval" if given else "train"),
        statistics=None if given else case["moments_out"],
    )  # fmt: skip


def _pdist(case: Any) -> Case:
    fields = {**case, "instanceWeights": []}
    weights = [case["instanceWeights"]] if case["instanceWeights"].size else []
    dx0 = case["dzdx0"]
    narrow = tuple(a for a in range(4) if four(case["x0"]).shape[a] != four(case["x"]).shape[a])
    if narrow:  # MatConvNet leaves it to the reader to add up what belongs to one element
        dx0 = four(dx0).sum(narrow, keepdims=True)
    return Case(PDist.from_matconvnet(fields, {}), [case["x"], case["x0"], *weights], case["y"], case["dzdy"],
                [case["dzdx"], dx0, *(None for _ in weights)])  # fmt: skip


def _geometric(case: Any) -> Case:
    match case["op"]:
        case "vl_nnconcat":
            kind = Concat.from_matconvnet(case, {})
            return Case(kind, case["inputs"], case["y"], case["dzdy"], case["dzdinputs"])
        case "vl_nncrop":
            return _plain(Crop(tuple(int(v) for v in case["crop"].ravel())), case)
        case "vl_nnroipool":
            kind = ROIPooling.from_matconvnet({**case, "flatten": False}, {})
            return Case(kind, [case["x"], case["rois"]], case["y"], case["dzdy"], [case["dzdx"], None])
        case _:
            return Case(BilinearSampler(), [case["x"], case["grid"]], case["y"], case["dzdy"],
                        [case["dzdx"], case["dzdgrid"]])  # fmt: skip


def _targets(function: str, x: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Callable[[], Context]:
    """Labels h w c n, or one per image, and instance weights, as a context."""
    images = four(x).shape[3]
    kind = Loss(function)
    whole = four(labels) if four(labels).shape[3] == images else labels.reshape(1, 1, 1, images)
    mass: torch.Tensor | None = None
    if weights.size:
        spread = torch.from_numpy(four(weights).transpose(3, 2, 0, 1).copy())
        mass = spread if kind.target == "signs" else spread[:, 0]
    if kind.target == "signs":
        given = torch.from_numpy(whole.transpose(3, 2, 0, 1).copy())
    else:
        ids = whole[:, :, 0].transpose(2, 0, 1).astype(np.int64) - 1
        given = torch.from_numpy(np.ascontiguousarray(ids))
        given = given[:, 0, 0] if given.shape[1:] == (1, 1) else given
    return lambda: Context(labels=given, weights=mass)


def _loss(case: Any, version: str = "head") -> Case:
    function, labels, weights = case["loss"], case["c"], case["instanceWeights"]
    fields: dict[str, Any] = {"type": "dagnn.Loss", "loss": function}
    if case["op"] == "vl_nnsoftmaxloss":
        function, fields = "softmaxlog", {"type": "softmaxloss"}
        if four(labels).shape[2] == 2:
            labels, weights = four(labels)[:, :, :1], four(labels)[:, :, 1:]
    fields |= {name: case[name] for name in ("topK", "threshold") if name in case and case[name].size}
    kind = Loss.from_matconvnet(fields, {})
    images = four(case["x"]).shape[3]
    word = {"head": "head", "beta25": "sum"}[version]
    gradient = case[f"dzdx_{word}"]
    gradient = gradient if gradient.size == case["x"].size else np.zeros_like(case["x"])
    return Case(
        kind, [case["x"]], case[f"y_{word}"].reshape(1, 1), case["dzdy"], [gradient],
        context=_targets(function, case["x"], labels, weights), share=kind.raw_value(1.0, images, version),
    )  # fmt: skip


def _loss_beta25(case: Any) -> Case:
    return _loss(case, "beta25")


def _block(case: Any) -> Case:
    fields = block_fields(case["type"], case["block"])
    kind_class = lookup("matconvnet", case["type"])
    assert kind_class is not None
    inputs = [case["inputs"][0] if isinstance(x, str) else x for x in case["inputs"]]
    derivatives: list[np.ndarray | None] = [d if d.size else None for d in case["derInputs"]]
    found = kind_class.split_matconvnet(case["params"])
    params = {role: value for role, (value, _) in found.items()}
    kind = kind_class.from_matconvnet(fields, {role: v.shape for role, v in params.items()})
    gradients = {role: case["derParams"][j] for role, (_, j) in found.items() if role not in ("mean", "deviation")}
    more: dict[str, Any] = {"params": params, "param_derivatives": gradients, "exact": not isinstance(kind, LRN)}
    more["test_output"] = case["y_test"]
    if isinstance(kind, BatchNorm):
        more["statistics"] = case["derParams"][2]
    if isinstance(kind, Loss) and not isinstance(kind, DistanceLoss):
        more["context"] = _targets(kind.function, inputs[0], inputs[1], np.zeros(0))
        gradient = derivatives[0] if derivatives[0] is not None else np.zeros_like(inputs[0])
        return Case(kind, inputs[:1], case["y"], case["dzdy"], [gradient], **more)
    if isinstance(kind, Dropout):  # what was kept shows in the output
        kept = (four(case["y"]) != 0).astype(case["y"].dtype)
        more["context"] = lambda: Context(mask=leaf(kept, False))
    if len(derivatives) < len(inputs):  # one variable read twice: its derivative is their sum
        shared = derivatives[0]
        assert shared is not None
        derivatives = [shared / len(inputs)] * len(inputs)
    return Case(kind, inputs, case["y"], case["dzdy"], derivatives, **more)


MAKERS: dict[str, tuple[str, Callable[[Any], Case]]] = {
    "conv": ("ops_conv", _conv),
    "convt": ("ops_convt", _convt),
    "pool": ("ops_pool", lambda case: _plain(Pool.from_matconvnet(case, {}), case)),
    "activations": ("ops_activations", _activation),
    "bnorm": ("ops_bnorm", _bnorm),
    "normalize": ("ops_normalize", _normalization),
    "pdist": ("ops_pdist", _pdist),
    "geometric": ("ops_geometric", _geometric),
    "loss, head": ("ops_loss", _loss),
    "loss, beta25": ("ops_loss", _loss_beta25),
    "dagblocks": ("ops_dagblocks", _block),
}
"""Family → the file of its recordings, and how one of them becomes a `Case`."""

CASES = [
    (family, at, recorded, make)
    for family, (file, make) in MAKERS.items()
    for at, recorded in enumerate(golden(file)["cases"])
]
"""Every recorded case of every family: family, number, the recording, how it becomes a `Case`."""
