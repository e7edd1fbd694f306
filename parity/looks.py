"""A comparison's tensors as `Detail`s, taken while both sides' values are at hand."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from parity.bench import Trial
from parity.case import Comparison
from parity.detail import ALONE, END_TO_END, Album
from parity.judge import Verdict
from parity.propagation import seen_tensor
from parity.runner import Pass
from parity.tensors import Named
from parity.transfer import Link, transferred
from parity.updates import Move

__all__ = ["look_alone", "look_at_updates", "look_end_to_end"]

Array = np.ndarray


def look_end_to_end(run: Comparison, ref: Pass, keras: Pass) -> None:
    """Keep what every tensor shows that both whole passes saw."""
    album = run.album
    if album is None:
        return
    items = [(named, name) for named in run.named.values() for name in named.names if name not in named.unlike]
    album.expected = len(items)

    def looked(item: tuple[Named, str]) -> Album:
        named, name = item
        own = Album(expected=album.expected)
        expected, actual = seen_tensor(named, name, ref, "ref"), seen_tensor(named, name, keras, "keras")
        if expected is not None and actual is not None:
            names = (named.pair.ref.name, named.pair.keras.origin)
            own.look(names, _phase(name), name, (actual, expected), axes=_axes(run, named, name))
        return own

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as workers:
        for made in workers.map(looked, items):
            album.details += made.details


def look_alone(run: Comparison, trial: Trial, verdicts: Sequence[Verdict]) -> None:
    """Keep what the tensors of a pair show in which a fault was born."""
    if run.album is None:
        return
    names = (trial.pair.ref.name, trial.pair.keras.origin)
    for verdict in verdicts:
        if verdict.status != "born" or verdict.distance is None:
            continue
        expected = trial.tensor(trial.ref_local, "ref", verdict.tensor)
        actual = trial.tensor(trial.keras_local, "keras", verdict.tensor)
        if expected is not None and actual is not None:
            run.album.look(
                names, verdict.phase, verdict.tensor, (actual, expected), how=ALONE, floor=verdict.floor_rms,
                axes=_axes(run, trial.named, verdict.tensor),
            )  # fmt: skip


def look_at_updates(run: Comparison, step: int, reached: Mapping[str, Array], moves: Sequence[Move]) -> None:
    """Keep a parameter's first move in which a fault was born, and how far it went end to end in the last step.

    Args:
        run: both sides' free runs.
        step: from 1.
        reached: the Keras parameters after the isolated step.
        moves: of this step.
    """
    if run.album is None:
        return
    start, goal = transferred(run.links, run.course.weights[step - 1]), transferred(run.links, run.course.weights[step])
    origin = transferred(run.links, run.course.weights[0])
    seen = {(d.layer, d.tensor) for d in run.album.details if d.phase == "update" and d.how == ALONE}
    last = step == len(run.course.passes)
    for move in moves:
        link, key = move.link, move.link.keras
        names, axes = (link.pair.ref.name, link.pair.keras.origin), _param_axes(run, link)
        if move.status == "born" and (names[0], link.role) not in seen:
            pair = (reached[key] - start[key], goal[key] - start[key])
            run.album.look(names, "update", link.role, pair, step=step, how=ALONE, floor=move.floor, axes=axes)
        if last and link.linear and move.propagated is not None and move.propagated.max_abs > move.floor:
            pair = (run.free.weights[step][key] - run.free.weights[0][key], goal[key] - origin[key])
            run.album.look(names, "update", link.role, pair, step=step, how=END_TO_END, axes=axes)


def _phase(tensor: str) -> str:
    return {"output": "forward", "loss": "loss"}.get(tensor, "backward")


def _axes(run: Comparison, named: Named, tensor: str) -> str:
    """The axes of a parameter's gradient; empty for an activation."""
    link = named.gradients.get(tensor)
    return _param_axes(run, link) if link is not None else ""


def _param_axes(run: Comparison, link: Link) -> str:
    param = run.keras.network.params.get(link.keras)
    return param.axes if param is not None else ""
