"""Convolutions and poolings: pads, strides, dilation, groups, biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.faults.nets import Node, same_pad
from bench.faults.planted.base import Plant, Rng, fault, grouped
from bench.faults.scene import NotHere, Scene, pick

# --------------------------------------------------------------------------------------------------------- convolutions


def dense_for_groups(scene: Scene, rng: Rng) -> None:
    """One filter bank over all channels."""
    node = pick(grouped(scene), rng)
    depth = scene.ref.source(node.name)[2]
    filters = np.zeros((*node.weights[0].shape[:2], depth, node.weights[0].shape[3]), np.float32)
    scene.port = scene.port.edited(node.name, weights=(filters, *node.weights[1:]))
    scene.plant("conv-groups", "structure", node.name)


fault("conv-groups", "dense where grouped", "alex inception", dense_for_groups)


def _conv_field(cause: str, phase: str, change: Callable[[Node, Scene], dict[str, Any] | None]) -> Plant:
    def plant(scene: Scene, rng: Rng) -> None:
        places = [(n, c) for n in scene.ref.of("conv") if (c := change(n, scene)) is not None and _holds(scene, n, c)]
        if not places:
            raise NotHere
        node, fields = places[int(rng.integers(len(places)))]
        before = scene.ref.shapes()[node.name]
        scene.edit(node.name, **fields)
        same = before == scene.port.shapes()[node.name]
        if (phase == "forward") != same:
            raise NotHere
        scene.plant(cause, phase, node.name)

    return plant


def _holds(scene: Scene, node: Node, fields: dict[str, Any]) -> bool:
    """Whether the port's shapes stay positive and branches still fit."""
    try:
        shapes = scene.port.edited(node.name, **fields).shapes()
    except (ValueError, IndexError):
        return False
    for n in scene.port.nodes:
        if n.kind in ("sum", "concat") and len({shapes[i][:2] for i in n.inputs}) > 1:
            return False
    return all(min(size) > 0 for size in shapes.values())


def shift(node: Node, scene: Scene) -> dict[str, Any] | None:
    """As many cells on other sides: what `same` does, or the middle of what is not."""
    pad = tuple(node.fields["pad"])
    if not any(pad):
        return None
    total = (pad[0] + pad[1], pad[2] + pad[3])
    middle = (total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2)
    other = middle if middle != pad else (pad[0] + 1, pad[1] - 1, *pad[2:]) if pad[1] else None
    return None if other is None else {"pad": other}


shifted = _conv_field("padding-asymmetric", "forward", shift)
fault("padding-asymmetric", "other sides", "alex normalised residual inception chain", shifted)


def _same_for_symmetric(node: Node, scene: Scene) -> dict[str, Any] | None:
    if node.fields["stride"] == (1, 1) or not any(node.fields["pad"]):
        return None
    size = scene.ref.source(node.name)
    pad = same_pad(size, node.weights[0].shape[:2], node.fields["stride"])
    return {"pad": pad} if pad != tuple(node.fields["pad"]) else None


fault(
    "padding-asymmetric",
    "same for symmetric, stride 2",
    "residual",
    _conv_field("padding-asymmetric padding-size", "forward", _same_for_symmetric),
)


def _no_pad(node: Node, scene: Scene) -> dict[str, Any] | None:
    return {"pad": (0, 0, 0, 0)} if any(node.fields["pad"]) else None


fault("padding-size", "none", "alex normalised square", _conv_field("padding-size", "structure", _no_pad))


def less_pad(node: Node, scene: Scene) -> dict[str, Any] | None:
    """One cell less on every side, which the stride hides from the shape."""
    pad = tuple(node.fields["pad"])
    return {"pad": tuple(p - 1 for p in pad)} if all(pad) else None


def less_above(node: Node, scene: Scene) -> dict[str, Any] | None:
    """One cell less above and on the left."""
    pad = tuple(node.fields["pad"])
    return {"pad": (pad[0] - 1, pad[1], pad[2] - 1, pad[3])} if all(pad) else None


fault("padding-size", "one less, same shape", "strided", _conv_field("padding-size", "forward", less_pad))
fault(
    "padding-size", "one less above", "residual", _conv_field("padding-size padding-asymmetric", "forward", less_above)
)


def _stride_to(value: int) -> Callable[[Node, Scene], dict[str, Any] | None]:
    return lambda n, s: {"stride": (value, value)} if n.fields["stride"] != (value, value) else None


fault("conv-stride", "1 for 2", "alex normalised", _conv_field("conv-stride", "structure", _stride_to(1)))
fault("conv-stride", "2 for 1", "square", _conv_field("conv-stride", "structure", _stride_to(2)))


def _undilated_same(node: Node, scene: Scene) -> dict[str, Any] | None:
    return {"dilate": (1, 1), "pad": (1, 1, 1, 1)} if node.fields["dilate"] != (1, 1) else None


def conv_dilation(scene: Scene, rng: Rng) -> None:
    """Another dilation, and the pad that goes with it."""
    _conv_field("conv-dilation", "forward", _undilated_same)(scene, rng)
    scene.true.add("padding-size")


fault("conv-dilation", "1 for 2, same shape", "inception", conv_dilation)


def _no_bias(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("conv", lambda n: n.fields["bias"]), rng)
    scene.edit(node.name, bias=False)
    scene.port = scene.port.edited(node.name, weights=node.weights[:1])
    scene.plant("bias-missing", "structure", node.name)


fault("bias-missing", "use_bias=False", "lenet alex inception", _no_bias)

# ------------------------------------------------------------------------------------------------------------- poolings


def _pool_field(cause: str, change: Callable[[Node, Scene], dict[str, Any] | None], phase: str | None = None) -> Plant:
    def plant(scene: Scene, rng: Rng) -> None:
        places = [(n, c) for n in scene.ref.of("pool") if (c := change(n, scene)) is not None and _holds(scene, n, c)]
        if not places:
            raise NotHere
        node, fields = places[int(rng.integers(len(places)))]
        scene.edit(node.name, **fields)
        same = scene.ref.shapes()[node.name] == scene.port.shapes()[node.name]
        scene.plant(cause, phase or ("forward" if same else "structure"), node.name)

    return plant


def _other_method(node: Node, scene: Scene) -> dict[str, Any] | None:
    if node.fields["method"] == "max":
        return {"method": "avg"}
    return {"method": "max"}


def floor(node: Node, scene: Scene) -> dict[str, Any] | None:
    """Floor where the reference rounds up, which it says by padding the end."""
    pad = tuple(node.fields["pad"])
    return {"pad": (0, 0, 0, 0)} if any(pad) and pad[0] == pad[2] == 0 else None


def _ceil(node: Node, scene: Scene) -> dict[str, Any] | None:
    if any(node.fields["pad"]):
        return None
    pad = same_pad(scene.ref.source(node.name), node.fields["size"], node.fields["stride"])
    return {"pad": pad} if pad[0] == pad[2] == 0 and any(pad) else None


fault("pool-method", "max and avg", "lenet alex inception", _pool_field("pool-method", _other_method))
fault("pool-method", "eval", "residual", _pool_field("pool-method", _other_method), mode="eval")
fault("pool-ceil", "floor for ceil", "alex", _pool_field("pool-ceil", floor))
fault("pool-ceil", "ceil for floor", "lenet normalised", _pool_field("pool-ceil", _ceil))
fault(
    "pool-size",
    "one more",
    "lenet normalised",
    _pool_field(
        "pool-size", lambda n, s: {"size": (n.fields["size"][0] + 1,) * 2} if not any(n.fields["pad"]) else None
    ),
)
fault(
    "pool-stride",
    "one less",
    "lenet normalised",
    _pool_field(
        "pool-stride",
        lambda n, s: {"stride": (1, 1)} if n.fields["stride"][0] > 1 and not any(n.fields["pad"]) else None,
    ),
)


def pool_pad_value(scene: Scene, rng: Rng) -> None:
    """Zeros before a max pool whose inputs can be negative."""
    pools = [n for n in scene.ref.of("pool") if n.fields["method"] == "max" and any(n.fields["pad"])]
    node = pick([n for n in pools if scene.ref[n.inputs[0]].kind != "pool"], rng)
    source = scene.ref[node.inputs[0]]
    while source.kind == "lrn":
        source = scene.ref[source.inputs[0]]
    if source.kind == "relu":  # taken out of both sides, so that negatives come through
        scene.ref, scene.port = scene.ref.without(source.name), scene.port.without(source.name)
    scene.edit(node.name, zeros=True)
    scene.plant("pool-pad-value", "forward", node.name)


def pool_counts(scene: Scene, rng: Rng) -> None:
    """An average that counts the cells of the pad."""
    node = pick(scene.ref.of("pool", lambda n: n.fields["method"] == "avg" and any(n.fields["pad"])), rng)
    scene.edit(node.name, zeros=True)
    scene.plant("pool-avg-count-pad", "forward", node.name)


fault("pool-pad-value", "zeros", "inception alex", pool_pad_value)
fault("pool-avg-count-pad", "counts zeros", "alex inception two_heads", pool_counts)
