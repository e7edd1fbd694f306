"""Keras 3 on jax.

A jax array does not know how it was made: derivatives are those of a function. The run is that function, of the inputs
and the variables' values; what is between them is reached by a probe, an identity whose derivative rule notes what
arrives. Nothing is compiled as a whole, so no layer is traced twice.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from parity.frameworks.keras.backends.base import Backend, Gradients, Made, Watch, nothing, promoted_to_double

__all__ = ["Jax", "make"]


class Jax(Backend):
    """Keras 3 on jax, eagerly. Tensors that operations outside of layers make get no derivative here."""

    name = "jax"
    compiles = True

    def __init__(self) -> None:
        import jax

        self.jax, self.jnp, self.version = jax, jax.numpy, jax.__version__

    def constant(self, value: Any, dtype: str | None = None) -> Any:
        """In 32 bits, unless inside `precision(64)`."""
        value = value if self.is_tensor(value) else np.asarray(value)
        return self.jnp.asarray(value, dtype=dtype)

    def numpy(self, tensor: Any) -> np.ndarray:
        """A read-only view, on a CPU."""
        return np.asarray(tensor)

    def is_tensor(self, item: Any) -> bool:
        """Placeholders in a run that is differentiated are arrays too."""
        return isinstance(item, self.jax.Array)

    def cast(self, tensor: Any, dtype: str) -> Any:
        """`astype`."""
        return tensor.astype(dtype)

    def alias(self, tensor: Any) -> Any:
        """A copy."""
        return _masked(self.jnp.copy(tensor), tensor)

    def equal(self, first: Any, second: Any) -> bool:
        """Elementwise."""
        return bool((first == second).all())

    def snapshot(self, variable: Any) -> Any:
        """The array itself, which nothing can change."""
        return self.raw(variable)

    def ones_like(self, tensor: Any) -> Any:
        """`jax.numpy.ones_like`."""
        return self.jnp.ones_like(tensor)

    @contextlib.contextmanager
    def precision(self, bits: int) -> Iterator[None]:
        """Jax makes 32 bits of everything unless it is told not to."""
        if bits == 32:
            yield
            return
        home = self.jax if hasattr(self.jax, "enable_x64") else importlib.import_module("jax.experimental")
        with home.enable_x64(True), promoted_to_double():
            yield

    def step(self, optimizer: Any, pairs: Sequence[tuple[Any, Any]]) -> None:
        """As Keras' own trainer does it: a function of the state, whose result is put back.

        An optimizer that scales the loss decides inside a traced condition, where it must not assign
        (keras/src/optimizers/loss_scale_optimizer.py, `_common_apply`).
        """
        own = list(optimizer.variables)
        variables = [variable for _, variable in pairs]
        if len(variables) != len(optimizer._trainable_variables):
            super().step(optimizer, pairs)
            return
        moved, state = optimizer.stateless_apply(
            [v.value for v in own], [gradient for gradient, _ in pairs], [v.value for v in variables]
        )
        for variable, value in zip([*variables, *own], [*moved, *state], strict=True):
            variable.assign(value)

    def differentiate(
        self,
        function: Callable[[Mapping[str, Any], Watch], Made],
        tensors: Mapping[str, Any],
        variables: Mapping[str, Any],
        backward: bool,
    ) -> tuple[Made, Gradients]:
        """`jax.vjp` of the run; the variables hold its placeholders meanwhile."""
        if not backward:
            return function(tensors, lambda tensor: tensor), nothing
        probes = _Probes(self)
        floats = {name: tensor for name, tensor in tensors.items() if self.is_floating(tensor)}
        weights = {key: self.raw(v) for key, v in variables.items() if self.is_floating(self.raw(v))}
        marks: dict[str, int] = {}

        def pure(given: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
            for key, value in values.items():
                variables[key].assign(value)
            made = function({**tensors, **given}, probes.watch)
            marks.update({n: probes.marks[id(t)] for n, t in made.tensors.items() if id(t) in probes.marks})
            return made.objectives, (made.tensors, made.other)

        with self.untouched(list(variables.values())):
            objectives, back, (seen, other) = self.jax.vjp(pure, floats, weights, has_aux=True)
        probes.release()

        def gradients(wanted: Mapping[str, Any], sources: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
            seeds = {name: self.jnp.zeros_like(value) for name, value in objectives.items()}
            for name, seed in wanted.items():
                target = objectives[name]
                seeds[name] = self.jnp.ones_like(target) if seed is None else seed.astype(target.dtype)
            by_input, by_variable = back(seeds)
            found = dict(by_input)
            found.update({name: probes.arrived[mark] for name, mark in marks.items() if mark in probes.arrived})
            return {name: found[name] for name in sources if name in found}, dict(by_variable)

        return Made(objectives, seen, other), gradients


class _Probes:
    """Identities that note the derivatives which reach them.

    Attributes:
        marks: id of a watched tensor → its number.
        arrived: number → derivative.
    """

    def __init__(self, backend: Jax) -> None:
        self._backend = backend
        self.marks: dict[int, int] = {}
        self.arrived: dict[int, Any] = {}
        self._alive: list[Any] = []  # an id names a tensor only while the tensor lives

    def watch(self, tensor: Any) -> Any:
        """The tensor behind a probe; one that is behind one already stays as it is."""
        if not self._backend.is_floating(tensor) or id(tensor) in self.marks:
            return tensor
        mark = len(self._alive)
        watched = _masked(self._probe(mark)(tensor), tensor)
        self.marks[id(watched)] = mark
        self._alive.append(watched)
        return watched

    def _probe(self, mark: int) -> Callable[[Any], Any]:
        probe = self._backend.jax.custom_vjp(lambda x: x)

        def note(_: None, derivative: Any) -> tuple[Any]:
            self.arrived[mark] = derivative
            return (derivative,)

        probe.defvjp(lambda x: (x, None), note)
        return probe

    def release(self) -> None:
        """Lets go of the placeholders."""
        self.marks.clear()
        self._alive.clear()


def _masked(tensor: Any, origin: Any) -> Any:
    """The tensor with the mask that Keras has put on another one."""
    from keras.src.backend import get_keras_mask, set_keras_mask

    mask = get_keras_mask(origin)
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor


def make() -> Backend:
    """The backend."""
    return Jax()
