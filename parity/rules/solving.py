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


_LOWEST, _HIGHEST = -60.0, 20.0
"""The logarithms between which a positive field is looked for."""


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
    """The values of these fields with which the reference makes the Keras output (least squares within a trust region).

    Positive fields are solved for by their logarithms. None where it does not converge.
    """
    from scipy.optimize import least_squares

    base = base or Edit()
    wanted = target(experiment)
    if wanted is None or not experiment.possible:
        return None
    start = base.applied(experiment.kind)
    if any(isinstance(getattr(start, name), tuple) for name in names):
        return None  # one number for each channel
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

    theta = np.where(logs, np.clip(np.log(np.where(logs, values, 1.0)), 0.99 * _LOWEST, 0.99 * _HIGHEST), values)
    first = made(theta)
    if first is None or not np.isfinite(first).all():
        return None
    far = np.full_like(first, 1e3 * max(1.0, float(np.abs(first).max(initial=0.0))))

    def misfit(theta: Array) -> Array:
        """What the reference is off by; far off where it cannot be evaluated."""
        here = made(theta)
        return far if here is None or here.shape != first.shape or not np.isfinite(here).all() else here

    scale = float(np.abs(first).max(initial=0.0)) or 1.0
    told = least_squares(
        lambda theta: misfit(theta) / scale,
        theta,
        bounds=(np.where(logs, _LOWEST, -np.inf), np.where(logs, _HIGHEST, np.inf)),
        diff_step=1e-5,
        xtol=1e-12,
        ftol=1e-14,
        gtol=1e-14,
        max_nfev=200,
    )
    found = np.where(logs, np.exp(told.x), told.x)
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
