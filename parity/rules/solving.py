"""Solves for what continuous fields must be for the reference to make what Keras makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from parity.bench import Unfit
from parity.experiments import Edit, Experiment
from parity.tensors import shaped

__all__ = ["output", "rounded", "smoothing", "solved", "target"]

Array = np.ndarray

_SAMPLE = 200_000
"""Elements that are enough to solve for a number or two."""


def target(experiment: Experiment) -> Array | None:
    """What the Keras layer makes of the reference's inputs: in float64 where it can."""
    trial = experiment.first
    try:
        local = trial.referee or trial.keras_local
    except Unfit:
        return None
    return trial.tensor(local, "keras", "output")


def output(experiment: Experiment, edit: Edit) -> Array | None:
    """What the edited reference makes of its inputs, in float64; None where the edit does not fit."""
    try:
        return experiment.first.tensor(
            experiment.evaluate(experiment.first, edit, precision=64, gradients=False), "ref", "output"
        )
    except (NotImplementedError, RuntimeError, ValueError, TypeError):
        return None


def solved(experiment: Experiment, names: Sequence[str], base: Edit | None = None) -> dict[str, float] | None:
    """The values of these fields with which the reference makes the Keras output (Gauss and Newton's method).

    Positive fields are solved for by their logarithms. None where it does not converge.
    """
    base = base or Edit()
    wanted = target(experiment)
    if wanted is None or not experiment.possible:
        return None
    start = base.applied(experiment.kind)
    values = np.array([float(getattr(start, name)) for name in names])
    logs = values > 0

    def made(theta: Array) -> Array | None:
        given = {n: float(math.exp(t) if log else t) for n, t, log in zip(names, theta, logs, strict=True)}
        try:
            local = experiment.evaluate(experiment.first, base + Edit(fields=given), precision=64, gradients=False)
        except (NotImplementedError, RuntimeError, ValueError, TypeError, OverflowError):
            return None
        own = local.outputs[experiment.pair.ref.output]
        same = shaped(wanted, own.shape)
        return None if same is None else _thin((own - same).astype(np.float64))

    theta = np.where(logs, np.log(np.where(logs, values, 1.0)), values)
    residual = made(theta)
    if residual is None or not np.isfinite(residual).all():
        return None
    for _ in range(40):
        columns: list[Array] = []
        for k in range(len(names)):
            nudge = np.zeros_like(theta)
            nudge[k] = 1e-4
            moved = made(theta + nudge)
            if moved is None:
                return None
            columns.append((moved - residual) / 1e-4)
        slope = np.stack(columns, axis=1)
        if not np.isfinite(slope).all() or not slope.any():
            return None
        step = np.linalg.lstsq(slope, -residual, rcond=None)[0]
        step = np.clip(step, -2.0, 2.0)
        nearer: Array | None = None
        for _ in range(12):
            again = made(theta + step)
            if again is not None and np.isfinite(again).all() and again @ again < residual @ residual:
                nearer = again
                break
            step = step / 2
        if nearer is None:
            break
        theta, residual = theta + step, nearer
        if float(np.abs(step).max()) < 1e-10:
            break
    found = np.where(logs, np.exp(theta), theta)
    return {name: float(value) for name, value in zip(names, found, strict=True)}


def smoothing(experiment: Experiment, wanted: float) -> float | None:
    """The share of the labels' mass to spread for a loss to have this value, which is linear in it; None for none."""
    own = getattr(experiment.kind, "label_smoothing", 0.0)
    found: list[float] = []
    for share in (own, own + 0.5):
        try:
            edit = Edit(fields={"label_smoothing": share})
            loss = experiment.evaluate(experiment.first, edit, precision=64, gradients=False).loss
        except (NotImplementedError, RuntimeError, ValueError, TypeError):
            return None
        if loss is None or not math.isfinite(loss):
            return None
        found.append(loss)
    if not math.isfinite(wanted) or math.isclose(*found, rel_tol=1e-9):
        return None
    share = own + 0.5 * (wanted - found[0]) / (found[1] - found[0])
    return share if 0 < share < 1 else None


def rounded(experiment: Experiment, values: Mapping[str, float], base: Edit | None = None) -> dict[str, float]:
    """Solved values as someone would have written them, where the shorter number explains as much."""
    base, made = base or Edit(), dict(values)
    for name, value in values.items():
        for digits in (1, 2, 3, 4):
            short = float(f"{value:.{digits}g}")
            near = abs(short - value) <= 2e-3 * abs(value) or (value == 0 and short == 0)
            if near and experiment.fits(experiment.first, base + Edit(fields={**made, name: short})):
                made[name] = short
                break
    return made


def _thin(values: Array) -> Array:
    flat = values.ravel()
    return flat if flat.size <= _SAMPLE else flat[:: flat.size // _SAMPLE + 1]
