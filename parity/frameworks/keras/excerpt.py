"""Some layers of a Keras model as code that makes and runs them without parity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from parity.frameworks.keras.bare_code import operation_call
from parity.frameworks.keras.batches import labels_for
from parity.frameworks.keras.edits.code import text, value
from parity.frameworks.keras.observe import DROPOUTS
from parity.frameworks.keras.records import Ref
from parity.frameworks.keras.safety import GIVEN
from parity.runner import Targets

if TYPE_CHECKING:
    from parity.frameworks.keras.engine import Engine
    from parity.frameworks.keras.graph import Graph, Node

__all__ = ["KerasCode", "keras_code"]

Array = np.ndarray

_CUSTOM = "CUSTOM"
_DEFAULTED = ("_initializer", "_regularizer", "_constraint")
_MEANS = ("mean", "sum_over_batch_size", "auto", "mean_with_sample_weight")
_NAMELESS = ("name", "trainable", "batch_input_shape", "batch_shape", "activity_regularizer", "dtype", "input_dim")


@dataclass(frozen=True, eq=False)
class KerasCode:
    """Code that makes layers and runs them.

    Attributes:
        imports: lines that import Keras.
        layers: lines that make the layers, into a dict `layers`.
        forward: lines of a function body that takes `t` (tensor name → tensor) and fills it; it reads `ARRAYS`.
        weights: layer → names of its weights' arrays, in Keras' order.
        arrays: name → array.
        variables: param id → (layer, index of its weight).
        backend: what it runs on.
        custom: whether the layers are made from CUSTOM: name → class, of the file that was given with the model.
    """

    imports: tuple[str, ...]
    layers: tuple[str, ...]
    forward: tuple[str, ...]
    weights: Mapping[str, tuple[str, ...]]
    arrays: Mapping[str, Array]
    variables: Mapping[str, tuple[str, int]]
    backend: str
    custom: bool = False


def keras_code(
    engine: Engine,
    graph: Graph,
    names: Sequence[str],
    params: Mapping[str, Array],
    *,
    feeds: Mapping[str, Array],
    targets: Targets | None,
    mode: str,
    masks: Mapping[str, Array],
) -> KerasCode:
    """Write layers of a graph as code.

    Args:
        engine: whose model it is.
        graph: of the model.
        names: nodes in running order.
        params: param id → value; those that are not named have their present one.
        feeds: what they are fed: a loss's labels have the shape of what it reads.
        targets: what losses are held against.
        mode: `"train"` or `"eval"`.
        masks: dropout node → 0/1 mask.

    Raises:
        NotImplementedError: one of them is no layer of Keras' own that can be written down.
    """
    arrays: dict[str, Array] = {}
    makers: dict[str, str] = {}
    weights: dict[str, tuple[str, ...]] = {}
    variables: dict[str, tuple[str, int]] = {}
    forward: list[str] = []
    for node in (graph.nodes[name] for name in names):
        if node.step == "loss":
            forward += _loss(engine, node, feeds, targets, arrays)
            continue
        if node.record is None or node.step not in ("core", "activation"):
            raise NotImplementedError(f"{node.layer.name} is not one layer of the model")
        path, item = node.record.place.path, node.record.place.item
        made, read = node.layer.outputs[0], node.layer.inputs[0]
        if node.step == "activation":
            spelled = engine.keras.activations.serialize(item.activation)
            forward.append(f"t[{text(made)}] = keras.activations.get({value(spelled)})(t[{text(read)}])")
            continue
        training = _training(engine, node, mode)
        if node.record.place.own and node.record.place.type in DROPOUTS and training and item.rate:
            arrays[f"mask {node.layer.name}"] = np.asarray(masks[node.layer.name], np.float32)
            mask = f"constant(ARRAYS[{text(f'mask {node.layer.name}')}])"
            forward.append(f"t[{text(made)}] = t[{text(read)}] * ({mask} / {1.0 - item.rate!r})")
            continue
        bare = operation_call(engine.keras, item)
        if bare is None:
            makers.setdefault(path, _maker(engine, node))
        if path not in weights and bare is None:
            kept: list[str] = []
            ids = {id(v): pid for pid, v in graph.variables.items() if graph.owners[pid] == path}
            for i, variable in enumerate(item.weights):
                pid = ids.get(id(variable), "")
                held = params.get(pid, variable.numpy())
                arrays[f"{path} {i}"] = np.asarray(held, np.float32).reshape(tuple(variable.shape))
                kept.append(f"{path} {i}")
                if pid:
                    variables[pid] = (path, i)
            weights[path] = tuple(kept)
        forward.append(_call(node, training, bare or (f"layers[{text(path)}]", ()), arrays))
    imports = ("import keras",) if engine.modern else ("import tf_keras as keras",)
    return KerasCode(
        imports,
        tuple(f"{text(path)}: {maker}," for path, maker in makers.items()),
        tuple(forward),
        weights,
        arrays,
        variables,
        engine.keras.backend.backend() if engine.modern else "tensorflow",
        any(maker.startswith(_CUSTOM) for maker in makers.values()),
    )


def _training(engine: Engine, node: Node, mode: str) -> bool | None:
    assert node.record is not None
    layer = node.record.place.item
    asked = mode == "train" if engine.is_layer(layer) and engine.takes(layer, "training") else None
    return node.record.training.get(mode, asked)


def _maker(engine: Engine, node: Node) -> str:
    """The layer's constructor with what is not its default."""
    assert node.record is not None
    item, kind = node.record.place.item, node.record.place.type
    given = type(item).__module__ == GIVEN
    if not given and (not node.record.place.own or getattr(engine.keras.layers, kind, None) is not type(item)):
        raise NotImplementedError(
            f"{node.record.place.path} is a {kind}, which is neither Keras' own nor of a file of --custom-objects"
        )
    config = dict(item.get_config())
    if node.fused and "activation" in config:
        config["activation"] = "linear"
    kept = {k: v for k, v in config.items() if k not in _NAMELESS and not k.endswith(_DEFAULTED) and v is not None}
    if "BatchNormalization" in kind and not item.trainable:  # it takes its averages then, in training too
        kept["trainable"] = False
    policy = config.get("dtype")
    plain = policy if isinstance(policy, str) else (policy or {}).get("config", {}).get("name", "float32")
    if plain not in (None, "float32"):
        kept["dtype"] = plain
    try:
        arguments = ", ".join(f"{key}={value(part)}" for key, part in kept.items())
    except (TypeError, ValueError):
        raise NotImplementedError(f"{node.record.place.path} has settings that are no plain values") from None
    return f"{_CUSTOM}[{text(type(item).__name__)}]({arguments})" if given else f"keras.layers.{kind}({arguments})"


def _call(node: Node, training: bool | None, called: tuple[str, Sequence[str]], arrays: dict[str, Array]) -> str:
    """A line that calls something, with settings of its own; arrays that it is given go into `arrays`."""
    assert node.record is not None
    record = node.record

    def spelled(part: Any) -> str:
        if isinstance(part, Ref):
            return f"t[{text(record.inputs[part.index])}]"
        if isinstance(part, list | tuple):
            inside = ", ".join(spelled(item) for item in part)
            return f"[{inside}]" if isinstance(part, list) else f"({inside}{',' if len(part) == 1 else ''})"
        if isinstance(part, slice):
            return f"slice({', '.join(spelled(end) for end in (part.start, part.stop, part.step))})"
        if part is None or isinstance(part, bool | int | float | str):
            return value(part)
        if part is Ellipsis:
            return "..."
        if isinstance(part, np.ndarray) or callable(getattr(part, "numpy", None)):
            held = np.asarray(part if isinstance(part, np.ndarray) else part.numpy())
            name = f"{node.layer.name} argument {sum(key.startswith(node.layer.name) for key in arrays)}"
            arrays[name] = held
            return f"constant(ARRAYS[{text(name)}])"
        raise NotImplementedError(f"{record.place.path} is called with something that is no plain value")

    given = [spelled(part) for part in record.args]
    given += [f"{k}={spelled(v)}" for k, v in record.kwargs.items() if k != "training" and v is not None]
    given += [] if training is None else [f"training={training}"]
    names = ", ".join(f"t[{text(name)}]" for name in node.layer.outputs)
    function, settings = called
    made = f"{function}({', '.join([*given, *settings])})"
    return f"{names} = {made if len(node.layer.outputs) == 1 else f'list({made})'}"


def _loss(
    engine: Engine, node: Node, feeds: Mapping[str, Array], targets: Targets | None, arrays: dict[str, Array]
) -> list[str]:
    term = node.term
    assert term is not None
    loss = term.loss
    function, settings = getattr(loss, "fn", None), dict(getattr(loss, "_fn_kwargs", {}) or {})
    if function is not None and getattr(engine.keras.losses, function.__name__, None) is function:
        inside = "".join(f", {k}={value(v)}" for k, v in settings.items())
        maker = f"keras.losses.{function.__name__}(y, p{inside})"
    elif getattr(engine.keras.losses, type(loss).__name__, None) is type(loss):
        config = {k: v for k, v in loss.get_config().items() if k not in ("name", "dtype", "fn", "reduction")}
        inside = ", ".join(f"{k}={value(v)}" for k, v in config.items())
        maker = f"keras.losses.{type(loss).__name__}({inside}, reduction='none')(y, p)".replace("(, ", "(")
    else:
        raise NotImplementedError(f"{term.name} is no public loss of Keras")
    if targets is None or term.label not in targets.values:
        raise NotImplementedError(f"{term.name} has no labels")
    shape = next(iter(feeds.values())).shape
    kind = term.kind
    y = labels_for(kind.function, kind.sparse, targets.values[term.label], shape, kind.ignored)
    arrays[f"y {term.name}"] = y if term.kind.sparse else y.astype(np.float32)
    reduction, weights = str(getattr(loss, "reduction", "")), targets.weights.get(term.label)
    if reduction not in (*_MEANS, "sum") or (reduction == "mean_with_sample_weight" and weights is not None):
        raise NotImplementedError(f"{term.name} adds up otherwise than by a mean or a sum")
    given = ""
    if weights is not None:
        held = np.asarray(weights, np.float32)
        arrays[f"w {term.name}"] = held.reshape(held.shape + (1,) * (len(shape) - 1 - held.ndim))
        given = f" * constant(ARRAYS[{text(f'w {term.name}')}])"
    weight = "" if term.weight == 1 else f" * {term.weight!r}"
    return [
        f"y, p = constant(ARRAYS[{text(f'y {term.name}')}]), t[{text(term.prediction)}]",
        f"t[{text(node.layer.output)}] = {'total' if reduction == 'sum' else 'mean'}({maker}{given}){weight}",
    ]
