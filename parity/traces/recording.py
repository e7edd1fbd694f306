"""Running one side and writing down all that it shows."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from parity.distances import distance
from parity.layers import Dropout, Loss, Opaque
from parity.network import Layer, Network
from parity.runner import Pass, Runner, Targets

__all__ = ["Sink", "forward_alone", "record_run"]

Array = np.ndarray
Progress = Callable[[str, int, int], None]


class Sink(Protocol):
    """Where a recording goes: a `TraceWriter`, or nowhere."""

    def put(self, group: str, name: str, value: Any) -> None:
        """Keep an array."""
        ...

    def tensor(self, group: str, name: str, value: Any, keep: str) -> None:
        """Keep a tensor, or what is kept of it."""
        ...

    def sample(self, group: str, name: str, value: Array) -> None:
        """Keep a tensor's values at the sampled places."""
        ...

    def settle(self) -> None:
        """Be done with what was given so far: it may change from now on."""
        ...

    def info(self, held: Mapping[str, Any], network: Any, recipe: Any) -> None:
        """Keep the facts."""
        ...


def record_run(
    runner: Runner,
    inputs: Mapping[str, Array],
    labels: Targets | None,
    sink: Sink,
    *,
    mode: str = "train",
    steps: int = 3,
    seed: int = 0,
    tensors: str = "all",
    slots: Mapping[str, Mapping[str, Array]] | None = None,
    masks: Callable[[int], Mapping[str, Array]] | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda *_: None,
) -> None:
    """Run a side on one batch for some updates, and keep every probe of it.

    The runner is left with the weights of the last step. The first step is run three times: as it is, with every input
    and weight moved by half an ulp, and in float64 where the side can; from these come the floors.

    Args:
        runner: the side, its weights loaded.
        inputs: input → n h w c.
        labels: what the losses are held against; None records the forward pass alone.
        sink: where it goes.
        mode: `"train"` or `"eval"`.
        steps: updates, in train mode with a loss.
        seed: of dropout where the runner does not draw it itself.
        tensors: how much of activations and their gradients is kept: `"all"`, `"sample"` or `"stats"`.
        slots: of the optimizer to start from, param id → slot → value; None takes those of the recipe.
        masks: step (from 1) → layer → what dropout keeps, for a side that draws none itself; None draws it.
        facts: more facts of the run, as JSON knows them.
        progress: called as progress(what, done, total).
    """
    network = runner.network
    trained = mode == "train" and bool(network.losses) and labels is not None
    count = steps if trained else 0
    total, done = max(1, count) + 2, 0
    for name, value in inputs.items():
        sink.put("inputs", name, value)
    if labels is not None:
        for name, value in labels.values.items():
            sink.put("labels", name, value)
        for name, value in labels.weights.items():
            sink.put("label_weights", name, value)
    started = slots if slots is not None else runner.recipe.slots
    if trained:
        runner.reset(started or None)
    drawn = masks or (lambda step: _masks(runner, len(next(iter(inputs.values()))), seed + step))
    before = runner.params()
    for name, value in before.items():
        sink.put("weights/0", name, value)
    passes: list[dict[str, Any]] = []
    for step in range(1, max(1, count) + 1):
        progress(f"step {step}", done, total)
        done += 1
        kept = drawn(step) if mode == "train" else None
        seen = runner.run(inputs, labels, mode=mode, backward=trained, observe=step == 1, masks=kept)
        passes.append(_keep(seen, step, sink, tensors))
        grads, statistics = seen.param_grads, seen.statistics
        if step == 1:
            progress("noise floors", done, total)
            _floors(runner, inputs, labels, seen, sink, mode=mode, backward=trained, before=before)
            _isolated(runner, labels, seen, sink, mode=mode, backward=trained, tensors=tensors)
            done += 2
            seen.outputs, seen.output_grads = {}, {}
        if trained:
            sink.settle()
            runner.update(grads, statistics)
            for name, value in runner.params().items():
                sink.put(f"weights/{step}", name, value)
    alone = forward_alone(network)
    held = {
        "mode": mode, "steps": count, "seed": seed, "tensors": tensors, "passes": passes,
        "engine": _plain(runner.engine), "environment": _environment(), "source": {}, **(facts or {}),
        "remarks": [*(str(r) for r in getattr(runner, "remarks", [])), *([alone] if mode == "train" and alone else [])],
    }  # fmt: skip
    sink.info(held, network, replace(runner.recipe, slots=dict(started)) if trained else runner.recipe)
    progress("done", total, total)


def forward_alone(network: Network) -> str:
    """Why nothing but the forward pass can be recorded, where a layer may be a loss that nobody knows; else nothing."""
    last = network.layers[-1] if network.layers else None
    if network.losses or last is None or not isinstance(last.kind, Opaque):
        return ""
    return f"{last.name} is not known to be a loss, so neither gradients nor updates were recorded"


def _keep(seen: Pass, step: int, sink: Sink, tensors: str) -> dict[str, Any]:
    """Write a pass; what is no array comes back."""
    at = f"step{step}"
    for kind in ("outputs", "output_grads"):
        for name, value in getattr(seen, kind).items():
            if np.ndim(value):
                sink.tensor(f"{at}/{kind}", name, value, tensors)
    for kind in ("param_grads", "penalty_grads", "masks"):
        for name, value in getattr(seen, kind).items():
            sink.put(f"{at}/{kind}", name, value)
    for name, both in seen.statistics.items():
        for role, value in both.items():
            sink.put(f"{at}/statistics/{role}", name, value)
    losses = {name: _number(value) for name, value in seen.losses.items()}
    return {"loss": None if seen.loss is None else _number(seen.loss), "losses": losses, "penalty": float(seen.penalty)}


# ----------------------------------------------------------------------------------------------------------- the noise


def _floors(
    runner: Runner,
    inputs: Mapping[str, Array],
    labels: Targets | None,
    seen: Pass,
    sink: Sink,
    *,
    mode: str,
    backward: bool,
    before: Mapping[str, Array],
) -> None:
    """What rounding alone does end to end: the distances of a shaken run and of a float64 run from the one recorded."""
    found: dict[tuple[str, str], Array] = {}
    rng = np.random.default_rng(0)

    def shaken(value: Array) -> Array:
        if value.dtype.kind != "f":
            return value
        return (value * (1 + rng.uniform(-1, 1, value.shape) * 2.0**-24)).astype(value.dtype)

    try:
        runner.load({key: shaken(value) for key, value in before.items()})
        moved = {name: shaken(value) for name, value in inputs.items()}
        other = runner.run(moved, labels, mode=mode, backward=backward, masks=seen.masks)
    finally:
        runner.load(before)
    # A side that draws its dropout anew does not show rounding here.
    if all(np.array_equal(other.masks.get(name, ()), mask) for name, mask in seen.masks.items()):
        _widen(found, seen, other)
    del other
    try:
        exact = runner.run(inputs, labels, mode=mode, backward=backward, masks=seen.masks, precision=64)
    except NotImplementedError:
        exact = None
    if exact is not None:
        _widen(found, seen, exact)
        for kind, name, value in _arrays(exact):
            sink.sample(f"truth/{kind}", name, value)
    for (kind, name), floor in found.items():
        sink.put(f"floors/{kind}", name, floor)


def _widen(found: dict[tuple[str, str], Array], seen: Pass, other: Pass) -> None:
    """Raise the floors to the distances between two passes."""
    there = {(kind, name): value for kind, name, value in _arrays(other)}
    for kind, name, value in _arrays(seen):
        rival = there.get((kind, name))
        if rival is None or np.shape(rival) != np.shape(value):
            continue
        apart = distance(rival, value)
        if apart.finite:
            key = (kind, name)
            found[key] = np.maximum(found[key], apart.channel_rms) if key in found else apart.channel_rms


def _arrays(seen: Pass) -> Iterator[tuple[str, str, Array]]:
    """Every tensor of a pass that has a floor."""
    for kind in ("outputs", "output_grads", "param_grads"):
        for name, value in getattr(seen, kind).items():
            yield kind, name, np.asarray(value)
    for name, value in seen.losses.items():
        yield "losses", name, np.asarray([value], np.float64)


def _isolated(
    runner: Runner, labels: Targets | None, seen: Pass, sink: Sink, *, mode: str, backward: bool, tensors: str
) -> None:
    """The gradients of layers alone, where the whole run shows only sums: inputs or parameters with several readers."""
    if not backward:
        return
    network = runner.network
    for layer in network:
        data = network.data(layer.inputs)
        if not _shared(network, layer, data) or isinstance(layer.kind, Loss):
            continue
        feeds = {tensor: seen.outputs[tensor] for tensor in data if tensor in seen.outputs}
        upstream = seen.output_grads.get(layer.output)
        if len(feeds) < len(set(data)) or upstream is None:
            continue
        try:
            local = runner.isolate(
                [layer.name], feeds, labels=labels, upstream={layer.output: upstream}, mode=mode, masks=seen.masks
            )
        except (NotImplementedError, KeyError, ValueError):
            continue  # a layer that cannot be run alone has nothing to record
        sink.settle()  # the layer before: no more than two wait in memory
        for tensor, value in local.input_grads.items():
            sink.tensor(f"isolated/{_one(layer.name)}/input_grads", tensor, value, tensors)
        for key, value in local.param_grads.items():
            sink.put(f"isolated/{_one(layer.name)}/param_grads", key, value)


def _one(name: str) -> str:
    from parity.traces.format import escaped

    return escaped(name)


def _shared(network: Network, layer: Layer, data: list[str]) -> bool:
    uses = {key for other in network if other.name != layer.name for key in other.params.values()}
    several = any(len(network.consumers.get(tensor, ())) > 1 for tensor in data) or len(set(data)) < len(data)
    return several or not uses.isdisjoint(layer.params.values())


# ------------------------------------------------------------------------------------------------------------ the rest


def _masks(runner: Runner, images: int, seed: int) -> dict[str, Array] | None:
    """Dropout masks for a side that draws none itself; None where it draws (Keras) or recorded them (MATLAB)."""
    network = runner.network
    if network.framework != "matconvnet" or getattr(runner, "recording", None) is not None:
        return None
    rng, made = np.random.default_rng(seed), {}
    for layer in network:
        kind, shape = layer.kind, layer.shape
        if isinstance(kind, Dropout) and 0 < kind.rate < 1 and shape is not None and None not in shape:
            extents = tuple(int(n or 1) for n in shape)
            drawn = (images, *([1] * (len(extents) - 1) if kind.spatial else extents[:-1]), extents[-1])
            kept = (rng.random(drawn) >= kind.rate).astype(np.float32)
            made[layer.name] = np.array(np.broadcast_to(kept, (images, *extents)))
    return made


def _number(value: float) -> float | str:
    """A number as JSON knows it; one that is not finite by its word."""
    return float(value) if math.isfinite(value) else str(float(value))


def _plain(held: Mapping[str, Any]) -> dict[str, Any]:
    return {str(k): v if isinstance(v, str | int | float | bool) or v is None else str(v) for k, v in held.items()}


def _environment() -> dict[str, Any]:
    import parity

    return {
        "parity": parity.__version__, "python": platform.python_version(), "numpy": np.__version__,
        "platform": platform.platform(), "cpus": os.cpu_count(),
    }  # fmt: skip
