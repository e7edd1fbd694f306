"""Runs a Keras model for real and observes it: the `Runner` of both Kerases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parity.errors import CannotCompare
from parity.frameworks.keras.backends import Made, Watch
from parity.frameworks.keras.batches import Feeder
from parity.frameworks.keras.edits.code import optimizer_code
from parity.frameworks.keras.engine import Engine, engine_of
from parity.frameworks.keras.excerpt import KerasCode, keras_code
from parity.frameworks.keras.files import KerasFile
from parity.frameworks.keras.graph import Graph
from parity.frameworks.keras.layout import with_channels_last
from parity.frameworks.keras.live import as_saved, live_recipe, loss_from_kind
from parity.frameworks.keras.load import open_keras
from parity.frameworks.keras.observe import Recorder
from parity.frameworks.keras.replay import Replay, Replayed
from parity.frameworks.keras.stepper import Stepper
from parity.frameworks.keras.watched import Watched
from parity.layers import Loss
from parity.layers.endings import softmax_behind
from parity.network import Network
from parity.optimizers import OpaqueRule
from parity.optimizers.updater import Updater
from parity.recipe import Recipe
from parity.runner import Labels, Local, Pass, Targets

__all__ = ["KerasRunner"]


class KerasRunner:
    """One Keras model, ready to run (see `parity.runner.Runner` for what each method takes and gives).

    Args:
        model: a `keras.Model` (3.x on any backend) or a `tf_keras.Model`, in memory. Its weights are moved by `load`,
            `update` and nothing else; its own optimizer is never stepped after `reset`.
        example: an input batch `n h w c` (or name → batch); one or two images of it are run to see the graph.

    Attributes:
        network: the graph as it is executed.
        recipe: what `compile()` was given.
        engine: which Keras, and the versions.
        model: the model, or where it keeps its channels first a copy with channels last (see `layout`).

    Raises:
        CannotCompare: not a Keras model, on a backend that parity does not observe, or the example does not fit it.
    """

    network: Network
    recipe: Recipe
    engine: Mapping[str, Any]

    def __init__(self, model: Any, example: np.ndarray | Mapping[str, np.ndarray]) -> None:
        self._engine: Engine = engine_of(model)
        self.model = model = with_channels_last(model)
        self.engine = self._engine.description
        given = dict(example) if isinstance(example, Mapping) else {"input": np.asarray(example)}
        self._feeder = Feeder(self._engine, model, given)
        self._example = {name: array[:2] for name, array in self._feeder.arrays(given).items()}
        self._watched = Watched(self._engine, model, self._feeder)
        self._graph: Graph = self._watched.lift(self._example)
        self.network = self._graph.network
        self.recipe = live_recipe(self._engine, model, [t.kind for t in self._graph.terms])
        self._stepper = Stepper(self._engine, model, self._graph)
        self._replay = Replay(self._engine, self._graph, self._feeder.labels)

    @classmethod
    def open(
        cls,
        path: str | Path | KerasFile,
        example: np.ndarray | Mapping[str, np.ndarray],
        custom_objects: str | None = None,
        **options: Any,
    ) -> KerasRunner:
        """The runner of a file's model, or of `module.py:build`; `options` are those of `load.open_keras`."""
        opened = open_keras(path, custom_objects=custom_objects, **options)
        runner = cls(opened.model, example)
        network = runner.network
        runner.network = replace(network, remarks=tuple(dict.fromkeys((*network.remarks, *opened.remarks))))
        if opened.file is not None:
            ids = {id(variable): key for key, variable in runner._graph.variables.items()}
            trained = [ids.get(id(variable), "") for variable in runner.model.trainable_variables]
            runner.recipe = as_saved(runner.recipe, opened.file, trained)
        return runner

    @property
    def library(self) -> str:
        """What it runs on: `"tensorflow"`, `"torch"` or `"jax"`."""
        return self._engine.backend.name

    @property
    def averages_activities(self) -> bool:
        """Whether activity regularizers are divided by the number of images."""
        return self._engine.averages_activities

    @property
    def graph_model(self) -> Any:
        """What is run, and changed on trial: of a model in code the graph that the code makes, where it makes one."""
        return self._watched.model

    def adopt(
        self, recipe: Recipe, loss: Loss | None = None, *, whose: str = "the reference", donor: Any = None
    ) -> None:
        """Gives an uncompiled model the other side's loss and update rule; what the model has itself stays.

        Args:
            recipe: the other side's. Its rule steps the weights in numpy, with its first rate and weight decay.
            loss: the kind to use; by default the recipe's.
            whose: recipe it is.
            donor: the other side's runner; of a model of the same Keras the optimizer is taken as it is.

        Raises:
            CannotCompare: the loss has no Keras counterpart.
        """
        kind = loss or recipe.loss
        notes = list(self.recipe.notes)
        if not self._graph.terms and kind is not None:
            softmax = bool(softmax_behind(self.network, self.network.outputs[0]))
            live = loss_from_kind(self._engine, kind, softmax=softmax)
            self._graph = self._watched.lift(self._example, live)
            self.network = self._graph.network
            self._replay = Replay(self._engine, self._graph, self._feeder.labels)
            self._stepper = Stepper(self._engine, self.model, self._graph)
            self.recipe = replace(self.recipe, loss=self._graph.terms[0].kind)
            notes.append(f"the model is not compiled: {whose}'s loss stands in")
        if self._stepper.optimizer is None and recipe.optimizer is not None:
            notes.append(self._adopt_rule(recipe, whose, getattr(donor, "lent_optimizer", lambda _: None)(self)))
        self.recipe = replace(self.recipe, notes=tuple(dict.fromkeys(notes)))

    def _adopt_rule(self, recipe: Recipe, whose: str, live: Any) -> str:
        """Steps by another model's optimizer, or by its recipe in numpy; what a reader should know of it."""
        assert recipe.optimizer is not None
        if live is None and (isinstance(recipe.optimizer, OpaqueRule) or recipe.extras):
            also = f" with {', '.join(recipe.extras)}" if recipe.extras else ""
            return f"the model is not compiled, and {whose}'s {recipe.optimizer.name}{also} has no translation"
        own = {"loss": self.recipe.loss, "metrics": self.recipe.metrics, "origin": whose}
        adopted = replace(recipe, slots={}, steps_done=0, **own)
        if live is None:
            self._stepper.updater = Updater(adopted, self.network.params)
        else:
            self._stepper.optimizer = self._engine.fresh_optimizer(live, list(self.model.trainable_variables))
        self.recipe = adopted
        return f"the model is not compiled: {whose}'s update rule stands in"

    def lent_optimizer(self, other: KerasRunner) -> Any:
        """The optimizer that steps this model, where another model's Keras can make one like it; else None."""
        own = self.engine == other.engine and self._stepper.updater is None
        return self._stepper.optimizer if own else None

    def translate(self, factors: Mapping[str, tuple[float, float]]) -> None:
        """Gives the adopted recipe the reference's factors per parameter; without an adopted recipe nothing changes.

        Args:
            factors: param id → factor on the learning rate, factor on the weight decay. A parameter with a regularizer
                of its own keeps that as its weight decay.
        """
        if self._stepper.updater is None:
            return
        params = dict(self.network.params)
        for pid, (rate, decay) in factors.items():
            held = params[pid]
            own = held.l1 or held.l2
            params[pid] = replace(held, rate_multiplier=rate, decay_multiplier=0.0 if own else decay)
        self.network = replace(self.network, params=params)
        self._stepper.updater = Updater(self.recipe, params)

    # Weights --------------------------------------------------------------------------------------------------------

    def params(self) -> dict[str, np.ndarray]:
        """Param id → a copy of its present value, float32."""
        return {pid: np.array(v.numpy(), dtype=np.float32) for pid, v in self._graph.variables.items()}

    def load(self, values: Mapping[str, np.ndarray]) -> None:
        """Puts these values in, in the params' own axes and shapes.

        Raises:
            CannotCompare: an id that the model does not have, or a value of another shape.
        """
        for pid, value in values.items():
            variable = self._graph.variables.get(pid)
            if variable is None:
                raise CannotCompare(f"the Keras model has no parameter {pid}")
            if tuple(variable.shape) != np.shape(value):
                raise CannotCompare(f"{pid} has shape {tuple(variable.shape)}, and cannot take {np.shape(value)}")
            wanted = np.asarray(value, np.float32)
            if not self._engine.backend.holds(variable, wanted):  # to look takes a third of what putting in takes
                variable.assign(wanted)
        self._stepper.moved()
        self._engine.settle(place.item for place in self._watched.leaves)

    # Running --------------------------------------------------------------------------------------------------------

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        labels: Labels,
        *,
        mode: str = "train",
        backward: bool = True,
        observe: bool = True,
        masks: Mapping[str, np.ndarray] | None = None,
        ties: str = "column",
        precision: int = 32,
        keep: frozenset[str] | None = None,
    ) -> Pass:
        """The whole model, eagerly, under one tape. Keras itself draws a dropout without a mask; `ties` are ignored.

        With `precision=64` every layer is a float64 copy, and a layer that has no such copy raises
        NotImplementedError.
        """
        arrays = self._feeder.arrays(inputs)
        targets = Targets.of(labels, self.network)
        if precision == 64:
            return self._run_double(arrays, targets, mode, backward, masks or {})
        engine, backend, model = self._engine, self._engine.backend, self.model
        variables = self._graph.variables
        moving = {pid: v for pid, v in variables.items() if self._graph.differentiable(pid)}

        def forward(tensors: Mapping[str, Any], watch: Watch) -> Made:
            with Recorder(engine, self._watched.leaves, tensors, observe, watch, mode, masks) as recorder:
                engine.clear_losses(model)
                predictions = self.graph_model(self._feeder.structure(tensors), training=mode == "train")
                terms = self._terms(predictions, targets)
                added = [backend.cast(value, "float32") for value in engine.added_losses(model)]
                engine.clear_losses(model)
            self._stepper.counts.update(recorder.counts)
            seen = self._seen(recorder, tensors, predictions) if observe else {}
            if keep is not None:
                seen = {name: tensor for name, tensor in seen.items() if name in keep}
            parts = [backend.cast(value, "float32") for value in terms.values()] + added
            total = {"total": sum(parts[1:], parts[0])} if terms else {}
            return Made(total, seen, {"terms": terms, "masks": recorder.masks, "statistics": recorder.statistics})

        tensors = self._feeder.tensors(arrays)
        derived = backward and targets is not None and bool(self._graph.terms)
        with backend.untouched(self._moving()):
            made, gradients = backend.differentiate(forward, tensors, moving, derived)
        found = Pass()
        if made.objectives:
            found.loss = backend.scalar(made.objectives["total"])
            found.losses = {name: backend.scalar(value) for name, value in made.other["terms"].items()}
            if observe:
                found.outputs.update({name: np.asarray(value, np.float32) for name, value in found.losses.items()})
            if derived:
                by_tensor, by_param = gradients({"total": None}, list(made.tensors))
                found.output_grads = {name: self._array(value) for name, value in by_tensor.items()}
                found.param_grads = {pid: self._array(value) for pid, value in by_param.items()}
        del gradients
        found.outputs.update({name: self._array(tensor) for name, tensor in made.tensors.items()})
        found.masks = {name: (self._array(ones) != 0).astype(np.float32) for name, ones in made.other["masks"].items()}
        found.statistics = self._statistics(made.other["statistics"])
        found.penalty, extra = self._stepper.penalty(backward)
        ids = {id(v): pid for pid, v in variables.items()}
        found.penalty_grads = {ids[key]: self._array(value) for key, value in extra.items()}
        return found

    def _array(self, tensor: Any) -> np.ndarray:
        """A tensor's values, without a copy where that is possible; what is below float32 becomes float32."""
        array = self._engine.backend.numpy(tensor)
        return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)

    def _statistics(self, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
        return {name: {role: self._array(t) for role, t in both.items()} for name, both in given.items()}

    def _moving(self) -> list[Any]:
        """What a training call moves: statistics, seed counters, and whatever else the optimizer alone does not."""
        trained = {id(v) for v in self.model.trainable_variables}
        for place in self._watched.leaves:
            if place.type == "SpectralNormalization":  # a call puts the kernel that it divides in the kernel's place
                trained -= {id(v) for v in self._engine.state(place.item)}
        return [v for v in self._engine.state(self.model) if id(v) not in trained]

    def _seen(self, recorder: Recorder, inputs: Mapping[str, Any], predictions: Any) -> dict[str, Any]:
        """Tensors by name, of everything that the network names."""
        seen = dict(inputs) | recorder.sources
        for record in recorder.records:
            seen.update(record.outputs)
            if record.activation is not None:
                seen[f"{record.name}:activation"] = record.activation
        seen.update({mask.name: mask.tensor for mask in recorder.masks_read(predictions)})
        for name, tensor in zip(self.network.outputs, self._engine.flatten(predictions), strict=True):
            seen.setdefault(name, tensor)
        return seen

    def _terms(self, predictions: Any, targets: Targets | None) -> dict[str, Any]:
        """Each loss that has labels, weighted."""
        flat = self._engine.flatten(predictions)
        found: dict[str, Any] = {}
        for term in self._graph.terms if targets is not None else ():
            if targets is not None and term.label in targets.values:
                value = term.loss(*self._feeder.labels(term, targets, flat[term.output]))
                found[term.name] = value * term.weight if term.weight != 1 else value
        return found

    def isolate(
        self,
        layers: Sequence[str],
        feeds: Mapping[str, np.ndarray],
        *,
        labels: Labels = None,
        upstream: Mapping[str, np.ndarray] | None = None,
        mode: str = "train",
        masks: Mapping[str, np.ndarray] | None = None,
        params: Mapping[str, np.ndarray] | None = None,
        ties: str = "column",
        precision: int = 32,
        wanted: Collection[str] | None = None,
        outputs: bool = True,
    ) -> Local:
        """Only these layers, with the model's own layer objects (float64 copies of them for `precision=64`)."""
        found = self._replay.run(
            layers, feeds, labels=Targets.of(labels, self.network), upstream=upstream, mode=mode, masks=masks or {},
            params=params or {}, precision=precision,
        )  # fmt: skip
        self._stepper.counts.update(self._replay.counts)
        return Local(
            outputs={name: self._array(t) for name, t in found.tensors.items()},
            input_grads={name: self._array(t) for name, t in found.gradients.items()},
            param_grads={pid: self._array(t) for pid, t in found.param_gradients.items()},
            statistics=self._statistics(found.statistics),
            loss=found.loss,
            losses=found.losses,
        )

    def excerpt(
        self,
        layers: Sequence[str],
        params: Mapping[str, np.ndarray],
        *,
        labels: Labels,
        mode: str,
        masks: Mapping[str, np.ndarray],
        feeds: Mapping[str, np.ndarray],
    ) -> KerasCode:
        """These layers as code (see `excerpt.keras_code`); `feeds` is what they are fed."""
        targets = Targets.of(labels, self.network)
        return keras_code(
            self._engine, self._graph, layers, params, feeds=feeds, targets=targets, mode=mode, masks=masks
        )  # fmt: skip

    def optimizer_code(self) -> tuple[str, str, str]:
        """The import of Keras, the constructor of the model's optimizer, and the backend, as code.

        Raises:
            NotImplementedError: the model has none of its own, or one that looks at other parameters too.
        """
        optimizer, modern = self._stepper.optimizer, self._engine.modern
        if optimizer is None or self._stepper.updater is not None:
            raise NotImplementedError("the model is not compiled: it has no optimizer of its own")
        if getattr(optimizer, "global_clipnorm", None) or any(f != 1 for f in self._stepper.rates.values()):
            raise NotImplementedError("its optimizer looks at all parameters together, or at each otherwise")
        maker = type(optimizer)
        if maker.__module__.partition(".")[0] not in ("keras", "tf_keras"):
            raise NotImplementedError(f"its optimizer is {maker.__name__}, a class that is not Keras' own")
        backend = self._engine.keras.backend.backend() if modern else "tensorflow"
        imports = "import keras" if modern else "import tf_keras as keras"
        return imports, optimizer_code(self._engine, optimizer), backend

    def _run_double(
        self,
        arrays: Mapping[str, np.ndarray],
        labels: Targets | None,
        mode: str,
        backward: bool,
        masks: Mapping[str, np.ndarray],
    ) -> Pass:
        known = labels.values if labels else {}
        network = self.network
        names = [n.name for n in network if not isinstance(n.kind, Loss) or network.label_of(n) in known]
        replayed: Replayed = self._replay.run(
            names, arrays, labels=labels, upstream=None, mode=mode, masks=masks, params={}, precision=64, inner=True
        )
        grads = replayed.gradients if backward else {}
        losses = set(replayed.losses)
        return Pass(
            outputs={n: self._array(t) for n, t in replayed.tensors.items()} | dict(arrays),
            output_grads={n: self._array(t) for n, t in grads.items() if n not in losses},
            param_grads={p: self._array(t) for p, t in replayed.param_gradients.items()} if backward else {},
            loss=replayed.loss,
            losses=replayed.losses,
            masks=dict(masks),
            statistics=self._statistics(replayed.statistics),
        )

    # Updating -------------------------------------------------------------------------------------------------------

    def update(self, grads: Mapping[str, np.ndarray], statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """One `apply` of the model's own optimizer on all its trainable variables; then the moving statistics."""
        self._stepper.step(grads, statistics)

    def rehearse(
        self, weight: np.ndarray, gradients: Sequence[np.ndarray], factors: Sequence[float]
    ) -> list[np.ndarray] | None:
        """What a new optimizer of the model's settings makes of a variable of its own; see `Runner.rehearse`."""
        return self._stepper.rehearse(weight, gradients, factors)

    def reset(self, slots: Mapping[str, Mapping[str, np.ndarray]] | None = None) -> None:
        """A new optimizer of the model's own configuration: step 0, slots zero or translated."""
        self._stepper.reset(slots)

    def slots(self) -> dict[str, dict[str, np.ndarray]]:
        """Param id → slot's neutral name → value, of an optimizer that parity knows."""
        return self._stepper.slots()

    def halted(self) -> Any:
        """The optimizer between two updates."""
        return self._stepper.halted()

    def resume(self, halted: Any) -> None:
        """Put the optimizer back to there."""
        self._stepper.resume(halted)
