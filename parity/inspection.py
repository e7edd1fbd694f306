"""What a file holds: its network and its recipe, read and not run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.errors import BadUsage, CannotCompare
from parity.opening import lift
from parity.receptive import activation_bytes, parameter_bytes, receptive_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from parity.layers.base import Reach
    from parity.network import Layer, Network, Param
    from parity.recipe import Recipe
from parity.traces.format import is_trace

__all__ = ["Inspection", "inspect_file"]


@dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """A file's network and recipe; it draws itself with rich and in a notebook.

    Attributes:
        path: the file.
        network: its layers and parameters.
        recipe: how it is trained, as far as the file says.
    """

    path: Path
    network: Network
    recipe: Recipe

    def params_of(self, layer: Layer) -> list[Param]:
        """The parameters of one layer, in the order of their roles."""
        return [self.network.params[name] for name in layer.params.values() if name in self.network.params]

    @cached_property
    def receptive_fields(self) -> Mapping[str, Reach]:
        """Tensor → what it sees of the first input; absent where it sees all of it or nobody can say."""
        return receptive_fields(self.network)

    def parameter_bytes(self, layer: Layer | None = None) -> int:
        """Bytes of the parameters of a layer, or of the network with each shared one counted once (4 per number)."""
        return 4 * self.count if layer is None else parameter_bytes(self.network, layer)

    def activation_bytes(self, layer: Layer | None = None) -> int | None:
        """Bytes of the output of a layer, or of all, for one image (4 per number); None where a shape is open."""
        if layer is not None:
            return activation_bytes(layer)
        sizes = [activation_bytes(item) for item in self.network.layers]
        return None if any(size is None for size in sizes) else sum(size or 0 for size in sizes)

    @property
    def count(self) -> int:
        """How many numbers the network's parameters hold, each shared one counted once."""
        return sum(size(param) for param in self.network.params.values())

    @property
    def trainable_count(self) -> int:
        """How many of them the gradient moves."""
        return sum(size(param) for param in self.network.params.values() if param.trainable)

    def __repr__(self) -> str:
        return f"<Inspection {self.path}: {len(self.network.layers)} layers, {self.count} parameters>"

    def __str__(self) -> str:
        from parity.reports.output import as_text

        return as_text(self)

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from parity.reports.inspection import render

        yield from render(self, options.max_width)

    def _repr_html_(self) -> str:
        from parity.reports.notebook import to_html

        return to_html(self)


def size(param: Param) -> int:
    """How many numbers a parameter holds."""
    return math.prod(param.shape)


def inspect_file(path: str | PathLike[str], input_size: Sequence[int] | None = None) -> Inspection:
    """Read a MatConvNet or Keras file, or a trace of either; see `parity.inspect`."""
    if is_trace(path):
        from parity.traces.reader import Trace

        with Trace(path) as trace:
            network, recipe = trace.network, trace.recipe
    else:
        network, recipe = lift(path)
    if input_size is not None:
        network = _sized(network, _extents(input_size))
    return Inspection(Path(fspath(path)), network, recipe)


def _extents(input_size: Sequence[int]) -> tuple[int, ...]:
    extents = tuple(input_size)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= _MOST for n in extents)
    if len(extents) not in (2, 3) or not whole:
        raise BadUsage(f"the input size is H,W or H,W,C in whole numbers from 1 to {_MOST}, not {list(extents)}")
    return extents


_MOST = 100_000


def _sized(network: Network, extents: tuple[int, ...]) -> Network:
    """The network on inputs of these extents; every data input that is a map gets them.

    Raises CannotCompare where a layer does not fit, or the file fixes other extents for good.
    """
    maps = {name: network.inputs[name] for name in network.data(network.inputs) if len(network.inputs[name]) == 3}
    if not maps:
        raise CannotCompare(f"{network.name}: it has no input of three extents (h, w, c)")
    wanted = {name: (*extents[:2], extents[2] if len(extents) > 2 else shape[2]) for name, shape in maps.items()}
    if network.framework == "matconvnet":  # nothing of such a file depends on its input's size
        from parity.frameworks.matconvnet.sizes import with_input

        return with_input(network, wanted)
    for name, shape in maps.items():
        if any(a not in (None, b) for a, b in zip(shape, wanted[name], strict=True)):
            fixed = "×".join("?" if n is None else str(n) for n in shape)
            raise CannotCompare(f"{network.name}: its input {name} is {fixed}; the file fixes that")
    return _propagated(network, wanted)


def _propagated(network: Network, inputs: Mapping[str, tuple[int | None, ...]]) -> Network:
    """The network with the shapes that were open worked out from its inputs."""
    shapes: dict[str, tuple[int | None, ...] | None] = {**network.inputs, **inputs}
    layers: list[Layer] = []
    for layer in network.layers:
        shape = layer.shape
        read = [shapes.get(tensor) for tensor in network.data(layer.inputs)]
        known = [item for item in read if item is not None]
        if (shape is None or None in shape) and known and len(known) == len(read):
            try:
                shape = layer.kind.output_shape(known)
            except (ValueError, IndexError, TypeError) as error:
                raise CannotCompare(f"{network.name}: layer {layer.name}: {error}") from None
        shapes.update(dict.fromkeys(layer.outputs, shape))
        layers.append(replace(layer, shape=shape))
    return replace(network, layers=tuple(layers), inputs={**network.inputs, **inputs})
