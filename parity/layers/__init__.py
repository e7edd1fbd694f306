"""The layer types, one file each; `lookup` finds the one that a framework's type name lifts to."""

from __future__ import annotations

from parity.layers.activation import Activation
from parity.layers.base import Context, Kind, Opaque
from parity.layers.batchnorm import BatchNorm
from parity.layers.conv import Conv
from parity.layers.convtranspose import ConvTranspose
from parity.layers.crop import Crop
from parity.layers.dense import Dense
from parity.layers.distance import DistanceLoss, PDist
from parity.layers.dropout import Dropout
from parity.layers.loss import Loss
from parity.layers.lrn import LRN
from parity.layers.merge import Concat, Merge
from parity.layers.normalize import NormalizeLp, NormOffset, SpatialNorm
from parity.layers.pool import Pool
from parity.layers.rescale import Rescale
from parity.layers.roipool import ROIPooling
from parity.layers.sampling import AffineGridGenerator, BilinearSampler, UniformScalingGridGenerator
from parity.layers.scale import Scale
from parity.layers.separable import SeparableConv
from parity.layers.shape import Flatten, Identity, Pad, Reshape, Slice, Split
from parity.layers.softmax import Softmax

__all__ = [
    "KINDS",
    "LRN",
    "Activation",
    "AffineGridGenerator",
    "BatchNorm",
    "BilinearSampler",
    "Concat",
    "Context",
    "Conv",
    "ConvTranspose",
    "Crop",
    "Dense",
    "DistanceLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "Kind",
    "Loss",
    "Merge",
    "NormOffset",
    "NormalizeLp",
    "Opaque",
    "PDist",
    "Pad",
    "Pool",
    "ROIPooling",
    "Rescale",
    "Reshape",
    "Scale",
    "SeparableConv",
    "Slice",
    "Softmax",
    "SpatialNorm",
    "Split",
    "UniformScalingGridGenerator",
    "lookup",
]

KINDS: tuple[type[Kind], ...] = (
    Activation,
    AffineGridGenerator,
    BatchNorm,
    BilinearSampler,
    Concat,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    DistanceLoss,
    Dropout,
    Flatten,
    Identity,
    LRN,
    Loss,
    Merge,
    NormOffset,
    NormalizeLp,
    PDist,
    Pad,
    Pool,
    ROIPooling,
    Rescale,
    Reshape,
    Scale,
    SeparableConv,
    Slice,
    Softmax,
    SpatialNorm,
    Split,
    UniformScalingGridGenerator,
)
"""Every layer type of the vocabulary; a new one is a new file and a line here."""


def lookup(framework: str, type_name: str) -> type[Kind] | None:
    """The kind that `type_name` of `framework` (`"matconvnet"` or `"keras"`) lifts to, or None."""
    for kind in KINDS:
        if type_name in getattr(kind, framework):
            return kind
    return None
