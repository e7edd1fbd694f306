"""How large things are: what a file says of its inputs, and every layer's shape for an input of a given size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from parity.errors import BadFile, CannotCompare
from parity.layers import Conv, Opaque
from parity.layers.base import numbers
from parity.network import Layer, Network, Param, Shape

__all__ = ["declared_inputs", "times", "with_input"]


def with_input(
    network: Network,
    shape: Sequence[int | None] | Mapping[str, Sequence[int | None]],
    path: str | None = None,
    *,
    fit: bool = True,
) -> Network:
    """The network with every layer's shape, and every number of groups, worked out for these inputs.

    Args:
        network: as `lift` gives it.
        shape: (h, w, c) of its data input, or input → (h, w, c) of some; None for an extent that is open.
        path: the file whose fault a misfit is; None where it is the caller's.
        fit: False leaves every kind as it is, its groups too, and works out shapes only.

    Raises:
        BadFile: (with `path`) a layer does not fit its input.
        CannotCompare: (without) the same, or an input that the network does not have.
    """

    def fail(problem: str) -> Exception:
        return BadFile(path, problem) if path else CannotCompare(f"{network.name}: {problem}")

    given = _by_name(network, shape)
    inputs: dict[str, Shape] = {**network.inputs, **given}
    shapes: dict[str, Shape | None] = {name: extents for name, extents in inputs.items() if name not in network.labels}
    layers: list[Layer] = []
    for layer in network.layers:
        read = [shapes.get(tensor) for tensor in network.data(layer.inputs)]
        known = [s for s in read if s is not None]
        own = {role: network.params[id_].shape for role, id_ in layer.params.items()}
        kind, out = layer.kind, None
        try:
            if len(known) == len(read) and not isinstance(kind, Opaque):
                kind = kind.fit(known, own) if fit else kind
                out = kind.output_shape(known)
        except ValueError as error:
            at = " and ".join(times(s) for s in known)
            raise fail(f"layer {layer.name}: {error} (its input is {at})") from None
        shapes.update(dict.fromkeys(layer.outputs, out))
        layers.append(replace(layer, kind=kind, shape=out))
    return replace(network, layers=tuple(layers), inputs=inputs)


def _by_name(network: Network, shape: Sequence[int | None] | Mapping[str, Sequence[int | None]]) -> dict[str, Shape]:
    names = network.data(network.inputs)
    if not isinstance(shape, Mapping):
        if len(names) != 1:
            raise CannotCompare(f"{network.name}: it has {len(names)} data inputs ({', '.join(names)}), not one")
        shape = {names[0]: shape}
    for name, extents in shape.items():
        if name not in names:
            raise CannotCompare(f"{network.name}: it has no data input {name!r} (it has {', '.join(names) or 'none'})")
        if len(extents) != 3:
            raise CannotCompare(f"{network.name}: its input has three extents (h, w, c), not {len(extents)}")
    return {name: tuple(extents) for name, extents in shape.items()}


def declared_inputs(
    meta: Mapping[str, Any], names: Sequence[str], layers: Sequence[Layer], params: Mapping[str, Param], file: str
) -> tuple[dict[str, Shape], list[str]]:
    """Data input → (h, w, c) as `meta` says it, and a remark for each of which it does not say it.

    `meta.inputs` names each input with its size; `meta.inputSize` and `meta.normalization.imageSize` speak of the only
    one (or the first). Where nothing says the extents, the channels are those that the filters imply.

    Raises:
        BadFile: such a field holds no numbers.
    """
    normalization = meta.get("normalization")
    single = {
        "inputSize": meta.get("inputSize"),
        "normalization.imageSize": normalization.get("imageSize") if isinstance(normalization, Mapping) else None,
    }
    made: dict[str, Shape] = {}
    remarks: list[str] = []
    for position, name in enumerate(names):
        candidates: dict[str, Any] = {"inputs": dict(_listed(meta.get("inputs"))).get(name)}
        if not position:
            candidates |= single
        channels, why = _channels(name, layers, params)
        found: Shape | None = None
        for key, value in candidates.items():
            found = found or _extents(value, channels, f"meta.{key}", file)
        made[name] = found or (None, None, channels)
        if found is None:
            which = "its input" if len(names) == 1 else f"its input {name}"
            remarks.append(f"the file does not say the size of {which}; {why}")
    return made, remarks


def _listed(inputs: Any) -> list[tuple[str, Any]]:
    """Name and size of each entry of `meta.inputs`."""
    entries = [inputs] if isinstance(inputs, Mapping) else inputs if isinstance(inputs, list) else []
    named = [entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)]
    return [(entry["name"], entry.get("size")) for entry in named]


def _extents(value: Any, channels: int | None, where: str, file: str) -> Shape | None:
    """(h, w, c) of a size with two, three or four extents; None where it is no size."""
    if value is None:
        return None
    try:
        extents = numbers(value)
    except ValueError:
        raise BadFile(file, f"its {where} is not a vector of numbers") from None
    if len(extents) not in (2, 3, 4) or any(not v.is_integer() or not 1 <= v < 1e6 for v in extents[:3]):
        return None
    return (int(extents[0]), int(extents[1]), int(extents[2]) if len(extents) > 2 else channels)


def _channels(name: str, layers: Sequence[Layer], params: Mapping[str, Param]) -> tuple[int | None, str]:
    """An input's channels, by the first layer that has an opinion on them and is reached without changing them."""
    same = {name}
    for layer in layers:
        if same.isdisjoint(layer.inputs):
            continue
        shapes = {role: params[id_].shape for role, id_ in layer.params.items()}
        wanted = layer.kind.input_channels(shapes)
        if wanted is not None and isinstance(layer.kind, Conv):
            return wanted, f"its first filters are {wanted} deep, and one group is assumed"
        if wanted is not None:
            return wanted, f"{layer.name} says its channels"
        if not isinstance(layer.kind, Opaque) and len(layer.inputs) == 1:
            same.update(layer.outputs)
    return None, "nor does a layer"


def times(extents: Iterable[Any]) -> str:
    """A shape as `28×28×3`, open extents as `?`."""
    return "×".join("?" if n is None else str(int(n)) for n in extents) or "a number"
