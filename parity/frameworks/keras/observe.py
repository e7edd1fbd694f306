"""Watches one eager run of a model: what each call of each leaf layer reads and makes, without changing the model.

The instances' own `call` (and fused `activation`) are shadowed by an attribute for the time of one run; classes are
never touched. One record is made per call, so shared layers and submodels show every use. Tensors are followed by
identity: a tensor that a record made is that record's output wherever it is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from parity.frameworks.keras.backends import Watch
from parity.frameworks.keras.draws import alike
from parity.frameworks.keras.engine import Engine
from parity.frameworks.keras.kinds import NOISE, fuses
from parity.frameworks.keras.records import Mask, Place, Record, Ref

__all__ = ["DROPOUTS", "Recorder", "averages", "shadowed"]

_MISSING = object()

NORMALISATIONS = ("BatchNormalization", "SyncBatchNormalization")

DROPOUTS = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")


@contextlib.contextmanager
def shadowed(item: Any, name: str, value: Any) -> Iterator[None]:
    """Sets an instance's attribute past Keras' own tracking, and takes it back."""
    before = item.__dict__.get(name, _MISSING)
    object.__setattr__(item, name, value)
    try:
        yield
    finally:
        if before is _MISSING:
            object.__delattr__(item, name)
        else:
            object.__setattr__(item, name, before)


class Recorder:
    """Shadows the leaves' `call` inside a `with` block and records what they do.

    Args:
        engine: whose model it is.
        leaves: what to watch.
        inputs: name → tensor of the model's inputs.
        keep: whether to keep the tensors of every call (else masks and statistics only).
        watch: see `Backend.differentiate`.
        mode: `"train"` or `"eval"`: how the model is run.
        given: dropout node → 0/1 mask in its output's shape, to use in place of a draw.

    Attributes:
        records: the calls, in order.
        masks: node → what a dropout layer made of ones.
        statistics: node → mean and biased variance (tensors) that a batch normalisation computed.
        counts: node → elements per channel that they were computed from.
        sources: name → tensor that was read and that no record made (operations outside of layers).
    """

    def __init__(
        self,
        engine: Engine,
        leaves: Sequence[Place],
        inputs: Mapping[str, Any],
        keep: bool = True,
        watch: Watch = lambda tensor: tensor,
        mode: str = "train",
        given: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.mode = mode
        self._given = given or {}
        self.engine, self.backend, self.leaves, self.keep, self.watch = engine, engine.backend, leaves, keep, watch
        self.records: list[Record] = []
        self.masks: dict[str, Any] = {}
        self.statistics: dict[str, dict[str, Any]] = {}
        self.counts: dict[str, int] = {}
        self.sources: dict[str, Any] = {}
        self._masks: dict[str, Mask] = {}
        self._inputs = dict(inputs)
        self._names: dict[int, str] = {id(tensor): name for name, tensor in inputs.items()}
        self._alive: list[Any] = list(inputs.values())  # an id names a tensor only while the tensor lives
        self._calls: dict[str, int] = {}
        self._shadows = contextlib.ExitStack()
        self._constants = _constants(leaves) if engine.modern else set[int]()

    def __enter__(self) -> Recorder:
        with contextlib.ExitStack() as stack:
            for place in self.leaves:
                stack.enter_context(shadowed(place.item, "call", self._watched(place)))
                for name, method in self.backend.quicker(place.item).items() if place.own else ():
                    stack.enter_context(shadowed(place.item, name, method))
            self._shadows = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._shadows.close()

    def name_of(self, tensor: Any) -> str | None:
        """The name of a tensor that was an input or that a record made."""
        return self._names.get(id(tensor))

    # What happens at a call -----------------------------------------------------------------------------------------

    def _watched(self, place: Place) -> Callable[..., Any]:
        original = place.item.call

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.engine.tracing:
                return original(*args, **kwargs)
            name = self._next_name(place)
            record = self._begin(name, place, args, kwargs)
            given = kwargs.get("training", args[1] if len(args) > 1 and isinstance(args[1], bool) else None)
            if record is not None and given is not None:
                record.training[self.mode] = bool(given)
            if place.own and given and place.type in DROPOUTS:
                draw = self._mask if name in self._given else self._drop
                return self._finish(record, draw(name, place.item, original, args, kwargs), None)
            if place.own and given and averages(place.item):
                return self._finish(record, self._normalise(name, place.item, original, args, kwargs), None)
            steps: list[tuple[Any, Any]] = []
            function = getattr(place.item, "activation", None) if fuses(place.type) and place.own else None
            if not callable(function):
                drawing = (
                    place.own and place.type not in NOISE
                )  # noise alone draws as it will, and is compared by nobody
                with alike(self.engine) if drawing else contextlib.nullcontext():
                    made = original(*args, **kwargs)
                return self._finish(record, made, None)

            def activation(x: Any, *more: Any, **others: Any) -> Any:
                x = self.watch(x)
                y = function(x, *more, **others)
                steps.append((x, y))
                return y

            with shadowed(place.item, "activation", activation):
                output = original(*args, **kwargs)
            fused = steps[-1] if steps and steps[-1][1] is output and steps[-1][0] is not output else None
            return self._finish(record, output, fused)

        return call

    def _next_name(self, place: Place) -> str:
        again = self._calls[place.path] = self._calls.get(place.path, 0) + 1
        return place.path if again == 1 else f"{place.path}@{again}"

    def _begin(self, name: str, place: Place, args: Any, kwargs: Any) -> Record | None:
        if not self.keep:
            return None
        tensors: list[Any] = []

        def replace(item: Any) -> Any:
            if place.type == "TFOpLambda" and self._is_number(item):
                return item.numpy().item()
            if self.backend.is_tensor(item) and id(item) not in self._constants:
                for i, known in enumerate(tensors):
                    if known is item:
                        return Ref(i)
                tensors.append(item)
                return Ref(len(tensors) - 1)
            if isinstance(item, list | tuple):
                parts = [replace(part) for part in item]
                return parts if isinstance(item, list) else tuple(parts)
            if isinstance(item, dict):
                return {key: replace(part) for key, part in item.items()}
            return item

        template, settings = replace(tuple(args)), replace(dict(kwargs))
        names = tuple(self._read(name, i, tensor) for i, tensor in enumerate(tensors))
        return Record(name, place, template, settings, names, tuple(tensors))

    def _is_number(self, item: Any) -> bool:
        """Whether it is a number that Keras 2 has made a tensor of: the first argument of `0.1 * x`."""
        return self.backend.is_tensor(item) and tuple(item.shape) == () and id(item) not in self._names

    def _read(self, name: str, index: int, tensor: Any) -> str:
        """The name of a tensor that is read; one that nothing made gets a name of its own."""
        known = self._names.get(id(tensor)) or self.mask_name(tensor) or self._cast_of(tensor)
        if known is None:
            known = f"{name}:input" if index == 0 else f"{name}:input{index + 1}"
            self.sources[known] = tensor
        self._names[id(tensor)] = known
        self._alive.append(tensor)
        return known

    def mask_name(self, mask: Any) -> str | None:
        """The name of a mask, after the first layer that put it on what it made; None for what is no mask."""
        for record in self.records if mask is not None else ():
            for i, tensor in enumerate(record.handed):
                if self.engine.mask_of(tensor) is mask:
                    name = f"{record.name}:{i}:mask" if len(record.handed) > 1 else f"{record.name}:mask"
                    self._masks.setdefault(name, Mask(name, record, mask))
                    return name
        return None

    def masks_read(self, predictions: Any) -> list[Mask]:
        """The masks that some layer or loss reads, or that such a mask is made of."""
        for tensor in self.engine.flatten(predictions):
            self.mask_name(self.engine.mask_of(tensor))
        done: set[str] = set()
        while waiting := [mask for mask in self._masks.values() if mask.name not in done]:
            for mask in waiting:
                carried = [self.engine.mask_of(tensor) for tensor in mask.record.tensors]
                mask.earlier = tuple(self.mask_name(other) for other in carried)
                done.add(mask.name)
        return list(self._masks.values())

    def _cast_of(self, tensor: Any) -> str | None:
        """The recorded tensor that this one is a cast of: layers cast their inputs to their compute dtype."""
        made: list[tuple[str, Any]] = list(self._inputs.items())
        for record in self.records:
            made.extend(record.outputs.items())
            if record.activation is not None:
                made.append((f"{record.name}:activation", record.activation))
        for name, value in reversed(made):
            if value.dtype != tensor.dtype and value.shape == tensor.shape:
                cast = self.backend.cast(value, self.backend.dtype(tensor))
                if self.backend.equal(cast, tensor):
                    return name
        return None

    def _finish(self, record: Record | None, output: Any, fused: tuple[Any, Any] | None) -> Any:
        """Names what a call made.

        What it merely hands on becomes a tensor of its own, so that it can be told apart; and so does each of several
        outputs, which may be made of one another (an LSTM's sequence of its last state), and then a derivative with
        respect to one would go through the others.
        """
        if record is None:
            return output
        flat = self.engine.flatten(output)
        flat = [self._own(tensor, len(flat) > 1) for tensor in flat]
        result = flat[0] if len(flat) == 1 and self.backend.is_tensor(output) else self.engine.pack(output, flat)
        core = [fused[0]] if fused else flat
        if len(core) == 1:
            record.outputs[record.name] = core[0]
        else:
            record.outputs.update({f"{record.name}:{i}": tensor for i, tensor in enumerate(core)})
        for name, tensor in record.outputs.items():
            self._names[id(tensor)] = name
        if fused:
            record.activation = flat[0]
            self._names[id(flat[0])] = f"{record.name}:activation"
        record.handed = flat
        self._alive.extend([*core, *flat])
        self.records.append(record)
        return result

    def _own(self, tensor: Any, always: bool) -> Any:
        return self.watch(self.backend.alias(tensor) if always or id(tensor) in self._names else tensor)

    # Layers that draw or move something -------------------------------------------------------------------------------

    def _drop(self, name: str, layer: Any, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What Keras' own dropout makes of ones is mask/(1 - rate), by the draw that the input gets too."""
        state = self.engine.state(layer) if self.engine.modern else ()
        output, self.masks[name] = self.backend.drop(lambda x: original(x, *args[1:], **kwargs), args[0], state)
        return output

    def _mask(self, name: str, layer: Any, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """The product with the mask that is given, as another run drew it."""
        del original, kwargs
        x = args[0]
        kept = self.backend.constant(self._given[name], self.backend.dtype(x))
        self.masks[name] = kept * (1.0 / (1.0 - layer.rate))
        return x * self.masks[name]

    def _normalise(self, name: str, layer: Any, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A training call whose batch statistics are read off the layer's own update.

        With a momentum of 0, and from zeros, the moving statistics become the batch's exactly, and the output does not
        depend on either. Keras 2's fused kernel puts Bessel's correction on the variance, which is taken off again.
        """
        moving = (layer.moving_mean, layer.moving_variance)
        channels = int(np.prod(layer.moving_mean.shape))
        self.counts[name] = count = int(np.prod(args[0].shape)) // channels
        with shadowed(layer, "momentum", 0.0), self.backend.untouched(moving):
            for variable in moving:
                variable.assign(np.zeros(tuple(variable.shape), np.float32))
            output = original(*args, **kwargs)
            mean, variance = (self.backend.snapshot(v) for v in moving)
        if getattr(layer, "fused", False) and not self.engine.modern and count > 1:
            variance = (variance.astype(np.float64) * (count - 1) / count).astype(variance.dtype)
        self.statistics[name] = {"mean": mean, "variance": variance}
        return output


def averages(layer: Any) -> bool:
    """Whether a layer keeps moving averages of the batch's moments that its output in training does not depend on.

    Batch renormalisation, whose output does, is left alone.
    """
    return type(layer).__name__ in NORMALISATIONS and layer.trainable and not getattr(layer, "renorm", False)


def _constants(leaves: Sequence[Place]) -> set[int]:
    """Ids of tensors that were written into a functional Keras 3 graph as arguments (`x + tf.constant(...)`)."""
    found: set[int] = set()
    for place in leaves:
        for node in getattr(place.item, "_inbound_nodes", ()):
            arguments = getattr(node, "arguments", None)
            for item in getattr(arguments, "_flat_arguments", None) or ():
                if not hasattr(item, "_keras_history"):
                    found.add(id(item))
    return found
