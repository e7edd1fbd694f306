"""Layers that only move values about: flatten, reshape, pad, slice, identity."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, torch_axis
from parity.layers.keras_fields import extents, require_channels_last

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class Identity(Kind):
    """y = x."""

    keras: ClassVar = ("Identity", "ActivityRegularization", "InputLayer")
    by_image: ClassVar = True

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Layers that hand their input on."""
        return cls()

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The input itself."""
        return inputs[0]


@dataclass(frozen=True)
class Flatten(Kind):
    """(h, w, c) → (h·w·c,) in row-major order of h, w, c."""

    keras: ClassVar = ("Flatten",)
    by_image: ClassVar = True

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The Flatten layer."""
        require_channels_last(config)
        return cls()

    def reach(self) -> Reach | None:
        """There is no map behind it."""
        return None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """(h, w, c) → (h·w·c,)."""
        return (_count(inputs[0]),)

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Row-major in h, w, c, as Keras flattens."""
        return inputs[0].movedim(1, -1).flatten(1)


@dataclass(frozen=True)
class Reshape(Kind):
    """Another shape for the same values, row-major.

    Attributes:
        target: the shape without the batch axis; -1 once for the rest.
    """

    keras: ClassVar = ("Reshape",)

    target: tuple[int, ...] = ()

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """The Reshape layer."""
        return cls(tuple(int(v) for v in config["target_shape"]))

    def keras_line(self, field_name: str) -> str:
        """`target_shape=...`."""
        return f"target_shape={self.target}" if field_name == "target" else ""

    def reach(self) -> Reach | None:
        """Cells lie elsewhere behind it."""
        return None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """The target, with -1 worked out where the input's extents are known."""
        if -1 not in self.target:
            return tuple(self.target)
        count, known = _count(inputs[0]), 1
        for extent in self.target:
            known *= extent if extent != -1 else 1
        rest = None if count is None or not known else count // known
        return tuple(rest if extent == -1 else extent for extent in self.target)

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Row-major in h, w, c."""
        x = inputs[0].movedim(1, -1)
        return x.reshape(x.shape[0], *self.target).movedim(-1, 1)


@dataclass(frozen=True)
class Pad(Kind):
    """Cells around the map.

    Attributes:
        pad: (top, bottom, left, right).
        value: what they hold.
    """

    causes: ClassVar = {"pad": "padding-size"}
    keras: ClassVar = ("ZeroPadding2D", "ZeroPadding1D", "ZeroPadding3D")
    by_image: ClassVar = True

    pad: tuple[int, ...] = (0, 0, 0, 0)
    value: float = 0.0

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """ZeroPadding1D, 2D, 3D."""
        require_channels_last(config)
        rank = int(class_name[-2])
        raw = config.get("padding", 1)
        pairs = [raw] * rank if isinstance(raw, int) else ([raw] if rank == 1 else list(raw))
        return cls(tuple(cell for pair in pairs for cell in extents(pair, 2)))

    def keras_line(self, field_name: str) -> str:
        """The layer with these cells."""
        sides = ", ".join(f"({self.pad[i]}, {self.pad[i + 1]})" for i in range(0, len(self.pad), 2))
        return f"ZeroPadding2D(({sides}))" if field_name == "pad" else ""

    def reach(self) -> Reach:
        """One cell, nearer by what is put before it."""
        befores = self.pad[::2]
        ones = (1.0,) * len(befores)
        return Reach(ones, ones, tuple(1.0 - before for before in befores))

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """Each spatial extent grows by its two pads."""
        *extents, channels = inputs[0]
        grown = (n if n is None else n + self.pad[2 * a] + self.pad[2 * a + 1] for a, n in enumerate(extents))
        return (*grown, channels)

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """Constant cells around the map."""
        import torch.nn.functional as F

        top, bottom, left, right = self.pad
        return F.pad(inputs[0], (left, right, top, bottom), value=self.value)


@dataclass(frozen=True)
class Slice(Kind):
    """A range of one axis.

    Attributes:
        axis: counted from the end, -1 the channels.
        start: first index.
        stop: index past the last one.
    """

    axis: int = -1
    start: int = 0
    stop: int = 0

    def reach(self) -> Reach | None:
        """One cell, unless the map itself is cut."""
        return Reach() if self.axis == -1 else None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """The axis shrinks to stop - start."""
        at = len(inputs[0]) + self.axis
        return (*inputs[0][:at], self.stop - self.start, *inputs[0][at + 1 :])

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The range."""
        x = inputs[0]
        return x.narrow(torch_axis(x.dim(), self.axis), self.start, self.stop - self.start)


@dataclass(frozen=True)
class Split(Kind):
    """Several consecutive ranges of one axis, one output each.

    Attributes:
        axis: counted from the end, -1 the channels.
        bounds: indices at which the axis is cut.
    """

    axis: int = -1
    bounds: tuple[int, ...] = ()

    def reach(self) -> Reach | None:
        """One cell, unless the map itself is cut."""
        return Reach() if self.axis == -1 else None

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """Of the first piece."""
        at = len(inputs[0]) + self.axis
        first = self.bounds[0] if self.bounds else inputs[0][at]
        return (*inputs[0][:at], first, *inputs[0][at + 1 :])

    def forward(  # type: ignore[override]
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> tuple[torch.Tensor, ...]:
        """All pieces, in order."""
        x = inputs[0]
        axis = torch_axis(x.dim(), self.axis)
        edges = (0, *self.bounds, x.shape[axis])
        return tuple(x.narrow(axis, start, stop - start) for start, stop in itertools.pairwise(edges))


def _count(shape: Shape) -> int | None:
    total = 1
    for extent in shape:
        if extent is None:
            return None
        total *= extent
    return total
