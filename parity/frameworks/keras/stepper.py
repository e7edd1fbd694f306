"""One update of a Keras model by its own optimizer, with gradients and batch statistics that are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.frameworks.keras.backends import Made, Watch
from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.graph import Graph
from parity.frameworks.keras.optimizer_copies import again
from parity.frameworks.keras.optimizer_state import (
    first_rate,
    live_slots,
    proportional,
    set_steps,
    slot_variable,
    stepping,
)
from parity.frameworks.keras.standalone import average_of
from parity.optimizers.updater import rehearsed

if TYPE_CHECKING:
    from parity.optimizers.updater import Updater

__all__ = ["Stepper"]


class Stepper:
    """Steps a model's variables.

    Args:
        engine: whose model it is.
        model: the model.
        graph: its graph.

    Attributes:
        optimizer: what steps: the model's own, or after `reset` a new one of its configuration. None for a model that
            was not compiled.
        updater: a recipe's arithmetic in numpy, where the model has no optimizer of its own.
        counts: node → elements per channel that its batch statistics were computed from.
        notes: what could not be translated.
        continuing: whether a file's training goes on, with the averages of the Keras that wrote it (see `standalone`).
        rates: param id → factor on its learning rate, for which Keras has no argument.
    """

    def __init__(self, engine: Engine, model: Any, graph: Graph) -> None:
        self.engine, self.model, self.graph = engine, model, graph
        self.optimizer: Any = getattr(model, "optimizer", None)
        self.updater: Updater | None = None
        self.counts: dict[str, int] = {}
        self.notes: list[str] = []
        self.continuing = True
        self.rates: dict[str, float] = {}
        self._ids = {id(variable): pid for pid, variable in graph.variables.items()}
        self._seen: dict[int, Any] | None = None
        """The gradients of the regularizers at the present weights, where a run that a step may follow showed them."""

    def step(self, grads: Mapping[str, np.ndarray], statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """One `apply` for all trainable variables that have a gradient, then the moving statistics."""
        if self.updater is not None:
            self._step_by_recipe(grads)
        elif self.optimizer is not None:
            self._step_by_optimizer(grads)
        self.moved()
        for name, values in statistics.items():
            self._average(name, values)

    def _step_by_recipe(self, grads: Mapping[str, np.ndarray]) -> None:
        assert self.updater is not None
        weights = {pid: np.array(v.numpy()) for pid, v in self.graph.variables.items() if pid in grads}
        for pid, value in self.updater.step(weights, grads).items():
            variable = self.graph.variables[pid]
            constraint = getattr(variable, "constraint", None)
            variable.assign(value if constraint is None else constraint(self.engine.backend.constant(value)))

    def _step_by_optimizer(self, grads: Mapping[str, np.ndarray]) -> None:
        backend = self.engine.backend
        variables = list(self.model.trainable_variables)
        extra = self.penalty_gradients(variables)
        pairs: list[tuple[Any, Any]] = []
        for variable in variables:
            pid = self._ids.get(id(variable))
            given = None if pid is None else grads.get(pid)
            added = extra.get(id(variable))
            if given is None and added is None:
                continue
            dtype = backend.dtype(backend.raw(variable))
            gradient = backend.constant(np.zeros(tuple(variable.shape)) if given is None else given, dtype)
            pairs.append((gradient if added is None else gradient + added, variable))
        if not pairs:  # where nothing has a gradient nothing moves; Keras raises
            return
        optimizer = self.optimizer
        self.engine.build_optimizer(optimizer, variables)
        if hasattr(optimizer, "scale_loss"):  # an optimizer that scales the loss takes the scale off its gradients
            scale = optimizer.scale_loss(backend.constant(np.float32(1)))
            pairs = [(g * backend.cast(scale, backend.dtype(g)), variable) for g, variable in pairs]
        factors = [self.rates.get(self._ids.get(id(variable), ""), 1.0) for _, variable in pairs]
        if set(factors) <= {1.0}:
            backend.step(optimizer, pairs)
            return
        if proportional(optimizer):  # then the step is too, and nothing is rounded twice
            backend.step(optimizer, [(g * f, variable) for (g, variable), f in zip(pairs, factors, strict=True)])
            return
        before = [np.array(variable.numpy(), np.float64) for _, variable in pairs]
        backend.step(optimizer, pairs)
        for (_, variable), value, factor in zip(pairs, before, factors, strict=True):
            if factor != 1:
                move = np.asarray(variable.numpy(), np.float64) - value
                variable.assign((value + factor * move).astype(np.float32))

    def penalty_gradients(self, variables: list[Any]) -> dict[int, Any]:
        """By id of the variable: what its regularizers add to its gradient at its present value."""
        return self._penalty(variables, True)[1] if self._seen is None else self._seen

    def penalty(self, backward: bool) -> tuple[float, dict[int, Any]]:
        """The sum of all regularizers of weights, and its gradient by id of the variable; kept until these move."""
        found, gradients = self._penalty(list(self.graph.variables.values()), backward)
        whole = self._ids.keys() >= set(map(id, self.model.trainable_variables))
        self._seen = gradients if backward and whole else None
        return found, gradients

    def moved(self) -> None:
        """The weights are others now."""
        self._seen = None

    def _penalty(self, variables: list[Any], backward: bool) -> tuple[float, dict[int, Any]]:
        backend = self.engine.backend

        def penalties(tensors: Mapping[str, Any], watch: Watch) -> Made:
            terms = [backend.cast(term, "float32") for term in self.engine.penalties(self.model)]
            return Made({"penalty": sum(terms[1:], terms[0])} if terms else {})

        # Keras 3 notes a weight's regularizer on the weight; Keras 2 keeps a function of no arguments.
        held = [v for v in variables if not self.engine.modern or getattr(v, "regularizer", None) is not None]
        by_key = {str(i): variable for i, variable in enumerate(held)}
        made, gradients = backend.differentiate(penalties, {}, by_key, backward)
        if not made.objectives:
            return 0.0, {}
        _, found = gradients({"penalty": None}, ())  # none where nothing was to be differentiated
        return backend.scalar(made.objectives["penalty"]), {id(by_key[key]): value for key, value in found.items()}

    def _average(self, name: str, values: Mapping[str, np.ndarray]) -> None:
        """Moves a batch normalisation's statistics by the layer's own rule.

        Keras 3: moving·momentum + batch·(1 - momentum), biased variance. Keras 2's fused kernel puts
        Bessel's correction n/(n - 1) on the variance first (tf_keras/src/layers/normalization/batch_normalization.py,
        `_fused_batch_norm`); n is that of the last observed batch.
        """
        node = self.graph.nodes[name]
        if node.record is None:
            return
        layer = node.record.place.item
        count = self.counts.get(name, 0)
        law = average_of(layer, count, advance=True) if self.continuing else None
        factor = count / (count - 1) if self.bessel(layer) and count > 1 else 1.0
        keep, take = np.float32(layer.momentum), np.float32(1.0 - layer.momentum)
        if law is not None:
            keep, take, factor = np.float32(1.0 - law[0]), np.float32(law[0]), law[1]
        for variable, role in ((layer.moving_mean, "mean"), (layer.moving_variance, "variance")):
            batch = np.asarray(values[role], np.float32)
            batch = batch * np.float32(factor) if role == "variance" and factor != 1 else batch
            variable.assign(np.asarray(variable.numpy()) * keep + batch * take)

    def bessel(self, layer: Any) -> bool:
        """Whether the layer's moving variance is that of the batch times n/(n - 1)."""
        return not self.engine.modern and bool(getattr(layer, "fused", False))

    def reset(self, slots: Mapping[str, Mapping[str, np.ndarray]] | None) -> None:
        """A new optimizer of the same configuration, at step 0, with slots zero or translated from `slots`."""
        self.notes.clear()
        self.continuing = False
        if self.updater is not None:
            self.updater.reset(slots)
            return
        if self.optimizer is None:
            return
        variables = list(self.model.trainable_variables)
        self.optimizer = self.engine.fresh_optimizer(self.optimizer, variables)
        if slots:
            self._translate(variables, slots)

    def slots(self) -> dict[str, dict[str, np.ndarray]]:
        """Param id → slot's neutral name → value; the opposite of what `reset` takes."""
        if self.updater is not None:
            return self.updater.held()
        found: dict[str, dict[str, np.ndarray]] = {}
        if self.optimizer is None:
            return found
        variables = list(self.model.trainable_variables)
        self.engine.build_optimizer(self.optimizer, variables)
        for index, slot, held in live_slots(self.engine, self.optimizer, variables):
            pid = self._ids.get(id(variables[index]))
            if pid is not None:
                scale = np.float32(self._scale(slot, pid))
                value = np.array(held.numpy(), np.float32)
                found.setdefault(pid, {})[slot] = value / scale if scale else value
        return found

    def halted(self) -> Any:
        """What `resume` puts back: the optimizer itself, which nobody steps before that."""
        return self.updater.halted() if self.updater is not None else (self.optimizer, self.continuing)

    def resume(self, halted: Any) -> None:
        """Go on with an optimizer from where it was halted."""
        if self.updater is not None:
            self.updater.resume(halted)
            return
        self.optimizer, self.continuing = halted

    def rehearse(
        self, weight: np.ndarray, gradients: Sequence[np.ndarray], factors: Sequence[float]
    ) -> list[np.ndarray] | None:
        """See `Runner.rehearse`; None too where a class of the user's own cannot be made anew, or told a rate."""
        if self.updater is not None:
            return rehearsed(self.updater.recipe, weight, gradients, factors)
        if self.optimizer is None:
            return None
        backend = self.engine.backend
        try:
            variable = self.engine.variable(weight)
            optimizer, law = self._alone(variable)
            made: list[np.ndarray] = []
            for at, (gradient, factor) in enumerate(zip(gradients, factors, strict=True)):
                rate = float(np.asarray(law(at))) * factor
                if self.engine.is_legacy(stepping(optimizer)):
                    stepping(optimizer)._set_hyper("learning_rate", rate)
                else:
                    stepping(optimizer).learning_rate.assign(rate)
                variable.assign(weight)
                given = backend.constant(gradient)
                if hasattr(optimizer, "scale_loss"):
                    given = given * optimizer.scale_loss(backend.constant(np.float32(1)))
                backend.step(optimizer, [(given, variable)])
                made.append(np.array(variable.numpy(), np.float32))
        except Exception:  # whatever a user's class does with a variable that it does not know
            return None
        return made

    def _alone(self, variable: Any) -> tuple[Any, Callable[[int], Any]]:
        """A new optimizer of this variable alone whose rate can be set, and the schedule that it should follow."""
        inner = stepping(self.optimizer)
        held = inner._hyper if self.engine.is_legacy(inner) else vars(inner)
        law: Any = held.get("learning_rate", held.get("_learning_rate"))
        if not hasattr(law, "get_config"):
            rate = first_rate(self.optimizer)
            return self.engine.fresh_optimizer(self.optimizer, [variable]), lambda _: rate
        if inner is not self.optimizer:
            raise NotImplementedError("a schedule inside an optimizer that scales the loss")
        config = {**inner.get_config(), "learning_rate": float(np.asarray(law(0)))}
        optimizer = again(inner, config)
        self.engine.build_optimizer(optimizer, [variable])
        return optimizer, law

    def _translate(self, variables: list[Any], slots: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        name = type(stepping(self.optimizer)).__name__
        steps = 0
        for i, variable in enumerate(variables):
            pid = self._ids.get(id(variable), "")
            for slot, value in slots.get(pid, {}).items():
                if slot == "step":
                    steps = max(steps, int(np.max(value)))
                    continue
                target = slot_variable(self.engine, self.optimizer, variable, i, slot)
                if target is None:
                    self.notes.append(f"{name} has no slot for the reference's {slot}")
                    continue
                scale = np.float32(self._scale(slot, pid))
                target.assign(np.asarray(value, np.float32).reshape(tuple(target.shape)) * scale)
        if steps:
            set_steps(self.engine, self.optimizer, steps)

    def _scale(self, slot: str, pid: str) -> float:
        """What a neutral slot is multiplied by to be Keras'.

        SGD's velocity holds the rate, and the parameter's own factor where that is put on its gradients:
        v ← mu·v - rate·factor·g, where the neutral buffer is m ← mu·m - g.
        """
        if slot != "momentum" or type(stepping(self.optimizer)).__name__ != "SGD":
            return 1.0
        return first_rate(self.optimizer) * (self.rates.get(pid, 1.0) if proportional(self.optimizer) else 1.0)
