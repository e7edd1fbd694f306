"""What a file says about `loss=`, in every form that a Keras has written, and the live loss that it stands for.

A name (`"mse"`, `"MeanSquaredError"`), a serialized function, a serialized object of Keras 2 or 3, or one of these per
output as a list or a dict.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from parity.layers import Loss
from parity.layers.keras_losses import class_of, word_of
from parity.network import Layer

if TYPE_CHECKING:
    from parity.frameworks.keras.engine import Engine

__all__ = ["Spec", "kinds_of", "live_losses", "loss_layers", "specs_of", "weights_of"]


@dataclass(frozen=True, eq=False)
class Spec:
    """One loss of a model.

    Attributes:
        output: name of the output that it is for; empty where the file gives no names.
        name: Keras' class or function, as the file has it.
        config: its settings.
        raw: as the file has it.
    """

    output: str
    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    raw: Any = None

    @property
    def kind(self) -> Loss:
        """The kind of it."""
        return Loss.from_keras(self.name, self.config, ())


def specs_of(loss: Any, output: str = "") -> Iterator[Spec | None]:
    """The losses that `loss=` names, one per output in order; None for an output without one.

    Args:
        loss: as the file has it, or what `compile()` was given live.
        output: which output it is for.
    """
    if loss is None:
        if output:
            yield None
        return
    if isinstance(loss, str):
        yield Spec(output, loss, {}, loss)
    elif isinstance(loss, Mapping):
        if "class_name" in loss:
            yield _serialized(loss, output)
            return
        for key, part in loss.items():
            yield from specs_of(part, str(key))
    elif isinstance(loss, Sequence):
        for i, part in enumerate(loss):
            yield from specs_of(part, output or f"#{i}")
    else:
        name = getattr(loss, "__name__", None) or type(loss).__name__
        config = loss.get_config() if hasattr(loss, "get_config") else {}
        yield Spec(output, str(name), config, loss)


def _serialized(loss: Mapping[str, Any], output: str) -> Spec:
    config, name = loss.get("config"), str(loss["class_name"])
    if isinstance(config, str):  # a function: its name, and for one of the user's where it comes from
        return Spec(output, config, {}, loss)
    settings: dict[str, Any] = dict(config) if isinstance(config, Mapping) else {}
    function = settings.get("fn")
    if name == "LossFunctionWrapper" and function is not None:
        if isinstance(function, Mapping):
            function = function.get("config")
        name = str(function) if isinstance(function, str) else name
    return Spec(output, name, settings, loss)


def kinds_of(loss: Any) -> list[Loss]:
    """The kinds of what a file says about `loss=`, in order."""
    return [spec.kind for spec in specs_of(loss) if spec is not None]


def weights_of(weights: Any, specs: Sequence[Spec | None]) -> list[float]:
    """`loss_weights=` of each loss, 1 where there is none.

    Args:
        weights: a list, a dict by output, one number, or None.
        specs: the losses in order.
    """
    if isinstance(weights, Mapping):
        given = [weights.get(spec.output) if spec is not None else None for spec in specs]
    elif isinstance(weights, Sequence) and not isinstance(weights, str):
        given = [*weights, *[None] * len(specs)][: len(specs)]
    else:
        given = [weights] * len(specs)
    return [float(weight) if isinstance(weight, int | float) else 1.0 for weight in given]


def loss_layers(
    training: Mapping[str, Any] | None, outputs: Sequence[str], shapes: Mapping[str, Any]
) -> list[tuple[Layer, float]]:
    """The losses of a file as layers named as a running model's, and the weight of each in the sum.

    One loss alone is that of every output; those in a dict are named after the layers that make the outputs.

    Args:
        training: `compile()`'s arguments, as the file has them.
        outputs: the model's outputs.
        shapes: tensor → its shape without the batch axis, where it is known.
    """
    training = training or {}
    specs = list(specs_of(training.get("loss")))
    if len(specs) == 1 and specs[0] is not None and not specs[0].output:
        specs = [replace(specs[0], output=_maker(output)) for output in outputs]
    places = {_maker(output): i for i, output in reversed(list(enumerate(outputs)))}
    places |= {name.split("/")[-1]: i for name, i in places.items()}
    found: dict[int, tuple[Spec, float]] = {}
    for i, (spec, weight) in enumerate(zip(specs, weights_of(training.get("loss_weights"), specs), strict=True)):
        place = i if spec is None else places.get(spec.output, i)
        if spec is not None and place < len(outputs):
            found[place] = spec, weight
    layers: list[tuple[Layer, float]] = []
    for place, (spec, weight) in sorted(found.items()):
        output = outputs[place]
        name, label = ("loss", "labels") if len(found) == 1 else (f"loss:{output}", f"labels:{output}")
        shape = shapes.get(output)
        kind = Loss.from_keras(spec.name, spec.config, [shape] if shape is not None else ())
        remark = (f"counts {weight:g} times",) if weight != 1 else ()
        layers.append((Layer(name, kind, (output, label), (name,), {}, (), "loss", "loss", remark), weight))
    return layers


def _maker(output: str) -> str:
    """The layer that makes an output: its fused activation counts as itself."""
    return output.split(":")[0].split("@")[0]


def live_losses(engine: Engine, loss: Any, given: Mapping[str, Any]) -> Any:
    """What `compile(loss=...)` takes, in the structure that the file has.

    Args:
        engine: the Keras that will run it.
        loss: as the file has it.
        given: custom objects by name.

    Raises:
        Exception: whatever Keras raises for a loss that it does not know.
    """
    if loss is None:
        return None
    if isinstance(loss, Mapping) and "class_name" not in loss:
        return {str(key): live_losses(engine, part, given) for key, part in loss.items()}
    if isinstance(loss, Sequence) and not isinstance(loss, str):
        return [live_losses(engine, part, given) for part in loss]
    (spec,) = (s for s in specs_of(loss) if s is not None)
    if spec.name in given:
        found = given[spec.name]
        return found(**_taken(found, spec.config)) if inspect.isclass(found) else found
    plain = isinstance(spec.raw, str) or not spec.config
    losses = engine.keras.losses
    if plain:
        function = getattr(losses, word_of(spec.name), None)
        if function is not None and spec.name.islower():
            return function if spec.name != word_of(spec.name) else spec.name
    found = getattr(losses, class_of(spec.name) or "", None)
    if found is None:  # Keras' own message says what it does not know
        return losses.get(spec.raw) if isinstance(spec.raw, str) else losses.deserialize(copy.deepcopy(dict(spec.raw)))
    settings = _taken(found, spec.config)
    if "reduction" in settings:
        settings["reduction"] = _reduction(engine, settings["reduction"])
    return found(**settings)


def _taken(made: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a class takes: a config of another version may hold more (`fn`, `dtype`)."""
    arguments = inspect.signature(made).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in arguments.values()):
        return dict(config)
    return {key: value for key, value in config.items() if key in arguments and key != "dtype"}


def _reduction(engine: Engine, word: Any) -> Any:
    """A reduction as this Keras spells it: `auto` is Keras 2's, and what it means Keras 3 says."""
    word = str(word).lower() if word is not None else "none"
    if engine.modern:
        return {"auto": "sum_over_batch_size", "none": None}.get(word, word)
    return word if word in ("auto", "none", "sum", "sum_over_batch_size") else "sum_over_batch_size"
