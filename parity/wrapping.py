"""A runner that shows another runner's network in other words: what such runners have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity.network import Network
from parity.recipe import Recipe
from parity.runner import Runner

__all__ = ["Wrapping"]

Array = np.ndarray


class Wrapping:
    """Hands on to the runner inside all that does not depend on how its network is shown (see `parity.runner.Runner`).

    Args:
        inner: the runner whose network is shown otherwise.
    """

    def __init__(self, inner: Runner) -> None:
        self.inner = inner
        self._shown: tuple[Network, Network] | None = None

    def rewritten(self, network: Network) -> Network:
        """The network inside as it is shown."""
        raise NotImplementedError

    @property
    def network(self) -> Network:
        """The graph as it is shown."""
        if self._shown is None or self._shown[0] is not self.inner.network:
            self._shown = (self.inner.network, self.rewritten(self.inner.network))
        return self._shown[1]

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return self.inner.recipe

    @property
    def engine(self) -> Mapping[str, Any]:
        """What executes the model."""
        return self.inner.engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def params(self) -> dict[str, Array]:
        """Param id → a copy of its present value."""
        return self.inner.params()

    def load(self, values: Mapping[str, Array]) -> None:
        """Put these values in."""
        self.inner.load(values)

    def update(self, grads: Mapping[str, Array], statistics: Mapping[str, Mapping[str, Array]]) -> None:
        """One step of the model's own optimizer."""
        self.inner.update(grads, statistics)

    def rehearse(self, weight: Array, gradients: Sequence[Array], factors: Sequence[float]) -> list[Array] | None:
        """What a new optimizer makes of a parameter."""
        return self.inner.rehearse(weight, gradients, factors)

    def reset(self, slots: Mapping[str, Mapping[str, Array]] | None = None) -> None:
        """Put the optimizer at its start."""
        self.inner.reset(slots)

    def slots(self) -> dict[str, dict[str, Array]]:
        """What the optimizer holds."""
        return self.inner.slots()

    def halted(self) -> Any:
        """The optimizer between two updates."""
        return self.inner.halted()

    def resume(self, halted: Any) -> None:
        """Put the optimizer back to there."""
        self.inner.resume(halted)
