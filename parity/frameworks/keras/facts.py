"""The facts of a Keras file, whatever its format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from parity.frameworks.keras.builtins import CLASSES
from parity.frameworks.keras.hdf5 import guard, opened
from parity.frameworks.keras.stored import Stored

__all__ = ["KerasFile", "compiled"]


@dataclass(frozen=True, eq=False)
class KerasFile:
    """The facts of one file.

    Attributes:
        path: the file.
        format: `"hdf5"`, `"zip"`, `"savedmodel"`, or `"weights"` (weights alone, by place).
        version: the Keras that wrote it, e.g. `"2.1.6"`; empty where the file does not say.
        backend: `"tensorflow"`, `"theano"`, ...; empty where the file does not say.
        model_config: class_name and config of the model, in the words of Keras 2 or 3, channels last (see `repair`).
        training_config: `compile()`'s arguments: `optimizer` (class_name, config), `loss`, `metrics`, `loss_weights`;
            None for a model that was never compiled.
        weights: layer's name → its arrays, in the layer's order, as the model's outermost container names the layers.
            By place (a zip): where each leaf lies → its arrays. Where `repaired`, and in a SavedModel: each leaf's
            path → its arrays.
        slots: the optimizer's arrays, in the file's order (`.keras`: by number).
        original: class_name and config as the file has them.
        repaired: whether `model_config` or the arrays' layout are other than in the file.
        apart: whether the model comes from a file of its own, and this one holds weights alone.
        turned: names of the model's inputs that keep their channels first in the file.
        remarks: what a reader should know of how the file was read.
    """

    path: Path
    format: str
    version: str
    backend: str
    model_config: Mapping[str, Any]
    training_config: Mapping[str, Any] | None
    weights: Mapping[str, tuple[Stored, ...]] = field(default_factory=dict)
    slots: tuple[Stored, ...] = ()
    original: Mapping[str, Any] = field(default_factory=dict)
    repaired: bool = False
    apart: bool = False
    turned: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def era(self) -> int:
        """1, 2 or 3: the major version that wrote it. A file that does not say is taken for the first."""
        major = re.match(r"\d+", self.version)
        return min(max(int(major.group()), 1), 3) if major else 1

    @property
    def by_place(self) -> bool:
        """Whether its arrays are listed by where a layer is (`layers/dense`), and not by the layer's name."""
        return self.format in ("zip", "weights") and not self.repaired

    def read(self, stored: Stored) -> np.ndarray:
        """The array itself; raises BadFile where the file is damaged there."""
        return self.read_all([stored])[0]

    def read_all(self, wanted: list[Stored]) -> list[np.ndarray]:
        """Several arrays, the file opened once; raises BadFile where it is damaged."""
        with guard(self.path):
            if self.format == "savedmodel":
                from parity.frameworks.keras.checkpoint import Bundle

                bundle = Bundle(self.path / "variables")
                return [stored.value(bundle.read) for stored in wanted]
            with opened(self.path, self.format) as f:
                return [stored.value(lambda place: np.asarray(f[place][()])) for stored in wanted]

    def read_slots(self) -> list[tuple[str, np.ndarray]]:
        """Name and value of each of the optimizer's arrays, in the file's order."""
        values = self.read_all(list(self.slots))
        return [(stored.name, value) for stored, value in zip(self.slots, values, strict=True)]

    @property
    def steps_done(self) -> int:
        """Updates that the optimizer has behind it, where the file holds the count; otherwise 0."""
        for stored in self.slots:
            word = stored.name.rsplit("/", 1)[-1].split(":")[0]
            counts = re.fullmatch(r"iter(ation|ations)?(_\d+)?", word) or stored.name == "optimizer/vars/0"
            if stored.shape == () and counts:
                return int(self.read(stored))
        return 0


def compiled(training: Any) -> Mapping[str, Any] | None:
    """A training configuration with its optimizer as class and settings, where it is a bare name; None for none."""
    if not isinstance(training, Mapping):
        return None
    optimizer = training.get("optimizer")
    if isinstance(optimizer, str):  # Keras looks such names up whatever their case
        name = next((word for word in sorted(CLASSES) if word.lower() == optimizer.lower()), optimizer)
        optimizer = {"class_name": name, "config": {}}
    return {**training, "optimizer": optimizer}
