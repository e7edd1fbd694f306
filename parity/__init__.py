"""parity finds the first place where a Keras model and its MatConvNet reference part, and says why.

    import parity

    report = parity.compare(ref="net.mat", keras="model.h5", batch="batch.npz")
    print(report.verdict, report.first_divergence)

Importing this package loads no framework: `compare` and `inspect` import what they need when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parity.errors import BadFile, BadUsage, CannotCompare, ParityError, Refused
from parity.report import Finding, FirstDivergence, Report
from parity.testing import NotInParity, assert_parity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from pathlib import Path

    from parity.debugger.stepper import Stepper
    from parity.inspection import Inspection

__all__ = [
    "BadFile",
    "BadUsage",
    "CannotCompare",
    "Finding",
    "FirstDivergence",
    "Inspection",
    "NotInParity",
    "ParityError",
    "Refused",
    "Report",
    "__version__",
    "assert_parity",
    "compare",
    "debug",
    "inspect",
    "record",
]

__version__ = "0.1.0"


def compare(ref: Any, keras: Any, batch: Any = None, **options: Any) -> Report:
    """Load identical weights into both sides, feed them the same batch, and compare them layer by layer.

    Args:
        ref: the reference: path of a MatConvNet file, or a live object that parity can run.
        keras: path of a `.keras` or `.h5` file, or a Keras model in memory.
        batch: path of an `.npz` or `imdb.mat`, a mapping with `x` and `y`, or a `parity.batch.Batch`; None makes a
            seeded probe batch.
        **options: those of `parity.session.check_and_fix` (mode, weights, steps, map, custom_objects, rtol, atol, seed,
            only, allow, progress …), and `verify`; the command line has the same ones.

    Returns:
        The report; it never raises because of a divergence.

    Raises:
        ParityError: a file cannot be read, the options do not go together, or nothing can be compared.
    """
    from parity.session import check

    return check(ref=ref, keras=keras, batch=batch, **options)


def debug(ref: Any, keras: Any, batch: Any = None, *, screen: bool | None = None, **options: Any) -> Stepper:
    """Step through both sides in lockstep: forward, loss, backward and updates.

    Args:
        ref: as in `compare`; a recorded trace too.
        keras: as in `compare`; a recorded trace too.
        batch: as in `compare`.
        screen: open the application; by default where standard input and output are a terminal.
        **options: those of `parity.Stepper.open` (mode, weights, steps, seed, only, strict, memory, map …).

    Returns:
        The stepper: at its start, or where the application left it. A model in memory is stepped itself; `close` (or
        leaving `with parity.debug(...) as stepper`) gives it its own weights back.

    Raises:
        ParityError: a file cannot be read, the options do not go together, or nothing can be compared.
    """
    import sys

    from parity.debugger.stepper import Stepper

    stepper = Stepper.open(ref, keras, batch, **options)
    if screen is None:
        screen = sys.stdin.isatty() and sys.stdout.isatty() and not hasattr(sys, "ps1")
    if screen:
        from parity.debugger.app import DebuggerApp
        from parity.debugger.commands import Commands

        with stepper:
            DebuggerApp(stepper, Commands(stepper)).run()
    return stepper


def inspect(path: str | PathLike[str], input_size: Sequence[int] | None = None) -> Inspection:
    """Read a MatConvNet or Keras file and list its layers, parameters and recipe; nothing in it is built or run.

    Args:
        path: the file.
        input_size: (h, w) or (h, w, c) to work sizes, receptive fields and memory out for, where the file leaves the
            input's extents open; a MatConvNet file takes any that its layers fit.

    Raises:
        BadFile: the file is missing, damaged, or of a kind that parity does not know.
        BadUsage: the input size is none.
        CannotCompare: the network does not fit it.
    """
    from parity.inspection import inspect_file

    return inspect_file(path, input_size)


def record(
    output: str | PathLike[str],
    *,
    ref: Any = None,
    keras: Any = None,
    batch: Any = None,
    **options: Any,
) -> Path:
    """Run one side and record every probe of it in one file, which can stand for that side in `compare`.

    Args:
        output: where the trace goes; it is written whole or not at all.
        ref: the reference to record: path of a MatConvNet file, or a live object that parity can run.
        keras: the Keras model to record; with `ref` beside it, it takes the reference's weights first.
        batch: as for `compare`.
        **options: those of `parity.traces.capture.record` (mode, steps, seed, tensors, how, progress).

    Returns:
        The path of the trace.

    Raises:
        ParityError: a file cannot be read or run, the options do not go together, or the trace cannot be written.
    """
    from parity.traces.capture import record

    return record(output, ref=ref, keras=keras, batch=batch, **options)


def __getattr__(name: str) -> Any:
    if name == "Inspection":
        from parity.inspection import Inspection

        return Inspection
    if name == "Stepper":
        from parity.debugger.stepper import Stepper

        return Stepper
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
