"""What a file holds: its network and its recipe, read and not run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity.opening import lift

if TYPE_CHECKING:
    from parity.network import Layer, Network, Param
    from parity.recipe import Recipe

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


def inspect_file(path: str | PathLike[str]) -> Inspection:
    """Read a MatConvNet or Keras file; see `parity.inspect`."""
    network, recipe = lift(path)
    return Inspection(Path(fspath(path)), network, recipe)
