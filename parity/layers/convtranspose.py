"""Transposed convolution, grouped, with cropping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parity.layers.base import Context, Kind, Reach, by, four, pair, same, setting, whole
from parity.layers.geometry import grown_extent
from parity.layers.keras_fields import extents, require_channels_last

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from parity.network import Shape


@dataclass(frozen=True)
class ConvTranspose(Kind):
    """full(i·uy+u·dy, j·ux+v·dx, k) += w(u,v,k,c)·x(i,j,c), then the crop, then the bias.

    Source: vl_nnconvt.cu; Keras Conv2DTranspose, whose kernel has the same axes.

    Attributes:
        filters: output channels.
        size: (h, w) of a filter.
        upsample: (y, x), the stride of the convolution that it transposes.
        crop: (top, bottom, left, right) cells taken off the full map; negative ones are added (Keras' output_padding).
        dilate: (y, x).
        groups: input channels of group g reach output channels of group g only.
        bias: whether it has one.
    """

    roles: ClassVar = {"kernel": "h w o i", "bias": "o"}
    causes: ClassVar = {
        "upsample": "conv-stride",
        "dilate": "conv-dilation",
        "groups": "conv-groups",
        "bias": "bias-missing",
        "crop": "padding-size",
    }
    matconvnet: ClassVar = ("convt", "dagnn.ConvTranspose")
    keras: ClassVar = (
        "Conv2DTranspose",
        "Convolution2DTranspose",
        "Deconvolution2D",
        "Conv1DTranspose",
        "Convolution1DTranspose",
        "Conv3DTranspose",
        "Convolution3DTranspose",
        "Deconvolution3D",
    )
    by_image: ClassVar = True

    filters: int = 0
    size: tuple[int, ...] = (1, 1)
    upsample: tuple[int, ...] = (1, 1)
    crop: tuple[int, ...] = (0, 0, 0, 0)
    dilate: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = True

    def words(self) -> list[str]:
        """With its filters, and what is not usual of it."""
        parts = [f"transposed conv {by(self.size)}", f"{self.filters} filters", f"upsample {same(self.upsample)}"]
        parts += [f"crop {same(self.crop)}"] if any(self.crop) else []
        parts += [f"dilate {same(self.dilate)}"] if set(self.dilate) != {1} else []
        parts += [f"{self.groups} groups"] if self.groups != 1 else []
        return [*parts, *([] if self.bias else ["no bias"])]

    def output_shape(self, inputs: Sequence[Shape]) -> Shape | None:
        """(h, w, c) → (h', w', filters), any number of spatial axes; ValueError where the crop leaves nothing."""
        *spatial, _ = inputs[0]
        if len(spatial) != len(self.size):
            raise ValueError(f"a filter over {len(self.size)} axes on a map of {len(spatial)}")
        return (*map(self._extent, range(len(spatial)), spatial), self.filters)

    def _extent(self, axis: int, extent: int | None) -> int | None:
        before, after = self.crop[2 * axis : 2 * axis + 2]
        return grown_extent(extent, self.size[axis], self.upsample[axis], before, after, self.dilate[axis])

    def reach(self) -> Reach:
        """The filter, seen from the other side (dagnn/ConvTranspose.m, `getReceptiveFields`)."""
        spans = [(k - 1) * d + 1 for k, d in zip(self.size, self.dilate, strict=True)]
        steps = self.upsample
        return Reach(
            tuple((span - 1) / u + 1 for span, u in zip(spans, steps, strict=True)),
            tuple(1 / u for u in steps),
            tuple((2 * self.crop[2 * a] - spans[a] + 1) / (2 * steps[a]) + 1 for a in range(len(spans))),
        )

    @classmethod
    def input_channels(cls, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """The last extent of its filters."""
        return shapes["kernel"][-1] if "kernel" in shapes else None

    def forward(
        self, inputs: Sequence[torch.Tensor], params: Mapping[str, torch.Tensor], context: Context
    ) -> torch.Tensor:
        """The full map, cropped (or grown by zeros), and the bias on all of it."""
        import torch.nn.functional as F

        x, kernel = inputs[0], params["kernel"]
        rank = len(self.size)
        turned = kernel.permute(rank + 1, rank, *range(rank))  # h w o i -> i o h w
        transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
        y = transposed(x, turned, None, self.upsample, 0, 0, self.groups, self.dilate)
        if any(self.crop):
            sides = [-cells for a in reversed(range(rank)) for cells in self.crop[2 * a : 2 * a + 2]]
            y = F.pad(y, sides)
        bias = params.get("bias")
        return y if bias is None else y + bias.reshape(1, -1, *(1 for _ in range(rank)))

    @classmethod
    def from_matconvnet(cls, layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> ConvTranspose:
        """A `convt` layer or block: filters h×w×(outputs/groups)×inputs, and the number of groups (vl_nnconvt.cu)."""
        upsample, crop, groups = (
            setting(layer, "upsample", pair),
            setting(layer, "crop", four),
            setting(layer, "numGroups", whole),
        )
        if min(upsample) < 1 or min(crop) < 0:
            raise ValueError(f"its upsample {upsample} or crop {crop} is out of range")
        if groups < 1:
            raise ValueError(f"its numGroups is {groups}, not a number from 1 on")
        if "kernel" not in shapes:
            raise ValueError("it has no filters")
        h, w, depth, channels = shapes["kernel"]
        filters = depth * groups
        if channels % groups:
            raise ValueError(f"its filters take {channels} channels, which {groups} groups cannot share")
        if shapes.get("bias", (filters,)) != (filters,):
            raise ValueError(f"it makes {filters} channels but has {shapes['bias'][0]} biases")
        return cls(filters, (h, w), upsample, crop, (1, 1), groups, "bias" in shapes)

    def fit(self, inputs: Sequence[Shape], shapes: Mapping[str, tuple[int, ...]]) -> ConvTranspose:
        """The same, if its filters take as many channels as its input has."""
        channels = inputs[0][-1] if inputs and inputs[0] else None
        wanted = self.input_channels(shapes)
        if None not in (channels, wanted) and channels != wanted:
            raise ValueError(f"its filters take {wanted} channels, but its input has {channels}")
        return self

    @classmethod
    def from_keras(cls, class_name: str, config: Mapping[str, Any], inputs: Sequence[Shape]) -> Kind:
        """Conv1DTranspose, 2D, 3D; `Deconvolution2D` is Keras 1's, whose config says the output's shape as well.

        `valid` keeps the full map, `same` comes to extent·stride; what a stride longer than the filter or an
        `output_padding` adds lies after the map (keras/src/backend/common/backend_utils.py).
        """
        require_channels_last(config)
        rank = next(int(c) for c in class_name if c.isdigit())
        size = extents(config["kernel_size"] if "kernel_size" in config else _keras1(config, "nb_row nb_col"), rank)
        steps = extents(config.get("strides", config.get("subsample", 1)), rank)
        dilate = extents(config.get("dilation_rate", 1), rank)
        word = str(config.get("padding", config.get("border_mode", "valid"))).lower()
        if word not in ("valid", "same"):
            raise ValueError(f"unknown padding {word!r}")
        raw = config.get("output_padding")
        more: tuple[int | None, ...] = (None,) * rank if raw is None else extents(raw, rank)
        crop: list[int] = []
        for k, u, d, extra in zip(size, steps, dilate, more, strict=True):
            crop.extend(_crop((k - 1) * d + 1, u, word, extra))
        return cls(
            filters=int(config.get("filters", config.get("nb_filter", 0))),
            size=size,
            upsample=steps,
            crop=tuple(crop),
            dilate=dilate,
            groups=int(config.get("groups") or 1),
            bias=bool(config.get("use_bias", config.get("bias", True))),
        )

    def keras_line(self, field_name: str) -> str:
        """The constructor argument, e.g. `strides=(2, 2)`; a crop that Keras has no word for is a layer of its own."""
        if field_name == "crop":
            words = self.keras_padding()
            if words is not None:
                more = f", output_padding={words['output_padding']}" if "output_padding" in words else ""
                return f'padding="{words["padding"]}"{more}'
            sides = ", ".join(f"({self.crop[i]}, {self.crop[i + 1]})" for i in range(0, len(self.crop), 2))
            return f'padding="valid", with Cropping2D(({sides})) behind it'
        names = {"size": "kernel_size", "upsample": "strides", "dilate": "dilation_rate", "bias": "use_bias"}
        return f"{names.get(field_name, field_name)}={getattr(self, field_name)}"

    def keras_padding(self) -> dict[str, Any] | None:
        """The arguments of Keras that crop so: `padding`, and `output_padding` where it takes one; None for none."""
        for word in ("valid", "same"):
            if self.crop == self.keras_crop(word):
                return {"padding": word}
        spans = [(k - 1) * d + 1 for k, d in zip(self.size, self.dilate, strict=True)]
        sides = [self.crop[2 * axis : 2 * axis + 2] for axis in range(len(spans))]
        for word in ("valid", "same"):
            found = [
                next((extra for extra in range(step) if _crop(span, step, word, extra) == own), None)
                for span, step, own in zip(spans, self.upsample, sides, strict=True)
            ]
            if None not in found:
                return {"padding": word, "output_padding": tuple(found)}
        return None

    def keras_crop(self, word: str) -> tuple[int, ...]:
        """What Keras crops of such a map with `padding="valid"` or `"same"`; negative cells are added."""
        spans = [(k - 1) * d + 1 for k, d in zip(self.size, self.dilate, strict=True)]
        return tuple(c for span, u in zip(spans, self.upsample, strict=True) for c in _crop(span, u, word, None))


def _crop(span: int, step: int, word: str, extra: int | None) -> tuple[int, int]:
    """Cells that Keras crops before and after a full map of (n - 1)·step + span cells; negative ones are added."""
    if word == "valid":
        return 0, -(max(span, step) - span if extra is None else extra)
    total = span - step if extra is None else span - span % 2 - extra
    before = max(total, 0) // 2
    return before, total - before


def _keras1(config: Mapping[str, Any], names: str) -> list[int]:
    return [int(config[name]) for name in names.split()]
