"""One side's run, layer by layer and only as far as somebody looks: what a side does while one steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np

from parity.activity import added_gradient
from parity.debugger.held import Held
from parity.debugger.nodes import Blocked, Node, Seen, Wiring
from parity.errors import ParityError
from parity.layers import Dropout
from parity.network import Layer, Network
from parity.runner import Local, Pass, Runner, Targets

__all__ = ["Lane", "pass_of"]

Array = np.ndarray

_ACTIVITY = ""
"""Among the nodes that make a tensor's gradient: the activity regularizers of the layer that makes it."""

_FAULTS = (ParityError, NotImplementedError, ValueError, KeyError, RuntimeError, TypeError)
"""What a runner raises for layers that it cannot run alone."""


class Lane:
    """One side on one batch with given weights: tensors and their gradients, computed when they are asked for.

    Args:
        runner: of the side; nothing of its state is read or changed, but for a whole run where layers cannot run alone.
        nodes: of its network.
        inputs: name → n h w c.
        labels: what its losses are held against; None leaves them out.
        weights: param id → value.
        mode: `"train"` or `"eval"`.
        mask: dropout layer → its 0/1 mask, or None.
        memory: bytes of tensors that are kept; what goes over it is computed again when it is asked for.

    Attributes:
        statistics: layer → batch statistics, of what ran so far.
        losses: loss layer → its share of the objective, of what ran so far.
        runs: how many nodes were run, forward and backward.
    """

    def __init__(
        self,
        runner: Runner,
        nodes: Sequence[Node],
        inputs: Mapping[str, Array],
        labels: Targets | None,
        weights: Mapping[str, Array],
        *,
        mode: str,
        mask: Callable[[str], Array | None] = lambda _: None,
        memory: int = 1 << 31,
    ) -> None:
        self.runner, self.nodes, self.labels, self.mode = runner, tuple(nodes), labels, mode
        self.weights = dict(weights)
        self.statistics: dict[str, dict[str, Array]] = {}
        self.losses: dict[str, float] = {}
        self.runs = 0
        self._inputs, self._mask = dict(inputs), mask
        self._put: dict[str, Array] = {}
        self._put_gradients: dict[str, Array] = {}
        self._put_param_gradients: dict[str, Array] = {}
        self._added: tuple[list[Array], Array | None] = ([], None)
        self._adding: dict[str, list[Layer]] = {}
        for layer in runner.network.layers if mode == "train" and labels is not None else ():
            if layer.activity:
                self._adding.setdefault(layer.output, []).append(layer)
        self._wiring = Wiring(self.nodes)
        self._held = Held(memory, self._wiring.makers, self._wiring.readers)

    # ---- forward

    def value(self, tensor: str) -> Array:
        """A tensor; what is needed for it and not at hand is run.

        Raises:
            Blocked: it cannot be computed.
        """
        known = self._known(tensor)
        if known is not None:
            return known
        needed = self.lacking(tensor)
        left = {t: sum(t in node.inputs for node in needed) for t in {t for node in needed for t in node.inputs}}
        for node in needed:
            self._run(node)
            for read in node.inputs:
                left[read] -= 1
            self._held.latest = frozenset((*node.inputs, *node.outputs))
            self._held.trim({t for t, count in left.items() if count} | {tensor})
        known = self._known(tensor)
        if known is None:
            raise Blocked(f"{tensor} was not made")
        return known

    @property
    def outputs(self) -> Seen:
        """Every tensor by name."""
        return Seen(self.value)

    def _known(self, tensor: str) -> Array | None:
        for held in (self._put, self._inputs):
            if tensor in held:
                return held[tensor]
        return self._held.get(tensor)

    def lacking(self, tensor: str) -> list[Node]:
        """The nodes that must run for a tensor, in running order."""
        return self._wiring.before(
            tensor, lambda name: any(name in held for held in (self._put, self._inputs, self._held))
        )

    def _run(self, node: Node) -> None:
        try:
            local = self.isolate(node, None)
            made = local.outputs
        except _FAULTS as problem:
            whole = self._whole
            if whole is None or not any(tensor in whole.outputs for tensor in node.outputs):
                raise Blocked(" ".join(str(problem).split())) from problem
            local, made = Local(statistics=whole.statistics, losses=whole.losses), whole.outputs
        self.statistics.update({k: v for k, v in local.statistics.items() if k in node.layers})
        self.losses.update({k: v for k, v in local.losses.items() if k in node.layers})
        for tensor in node.outputs:
            if tensor in made and tensor not in self._put:
                self._held.keep(tensor, made[tensor])

    def node(self, name: str) -> Node:
        """The node of a unit."""
        return self._wiring.node(name)

    def isolate(
        self,
        node: Node,
        upstream: Mapping[str, Array] | None,
        *,
        outputs: bool = True,
        cut: Callable[[Array], Array] = lambda value: value,
    ) -> Local:
        """One run of a node on the lane's own tensors.

        Args:
            node: which.
            upstream: the gradients of what it makes; None: forward only.
            outputs: False where what it makes is known.
            cut: what is taken of each tensor that it reads and of each mask, of some images say.

        Raises:
            Blocked: what it reads cannot be computed.
            ParityError, NotImplementedError, ValueError: the node cannot be run alone.
        """
        self.runs += 1
        masks = {name: self.mask(name) for name in node.layers if isinstance(self.network[name].kind, Dropout)}
        return self.runner.isolate(
            node.layers,
            {tensor: cut(self.value(tensor)) for tensor in node.inputs},
            labels=self.labels,
            upstream=upstream,
            mode=self.mode,
            masks={name: cut(mask) for name, mask in masks.items() if mask is not None},
            params={key: self.weights[key] for key in node.params if key in self.weights},
            outputs=outputs,
        )

    @property
    def network(self) -> Network:
        """What the side's runner runs."""
        return self.runner.network

    def mask(self, layer: str) -> Array | None:
        """The 0/1 mask of a dropout layer in train mode; None where it keeps all."""
        return self._mask(layer) if self.mode == "train" else None

    @cached_property
    def _whole(self) -> Pass | None:
        """A run of the whole side, where layers cannot run alone (a recorded run, code outside of layers)."""
        if self._put or self._put_gradients:
            return None
        before = self.runner.params()
        try:
            self.runner.load(self.weights)
            backward = self.mode == "train" and self.labels is not None and bool(self.network.losses)
            return self.runner.run(self._inputs, self.labels, mode=self.mode, backward=backward, masks=self._masks())
        except _FAULTS:
            return None
        finally:
            self.runner.load(before)

    def recorded(self) -> Pass | None:
        """What a recorded side showed in this step beside its tensors; None where it runs, or something was put in.

        Raises:
            CannotCompare: fewer steps were recorded, of layers that cannot be run.
        """
        if not hasattr(self.runner, "recording") or self._put or self._put_gradients or self._put_param_gradients:
            return None
        before = self.runner.params()
        try:
            self.runner.load(self.weights)
            return self.runner.run(self._inputs, self.labels, mode=self.mode, observe=False, masks=self._masks())
        except NotImplementedError:
            return None
        finally:
            self.runner.load(before)

    def _masks(self) -> dict[str, Array]:
        masks = {n.name: self.mask(n.name) for n in self.network if isinstance(n.kind, Dropout)}
        return {name: mask for name, mask in masks.items() if mask is not None}

    # ---- backward

    def gradient(self, tensor: str) -> Array | None:
        """The derivative of the objective with respect to a tensor; None where none flows.

        Raises:
            Blocked: it cannot be computed.
        """
        if tensor in self._put_gradients:
            return self._put_gradients[tensor]
        for node in self._unbacked(tensor):
            self._back(node)
        return self._sum(tensor)

    @property
    def gradients(self) -> Seen:
        """The gradient of every tensor by the tensor's name."""
        return Seen(self.gradient)

    def local(self, node_name: str) -> Local:
        """What a node's own backward run showed.

        Raises:
            Blocked: it cannot be run.
        """
        node = self.node(node_name)
        if node.name not in self._held.backed:
            for tensor in node.outputs:
                self.gradient(tensor)
            self._back(node)
        return self._held.backed[node.name]

    def seen(self, node_name: str, backward: bool) -> Local | None:
        """What a node made of the lane's own tensors, as if it had run alone; None where that cannot be told apart.

        Args:
            node_name: of the node.
            backward: with the gradients of what it reads, and of its parameters.
        """
        made = Local(outputs=self.outputs, losses=self.losses)
        if not backward:
            return made
        node, own = self.node(node_name), self._held.backed.get(node_name)
        flows = {tensor: self.share(node_name, tensor) for tensor in node.inputs}
        if own is None or "_whole" in self.__dict__:
            return None
        made.param_grads = own.param_grads
        made.input_grads = {tensor: flow for tensor, flow in flows.items() if flow is not None}
        return made

    def param_gradients(self, only: Iterable[str] | None = None) -> dict[str, Array]:
        """Param id → gradient of the objective.

        Args:
            only: of these alone; None finishes the backward run and gives all.

        Raises:
            Blocked: one cannot be computed.
        """
        wanted = None if only is None else set(only)
        found: dict[str, Array] = {}
        for node in reversed(self.nodes):
            users = node.params if wanted is None else node.params & wanted
            if wanted is not None and not users:
                continue
            grads = self.local(node.name).param_grads
            for key in users:
                if key in grads:
                    found[key] = found[key] + grads[key] if key in found else grads[key]
        put = self._put_param_gradients
        return found | {key: value for key, value in put.items() if wanted is None or key in wanted}

    def sole(self, tensor: str) -> bool:
        """Whether one node alone reads a tensor, so that what it makes of its gradient is the whole of it."""
        return len(self._wiring.readers.get(tensor, ())) == 1 and tensor not in self._adding

    def reader(self, tensor: str) -> str:
        """The node that alone reads a tensor; empty where there are several, or none."""
        return self._wiring.readers[tensor][0].name if self.sole(tensor) else ""

    def awaits(self, tensor: str) -> bool:
        """Whether a node must run backward before a tensor's gradient is known."""
        return tensor not in self._put_gradients and bool(self._unbacked(tensor))

    def share(self, node_name: str, tensor: str) -> Array | None:
        """What a node that ran backward adds to the gradient of a tensor that it reads; None where it adds nothing."""
        return self._held.flows(tensor).get(node_name)

    def closed(self, node_name: str, output: str) -> bool:
        """Whether nobody reads any tensor that a node makes but this one."""
        return all(tensor == output or not self._wiring.readers.get(tensor) for tensor in self.node(node_name).outputs)

    def _unbacked(self, tensor: str) -> list[Node]:
        """The nodes behind a tensor whose backward run is missing, the last one first."""
        return self._wiring.behind(
            tensor, lambda node, name: name not in self._put_gradients and self._held.waits(node, name)
        )

    def _sum(self, tensor: str) -> Array | None:
        if tensor in self._put_gradients:
            return self._put_gradients[tensor]
        parts = self._held.flows(tensor)
        if tensor in self._adding and _ACTIVITY not in parts:
            self._held.add(tensor, _ACTIVITY, self._of_activity(tensor))
            parts = self._held.flows(tensor)
        ordered = [parts[name] for name in sorted(parts, key=lambda n: self._wiring.places.get(n, -1))]
        if len(ordered) < 2:
            return ordered[0] if ordered else None
        added, total = self._added  # it is asked for several times in a row
        if len(added) != len(ordered) or any(a is not b for a, b in zip(added, ordered, strict=True)):
            total = sum(ordered[1:], ordered[0])
            self._added = (ordered, total)
        return total

    def _of_activity(self, tensor: str) -> Array:
        """The gradient of what activity regularizers add to the loss for a tensor, which reads it like a node."""
        made = added_gradient(self._adding[tensor], self.value(tensor))
        if made is None:
            words = ", ".join(str(layer.activity.get("class_name")) for layer in self._adding[tensor])
            raise Blocked(f"the gradient of what {words} adds to the loss for {tensor} is not known")
        return made

    def _back(self, node: Node) -> None:
        """One node's backward run, from the gradients of what it makes."""
        given = {tensor: self._sum(tensor) for tensor in node.outputs}
        upstream = {tensor: value for tensor, value in given.items() if value is not None}
        if not upstream and not (node.is_loss and self.labels is not None):
            self._held.backed[node.name] = Local()
            return
        try:
            local = self.isolate(node, upstream, outputs=False)
        except _FAULTS as problem:
            local = self._from_whole(node, problem)
        self._held.backed[node.name] = Local(param_grads=local.param_grads, losses=local.losses, loss=local.loss)
        for tensor in node.inputs:
            if tensor in local.input_grads:
                self._held.add(tensor, node.name, local.input_grads[tensor])
        self._held.latest = frozenset((*node.inputs, *node.outputs))
        self._held.trim(())

    def _from_whole(self, node: Node, problem: Exception) -> Local:
        """A node's share of a whole run's gradients, where it is the only one that adds to them."""
        whole = self._whole
        if whole is None or not whole.output_grads:
            raise Blocked(" ".join(str(problem).split())) from problem
        local = Local(param_grads={key: whole.param_grads[key] for key in node.params if key in whole.param_grads})
        for tensor in node.inputs:
            # The last reader to run backward carries the whole of the gradient.
            if tensor in whole.output_grads and self._wiring.readers[tensor][0] is node:
                self._held.drop_gradients(tensor)
                gradient = whole.output_grads[tensor]
                own = self._of_activity(tensor) if tensor in self._adding else None
                local.input_grads[tensor] = gradient if own is None else gradient - own
        return local

    # ---- experiments

    def put(self, tensor: str, value: Array | None) -> Array | None:
        """Hold a tensor at a value from now on (None: as it is made); what is behind it is computed anew.

        Returns:
            What it was held at before, or None.
        """
        before = _hold(self._put, tensor, value)
        self.__dict__.pop("_whole", None)
        self._held.drop(tensor)
        self._forget(self._wiring.readers.get(tensor, ()))
        return before

    def put_gradient(self, tensor: str, value: Array | None) -> Array | None:
        """Hold a tensor's gradient at a value from now on (None: as it flows); what is before it is computed anew.

        Returns:
            What it was held at before, or None.
        """
        before = _hold(self._put_gradients, tensor, value)
        self.__dict__.pop("_whole", None)
        self._forget_gradients()
        return before

    def put_param_gradient(self, key: str, value: Array | None) -> Array | None:
        """Hold a parameter's gradient at a value from now on (None: as it flows); gives what it was held at before."""
        return _hold(self._put_param_gradients, key, value)

    def set_weight(self, key: str, value: Array) -> None:
        """Give a parameter another value; what depends on it is computed anew."""
        self.weights[key] = value
        self.__dict__.pop("_whole", None)
        self._forget([node for node in self.nodes if key in node.params])

    def use(self, runner: Runner, layers: Sequence[str]) -> None:
        """Run on with another runner whose network has the same layers, of which these compute something else."""
        self.runner = runner
        self.__dict__.pop("_whole", None)
        self._forget([node for node in self.nodes if set(layers) & set(node.layers)])

    def follow(self, other: Lane) -> None:
        """Run as another lane of the side does: by the same runner, with the same tensors put in."""
        self.runner = other.runner
        self._put, self._put_gradients = dict(other._put), dict(other._put_gradients)
        self._put_param_gradients = dict(other._put_param_gradients)

    def _forget(self, nodes: Iterable[Node]) -> None:
        """Drop what these nodes and all behind them made."""
        for node in self._wiring.all_behind(nodes):
            for tensor in node.outputs:
                self._held.drop(tensor)
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        self._held.drop_gradients()
        self._added = ([], None)

    # ---- memory

    @property
    def held(self) -> int:
        """Bytes of tensors and gradients that are at hand, beyond the inputs and what was put in."""
        return self._held.bytes

    def release(self) -> None:
        """Let go of every tensor and gradient but what was put in."""
        self._held.clear()
        self._forget_gradients()
        self.__dict__.pop("_whole", None)


def _hold(held: dict[str, Array], name: str, value: Array | None) -> Array | None:
    """Put a value under a name, or take it away (None); gives what stood there."""
    before = held.pop(name, None)
    if value is not None:
        held[name] = value
    return before


def pass_of(lane: Lane) -> Pass:
    """What a lane shows, as a pass; its tensors are computed when they are asked for."""

    def grad(key: str) -> Array | None:
        return lane.param_gradients([key]).get(key)

    return Pass(
        outputs=lane.outputs,
        output_grads=lane.gradients,
        param_grads=Seen(grad),
        losses=lane.losses,
        statistics=lane.statistics,
    )
