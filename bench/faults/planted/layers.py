"""Activations, dropout, softmax; layers that are missing, too many, or elsewhere; connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.faults.nets import Node
from bench.faults.planted.base import Plant, Rng, fault, field_edit, grouped
from bench.faults.scene import NotHere, Scene, pick

# ---------------------------------------------------------------------------------------------------------- activations


def slope(to: Callable[[float], float]) -> Plant:
    """Another slope for negatives."""
    return field_edit(
        "activation-slope", "relu", lambda n, s, r: {"leak": to(n.fields["leak"])}, fits=lambda n: n.fields["leak"] > 0
    )


LEAKY = "alex normalised residual inception square"
fault("activation-slope", "double", LEAKY, slope(lambda a: 2 * a))
fault("activation-slope", "times 1.001", "alex square chain graph", slope(lambda a: 1.001 * a))
fault("activation-slope", "times 1.0002", "normalised inception", slope(lambda a: 1.0002 * a))
fault("activation-slope", "eval", "residual", slope(lambda a: 3 * a), mode="eval")


def _leak_where_none(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("relu", lambda n: not n.fields["leak"]), rng)
    scene.edit(node.name, leak=0.01)
    scene.plant("activation-slope activation-kind", "forward", node.name)


fault("activation-slope", "leaky for plain", "lenet residual", _leak_where_none)


def _other_kind(kind: str) -> Plant:
    def plant(scene: Scene, rng: Rng) -> None:
        node = pick(scene.ref.of("relu"), rng)
        scene.port = scene.port.replaced(node.name, kind=kind)
        scene.plant("activation-kind", "forward", node.name)

    return plant


fault("activation-kind", "tanh for relu", "lenet residual", _other_kind("tanh"))
fault("activation-kind", "elu for relu", "alex inception", _other_kind("elu"))


def missing(cause: str, kind: str) -> Plant:
    """A layer of a kind is left out."""

    def plant(scene: Scene, rng: Rng) -> None:
        node = pick(scene.ref.of(kind), rng)
        scene.port = scene.port.without(node.name)
        scene.plant(cause, "structure", node.name)

    return plant


def _extra(cause: str, kind: str, behind: tuple[str, ...], **fields: Any) -> Plant:
    def plant(scene: Scene, rng: Rng) -> None:
        nodes = [n for n in scene.port.nodes if n.kind in behind and not _reads_loss(scene, n)]
        node = pick(nodes, rng)
        scene.port = scene.port.after(node.name, Node(f"extra_{kind}", kind, (), fields))
        scene.plant(cause, "structure", "")

    return plant


def _reads_loss(scene: Scene, node: Node) -> bool:
    return any(n.kind == "loss" and node.name in n.inputs for n in scene.port.nodes)


fault("activation-missing", "relu", "lenet residual inception", missing("activation-missing", "relu"))
fault("activation-missing", "sigmoid", "normalised square", missing("activation-missing", "sigmoid"))
fault("activation-missing", "eval", "alex", missing("activation-missing", "relu"), mode="eval")
fault("activation-extra", "tanh", "lenet residual", _extra("activation-extra", "tanh", ("pool", "bnorm")))
fault("activation-extra", "relu", "alex", _extra("activation-extra", "relu", ("lrn", "pool"), leak=0.3))

# -------------------------------------------------------------------------------------------- other layers, connections

fault("layer-missing", "bnorm", "normalised residual", missing("layer-missing", "bnorm"))
fault("layer-missing", "lrn", "alex", missing("layer-missing", "lrn"))
fault("layer-missing", "scale", "inception", missing("layer-missing", "scale"))
fault("dropout-missing", "dropout", "alex", missing("dropout-missing", "dropout"))
fault("layer-extra", "dropout", "lenet residual", _extra("layer-extra", "dropout", ("relu",), rate=0.5))


def _skip_missing(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("sum"), rng)
    scene.port = scene.port.without(node.name)
    kept = scene.port.nodes
    main = node.inputs[1]
    scene.port = replace(
        scene.port,
        nodes=tuple(replace(n, inputs=(main,)) if node.name in scene.ref[n.name].inputs else n for n in kept),
    )
    scene.port = _pruned(scene.port)
    kept = {n.name for n in scene.port.nodes}
    gone = [n.name for n in scene.ref.nodes if n.name not in kept]
    scene.plant("layer-missing", "structure", (node.name, *gone))


def _pruned(net: Any) -> Any:
    """Without what nothing reads."""
    while True:
        read = {name for n in net.nodes for name in n.inputs}
        dead = [n for n in net.nodes if n.kind != "loss" and n.name not in read]
        if not dead:
            return net
        net = replace(net, nodes=tuple(n for n in net.nodes if n not in dead))


fault("layer-missing", "skip connection", "residual", _skip_missing)


def swap_neighbours(first: str, second: str) -> Plant:
    """Two layers in a row, in the other order."""

    def plant(scene: Scene, rng: Rng) -> None:
        pairs = [
            (scene.ref[n.inputs[0]], n)
            for n in scene.ref.of(second)
            if n.inputs[0] != "data" and scene.ref[n.inputs[0]].kind == first
        ]
        if not pairs:
            raise NotHere
        a, b = pairs[int(rng.integers(len(pairs)))]
        without = scene.port.without(a.name)
        scene.port = without.after(b.name, a)
        scene.plant("layer-order", "structure", (a.name, b.name))

    return plant


fault("layer-order", "relu before bnorm", "normalised residual", swap_neighbours("bnorm", "relu"))
fault("layer-order", "pool before lrn", "alex", swap_neighbours("lrn", "pool"))


def _concat_order(scene: Scene, rng: Rng) -> None:
    node = pick(scene.ref.of("concat"), rng)
    order = [*node.inputs]
    order[0], order[2] = order[2], order[0]
    scene.port = scene.port.replaced(node.name, inputs=tuple(order))
    scene.plant("channel-order", "structure", node.name)


def _group_order(scene: Scene, rng: Rng) -> None:
    node = pick(grouped(scene), rng)
    scene.spell(split=True)
    scene.edit(node.name, group_order=(1, 0))
    scene.plant("channel-order", "structure forward", node.name)


fault("channel-order", "branches of a concat", "inception", _concat_order)
fault("channel-order", "groups", "alex inception", _group_order)

# ----------------------------------------------------------------------------------------------------- dropout, softmax

fault("dropout-rate", "0.4", "alex", field_edit("dropout-rate", "dropout", lambda n, s, r: {"rate": 0.4}))
fault("dropout-rate", "0.5001", "alex", field_edit("dropout-rate", "dropout", lambda n, s, r: {"rate": 0.5001}))


def _softmax_missing(scene: Scene, rng: Rng) -> None:
    scene.spell(softmax="logits")
    scene.train(loss={**scene.training.loss, "from_logits": False})
    scene.plant("softmax-missing", "loss", "loss")


def _softmax_twice(scene: Scene, rng: Rng) -> None:
    scene.spell(softmax="layer")
    head = scene.port["loss"].inputs[0]
    scene.port = scene.port.after(head, Node("probabilities", "softmax", ()))
    scene.plant("softmax-double", "structure", "")


fault("softmax-missing", "logits taken for probabilities", "lenet residual", _softmax_missing)
fault("softmax-double", "two softmax layers", "lenet inception", _softmax_twice)
