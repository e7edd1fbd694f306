"""Assertions for tests: two sides are in parity, or the failure says where they first part and why."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from parity.errors import BadUsage, ParityError

if TYPE_CHECKING:
    import numpy as np

    from parity.report import Report

__all__ = ["NotInParity", "assert_parity", "compared", "failure_of"]

_CAUSES = 5
"""Causes that a failure tells in full."""

_ARRAYS = 8
"""Arrays that differ of which a failure tells the worst element."""

_ROUNDINGS = 64
"""Roundings that a value may have gone through where nothing is known of how it was made."""


class NotInParity(AssertionError):
    """Two sides differ, or it could not be verified that they do not.

    Attributes:
        report: what was compared; None where these were plain arrays.
    """

    def __init__(self, message: str, report: Report | None = None) -> None:
        self.report = report
        super().__init__(message)


def assert_parity(
    expected: Any,
    actual: Any,
    batch: Any = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    **options: Any,
) -> Report | None:
    """Fail unless two sides agree, and say where they first part, and why.

    Files, traces and models are compared as `parity.compare` does. Arrays, and mappings or sequences of arrays, are
    compared element by element, all of them, and channel by channel (last axis): a channel of small values does not
    hide behind large ones. Without tolerances an array may be off by 4 times what 64 roundings do to a channel of its
    size (1.5e-5 of its root mean square in float32); integers and truth values must be equal.

    Args:
        expected: the reference: a path, a model, a trace; or arrays.
        actual: the Keras side; or arrays of the same names, shapes and kinds.
        batch: as in `parity.compare`; not for arrays.
        rtol: relative tolerance in place of measured noise; goes with `atol`.
        atol: absolute tolerance; goes with `rtol`.
        **options: those of `parity.compare`; not for arrays.

    Returns:
        The report; None for arrays.

    Raises:
        NotInParity: they differ, or it could not be verified that they do not.
        ParityError: a file cannot be read, options do not go together, or nothing can be compared.
    """
    __tracebackhide__ = True
    if _is_arrays(expected) and _is_arrays(actual):
        if batch is not None or options:
            raise BadUsage(
                f"arrays take rtol and atol alone, not {', '.join(['batch'] * (batch is not None) + [*options])}"
            )
        message = _arrays_differ(expected, actual, rtol, atol)
        if message:
            raise NotInParity(message)
        return None
    report = compared(ref=expected, keras=actual, batch=batch, rtol=rtol, atol=atol, **options)
    if report.verdict != "match":
        raise NotInParity(failure_of(report), report)
    return report


def compared(**options: Any) -> Report:
    """What `parity.compare` says; its errors without the way by which they came, unless PARITY_DEBUG is set."""
    __tracebackhide__ = True
    from parity.session import check

    try:
        return check(**options)
    except ParityError as error:
        raise (error if os.environ.get("PARITY_DEBUG", "") not in ("", "0") else error.with_traceback(None)) from None


def failure_of(report: Report) -> str:
    """The verdict, the first divergence and the causes with their fixes, in plain lines."""
    from parity.reports.cases import finding_lines
    from parity.reports.console import verdict_line
    from parity.reports.words import clean, plural, relative, times_floor

    lines = [verdict_line(report)]
    first = report.first_divergence
    if first is not None:
        where = clean(first.layer or first.keras_layer or "the recipe")
        if first.keras_layer and first.layer and first.keras_layer != first.layer:
            where += f" (Keras {clean(first.keras_layer)})"
        step = f", step {first.step}" if first.phase == "update" else ""
        lines += ["", f"first divergence: {first.phase} at {where}, {clean(first.tensor)}{step}"]
        if first.isolated is not None:
            lines.append(f"  run alone: {times_floor(first.isolated)} the noise floor")
        if first.propagated is not None:
            lines.append(f"  end to end: relative error {relative(first.propagated)}")
    causes = [finding for finding in report.findings if finding.severity == "divergence"]
    for number, finding in enumerate(causes[:_CAUSES], 1):
        head, *rest = finding_lines(finding)
        lines += ["", f"{number}. {head}", *(f"   {line}" for line in rest)]
    if len(causes) > _CAUSES:
        lines += ["", f"and {plural(len(causes) - _CAUSES, 'more cause')}"]
    if report.verdict == "unverified":
        dark = [p for p in report.probes if p.status in ("unverified", "unpaired")]
        lines += [
            f"  {clean(p.layer or p.keras_layer)}, {p.phase}, {clean(p.tensor)}: {clean(p.note) or p.status}"
            for p in dark[:_ARRAYS]
        ]
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------------- plain arrays


def _is_arrays(value: Any) -> bool:
    """Whether a value is an array, a number, or a mapping or sequence of such; a model or a path is none."""
    if isinstance(value, str | bytes) or hasattr(value, "__fspath__") or callable(value) or hasattr(value, "isolate"):
        return False
    if isinstance(value, Mapping):
        return all(_is_arrays(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_arrays(item) for item in value)
    return isinstance(value, bool | int | float | complex) or hasattr(value, "__array__") or hasattr(value, "detach")


def _array(value: Any) -> np.ndarray:
    import numpy as np

    if hasattr(value, "detach"):  # torch
        value = value.detach().cpu().numpy()
    found = np.asarray(value)
    # bfloat16 and float8 are numpy's by name alone.
    return found.astype(np.float32) if found.dtype.kind == "V" else found


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every array of a nested value, with its path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}[{key!r}]")
    elif isinstance(value, tuple) or (isinstance(value, list) and any(not _is_number(item) for item in value)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}[{index}]")
    else:
        yield name, value


def _is_number(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex)


def _arrays_differ(expected: Any, actual: Any, rtol: float | None, atol: float | None) -> str:
    """What differs; empty where nothing does."""
    from parity.options import tolerances

    limits = tolerances(rtol, atol)
    wanted, found = dict(_leaves(expected)), dict(_leaves(actual))
    if not wanted and not found:
        raise BadUsage("there is no array on either side, so nothing was compared")
    problems = [f"{name or 'the array'}: is missing" for name in wanted if name not in found]
    problems += [f"{name or 'the array'}: is not expected" for name in found if name not in wanted]
    for name in wanted:
        if name in found:
            problem = _differs(_array(wanted[name]), _array(found[name]), limits)
            problems += [f"{name or 'the array'}: {problem}"] if problem else []
    if not problems:
        return ""
    head = f"{len(problems)} of {len({*wanted, *found})} arrays differ"
    more = [f"and {len(problems) - _ARRAYS} more"] if len(problems) > _ARRAYS else []
    return "\n".join([head, *problems[:_ARRAYS], *more])


def _differs(expected: np.ndarray, actual: np.ndarray, limits: tuple[float, float] | None) -> str:
    """How one array differs from another; empty where it does not."""
    import numpy as np

    from parity.distances import channel_rms, distance
    from parity.reports.words import relative
    from parity.tolerance import CLEAN

    if expected.shape != actual.shape:
        return f"its shape is {actual.shape}, not {expected.shape}"
    inexact = [np.issubdtype(a.dtype, np.inexact) for a in (expected, actual)]
    if not all(inexact) and limits is None:
        wrong = np.atleast_1d(expected != actual).reshape(expected.shape)
        if expected.dtype.kind not in "biuf" or actual.dtype.kind not in "biuf":
            return f"{expected.dtype} against {actual.dtype}: not the same" if bool(np.any(wrong)) else ""
        return _worst(expected, actual, wrong, np.asarray(0.0)) if bool(np.any(wrong)) else ""
    if np.iscomplexobj(expected) or np.iscomplexobj(actual):
        parts = [(np.real(expected), np.real(actual)), (np.imag(expected), np.imag(actual))]
        return next((said for e, a in parts if (said := _differs(e, a, limits))), "")
    # What the coarser of the two types can hold is what can be asked of both.
    unit = (
        max(float(np.finfo(a.dtype).eps) / 2 for a, real in zip((expected, actual), inexact, strict=True) if real)
        if any(inexact)
        else 0.0
    )
    wide_expected, wide_actual = expected.astype(np.float64), actual.astype(np.float64)
    same = (wide_expected == wide_actual) | (np.isnan(wide_expected) & np.isnan(wide_actual))
    with np.errstate(all="ignore"):
        gap = np.where(same, 0.0, np.abs(wide_actual - wide_expected))
        if limits is not None:
            allowed = np.broadcast_to(limits[1] + limits[0] * np.abs(wide_expected), gap.shape)
            wrong = ~(gap <= allowed) & ~same
            return _worst(expected, actual, wrong, allowed) if bool(np.any(wrong)) else ""
    floor = _ROUNDINGS * unit * channel_rms(wide_expected)
    apart = distance(wide_actual, wide_expected)
    if apart.x_floor(floor) <= CLEAN:
        return ""
    allowed = np.broadcast_to(CLEAN * floor, gap.shape) if gap.ndim else np.asarray(CLEAN * floor[0])
    wrong = ~(gap <= allowed) & ~same
    if not bool(np.any(wrong)):  # the largest is within what one element may be; it is their number that is not
        wrong = gap == gap.max()
    return f"{_worst(expected, actual, wrong, allowed)}; relative error {relative(apart.relative)}"


def _worst(expected: np.ndarray, actual: np.ndarray, wrong: np.ndarray, allowed: np.ndarray) -> str:
    """How many elements are wrong, and the worst of them."""
    import numpy as np

    with np.errstate(all="ignore"):
        gap = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    gap = np.where(np.isnan(gap), np.inf, gap)
    gap = np.where(wrong, gap, -1.0)
    place = tuple(int(i) for i in np.unravel_index(int(np.argmax(gap)), gap.shape))
    count = int(np.count_nonzero(wrong))
    at = f" at {place if len(place) != 1 else place[0]}" if place else ""
    limit = float(np.broadcast_to(allowed, gap.shape)[place])
    return (
        f"{count} of {gap.size} elements differ; the worst{at}: expected {expected[place]}, actual {actual[place]}, "
        f"off by {gap[place]:.3g} (allowed {limit:.3g})"
    )
