"""Right ports in other spellings: each must match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bench.faults.scene import Scene, new_scene, pick
from bench.faults.spelling import Spelling, parts
from bench.faults.zoo import NETS

Rng = np.random.Generator
Change = Callable[[Scene, Rng], None]
CLEAN: list[tuple[str, str, Callable[[Rng], Scene]]] = []
"""(name, net, maker)"""


def clean(name: str, nets: str, *changes: Change, images: int = 8, **options: Any) -> None:
    """Add a clean twin for each net."""
    for net in nets.split():
        CLEAN.append((name, net, _maker(net, changes, images, options)))


def _maker(net: str, changes: tuple[Change, ...], images: int, options: dict[str, Any]) -> Callable[[Rng], Scene]:
    def make(rng: Rng) -> Scene:
        scene = new_scene(NETS[net](rng), rng, images=images, **options)
        for change in changes:
            change(scene, rng)
        return scene

    return make


def spelled(**words: Any) -> Change:
    """A change of spelling."""
    return lambda scene, rng: scene.spell(**words)


def stored(ending: str, module: str = "keras") -> Change:
    """The port comes as a file."""

    def change(scene: Scene, rng: Rng) -> None:
        scene.storage = ending
        scene.spell(module=module)

    return change


CHAINS = "lenet alex normalised"
GRAPHS = "residual inception two_heads"
ALL = f"{CHAINS} {GRAPHS} square strided"

clean("plain", ALL)
clean("eval", ALL, mode="eval")
clean("own weights", "lenet normalised inception", weights="own")
clean("own weights, eval", "alex residual", weights="own", mode="eval")

# --------------------------------------------------------------------------------------------------- what it is made of

clean("sequential", "lenet normalised", spelled(container="sequential"))
clean("nested", "alex residual", spelled(container="nested"))
clean("subclassed", "lenet residual", spelled(container="subclassed"))
clean("fused, logits", "lenet inception", spelled(activation="fused", softmax="logits"))
clean("functions, same", "alex inception", spelled(activation="function", same=True))
clean("convolutions for dense", "alex normalised", spelled(dense=False, softmax="activation"))
clean("groups as slices", "alex inception", spelled(split=True))
clean("groups as slices, fused", "strided", spelled(split=True, activation="fused"))
clean("groups as slices, fused, nested", "strided graph", spelled(split=True, activation="fused", container="nested"))
clean("groups as slices, own weights", "alex", spelled(split=True), weights="own")
clean("names of Keras' own", "normalised residual inception", spelled(named=False))
clean("one-hot labels", "lenet residual", spelled(onehot=True))
clean("softmax in the last layer", "normalised inception", spelled(softmax="fused", penalty="L1L2"))
clean("averages as poolings", "residual", spelled(pooled=False))
clean("tf_keras", "lenet normalised residual", spelled(module="tf_keras"))
clean("tf_keras, nested", "inception", spelled(module="tf_keras", container="nested", activation="fused"))
clean(".keras", "lenet residual inception", stored("keras"))
clean(".keras, own weights", "normalised", stored("keras"), weights="own")
clean(".h5", "normalised two_heads", stored("h5"))
clean(".h5 of tf_keras", "lenet residual", stored("h5", "tf_keras"))
clean(".h5 of tf_keras, own weights", "normalised", stored("h5", "tf_keras"), weights="own")


def _renamed(scene: Scene, rng: Rng) -> None:
    """Names that mislead: those of the reference, dealt anew among layers of a kind."""
    for kind in ("conv", "relu", "bnorm"):
        names = [node.name for node in scene.port.of(kind)]
        dealt = dict(zip(names, rng.permutation(names), strict=True))
        nodes = [
            replace(
                node,
                name=str(dealt.get(node.name, node.name)),
                inputs=tuple(str(dealt.get(name, name)) for name in node.inputs),
            )
            for node in scene.port.nodes
        ]
        scene.port = replace(scene.port, nodes=tuple(nodes))


def _reordered(scene: Scene, rng: Rng) -> None:
    """Nodes made in another order, and the parts of sums the other way round."""
    done, left, nodes = {"data"}, list(scene.port.nodes), []
    while left:
        ready = [node for node in left if set(node.inputs) <= done and node.kind != "loss"] or left
        node = pick(ready, rng)
        left.remove(node)
        done.add(node.name)
        nodes.append(replace(node, inputs=node.inputs[::-1]) if node.kind == "sum" else node)
    scene.port = replace(scene.port, nodes=tuple(nodes))


clean("names dealt anew", "lenet normalised", _renamed)
clean("made in another order", "residual inception", _reordered)
clean("another order, Keras' own names", "inception residual two_heads", _reordered, spelled(named=False))


def _unused_pad(scene: Scene, rng: Rng) -> None:
    """Without the cells at the end that a stride never reaches."""
    for node in scene.ref.of("conv", lambda n: n.fields["stride"] == (2, 2) and all(n.fields["pad"])):
        top, _, left, _ = node.fields["pad"]
        scene.edit(node.name, pad=(top, top - 1, left, left - 1))


clean("without the pad that is never reached", "residual", _unused_pad)

# ---------------------------------------------------------------------------------------------------- how it is trained


def trained(ref: dict[str, Any], **keras: Any) -> Change:
    """Another recipe on both sides: fields of `Recipe`, options of SGD."""

    def change(scene: Scene, rng: Rng) -> None:
        scene.ref = replace(scene.ref, recipe=replace(scene.ref.recipe, **ref))
        scene.port = replace(scene.port, recipe=scene.ref.recipe)
        scene.train(decay=scene.ref.recipe.decay)
        scene.optimize(**keras)

    return change


def solved(solver: str, options: dict[str, float], name: str, module: str = "keras", **keras: Any) -> Change:
    """A solver of `examples/+solver` and the optimizer that is the same."""

    def change(scene: Scene, rng: Rng) -> None:
        given = {**scene.ref.recipe.options, "solver": solver, "solverOpts": options}
        scene.ref = replace(scene.ref, recipe=replace(scene.ref.recipe, options=given))
        scene.spell(module=module)
        scene.train(optimizer=name, options=keras)

    return change


def multiplied(scene: Scene, rng: Rng) -> None:
    """Rates per parameter, which the port's own optimizer class keeps."""
    rates: dict[str, float] = {}
    for node in scene.ref.of("conv", lambda n: n.fields["bias"]):
        pair = (1.0, 2.0) if rng.random() < 0.7 else (10.0, 20.0)
        scene.ref = scene.ref.edited(node.name, learningRate=pair)
        rates |= {f"{node.name}.{part}": rate for part, rate in zip(parts(node), pair, strict=True) if rate != 1}
    scene.train(rates=rates)


def undecayed(scene: Scene, rng: Rng) -> None:
    """Weight decay for filters only, on both sides."""
    for node in scene.ref.of("conv"):
        scene.ref = scene.ref.edited(node.name, weightDecay=(1.0, 0.0))
    scene.train(undecayed=frozenset(f"{n.name}.bias" for n in scene.ref.of("conv")))


def frozen(scene: Scene, rng: Rng) -> None:
    """One layer that learns on neither side."""
    node = pick(scene.ref.of("conv", lambda n: n.fields["bias"]), rng)
    scene.ref = scene.ref.edited(node.name, learningRate=(0.0, 0.0))
    scene.train(frozen=frozenset({node.name}))


def uncompiled(scene: Scene, rng: Rng) -> None:
    """A port that says nothing of training."""
    scene.compiled = False


RATES = {"beta1": 0.9, "beta2": 0.999}
clean("nesterov", "lenet residual", trained({"options": {"nesterovUpdate": True}}, nesterov=True))
clean("no momentum", "alex", trained({"momentum": 0.0}, momentum=0.0))
clean("no decay", "normalised", trained({"decay": 0.0}))
clean("large decay and rate", "lenet", trained({"decay": 0.05, "rate": 0.1}, learning_rate=0.1))
clean("rates per parameter", "lenet alex inception", multiplied)
clean("rates per parameter, tf_keras", "lenet", multiplied, spelled(module="tf_keras"))
clean("filters decay only", "lenet inception", undecayed)
clean("a frozen layer", "alex", frozen)
clean("uncompiled", "normalised", uncompiled, spelled(softmax="logits"))
clean("Adam", "lenet residual", solved("adam", {**RATES, "eps": 1e-7}, "Adam", learning_rate=0.01, epsilon=1e-7))
clean(
    "legacy RMSprop",
    "lenet",
    solved(
        "rmsprop",
        {"epsilon": 1e-6, "rho": 0.9},
        "legacy.RMSprop",
        "tf_keras",
        learning_rate=0.01,
        rho=0.9,
        epsilon=1e-6,
    ),
)
clean(
    "Adadelta",
    "normalised",
    solved("adadelta", {"epsilon": 1e-6, "rho": 0.9}, "Adadelta", learning_rate=1.0, rho=0.9, epsilon=1e-6),
)

# ------------------------------------------------------------------------------------------------------- what it is fed


def scaled(factor: float) -> Change:
    """Images of another size."""

    def change(scene: Scene, rng: Rng) -> None:
        assert scene.batch is not None
        scene.batch["x"] *= np.float32(factor)

    return change


def without_batch(scene: Scene, rng: Rng) -> None:
    """Parity makes one."""
    scene.batch = None


def unlabelled(scene: Scene, rng: Rng) -> None:
    """Images only."""
    assert scene.batch is not None
    scene.batch = {"x": scene.batch["x"]}


def low_variance(scene: Scene, rng: Rng) -> None:
    """A channel that hardly varies before its batch normalisation."""
    for node in scene.ref.of("conv"):
        if any(n.kind == "bnorm" and n.inputs == (node.name,) for n in scene.ref.nodes):
            filters = node.weights[0].copy()
            filters[..., 0] *= 1e-3
            weights = [filters, *node.weights[1:]]
            scene.ref, scene.port = (net.edited(node.name, weights=weights) for net in (scene.ref, scene.port))


def saturated(scene: Scene, rng: Rng) -> None:
    """Logits so large that the softmax is one or zero."""
    node = scene.ref[scene.ref["loss"].inputs[0]]
    weights = [node.weights[0] * 60, *node.weights[1:]]
    scene.ref, scene.port = (net.edited(node.name, weights=weights) for net in (scene.ref, scene.port))


def of_many_sizes(scene: Scene, rng: Rng) -> None:
    """Each image of another size, from a hundredth to a hundred."""
    assert scene.batch is not None
    sizes = np.geomspace(1e-2, 1e2, len(scene.batch["x"])).astype(np.float32)
    scene.batch["x"] *= sizes[:, None, None, None]


def repeated(scene: Scene, rng: Rng) -> None:
    """The same image again and again."""
    assert scene.batch is not None
    scene.batch["x"][1:] = scene.batch["x"][0]


def blank(scene: Scene, rng: Rng) -> None:
    """One image of zeros, and one that is zero on one side: rectifiers at exactly zero."""
    assert scene.batch is not None
    scene.batch["x"][0] = 0
    scene.batch["x"][1, :, : scene.ref.size[1] // 2] = 0


def zeros(scene: Scene, rng: Rng) -> None:
    """Images of zeros alone."""
    assert scene.batch is not None
    scene.batch["x"][:] = 0


def constant(scene: Scene, rng: Rng) -> None:
    """Filters of zeros: channels that do not vary at all before their batch normalisation."""
    for node in scene.ref.of("conv", lambda n: not n.fields.get("full")):
        filters = node.weights[0].copy()
        filters[..., :2] = 0
        weights = [filters, *node.weights[1:]]
        scene.ref, scene.port = (net.edited(node.name, weights=weights) for net in (scene.ref, scene.port))


def unbiased(scene: Scene, rng: Rng) -> None:
    """Biases of zero, as nets begin: behind an empty place everything is exactly zero."""
    for node in scene.ref.of("conv", lambda n: n.fields["bias"]):
        weights = [node.weights[0], np.zeros_like(node.weights[1])]
        scene.ref, scene.port = (net.edited(node.name, weights=weights) for net in (scene.ref, scene.port))


def whole_numbers(scene: Scene, rng: Rng) -> None:
    """Pixels from 0 to 255 in whole numbers: maxima tie."""
    assert scene.batch is not None
    scene.batch["x"] = rng.integers(0, 256, scene.batch["x"].shape).astype(np.float32)


def _reads(scene: Scene, name: str) -> list[Any]:
    return [n for n in scene.ref.nodes if name in n.inputs]


def hidden_permuted(scene: Scene, rng: Rng) -> None:
    """Every hidden layer that one other reads has its channels in another order, which that one follows."""
    shapes, depth = scene.ref.shapes(), len(scene.ref.nodes)
    orders: dict[str, np.ndarray] = {}
    for node in scene.ref.of("conv"):
        path, at = [], node.name
        for _ in range(depth):
            readers = _reads(scene, at)
            if len(readers) != 1 or readers[0].kind not in ("relu", "sigmoid", "bnorm", "pool", "dropout", "conv"):
                break
            path.append(readers[0])
            at = readers[0].name
            if readers[0].kind == "conv":
                break
        if not path or path[-1].kind != "conv" or path[-1].weights[0].shape[2] != shapes[node.name][2]:
            continue
        if scene.ref.source(node.name)[2] != node.weights[0].shape[2]:
            continue
        order = rng.permutation(shapes[node.name][2])
        orders[node.name] = order
        _hold(scene, node.name, lambda a, order=order: [v[..., order] for v in a])
        for passed in path[:-1]:
            if passed.kind == "bnorm":
                _hold(scene, passed.name, lambda a, order=order: [v[order] for v in a])
        _hold(scene, path[-1].name, lambda a, order=order: [_follow(a[0], order), *a[1:]])
    assert orders, "no layer whose channels could be permuted"


def _hold(scene: Scene, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    before = scene.held.get(name, lambda arrays: arrays)
    scene.held[name] = lambda arrays: change(before(arrays))


def _follow(kernel: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Filters (h, w, i, o), or those of a flattened map (h·w·i, o), that read channels in this order."""
    places = kernel.shape[-2] // len(order)
    rows = (np.arange(places)[:, None] * len(order) + order).ravel()
    return np.take(kernel, rows, axis=-2)


clean("hidden channels permuted", "lenet normalised residual square", hidden_permuted, weights="own")
clean("hidden channels permuted, eval", "alex inception", hidden_permuted, weights="own", mode="eval")
clean("hidden channels permuted, .keras", "normalised", hidden_permuted, stored("keras"), weights="own")
clean("minute images", "lenet residual", scaled(1e-6))
clean("enormous images", "alex normalised", scaled(1e4))
clean("images of many sizes", "inception residual", of_many_sizes)
clean("the same image again", "normalised lenet", repeated)
clean("zeros", "normalised inception", zeros)
clean("zeros, no biases", "lenet residual", unbiased, zeros)
clean("constant channels", "normalised residual alex", constant)
clean("blank images", "alex residual", unbiased, blank)
clean("whole numbers", "lenet inception alex", whole_numbers)
clean("whole numbers, no biases", "square strided", unbiased, whole_numbers)
clean("one image, deep", "deep", images=1)
clean(
    "minute images, Adam",
    "lenet",
    scaled(1e-6),
    solved("adam", {**RATES, "eps": 1e-7}, "Adam", learning_rate=0.01, epsilon=1e-7),
)
clean("enormous images, own weights", "residual", scaled(1e4), weights="own")
clean("without a batch", "lenet residual alex", without_batch)
clean("without a batch, eval", "inception", without_batch, mode="eval")
clean("without labels", "normalised", unlabelled)
clean("tiny images", "alex inception", scaled(1e-3))
clean("huge images", "lenet residual", scaled(255))
clean("one image", "lenet inception", images=1)
clean("channels of little variance", "normalised residual", low_variance)
clean("saturated softmax", "lenet", saturated)
clean("saturated softmax, logits", "inception", saturated, spelled(softmax="logits"))
clean("five steps", "residual", steps=5)

# ---------------------------------------------------------------------------------------------------------- many others


def any_spelling(scene: Scene, rng: Rng) -> None:
    """Any mixture that goes together."""
    chain = all(len(n.inputs) == 1 for n in scene.ref.nodes) and len(scene.ref.of("loss")) == 1

    def one(*words: Any) -> Any:
        return words[int(rng.integers(len(words)))]

    container = one("functional", "nested", *(["sequential"] if chain else []))
    scene.spelling = Spelling(
        container=container,
        activation=one("layer", "function", "fused"),
        dense=one(True, False),
        softmax=one("layer", "activation", "fused", "logits"),
        same=one(True, False),
        split=one(True, False) and container != "sequential",
        pooled=one(True, False),
        named=one(True, False),
        penalty=one("L2", "L1L2"),
        onehot=one(True, False) and len(scene.ref.of("loss")) == 1,
    )
    scene.options["mode"] = one("train", "train", "eval")
    scene.options["weights"] = one("ref", "ref", "own")


for _at in range(8):
    clean(f"any {_at}", "chain graph", any_spelling)
clean("any", "alex deep residual inception", any_spelling)
for _at in range(3):
    clean(f"deep {_at}", "deep")
for _at in range(4):
    clean(f"any, whole numbers {_at}", "chain graph", any_spelling, whole_numbers)
    clean(f"any, of many sizes {_at}", "chain graph", any_spelling, of_many_sizes)
clean("real widths", "broad")
clean("real widths, eval, own weights", "broad", mode="eval", weights="own")
clean("wide", "wide")
clean("wide, as it comes", "wide", any_spelling)
