"""Classes of the ports' own: what Keras has no layer or argument for."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any


@lru_cache(maxsize=2)
def custom(k: Any) -> SimpleNamespace:
    """All of them, for keras or tf_keras."""
    guided, steeper, noisy = _rectifiers(k)
    made = {"LRN": _lrn(k), "Guided": guided, "Steeper": steeper, "Noisy": noisy, "Subclassed": _subclassed(k)}
    return SimpleNamespace(**made, with_rates=with_rates, own=own)


def _lrn(k: Any) -> Any:
    import tensorflow as tf

    class LRN(k.layers.Layer):
        """Local response normalisation; alpha is not divided by the window."""

        def __init__(self, size: int, kappa: float, alpha: float, beta: float, **options: Any) -> None:
            super().__init__(**options)
            self.size, self.kappa, self.alpha, self.beta = size, kappa, alpha, beta

        def call(self, inputs: Any) -> Any:
            return tf.nn.local_response_normalization(inputs, self.size // 2, self.kappa, self.alpha, self.beta)

        def get_config(self) -> dict[str, Any]:
            own = {"size": self.size, "kappa": self.kappa, "alpha": self.alpha, "beta": self.beta}
            return {**super().get_config(), **own}

    return LRN


def _rectifiers(k: Any) -> tuple[Any, Any, Any]:
    import tensorflow as tf

    def rectified(gradient: Any) -> Any:
        @tf.custom_gradient
        def function(x: Any) -> Any:
            return tf.nn.relu(x), lambda dy: gradient(x, dy)

        return function

    class Guided(k.layers.ReLU):
        """A ReLU that lets only positive gradients through."""

        def call(self, inputs: Any) -> Any:
            return rectified(lambda x, dy: dy * tf.cast((x > 0) & (dy > 0), x.dtype))(inputs)

    class Steeper(k.layers.ReLU):
        """A ReLU whose gradient is a little too large."""

        def call(self, inputs: Any) -> Any:
            return rectified(lambda x, dy: 1.0002 * dy * tf.cast(x > 0, x.dtype))(inputs)

    class Noisy(k.layers.ReLU):
        """A ReLU that is not the same twice."""

        def call(self, inputs: Any) -> Any:
            return tf.nn.relu(inputs) * (1 + 1e-3 * tf.random.normal(tf.shape(inputs)))

    return Guided, Steeper, Noisy


def _subclassed(k: Any) -> Any:
    class Subclassed(k.Model):
        """A model whose `call` runs its layers."""

        def __init__(self, steps: list[Any], heads: list[Any]) -> None:
            super().__init__()
            self.plan = [(name, tuple(inputs), [self._track(s) for s in of]) for name, inputs, of in steps]
            self.heads = [(head, [self._track(s) for s in of]) for head, of in heads]

        def _track(self, step: Any) -> str:
            name = f"step_{len([a for a in vars(self) if a.startswith('step_')])}"
            setattr(self, name, step)
            return name

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            tensors = {"data": inputs}
            for name, read, steps in self.plan:
                x = [tensors[r] for r in read]
                tensors[name] = self._through(x if len(x) > 1 else x[0], steps, training)
            outputs = [self._through(tensors[head], steps, training) for head, steps in self.heads]
            return outputs if len(outputs) > 1 else outputs[0]

        def _through(self, x: Any, steps: list[str], training: bool | None) -> Any:
            for step in steps:
                layer = getattr(self, step)
                takes = isinstance(layer, (k.layers.Dropout, k.layers.BatchNormalization))
                x = layer(x, training=training) if takes else layer(x)
            return x

    return Subclassed


def own(k: Any, maker: Any, what: str) -> Any:
    """An optimizer class that takes other steps than its settings say.

    Args:
        k: keras or tf_keras.
        maker: of Keras' own.
        what: `rate`, `momentum`, `decay`, `clip` or `sign`.
    """
    import tensorflow as tf

    changes = {
        "rate": lambda g, v, lr: (g, lr * 1.1),
        "momentum": lambda g, v, lr: (g, lr),
        "decay": lambda g, v, lr: (g + 0.01 * v, lr),
        "clip": lambda g, v, lr: (tf.clip_by_value(g, -1e-3, 1e-3), lr),
        "sign": lambda g, v, lr: (tf.sign(g), lr),
    }

    class Own(maker):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            gradient, learning_rate = changes[what](gradient, variable, learning_rate)
            said = self.momentum
            if what == "momentum":
                self.momentum = 0.8
            super().update_step(gradient, variable, learning_rate)
            self.momentum = said

    return Own


def with_rates(maker: Any, rates: dict[int, tuple[Any, float]]) -> Any:
    """An optimizer class that multiplies the gradients of some variables."""

    class PerVariable(maker):
        def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
            held = self._trainable_variables if trainable_variables is None else trainable_variables
            return super().apply([_times(g, v) for g, v in zip(grads, held, strict=True)], trainable_variables)

        def apply_gradients(self, grads_and_vars: Any, **options: Any) -> Any:
            pairs = list(grads_and_vars)
            if hasattr(maker, "apply"):  # Keras 3 comes back through apply
                return super().apply_gradients(pairs, **options)
            return super().apply_gradients([(_times(g, v), v) for g, v in pairs], **options)

    def _times(gradient: Any, variable: Any) -> Any:
        factor = rates.get(id(variable), (None, 1.0))[1]
        return gradient if gradient is None or factor == 1.0 else gradient * factor

    return PerVariable
