"""What dropout keeps in one training step: drawn once, for both sides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parity.case import Comparison
from parity.layers import Dropout
from parity.masks import masks_for_keras, masks_for_ref
from parity.units import Unit

__all__ = ["Drawn"]

Array = np.ndarray


class Drawn:
    """The masks of both sides' dropout layers.

    Args:
        run: the comparison.
        step: from 1.
        seed: of what is drawn.
        shape_of: Keras tensor → its shape with batch axis.

    Attributes:
        masks: Keras layer → its 0/1 mask, of those that were asked for.
    """

    def __init__(self, run: Comparison, step: int, seed: int, shape_of: Callable[[str], tuple[int, ...]]) -> None:
        self._run, self._step, self._seed, self._shape_of = run, step, seed, shape_of
        self.masks: dict[str, Array] = {}
        layers = run.keras.network if run.mode == "train" else ()
        self._able = frozenset(x.name for x in layers if isinstance(x.kind, Dropout) and x.kind.rate)

    def of_keras(self, layer: str) -> Array | None:
        """The mask of a Keras layer, drawn once; or what the reference's recorded run kept. None for one that has none.

        Where the layer keeps or drops whole channels its mask is the same at each place of them.
        """
        network = self._run.keras.network
        kind = network[layer].kind
        if not isinstance(kind, Dropout) or kind.rate == 0:
            return None
        if not self.masks:
            self.masks.update(masks_for_keras(self._run.alignment, self._run.ref, self._step))
        if layer not in self.masks:
            shape = self._shape_of(network[layer].inputs[0])
            places = [node.name for node in network]
            rng = np.random.default_rng([self._seed, self._step, places.index(layer)])
            drawn = (shape[0], *(1 for _ in shape[1:-1]), shape[-1]) if kind.spatial else shape
            kept = rng.uniform(size=drawn) >= kind.rate
            self.masks[layer] = np.broadcast_to(kept, shape).astype(np.float32)
        return self.masks[layer]

    def of_ref(self, layer: str) -> Array | None:
        """The mask of a layer of the reference: its partner's."""
        for pair in self._run.alignment.pairs:
            if layer == pair.ref.layers[-1]:
                own = self.of_keras(pair.keras.layers[-1])
                return None if own is None else masks_for_ref(self._run.alignment, self.masks).get(layer)
        return None

    def settled(self) -> bool:
        """Whether every mask is drawn."""
        return self._able <= self.masks.keys()

    def touches(self, unit: Unit) -> bool:
        """Whether a Keras unit takes a mask."""
        return not self._able.isdisjoint(unit.layers)
