"""The two sides of a comparison, from paths or live objects to runners, and the batch that both take."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from parity import batch as batches
from parity.batch import Batch
from parity.case import Data
from parity.errors import BadUsage, CannotCompare
from parity.layers import Loss
from parity.network import Network, Shape
from parity.opening import framework_of, lift
from parity.recipe import Recipe
from parity.runner import Runner

__all__ = ["open_sides"]


def open_sides(
    ref: Any, keras: Any, given: Batch | None, custom: str | PathLike[str] | None, seed: int, mode: str
) -> tuple[Runner, Runner, Data, Batch]:
    """Both runners, and the batch as each takes it.

    Args:
        ref: path, Keras model or runner of the reference.
        keras: the same of the Keras side.
        given: the batch; None makes a seeded one of the shape that the files name.
        custom: a Python file with the model's custom classes, or None.
        seed: of the probe batch.
        mode: `"train"` or `"eval"`.

    Raises:
        ParityError: a file cannot be read, or the batch does not fit it.
    """
    if ref is keras and hasattr(ref, "get_config"):
        from parity.frameworks.keras.live import copied

        ref = copied(keras)  # two runners must not step the same weights
    mine, theirs = _Side(ref, "the reference", custom), _Side(keras, "the Keras model", custom)
    shapes = mine.shape(), theirs.shape()
    if given is None:
        shape = shapes[0] if shapes[0] and None not in shapes[0] else shapes[1]
        if not shape or None in shape:
            raise CannotCompare(
                "neither file says how large its input is, so no probe batch can be made; give images with --batch"
            )
        classes = mine.classes() or theirs.classes()
        given = batches.probe(tuple(int(d) for d in shape if d is not None), classes, seed)
    for side, shape, name in ((mine, shapes[0], "ref"), (theirs, shapes[1], "keras")):
        if shape:
            given = batches.fit(given, _compatible(shape, getattr(given, f"x_{name}")), side.classes(), name)
    ref_runner = mine.open(given.x_ref)
    keras_runner = theirs.open(given.x_keras)
    data = Data(
        ref={_image_input(ref_runner.network): given.x_ref},
        keras={_image_input(keras_runner.network): given.x_keras},
        labels_ref=given.y_ref,
        labels_keras=given.y_keras,
    )
    if mode == "train" and given.y_ref is None and any(isinstance(n.kind, Loss) for n in ref_runner.network):
        note = "The batch has no labels: loss, backward and update could not be compared."
        given = replace(given, notes=(*given.notes, note))
    return ref_runner, keras_runner, data, given


def _compatible(shape: Shape, x: np.ndarray) -> Shape:
    """What a side takes, where a flat input is as good as a map of as many values."""
    count = int(np.prod(x.shape[1:]))
    if None not in shape and len(shape) == 1 and len(x.shape) == 4 and shape[0] == count:
        return tuple(x.shape[1:])
    return shape


def _image_input(network: Network) -> str:
    names = network.data(network.inputs)
    if len(names) != 1:
        raise CannotCompare(
            f"{network.name} has {len(names)} data inputs ({', '.join(names)}); parity feeds one so far"
        )
    return names[0]


class _Side:
    """One of the two sides before it is opened: a path, a live Keras model, or a runner."""

    def __init__(self, given: Any, what: str, custom: str | PathLike[str] | None) -> None:
        self.given, self.what = given, what
        self.custom = None if custom is None else fspath(custom)
        self.path = Path(fspath(given)) if isinstance(given, str | PathLike) else None
        self.framework = framework_of(self.path) if self.path else ""

    @cached_property
    def read(self) -> tuple[Network, Recipe] | None:
        """The file's network and recipe, read once and not run; None for a live object."""
        return lift(self.path) if self.path else None

    @property
    def network(self) -> Network | None:
        """What is known of the network before it is opened."""
        return self.read[0] if self.read else getattr(self.given, "network", None)

    def shape(self) -> Shape | None:
        """Shape of its one data input, without batch axis."""
        network = self.network
        if network is not None:
            return next((network.inputs[name] for name in network.data(network.inputs)), None)
        inputs = getattr(self.given, "inputs", None)
        return tuple(inputs[0].shape[1:]) if inputs else None

    def classes(self) -> int | None:
        """How many classes its predictions tell apart, or None."""
        network = self.network
        if network is None:
            outputs = getattr(self.given, "outputs", None)
            shape: Shape | None = tuple(outputs[0].shape[1:]) if outputs else None
        else:
            shape = network.shape_of(network.outputs[0]) if network.outputs else None
        return shape[-1] if shape else None

    def open(self, example: np.ndarray) -> Runner:
        """A runner for it; `example` are images as it takes them."""
        if self.framework == "matconvnet":
            from parity.frameworks.matconvnet.lift import with_input
            from parity.frameworks.matconvnet.runner import MatConvNetRunner

            assert self.read is not None
            network, recipe = self.read
            return MatConvNetRunner(with_input(network, example.shape[1:], str(self.path)), recipe)
        from parity.frameworks.keras.runner import KerasRunner

        if self.path is not None:
            return KerasRunner.open(self.path, example[:2], self.custom)
        if all(hasattr(self.given, name) for name in ("network", "isolate", "run", "update")):
            return self.given
        if hasattr(self.given, "get_config") and callable(self.given):
            return KerasRunner(self.given, example[:2])
        raise BadUsage(f"{self.what} is a path, a Keras model or a runner, not {type(self.given).__name__}")
