"""`parity matlab`: the function that records a run in MATLAB."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["matlab"]


def matlab(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write parity_record.m.")],
) -> int:
    """Write a MATLAB function that runs a network with your own MatConvNet and records it for `parity compare`."""
    from importlib.resources import files

    from parity.errors import BadUsage
    from parity.reports.output import show, write

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadUsage(f"--output {output}: cannot be made ({error.strerror or error})") from None
    target = output / "parity_record.m"
    source = files("parity.frameworks.matconvnet") / "matlab" / "parity_record.m"
    write(target, source.read_text(encoding="utf-8"), "--output")
    show(
        f"wrote {target}\n\n"
        "In MATLAB (or Octave), with MatConvNet set up:\n\n"
        f"  addpath('{output}')\n"
        "  % a SimpleNN\n"
        "  parity_record(net, {images, labels}, 'run.mat')\n"
        "  % a DagNN\n"
        "  parity_record(net, {'input', images, 'label', labels}, 'run.mat')\n\n"
        "Then, anywhere:\n\n"
        "  parity compare --ref run.mat --keras model.h5\n\n"
        "`help parity_record` lists its options."
    )
    return 0
