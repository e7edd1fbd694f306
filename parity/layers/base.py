"""What every layer type has: its fields, its parameters' axes, its output shape, its forward, its counterparts.

A layer type is one file of this folder with one frozen dataclass that derives from `Kind`, named in `layers/__init__.py`.
Its `forward` runs on torch with MatConvNet's semantics (backward is torch's autograd, or an autograd function where
MatConvNet differs); torch is imported inside it, so that reading a file loads no framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch

    from parity.network import Shape

__all__ = ["Context", "Kind", "Opaque", "pair"]


@dataclass
class Context:
    """What a forward needs to know besides its inputs and parameters.

    Attributes:
        mode: `"train"` or `"eval"`.
        mask: for dropout, the 0/1 tensor (n c h w) of what was kept; None draws nothing and keeps all.
        labels: class ids from 0, of shape (n,) or (n, h, w); -1 is ignored.
        weights: instance weights of the labels, or None.
        ties: which of several equal maxima of a pooling window gets the gradient: `"column"` the first in MatConvNet's
            column-major order, `"row"` the first in row-major order (torch, tensorflow).
        statistics: filled by layers that compute batch statistics: role → tensor (c).
    """

    mode: str = "train"
    mask: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    ties: str = "column"
    statistics: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A layer type of the neutral vocabulary, with its fields.

    Class attributes:
        roles: role → axes of each parameter that the type can have, in MatConvNet's order.
        causes: field → slug of the cause (see `parity rule`) when the two sides differ in it.
        matconvnet: SimpleNN types and DagNN block names (`"dagnn.Conv"`) that lift to this kind.
        keras: Keras class names that lift to this kind.
    """

    roles: ClassVar[Mapping[str, str]] = {}
    causes: ClassVar[Mapping[str, str]] = {}
    matconvnet: ClassVar[tuple[str, ...]] = ()
    keras: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The kind's word in tables and messages, e.g. `Conv`."""
        return type(self).__name__

    def describe(self) -> dict[str, Any]:
        """Field → value, for `parity inspect` and for comparing two layers of one kind."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """The output's shape for these input shapes (all without batch axis); None where it cannot be known."""
        return inputs[0] if inputs else None

    def forward(self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context) -> torch.Tensor:
        """The layer's output (n c h w) on torch, differentiable, with MatConvNet's semantics.

        Args:
            inputs: tensors n c h w.
            params: role → tensor in the axes of `roles` (kernels `h w i o`).
            context: mode, masks, labels.
        """
        raise NotImplementedError(f"{self.name} cannot run on torch")

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Kind:
        """The kind of a tidied MatConvNet layer: its fields by name, and role → shape (neutral axes) of its parameters."""
        raise NotImplementedError

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The kind of a Keras layer: class name, its config, and its input shapes (without batch axis)."""
        raise NotImplementedError

    def keras_line(self, field_name: str) -> str:
        """The Keras constructor argument that gives this field its present value, e.g. `groups=2`; empty if none does."""
        return ""


@dataclass(frozen=True)
class Opaque(Kind):
    """What the vocabulary does not know: observed and compared by value, never guessed at.

    Attributes:
        type: its type in its own framework.
        config: its settings as the file has them, for display.
        runs_code: True for a Lambda or a function handle, which parity never runs unasked.
    """

    type: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    runs_code: bool = False


def pair(value: Any) -> tuple[int, int]:
    """`value` as (vertical, horizontal): a scalar counts for both; raises ValueError for any other length than 1 or 2."""
    items = [int(v) for v in (value if isinstance(value, Sequence | Mapping) or hasattr(value, "__len__") else [value])]
    if len(items) == 1:
        items *= 2
    if len(items) != 2:
        raise ValueError(f"expected one or two numbers, got {items}")
    return items[0], items[1]
