"""The port's own weights: laid out otherwise, swapped, scaled, stale."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.faults.nets import Array, Node
from bench.faults.planted.base import Plant, Rng, fault, grouped, touched
from bench.faults.scene import NotHere, Scene, pick

Change = Callable[[list[Array], Node, Rng], list[Array]]


def held(cause: str, kind: str, change: Change, fits: Callable[[Node, Scene], bool] = lambda n, s: True) -> Plant:
    """A fault in the arrays of one Keras layer.

    Args:
        cause: its slugs.
        kind: of the node.
        change: given the layer's arrays, the node and a generator, gives those to hold.
        fits: which nodes will do.
    """

    def plant(scene: Scene, rng: Rng) -> None:
        node = pick([n for n in scene.ref.of(kind) if fits(n, scene) and n.name not in touched(scene)], rng)
        before = scene.held.get(node.name, lambda arrays: arrays)
        seed = int(rng.integers(2**31))
        scene.held[node.name] = lambda arrays: change(
            [np.array(a) for a in before(arrays)], node, np.random.default_rng(seed)
        )
        scene.plant(cause, "weights", node.name)

    return plant


def _square(node: Node, scene: Scene) -> bool:
    h, w = node.weights[0].shape[:2]
    return h == w > 1 and not node.fields.get("full")


def _covering(node: Node, scene: Scene) -> bool:
    return bool(node.fields.get("full")) and min(node.weights[0].shape[:2]) > 1


def _cube(kernel: Array, node: Node) -> Array:
    return kernel.reshape(node.weights[0].shape)


OWN = {"weights": "own"}

# -------------------------------------------------------------------------------------------------------------- layouts

flip = held("kernel-flip", "conv", lambda a, n, r: [a[0][::-1, ::-1], *a[1:]], _square)
fault("kernel-flip", "rotated by 180°", "lenet alex residual", flip, **OWN)
fault("kernel-flip", "eval", "inception", flip, mode="eval", **OWN)


def _nearly(cause: str, turn: Callable[[Array], Array]) -> Plant:
    """A layout of filters that it nearly leaves as they are: 1e-4 of them changes."""

    def plant(scene: Scene, rng: Rng) -> None:
        node = pick([n for n in scene.ref.of("conv") if _square(n, scene)], rng)
        kernel = node.weights[0]
        even, odd = (kernel + turn(kernel)) / 2, (kernel - turn(kernel)) / 2
        weights = ((even + np.float32(1e-4) * odd).astype(np.float32), *node.weights[1:])
        scene.ref, scene.port = (net.edited(node.name, weights=weights) for net in (scene.ref, scene.port))
        scene.held[node.name] = lambda a: [turn(a[0]), *a[1:]]
        scene.plant(cause, "weights", node.name)

    return plant


fault("kernel-flip", "nearly symmetric", "lenet alex", _nearly("kernel-flip", lambda k: k[::-1, ::-1]), **OWN)

transpose = held("kernel-hw-transpose", "conv", lambda a, n, r: [a[0].swapaxes(0, 1), *a[1:]], _square)
fault("kernel-hw-transpose", "height and width", "lenet inception normalised", transpose, **OWN)
fault(
    "kernel-hw-transpose",
    "nearly symmetric",
    "residual",
    _nearly("kernel-hw-transpose", lambda k: k.swapaxes(0, 1)),
    mode="eval",
    **OWN,
)


def _as_many(node: Node, scene: Scene) -> bool:
    return node.weights[0].shape[2] == node.weights[0].shape[3] and min(node.weights[0].shape[:2]) >= 1


def _in_for_out(arrays: list[Array], node: Node, rng: Rng) -> list[Array]:
    return [arrays[0].swapaxes(-1, -2), *arrays[1:]]


fault(
    "kernel-io-transpose",
    "convolution",
    "square residual",
    held("kernel-io-transpose", "conv", _in_for_out, lambda n, s: _as_many(n, s) and not n.fields.get("full")),
    **OWN,
)
fault(
    "kernel-io-transpose",
    "dense",
    "square",
    held("kernel-io-transpose", "conv", _in_for_out, lambda n, s: _as_many(n, s) and bool(n.fields.get("full"))),
    **OWN,
)


def _flattened(order: tuple[int, int, int, int]) -> Change:
    return lambda a, n, r: [_cube(a[0], n).transpose(order).reshape(a[0].shape), *a[1:]]


fault(
    "flatten-order",
    "column-major",
    "lenet alex inception",
    held("flatten-order", "conv", _flattened((1, 0, 2, 3)), _covering),
    **OWN,
)
fault(
    "flatten-order",
    "channels first",
    "lenet normalised",
    held("flatten-order", "conv", _flattened((2, 0, 1, 3)), _covering),
    **OWN,
)

# --------------------------------------------------------------------------------------------------------- permutations


def _first(node: Node, scene: Scene) -> bool:
    return node.inputs[0] == "data"


fault(
    "channel-order",
    "first layer's inputs reversed",
    "lenet residual",
    held("channel-order input-channel-order", "conv", lambda a, n, r: [a[0][:, :, ::-1], *a[1:]], _first),
    **OWN,
)


def _swap_halves(array: Array, axis: int) -> Array:
    return np.roll(array, array.shape[axis] // 2, axis)


fault(
    "channel-order",
    "groups of filters",
    "alex inception",
    held(
        "channel-order",
        "conv",
        lambda a, n, r: [_swap_halves(v, v.ndim - 1) for v in a],
        lambda n, s: n in grouped(s),
    ),
    **OWN,
)


def _branches(scene: Scene, rng: Rng) -> None:
    """The first layer with weights behind a concatenation reads the branches in another order."""
    join = pick(scene.ref.of("concat"), rng)
    shapes = scene.ref.shapes()
    sizes = [shapes[name][2] for name in join.inputs]
    node = next((n for n in scene.ref.nodes if n.kind == "scale" and n.inputs == (join.name,)), None)
    if node is None:
        raise NotHere
    blocks = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    order = np.concatenate([blocks[i] for i in (1, 0, *range(2, len(blocks)))])
    scene.held[node.name] = lambda a: [a[0][:, :, order], a[1][order]]
    scene.plant("channel-order", "weights", node.name)


fault("channel-order", "branches", "inception", _branches, **OWN)


def _permuted_outputs(arrays: list[Array], node: Node, rng: Rng) -> list[Array]:
    order = rng.permutation(arrays[0].shape[-1])
    return [a[..., order] for a in arrays]


fault(
    "channel-order",
    "filters permuted",
    "lenet",
    held("channel-order", "conv", _permuted_outputs, lambda n, s: _square(n, s)),
    **OWN,
)


def _within_a_group(arrays: list[Array], node: Node, rng: Rng) -> list[Array]:
    """The filters of the first group in another order."""
    half = arrays[0].shape[-1] // 2
    order = np.concatenate([np.roll(rng.permutation(half), 1), np.arange(half, 2 * half)])
    order[:half] = np.roll(np.arange(half), 1 + int(rng.integers(half - 1)))
    return [a[..., order] for a in arrays]


def _whole_layer(arrays: list[Array], node: Node, rng: Rng) -> list[Array]:
    """All vectors of a layer in one other order."""
    order = np.roll(rng.permutation(arrays[0].shape[-1]), 1)
    if np.array_equal(order, np.arange(len(order))):
        order = order[::-1]
    return [a[..., order] for a in arrays]


fault(
    "channel-order",
    "within a group",
    "alex inception",
    held("channel-order", "conv", _within_a_group, lambda n, s: n in grouped(s)),
    **OWN,
)
fault(
    "channel-order",
    "normalisation permuted",
    "normalised residual",
    held("channel-order", "bnorm", _whole_layer),
    **OWN,
)
fault(
    "channel-order",
    "filters permuted, random net",
    "chain graph",
    held("channel-order", "conv", _whole_layer, lambda n, s: _square(n, s) and n not in grouped(s)),
    mode="eval",
    **OWN,
)

# --------------------------------------------------------------------------------------------------------------- values


def scaled(factor: float) -> Plant:
    """All filters times a factor."""
    return held("weights-scaled", "conv", lambda a, n, r: [(a[0] * factor).astype(np.float32), *a[1:]])


fault("weights-scaled", "1.01", "lenet residual", scaled(1.01), **OWN)
fault("weights-scaled", "1.0001", "alex", scaled(1.0001), **OWN)
fault("weights-scaled", "1.00007", "chain graph", scaled(1.00007), **OWN)
fault("weights-scaled", "1/255", "inception", scaled(1 / 255), **OWN)
fault("weights-scaled", "−1", "normalised", scaled(-1.0), mode="eval", **OWN)


def _element(arrays: list[Array], node: Node, rng: Rng) -> list[Array]:
    """One element is off by a thousandth of the filters' size."""
    at = tuple(s // 2 for s in arrays[0].shape)
    arrays[0][at] += np.float32(1e-3 * np.sqrt(np.mean(arrays[0] ** 2)))
    return arrays


def _noise(size: float) -> Change:
    def change(arrays: list[Array], node: Node, rng: Rng) -> list[Array]:
        noise = rng.standard_normal(arrays[0].shape) * size * arrays[0].std()
        return [(arrays[0] + noise).astype(np.float32), *arrays[1:]]

    return change


def _other(arrays: list[Array], node: Node, rng: Rng) -> list[Array]:
    noise = rng.standard_normal(arrays[0].shape) * arrays[0].std()
    return [noise.astype(np.float32), *arrays[1:]]


fault("weights-differ", "one element", "lenet residual inception", held("weights-differ", "conv", _element), **OWN)
fault("weights-differ", "stale", "alex normalised", held("weights-differ", "conv", _noise(0.05)), **OWN)
fault("weights-differ", "stale by 1e-4", "lenet chain", held("weights-differ", "conv", _noise(1e-4)), **OWN)
fault("weights-differ", "initialised anew", "residual", held("weights-differ", "conv", _other), mode="eval", **OWN)


def _biased(node: Node, scene: Scene) -> bool:
    return bool(node.fields["bias"])


bias = held("bias-value", "conv", lambda a, n, r: [a[0], a[1] + 0.1], _biased)
fault("bias-value", "plus 0.1", "lenet inception", bias, **OWN)
fault("bias-value", "zero", "alex", held("bias-value", "conv", lambda a, n, r: [a[0], a[1] * 0], _biased), **OWN)


def _bias_element(arrays: list[Array], node: Node, rng: Rng) -> list[Array]:
    arrays[1][0] *= np.float32(1.001)
    return arrays


fault("bias-value", "one element by 1e-3", "normalised", held("bias-value", "conv", _bias_element, _biased), **OWN)

# -------------------------------------------------------------------------------------------------- batch normalisation


def _deviation(arrays: list[Array], node: Node, rng: Rng) -> list[Array]:
    return [*arrays[:3], node.weights[2][:, 1]]


for _mode in ("train", "eval"):
    fault(
        "bn-sigma-as-variance",
        _mode,
        "normalised residual",
        held("bn-sigma-as-variance", "bnorm", _deviation),
        mode=_mode,
        **OWN,
    )
fault(
    "bn-mean-var-swapped",
    "eval",
    "normalised residual",
    held("bn-mean-var-swapped", "bnorm", lambda a, n, r: [a[0], a[1], a[3], a[2]]),
    mode="eval",
    **OWN,
)
fault(
    "bn-gamma-beta-swapped",
    "train",
    "normalised residual",
    held("bn-gamma-beta-swapped", "bnorm", lambda a, n, r: [a[1], a[0], *a[2:]]),
    **OWN,
)
fault(
    "bn-mean-var-swapped",
    "train",
    "normalised",
    held("bn-mean-var-swapped", "bnorm", lambda a, n, r: [a[0], a[1], a[3], a[2]]),
    **OWN,
)
