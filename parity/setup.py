"""From the options of a comparison to what is compared and how, and to both sides, opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from parity import batch as batches
from parity.align import Map
from parity.errors import BadUsage
from parity.mapping import read_map
from parity.options import allowance, tolerances
from parity.sides import Sides, open_sides
from parity.traces.format import is_trace
from parity.unopened import Opening

__all__ = ["Setup", "set_up"]


@dataclass(frozen=True, eq=False)
class Setup:
    """What is compared and how; the sides are opened when they are asked for.

    Attributes:
        ref, keras: paths, models or runners.
        given: the batch, if one was named.
        how: files are opened.
        seed: of the probe batch and of dropout.
        mode: `"train"` or `"eval"`.
        limits: (rtol, atol) in place of measured floors, or None.
        allowed: (status, pattern) of what is permitted by name.
        mapping: pairs that the user fixes, or None.
    """

    ref: Any
    keras: Any
    given: batches.Batch | None
    how: Opening
    seed: int
    mode: str
    limits: tuple[float, float] | None
    allowed: tuple[tuple[str, str], ...]
    mapping: Map | None

    @cached_property
    def sides(self) -> Sides:
        """The runners and the batch; raises ParityError where a file cannot be read or does not fit."""
        return open_sides(self.ref, self.keras, self.given, self.how, self.seed, self.mode)


def set_up(
    *,
    ref: Any,
    keras: Any,
    batch: Any = None,
    mode: str = "train",
    weights: str = "ref",
    steps: int = 3,
    map: str | PathLike[str] | Mapping[str, str] | None = None,
    custom_objects: str | PathLike[str] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    allow: Sequence[str] = (),
    keras_engine: str = "auto",
    keras_arch: str | PathLike[str] | None = None,
    backend: str = "",
    trust: bool = False,
    ref_recipe: str | PathLike[str] | None = None,
    ref_version: str = "",
) -> Setup:
    """Check the options and read the batch; `parity.session.check_and_fix` says what each option is.

    Raises:
        ParityError: options do not go together, or the batch cannot be read.
    """
    how = Opening(
        custom_objects=None if custom_objects is None else fspath(custom_objects),
        engine=_one_of("the Keras engine", keras_engine, ("auto", "keras3", "tf_keras")),
        backend=_one_of("the backend", backend, ("", "tensorflow", "torch", "jax")),
        arch=None if keras_arch is None else fspath(keras_arch),
        trust=trust,
        ref_recipe=None if ref_recipe is None else fspath(ref_recipe),
        ref_version=_one_of("the reference's version", ref_version, ("", "beta25", "head")),
    )
    limits = _checked(mode, weights, steps, rtol, atol)
    if (ref_recipe is not None or ref_version) and is_trace(ref):
        raise BadUsage(f"{fspath(ref)}: is a trace, which holds its recipe; give another one when it is recorded")
    allowed = tuple(allowance(item) for item in allow)
    mapping = _mapping(map)
    given = batches.load(batch) if batch is not None else None
    return Setup(ref, keras, given, how, seed, mode, limits, allowed, mapping)


def _checked(mode: str, weights: str, steps: int, rtol: float | None, atol: float | None) -> tuple[float, float] | None:
    if mode not in ("train", "eval"):
        raise BadUsage(f"mode is 'train' or 'eval', not {mode!r}")
    if weights not in ("ref", "own"):
        raise BadUsage(f"weights is 'ref' or 'own', not {weights!r}")
    if steps < 1:
        raise BadUsage(f"steps is at least 1, not {steps}")
    return tolerances(rtol, atol)


def _one_of(what: str, given: str, known: Sequence[str]) -> str:
    if given not in known:
        raise BadUsage(f"{what} is {', '.join(word for word in known if word)}, not {given!r}")
    return given


def _mapping(given: str | PathLike[str] | Mapping[str, str] | None) -> Map | None:
    if given is None:
        return None
    return Map(layers=dict(given)) if isinstance(given, Mapping) else read_map(Path(fspath(given)))
