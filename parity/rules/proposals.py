"""What may be wrong with a layer whose fields do not say it: edits of the reference's layer that are worth a try.

A custom layer may hide anything behind its name, and a file may say one thing and its code do another. For each kind of
layer there are a few mistakes that people make; each is an edit, tried by `parity.experiments`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from parity.experiments import Edit, Experiment
from parity.layers import (
    LRN,
    Activation,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Kind,
    Loss,
    Merge,
    Pool,
    Rescale,
    Softmax,
)
from parity.rules.base import kernel_layouts, shown
from parity.rules.solving import output, rounded, smoothing, solved, target

__all__ = ["Proposal", "proposals"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Proposal:
    """A cause, and the edit of the reference that it amounts to.

    Attributes:
        cause: slug.
        words: what Keras does instead, in a sentence whose subject is the Keras layer.
        edit: of the reference.
        fix: the Keras line, empty where there is none.
        also: further causes that the edit amounts to.
        fitted: whether numbers of it were solved for, so that they depend on what else was edited.
    """

    cause: str
    words: str
    edit: Edit
    fix: str = ""
    also: tuple[str, ...] = ()
    fitted: bool = False


def proposals(experiment: Experiment, base: Edit | None = None) -> Iterator[Proposal]:
    """What is worth a try for this pair, the likeliest first.

    Args:
        experiment: of the pair.
        base: an edit on top of which they are tried: what is solved for is solved for there.
    """
    kind = experiment.kind
    if isinstance(kind, BatchNorm):
        yield from _batchnorm(experiment, kind, base)
    elif isinstance(kind, LRN):
        yield from _lrn(experiment, kind, base)
    elif isinstance(kind, Activation | Softmax):
        yield from _activation(experiment, kind)
    elif isinstance(kind, Pool):
        yield from _pool(experiment, kind)
    elif isinstance(kind, Conv | ConvTranspose | Dense):
        yield from _filters(experiment, kind, base)
    elif isinstance(kind, Concat):
        yield from _concat(experiment)
    elif isinstance(kind, Merge):
        yield from _merge(kind)
    elif isinstance(kind, Dropout):
        yield from _dropout(experiment, kind)
    elif isinstance(kind, Loss):
        yield from _loss(experiment, kind)
    elif isinstance(kind, Rescale):
        yield from _solved(experiment, ("scale", "offset"), {"scale": "input-scale", "offset": "input-mean"}, base)


def _solved(
    experiment: Experiment, names: Sequence[str], causes: dict[str, str], base: Edit | None = None
) -> Iterator[Proposal]:
    """One field solved for, then two, then all of them; on top of another edit all at once."""
    kind = experiment.kind
    for count in range(1 if base is None else len(names), len(names) + 1):
        for chosen in itertools.combinations(names, count):
            found = solved(experiment, chosen, base)
            if not found:
                continue
            found = rounded(experiment, found, base)
            changed = [n for n in chosen if not np.isclose(found[n], getattr(kind, n), rtol=1e-6, atol=0)]
            if not changed:
                continue
            values = " and ".join(f"{n} {shown(found[n])}" for n in changed)
            own = " and ".join(f"{n} {shown(float(getattr(kind, n)))}" for n in changed)
            edit = Edit(fields={n: found[n] for n in changed})
            first, *also = (causes[n] for n in changed)
            words = f"computes with {values}, the reference with {own}"
            yield Proposal(first, words, edit, also=tuple(also), fitted=True)


def _batchnorm(experiment: Experiment, kind: BatchNorm, base: Edit | None) -> Iterator[Proposal]:
    train = experiment.run.mode == "train"
    if train:
        words = "normalises by its running statistics in train mode too"
        yield Proposal("bn-mode", words, Edit(fields={"frozen": True}), "call it with training=True, trainable=True")
        if kind.stored == "deviation":
            gamma = experiment.first.roles.get("deviation")
            if gamma is not None:
                variance = np.maximum(gamma.astype(np.float64) ** 2 - kind.epsilon, 0)
                edit = Edit(kind=replace(kind, stored="variance", frozen=True), params={"variance": variance})
                yield Proposal("bn-mode", words, edit, "call it with training=True, trainable=True")
    else:
        yield Proposal("bn-mode", "normalises by the batch in eval mode too", Edit(mode="train"), "training=False")
    deviation = experiment.first.roles.get("deviation")
    if deviation is not None and (not train or kind.frozen):
        yield from _other_epsilon(experiment, kind, deviation, base)
    else:
        yield from _solved(experiment, ("epsilon",), {"epsilon": "bn-epsilon"}, base)
    roles = experiment.first.roles
    for role, cause, word, silent, fix in (
        ("gamma", "layer-missing", "multiplies by", 1, "scale=True"),
        ("beta", "bias-missing", "adds", 0, "center=True"),
    ):
        if role in roles and np.any(roles[role] != silent):
            edit = Edit(params={role: np.full_like(roles[role], silent)})
            yield Proposal(cause, f"{word} no {role}", edit, fix)
    if {"gamma", "beta"} <= set(roles):
        swap = Edit(params={"gamma": roles["beta"], "beta": roles["gamma"]})
        yield Proposal("bn-gamma-beta-swapped", "uses gamma and beta in each other's place", swap)


def _other_epsilon(experiment: Experiment, kind: BatchNorm, deviation: Array, base: Edit | None) -> Iterator[Proposal]:
    """Another epsilon where the stored deviation holds the reference's own, and nothing is added to it."""
    variance = np.maximum(deviation.astype(np.float64) ** 2 - kind.epsilon, 0)
    apart = Edit(kind=replace(kind, stored="variance"), params={"variance": variance})
    on = apart if base is None else base + apart
    found = solved(experiment, ("epsilon",), on)
    if found:
        epsilon = rounded(experiment, found, on)["epsilon"]
        words = f"computes with epsilon {shown(epsilon)}, the reference with epsilon {shown(kind.epsilon)}"
        yield Proposal("bn-epsilon", words, apart + Edit(fields={"epsilon": epsilon}), fitted=True)


def _lrn(experiment: Experiment, kind: LRN, base: Edit | None) -> Iterator[Proposal]:
    divided = kind.alpha / kind.size
    words = f"divides alpha by the window: {kind.alpha:g}/{kind.size}, as Caffe and torch do"
    yield Proposal("lrn-alpha", words, Edit(fields={"alpha": divided}), f"alpha={kind.alpha:g} without the division")
    causes = {name: f"lrn-{name}" for name in ("alpha", "kappa", "beta")}
    yield from _solved(experiment, ("alpha", "kappa", "beta"), causes, base)
    for size in range(1, 16):
        if size == kind.size:
            continue
        wider = Edit(fields={"size": size})
        yield Proposal("lrn-size", f"sums over {size} channels, the reference over {kind.size}", wider)
        scaled = Edit(fields={"size": size, "alpha": kind.alpha / size})
        yield Proposal("lrn-size", f"sums over {size} channels and divides alpha by them", scaled)


def _activation(experiment: Experiment, kind: Kind) -> Iterator[Proposal]:
    wanted = target(experiment)
    x = next(iter(experiment.first.ref_feeds.values()))
    if wanted is not None and wanted.size == x.size:
        x, y = x.ravel().astype(np.float64), wanted.ravel().astype(np.float64)
        below = x < 0
        if below.any() and isinstance(kind, Activation) and kind.function == "relu":
            slope = float(x[below] @ y[below] / (x[below] @ x[below]))
            slope = rounded(experiment, {"slope": slope})["slope"]
            words = f"multiplies negative values by {slope:.6g}, the reference by {kind.slope:g}"
            edit, fix = Edit(fields={"slope": slope}), f"negative_slope={kind.slope:g}"
            yield Proposal("activation-slope", words, edit, fix, fitted=True)
        top = float(y.max(initial=0))
        if top > 0 and np.count_nonzero(y == top) > 1:
            edit = Edit(kind=Activation("relu", getattr(kind, "slope", 0.0), limit=top))
            yield Proposal("activation-kind", f"cuts values off at {top:g}", edit, fitted=True)
    linear = Edit(kind=Activation("linear"))
    cause = "softmax-missing" if isinstance(kind, Softmax) else "activation-missing"
    yield Proposal(cause, "changes nothing, where the reference has its activation", linear)
    own = kind.function if isinstance(kind, Activation) else "softmax"
    for name in _FUNCTIONS:
        if name != own:
            edit = Edit(kind=Softmax() if name == "softmax" else Activation(name))
            yield Proposal("activation-kind", f"applies {name}, the reference {own}", edit)


_FUNCTIONS = (
    "relu",
    "sigmoid",
    "tanh",
    "softmax",
    "softplus",
    "softsign",
    "selu",
    "swish",
    "gelu",
    "gelu_tanh",
    "exponential",
    "hard_sigmoid",
    "hard_sigmoid_legacy",
    "hard_swish",
    "mish",
    "log_softmax",
)


def _pool(experiment: Experiment, kind: Pool) -> Iterator[Proposal]:
    other = "avg" if kind.method == "max" else "max"
    yield Proposal("pool-method", f"takes the {other} of each window", Edit(fields={"method": other}))
    if kind.method == "avg":
        counted = not kind.count_pad
        words = "counts padded cells" if counted else "leaves padded cells out of the count"
        yield Proposal("pool-avg-count-pad", words, Edit(fields={"count_pad": counted}))
    pad = kind.pad
    if pad is None or len(pad) != 4 or not any(pad):
        return
    top, bottom, left, right = pad

    def repeated(inputs: list[Array]) -> list[Array]:
        return [np.pad(inputs[0], ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")]

    if kind.method == "avg" and max(abs(top - bottom), abs(left - right)):
        words = "repeats the border in the cells that it pads and counts them, as Keras does on torch"
        fix = "run Keras on tensorflow or jax, or divide by the share of cells that lie in the map"
        yield Proposal("pool-avg-count-pad", words, Edit(fields={"pad": (0, 0, 0, 0)}, inputs=repeated), fix)

    def zeros(inputs: list[Array]) -> list[Array]:
        return [np.pad(inputs[0], ((0, 0), (top, bottom), (left, right), (0, 0)))]

    edit = Edit(fields={"pad": (0, 0, 0, 0)}, inputs=zeros)
    yield Proposal("pool-pad-value", "takes the maximum over zeros around the map", edit)
    yield from _shifted(pad)


def _shifted(pad: Sequence[int]) -> Iterator[Proposal]:
    """As many cells along each axis, on other sides: turned round, a cell further, or all at one end."""

    def sides(before: int, behind: int) -> list[tuple[int, int]]:
        total = before + behind
        starts = (before, behind, before + 1, before - 1, 0, total)
        return [(start, total - start) for start in dict.fromkeys(starts) if 0 <= start <= total]

    own = " ".join(map(str, pad))
    for rows, columns in itertools.product(sides(*pad[:2]), sides(*pad[2:])):
        turned = (*rows, *columns)
        if turned != tuple(pad):
            words = f"pads [{' '.join(map(str, turned))}], the reference [{own}]"
            yield Proposal("padding-asymmetric", words, Edit(fields={"pad": turned}))


def _filters(experiment: Experiment, kind: Kind, base: Edit | None) -> Iterator[Proposal]:
    roles = experiment.params(experiment.first)
    role = "depthwise_kernel" if "depthwise_kernel" in roles else "kernel"
    kernel = roles.get(role)
    if kernel is not None and kernel.ndim == 4:
        mirrored = [("kernel-flip", "upside down", kernel[::-1]), ("kernel-flip", "mirrored", kernel[:, ::-1])]
        for cause, words, laid in (*kernel_layouts(kernel), *mirrored):
            if laid.shape == kernel.shape and not np.array_equal(laid, kernel):
                yield Proposal(cause, f"uses the filters {words}", Edit(params={role: laid}))
    bias, inner = roles.get("bias"), roles.get("depthwise_bias")
    if bias is not None and np.any(bias):
        yield Proposal("bias-missing", "adds no bias", Edit(params={"bias": np.zeros_like(bias)}), "use_bias=True")
    if inner is not None and np.any(inner):
        yield Proposal("bias-missing", "adds no bias in between", Edit(params={"depthwise_bias": np.zeros_like(inner)}))
    if bias is not None:
        yield from _biased(experiment, bias, base or Edit())
    pad = getattr(kind, "pad", None)
    if pad is not None and len(pad) == 4 and any(pad):
        yield from _shifted(pad)
    if isinstance(kind, Conv | ConvTranspose) and kind.groups > 1:
        yield from _reordered(kind.filters, kind.groups)


def _biased(experiment: Experiment, bias: Array, base: Edit) -> Iterator[Proposal]:
    """Another bias: what is left of the output, channel by channel."""
    wanted = target(experiment)
    own = output(experiment, base)
    if wanted is None or own is None or wanted.size != own.size:
        return
    gap = (wanted.reshape(own.shape) - own).reshape(-1, own.shape[-1]).mean(axis=0)
    if gap.shape == bias.shape:
        gap = gap[np.argsort(base.order)] if base.order else gap
        edit = Edit(params={"bias": (base.params.get("bias", bias) + gap).astype(bias.dtype)})
        yield Proposal("bias-value", "adds another bias", edit, fitted=True)


def _reordered(outputs: int, groups: int) -> Iterator[Proposal]:
    """What groups make, joined in another order, or interleaved."""
    if outputs % groups:
        return
    blocks = np.arange(outputs).reshape(groups, -1)
    orders = itertools.permutations(range(groups)) if groups <= 4 else [tuple(reversed(range(groups)))]
    for order in orders:
        if order != tuple(range(groups)):
            words = f"joins its {groups} groups in the order {' '.join(str(g + 1) for g in order)}"
            yield Proposal("channel-order", words, Edit(order=tuple(int(c) for c in blocks[list(order)].ravel())))
    interleaved = tuple(int(c) for c in blocks.T.ravel())
    yield Proposal("channel-order", f"interleaves what its {groups} groups make", Edit(order=interleaved))


def _concat(experiment: Experiment) -> Iterator[Proposal]:
    count = len(experiment.run.ref.network.data(experiment.pair.ref.inputs))
    if not 2 <= count <= 5:
        return
    for order in itertools.permutations(range(count)):
        if order != tuple(range(count)):

            def permuted(inputs: list[Array], order: tuple[int, ...] = order) -> list[Array]:
                return [inputs[i] for i in order]

            words = "joins its inputs in the order " + " ".join(str(i + 1) for i in order)
            yield Proposal("channel-order", words, Edit(inputs=permuted))


def _merge(kind: Merge) -> Iterator[Proposal]:
    for operation in ("add", "average", "multiply", "maximum", "minimum", "subtract"):
        if operation != kind.operation:
            words = f"does {operation}, the reference {kind.operation}"
            yield Proposal("layer-missing", words, Edit(fields={"operation": operation}))


def _dropout(experiment: Experiment, kind: Dropout) -> Iterator[Proposal]:
    yield Proposal("dropout-missing", "drops nothing", Edit(kind=Activation("linear")))
    found = solved(experiment, ("rate",)) if kind.rate else None
    if found:
        rate = rounded(experiment, found)["rate"]
        words = f"drops a share of {rate:.4g}, the reference {kind.rate:g}"
        yield Proposal("dropout-rate", words, Edit(fields={"rate": rate}), f"rate={kind.rate:g}", fitted=True)


def _loss(experiment: Experiment, kind: Loss) -> Iterator[Proposal]:
    first = experiment.first
    mine, theirs = (
        first.tensor(local, side, "loss") for local, side in ((first.ref_local, "ref"), (first.keras_local, "keras"))
    )
    if mine is not None and theirs is not None and float(mine[0]) and np.isfinite([*mine, *theirs]).all():
        factor = float(theirs[0]) / float(mine[0])
        other = experiment.pair.keras.kind
        counted = isinstance(other, Loss) and kind.counts_otherwise(other)  # a factor of these labels alone
        if factor and not counted:
            words = f"is {factor:.6g} times the reference's, and so are all gradients"
            fix = f"loss_weights=[{1 / factor:.6g}]"
            yield Proposal("loss-reduction", words, Edit(factor=factor), fix, fitted=True)
    classes = next(iter(first.ref_feeds.values())).shape[-1]
    for shift in (1, -1):

        def moved(ids: Array, shift: int = shift) -> Array:
            return np.where(ids < 0, ids, (ids + shift) % classes)

        words = f"is held against labels that are {'one higher' if shift > 0 else 'one lower'}"
        yield Proposal("label-offset", words, Edit(labels=moved), "y - 1" if shift > 0 else "y + 1")
    if theirs is not None:
        share = smoothing(experiment, float(theirs[0]))
        if share:
            share = rounded(experiment, {"label_smoothing": share})["label_smoothing"]
            edit, fix = Edit(fields={"label_smoothing": share}), f"label_smoothing={kind.label_smoothing:g}"
            yield Proposal("loss-kind", f"smooths the labels by {share:.6g}", edit, fix, fitted=True)
    other = experiment.pair.keras.kind
    if isinstance(other, Loss) and type(other) is not type(kind):  # a distance against one of Keras' own
        yield Proposal("loss-kind", f"computes {other.function}, the reference {kind.function}", Edit(kind=other))
    for name in ("softmaxlog", "log", "mhinge", "mshinge", "mean_squared_error", "categorical_hinge"):
        if name != kind.function:
            cause = {("softmaxlog", "log"): "softmax-missing", ("log", "softmaxlog"): "softmax-double"}
            words = f"computes {name}, the reference {kind.function}"
            yield Proposal(cause.get((kind.function, name), "loss-kind"), words, Edit(fields={"function": name}))
