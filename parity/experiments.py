"""Hypotheses about one pair, tried: the reference with an edit must make the tensors that Keras makes.

An edit changes the reference's layer (a field, its kind, a parameter, its inputs, its mode). The edited layer runs
alone, by the vocabulary's own forward on torch, on the inputs that the Keras layer was given, and again on others, to
which nothing was fitted. An edit that gives every tensor that the Keras layer gives, to the noise floor and both times,
explains it; continuous fields are solved for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from parity.align import Pair
from parity.bench import Trial, Unfit
from parity.case import Comparison
from parity.distances import channel_rms, distance
from parity.errors import CannotCompare
from parity.layers import Dropout, Kind, Loss, Merge, Pool
from parity.network import STATISTICS
from parity.runner import Local, Targets
from parity.tensors import shaped
from parity.tolerance import CLEAN, ROUNDOFF

__all__ = ["COARSER", "Edit", "Experiment"]

Array = np.ndarray

COARSER = {"bfloat16": 2.0**16, "float16": 2.0**13}
"""How many times float32's rounding a shorter type's is."""

_EXTREMES = ("maximum", "minimum")
"""Of the ways to join tensors those that pick one."""

_SETTLED = 1.0
"""Floors within which two float64 results must agree to count as equal."""

_FAR = 1e4
"""Floors beyond which no rounding puts an output: it needs no look at gradients, nor at float64."""


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of the reference's layer.

    Attributes:
        fields: of its kind → value.
        kind: another kind in its place.
        params: role → value, in the reference's axes; None takes the parameter away.
        held: role → value as the Keras layer holds it, with the derivative that Keras has of it.
        inputs: what to make of its inputs (n h w c, in order) before it reads them.
        mode: `"train"` or `"eval"` instead of the comparison's.
        labels: what to make of the labels of a loss.
        factor: on what a loss makes, and so on its gradients.
        order: of the channels of what it makes.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind | None = None
    params: Mapping[str, Array | None] = field(default_factory=dict)
    held: Mapping[str, Array] = field(default_factory=dict)
    inputs: Callable[[list[Array]], list[Array]] | None = None
    mode: str | None = None
    labels: Callable[[Array], Array] | None = None
    factor: float = 1.0
    order: tuple[int, ...] = ()

    def __add__(self, other: Edit) -> Edit:
        """Both, the other one's where they change the same."""
        return Edit(
            {**self.fields, **other.fields},
            other.kind or self.kind,
            {**self.params, **other.params},
            {**self.held, **other.held},
            other.inputs or self.inputs,
            other.mode or self.mode,
            other.labels or self.labels,
            self.factor * other.factor,
            other.order or self.order,
        )

    def applied(self, kind: Kind) -> Kind:
        """The kind with this edit; raises TypeError for a field that it does not have."""
        return replace(self.kind or kind, **self.fields)


class Experiment:
    """One pair on which hypotheses are tried.

    Args:
        run: the comparison, its isolated runs done.
        pair: a pair of it.
    """

    def __init__(self, run: Comparison, pair: Pair) -> None:
        assert run.bench is not None
        self.run, self.pair = run, pair
        self.first = run.bench.trial(pair)
        try:
            self.first.upstream("keras")
        except Unfit:  # its output has another shape, for which there is no gradient of the reference
            self.first = run.bench.trial(pair, backward=False)
        self.coarse = COARSER.get(self.first.low_precision, 1.0)
        self.floors = {v.tensor: self.coarse * np.asarray(v.floor) for v in run.verdicts[pair.ref.name]}
        self.born = {v.tensor for v in run.verdicts[pair.ref.name] if v.status == "born"}

    @cached_property
    def second(self) -> Trial:
        """The pair on other inputs."""
        return self.first.again()

    @cached_property
    def kind(self) -> Kind:
        """What the reference's unit computes, with fields in the sense of its own layers.

        MatConvNet's Scale of two inputs is their product, and has no field that says so.
        """
        layers, kind = self.pair.ref.layers, self.pair.ref.kind
        return self.run.ref.network[layers[0]].kind if len(layers) == 1 and not isinstance(kind, Merge) else kind

    @cached_property
    def possible(self) -> bool:
        """Whether hypotheses can be tried here at all: the reference's layer, unedited, must make its own tensors."""
        try:
            # Of several equal maxima MatConvNet takes the first by columns, Keras the first by rows.
            joins = isinstance(self.kind, Merge) and self.kind.operation in _EXTREMES
            orders = ("column", "row", *(("shared",) if joins else ()))
            alike = any(self._repeats(ties) for ties in orders)
            return alike and self.first.keras_local is not None
        except (NotImplementedError, RuntimeError, ValueError, KeyError, TypeError, Unfit):
            return False

    def _repeats(self, ties: str) -> bool:
        """Whether the unedited layer, run by the vocabulary's forward, makes the reference's tensors."""
        made = self.evaluate(self.first, Edit(), ties=ties)
        for name in self.floors:
            own, expected = self._named(made, name), self.first.tensor(self.first.ref_local, "ref", name)
            if own is None or expected is None:
                continue
            again = shaped(own, expected.shape)
            if again is None or distance(again, expected).x_floor(self._floor(name, expected)) > 30 * CLEAN:
                return False
        return True

    def explains(self, edit: Edit) -> bool:
        """Whether the edited reference makes the Keras tensors, on these inputs and on others."""
        return self.possible and self.fits(self.first, edit) and self.holds(edit)

    def holds(self, edit: Edit) -> bool:
        """Whether it does on other inputs, to which nothing was fitted."""
        try:
            return self.fits(self.second, edit)
        except Unfit:
            return False

    def fits(self, trial: Trial, edit: Edit) -> bool:
        """Whether the edited reference makes every tensor that the Keras layer makes in this trial.

        A maximum of Keras gives its gradient to the first of equal ones, or, reduced over axes or on another backend
        than tensorflow, to all of them.
        """
        kind = edit.kind or self.kind
        maxima = isinstance(kind, Pool) and edit.fields.get("method", kind.method) == "max"
        maxima |= isinstance(kind, Merge) and edit.fields.get("operation", kind.operation) in _EXTREMES
        return any(self._fits(trial, edit, ties) for ties in (("row", "shared") if maxima else ("row",)))

    def _fits(self, trial: Trial, edit: Edit, ties: str) -> bool:
        try:
            if self._far(trial, edit):
                return False
            made = self.evaluate(trial, edit, ties=ties)
            keras = trial.keras_local
        except (NotImplementedError, RuntimeError, ValueError, KeyError, TypeError):
            return False
        wide: Local | None = None
        seen: set[str] = set()
        for name in self.floors:
            if edit.inputs is not None and name in trial.named.sources:
                continue  # the derivative is with respect to what was made of the inputs
            if name in trial.named.gradients and trial.named.gradients[name].role in edit.params:
                continue  # likewise of the parameter
            actual, expected = trial.tensor(keras, "keras", name), self._made(made, name, edit)
            if actual is None or expected is None:
                continue
            seen.add(name)
            same = shaped(actual, expected.shape)
            if same is None:
                return False
            if not self.comparable(name, expected):
                return False
            floor = self._floor(name, expected)
            if name in trial.named.sources:
                same, _ = trial.past_kinks(same, expected)
            if distance(same, expected).x_floor(floor) <= CLEAN:
                continue
            judged = trial.tensor(trial.referee, "keras", name) if trial.referee is not None else None
            if judged is None:
                return False
            if wide is None:
                wide = self.evaluate(trial, edit, precision=64, ties=ties)
            truth = self._made(wide, name, edit)
            again = None if truth is None else shaped(judged, truth.shape)
            if again is None or truth is None or distance(again, truth).x_floor(floor) > _SETTLED:
                return False
        return not self.born or not self.born.isdisjoint(seen)

    def comparable(self, name: str, made: Array) -> bool:
        """Whether what an edited reference made has a floor: it has the channels of the reference's own tensor."""
        return np.size(self.floors[name]) in (1, *made.shape[-1:])

    def _floor(self, name: str, expected: Array) -> Array:
        """A tensor's floor; what was zero in the reference may be none in the edited one, and is rounded there."""
        return np.maximum(self.floors[name], 4 * ROUNDOFF * self.coarse * channel_rms(expected))

    def _far(self, trial: Trial, edit: Edit) -> bool:
        """Whether the output alone says that this is not it."""
        if not trial.backward or trial.is_loss or "output" not in self.floors:
            return False
        expected = self._named(self.evaluate(trial, edit, gradients=False), "output")
        actual = trial.tensor(trial.keras_local, "keras", "output")
        if actual is None or expected is None:
            return False
        same = shaped(actual, expected.shape)
        return same is not None and distance(same, expected).x_floor(self._floor("output", expected)) > _FAR

    # ------------------------------------------------------------------------------------------------------- running

    def evaluate(
        self, trial: Trial, edit: Edit, precision: int = 32, ties: str = "row", *, gradients: bool = True
    ) -> Local:
        """The edited reference's unit, run alone by the vocabulary's own forward; backward too if the trial goes so.

        Raises:
            NotImplementedError: its kind has none.
            RuntimeError, ValueError, TypeError: the edit does not fit its inputs.
        """
        import torch

        from parity.frameworks.matconvnet.tensors import from_torch, to_torch, weight_tensor
        from parity.layers import Context

        bench, pair = trial.bench, self.pair
        kind = edit.applied(self.kind)
        read = bench.ref.network.data(pair.ref.inputs)
        arrays = [np.asarray(trial.ref_feeds[tensor]) for tensor in read]
        fed = edit.inputs(arrays) if edit.inputs else arrays
        backward = trial.backward and gradients
        inputs = [to_torch(array, precision, backward) for array in fed]
        values = self.params(trial)
        values |= {role: value for role, value in edit.params.items() if value is not None} | dict(edit.held)
        leaves = {
            role: weight_tensor(np.asarray(value), precision, backward and role not in STATISTICS)
            for role, value in values.items()
            if edit.params.get(role, value) is not None
        }
        context = Context(mode=edit.mode or bench.mode, ties=ties)
        if isinstance(kind, Loss):
            self._give_labels(trial, edit, kind, context, inputs[0])
        if isinstance(kind, Dropout) and context.mode == "train":
            mask = bench.ref_masks.get(pair.ref.layers[-1])
            context.mask = None if mask is None else to_torch(np.asarray(mask), precision)
        with torch.set_grad_enabled(backward):
            made = kind.forward(self._passed(kind, inputs, context), leaves, context)
        output = made[0] if isinstance(made, (tuple, list)) else made
        if edit.order:
            output = output[:, list(edit.order)]
        local = Local(outputs={pair.ref.output: from_torch(output)})
        if trial.is_loss:
            output = output * (edit.factor * pair.ref.weight)
            local.losses = {pair.ref.layers[-1]: float(output.detach())}
            local.loss = float(output.detach())
        if backward:
            self._differentiate(trial, local, output, read, inputs, leaves, precision)
        return local

    def _passed(self, kind: Kind, inputs: Sequence[Any], context: Any) -> list[Any]:
        """What a loss reads: of one that is compared with the activation before it, what that makes of the logits."""
        made = list(inputs)
        if isinstance(kind, Loss) and kind.function != "softmaxlog":
            for name in self.pair.ref.layers[:-1]:
                made[0] = self.run.ref.network[name].kind.forward(made[:1], {}, context)
        return made

    def _differentiate(
        self,
        trial: Trial,
        local: Local,
        output: Any,
        read: Sequence[str],
        inputs: Sequence[Any],
        leaves: Mapping[str, Any],
        precision: int,
    ) -> None:
        from parity.frameworks.matconvnet.tensors import derivatives, from_torch, to_torch

        pulled = None
        if not trial.is_loss:
            assert trial.upstream_ref is not None
            pulled = to_torch(np.asarray(trial.upstream_ref), precision)
        trained = {role: leaf for role, leaf in leaves.items() if leaf.requires_grad}
        grads = derivatives([output], [*inputs, *trained.values()], [pulled])
        for tensor, grad in zip(read, grads, strict=False):
            if grad is not None:
                own = from_torch(grad)
                local.input_grads[tensor] = local.input_grads[tensor] + own if tensor in local.input_grads else own
        for role, grad in zip(trained, grads[len(inputs) :], strict=True):
            ids = self.pair.ref.params.get(role, ())
            if grad is not None and len(ids) == 1:
                local.param_grads[ids[0]] = grad.numpy()

    def params(self, trial: Trial) -> dict[str, Array]:
        """Role → value in the reference's axes; pieces of one parameter side by side."""
        values = trial.bench.ref_values
        made: dict[str, Array] = {}
        renamed = {"gamma": "kernel", "beta": "bias"} if "kernel" in self.kind.roles else {}
        for role, ids in self.pair.ref.params.items():
            pieces = [values[key] for key in ids if key in values]
            if pieces:
                own = role if role in self.kind.roles else renamed.get(role, role)
                made[own] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)
        return made

    def _give_labels(self, trial: Trial, edit: Edit, kind: Kind, context: Any, prediction: Any) -> None:
        from parity.frameworks.matconvnet.labels import labels_of

        targets, network = trial.bench.labels_ref, trial.bench.ref.network
        layer = network[self.pair.ref.layers[-1]]
        label = network.label_of(layer)
        if targets is None or label not in targets.values:
            raise ValueError("the loss has no labels")
        if edit.labels:
            values = np.asarray(targets.values[label])
            if values.dtype.kind not in "iu":
                raise NotImplementedError("targets that are no classes")
            targets = Targets({**targets.values, label: edit.labels(values)}, targets.weights)
        try:
            context.labels, context.weights = labels_of(network, replace(layer, kind=kind), targets, prediction)
        except CannotCompare as error:
            raise ValueError(str(error)) from None

    def _named(self, local: Local, name: str) -> Array | None:
        return self.first.tensor(local, "ref", name)

    def _made(self, local: Local, name: str, edit: Edit) -> Array | None:
        """A tensor that the edited reference made, in the Keras layout: the derivative of what Keras holds has it."""
        link = self.first.named.gradients.get(name)
        if link is None or link.role not in edit.held:
            return self._named(local, name)
        grad = local.param_grads.get(link.ref[0])
        return None if grad is None else shaped(grad, self.first.bench.keras.network.params[link.keras].shape)
