"""What both sides of a pair are given when they are run alone: the reference's tensors, as each side takes them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from parity.align import Pair
from parity.layers import Dropout, Loss
from parity.runner import Local
from parity.tensors import Named, fitted

if TYPE_CHECKING:
    from parity.bench import Bench

__all__ = ["Fitting", "Unfit", "other_values"]

Array = np.ndarray

_OTHER_INPUT = "its input has another shape than the reference's"
_OTHER_OUTPUT = "its output has another shape than the reference's"


class Unfit(Exception):
    """The Keras unit cannot be given the reference's tensors."""


class Fitting:
    """One pair's inputs and upstream gradient (`parity.bench.Trial` runs it on them)."""

    bench: Bench
    pair: Pair
    named: Named
    varied: int | None
    is_loss: bool
    backward: bool
    upstream_ref: Array | None

    def _given(self, tensor: str) -> Array:
        """The reference's own value of a tensor, or what is made of it for a second trial."""
        value = self.bench.observed.outputs[tensor]
        kind = self.pair.ref.kind
        apart = not isinstance(kind, Loss) or kind.function == "softmaxlog"  # what a loss reads may be probabilities
        return value if self.varied is None else other_values(value, self.varied, apart=apart)

    @cached_property
    def ref_feeds(self) -> dict[str, Array]:
        """Reference tensor → the value the reference itself made, for what its layers read from outside."""
        network = self.bench.ref.network
        layers = [network[name] for name in self.pair.ref.layers]
        inside = {tensor for layer in layers for tensor in layer.outputs}
        read = dict.fromkeys(tensor for layer in layers for tensor in layer.inputs if tensor not in inside)
        return {tensor: self._given(tensor) for tensor in network.data(read)}

    @cached_property
    def keras_feeds(self) -> dict[str, Array]:
        """Keras tensor → the reference's value for it, in the shape that Keras has there. Raises Unfit.

        Or, where the unit is `resized`, as the reference has it.
        """
        network = self.bench.keras.network
        made: dict[str, Array] = {}
        for tensor in network.data(self.pair.keras.inputs):
            source = self.named.wiring.get(tensor)
            if not source or source not in self.bench.observed.outputs:
                raise Unfit("nothing is known of its input")
            given = self._given(source)
            own = fitted(given, network.shape_of(tensor))
            if own is None and not self.resized:
                raise Unfit(_OTHER_INPUT)
            made[tensor] = given if own is None else own
        return made

    @cached_property
    def resized(self) -> bool:
        """Whether Keras has maps of other extents here, behind a fault above, and may take the reference's as well.

        So does a convolution, a pooling, a normalisation; what is flattened, or was drawn for its map, does not.
        """
        if self.is_loss or isinstance(self.pair.keras.kind, Dropout):
            return False
        network, found = self.bench.keras.network, False
        for tensor in network.data(self.pair.keras.inputs):
            value = self.bench.observed.outputs.get(self.named.wiring.get(tensor, ""))
            shape = network.shape_of(tensor)
            if value is None or shape is None:
                return False
            if fitted(value, shape) is None:
                if len(shape) < 2 or value.ndim != len(shape) + 1 or value.shape[-1] != shape[-1]:
                    return False
                found = True
        return found

    @cached_property
    def misfit(self) -> str:
        """How the shape of what a `resized` unit makes of the reference's inputs differs; empty where it does not."""
        if not self.resized:
            return ""
        try:
            local = self._isolated(None)
        except Unfit:
            return ""
        made, wanted = local.outputs[self.pair.keras.output], self.bench.observed.outputs[self.pair.ref.output]
        same = fitted(made, wanted.shape[1:]) is not None
        return "" if same else f"shape {made.shape[1:]} against {wanted.shape[1:]}"

    def upstream(self, side: str) -> dict[str, Array] | None:
        """Tensor → the reference's gradient of it, as a side is given it; None forward only. Raises Unfit."""
        if not self.backward:
            return None
        if self.is_loss:
            return {}
        assert self.upstream_ref is not None
        if side == "ref":
            return {self.pair.ref.output: self.upstream_ref}
        if self.misfit:
            raise Unfit(_OTHER_OUTPUT)
        return {self.pair.keras.output: self.as_output(self.upstream_ref)}

    def as_output(self, value: Array) -> Array:
        """What the reference's unit makes, or its gradient, in the shape of what the Keras unit makes. Raises Unfit."""
        own = fitted(value, self.bench.keras.network[self.pair.keras.layers[-1]].shape)
        if own is None and not self.resized:
            raise Unfit(_OTHER_OUTPUT)
        return value if own is None else own

    def _isolated(self, upstream: dict[str, Array] | None, precision: int = 32) -> Local:
        ids = {key for keys in self.pair.keras.params.values() for key in keys}
        feeds = self.keras_feeds
        try:
            return self.bench.keras.isolate(
                self.pair.keras.layers,
                feeds,
                labels=self.bench.labels_keras,
                upstream=upstream,
                mode=self.bench.mode,
                masks=self.bench.masks,
                params={key: value for key, value in self.bench.keras_values.items() if key in ids},
                precision=precision,
            )
        except NotImplementedError:
            raise
        except Exception as error:  # a layer was built for its own map alone, and says so in its own way
            if self.resized:
                raise Unfit(_OTHER_INPUT) from error
            raise


def other_values(value: Array, seed: int, *, apart: bool) -> Array:
    """Another tensor of the same kind: other images at each place and, with `apart`, other sizes and some other signs.

    Without it, for what a loss takes, the classes change places too: labels may be alike, and a mean over the images
    does not see them change places. What counts (whole numbers) or has no negative values stays so.
    """
    rng = np.random.default_rng(seed)
    moved = np.roll(value, 1, axis=0) if value.shape[:1] and value.shape[0] > 1 else value.copy()
    if not apart:
        return np.roll(moved, 1, axis=-1) if value.ndim > 1 else moved
    if np.array_equal(value, np.round(value)):
        return moved
    moved = moved * rng.uniform(0.5, 1.5, value.shape)
    if value.min(initial=0) < 0:
        moved = moved * rng.choice((1.0, -1.0), value.shape, p=(0.7, 0.3))
    return moved.astype(value.dtype)
