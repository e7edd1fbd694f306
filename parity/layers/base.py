"""What every layer type has: its fields, its parameters' axes, its output shape, its forward, its counterparts.

A layer type is one file of this folder with one frozen dataclass that derives from `Kind`, named in `__init__.py`.
Its `forward` runs on torch with MatConvNet's semantics (backward is torch's autograd, or an autograd function where
MatConvNet differs); torch is imported inside it, so that reading a file loads no framework.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import torch

    from parity.network import Shape

__all__ = [
    "Context",
    "Kind",
    "Opaque",
    "Reach",
    "by",
    "flag",
    "four",
    "numbers",
    "pair",
    "same",
    "scalar",
    "setting",
    "text",
    "torch_axis",
    "whole",
]

_Form = TypeVar("_Form")


@dataclass
class Context:
    """What a forward needs to know besides its inputs and parameters.

    Attributes:
        mode: `"train"` or `"eval"`.
        mask: for dropout, the 0/1 tensor (n c h w) of what was kept; None draws nothing and keeps all.
        labels: class ids from 0, of shape (n,) or (n, h, w); -1 is ignored.
        weights: instance weights of the labels, or None.
        ties: which of several equal maxima of a pooling window gets the gradient: `"column"` the first in MatConvNet's
            column-major order, `"row"` the first in row-major order (torch, tensorflow), `"shared"` all of them alike
            (what is reduced over axes: tensorflow's `reduce_max`, Keras' global pooling). Of tensors that are joined
            by their maximum or minimum the first takes it, or all of them alike (jax, torch).
        finite: whether nothing that is read holds a NaN, so that no layer need look for one.
        outputs: whether anybody looks at what the layer makes; if not, its derivatives alone need be right.
        statistics: filled by layers that compute batch statistics: role → tensor (c).
    """

    mode: str = "train"
    mask: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    ties: str = "column"
    finite: bool = False
    outputs: bool = True
    statistics: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Reach:
    """The receptive field of one layer along each spatial axis, in cells of its input (dagnn/Layer.m).

    Attributes:
        size: cells that one output cell sees.
        stride: input cells from one output cell to the next; a fraction where the layer enlarges the map.
        offset: centre of what the first output cell sees, counted from 1 as MatConvNet does.
    """

    size: tuple[float, ...] = (1.0, 1.0)
    stride: tuple[float, ...] = (1.0, 1.0)
    offset: tuple[float, ...] = (1.0, 1.0)


@dataclass(frozen=True)
class Kind:
    """A layer type of the neutral vocabulary, with its fields.

    Class attributes:
        roles: role → axes of each parameter that the type can have, in MatConvNet's order.
        causes: field → slug of the cause (see `parity rule`) when the two sides differ in it.
        matconvnet: SimpleNN types and DagNN block names (`"dagnn.Conv"`) that lift to this kind.
        keras: Keras class names that lift to this kind.
        by_image: whether each image's result depends on that image alone, in training too; False where nobody knows.
    """

    roles: ClassVar[Mapping[str, str]] = {}
    causes: ClassVar[Mapping[str, str]] = {}
    matconvnet: ClassVar[tuple[str, ...]] = ()
    keras: ClassVar[tuple[str, ...]] = ()
    by_image: ClassVar[bool] = False

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

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The layer's output (n c h w) on torch, differentiable, with MatConvNet's semantics.

        Args:
            inputs: tensors n c h w.
            params: role → tensor in the axes of `roles` (kernels `h w i o`).
            context: mode, masks, labels.
        """
        raise NotImplementedError(f"{self.name} cannot run on torch")

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Kind:
        """The kind of a tidied MatConvNet layer: its fields by name, and role → shape (neutral axes) of its parameters.

        Raises ValueError, with the rest of the sentence "layer x: ...", where a field is missing or out of range.
        """
        raise NotImplementedError

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> Kind:
        """The kind on inputs of these shapes (without batch axis): fields that the input implies are filled in.

        MatConvNet's groups are such a field. `shapes` gives role → shape of the parameters. Raises ValueError, with the
        rest of the sentence "layer x: ...", where a parameter does not fit the input.
        """
        return self

    @classmethod
    def split_matconvnet(cls, weights: Sequence[Any]) -> dict[str, tuple[np.ndarray, int]]:
        """Role → (array in the axes of `roles`, its index in the layer's `weights`), for the cells that are not empty.

        MATLAB drops trailing axes of extent 1; they come back here. Raises ValueError where an array does not fit.
        """
        import numpy as np

        found: dict[str, tuple[np.ndarray, int]] = {}
        for j, (role, value) in enumerate(zip(cls.roles, weights, strict=False)):
            value = np.asarray(value)
            rank = len(cls.roles[role].split())
            if not value.size:
                continue
            if rank > 1 and value.ndim > rank:
                raise ValueError(f"its {role} has {value.ndim} axes, not {rank}")
            shape = (-1,) if rank == 1 else value.shape + (1,) * (rank - value.ndim)
            found[role] = (value.reshape(shape, order="F"), j)
        return found

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The kind of a Keras layer: class name, its config, and its input shapes (without batch axis)."""
        raise NotImplementedError

    @classmethod
    def input_channels(cls, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """How many channels its parameters (role → shape, in the axes of `roles`) want of its input; None for any.

        A grouped convolution of MatConvNet takes a multiple of it.
        """
        return None

    def remarks(self) -> tuple[str, ...]:
        """What a reader should know of every layer of this kind in a MatConvNet network."""
        return ()

    def words(self) -> list[str]:
        """The kind with its fields as tables write it, e.g. `["spatial norm 3×3", "alpha 1"]`; empty: the usual form.

        The usual form (`parity.wording`) is the kind's name and the fields that do not have their defaults.
        """
        return []

    def reach(self) -> Reach | None:
        """What one cell of its output sees of its first input; None where that is the whole map or cannot be said."""
        return Reach()

    def keras_line(self, field_name: str) -> str:
        """The Keras constructor argument that gives this field its present value, e.g. `groups=2`; empty if none."""
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

    def reach(self) -> Reach | None:
        """Unknown."""
        return None


def by(shape: Sequence[int | None]) -> str:
    """Extents in words, e.g. `28×28×?`."""
    return "×".join("?" if n is None else str(n) for n in shape)


def same(values: Sequence[int]) -> str:
    """`2` for (2, 2), `0 1 0 1` where the numbers differ."""
    return str(values[0]) if len(set(values)) == 1 else " ".join(map(str, values))


def pair(value: Any) -> tuple[int, int]:
    """`value` as (vertical, horizontal), a scalar for both; raises ValueError for other lengths than 1 or 2."""
    items = _whole(value)
    if len(items) == 1:
        items *= 2
    if len(items) != 2:
        raise ValueError(f"expected one or two numbers, got {len(items)}")
    return items[0], items[1]


def four(value: Any) -> tuple[int, int, int, int]:
    """`value` as (top, bottom, left, right), a scalar for all; raises ValueError for other lengths than 1 or 4."""
    items = _whole(value)
    if len(items) == 1:
        items *= 4
    if len(items) != 4:
        raise ValueError(f"expected one or four numbers, got {len(items)}")
    return items[0], items[1], items[2], items[3]


def numbers(value: Any) -> list[float]:
    """The numbers of a scalar, sequence or array, in column-major order; raises ValueError for anything else."""
    import numpy as np

    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected numbers, got {_spoken(value)}")
    return [float(v) for v in array.reshape(-1, order="F")[:_MANY]]


def scalar(value: Any) -> float:
    """`value` as one number; raises ValueError for anything else."""
    items = numbers(value)
    if len(items) != 1:
        raise ValueError(f"expected one number, got {len(items)}")
    return items[0]


def whole(value: Any) -> int:
    """`value` as one whole number; raises ValueError for anything else."""
    items = _whole(value)
    if len(items) != 1:
        raise ValueError(f"expected one whole number, got {len(items)}")
    return items[0]


def setting(layer: Mapping[str, Any], name: str, form: Callable[[Any], _Form], default: Any = None) -> _Form:
    """A field of a MatConvNet layer in the form that `pair`, `four`, `scalar`, `whole`, `flag` or `numbers` gives it.

    Raises ValueError, with the field's name, where it is missing and has no default, or is not of that form.
    """
    value = layer.get(name, default)
    if value is None:
        raise ValueError(f"its {name} is missing")
    try:
        return form(value)
    except ValueError as error:
        raise ValueError(f"its {name}: {error}") from None


def text(value: Any) -> str:
    """`value` as one word; raises ValueError for anything but a text."""
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {_spoken(value)}")
    return value


def flag(value: Any) -> bool:
    """`value` as a logical, of a logical or number of one element; raises ValueError for anything else."""
    return bool(scalar(value))


def torch_axis(rank: int, axis: int) -> int:
    """Where an axis of the `n h w c` (or `n c`) layout lies in torch's `n c h w`; negative ones count from the end."""
    axis %= rank
    return 0 if axis == 0 else 1 if axis == rank - 1 else axis + 1


_MANY = 100_000  # a field of a layer is a handful of numbers; a damaged file may claim more


def _spoken(value: Any) -> str:
    """What a value of a file is, in MATLAB's words."""
    for kind, word in ((str, "text"), (list, "a cell array"), (dict, "a struct")):
        if isinstance(value, kind):
            return word
    return str(getattr(value, "what", "") or type(value).__name__)  # `Unreadable` says what it was


def _whole(value: Any) -> list[int]:
    items = numbers(value)
    if any(v != int(v) if abs(v) < 2**31 else True for v in items):
        raise ValueError(f"expected whole numbers, got {items[:4]}")
    return [int(v) for v in items]
