"""Optimizers that Keras 3 lacks, as classes of the Keras at hand. It imports nothing of parity."""

from __future__ import annotations

from typing import Any

__all__ = ["OWN_OPTIMIZERS", "own_optimizer"]

OWN_OPTIMIZERS = ("OutsideRMSprop", "OutsideAdagrad")
"""Their names. Keras 2's legacy classes RMSprop and Adagrad are the same."""


def own_optimizer(keras: Any, name: str) -> Any:
    """The class of this name, made once; None for a name that is not among them.

    Args:
        keras: the module `keras` of Keras 3.
        name: as in `OWN_OPTIMIZERS`.
    """
    if name in OWN_OPTIMIZERS and name not in _MADE:
        _MADE.update(zip(OWN_OPTIMIZERS, (_rmsprop(keras), _adagrad(keras)), strict=True))
    return _MADE.get(name)


_MADE: dict[str, Any] = {}


def _rmsprop(keras: Any) -> Any:
    ops = keras.ops

    @keras.saving.register_keras_serializable("parity")
    class OutsideRMSprop(keras.optimizers.RMSprop):
        """RMSprop that adds epsilon to the root, and not under it: a step is rate·g/(√v + epsilon)."""

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """One step of one variable."""
            at = self._get_variable_index(variable)
            rate, gradient = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
            velocity: Any = self._velocities[at]
            self.assign(velocity, self.rho * velocity + (1 - self.rho) * ops.square(gradient))
            spread = velocity
            if self.centered:
                average: Any = self._average_gradients[at]
                self.assign(average, self.rho * average + (1 - self.rho) * gradient)
                spread = velocity - ops.square(average)
            step: Any = rate * gradient / (ops.sqrt(spread) + self.epsilon)
            if self.momentum > 0:
                momentum: Any = self._momentums[at]
                self.assign(momentum, self.momentum * momentum + step)
                step = momentum
            self.assign_sub(variable, step)

    return OutsideRMSprop


def _adagrad(keras: Any) -> Any:
    ops = keras.ops

    @keras.saving.register_keras_serializable("parity")
    class OutsideAdagrad(keras.optimizers.Adagrad):
        """Adagrad that adds epsilon to the root, and not under it: a step is rate·g/(√s + epsilon)."""

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """One step of one variable."""
            rate, gradient = ops.cast(learning_rate, variable.dtype), ops.cast(gradient, variable.dtype)
            total: Any = self._accumulators[self._get_variable_index(variable)]
            self.assign(total, total + ops.square(gradient))
            self.assign_sub(variable, rate * gradient / (ops.sqrt(total) + self.epsilon))

    return OutsideAdagrad
