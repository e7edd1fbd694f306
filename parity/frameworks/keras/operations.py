"""Bare operations in a functional model: the classes of `keras.ops` by module, and the shapes that they make.

Keras 3 writes the module of an operation into a `.keras` file and leaves it out of an `.h5`, which it then cannot read
itself.
"""

# ruff: noqa: SIM905 - long lists of names read better as text

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parity.network import Shape

__all__ = ["is_operation", "module_of", "operation_shape"]

_MODULES = {
    "core": "Cast ConvertToTensor SaturateCast Slice StopGradient Unstack",
    "image": "AffineTransform CropImages ExtractPatches GaussianBlur MapCoordinates PadImages RGBToGrayscale Resize",
    "linalg": "Cholesky Det Eig Eigh Inv LuFactor Norm Pinv Qr SVD Solve SolveTriangular",
    "math": "CDist Erf Erfc Erfinv Logdet Logsumexp RFFT Rsqrt STFT SegmentMax SegmentSum TopK",
    "nn": """
        AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm BinaryCrossentropy CategoricalCrossentropy
        Celu Conv ConvTranspose DepthToSpace DepthwiseConv DotProductAttention Elu Gelu Glu HardShrink
        HardSigmoid HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments MultiHot
        Normalize OneHot RMSNorm Relu Relu6 Selu SeparableConv Sigmoid Silu SoftShrink Softmax Softplus Softsign
        SpaceToDepth SparsePlus SparseSigmoid Sparsemax Squareplus TanhShrink Threshold
    """,
    "numpy": """
        Abs Absolute Add All Amax Amin Any Append Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax Argmin
        Argsort Average BroadcastTo Ceil Clip Concatenate Conj Conjugate Copy Cos Cosh CountNonzero Cross Cumprod Cumsum
        Diag Diagonal Diff Digitize Divide DivideNoNan Dot Einsum Equal Exp ExpandDims Expm1 Flip Floor FloorDivide
        FullLike GetItem Greater GreaterEqual Hstack Imag Isclose Isfinite Isinf Isnan Less LessEqual Log Log10 Log1p
        Log2 Logaddexp LogicalAnd LogicalNot LogicalOr LogicalXor Matmul Max Maximum Mean Median Meshgrid Min Minimum
        Mod Moveaxis Multiply NanToNum Negative NotEqual OnesLike Outer Pad Power Prod Quantile Ravel Real Reciprocal
        Repeat Reshape Roll Round Select Sign Sin Sinh Sort Split Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes
        Take TakeAlongAxis Tan Tanh Tensordot Tile Trace Transpose Tril Triu TrueDivide Trunc Var Vdot Vstack Where
        ZerosLike
    """,
}

_HOMES = {name: f"keras.src.ops.{module}" for module, names in _MODULES.items() for name in names.split()}

_UNARY = frozenset(
    """
    abs absolute cast ceil celu clip clip_by_value cos cosh elu erf exp expm1 floor gelu hardsigmoid hardsilu hardtanh
    identity leaky_relu leakyrelu log log1p logical_not logicalnot logsigmoid logsoftmax neg negative ones_like
    oneslike reciprocal relu relu6 round rsqrt selu sigmoid sign silu sin sinh softmax softplus softsign sqrt square
    stop_gradient stopgradient swish tan tanh zeros_like zeroslike
    """.split()
)

_BINARY = frozenset(
    """
    add addv2 divide div equal floordivide greater greater_equal greaterequal less less_equal lessequal logical_and
    logical_or logicaland logicalor maximum minimum mod mul multiply not_equal notequal pow power sub subtract
    squared_difference truediv truedivide
    """.split()
)

_REDUCTIONS = frozenset("all amax amin any max mean min prod std sum var".split())


def is_operation(entry: Mapping[str, Any]) -> bool:
    """Whether an entry without a module is an operation: a layer's settings always say whether it is trainable."""
    config = entry.get("config")
    known = entry.get("module") is None and entry.get("class_name") in _HOMES
    return known and isinstance(config, Mapping) and "trainable" not in config and "inbound_nodes" in entry


def module_of(class_name: str) -> str:
    """The module of an operation's class; raises KeyError for another."""
    return _HOMES[class_name]


def operation_shape(name: str, arguments: Sequence[Any], settings: Mapping[str, Any], inputs: Sequence[Shape]) -> Any:
    """The shape that an operation makes, without the batch axis; None where it is not known.

    Args:
        name: its last name, e.g. `"Mean"`, `"reduce_mean"`, `"addv2"`.
        arguments: what it is called with, tensors left out or as None.
        settings: its settings by name.
        inputs: its tensors' shapes.
    """
    word = name.lower().removeprefix("__").removesuffix("__").removeprefix("reduce_")
    if not inputs:
        return None
    if word in _UNARY:
        return inputs[0]
    if word in _BINARY:
        return _broadcast(inputs)
    if word in _REDUCTIONS:
        return _reduced(arguments, settings, inputs[0])
    if word in ("concatenate", "concat"):
        return _joined(settings.get("axis", -1 if word == "concatenate" else 0), inputs)
    return None


def _broadcast(inputs: Sequence[Shape]) -> Shape | None:
    if len({len(shape) for shape in inputs}) != 1:
        return None
    found: list[int | None] = []
    for extents in zip(*inputs, strict=True):
        wide = [n for n in extents if n != 1]
        found.append(wide[0] if wide else 1)
    return tuple(found)


def _reduced(arguments: Sequence[Any], settings: Mapping[str, Any], shape: Shape) -> Shape | None:
    axis = settings.get("axis", next((a for a in arguments if isinstance(a, int | list | tuple)), None))
    if axis is None:
        return None
    rank = len(shape) + 1
    axes = {int(a) % rank for a in (axis if isinstance(axis, list | tuple) else [axis])}
    if 0 in axes:
        return None
    keep = bool(settings.get("keepdims", settings.get("keep_dims", False)))
    found = [1 if i in axes else n for i, n in enumerate(shape, 1) if keep or i not in axes]
    return tuple(found)


def _joined(axis: Any, inputs: Sequence[Shape]) -> Shape | None:
    rank = len(inputs[0]) + 1
    if not isinstance(axis, int) or any(len(shape) != rank - 1 for shape in inputs) or axis % rank == 0:
        return None
    at = axis % rank - 1
    parts = [shape[at] for shape in inputs]
    return (*inputs[0][:at], None if None in parts else sum(n or 0 for n in parts), *inputs[0][at + 1 :])
